package group

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// golden are records that Apache Kafka itself wrote.
func golden(t testing.TB) (all []Record) {
	f, err := os.Open("testdata/kafka-4.3.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unhex := func(s string) []byte {
		if s == "-" {
			return nil
		}
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), " "); ok && key != "#" {
			all = append(all, Record{Key: unhex(key), Value: unhex(value)})
		}
	}
	if len(all) == 0 {
		t.Fatal("no records")
	}
	return all
}

// rewrite reads a record and writes what it says.
func rewrite(r Record) (Record, error) {
	var w writer
	kind, err := kindOf(r.Key)
	if err != nil {
		return Record{}, err
	}
	if kind == groupKeyV2 {
		k, err := readGroupKey(r.Key)
		if err != nil {
			return Record{}, err
		}
		if r.Value == nil {
			w.group(k.Group, nil)
			return w.records[0], nil
		}
		v, err := readGroupValue(r.Value)
		if err != nil {
			return Record{}, err
		}
		w.group(k.Group, &v)
		return w.records[0], nil
	}
	k, err := readOffsetKey(r.Key)
	if err != nil {
		return Record{}, err
	}
	if r.Value == nil {
		w.forget(k.Group, k.Topic, k.Partition)
		return w.records[0], nil
	}
	v, err := readOffsetValue(r.Value)
	if err != nil {
		return Record{}, err
	}
	w.commit(k.Group, k.Topic, committedOf(k.Partition, &v))
	return w.records[0], nil
}

func TestRecordsAreThoseOfKafka(t *testing.T) {
	for i, r := range golden(t) {
		got, err := rewrite(r)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if !bytes.Equal(got.Key, r.Key) || !bytes.Equal(got.Value, r.Value) || (got.Value == nil) != (r.Value == nil) {
			t.Errorf("record %d: Kafka wrote %x %x, the shard writes %x %x", i, r.Key, r.Value, got.Key, got.Value)
		}
	}
}

func TestLogOfKafkaLoads(t *testing.T) {
	b := newBench(t, nil)
	b.log = golden(t)
	b.reload()
	for group, want := range map[string]State{"g": Empty, "static": Stable, "twice": Stable, "cc": Empty, "simple": Dead, "old": Empty} {
		if got := b.state(group); got != want {
			t.Errorf("group %s is %v, want %v", group, got, want)
		}
	}
	g := b.s.groups["static"]
	if m := g.static["i1"]; m == nil || m != g.leader || g.generation != 1 || string(m.assignment) != "mine" || m.session != 10*time.Second {
		t.Errorf("the static member came back as %+v", m)
	}
	if c := b.s.groups["old"].committed("airports", 3); c == nil || c.offset != 0 || c.epoch != 0 {
		t.Errorf("the offset came back as %+v", c)
	}
}

func TestEveryOlderValueIsRead(t *testing.T) {
	for version := range newestOffsetValue + 1 {
		v := kmsg.OffsetCommitValue{Version: version, Offset: 7, LeaderEpoch: 4, Metadata: "m", CommitTimestamp: 8, ExpireTimestamp: 9}
		got, err := readOffsetValue(v.AppendTo(nil))
		if err != nil || got.Offset != 7 || got.Metadata != "m" || got.CommitTimestamp != 8 {
			t.Errorf("version %d of an offset: %+v, %v", version, got, err)
		}
		if want := map[bool]int32{true: 4, false: noEpoch}[version >= 3]; got.LeaderEpoch != want {
			t.Errorf("version %d of an offset: epoch %d, want %d", version, got.LeaderEpoch, want)
		}
		if want := map[bool]int64{true: 9, false: never}[version == 1]; got.ExpireTimestamp != want {
			t.Errorf("version %d of an offset: expires %d, want %d", version, got.ExpireTimestamp, want)
		}
	}
	name, instance := "range", "i"
	for version := range newestGroupValue + 1 {
		v := kmsg.NewGroupMetadataValue()
		v.Version, v.ProtocolType, v.Generation, v.Protocol, v.Leader, v.CurrentStateTimestamp = version, "consumer", 5, &name, &name, 77
		v.Members = []kmsg.GroupMetadataValueMember{{
			MemberID: "m", InstanceID: &instance, ClientID: "c", ClientHost: "/h", RebalanceTimeoutMillis: 6,
			SessionTimeoutMillis: 7, Subscription: []byte("s"), Assignment: []byte("a"),
		}}
		b := v.AppendTo(nil)
		got, err := readGroupValue(b)
		if err != nil || got.Generation != 5 || len(got.Members) != 1 || got.Members[0].SessionTimeoutMillis != 7 || string(got.Members[0].Assignment) != "a" {
			t.Errorf("version %d of a group: %+v, %v", version, got, err)
		}
		s := New(Defaults(), rand.NewPCG(1, 1))
		var w writer
		w.key(groupKeyV2, "g")
		if err := s.Replay(Record{Key: w.buf, Value: b}, began); err != nil {
			t.Fatal(err)
		}
		s.Loaded(began)
		m := s.groups["g"].members["m"]
		if want := map[bool]time.Duration{true: 6 * time.Millisecond, false: 7 * time.Millisecond}[version >= 1]; m.rebalance != want {
			t.Errorf("version %d of a group: rebalance timeout %v, want %v", version, m.rebalance, want)
		}
	}
}

func TestForeignAndBrokenRecordsChangeNothing(t *testing.T) {
	ok := golden(t)[0]
	for name, test := range map[string]struct {
		r    Record
		kind int16
	}{
		"consumer group":      {Record{Key: []byte{0, 3, 0, 1, 'g'}, Value: []byte{0, 0}}, 3},
		"share group":         {Record{Key: []byte{0, 14, 0, 1, 'g'}}, 14},
		"negative kind":       {Record{Key: []byte{0xff, 0xff}}, -1},
		"no key":              {Record{}, 0},
		"half a key":          {Record{Key: ok.Key[:9], Value: ok.Value}, 0},
		"half a value":        {Record{Key: ok.Key, Value: ok.Value[:9]}, 0},
		"empty value":         {Record{Key: ok.Key, Value: []byte{}}, 0},
		"value of the future": {Record{Key: ok.Key, Value: append([]byte{0, 5}, ok.Value[2:]...)}, 0},
		"negative partition":  {Record{Key: append(bytes.Clone(ok.Key[:len(ok.Key)-4]), 0xff, 0xff, 0xff, 0xff), Value: ok.Value}, 0},
		"half a group":        {Record{Key: []byte{0, 2, 0, 1, 'g'}, Value: []byte{0, 3, 0}}, 0},
	} {
		s := New(Defaults(), rand.NewPCG(1, 1))
		err := s.Replay(test.r, began)
		var foreign *KindError
		switch {
		case test.kind != 0 && (!errors.As(err, &foreign) || foreign.Kind != test.kind):
			t.Errorf("%s: %v", name, err)
		case test.kind == 0 && !errors.Is(err, ErrMalformed):
			t.Errorf("%s: %v", name, err)
		case len(s.groups) != 0:
			t.Errorf("%s made a group", name)
		}
	}
}

// FuzzReplay: whatever stands in the log, a load ends, and what was loaded can be written again.
func FuzzReplay(f *testing.F) {
	for _, r := range golden(f) {
		f.Add(r.Key, r.Value, r.Value == nil)
	}
	f.Add([]byte{0, 3, 0, 1, 'g'}, []byte{0, 0}, false)
	f.Fuzz(func(t *testing.T, key, value []byte, tombstone bool) {
		if tombstone {
			value = nil
		} else if value == nil {
			value = []byte{}
		}
		c := Defaults()
		s := New(c, rand.NewPCG(1, 1))
		r := Record{Key: key, Value: value}
		if s.Replay(r, began) != nil {
			if len(s.groups) != 0 {
				t.Fatal("a refused record has changed something")
			}
			return
		}
		s.Loaded(began)
		now := began
		for range 20 { // whoever was loaded goes again
			due, _ := s.Deadline()
			if due.After(now) {
				now = due
			}
			for _, r := range s.Tick(now, image{}).Records {
				if err := s.Replay(r, now); err != nil {
					t.Fatalf("its own record: %v", err)
				}
			}
			s.Appended()
		}
		once, err := rewrite(r)
		if err != nil {
			t.Fatalf("rewrite: %v", err)
		}
		twice, err := rewrite(once)
		if err != nil {
			t.Fatalf("rewrite what was written: %v", err)
		}
		if diff := cmp.Diff(once, twice); diff != "" {
			t.Fatalf("written again it differs:\n%s", diff)
		}
	})
}
