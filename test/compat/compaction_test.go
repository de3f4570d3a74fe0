//go:build compat

package compat

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/test/compat/rig"
)

// compactionSettings have both brokers look for something to compact twice a second.
var compactionSettings = []string{"log.cleaner.backoff.ms=500", "log.initial.task.delay.ms=500"}

// The topics of the comparison: in one tombstones stay, in the other they go after a second.
var compactedTopics = map[string][]string{
	"tombstones-stay": {"delete.retention.ms=86400000"},
	"tombstones-go":   {"delete.retention.ms=1000"},
}

// TestCompactedLogsHoldWhatKafkasHold gives both brokers the same history of keys, batch for batch, lets both compact, and
// compares every record and its offset. Then Kafka's DumpLogSegments reads our compacted segments and their indexes.
func TestCompactedLogsHoldWhatKafkasHold(t *testing.T) {
	seed := rig.Seed(t)
	here, there := rig.Start(t, compactionSettings...), rig.StartKafka(t, compactionSettings...)
	for _, b := range []*rig.Broker{here, there} {
		for name, configs := range compactedTopics {
			createTopic(t, b.Addr, name, 1, append(configs, "cleanup.policy=compact", "segment.bytes=1048576",
				"min.cleanable.dirty.ratio=0.01", "index.interval.bytes=2000")...)
		}
		writeKeys(t, b, seed, true)
	}
	// What is deleted above was compacted first now, so the date from which the tombstones may go is set.
	dated := time.Now().Add(3 * time.Second)
	rig.Eventually(t, patience, "the tombstones' time is over", func() bool { return time.Now().After(dated) })
	for _, b := range []*rig.Broker{here, there} {
		writeKeys(t, b, seed+1, false)
	}
	for name := range compactedTopics {
		ours, theirs := readCompacted(t, here.Addr, name), readCompacted(t, there.Addr, name)
		if len(ours) == 0 {
			t.Fatalf("%s: nothing is left", name)
		}
		tombstones := 0
		for i := range max(len(ours), len(theirs)) {
			if i >= len(ours) || i >= len(theirs) || !sameRecord(ours[i], theirs[i]) {
				t.Fatalf("%s: record %d of %d is %s, Kafka's of %d is %s", name, i, len(ours), recordAt(ours, i), len(theirs), recordAt(theirs, i))
			}
			if ours[i].Value == nil {
				tombstones++
			}
		}
		if stay := name == "tombstones-stay"; (tombstones > 0) != stay {
			t.Errorf("%s: %d tombstones", name, tombstones)
		}
		if got, want := checkpointLine(t, here, name), checkpointLine(t, there, name); got != want {
			t.Errorf("cleaner-offset-checkpoint of %s says %q, Kafka's %q", name, got, want)
		}
	}
	here.Stop()
	for name := range compactedTopics {
		dir := filepath.Join(here.Data, name+"-0")
		checkCompactedFiles(t, dir)
	}
}

// writeKeys writes batches of every codec over few keys to each topic, deletes some where asked, ends with two segments without
// deletions, and waits until all but the active segment is compacted.
func writeKeys(t *testing.T, b *rig.Broker, seed uint64, deletions bool) {
	t.Helper()
	cl := kgoClient(t, b.Addr)
	for name := range compactedTopics {
		r := rand.New(rand.NewPCG(seed, 0))
		id := topicID(t, cl, name)
		at := int64(1_700_000_000_000)
		const size, batches = 6 << 20, 400
		for i := range batches {
			made := batch.NewBuilder(batch.BuilderOptions{Codec: batch.Codec(i % 5)})
			for range 20 {
				at += r.Int64N(3)
				key := fmt.Appendf(nil, "key-%d", r.IntN(900))
				if deletions && i < batches/2 && r.IntN(4) == 0 { // some keys end as deleted
					key = fmt.Appendf(nil, "gone-%d", r.IntN(100))
					if i > batches/4 || r.IntN(2) == 0 {
						made.Append(at, key, nil, nil)
						continue
					}
				}
				value := make([]byte, size/batches/20)
				for j := range value {
					value[j] = byte(r.Uint32())
				}
				made.Append(at, key, value, []batch.Header{{Key: []byte("n"), Value: fmt.Append(nil, i)}})
			}
			records, err := made.Build()
			if err != nil {
				t.Fatal(err)
			}
			produceBatch(t, cl, name, id, records)
		}
	}
	for name := range compactedTopics {
		rig.Eventually(t, patience, "all but the active segment of "+name+" is compacted", func() bool {
			segments := glob(t, filepath.Join(b.Data, name+"-0"), "*.log")
			active := strings.TrimLeft(strings.TrimSuffix(filepath.Base(segments[len(segments)-1]), ".log"), "0")
			return checkpointLine(t, b, name) == name+" 0 "+active && len(glob(t, filepath.Join(b.Data, name+"-0"), "*.swap", "*.cleaned")) == 0
		})
	}
}

func topicID(t *testing.T, cl *kgo.Client, name string) [16]byte {
	t.Helper()
	topics, err := kadm.NewClient(cl).ListTopics(within(t, patience), name)
	if err != nil {
		t.Fatal(err)
	}
	return topics[name].ID
}

// produceBatch sends a batch as it is: clients decide for themselves which records share one.
func produceBatch(t *testing.T, cl *kgo.Client, name string, id [16]byte, records batch.Batch) {
	t.Helper()
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = name, id, append(topic.Partitions, p)
	q := kmsg.NewPtrProduceRequest()
	q.Acks, q.TimeoutMillis, q.Topics = -1, 30_000, append(q.Topics, topic)
	rig.Eventually(t, patience, "a batch for "+name+" is taken", func() bool {
		res, err := q.RequestWith(within(t, patience), cl)
		if err == nil {
			err = kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
		}
		// On a busy machine Apache Kafka's controller takes its only broker for dead, for a moment.
		if err != nil && !errors.Is(err, kerr.NotLeaderForPartition) {
			t.Fatalf("produce to %s: %v", name, err)
		}
		return err == nil
	})
}

// checkpointLine is what cleaner-offset-checkpoint says of a topic, "" if nothing or if the file is not as it should be.
func checkpointLine(t *testing.T, b *rig.Broker, topic string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.Data, "cleaner-offset-checkpoint"))
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(all) < 2 || all[0] != "0" || all[1] != strconv.Itoa(len(all)-2) {
		return ""
	}
	for _, line := range all[2:] {
		if strings.HasPrefix(line, topic+" 0 ") {
			return line
		}
	}
	return ""
}

// readCompacted reads a topic from its start to its end.
func readCompacted(t *testing.T, addr, topic string) []*kgo.Record {
	t.Helper()
	cl := kgoClient(t, addr, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	ctx := within(t, patience)
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	var all []*kgo.Record
	for len(all) == 0 || all[len(all)-1].Offset < end.Offset-1 { // the active segment is whole
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		all = append(all, fetches.Records()...)
	}
	return all
}

func sameRecord(a, b *kgo.Record) bool {
	return a.Offset == b.Offset && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil) &&
		a.Timestamp.Equal(b.Timestamp) && fmt.Sprint(a.Headers) == fmt.Sprint(b.Headers)
}

func recordAt(all []*kgo.Record, i int) string {
	if i >= len(all) {
		return "missing"
	}
	return fmt.Sprintf("%s at %d with %d bytes of %v", all[i].Key, all[i].Offset, len(all[i].Value), all[i].Timestamp.UnixMilli())
}

// checkCompactedFiles has DumpLogSegments go through every record, and through the indexes, which it compares with the records.
func checkCompactedFiles(t *testing.T, dir string) {
	t.Helper()
	segments := glob(t, dir, "*.log")
	batches := 0
	for _, line := range lines(dump(t, segments, "--deep-iteration")) {
		if m := batchLine.FindStringSubmatch(line); m != nil {
			if batches++; m[5] != "true" {
				t.Errorf("a batch is not valid: %s", line)
			}
		}
		if complaints.MatchString(line) && !strings.Contains(line, "isvalid: true") {
			t.Errorf("DumpLogSegments of %s: %s", dir, line)
		}
	}
	if batches == 0 {
		t.Errorf("DumpLogSegments shows no batch of %s", dir)
	}
	for _, line := range lines(dump(t, glob(t, dir, "*.index", "*.timeindex"))) {
		if complaints.MatchString(line) {
			t.Errorf("DumpLogSegments of the indexes in %s: %s", dir, line)
		}
	}
}
