// Command counter is a member of a group that counts flights and sums their delays per airport. Per
// partition it keeps the next offset and the sums in one file that is replaced as a whole, so a flight
// that comes again counts once, whoever read it first.
//
//	counter --brokers B --topic T --group G --assignor range --state DIR
//
// What it prints is described in flights_group_test.go, one folder up. SIGTERM: it leaves the group and
// ends. It is a program of its own, so that it can be killed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"barnabas/client"
)

const (
	session   = 6 * time.Second
	heartbeat = time.Second
	atOnce    = 10_000 // records of one partition, counted and saved together
	patience  = time.Minute
)

func main() {
	brokers := flag.String("brokers", "", "where the cluster is reached, `HOST:PORT`")
	topic := flag.String("topic", "", "the flights' `TOPIC`")
	group := flag.String("group", "", "the `GROUP`")
	assignor := flag.String("assignor", "", "how the group divides partitions, by `NAME`")
	state := flag.String("state", "", "the `FOLDER` with a file for each partition")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *brokers, *topic, *group, client.Assignor(*assignor), newLedger(*state)); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, brokers, topic, group string, assignor client.Assignor, l *ledger) error {
	c, err := client.New(client.Brokers(brokers), client.ID("counter"))
	if err != nil {
		return err
	}
	defer c.Close()
	var failed error // of a callback
	g, err := c.NewGroupConsumer(group, client.Assignors(assignor), client.SessionTimeout(session), client.HeartbeatInterval(heartbeat),
		client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest), client.MaxPollRecords(atOnce),
		client.OnAssigned(func(ctx context.Context, g *client.GroupConsumer, partitions []client.TopicPartition) {
			failed = errors.Join(failed, take(ctx, g, l, partitions))
		}),
		client.OnRevoked(func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
			l.drop(partitions)
		}))
	if err != nil {
		return err
	}
	if err := g.Subscribe(topic); err != nil {
		return err
	}
	for {
		records, err := g.Poll(ctx)
		if ctx.Err() != nil {
			break
		}
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		if err := work(ctx, g, l, records); err != nil {
			return err
		}
	}
	leaving, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.Close(leaving); err != nil {
		return err
	}
	tell(map[string]any{"left": true})
	return nil
}

// take goes on where the partitions' files end.
func take(ctx context.Context, g *client.GroupConsumer, l *ledger, partitions []client.TopicPartition) error {
	asked := time.Now()
	committed, err := g.Committed(ctx, partitions...)
	if err != nil {
		return err
	}
	for _, tp := range partitions {
		next, err := l.load(tp.Partition)
		if err != nil {
			return err
		}
		if err := g.Seek(tp, client.AtOffset(next)); err != nil {
			return err
		}
		at := int64(-1)
		if o, some := committed[tp]; some {
			at = o.Offset
		}
		tell(map[string]any{"took": map[string]any{"partition": tp.Partition, "committed": at, "next": next}, "at": asked.UnixMilli()})
	}
	return nil
}

// work counts records of one partition, saves the sums and commits.
func work(ctx context.Context, g *client.GroupConsumer, l *ledger, records []client.Record) error {
	for _, r := range records {
		if err := l.count(r.Partition, r.Offset, string(r.Key), r.Value); err != nil {
			return err
		}
	}
	tp := records[0].TopicPartition()
	next, err := l.save(tp.Partition)
	if err != nil {
		return err
	}
	tell(map[string]any{"saved": map[string]any{"partition": tp.Partition, "next": next}})
	err = g.CommitOffsets(ctx, map[client.TopicPartition]client.OffsetAndMetadata{tp: {Offset: next}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err) // the next one, or the next owner's, makes up for it
		return nil
	}
	tell(map[string]any{"committed": map[int32]int64{tp.Partition: next}, "at": time.Now().UnixMilli()})
	return nil
}
