// Command timetravel reads what was written to a topic between two times, and ends.
//
//	go run ./examples/timetravel -topic prices -from 2026-01-31T10:00:00Z -to 2026-01-31T11:00:00Z
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
)

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	topic := flag.String("topic", "prices", "topic to read")
	from, to := time.Now().Add(-time.Hour), time.Now()
	flag.TextVar(&from, "from", from, "the first timestamp that is read")
	flag.TextVar(&to, "to", to, "the first that is no longer read")
	flag.Parse()
	if err := travel(context.Background(), *broker, *topic, from, to); err != nil {
		log.Fatal(err)
	}
}

func travel(ctx context.Context, broker, topic string, from, to time.Time) error {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		return err
	}
	defer c.Close()
	ends, err := firstSince(ctx, c, topic, to)
	if err != nil {
		return err
	}
	k, err := c.NewConsumer()
	if err != nil {
		return err
	}
	defer k.Close()
	starts, err := firstSince(ctx, c, topic, from)
	if err != nil {
		return err
	}
	read := map[client.TopicPartition]client.Position{}
	left := int64(0)
	for tp, start := range starts {
		if start < ends[tp] {
			read[tp] = client.AtOffset(start)
			left += ends[tp] - start
		}
	}
	if err := k.Assign(read); err != nil {
		return err
	}
	for left > 0 { // in a compacted topic offsets are missing: there, compare Position with the end
		records, err := k.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Offset < ends[r.TopicPartition()] {
				fmt.Printf("%s %s\n", r.Timestamp.UTC().Format(time.RFC3339), r.Value)
				left--
			}
		}
	}
	return nil
}

// firstSince gives the first offset of each partition whose timestamp is t or later, else its end.
func firstSince(ctx context.Context, c *client.Client, topic string, t time.Time) (map[client.TopicPartition]int64, error) {
	partitions, err := c.Partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	since, end := map[client.TopicPartition]admin.OffsetSpec{}, map[client.TopicPartition]admin.OffsetSpec{}
	for n := range partitions {
		tp := client.TopicPartition{Topic: topic, Partition: n}
		since[tp], end[tp] = admin.AtTime(t), admin.Latest
	}
	found := map[client.TopicPartition]int64{}
	for _, specs := range []map[client.TopicPartition]admin.OffsetSpec{end, since} {
		offsets, err := admin.New(c).ListOffsets(ctx, specs, client.ReadUncommitted)
		if err != nil {
			return nil, err
		}
		for _, o := range offsets {
			if o.Err != nil {
				return nil, o.Err
			}
			if o.Offset >= 0 {
				found[o.TopicPartition] = o.Offset
			}
		}
	}
	return found, nil
}
