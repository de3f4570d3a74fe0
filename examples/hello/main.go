// Command hello writes a record and reads it back.
//
//	go run ./examples/hello
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"barnabas/client"
)

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := hello(ctx, *broker); err != nil {
		log.Fatal(err)
	}
}

func hello(ctx context.Context, broker string) error {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		return err
	}
	defer c.Close()

	p, err := c.NewProducer()
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(ctx) }()
	where, err := p.SendSync(ctx, client.ProducerRecord{Topic: "greetings", Value: []byte("hello")})
	if err != nil {
		return err
	}
	fmt.Printf("wrote it to partition %d at offset %d\n", where.Partition, where.Offset)

	k, err := c.NewConsumer()
	if err != nil {
		return err
	}
	defer k.Close()
	tp := client.TopicPartition{Topic: where.Topic, Partition: where.Partition}
	if err := k.Assign(map[client.TopicPartition]client.Position{tp: client.AtOffset(where.Offset)}); err != nil {
		return err
	}
	records, err := k.Poll(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("read %q\n", records[0].Value)
	return nil
}
