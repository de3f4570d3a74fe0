package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
)

func ExampleAdmin_DescribeShareGroups() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	groups, err := a.DescribeShareGroups(ctx, "thumbnails")
	if err != nil {
		log.Fatal(err)
	}
	if errors.Is(groups[0].Err, client.ErrGroupIDNotFound) {
		log.Fatal("no such group, or none that shares")
	}
	for _, m := range groups[0].Members {
		fmt.Println(m.ID, m.Host, m.Assignment)
	}
}

// A share group without members begins anew at the start of the partition.
func ExampleAdmin_AlterShareGroupOffsets() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	results, err := a.AlterShareGroupOffsets(ctx, "thumbnails", map[client.TopicPartition]int64{{Topic: "pictures", Partition: 0}: 0})
	if err != nil {
		log.Fatal(err)
	}
	if errors.Is(results[0].Err, client.ErrNonEmptyGroup) {
		fmt.Println("stop the consumers first")
	}
}

func ExampleAdmin_DescribeStreamsGroups() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	groups, err := a.DescribeStreamsGroups(ctx, "word-count")
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range groups[0].Members {
		fmt.Println(m.Process, "runs", len(m.Assignment.Active), "of the tasks, and is to run", len(m.Target.Active))
	}
}

// A static member that will not come back is removed, so that others take over what it had.
func ExampleAdmin_RemoveMembersFromGroup() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	results, err := a.RemoveMembersFromGroup(ctx, "billing", []admin.Membership{{InstanceID: "host-7"}}, admin.Because("the host is gone"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(results[0].Err)
}

func ExampleAdmin_AlterReplicaLogDirs() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	results, err := a.AlterReplicaLogDirs(ctx, map[admin.PartitionReplica]string{
		{TopicPartition: client.TopicPartition{Topic: "orders", Partition: 3}, Node: 2}: "/disk2/kafka",
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r.Replica, r.Err)
	}
}

// The topic that was described is deleted, and none that was made under its name meanwhile.
func ExampleAdmin_DeleteTopicsByID() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	topics, err := a.DescribeTopics(ctx, "old-orders")
	if err != nil {
		log.Fatal(err)
	}
	results, err := a.DeleteTopicsByID(ctx, topics[0].ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(results[0].Err)
}

func ExampleAdmin_ListOffsets() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	noon := time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)
	offsets, err := a.ListOffsets(ctx, map[client.TopicPartition]admin.OffsetSpec{
		{Topic: "orders", Partition: 0}: admin.AtTime(noon),
		{Topic: "orders", Partition: 1}: admin.Latest,
	}, client.ReadCommitted)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range offsets {
		fmt.Println(o.TopicPartition, o.Offset, o.Err)
	}
}

// Every partition gets its preferred leader back.
func ExampleAdmin_ElectLeaders() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	elected, err := a.ElectLeaders(ctx, admin.Preferred)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range elected {
		if r.Err != nil {
			log.Printf("%v: %v", r.TopicPartition, r.Err)
		}
	}
}

func ExampleAdmin_DescribeQuorum() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	quorum, err := a.DescribeQuorum(ctx)
	if errors.Is(err, client.ErrUnsupported) {
		log.Fatal("the brokers are older than KRaft: ", err)
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range quorum.Voters {
		fmt.Println(v.Node, "is", quorum.HighWatermark-v.LogEnd, "behind")
	}
}
