// Command typedrecords writes and reads orders as Go values, in JSON. One record in the topic is no
// order: it goes to a topic for such, and reading goes on.
//
//	go run ./examples/typedrecords
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"barnabas/client"
	"barnabas/client/typed"
)

type order struct {
	Customer string
	Cents    int64
}

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	flag.Parse()
	if err := run(context.Background(), *broker); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, broker string) error {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.NewProducer()
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close(ctx) }()

	p := typed.NewProducer(raw, typed.Integer[int64]{}, typed.JSON[order]{})
	for id, o := range []order{{"Klamm", 1250}, {"Frieda", 300}, {"Olga", 75}} {
		if id == 1 { // somebody writes what is no order
			if _, err := raw.SendSync(ctx, client.ProducerRecord{Topic: "orders", Value: []byte("hello?")}); err != nil {
				return err
			}
		}
		if _, err := p.SendSync(ctx, typed.ProducerRecord[int64, order]{Topic: "orders", Key: int64(id), Value: o}); err != nil {
			return err
		}
	}

	g, err := c.NewGroupConsumer("billing", client.AutoOffsetReset(client.Earliest))
	if err != nil {
		return err
	}
	defer func() { _ = g.Close(ctx) }()
	if err := g.Subscribe("orders"); err != nil {
		return err
	}
	deadLetter := typed.DeadLetters(raw, "orders-dead")
	k := typed.NewConsumer(g, typed.Integer[int64]{}, typed.JSON[order]{}, typed.OnPoison(func(ctx context.Context, bad *typed.PoisonError) error {
		fmt.Println(bad)
		return deadLetter(ctx, bad)
	}))
	for cents := int64(0); cents < 1625; {
		records, err := k.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			fmt.Printf("order %d: %s owes %d\n", r.Key, r.Value.Customer, r.Value.Cents)
			cents += r.Value.Cents
		}
	}
	return nil
}
