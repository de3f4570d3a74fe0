package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"time"

	"barnabas/barnabastest"
	"barnabas/client"
)

// Example sends a record and reads it back.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	p, err := c.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	where, err := p.SendSync(ctx, client.ProducerRecord{Topic: "greetings", Value: []byte("hello")})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}

	k, err := c.NewConsumer()
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	at := client.TopicPartition{Topic: where.Topic, Partition: where.Partition}
	if err := k.Assign(map[client.TopicPartition]client.Position{at: client.AtOffset(where.Offset)}); err != nil {
		log.Fatal(err)
	}
	records, err := k.Poll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(records[0].Value))
	// Output: hello
}

// ExampleProducer_Send sends without waiting: callbacks tell what became of each record, in the
// order of their partition.
func ExampleProducer_Send() {
	ctx := context.Background()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial), client.ID("price-feed"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer(client.Compression(client.Zstd), client.Linger(20*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	for _, symbol := range []string{"AAPL", "MSFT"} {
		r := client.ProducerRecord{Topic: "prices", Key: []byte(symbol), Value: []byte("1.0")}
		err := p.Send(ctx, r, func(m client.RecordMetadata, err error) {
			if err != nil {
				log.Printf("%s was not written: %v", symbol, err)
				return
			}
			fmt.Printf("%s is at offset %d of partition %d\n", symbol, m.Offset, m.Partition)
		})
		switch {
		case errors.Is(err, client.ErrUnknownTopicOrPartition):
			log.Fatal("make the topic first")
		case err != nil:
			log.Fatal(err)
		}
	}
	deadline, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := p.Close(deadline); err != nil { // sends what waits, and runs the callbacks
		log.Fatal(err)
	}
	// Output:
	// AAPL is at offset 0 of partition 0
	// MSFT is at offset 1 of partition 0
}

// ExampleConsumer_Poll reads all of a topic since an hour ago, and then what comes.
func ExampleConsumer_Poll() {
	ctx := context.Background()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	broker.Produce("prices", "1.00", "1.05", "0.95")

	k, err := c.NewConsumer(client.AutoOffsetReset(client.Earliest))
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	if err := k.AssignTopic(ctx, "prices", client.AtTime(time.Now().Add(-time.Hour))); err != nil {
		log.Fatal(err)
	}
	for read := 0; read < 3; { // others go on until ctx ends
		records, err := k.Poll(ctx)
		var broken *client.PartitionError
		switch {
		case errors.As(err, &broken):
			log.Printf("skipping %v: %v", broken.TopicPartition, broken.Err)
			continue
		case err != nil:
			log.Fatal(err)
		}
		for _, r := range records {
			fmt.Printf("%v@%d %s\n", r.TopicPartition(), r.Offset, r.Value)
		}
		read += len(records)
	}
	// Output:
	// prices-0@0 1.00
	// prices-0@1 1.05
	// prices-0@2 0.95
}

func ExampleKeyPartition() {
	fmt.Println(client.KeyPartition([]byte("JFK"), 12))
	// Output: 1
}

func ExampleToPartition() {
	r := client.ProducerRecord{Topic: "orders", Partition: client.ToPartition(3)}
	n, asked := r.Partition.Get()
	fmt.Println(n, asked)
	// Output: 3 true
}

func ExampleError() {
	err := fmt.Errorf("create topic: %w", client.ErrTopicAlreadyExists)
	var code client.Error
	fmt.Println(errors.Is(err, client.ErrTopicAlreadyExists), errors.As(err, &code), code.Name(), code.Retriable())
	// Output: true true TOPIC_ALREADY_EXISTS false
}

// ExampleClient_NewGroupConsumer reads orders together with the other members of a group, and
// commits each lot once it is done with.
func ExampleClient_NewGroupConsumer() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	broker.Produce("orders", "a book", "a lamp")

	g, err := c.NewGroupConsumer("billing",
		client.NoAutoCommit(),
		client.AutoOffsetReset(client.Earliest),
		client.Assignors(client.CooperativeStickyAssignor))
	if err != nil {
		log.Fatal(err)
	}
	if err := g.Subscribe("orders", "refunds"); err != nil {
		log.Fatal(err)
	}
	for read := 0; read < 2; { // others go on until ctx ends
		records, err := g.Poll(ctx)
		if err != nil {
			log.Print(err)
			break
		}
		for _, r := range records {
			fmt.Printf("%v@%d %s\n", r.TopicPartition(), r.Offset, r.Value)
		}
		if err := g.Commit(ctx); err != nil {
			log.Print(err) // the partitions are somebody else's now: these records come again there
		}
		read += len(records)
	}
	leave, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Close(leave); err != nil {
		log.Print(err)
	}
	// Output:
	// orders-0@0 a book
	// orders-0@1 a lamp
}

// ExampleOnRevoked keeps sums of what it reads, and stores them before somebody else goes on.
func ExampleOnRevoked() {
	ctx := context.Background()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	broker.Produce("orders.eu", "three", "four")

	sums := map[client.TopicPartition]int{}
	g, err := c.NewGroupConsumer("sums", client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest),
		client.OnRevoked(func(ctx context.Context, g *client.GroupConsumer, partitions []client.TopicPartition) {
			for _, tp := range partitions {
				fmt.Println("store", tp, sums[tp])
				delete(sums, tp)
			}
			if err := g.Commit(ctx); err != nil {
				log.Print(err)
			}
		}),
		client.OnLost(func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
			for _, tp := range partitions {
				delete(sums, tp) // somebody else has gone on from the latest commit
			}
		}))
	if err != nil {
		log.Fatal(err)
	}
	if err := g.SubscribeMatching(regexp.MustCompile(`orders\..*`)); err != nil {
		log.Fatal(err)
	}
	for read := 0; read < 2; {
		records, err := g.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, r := range records {
			sums[r.TopicPartition()] += len(r.Value)
		}
		read += len(records)
	}
	if err := g.Close(ctx); err != nil { // gives the partitions up
		log.Print(err)
	}
	// Output: store orders.eu-0 9
}

// ExampleProducer_SendOffsets copies a topic exactly once: what was read counts as read when what
// was written because of it counts as written, or neither does.
func ExampleProducer_SendOffsets() {
	ctx := context.Background()
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	g, err := c.NewGroupConsumer("copier", client.NoAutoCommit(), client.IsolationLevel(client.ReadCommitted))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = g.Close(ctx) }() // commits nothing by itself
	if err := g.Subscribe("orders"); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.TransactionalID("copier-1"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = p.Close(ctx) }() // aborts what is open
	if err := p.InitTransactions(ctx); err != nil {
		log.Fatal(err)
	}
	for {
		records, err := g.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if err := p.Begin(); err != nil {
			log.Fatal(err) // ErrProducerFenced: another copier-1 has taken over
		}
		read := map[client.TopicPartition]client.OffsetAndMetadata{}
		for _, r := range records {
			if err := p.Send(ctx, client.ProducerRecord{Topic: "copies", Key: r.Key, Value: r.Value}, nil); err != nil {
				break // that has failed the transaction, as Commit tells
			}
			read[r.TopicPartition()] = client.OffsetAndMetadata{Offset: r.Offset + 1, LeaderEpoch: client.InEpoch(r.LeaderEpoch)}
		}
		err = errors.Join(p.SendOffsets(ctx, read, g.Membership()), p.Commit(ctx))
		if !errors.Is(err, client.ErrTransactionAborted) && err != nil {
			log.Fatal(err)
		}
		if err != nil { // undo, and read the same records again
			if err := p.Abort(ctx); err != nil {
				log.Fatal(err)
			}
			first := records[0] // all are of one partition
			if err := g.Seek(first.TopicPartition(), client.AtOffset(first.Offset)); err != nil {
				log.Printf("given to another member: %v", err)
			}
		}
	}
}

// ExampleSpreadBy lets records without a key fill whole batches, and gives slow brokers less.
func ExampleSpreadBy() {
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer(client.SpreadBy(client.SpreadUniformly), client.WhenBufferFull(client.FailWhenFull))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = p.Close(context.Background()) }()
}
