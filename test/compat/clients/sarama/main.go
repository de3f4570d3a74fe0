// The program for sarama: see ../README.md for what it has to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"barnabas/test/compat/clients/program"
)

func main() { program.Main(client{}) }

type client struct{}

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

var acks = map[string]sarama.RequiredAcks{"0": sarama.NoResponse, "1": sarama.WaitForLocal, "all": sarama.WaitForAll}

func (client) About() program.About {
	return program.About{
		Client: "sarama", Version: program.ModuleVersion("github.com/IBM/sarama"), Language: "Go",
		Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"}, Acks: []string{"0", "1", "all"},
		Idempotent: true, Static: true, Commits: true, Listener: true,
		Assignors: []string{"range", "roundrobin", "sticky", "cooperative-sticky"},
		Notes:     []string{"A group's commit does not say whether the broker took it; the program asks for the offsets afterwards."},
	}
}

// config is the library's own, patient enough for a broker that restarts.
func config() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = "sarama"
	c.Metadata.Retry.Max, c.Metadata.Retry.Backoff = 200, 250*time.Millisecond
	c.Producer.Retry.Max, c.Producer.Retry.Backoff = 200, 250*time.Millisecond
	return c
}

func (client) Produce(ctx context.Context, p program.Production) error {
	c := config()
	c.Producer.Compression, c.Producer.RequiredAcks = codecs[p.Codec], acks[p.Acks]
	c.Producer.Return.Successes = true
	c.Producer.Idempotent = p.Idempotent
	c.Net.MaxOpenRequests = 1 // keeps the order when a request is sent again
	producer, err := sarama.NewAsyncProducer(p.Brokers, c)
	if err != nil {
		return err
	}
	go func() {
		for i := p.First; i < p.Past; i++ {
			m := &sarama.ProducerMessage{
				Topic: p.Topic, Key: sarama.StringEncoder(program.Key(i)), Value: sarama.StringEncoder(program.Value(i, p.Size)),
				Headers: []sarama.RecordHeader{{Key: []byte("n"), Value: []byte(program.Header(i))}}, Metadata: i,
			}
			select {
			case producer.Input() <- m:
			case <-ctx.Done():
				return
			}
			if p.Pace > 0 {
				time.Sleep(p.Pace)
			}
		}
	}()
	// Closed only when all is acknowledged: a producer that closes refuses what it would have to send again.
	if err := collect(ctx, producer, p); err != nil {
		return err // the process ends with it, and the sender too
	}
	return producer.Close()
}

// collect prints acknowledgements until every record has one.
func collect(ctx context.Context, producer sarama.AsyncProducer, p program.Production) error {
	for acked := 0; acked < p.Past-p.First; {
		select {
		case m := <-producer.Successes():
			acked++
			offset := m.Offset
			if p.Acks == "0" {
				offset = -1
			}
			program.Acked(m.Metadata.(int), m.Partition, offset)
		case failed := <-producer.Errors():
			return fmt.Errorf("record %v: %w", failed.Msg.Metadata, failed.Err)
		case <-ctx.Done():
			return fmt.Errorf("after %d acknowledgements: %w", acked, ctx.Err())
		}
	}
	return nil
}

func (client) Consume(ctx context.Context, r program.Reading) error {
	consumer, err := sarama.NewConsumer(r.Brokers, config())
	if err != nil {
		return err
	}
	defer consumer.Close()
	partitions, err := consumer.Partitions(r.Topic)
	if err != nil {
		return err
	}
	records := make(chan *sarama.ConsumerMessage)
	stop := make(chan struct{})
	defer close(stop)
	for _, p := range partitions {
		reader, err := consumer.ConsumePartition(r.Topic, p, sarama.OffsetOldest)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		defer reader.AsyncClose()
		go func() {
			for m := range reader.Messages() {
				select {
				case records <- m:
				case <-stop:
					return
				}
			}
		}()
	}
	for read := range r.Count {
		select {
		case m := <-records:
			program.Consumed(m.Partition, m.Offset, m.Key, m.Value, header(m))
		case <-ctx.Done():
			return fmt.Errorf("after %d records: %w", read, ctx.Err())
		}
	}
	return nil
}

func header(m *sarama.ConsumerMessage) []byte {
	for _, h := range m.Headers {
		if string(h.Key) == "n" {
			return h.Value
		}
	}
	return nil
}

// errorName is Kafka's name for what a call returned.
func errorName(err error) string {
	var kafka sarama.KError
	switch {
	case err == nil:
		return "NONE"
	case errors.As(err, &kafka):
		return program.ErrorName(int(kafka))
	}
	return err.Error()
}
