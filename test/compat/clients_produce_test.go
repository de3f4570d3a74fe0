//go:build compat

package compat

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

const (
	perCombination = 100 // records with one codec and one acks
	recordSize     = 300 // mostly spaces: a batch of one record gets smaller with every codec, or some clients store it without
	clientTopic    = "clients"
)

// produces sends records with every codec and acks, and looks at what has arrived from outside.
func produces(t *testing.T, l *library, b *rig.Broker) {
	createTopic(t, b.Addr, clientTopic, 3)
	combinations := len(l.about.Codecs) * len(l.about.Acks)
	acked := l.produce(t, l.name+" produce", "--brokers", b.Addr, "--topic", clientTopic, "--start", "0", "--count", flagOf(perCombination),
		"--codec", strings.Join(l.about.Codecs, ","), "--acks", strings.Join(l.about.Acks, ","), "--size", flagOf(recordSize)).finish()
	if len(acked) != combinations*perCombination {
		t.Errorf("%d records are acknowledged, %d were sent", len(acked), combinations*perCombination)
	}
	awaitRecords(t, b, clientTopic, combinations*perCombination) // nobody says when those with acks 0 are there
	read := readAll(t, b.Addr, clientTopic)
	acksOf := func(i int) string { return l.about.Acks[i/perCombination%len(l.about.Acks)] }
	checkRecords(t, l, read, acked, acksOf, func(i int) string { return l.about.Codecs[i/perCombination/len(l.about.Acks)] })
	count(t, read, combinations*perCombination)
	checkOrder(t, read, func(i int) int { return i / perCombination })
}

// producesOnce sends with an idempotent producer.
func producesOnce(t *testing.T, l *library, b *rig.Broker) {
	const topic = clientTopic + "-once"
	createTopic(t, b.Addr, topic, 3)
	acked := l.produce(t, l.name+" produce", "--brokers", b.Addr, "--topic", topic, "--start", "0", "--count", flagOf(perCombination),
		"--codec", strings.Join(l.about.Codecs, ","), "--acks", "all", "--size", flagOf(recordSize), "--idempotent", "true").finish()
	all := len(l.about.Codecs) * perCombination
	if len(acked) != all {
		t.Errorf("%d records are acknowledged, %d were sent", len(acked), all)
	}
	read := readAll(t, b.Addr, topic)
	checkRecords(t, l, read, acked, func(int) string { return "all" }, func(i int) string { return l.about.Codecs[i/perCombination] })
	count(t, read, all)
	checkOrder(t, read, func(int) int { return 0 })
	for _, r := range inOrder(read) {
		if r.ProducerID < 0 {
			t.Fatalf("record %d of partition %d has no producer id", r.Offset, r.Partition)
		}
	}
}

func awaitRecords(t *testing.T, b *rig.Broker, topic string, n int) {
	t.Helper()
	adm, ctx := admin(t, b.Addr), within(t, patience)
	var there int64
	rig.Eventually(t, patience, fmt.Sprintf("%d records are in %s", n, topic), func() bool {
		ends, err := adm.ListEndOffsets(ctx, topic)
		there = 0
		ends.Each(func(o kadm.ListedOffset) { there += o.Offset })
		return err == nil && there >= int64(n)
	})
}

func count(t *testing.T, read map[int32][]*kgo.Record, want int) {
	t.Helper()
	if got := len(inOrder(read)); got != want {
		t.Errorf("%d records lie in the topic, %d were sent", got, want)
	}
}

// checkRecords compares every record with what its number says, and every acknowledgement with its record.
func checkRecords(t *testing.T, l *library, read map[int32][]*kgo.Record, acked map[int]place, acksOf, codecOf func(i int) string) {
	t.Helper()
	lie := map[place]int{}
	seen := map[int]bool{}
	for _, r := range inOrder(read) {
		text := strings.TrimRight(string(r.Value), " ")
		i, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("the value at %d in partition %d is no number: %.40q", r.Offset, r.Partition, r.Value)
		}
		lie[place{r.Partition, r.Offset}], seen[i] = i, true
		if want := fmt.Sprintf("k%d", i%100); string(r.Key) != want || len(r.Value) != recordSize {
			t.Errorf("record %d has the key %q, not %q, and %d bytes, not %d", i, r.Key, want, len(r.Value), recordSize)
		}
		if want := headerOf(l, text); header(r) != want {
			t.Errorf("record %d has the headers %v", i, r.Headers)
		}
		if codec := codecs[r.Attrs.CompressionType()]; codec != codecOf(i) {
			t.Fatalf("record %d is stored with %s; it was sent with %s", i, codec, codecOf(i))
		}
	}
	for i, at := range acked {
		if !seen[i] {
			t.Errorf("record %d is acknowledged (acks %s) and not there", i, acksOf(i))
			continue
		}
		if found, there := lie[at]; acksOf(i) != "0" && (!there || found != i) {
			t.Errorf("record %d is acknowledged at %+v, where %d lies (%v)", i, at, found, there)
		}
	}
}

// headerOf is the header of a record whose number is this, where a library can give it one.
func headerOf(l *library, number string) string {
	if slices.Contains(l.about.Lacks, "headers") {
		return ""
	}
	return number
}

// header is a record's only header, n.
func header(r *kgo.Record) string {
	switch {
	case len(r.Headers) == 0:
		return ""
	case len(r.Headers) > 1 || r.Headers[0].Key != "n":
		return fmt.Sprintf("%v", r.Headers)
	}
	return string(r.Headers[0].Value)
}

// checkOrder wants the numbers of a key to rise within each part of the production, in one partition.
func checkOrder(t *testing.T, read map[int32][]*kgo.Record, part func(i int) int) {
	t.Helper()
	last := map[string]int{}
	home := map[string]int32{}
	for _, r := range inOrder(read) {
		i, _ := strconv.Atoi(strings.TrimRight(string(r.Value), " "))
		within := fmt.Sprintf("%s in part %d", r.Key, part(i))
		if before, known := last[within]; known && i <= before {
			t.Errorf("of the key %s, %d lies after %d", within, i, before)
		}
		last[within] = i
		if at, known := home[string(r.Key)]; known && at != r.Partition {
			t.Errorf("the key %s lies in the partitions %d and %d", r.Key, at, r.Partition)
		}
		home[string(r.Key)] = r.Partition
	}
}

// consumes reads the topic of produces without a group.
func consumes(t *testing.T, l *library, b *rig.Broker) {
	read := readAll(t, b.Addr, clientTopic)
	want := len(inOrder(read))
	got := map[int32][]string{}
	for _, p := range l.run(t, "consume", "--brokers", b.Addr, "--topic", clientTopic, "--count", flagOf(want)) {
		if p.Done != nil {
			continue
		}
		got[p.Partition] = append(got[p.Partition], fmt.Sprintf("%d %s %s %s", p.Offset, p.Key, p.Value, p.Header))
	}
	for p, records := range read {
		var lines []string
		for _, r := range records {
			lines = append(lines, fmt.Sprintf("%d %s %s %s", r.Offset, r.Key, strings.TrimRight(string(r.Value), " "), header(r)))
		}
		equalLines(t, fmt.Sprintf("partition %d", p), got[p], lines)
	}
}

// administers goes through the steps of the verb admin, and returns those that the library does not offer.
func administers(t *testing.T, l *library, b *rig.Broker) (absent []string) {
	const topic, data, group = "admin-made", "admin-data", "admin-group"
	createTopic(t, b.Addr, data, 3)
	cl := kgoClient(t, b.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var committed kadm.Offsets
	for p := range int32(3) {
		for range 20 {
			if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: data, Partition: p, Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		committed.AddOffset(data, p, 7+int64(p), -1)
	}
	commitOffsets(t, b.Addr, group, committed)
	is := func(want string) func(string) bool { return func(got string) bool { return got == want } }
	steps := []struct {
		name  string
		right func(detail string) bool
	}{
		{"create-topic", is(`null`)},
		{"describe-topic", is(`3`)},
		{"describe-config", is(`"3600000"`)},
		{"alter-config", is(`"7200000"`)},
		{"create-partitions", is(`5`)},
		{"list-offsets", is(`{"0":[0,20],"1":[0,20],"2":[0,20]}`)},
		{"describe-cluster", func(d string) bool {
			var found struct{ Brokers []int }
			return json.Unmarshal([]byte(d), &found) == nil && slices.Equal(found.Brokers, []int{1})
		}},
		{"list-groups", func(d string) bool {
			var found []string
			return json.Unmarshal([]byte(d), &found) == nil && slices.Contains(found, group)
		}},
		{"describe-group", func(d string) bool { return strings.EqualFold(d, `"Empty"`) }},
		{"fetch-offsets", is(`{"0":7,"1":8,"2":9}`)},
		{"delete-records", is(`10`)},
		{"delete-group", is(`null`)},
		{"delete-topic", is(`null`)},
	}
	got := l.run(t, "admin", "--brokers", b.Addr, "--topic", topic, "--group", group, "--data", data)
	if len(got) != len(steps) {
		t.Fatalf("%d steps were taken, not %d: %+v", len(got), len(steps), got)
	}
	for i, want := range steps {
		switch detail := strings.ReplaceAll(string(got[i].Detail), " ", ""); {
		case got[i].Step != want.name:
			t.Fatalf("step %d is %q, not %q", i, got[i].Step, want.name)
		case got[i].Unsupported != "":
			absent = append(absent, want.name)
		case !got[i].OK || !want.right(detail):
			t.Errorf("%s: %v, %s", want.name, got[i].OK, got[i].Detail)
		}
	}
	return absent
}

// meetsErrors goes through the cases of the verb errors, and returns those that the library does not offer.
func meetsErrors(t *testing.T, l *library, b *rig.Broker) (absent []string) {
	const topic, group = "errors-small", "errors-group"
	createTopic(t, b.Addr, topic, 1, "max.message.bytes=1000")
	cl := kgoClient(t, b.Addr)
	if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	member := kgoClient(t, b.Addr, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if fetches := member.PollFetches(within(t, patience)); fetches.Err() != nil {
		t.Fatalf("a member of %s: %v", group, fetches.Err())
	}
	want := []struct{ name, kafkaError string }{
		{"create-existing", "TOPIC_ALREADY_EXISTS"},
		{"bad-name", "INVALID_TOPIC_EXCEPTION"},
		{"bad-partitions", "INVALID_PARTITIONS"},
		{"bad-config", "INVALID_CONFIG"},
		{"too-large", "MESSAGE_TOO_LARGE"},
		{"out-of-range", "OFFSET_OUT_OF_RANGE"},
		{"delete-missing", "UNKNOWN_TOPIC_OR_PARTITION"},
		{"delete-busy-group", "NON_EMPTY_GROUP"},
		{"delete-missing-group", "GROUP_ID_NOT_FOUND"},
	}
	got := l.run(t, "errors", "--brokers", b.Addr, "--topic", topic, "--group", group)
	if len(got) != len(want) {
		t.Fatalf("%d cases were met, not %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		switch {
		case got[i].Case != w.name:
			t.Fatalf("case %d is %q, not %q", i, got[i].Case, w.name)
		case got[i].Unsupported != "":
			absent = append(absent, w.name)
		case got[i].Error != w.kafkaError:
			t.Errorf("%s: %s, not %s", w.name, got[i].Error, w.kafkaError)
		}
	}
	return absent
}

// commitOffsets commits for a group without members. Where it is the first, a coordinator may have to be made.
func commitOffsets(t *testing.T, addr, group string, offsets kadm.Offsets) {
	t.Helper()
	adm, ctx := admin(t, addr), within(t, patience)
	rig.Eventually(t, patience, "offsets of "+group+" are committed", func() bool { return adm.CommitAllOffsets(ctx, group, offsets) == nil })
}

// committedOffsets asks the broker where a group stands.
func committedOffsets(t *testing.T, addr, group, topic string) map[int32]int64 {
	t.Helper()
	found, err := admin(t, addr).FetchOffsets(within(t, patience), group)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		t.Fatalf("committed offsets of %s: %v", group, err)
	}
	offsets := map[int32]int64{}
	for p, o := range found[topic] {
		offsets[p] = o.At
	}
	return offsets
}

func endOffsets(t *testing.T, addr, topic string) map[int32]int64 {
	t.Helper()
	found, err := admin(t, addr).ListEndOffsets(within(t, patience), topic)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		t.Fatalf("end offsets of %s: %v", topic, err)
	}
	offsets := map[int32]int64{}
	for p, o := range found[topic] {
		offsets[p] = o.Offset
	}
	return offsets
}

func sortedPartitions[V any](m map[int32]V) []int32 { return slices.Sorted(maps.Keys(m)) }
