package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/IBM/sarama"

	"barnabas/test/compat/clients/program"
)

// administrator holds what the steps and cases work on.
type administrator struct {
	program.Administration
	ctx context.Context
	adm sarama.ClusterAdmin
}

func (client) Admin(ctx context.Context, a program.Administration) error {
	adm, err := sarama.NewClusterAdmin(a.Brokers, config())
	if err != nil {
		return err
	}
	defer adm.Close()
	do := &administrator{Administration: a, ctx: ctx, adm: adm}
	retention := "3600000"
	err = adm.CreateTopic(a.Topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &retention}}, false)
	program.Step("create-topic", nil, err)
	n, err := do.partitions(3)
	program.Step("describe-topic", n, err)
	value, err := do.retention()
	program.Step("describe-config", value, err)
	value, err = do.alter("7200000")
	program.Step("alter-config", value, err)
	n, err = do.grow(5)
	program.Step("create-partitions", n, err)
	offsets, err := do.offsets()
	program.Step("list-offsets", offsets, err)
	cluster, err := do.cluster()
	program.Step("describe-cluster", cluster, err)
	listed, err := adm.ListConsumerGroups()
	program.Step("list-groups", slices.Sorted(maps.Keys(listed)), err)
	state, err := do.describe()
	program.Step("describe-group", state, err)
	committed, err := do.committed()
	program.Step("fetch-offsets", committed, err)
	earliest, err := do.deleteRecords(10)
	program.Step("delete-records", earliest, err)
	program.Step("delete-group", nil, adm.DeleteConsumerGroup(a.Group))
	program.Step("delete-topic", nil, adm.DeleteTopic(a.Topic))
	return nil
}

// partitions counts them, again until there are so many.
func (do *administrator) partitions(want int) (n int, err error) {
	program.Again(do.ctx, func() bool {
		var topics []*sarama.TopicMetadata
		if topics, err = do.adm.DescribeTopics([]string{do.Topic}); err == nil && len(topics) == 1 {
			n = len(topics[0].Partitions)
		}
		return err == nil && n == want
	})
	return n, err
}

func (do *administrator) retention() (string, error) {
	entries, err := do.adm.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: do.Topic, ConfigNames: []string{"retention.ms"}})
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Name == "retention.ms" {
			return e.Value, nil
		}
	}
	return "", errors.New("there is no retention.ms")
}

func (do *administrator) alter(retention string) (string, error) {
	err := do.adm.IncrementalAlterConfig(sarama.TopicResource, do.Topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &retention},
	}, false)
	if err != nil {
		return "", err
	}
	var now string
	program.Again(do.ctx, func() bool {
		now, err = do.retention()
		return err != nil || now == retention
	})
	return now, err
}

func (do *administrator) grow(to int) (int, error) {
	if err := do.adm.CreatePartitions(do.Topic, int32(to), nil, false); err != nil {
		return 0, err
	}
	return do.partitions(to)
}

func (do *administrator) offsets() (map[int32][2]int64, error) {
	ranges := map[int32][2]int64{}
	for at, time := range []int64{sarama.OffsetOldest, sarama.OffsetNewest} {
		listed, err := do.adm.ListOffsets(map[string]map[int32]int64{do.Data: {0: time, 1: time, 2: time}}, nil)
		if err != nil {
			return nil, err
		}
		for p, o := range listed[do.Data] {
			if o.Err != nil && !errors.Is(o.Err, sarama.ErrNoError) {
				return nil, o.Err
			}
			found := ranges[p]
			found[at] = o.Offset
			ranges[p] = found
		}
	}
	return ranges, nil
}

func (do *administrator) cluster() (any, error) {
	brokers, controller, err := do.adm.DescribeCluster()
	var ids []int32
	for _, b := range brokers {
		ids = append(ids, b.ID())
	}
	return map[string]any{"brokers": ids, "controller": controller}, err
}

func (do *administrator) describe() (string, error) {
	groups, err := do.adm.DescribeConsumerGroups([]string{do.Group})
	if err != nil {
		return "", err
	}
	if len(groups) != 1 {
		return "", fmt.Errorf("%d groups were described", len(groups))
	}
	if groups[0].Err != sarama.ErrNoError {
		return "", groups[0].Err
	}
	return groups[0].State, nil
}

func (do *administrator) committed() (map[int32]int64, error) {
	reply, err := do.adm.ListConsumerGroupOffsets(do.Group, map[string][]int32{do.Data: {0, 1, 2}})
	if err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for p, block := range reply.Blocks[do.Data] {
		offsets[p] = block.Offset
	}
	return offsets, nil
}

func (do *administrator) deleteRecords(before int64) (int64, error) {
	if err := do.adm.DeleteRecords(do.Data, map[int32]int64{0: before}); err != nil {
		return 0, err
	}
	offsets, err := do.offsets()
	return offsets[0][0], err
}

func (client) Errors(ctx context.Context, a program.Administration) error {
	adm, err := sarama.NewClusterAdmin(a.Brokers, config())
	if err != nil {
		return err
	}
	defer adm.Close()
	do := &administrator{Administration: a, ctx: ctx, adm: adm}
	one, soon := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, "soon"
	program.Case("create-existing", errorName(adm.CreateTopic(a.Topic, one, false)))
	program.Case("bad-name", errorName(adm.CreateTopic("not a name", one, false)))
	program.Case("bad-partitions", errorName(adm.CreatePartitions(a.Topic, 1, nil, false)))
	program.Case("bad-config", errorName(adm.CreateTopic(a.Topic+"-config",
		&sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &soon}}, false)))
	program.Case("too-large", errorName(do.produceLarge()))
	program.Case("out-of-range", errorName(do.readPast(1_000_000)))
	program.Case("delete-missing", errorName(adm.DeleteTopic(a.Topic+"-missing")))
	program.Case("delete-busy-group", errorName(adm.DeleteConsumerGroup(a.Group)))
	program.Case("delete-missing-group", errorName(adm.DeleteConsumerGroup(a.Group+"-missing")))
	return nil
}

func (do *administrator) produceLarge() error {
	c := config()
	c.Producer.Return.Successes, c.Producer.MaxMessageBytes = true, 2<<20
	producer, err := sarama.NewSyncProducer(do.Brokers, c)
	if err != nil {
		return err
	}
	defer producer.Close()
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: do.Topic, Value: sarama.StringEncoder(strings.Repeat("x", 5000))})
	return err
}

// readPast reads at an offset; the library asks for the ends first, and refuses by itself with Kafka's error.
func (do *administrator) readPast(offset int64) error {
	c := config()
	c.Consumer.Return.Errors = true
	consumer, err := sarama.NewConsumer(do.Brokers, c)
	if err != nil {
		return err
	}
	defer consumer.Close()
	reader, err := consumer.ConsumePartition(do.Topic, 0, offset)
	if err != nil {
		return err
	}
	defer reader.AsyncClose()
	select {
	case err := <-reader.Errors():
		return err
	case <-reader.Messages():
		return nil
	case <-do.ctx.Done():
		return do.ctx.Err()
	}
}
