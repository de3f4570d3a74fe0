// The program for segmentio/kafka-go: see ../README.md for what it has to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"barnabas/test/compat/clients/program"
)

func main() { program.Main(client{}) }

type client struct{}

var codecs = map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

var acks = map[string]kafka.RequiredAcks{"0": kafka.RequireNone, "1": kafka.RequireOne, "all": kafka.RequireAll}

func (client) About() program.About {
	return program.About{
		Client: "kafka-go", Version: program.ModuleVersion("github.com/segmentio/kafka-go"), Language: "Go",
		Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"}, Acks: []string{"0", "1", "all"},
		Commits: true, Listener: true, Assignors: []string{"range", "roundrobin"},
		Notes: []string{
			"Its writer is never idempotent.",
			"It shares groups with itself alone: its members' subscriptions claim a version whose fields they lack, and those of others are refused for the fields they have.",
		},
	}
}

func (client) Produce(ctx context.Context, p program.Production) error {
	var failed struct {
		sync.Mutex
		err error
	}
	writer := &kafka.Writer{
		Addr: kafka.TCP(p.Brokers...), Topic: p.Topic, Balancer: &kafka.Hash{}, Compression: codecs[p.Codec], RequiredAcks: acks[p.Acks],
		MaxAttempts: 200, WriteBackoffMin: 100 * time.Millisecond, WriteBackoffMax: 250 * time.Millisecond, BatchTimeout: 5 * time.Millisecond,
		Async: true,
		Completion: func(messages []kafka.Message, err error) {
			if err != nil {
				failed.Lock()
				defer failed.Unlock()
				failed.err = err
				return
			}
			for _, m := range messages {
				offset := m.Offset
				if p.Acks == "0" {
					offset = -1
				}
				program.Acked(m.WriterData.(int), int32(m.Partition), offset)
			}
		},
	}
	for i := p.First; i < p.Past; i++ {
		m := kafka.Message{
			Key: []byte(program.Key(i)), Value: []byte(program.Value(i, p.Size)),
			Headers: []kafka.Header{{Key: "n", Value: []byte(program.Header(i))}}, WriterData: i,
		}
		if err := writer.WriteMessages(ctx, m); err != nil {
			return errors.Join(fmt.Errorf("record %d: %w", i, err), writer.Close())
		}
		if p.Pace > 0 {
			time.Sleep(p.Pace)
		}
	}
	err := writer.Close() // waits for what is under way
	failed.Lock()
	defer failed.Unlock()
	return errors.Join(err, failed.err)
}

func (client) Consume(ctx context.Context, r program.Reading) error {
	found, err := kafka.DefaultDialer.LookupPartitions(ctx, "tcp", r.Brokers[0], r.Topic)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type read struct {
		kafka.Message
		err error
	}
	records := make(chan read)
	for _, p := range found {
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: r.Brokers, Topic: r.Topic, Partition: p.ID, MaxWait: 500 * time.Millisecond})
		defer reader.Close()
		go func() {
			for {
				m, err := reader.ReadMessage(ctx)
				select {
				case records <- read{m, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for n := range r.Count {
		select {
		case m := <-records:
			if m.err != nil {
				return fmt.Errorf("after %d records: %w", n, m.err)
			}
			program.Consumed(int32(m.Partition), m.Offset, m.Key, m.Value, header(m.Message))
		case <-ctx.Done():
			return fmt.Errorf("after %d records: %w", n, ctx.Err())
		}
	}
	return nil
}

func header(m kafka.Message) []byte {
	for _, h := range m.Headers {
		if h.Key == "n" {
			return h.Value
		}
	}
	return nil
}

// errorName is Kafka's name for what a call returned.
func errorName(err error) string {
	var refused kafka.Error
	var written kafka.WriteErrors
	var tooLarge kafka.MessageTooLargeError
	switch {
	case err == nil:
		return "NONE"
	case errors.As(err, &written):
		for _, one := range written {
			if one != nil {
				return errorName(one)
			}
		}
		return "NONE"
	case errors.As(err, &refused):
		return program.ErrorName(int(refused))
	case errors.As(err, &tooLarge):
		return program.ErrorName(int(kafka.MessageSizeTooLarge))
	}
	return err.Error()
}
