// Command callbacks writes records without waiting for each: a function is called with what became
// of it. Callbacks of a partition run in the order in which its records were sent.
//
//	go run ./examples/callbacks -records 100000
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"barnabas/client"
)

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	records := flag.Int("records", 1000, "how many to send")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := send(ctx, *broker, *records); err != nil {
		log.Fatal(err)
	}
}

func send(ctx context.Context, broker string, records int) error {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.NewProducer(client.Linger(5 * time.Millisecond))
	if err != nil {
		return err
	}

	written, failed := 0, 0 // callbacks run on one goroutine, and Close waits for all of them
	for n := range records {
		r := client.ProducerRecord{Topic: "callbacks", Value: fmt.Appendf(nil, "record %d", n)}
		err := p.Send(ctx, r, func(where client.RecordMetadata, err error) {
			if err != nil {
				log.Printf("record %d: %v", n, err)
				failed++
				return
			}
			written++
		})
		if err != nil { // it was not taken: no callback comes
			log.Printf("record %d: %v", n, err)
			failed++
		}
	}

	deadline, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = p.Close(deadline)
	fmt.Printf("%d written, %d failed\n", written, failed)
	return err
}
