//go:build compat

package compat

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/test/compat/rig"
)

var ackings = map[string][]kgo.Opt{
	"0":          {kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
	"1":          {kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
	"all":        {kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DisableIdempotentWrite()},
	"idempotent": {kgo.RequiredAcks(kgo.AllISRAcks())},
}

func TestFranzGo(t *testing.T) {
	b := rig.Start(t)
	for _, codec := range codecs {
		for _, acks := range []string{"0", "1", "all", "idempotent"} {
			t.Run("codec "+codec+" acks "+acks, func(t *testing.T) { roundTrip(t, b.Addr, codec, acks) })
		}
	}
	t.Run("topic codec", func(t *testing.T) { topicCodec(t, b.Addr) })
	t.Run("log append time", func(t *testing.T) { logAppendTime(t, b.Addr) })
	t.Run("auto creation", func(t *testing.T) { autoCreation(t, b.Addr) })
	t.Run("produce errors", func(t *testing.T) { produceErrors(t, b.Addr) })
	t.Run("offsets", func(t *testing.T) { offsets(t, b.Addr) })
	t.Run("topics", func(t *testing.T) { topics(t, b.Addr) })
	t.Run("create errors", func(t *testing.T) { createErrors(t, b.Addr) })
	t.Run("configs", func(t *testing.T) { configs(t, b.Addr) })
	t.Run("cluster", func(t *testing.T) { cluster(t, b.Addr) })
}

// sample makes records that differ in all that a record can carry.
func sample(topic string, seed uint64) []*kgo.Record {
	rng := rand.New(rand.NewPCG(seed, 0))
	at := yesterday
	var records []*kgo.Record
	for i := range 300 {
		r := &kgo.Record{Topic: topic, Timestamp: at.Add(time.Duration(i) * time.Millisecond)}
		if i%7 != 0 {
			r.Key = fmt.Appendf(nil, "key-%d", i%13)
		}
		switch {
		case i%10 == 0:
			r.Value = nil // a tombstone
		case i%11 == 0:
			r.Value = []byte{}
		case i == 151:
			r.Value = make([]byte, 900_000) // larger than a fetch's usual share of a partition is not, but than a batch
			for j := range r.Value {
				r.Value[j] = byte(rng.Uint32())
			}
		default:
			r.Value = bytes.Repeat(fmt.Appendf(nil, "value %d ", i), 1+rng.IntN(30))
		}
		if i%3 == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "n", Value: fmt.Appendf(nil, "%d", i)}, {Key: "null"}, {Key: "n", Value: []byte("again")}, {Key: "empty", Value: []byte{}}}
		}
		records = append(records, r)
	}
	return records
}

func roundTrip(t *testing.T, addr, codec, acks string) {
	topic := "round-" + codec + "-" + acks
	createTopic(t, addr, topic, 3)
	cl := kgoClient(t, addr, append(slices.Clone(ackings[acks]), kgo.ProducerBatchCompression(kgoCodecs[codec]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(950_000))...)
	ctx := within(t, patience)
	records := sample(topic, 1)
	var want []string
	for p := range int32(3) {
		for i, r := range records {
			if int32(i%3) == p {
				r.Partition = p
				want = append(want, describe(r))
			}
		}
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
	if acks == "0" || acks == "1" { // nothing says when it has arrived, or when it may be read
		adm := admin(t, addr)
		rig.Eventually(t, patience, "all records are there", func() bool {
			ends, err := adm.ListEndOffsets(ctx, topic)
			total := int64(0)
			ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
			return err == nil && total == int64(len(records))
		})
	}
	read := inOrder(readAll(t, addr, topic))
	var got []string
	wrongCodec := 0
	for i, r := range read {
		got = append(got, describe(r))
		if r.Attrs.CompressionType() != uint8(slices.Index(codecs, codec)) && len(r.Value) < 100_000 && codec == "none" {
			wrongCodec++
		}
		if i > 0 && read[i-1].Partition == r.Partition && r.Offset != read[i-1].Offset+1 {
			t.Fatalf("offset %d follows %d in partition %d", r.Offset, read[i-1].Offset, r.Partition)
		}
	}
	equalLines(t, topic, got, want)
	if wrongCodec > 0 {
		t.Errorf("%d records did not come back with codec %s", wrongCodec, codec)
	}
	// A client may leave a batch uncompressed that does not shrink, so only one record must show the codec.
	if !slices.ContainsFunc(read, func(r *kgo.Record) bool {
		return r.Attrs.CompressionType() == uint8(slices.Index(codecs, codec))
	}) {
		t.Errorf("no record came back with codec %s", codec)
	}
}

func topicCodec(t *testing.T, addr string) {
	for i, codec := range codecs {
		if codec == "none" {
			codec = "uncompressed"
		}
		topic := "stored-" + codec
		createTopic(t, addr, topic, 1, "compression.type="+codec)
		sent := codecs[(i+1)%len(codecs)] // never what the topic stores
		cl := kgoClient(t, addr, kgo.ProducerBatchCompression(kgoCodecs[sent]))
		value := bytes.Repeat([]byte("compressible "), 100)
		if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: topic, Value: value}, &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil {
			t.Fatalf("produce to %s: %v", topic, err)
		}
		for _, r := range readAll(t, addr, topic)[0] {
			if !bytes.Equal(r.Value, value) || r.Attrs.CompressionType() != uint8(i) {
				t.Errorf("%s: sent with %s, stored with codec %d, want %d, value kept: %v", topic, sent, r.Attrs.CompressionType(), i, bytes.Equal(r.Value, value))
			}
		}
	}
}

func logAppendTime(t *testing.T, addr string) {
	createTopic(t, addr, "append-time", 1, "message.timestamp.type=LogAppendTime")
	before := time.Now().Add(-time.Second)
	if err := kgoClient(t, addr).ProduceSync(within(t, patience), &kgo.Record{Topic: "append-time", Timestamp: time.UnixMilli(1000), Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r := readAll(t, addr, "append-time")[0][0]
	if r.Attrs.TimestampType() != 1 || r.Timestamp.Before(before) || r.Timestamp.After(time.Now().Add(time.Second)) {
		t.Errorf("timestamp type %d, time %v", r.Attrs.TimestampType(), r.Timestamp)
	}
}

func autoCreation(t *testing.T, addr string) {
	cl := kgoClient(t, addr, kgo.AllowAutoTopicCreation())
	if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: "made-by-itself", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := len(readAll(t, addr, "made-by-itself")); got != 1 {
		t.Errorf("records in %d partitions, want 1", got)
	}
}

func produceErrors(t *testing.T, addr string) {
	createTopic(t, addr, "small", 1, "max.message.bytes=2000")
	createTopic(t, addr, "timely", 1, "message.timestamp.before.max.ms=60000", "message.timestamp.after.max.ms=60000")
	createTopic(t, addr, "keyed", 1, "cleanup.policy=compact")
	noise := make([]byte, 5000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for _, c := range []struct {
		what   string
		record *kgo.Record
		want   error
	}{
		{"too large", &kgo.Record{Topic: "small", Value: noise}, kerr.MessageTooLarge},
		{"too old", &kgo.Record{Topic: "timely", Timestamp: time.Now().Add(-time.Hour)}, kerr.InvalidTimestamp},
		{"too new", &kgo.Record{Topic: "timely", Timestamp: time.Now().Add(time.Hour)}, kerr.InvalidTimestamp},
		{"no key in a compacted topic", &kgo.Record{Topic: "keyed", Value: []byte("x")}, kerr.InvalidRecord},
		{"no such topic", &kgo.Record{Topic: "absent", Value: []byte("x")}, kerr.UnknownTopicOrPartition},
	} {
		// Few retries: an unknown topic is one that may yet appear.
		cl := kgoClient(t, addr, kgo.RecordRetries(2), kgo.UnknownTopicRetries(2), kgo.ProducerBatchMaxBytes(100_000))
		err := cl.ProduceSync(within(t, patience), c.record).FirstErr()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	cl := kgoClient(t, addr)
	if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: "small", Value: []byte("fits")}, &kgo.Record{Topic: "timely", Timestamp: time.Now()}, &kgo.Record{Topic: "keyed", Key: []byte("k")}).FirstErr(); err != nil {
		t.Errorf("what is right is taken: %v", err)
	}
}

func offsets(t *testing.T, addr string) {
	createTopic(t, addr, "times", 1)
	ctx := within(t, patience)
	adm := admin(t, addr)
	cl := kgoClient(t, addr, kgo.DisableIdempotentWrite())
	for i := range int64(10) {
		at := yesterday.Add(time.Duration(i) * time.Second)
		if i == 6 { // the latest time need not be the last record's
			at = at.Add(100 * time.Second)
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "times", Timestamp: at, Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	at := func(what string, listed kadm.ListedOffsets, err error, want int64) {
		t.Helper()
		if err == nil {
			err = listed.Error()
		}
		if o, _ := listed.Lookup("times", 0); err != nil || o.Offset != want {
			t.Errorf("%s: offset %d, error %v, want %d", what, o.Offset, err, want)
		}
	}
	listed, err := adm.ListStartOffsets(ctx, "times")
	at("start", listed, err, 0)
	listed, err = adm.ListEndOffsets(ctx, "times")
	at("end", listed, err, 10)
	listed, err = adm.ListOffsetsAfterMilli(ctx, yesterday.UnixMilli()+3500, "times")
	at("the first from a time on", listed, err, 4)
	listed, err = adm.ListOffsetsAfterMilli(ctx, yesterday.UnixMilli()+50_000, "times")
	at("only one is as late", listed, err, 6)
	listed, err = adm.ListMaxTimestampOffsets(ctx, "times")
	at("latest time", listed, err, 6)

	deleted, err := adm.DeleteRecords(ctx, kadm.Offsets{"times": {0: {Topic: "times", Partition: 0, At: 3}}})
	if d, _ := deleted.Lookup("times", 0); err != nil || d.Err != nil || d.LowWatermark != 3 {
		t.Errorf("delete records below 3: %+v, %v", d, err)
	}
	listed, err = adm.ListStartOffsets(ctx, "times")
	at("start after deleting", listed, err, 3)
	deleted, err = adm.DeleteRecords(ctx, kadm.Offsets{"times": {0: {Topic: "times", Partition: 0, At: 99}}})
	if d, _ := deleted.Lookup("times", 0); err != nil || !errors.Is(d.Err, kerr.OffsetOutOfRange) {
		t.Errorf("delete records past the end: %+v, %v", d, err)
	}

	beyond := kgoClient(t, addr, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"times": {0: kgo.NewOffset().At(50)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err := beyond.PollFetches(ctx).Err(); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("fetch past the end: %v", err)
	}

	epochs, err := adm.OffsetForLeaderEpoch(ctx, kadm.OffsetForLeaderEpochRequest{"times": {0: 1 << 20}})
	if err != nil {
		t.Errorf("offset for a leader epoch: %v", err)
	}
	if e := epochs["times"][0]; e.Err != nil || e.EndOffset != -1 || e.LeaderEpoch != -1 {
		t.Errorf("an epoch that never was ends nowhere: %+v", e)
	}
}

func topics(t *testing.T, addr string) {
	ctx := within(t, patience)
	adm := admin(t, addr)
	createTopic(t, addr, "lived", 2)
	first, err := adm.ListTopics(ctx, "lived")
	if err != nil || len(first["lived"].Partitions) != 2 || first["lived"].Err != nil {
		t.Fatalf("topic: %+v, %v", first["lived"], err)
	}
	if grown, err := adm.UpdatePartitions(ctx, 5, "lived"); err != nil || grown.Error() != nil {
		t.Fatalf("grow to 5 partitions: %v %v", err, grown.Error())
	}
	if shrunk, err := adm.UpdatePartitions(ctx, 3, "lived"); err != nil || !errors.Is(shrunk.Error(), kerr.InvalidPartitions) {
		t.Errorf("shrink to 3 partitions: %v %v", err, shrunk.Error())
	}
	rig.Eventually(t, patience, "five partitions with a leader", func() bool {
		now, err := adm.ListTopics(ctx, "lived")
		return err == nil && len(now["lived"].Partitions) == 5 && !slices.ContainsFunc(now["lived"].Partitions.Sorted(), func(p kadm.PartitionDetail) bool { return p.Leader < 0 })
	})
	if err := kgoClient(t, addr).ProduceSync(ctx, &kgo.Record{Topic: "lived", Value: []byte("old")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if deleted, err := adm.DeleteTopics(ctx, "lived"); err != nil || deleted.Error() != nil {
		t.Fatalf("delete: %v %v", err, deleted.Error())
	}
	if deleted, err := adm.DeleteTopics(ctx, "lived"); err != nil || !errors.Is(deleted.Error(), kerr.UnknownTopicOrPartition) {
		t.Errorf("delete again: %v %v", err, deleted.Error())
	}
	createTopic(t, addr, "lived", 1)
	again, err := admin(t, addr).ListTopics(ctx, "lived") // a client keeps metadata for a while, so a new one asks
	if err != nil || again["lived"].ID == first["lived"].ID || again["lived"].ID == (kadm.TopicID{}) {
		t.Errorf("a topic made again is another topic: ids %v and %v, %v", first["lived"].ID, again["lived"].ID, err)
	}
	if read := readAll(t, addr, "lived"); len(read) != 0 {
		t.Errorf("a topic made again holds %d partitions with records", len(read))
	}
}

func createErrors(t *testing.T, addr string) {
	ctx := within(t, patience)
	adm := admin(t, addr)
	createTopic(t, addr, "there", 1)
	word := func(s string) *string { return &s }
	for _, c := range []struct {
		topic      string
		partitions int32
		replicas   int16
		configs    map[string]*string
		want       error
	}{
		{"there", 1, 1, nil, kerr.TopicAlreadyExists},
		{"a b", 1, 1, nil, kerr.InvalidTopicException},
		{strings.Repeat("x", 250), 1, 1, nil, kerr.InvalidTopicException},
		{"none", 0, 1, nil, kerr.InvalidPartitions},
		{"replicas", 1, 3, nil, kerr.InvalidReplicationFactor},
		{"key", 1, 1, map[string]*string{"no.such.key": word("1")}, kerr.InvalidConfig},
		{"value", 1, 1, map[string]*string{"retention.ms": word("soon")}, kerr.InvalidConfig},
		{"bound", 1, 1, map[string]*string{"segment.bytes": word("-5")}, kerr.InvalidConfig},
	} {
		made, err := adm.CreateTopics(ctx, c.partitions, c.replicas, c.configs, c.topic)
		if err != nil {
			t.Fatalf("create %q: %v", c.topic, err)
		}
		if got := made[c.topic]; !errors.Is(got.Err, c.want) || got.ErrMessage == "" {
			t.Errorf("create %q: %v %q, want %v with a message", c.topic, got.Err, got.ErrMessage, c.want)
		}
	}
	if checked, err := adm.ValidateCreateTopics(ctx, 1, 1, nil, "only-checked"); err != nil || checked.Error() != nil {
		t.Errorf("validate: %v %v", err, checked.Error())
	}
	if listed, err := adm.ListTopics(ctx, "only-checked"); err != nil || !errors.Is(listed["only-checked"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("validating made a topic: %+v %v", listed["only-checked"], err)
	}
}

func configs(t *testing.T, addr string) {
	ctx := within(t, patience)
	adm := admin(t, addr)
	createTopic(t, addr, "set", 1, "retention.ms=172800000")
	value := func(key string) kadm.Config {
		t.Helper()
		all, err := adm.DescribeTopicConfigs(ctx, "set")
		if err != nil {
			t.Fatal(err)
		}
		on, err := all.On("set", nil)
		if err != nil || on.Err != nil {
			t.Fatalf("configs of the topic: %v %v", err, on.Err)
		}
		for _, c := range on.Configs {
			if c.Key == key {
				return c
			}
		}
		t.Fatalf("no %s among %d configs", key, len(on.Configs))
		return kadm.Config{}
	}
	if c := value("retention.ms"); c.MaybeValue() != "172800000" || c.Source != kmsg.ConfigSourceDynamicTopicConfig {
		t.Errorf("retention.ms as created: %s from %v", c.MaybeValue(), c.Source)
	}
	if c := value("segment.bytes"); c.MaybeValue() != "1073741824" || c.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("segment.bytes by default: %s from %v", c.MaybeValue(), c.Source)
	}
	alter := func(ops ...kadm.AlterConfig) error {
		t.Helper()
		done, err := adm.AlterTopicConfigs(ctx, ops, "set")
		if err != nil {
			t.Fatal(err)
		}
		r, _ := done.On("set", nil)
		return r.Err
	}
	word := func(s string) *string { return &s }
	for _, step := range []struct {
		op   kadm.AlterConfig
		want string
	}{
		{kadm.AlterConfig{Op: kadm.SetConfig, Name: "cleanup.policy", Value: word("compact")}, "compact"},
		{kadm.AlterConfig{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: word("delete")}, "compact,delete"},
		{kadm.AlterConfig{Op: kadm.SubtractConfig, Name: "cleanup.policy", Value: word("compact")}, "delete"},
		{kadm.AlterConfig{Op: kadm.SetConfig, Name: "max.message.bytes", Value: word("5000")}, "5000"},
		{kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "max.message.bytes"}, "1048588"},
	} {
		if err := alter(step.op); err != nil {
			t.Errorf("%v %s: %v", step.op.Op, step.op.Name, err)
		}
		rig.Eventually(t, patience, step.op.Name+" becomes "+step.want, func() bool { c := value(step.op.Name); return c.MaybeValue() == step.want })
	}
	if err := alter(kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: word("soon")}); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("a wrong value: %v", err)
	}
	replaced, err := adm.AlterTopicConfigsState(ctx, []kadm.AlterConfig{{Name: "segment.ms", Value: word("60000")}}, "set")
	if err != nil || replaced[0].Err != nil {
		t.Errorf("replace all: %v %+v", err, replaced)
	}
	rig.Eventually(t, patience, "what was not named is gone", func() bool {
		segment, retention := value("segment.ms"), value("retention.ms")
		return segment.MaybeValue() == "60000" && retention.MaybeValue() == "604800000"
	})
	if err := alterBroker(t, adm, "log.retention.ms", "3600000"); err != nil {
		t.Errorf("a broker's default: %v", err)
	}
	rig.Eventually(t, patience, "topics follow the broker's value", func() bool {
		c := value("retention.ms")
		return c.MaybeValue() == "3600000" && c.Source == kmsg.ConfigSourceDynamicDefaultBrokerConfig
	})
	if err := alterBroker(t, adm, "node.id", "7"); err == nil {
		t.Error("a read-only key of the broker was changed")
	}
}

// alterBroker changes the default of all brokers.
func alterBroker(t *testing.T, adm *kadm.Client, key, value string) error {
	t.Helper()
	done, err := adm.AlterBrokerConfigs(within(t, patience), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}})
	if err != nil {
		t.Fatal(err)
	}
	return done[0].Err
}

func cluster(t *testing.T, addr string) {
	ctx := within(t, patience)
	adm := admin(t, addr)
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil || len(meta.Brokers) != 1 || meta.Cluster == "" || fmt.Sprintf("%s:%d", meta.Brokers[0].Host, meta.Brokers[0].Port) != addr {
		t.Fatalf("metadata: %+v, %v", meta, err)
	}
	createTopic(t, addr, "weighed", 1)
	cl := kgoClient(t, addr)
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "weighed", Value: make([]byte, 10_000)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	dirs, err := adm.DescribeAllLogDirs(ctx, kadm.TopicsSet{"weighed": {0: {}}})
	if err != nil {
		t.Fatalf("log dirs: %v", err)
	}
	found := false
	dirs.Each(func(d kadm.DescribedLogDir) {
		if d.Err != nil {
			t.Errorf("log dir %s: %v", d.Dir, d.Err)
		}
		found = found || d.Topics["weighed"][0].Size > 100
	})
	if !found {
		t.Errorf("no size of the partition: %+v", dirs)
	}
	producers, err := adm.DescribeProducers(ctx, kadm.TopicsSet{"weighed": {0: {}}})
	if err != nil || len(producers["weighed"].Partitions[0].ActiveProducers) != 1 {
		t.Errorf("the idempotent producer is seen: %+v, %v", producers, err)
	}
	request := kmsg.NewPtrDescribeQuorumRequest()
	asked := kmsg.NewDescribeQuorumRequestTopic()
	asked.Topic = "__cluster_metadata"
	asked.Partitions = append(asked.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	request.Topics = append(request.Topics, asked)
	quorum, err := request.RequestWith(ctx, cl)
	if err != nil || quorum.ErrorCode != 0 || quorum.Topics[0].Partitions[0].LeaderID != meta.Brokers[0].NodeID || quorum.Topics[0].Partitions[0].HighWatermark <= 0 {
		t.Errorf("quorum: %+v, %v", quorum, err)
	}
	described, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(ctx, cl)
	if err != nil || described.ErrorCode != 0 || described.ClusterID != meta.Cluster || len(described.Brokers) != 1 {
		t.Errorf("cluster: %+v, %v", described, err)
	}
}

// TestFranzGoSurvivesKills lets one idempotent producer work on while its broker is killed and
// started again: what it was told is there, once and in order.
func TestFranzGoSurvivesKills(t *testing.T) {
	b := rig.Start(t)
	createTopic(t, b.Addr, "killed", 1)
	cl := kgoClient(t, b.Addr, kgo.ProduceRequestTimeout(5*time.Second))
	ctx := within(t, 3*time.Minute)
	var want []string
	for round := range 3 {
		for i := range 200 {
			value := fmt.Sprintf("%d-%d", round, i)
			want = append(want, value)
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "killed", Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatalf("produce %s: %v", value, err)
			}
		}
		b.Kill()
		b.Restart()
	}
	var got []string
	for _, r := range readAll(t, b.Addr, "killed")[0] {
		got = append(got, string(r.Value))
	}
	equalLines(t, "what was acknowledged", got, want)
}
