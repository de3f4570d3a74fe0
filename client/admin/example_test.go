package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/client/admin"
)

func Example() {
	ctx := context.Background()
	broker, end := barnabastest.StartForExample() // in memory; a real one needs Brokers("HOST:PORT") alone
	defer end()
	c, err := client.New(client.Brokers(broker.Addr()), client.Dialer(broker.Dial))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	a := admin.New(c)

	_, err = a.CreateTopic(ctx, admin.NewTopic{
		Name: "orders", Partitions: 12, ReplicationFactor: 1,
		Configs: map[string]string{"retention.ms": "172800000"},
	})
	if err != nil && !errors.Is(err, client.ErrTopicAlreadyExists) {
		log.Fatal(err)
	}
	topics, err := a.DescribeTopics(ctx, "orders", "customers")
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range topics {
		if t.Err != nil {
			fmt.Println(t.Name, t.Err)
			continue
		}
		fmt.Println(t.Name, len(t.Partitions))
	}
	// Output:
	// orders 12
	// customers UNKNOWN_TOPIC_OR_PARTITION (3)
}

func ExampleAdmin_AlterConfigs() {
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	results, err := admin.New(c).AlterConfigs(context.Background(), []admin.ConfigChange{{
		Resource: admin.Topic("orders"),
		Set:      map[string]string{"max.message.bytes": "2000000"},
		Delete:   []string{"retention.ms"},
	}})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			log.Printf("%v: %v", r.Resource, r.Err)
		}
	}
}

func ExampleResource_String() {
	fmt.Println(admin.Topic("orders"), "and", admin.Broker(3), "and", admin.AllBrokers())
	// Output: topic orders and broker 3 and all brokers
}

func ExampleAdmin_Lag() {
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	groups, err := admin.New(c).Lag(context.Background(), client.ReadCommitted, "billing", "shipping")
	if err != nil {
		log.Fatal(err)
	}
	for i := range groups {
		g := &groups[i]
		if g.Err != nil {
			fmt.Println(g.Group, g.Err)
			continue
		}
		fmt.Println(g.Group, g.State, len(g.Members), "members,", g.Total(), "records behind")
	}
}

func ExampleAdmin_AlterGroupOffsets() {
	c, err := client.New()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	results, err := admin.New(c).AlterGroupOffsets(context.Background(), "billing", map[client.TopicPartition]client.OffsetAndMetadata{
		{Topic: "orders", Partition: 0}: {Offset: 1000},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		if errors.Is(r.Err, client.ErrNonEmptyGroup) {
			fmt.Println("stop the consumers first")
		}
	}
}
