// Command sharegroup works on the records of a topic as one member of a share group. Start it as often as you
// like: each record goes to one of them, however few partitions there are. A record whose work takes longer
// than its lock is renewed; one that says "fail" is released, and comes again to whomever, at most three
// times; one that says "never" is rejected. End one with kill -9, and the others get what it held.
//
//	go run ./examples/sharegroup -topic pictures -group thumbnails
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/client/share"
)

func main() {
	brokers := flag.String("brokers", "127.0.0.1:9092", "HOST:PORT,... to ask first")
	topic := flag.String("topic", "pictures", "what to work on")
	group := flag.String("group", "thumbnails", "with whom")
	takes := flag.Duration("takes", 50*time.Millisecond, "how long the work on a record takes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := work(ctx, strings.Split(*brokers, ","), *topic, *group, *takes); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func work(ctx context.Context, brokers []string, topic, group string, takes time.Duration) error {
	c, err := client.New(client.Brokers(brokers...), client.ID("example-sharegroup"))
	if err != nil {
		return err
	}
	defer c.Close()
	// A new group begins behind what is there, unless its configuration says otherwise.
	earliest := admin.ConfigChange{Resource: admin.Group(group), Set: map[string]string{"share.auto.offset.reset": "earliest"}}
	if set, err := admin.New(c).AlterConfigs(ctx, []admin.ConfigChange{earliest}); err != nil || set[0].Err != nil {
		return errors.Join(err, set[0].Err)
	}
	// One at a time: the locks of others would run out while this one is worked on.
	q, err := share.NewConsumer(c, group, share.Explicit(), share.RecordLimit(), share.MaxPollRecords(1))
	if err != nil {
		return err
	}
	if err := q.Subscribe(topic); err != nil {
		return err
	}
	for {
		records, err := q.Poll(ctx)
		if ctx.Err() != nil {
			break // asked to end: what is not acknowledged is released
		}
		if err != nil {
			return err
		}
		for i := range records {
			if err := handle(ctx, q, &records[i], takes); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
	leave, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return q.Close(leave)
}

func handle(ctx context.Context, q *share.Consumer, r *share.Record, takes time.Duration) error {
	done := time.After(takes)
	for working := true; working; {
		lock, _ := q.AcquisitionLockTimeout()
		renew := time.NewTimer(max(lock/3, time.Millisecond))
		select {
		case <-done:
			working = false
		case <-ctx.Done():
			return nil
		case <-renew.C:
			if err := q.Acknowledge(share.Renew, r); err != nil {
				return err // somebody else has it by now
			}
			if _, err := q.Commit(ctx); err != nil {
				return err
			}
		}
		renew.Stop()
	}
	verdict := share.Accept
	switch {
	case string(r.Value) == "never", string(r.Value) == "fail" && r.DeliveryCount >= 3:
		verdict = share.Reject
	case string(r.Value) == "fail":
		verdict = share.Release
	}
	if err := q.Acknowledge(verdict, r); err != nil {
		return err
	}
	// One by one, so that a crash repeats little; the next Poll would send it as well.
	if _, err := q.Commit(ctx); err != nil {
		return err
	}
	fmt.Printf("%v %d %d, delivery %d: %s\n", verdict, r.Partition, r.Offset, r.DeliveryCount, r.Value)
	return nil
}
