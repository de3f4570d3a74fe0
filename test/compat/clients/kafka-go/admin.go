package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"barnabas/test/compat/clients/program"
)

// administrator holds what the steps and cases work on.
type administrator struct {
	program.Administration
	ctx context.Context
	cl  *kafka.Client
}

func newAdministrator(ctx context.Context, a program.Administration) *administrator {
	return &administrator{Administration: a, ctx: ctx, cl: &kafka.Client{Addr: kafka.TCP(a.Brokers...), Timeout: 30 * time.Second}}
}

func (client) Admin(ctx context.Context, a program.Administration) error {
	do := newAdministrator(ctx, a)
	err := do.create(a.Topic, 3, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "3600000"})
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
	groups, err := do.groups()
	program.Step("list-groups", groups, err)
	state, err := do.describe()
	program.Step("describe-group", state, err)
	committed, err := do.committed()
	program.Step("fetch-offsets", committed, err)
	program.StepUnsupported("delete-records")
	program.Step("delete-group", nil, do.deleteGroup(a.Group))
	program.Step("delete-topic", nil, do.deleteTopic(a.Topic))
	return nil
}

func (do *administrator) create(topic string, partitions int, configs ...kafka.ConfigEntry) error {
	reply, err := do.cl.CreateTopics(do.ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: configs}},
	})
	if err != nil {
		return err
	}
	return reply.Errors[topic]
}

// partitions counts them, again until there are so many.
func (do *administrator) partitions(want int) (n int, err error) {
	program.Again(do.ctx, func() bool {
		var reply *kafka.MetadataResponse
		if reply, err = do.cl.Metadata(do.ctx, &kafka.MetadataRequest{Topics: []string{do.Topic}}); err == nil && len(reply.Topics) == 1 {
			n, err = len(reply.Topics[0].Partitions), reply.Topics[0].Error
		}
		return err == nil && n == want
	})
	return n, err
}

func (do *administrator) retention() (string, error) {
	reply, err := do.cl.DescribeConfigs(do.ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: do.Topic, ConfigNames: []string{"retention.ms"}}},
	})
	if err != nil {
		return "", err
	}
	for _, r := range reply.Resources {
		if r.Error != nil {
			return "", r.Error
		}
		for _, e := range r.ConfigEntries {
			if e.ConfigName == "retention.ms" {
				return e.ConfigValue, nil
			}
		}
	}
	return "", errors.New("there is no retention.ms")
}

func (do *administrator) alter(retention string) (string, error) {
	reply, err := do.cl.IncrementalAlterConfigs(do.ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: do.Topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: retention, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err != nil {
		return "", err
	}
	for _, r := range reply.Resources {
		if r.Error != nil {
			return "", r.Error
		}
	}
	var now string
	program.Again(do.ctx, func() bool {
		now, err = do.retention()
		return err != nil || now == retention
	})
	return now, err
}

func (do *administrator) grow(to int) (int, error) {
	reply, err := do.cl.CreatePartitions(do.ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: do.Topic, Count: int32(to)}}})
	if err != nil {
		return 0, err
	}
	if err := reply.Errors[do.Topic]; err != nil {
		return 0, err
	}
	return do.partitions(to)
}

func (do *administrator) offsets() (map[int][2]int64, error) {
	var ask []kafka.OffsetRequest
	for p := range 3 {
		ask = append(ask, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	reply, err := do.cl.ListOffsets(do.ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{do.Data: ask}})
	if err != nil {
		return nil, err
	}
	ranges := map[int][2]int64{}
	for _, p := range reply.Topics[do.Data] {
		if p.Error != nil {
			return nil, p.Error
		}
		ranges[p.Partition] = [2]int64{p.FirstOffset, p.LastOffset}
	}
	return ranges, nil
}

func (do *administrator) cluster() (any, error) {
	reply, err := do.cl.Metadata(do.ctx, &kafka.MetadataRequest{Topics: []string{do.Data}})
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, b := range reply.Brokers {
		ids = append(ids, b.ID)
	}
	return map[string]any{"brokers": ids, "controller": reply.Controller.ID}, nil
}

func (do *administrator) groups() ([]string, error) {
	reply, err := do.cl.ListGroups(do.ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range reply.Groups {
		names = append(names, g.GroupID)
	}
	return names, reply.Error
}

func (do *administrator) describe() (string, error) {
	reply, err := do.cl.DescribeGroups(do.ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{do.Group}})
	if err != nil {
		return "", err
	}
	if len(reply.Groups) != 1 {
		return "", fmt.Errorf("%d groups were described", len(reply.Groups))
	}
	return reply.Groups[0].GroupState, reply.Groups[0].Error
}

func (do *administrator) committed() (map[int]int64, error) {
	reply, err := do.cl.OffsetFetch(do.ctx, &kafka.OffsetFetchRequest{GroupID: do.Group, Topics: map[string][]int{do.Data: {0, 1, 2}}})
	if err != nil {
		return nil, err
	}
	offsets := map[int]int64{}
	for _, p := range reply.Topics[do.Data] {
		if p.Error != nil {
			return nil, p.Error
		}
		offsets[p.Partition] = p.CommittedOffset
	}
	return offsets, reply.Error
}

func (do *administrator) deleteGroup(group string) error {
	reply, err := do.cl.DeleteGroups(do.ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return err
	}
	return reply.Errors[group]
}

func (do *administrator) deleteTopic(topic string) error {
	reply, err := do.cl.DeleteTopics(do.ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return reply.Errors[topic]
}

func (client) Errors(ctx context.Context, a program.Administration) error {
	do := newAdministrator(ctx, a)
	program.Case("create-existing", errorName(do.create(a.Topic, 1)))
	program.Case("bad-name", errorName(do.create("not a name", 1)))
	_, err := do.grow(1)
	program.Case("bad-partitions", errorName(err))
	program.Case("bad-config", errorName(do.create(a.Topic+"-config", 1, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "soon"})))
	program.Case("too-large", errorName(do.produceLarge()))
	program.Case("out-of-range", errorName(do.readPast(1_000_000)))
	program.Case("delete-missing", errorName(do.deleteTopic(a.Topic+"-missing")))
	program.Case("delete-busy-group", errorName(do.deleteGroup(a.Group)))
	program.Case("delete-missing-group", errorName(do.deleteGroup(a.Group+"-missing")))
	return nil
}

func (do *administrator) produceLarge() error {
	writer := &kafka.Writer{Addr: kafka.TCP(do.Brokers...), Topic: do.Topic, BatchTimeout: 5 * time.Millisecond, RequiredAcks: kafka.RequireAll}
	defer writer.Close()
	return writer.WriteMessages(do.ctx, kafka.Message{Value: []byte(strings.Repeat("x", 5000))})
}

// readPast reads at an offset with no reset.
func (do *administrator) readPast(offset int64) error {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: do.Brokers, Topic: do.Topic, MaxWait: 500 * time.Millisecond, OffsetOutOfRangeError: true, MaxAttempts: 1,
	})
	defer reader.Close()
	if err := reader.SetOffset(offset); err != nil {
		return err
	}
	_, err := reader.ReadMessage(do.ctx)
	return err
}
