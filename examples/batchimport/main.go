// Command batchimport writes each line of its standard input as a record: large compressed batches,
// waiting where the broker is slower than the input, and nothing counts as done before it is on disk.
//
//	go run ./examples/batchimport -topic flights < examples/flights/flights-1k.jsonl
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"barnabas/client"
)

const maxLine = 1 << 20 // bytes; a longer one is refused, as max.request.size would

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	topic := flag.String("topic", "lines", "topic to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	began := time.Now()
	written, err := load(ctx, *broker, *topic, os.Stdin)
	fmt.Printf("%d records\n", written)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("%.0f records/s", float64(written)/time.Since(began).Seconds())
}

func load(ctx context.Context, broker, topic string, from io.Reader) (written int, err error) {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	p, err := c.NewProducer(
		client.Compression(client.Zstd),
		client.BatchSize(256<<10), client.Linger(50*time.Millisecond), // large batches: nobody waits for a single record
		client.SpreadBy(client.SpreadUniformly),
		client.BufferMemory(64<<20), client.WhenBufferFull(client.WaitWhenFull)) // the input waits for the broker
	if err != nil {
		return 0, err
	}
	var failed error // the first; callbacks run on one goroutine
	tell := func(_ client.RecordMetadata, err error) {
		switch {
		case err == nil:
			written++
		case failed == nil:
			failed = err
		}
	}
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLine)
	for lines.Scan() && err == nil {
		err = p.Send(ctx, client.ProducerRecord{Topic: topic, Value: lines.Bytes()}, tell)
	}
	err = errors.Join(err, lines.Err(), p.Close(ctx)) // Close waits for what is on its way
	return written, errors.Join(err, failed)
}
