package typed_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/client/typed"
)

// Order is what this program's records are about.
type Order struct {
	Customer string
	Cents    int64
}

// Example sends an order, and reads orders.
func Example() {
	ctx := context.Background()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	producer, err := c.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = producer.Close(ctx) }()
	p := typed.NewProducer(producer, typed.Integer[int64]{}, typed.JSON[Order]{})
	if _, err := p.SendSync(ctx, typed.ProducerRecord[int64, Order]{Topic: "orders", Key: 42, Value: Order{"Klamm", 1250}}); err != nil {
		log.Fatal(err)
	}

	group, err := c.NewGroupConsumer("billing", client.AutoOffsetReset(client.Earliest))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = group.Close(ctx) }()
	if err := group.Subscribe("orders"); err != nil {
		log.Fatal(err)
	}
	orders := typed.NewConsumer(group, typed.Integer[int64]{}, typed.JSON[Order]{})
	records, err := orders.Poll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range records {
		fmt.Printf("order %d at offset %d: %s owes %d\n", r.Key, r.Offset, r.Value.Customer, r.Value.Cents)
	}
	// Output: order 42 at offset 0: Klamm owes 1250
}

// ExampleOnPoison puts what cannot be read into a topic of its own, and reads on.
func ExampleOnPoison() {
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	producer, err := c.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = producer.Close(context.Background()) }()
	group, err := c.NewGroupConsumer("billing")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = group.Close(context.Background()) }()
	deadLetter := typed.DeadLetters(producer, "orders-dead")
	_ = typed.NewConsumer(group, typed.None{}, typed.JSON[Order]{Strict: true},
		typed.OnPoison(func(ctx context.Context, bad *typed.PoisonError) error {
			log.Print(bad) // orders-3 at offset 17: the value cannot be read: …
			return deadLetter(ctx, bad)
		}))
}

// ExampleConsumer_Skip looks at each record that cannot be read, and then reads on behind it.
func ExampleConsumer_Skip() {
	ctx := context.Background()
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	from, err := c.NewConsumer()
	if err != nil {
		log.Fatal(err)
	}
	defer from.Close()
	if err := from.AssignTopic(ctx, "orders", client.Earliest); err != nil {
		log.Fatal(err)
	}
	orders := typed.NewConsumer(from, typed.None{}, typed.JSON[Order]{})
	for {
		records, err := orders.Poll(ctx)
		var bad *typed.PoisonError
		switch {
		case errors.As(err, &bad):
			fmt.Printf("what is %q?\n", bad.Record.Value)
			if err := orders.Skip(bad); err != nil {
				log.Fatal(err)
			}
		case err != nil:
			log.Fatal(err)
		}
		for _, r := range records {
			fmt.Println(r.Value.Customer)
		}
	}
}

// ExampleOf writes numbers as text, by two functions.
func ExampleOf() {
	text := typed.Of(
		func(n int) ([]byte, error) { return strconv.AppendInt(nil, int64(n), 10), nil },
		func(data []byte) (int, error) { return strconv.Atoi(string(data)) })
	data, err := text.Serialize(context.Background(), "numbers", nil, 1250)
	fmt.Printf("%q %v\n", data, err)
	_, err = text.Deserialize(context.Background(), "numbers", nil)
	fmt.Println(err)
	// Output:
	// "1250" <nil>
	// null
}

// ExampleOptional deletes an order from a compacted topic: a nil value is a tombstone.
func ExampleOptional() {
	orders := typed.Optional(typed.JSON[Order]{})
	for _, v := range []*Order{{"Klamm", 1250}, nil} {
		data, err := orders.Serialize(context.Background(), "orders", nil, v)
		fmt.Println(string(data), data == nil, err)
	}
	// Output:
	// {"Customer":"Klamm","Cents":1250} false <nil>
	//  true <nil>
}
