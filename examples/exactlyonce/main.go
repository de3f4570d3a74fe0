// Command exactlyonce copies a topic, each record once, though it be killed at any point: what was
// read counts as read when what was written because of it counts as written, or neither does.
// Whoever reads the copy with read_committed sees no trace of what was undone.
//
//	go run ./examples/exactlyonce -from orders -to copies
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"barnabas/client"
)

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	from := flag.String("from", "orders", "topic to read")
	to := flag.String("to", "copies", "topic to write")
	id := flag.String("id", "copier-1", "of this copier: one started under the same id takes over from it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := client.New(client.Brokers(*broker))
	if err != nil {
		log.Fatal(err)
	}
	if err := copyAll(ctx, c, *from, *to, *id); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func copyAll(ctx context.Context, c *client.Client, from, to, id string) error {
	g, err := c.NewGroupConsumer("copiers", client.InstanceID(id), client.NoAutoCommit(),
		client.AutoOffsetReset(client.Earliest), client.IsolationLevel(client.ReadCommitted))
	if err != nil {
		return err
	}
	defer func() { _ = g.Close(context.WithoutCancel(ctx)) }()
	if err := g.Subscribe(from); err != nil {
		return err
	}
	p, err := c.NewProducer(client.TransactionalID(id))
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(context.WithoutCancel(ctx)) }() // aborts what is open
	if err := p.InitTransactions(ctx); err != nil {
		return err
	}
	for {
		records, err := g.Poll(ctx) // all of one partition
		if err != nil {
			return err
		}
		err = copyOnce(ctx, p, g, records, to)
		if errors.Is(err, client.ErrTransactionAborted) { // nothing of it counts: read the same again
			if err = p.Abort(ctx); err == nil {
				err = g.Seek(records[0].TopicPartition(), client.AtOffset(records[0].Offset))
			}
			if errors.Is(err, client.ErrNotAssigned) {
				err = nil // another copier reads it by now
			}
		}
		if err != nil {
			return err
		}
		fmt.Printf("%d records of %v\n", len(records), records[0].TopicPartition())
	}
}

// copyOnce is one transaction.
func copyOnce(ctx context.Context, p *client.Producer, g *client.GroupConsumer, records []client.Record, to string) error {
	if err := p.Begin(); err != nil {
		return err
	}
	for _, r := range records {
		if err := p.Send(ctx, client.ProducerRecord{Topic: to, Key: r.Key, Value: r.Value, Headers: r.Headers}, nil); err != nil {
			return err
		}
	}
	last := records[len(records)-1]
	read := map[client.TopicPartition]client.OffsetAndMetadata{last.TopicPartition(): {Offset: last.Offset + 1, LeaderEpoch: client.InEpoch(last.LeaderEpoch)}}
	return errors.Join(p.SendOffsets(ctx, read, g.Membership()), p.Commit(ctx))
}
