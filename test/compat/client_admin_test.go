//go:build compat

package compat

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	ours "barnabas/client/admin"
	"barnabas/test/compat/rig"
)

var adminTests = []clientTest{
	{name: "admin", needs: []need{nodes(1)}, run: adminTest},
	{name: "admin areas", needs: []need{nodes(1)}, run: adminAreasTest, shorter: []siteOf{oneBarnabas, kafka431, kafka391}},
}

func adminTest(t *testing.T, p *site) {
	addr := p.addr
	a := adminOf(t, addr)
	ctx := within(t, patience)
	t.Run("topics", func(t *testing.T) { ourTopics(ctx, t, a) })
	t.Run("configs", func(t *testing.T) { ourConfigs(ctx, t, a, addr) })
	t.Run("offsets", func(t *testing.T) { ourOffsets(ctx, t, a, addr) })
	t.Run("cluster", func(t *testing.T) { ourCluster(ctx, t, a) })
}

func adminOf(t *testing.T, addr string) *ours.Admin { return ours.New(ourClient(t, addr)) }

func ourTopics(ctx context.Context, t *testing.T, a *ours.Admin) {
	name := uniqueTopic("our-topics")
	made, err := a.CreateTopics(ctx, []ours.NewTopic{
		{Name: name, Partitions: 3, ReplicationFactor: 1, Configs: map[string]string{"retention.ms": "12345"}},
		{Name: "not allowed!", Partitions: 1},
		{Name: name + "-wrong", Partitions: 1, Configs: map[string]string{"no.such.key": "1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if made[0].Err != nil || made[0].Partitions != 3 || made[0].ReplicationFactor != 1 || made[0].ID == (client.UUID{}) {
		t.Errorf("created %+v", made[0])
	}
	if i := slices.IndexFunc(made[0].Configs, func(e ours.ConfigEntry) bool { return e.Name == "retention.ms" }); i < 0 || made[0].Configs[i].Value != "12345" {
		t.Errorf("configs of the new topic: %+v", made[0].Configs)
	}
	if !errors.Is(made[1].Err, client.ErrInvalidTopic) || !errors.Is(made[2].Err, client.ErrInvalidConfig) {
		t.Errorf("errors %v and %v", made[1].Err, made[2].Err)
	}
	if _, err := a.CreateTopic(ctx, ours.NewTopic{Name: name}); !errors.Is(err, client.ErrTopicAlreadyExists) {
		t.Errorf("made twice: %v", err)
	}
	if r, err := a.CreateTopic(ctx, ours.NewTopic{Name: name + "-checked", Partitions: 2}, ours.ValidateOnly()); err != nil {
		t.Errorf("validate only: %+v, %v", r, err)
	}
	grown, err := a.CreatePartitions(ctx, []ours.MorePartitions{{Topic: name, Total: 5}, {Topic: name + "-none", Total: 5}})
	if err != nil || grown[0].Err != nil || !errors.Is(grown[1].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("grown: %v, %v", grown, err)
	}
	described := eventually(t, func() ([]ours.TopicDescription, bool) {
		d, err := a.DescribeTopics(ctx, name+"-none", name)
		return d, err == nil && len(d) == 2 && len(d[1].Partitions) == 5 && d[1].Partitions[4].Leader >= 0
	})
	if d := described[1]; d.ID != made[0].ID || d.Partitions[4].Partition != 4 || len(d.Partitions[4].InSync) != 1 {
		t.Errorf("described: %+v", d)
	}
	if !errors.Is(described[0].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("described what is not there: %+v", described[0])
	}
	listed, err := a.ListTopics(ctx)
	i := slices.IndexFunc(listed, func(l ours.TopicListing) bool { return l.Name == name })
	if err != nil || i < 0 || listed[i].Partitions != 5 || listed[i].ReplicationFactor != 1 {
		t.Errorf("listed: %v, %v", listed, err)
	}
	gone, err := a.DeleteTopics(ctx, name, name+"-none")
	if err != nil || gone[0].Err != nil || !errors.Is(gone[1].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("deleted: %v, %v", gone, err)
	}
}

// eventually gives the first value that is good: leaders come after the answer that made the topic.
func eventually[T any](t *testing.T, get func() (T, bool)) T {
	t.Helper()
	var v T
	rig.Eventually(t, patience, "the answer is what was expected", func() (good bool) {
		v, good = get()
		return good
	})
	return v
}

func ourConfigs(ctx context.Context, t *testing.T, a *ours.Admin, addr string) {
	name := uniqueTopic("our-configs")
	if _, err := a.CreateTopic(ctx, ours.NewTopic{Name: name, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() ([]ours.ConfigDescription, bool) {
		d, err := a.DescribeConfigs(ctx, []ours.Resource{ours.Topic(name)})
		return d, err == nil && d[0].Err == nil
	})
	results, err := a.AlterConfigs(ctx, []ours.ConfigChange{
		{Resource: ours.Topic(name), Set: map[string]string{"retention.ms": "777", "cleanup.policy": "delete"}},
		{Resource: ours.Topic(name + "-none"), Set: map[string]string{"retention.ms": "777"}},
		{Resource: ours.AllBrokers(), Set: map[string]string{"log.retention.bytes": "123456789"}},
	})
	if err != nil || results[0].Err != nil || results[1].Err == nil || results[2].Err != nil {
		t.Fatalf("altered: %v, %v", results, err)
	}
	get := func(r ours.Resource, name string) ours.ConfigEntry {
		t.Helper()
		d, err := a.DescribeConfigs(ctx, []ours.Resource{r}, ours.Only(name), ours.WithSynonyms(), ours.WithDocumentation())
		if err != nil || d[0].Err != nil || len(d[0].Entries) != 1 {
			t.Fatalf("described %v: %+v, %v", r, d, err)
		}
		return d[0].Entries[0]
	}
	e := eventually(t, func() (ours.ConfigEntry, bool) {
		e := get(ours.Topic(name), "retention.ms")
		return e, e.Value == "777"
	})
	if e.Source != ours.DynamicTopicConfig || e.Type != ours.LongType || len(e.Synonyms) == 0 || e.Documentation == "" || e.IsDefault() {
		t.Errorf("described: %+v", e)
	}
	if _, err := a.AlterConfigs(ctx, []ours.ConfigChange{
		{Resource: ours.Topic(name), Delete: []string{"retention.ms"}, Append: map[string]string{"cleanup.policy": "compact"}},
		{Resource: ours.AllBrokers(), Delete: []string{"log.retention.bytes"}},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (ours.ConfigEntry, bool) {
		e := get(ours.Topic(name), "cleanup.policy")
		return e, e.Value == "delete,compact"
	})
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	node := ours.Broker(cluster.Brokers[0].Node)
	if e := get(node, "num.network.threads"); e.Type != ours.IntType || e.Value == "" {
		t.Errorf("a broker's: %+v", e)
	}
	d, err := a.DescribeConfigs(ctx, []ours.Resource{node, ours.Broker(4711)})
	if err != nil || d[0].Err != nil || !errors.Is(d[1].Err, client.ErrUnknownBroker) {
		t.Errorf("a broker that is not there: %v, %v", d[1].Err, err)
	}
	listed, err := a.ListConfigResources(ctx, ours.TopicResource)
	if !refusedForAge(ctx, t, addr, kmsg.ListConfigResources, 1, err) && (err != nil || !slices.Contains(listed, ours.Topic(name))) {
		t.Errorf("resources: %v, %v", listed, err)
	}
}

func ourOffsets(ctx context.Context, t *testing.T, a *ours.Admin, addr string) {
	name := uniqueTopic("our-offsets")
	if _, err := a.CreateTopic(ctx, ours.NewTopic{Name: name, Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	p := ourOwnProducer(t, addr, client.BatchSize(0))
	at := yesterday
	for i := range 10 {
		if _, err := p.SendSync(ctx, client.ProducerRecord{
			Topic: name, Partition: client.ToPartition(1), Value: []byte("v"), Timestamp: at.Add(time.Duration(i) * time.Second),
		}); err != nil {
			t.Fatal(err)
		}
	}
	one, none := client.TopicPartition{Topic: name, Partition: 1}, client.TopicPartition{Topic: name, Partition: 9}
	list := func(spec ours.OffsetSpec) ours.ListedOffset {
		l, err := a.ListOffsets(ctx, map[client.TopicPartition]ours.OffsetSpec{one: spec, none: spec}, client.ReadUncommitted)
		if err != nil || l[0].Err != nil || !errors.Is(l[1].Err, client.ErrUnknownTopicOrPartition) {
			t.Fatalf("list: %+v, %v", l, err)
		}
		return l[0]
	}
	if l := list(ours.Latest); l.Offset != 10 {
		t.Errorf("latest: %+v", l)
	}
	if l := list(ours.MaxTimestamp); l.Offset != 9 || !l.Timestamp.Equal(at.Add(9*time.Second)) {
		t.Errorf("with the largest timestamp: %+v", l)
	}
	if l := list(ours.AtTime(at.Add(2500 * time.Millisecond))); l.Offset != 3 {
		t.Errorf("by time: %+v", l)
	}
	producers, err := a.DescribeProducers(ctx, one)
	if err != nil || producers[0].Err != nil || len(producers[0].Producers) != 1 || producers[0].Producers[0].LastSequence != 9 {
		t.Errorf("producers: %+v, %v", producers, err)
	}
	deleted, err := a.DeleteRecords(ctx, map[client.TopicPartition]int64{one: 4, none: 4})
	if err != nil || deleted[0].LowWatermark != 4 || deleted[0].Err != nil || !errors.Is(deleted[1].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("deleted: %+v, %v", deleted, err)
	}
	if l := list(ours.Earliest); l.Offset != 4 {
		t.Errorf("earliest: %+v", l)
	}
	if deleted, err = a.DeleteRecords(ctx, map[client.TopicPartition]int64{one: 4444}); err != nil || !errors.Is(deleted[0].Err, client.ErrOffsetOutOfRange) {
		t.Errorf("deleted beyond the end: %+v, %v", deleted, err)
	}
	if deleted, err = a.DeleteRecords(ctx, map[client.TopicPartition]int64{one: ours.ToHighWatermark}); err != nil || deleted[0].LowWatermark != 10 {
		t.Errorf("deleted all: %+v, %v", deleted, err)
	}
}

func ourCluster(ctx context.Context, t *testing.T, a *ours.Admin) {
	cluster, err := a.DescribeCluster(ctx, ours.WithFencedBrokers())
	if err != nil || cluster.ID == "" || len(cluster.Brokers) == 0 {
		t.Errorf("cluster: %+v, %v", cluster, err)
	}
	features, err := a.DescribeFeatures(ctx)
	if err != nil || features.Supported["metadata.version"].Max == 0 {
		t.Errorf("features: %+v, %v", features, err)
	}
	if err := a.UpdateFeatures(ctx, []ours.FeatureUpdate{{Feature: "metadata.version", Level: 9999, Kind: ours.Upgrade}}); err == nil {
		t.Error("a level that nobody knows was taken")
	}
	dirs, err := a.DescribeLogDirs(ctx)
	if err != nil || len(dirs) == 0 || dirs[0].Err != nil || dirs[0].TotalBytes <= 0 || dirs[0].Path == "" {
		t.Errorf("log directories: %+v, %v", dirs, err)
	}
	quorum, err := a.DescribeQuorum(ctx)
	if err != nil || len(quorum.Voters) == 0 || quorum.HighWatermark <= 0 {
		t.Errorf("quorum: %+v, %v", quorum, err)
	}
}
