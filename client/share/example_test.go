package share_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"barnabas/client"
	"barnabas/client/share"
)

func convert(context.Context, []byte) error { return nil }

// A worker: what fails is released and comes again, to whomever, up to the group's limit.
func ExampleConsumer() {
	ctx := context.Background()
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	q, err := share.NewConsumer(c, "thumbnails", share.Explicit())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = q.Close(ctx) }()
	if err := q.Subscribe("pictures"); err != nil {
		log.Fatal(err)
	}
	for {
		records, err := q.Poll(ctx)
		if err != nil {
			log.Print(err)
			return
		}
		for i := range records {
			r := &records[i]
			verdict := share.Accept
			if err := convert(ctx, r.Value); err != nil {
				verdict = share.Release
			}
			if err := q.Acknowledge(verdict, r); errors.Is(err, share.ErrLost) {
				log.Printf("%v offset %d took too long: somebody gets it again", r.TopicPartition(), r.Offset)
			}
		}
	}
}

// Work that takes longer than the lock renews it in time.
func ExampleConsumer_Acknowledge() {
	work := func(ctx context.Context, q *share.Consumer, r *share.Record, done <-chan struct{}) error {
		for {
			select {
			case <-time.After(time.Until(r.LockedUntil) / 3):
				if err := q.Acknowledge(share.Renew, r); err != nil {
					return err // it is lost
				}
				if _, err := q.Commit(ctx); err != nil {
					return err
				}
			case <-done:
				return q.Acknowledge(share.Accept, r)
			}
		}
	}
	_ = work
	fmt.Println(share.Renew)
	// Output: renew
}
