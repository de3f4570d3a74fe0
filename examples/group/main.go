// Command group reads a topic as one member of a group and prints what it reads. Start it twice and
// the two share the partitions; end one, even with kill -9, and the other goes on where the group
// has committed.
//
//	go run ./examples/group -topic orders -group billing
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"barnabas/client"
)

func main() {
	brokers := flag.String("brokers", "127.0.0.1:9092", "HOST:PORT,... to ask first")
	topic := flag.String("topic", "orders", "what to read")
	group := flag.String("group", "billing", "with whom")
	session := flag.Duration("session", 45*time.Second, "after how long without a heartbeat a member counts as dead")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := read(ctx, strings.Split(*brokers, ","), *topic, *group, *session); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func read(ctx context.Context, brokers []string, topic, group string, session time.Duration) error {
	c, err := client.New(client.Brokers(brokers...), client.ID("example-group"))
	if err != nil {
		return err
	}
	defer c.Close()
	g, err := c.NewGroupConsumer(group,
		client.NoAutoCommit(),
		client.AutoOffsetReset(client.Earliest),
		client.Assignors(client.CooperativeStickyAssignor),
		client.SessionTimeout(session), client.HeartbeatInterval(session/10),
		client.OnAssigned(tell("assigned")), client.OnRevoked(tell("revoked")), client.OnLost(tell("lost")))
	if err != nil {
		return err
	}
	if err := g.Subscribe(topic); err != nil {
		return err
	}
	for {
		records, err := g.Poll(ctx)
		if ctx.Err() != nil {
			break // asked to end
		}
		if err != nil {
			return err
		}
		for _, r := range records {
			fmt.Printf("record %d %d %s\n", r.Partition, r.Offset, r.Value)
		}
		// Only now are they done with: a member that dies before leaves them to another.
		if err := g.Commit(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		last := records[len(records)-1]
		fmt.Printf("committed %d %d\n", last.Partition, last.Offset+1)
	}
	leave, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return g.Close(leave)
}

func tell(what string) client.Rebalance {
	return func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
		fmt.Println(what, partitions)
	}
}
