package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestEveryTopicKeyFollowsItsBrokerKey walks down the sources: topic, broker, all brokers,
// file, default.
func TestEveryTopicKeyFollowsItsBrokerKey(t *testing.T) {
	for name, broker := range topicSynonyms {
		k, b := table.topic[name], table.broker[broker]
		values := valuesOf(t, b, 4)
		file := mustLoad(t, Sources{File: broker + "=" + values[0]})
		dynamic := func(all, one map[string]string) *Set {
			s, err := file.With(all, one)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		one := map[string]string{broker: values[2]}
		all := map[string]string{broker: values[1]}
		for i, c := range []struct {
			topic *Topic
			want  string
			from  Source
		}{
			{mustLoad(t, Sources{}).Topic(nil), k.Default, Default},
			{file.Topic(nil), values[0], StaticBroker},
			{dynamic(all, nil).Topic(nil), values[1], DynamicDefaultBroker},
			{dynamic(all, one).Topic(nil), values[2], DynamicBroker},
			{dynamic(all, one).Topic(map[string]string{name: values[3]}), values[3], DynamicTopic},
		} {
			at := slices.IndexFunc(c.topic.Entries(1), func(e Entry) bool { return e.Key == k })
			e := c.topic.Entries(1)[at]
			if e.Value != c.want || e.Source != c.from {
				t.Errorf("%s, step %d: %q from %s, want %q from %s", name, i, e.Value, e.Source, c.want, c.from)
			}
		}
	}
}

// valuesOf finds n values that a key takes, as they are shown.
func valuesOf(t *testing.T, k *Key, n int) []string {
	t.Helper()
	var list []string
	for _, probe := range []string{"true", "false", "lz4", "gzip", "zstd", "snappy", "CreateTime", "LogAppendTime", "delete", "compact", "delete,compact", "4", "5", "6", "7", "0.25", "0.75", "1048577", "1048578", "1048579", "1048580", "2147483646"} {
		if v, err := k.parse(probe); err == nil && !slices.Contains(list, text(v)) {
			list = append(list, text(v))
		}
	}
	for len(list) < n {
		list = append(list, list[0])
	}
	return list[:n]
}

func TestInternalSegmentBytesStandsForSegmentBytes(t *testing.T) {
	topic := mustLoad(t, Sources{}).Topic(map[string]string{"internal.segment.bytes": "100", "segment.bytes": "2000000"})
	if got := topic.Int("segment.bytes"); got != 100 {
		t.Errorf("segment.bytes is %d", got)
	}
	for _, e := range topic.Entries(1) {
		if e.Key.Name == "segment.bytes" && e.Value != "2000000" {
			t.Errorf("shown as %s", e.Value)
		}
	}
}

func TestCheckTopic(t *testing.T) {
	for _, c := range []struct {
		overrides map[string]string
		key       string
	}{
		{map[string]string{}, ""},
		{map[string]string{"cleanup.policy": "compact, delete", "retention.ms": " -1 ", "flush.before.ack": "false", "delete.retention.ms": "1"}, ""},
		{map[string]string{"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"}, ""},
		{map[string]string{"min.compaction.lag.ms": "6", "max.compaction.lag.ms": "5"}, "min.compaction.lag.ms"},
		{map[string]string{"retention.ms": "-2"}, "retention.ms"},
		{map[string]string{"segment.bytes": "100"}, "segment.bytes"},
		{map[string]string{"remote.storage.enable": "true"}, "remote.storage.enable"},
		{map[string]string{"remote.storage.enable": "FALSE"}, ""},
		{map[string]string{"leader.replication.throttled.replicas": "0:1,1:2"}, ""},
		{map[string]string{"leader.replication.throttled.replicas": "0-1"}, "leader.replication.throttled.replicas"},
		{map[string]string{"log.retention.ms": "1"}, "?log.retention.ms"},
		{map[string]string{"retension.ms": "1"}, "?retension.ms"},
	} {
		err := CheckTopic(c.overrides)
		var invalid *InvalidError
		var unknown *UnknownError
		switch {
		case c.key == "":
			if err != nil {
				t.Errorf("%v: %v", c.overrides, err)
			}
		case c.key[0] == '?':
			if !errors.As(err, &unknown) || unknown.Key != c.key[1:] || unknown.Nearest != "retention.ms" {
				t.Errorf("%v: %v", c.overrides, err)
			}
		case !errors.As(err, &invalid) || invalid.Key != c.key || invalid.Allowed == "":
			t.Errorf("%v: %v", c.overrides, err)
		}
	}
}

// TestThrottledReplicasAsInKafka: what Apache Kafka 4.3.1 takes for both keys, and what it refuses.
func TestThrottledReplicasAsInKafka(t *testing.T) {
	for value, taken := range map[string]bool{
		"": true, "*": true, " * ": true, ",*": true, "0:1": true, "0:1,1:2": true, " 0:1 , 1:2 ": true, "0:1,": true,
		",0:1": true, ",": true, ",,": true, "0:1,,1:2": true, "0:1,0:1": true, "0:1, ,1:2": true, "99999999999:1": true, " ": true,
		"*,x": false, "*,0:1": false, "0:1,*": false, "*,*": false, "**": false, "x,*": false, "0-1": false, "0:1:2": false, "a:b": false,
		"-1:1": false, "+1:1": false, "0: 1": false, "all": false, "*:*": false, "0:*": false, "٠:1": false, "0:": false, ":1": false,
	} {
		for _, key := range []string{"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"} {
			if err := CheckTopic(map[string]string{key: value}); (err == nil) != taken {
				t.Errorf("%s=%q: %v", key, value, err)
			}
		}
	}
}

func TestCheckDynamicBroker(t *testing.T) {
	for _, c := range []struct {
		key, value string
		all, one   bool // taken for all brokers, for one
	}{
		{"log.retention.ms", "1000", true, true},
		{"log.retention.ms", "0", false, false},
		{"log.flush.before.ack", "false", true, true},
		{"log.retention.hours", "1", false, false},
		{"num.partitions", "3", false, false},
		{"listeners", "PLAINTEXT://127.0.0.1:9092", false, false},
		{"cordoned.log.dirs", "*", false, true},
		{"ssl.keystore.location", "/x", false, false},
		{"ssl.truststore.type", "PKCS12", false, false},
		{"ssl.keymanager.algorithm", "SunX509", false, true},
		{"listener.name.mine.ssl.keystore.location", "/x", false, true},
		{"leader.replication.throttled.rate", "5", true, true},
		{"leader.replication.throttled.rate", "-5", false, false},
		{"a.plugin.key", "x", true, true},
	} {
		for _, perBroker := range []bool{false, true} {
			err := CheckDynamicBroker("1", map[string]string{c.key: c.value, "message.max.bytes": "5000"}, perBroker)
			want := c.all
			if perBroker {
				want = c.one
			}
			var invalid *InvalidError
			if (err == nil) != want || err != nil && !errors.As(err, &invalid) {
				t.Errorf("%s = %s, per broker %v: %v", c.key, c.value, perBroker, err)
			}
		}
	}
}

// TestReadOnlySettingsAreNamedInKafkasWords: Apache Kafka's own tests of kafka-configs look for them.
func TestReadOnlySettingsAreNamedInKafkasWords(t *testing.T) {
	err := CheckDynamicBroker("1", map[string]string{"node.id": "2", "listeners": "x", "log.retention.ms": "0"}, true)
	if err == nil || !strings.Contains(err.Error(), "Cannot update these configs dynamically: [listeners, node.id]") {
		t.Errorf("%v", err)
	}
	if err := CheckDynamicBroker("1", map[string]string{"log.retention.ms": "0"}, true); err == nil || strings.Contains(err.Error(), "dynamically") {
		t.Errorf("a value that is not allowed: %v", err)
	}
}

func TestWithLeavesOutWhatIsNotAllowed(t *testing.T) {
	base := mustLoad(t, Sources{})
	s, err := base.With(map[string]string{"message.max.bytes": "many", "compression.type": "lz4"}, map[string]string{"node.id": "9", "log.roll.ms": "5"})
	if err == nil || !strings.Contains(err.Error(), "message.max.bytes") || !strings.Contains(err.Error(), "node.id") {
		t.Errorf("error %v", err)
	}
	if s.Int("message.max.bytes") != 1048588 || s.String("compression.type") != "lz4" || s.Int64("log.roll.ms") != 5 || s.Int("node.id") != 1 {
		t.Error("the rest is not in effect")
	}
	if base.String("compression.type") != "producer" {
		t.Error("With changed the set that it was called on")
	}
}

// TestCheckedSettingsAreInEffect: whatever CheckTopic takes, the topic has, and shows.
func TestCheckedSettingsAreInEffect(t *testing.T) {
	base := mustLoad(t, Sources{})
	names := slices.Sorted(maps.Keys(table.topic))
	rapid.Check(t, func(r *rapid.T) {
		overrides := rapid.MapOfN(rapid.SampledFrom(names), rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,20}|0?\.[0-9]{1,3}|true|delete|compact`), rapid.String()), 0, 6).Draw(r, "overrides")
		if CheckTopic(overrides) != nil {
			return
		}
		for _, e := range base.Topic(overrides).Entries(1) {
			raw, ok := overrides[e.Key.Name]
			if ok != (e.Source == DynamicTopic) {
				r.Fatalf("%s is from %s", e.Key.Name, e.Source)
			}
			if again, err := e.Key.parse(raw); ok && (err != nil || text(again) != e.Value) {
				r.Fatalf("%s = %q is shown as %q", e.Key.Name, raw, e.Value)
			}
		}
	})
}

func TestLongValuesAreRefused(t *testing.T) {
	err := CheckTopic(map[string]string{"leader.replication.throttled.replicas": strings.Repeat("1:1,", maxValueBytes/4) + "1:1"})
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
	many := map[string]string{}
	for i := range 1000 {
		many[strings.Repeat("x", i)] = "y"
	}
	if n := strings.Count(CheckTopic(many).Error(), "\n"); n != maxReported-1 {
		t.Errorf("%d lines", n+1)
	}
}
