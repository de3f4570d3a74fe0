// Command admin makes a topic, looks at it, changes it, and deletes it.
//
//	go run ./examples/admin
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"barnabas/client"
	"barnabas/client/admin"
)

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := manage(ctx, *broker); err != nil {
		log.Fatal(err)
	}
}

func manage(ctx context.Context, broker string) error {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		return err
	}
	defer c.Close()
	a := admin.New(c)

	_, err = a.CreateTopic(ctx, admin.NewTopic{Name: "invoices", Partitions: 3, Configs: map[string]string{"retention.ms": "86400000"}})
	if err != nil && !errors.Is(err, client.ErrTopicAlreadyExists) {
		return err
	}
	// Calls about several things have a result for each, with an error of its own.
	topics, err := a.DescribeTopics(ctx, "invoices", "nonsense")
	if err != nil {
		return err
	}
	for _, t := range topics {
		if t.Err != nil {
			fmt.Printf("%s: %v\n", t.Name, t.Err)
			continue
		}
		fmt.Printf("%s: %d partitions\n", t.Name, len(t.Partitions))
	}

	if _, err := a.AlterConfigs(ctx, []admin.ConfigChange{{Resource: admin.Topic("invoices"), Set: map[string]string{"cleanup.policy": "compact"}}}); err != nil {
		return err
	}
	described, err := a.DescribeConfigs(ctx, []admin.Resource{admin.Topic("invoices")})
	if err != nil {
		return err
	}
	for _, entry := range described[0].Entries {
		if entry.Source == admin.DynamicTopicConfig {
			fmt.Printf("  %s=%s\n", entry.Name, entry.Value)
		}
	}

	deleted, err := a.DeleteTopics(ctx, "invoices")
	if err == nil {
		err = deleted[0].Err
	}
	return err
}
