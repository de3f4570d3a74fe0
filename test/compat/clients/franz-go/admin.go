package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/clients/program"
)

// administrator holds what the steps and cases work on.
type administrator struct {
	program.Administration
	ctx context.Context
	cl  *kgo.Client
	adm *kadm.Client
}

func newAdministrator(ctx context.Context, a program.Administration, opts ...kgo.Opt) (*administrator, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(a.Brokers...)}, opts...)...)
	if err != nil {
		return nil, err
	}
	return &administrator{Administration: a, ctx: ctx, cl: cl, adm: kadm.NewClient(cl)}, nil
}

func (client) Admin(ctx context.Context, a program.Administration) error {
	do, err := newAdministrator(ctx, a)
	if err != nil {
		return err
	}
	defer do.cl.Close()
	retention := "3600000"
	_, err = do.adm.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": &retention}, a.Topic)
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
	listed, err := do.adm.ListGroups(ctx)
	program.Step("list-groups", listed.Groups(), err)
	described, err := do.adm.DescribeGroups(ctx, a.Group)
	program.Step("describe-group", described[a.Group].State, errors.Join(err, described[a.Group].Err))
	committed, err := do.committed()
	program.Step("fetch-offsets", committed, err)
	earliest, err := do.deleteRecords(10)
	program.Step("delete-records", earliest, err)
	_, err = do.adm.DeleteGroup(ctx, a.Group)
	program.Step("delete-group", nil, err)
	_, err = do.adm.DeleteTopic(ctx, a.Topic)
	program.Step("delete-topic", nil, err)
	return nil
}

// partitions counts them, again until there are so many.
func (do *administrator) partitions(want int) (n int, err error) {
	program.Again(do.ctx, func() bool {
		var topics kadm.TopicDetails
		if topics, err = do.adm.ListTopics(do.ctx, do.Topic); err == nil {
			n, err = len(topics[do.Topic].Partitions), topics[do.Topic].Err
		}
		return err == nil && n == want
	})
	return n, err
}

func (do *administrator) retention() (string, error) {
	configs, err := do.adm.DescribeTopicConfigs(do.ctx, do.Topic)
	if err != nil {
		return "", err
	}
	config, err := configs.On(do.Topic, nil)
	if err == nil {
		err = config.Err
	}
	for _, c := range config.Configs {
		if c.Key == "retention.ms" {
			return c.MaybeValue(), err
		}
	}
	return "", errors.Join(err, errors.New("there is no retention.ms"))
}

func (do *administrator) alter(retention string) (string, error) {
	replies, err := do.adm.AlterTopicConfigs(do.ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: &retention}}, do.Topic)
	if err == nil {
		_, err = replies.On(do.Topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
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
	replies, err := do.adm.UpdatePartitions(do.ctx, to, do.Topic)
	if err == nil {
		_, err = replies.On(do.Topic, func(r *kadm.CreatePartitionsResponse) error { return r.Err })
	}
	if err != nil {
		return 0, err
	}
	return do.partitions(to)
}

func (do *administrator) offsets() (map[int32][2]int64, error) {
	starts, err := do.adm.ListStartOffsets(do.ctx, do.Data)
	if err == nil {
		err = starts.Error()
	}
	ends, endsErr := do.adm.ListEndOffsets(do.ctx, do.Data)
	if endsErr == nil {
		endsErr = ends.Error()
	}
	ranges := map[int32][2]int64{}
	for p, o := range starts[do.Data] {
		ranges[p] = [2]int64{o.Offset, ends[do.Data][p].Offset}
	}
	return ranges, errors.Join(err, endsErr)
}

func (do *administrator) cluster() (any, error) {
	meta, err := do.adm.BrokerMetadata(do.ctx)
	return map[string]any{"brokers": meta.Brokers.NodeIDs(), "controller": meta.Controller}, err
}

func (do *administrator) committed() (map[int32]int64, error) {
	replies, err := do.adm.FetchOffsets(do.ctx, do.Group)
	if err == nil {
		err = replies.Error()
	}
	offsets := map[int32]int64{}
	for p, o := range replies[do.Data] {
		offsets[p] = o.At
	}
	return offsets, err
}

func (do *administrator) deleteRecords(before int64) (int64, error) {
	var upTo kadm.Offsets
	upTo.AddOffset(do.Data, 0, before, -1)
	replies, err := do.adm.DeleteRecords(do.ctx, upTo)
	if err == nil {
		err = replies.Error()
	}
	starts, startsErr := do.adm.ListStartOffsets(do.ctx, do.Data)
	return starts[do.Data][0].Offset, errors.Join(err, startsErr)
}

func (client) Errors(ctx context.Context, a program.Administration) error {
	do, err := newAdministrator(ctx, a, kgo.ProducerBatchMaxBytes(2<<20), kgo.DisableIdempotentWrite(), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer do.cl.Close()
	soon := "soon"
	_, err = do.adm.CreateTopic(ctx, 1, 1, nil, a.Topic)
	program.Case("create-existing", errorName(err))
	_, err = do.adm.CreateTopic(ctx, 1, 1, nil, "not a name")
	program.Case("bad-name", errorName(err))
	_, err = do.grow(1)
	program.Case("bad-partitions", errorName(err))
	_, err = do.adm.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &soon}, a.Topic+"-config")
	program.Case("bad-config", errorName(err))
	large := &kgo.Record{Topic: a.Topic, Value: []byte(strings.Repeat("x", 5000))}
	program.Case("too-large", errorName(do.cl.ProduceSync(ctx, large).FirstErr()))
	program.Case("out-of-range", errorName(do.readPast(1_000_000)))
	_, err = do.adm.DeleteTopic(ctx, a.Topic+"-missing")
	program.Case("delete-missing", errorName(err))
	_, err = do.adm.DeleteGroup(ctx, a.Group)
	program.Case("delete-busy-group", errorName(err))
	_, err = do.adm.DeleteGroup(ctx, a.Group+"-missing")
	program.Case("delete-missing-group", errorName(err))
	return nil
}

// readPast reads at an offset with no reset.
func (do *administrator) readPast(offset int64) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(do.Brokers...), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{do.Topic: {0: kgo.NewOffset().At(offset)}}),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	fetches := cl.PollFetches(do.ctx)
	errs := fetches.Errors()
	at := slices.IndexFunc(errs, func(e kgo.FetchError) bool { return e.Err != nil })
	if at < 0 {
		return nil
	}
	return fmt.Errorf("read: %w", errs[at].Err)
}

// errorName is Kafka's name for what a call returned.
func errorName(err error) string {
	var kafka *kerr.Error
	switch {
	case err == nil:
		return "NONE"
	case errors.As(err, &kafka):
		return kafka.Message
	}
	return err.Error()
}
