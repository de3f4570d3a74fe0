//go:build compat

// Command member is a member of a group by the consumer protocol (KIP-848) that can be killed. It
// prints a line for every record that it has read, PARTITION OFFSET after "record", and for every
// position that it has committed, after "committed". SIGTERM: it leaves the group and ends.
//
//	member --brokers B --topic T --group G
package main

import (
	"bufio"
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
	brokers := flag.String("brokers", "", "where the cluster is reached, `HOST:PORT,...`")
	topic := flag.String("topic", "", "the `TOPIC` to read")
	group := flag.String("group", "", "the `GROUP`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := read(ctx, strings.Split(*brokers, ","), *topic, *group); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(ctx context.Context, brokers []string, topic, group string) error {
	c, err := client.New(client.Brokers(brokers...), client.ID("member"))
	if err != nil {
		return err
	}
	defer c.Close()
	g, err := c.NewGroupConsumer(group, client.GroupProtocol(client.ConsumerProtocol), client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest))
	if err != nil {
		return err
	}
	if err := g.Subscribe(topic); err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for {
		records, err := g.Poll(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		for _, r := range records {
			fmt.Fprintln(out, "record", r.Partition, r.Offset)
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if err := g.Commit(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		last := records[len(records)-1]
		fmt.Fprintln(out, "committed", last.Partition, last.Offset+1)
		if err := out.Flush(); err != nil {
			return err
		}
	}
	leave, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return g.Close(leave)
}
