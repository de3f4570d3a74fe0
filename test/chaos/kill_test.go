//go:build chaos

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

// TestTorture runs the yardstick's torture while the broker is killed with -9 and started again
// five times within a minute: nothing lost, doubled, reordered, seen and gone, or given up.
func TestTorture(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	b := rig.Start(t)
	writing := tortureBegins(t, torturedTopic, time.Minute, "-b", b.Addr, "-r", "1")
	for range 5 {
		pause(t, 8*time.Second+time.Duration(rng.Int64N(int64(2*time.Second))))
		b.Kill()
		b.Restart()
	}
	writing.verdict()
}

// told is what a client was told: a record's place, a topic's being or not being there.
type told struct {
	sync.Mutex
	records map[string]map[int32]map[int64]string
	there   map[string]bool
}

func (w *told) record(r *kgo.Record) {
	w.Lock()
	defer w.Unlock()
	if w.records[r.Topic] == nil {
		w.records[r.Topic] = map[int32]map[int64]string{}
	}
	if w.records[r.Topic][r.Partition] == nil {
		w.records[r.Topic][r.Partition] = map[int64]string{}
	}
	w.records[r.Topic][r.Partition][r.Offset] = string(r.Value)
}

func (w *told) topic(name string, there bool) {
	w.Lock()
	defer w.Unlock()
	w.there[name] = there
}

// TestKillUnderLoad kills the broker at moments of a seed while it takes records into many small
// segments, and topics come and go. After each start all that was acknowledged holds.
func TestKillUnderLoad(t *testing.T) {
	rng := seeded(t)
	b := rig.Start(t)
	small := map[string]string{"segment.bytes": "1048576", "index.interval.bytes": "4096"}
	createTopic(t, b.Addr, "many", 50, small)
	createTopic(t, b.Addr, "one", 1, small)
	acknowledged := &told{records: map[string]map[int32]map[int64]string{}, there: map[string]bool{"many": true, "one": true}}
	rounds := 8
	for round := range rounds {
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() { write(ctx, t, b.Addr, fmt.Sprintf("%d-%d", round, w), acknowledged) })
		}
		wg.Go(func() { comeAndGo(ctx, t, b.Addr, round, acknowledged) })
		pause(t, 500*time.Millisecond+time.Duration(rng.Int64N(int64(2*time.Second))))
		b.Kill()
		stop()
		wg.Wait()
		b.Restart()
		acknowledged.check(t, b.Addr, round)
		if t.Failed() {
			return
		}
	}
	total := 0
	for _, partitions := range acknowledged.records {
		for _, records := range partitions {
			total += len(records)
		}
	}
	if total < rounds*100 {
		t.Errorf("only %d records were acknowledged in %d rounds: that proves little", total, rounds)
	}
	t.Logf("%d records and %d topics held over %d kills", total, len(acknowledged.there), rounds)
}

// write produces until its context ends; each record carries a name of its own.
func write(ctx context.Context, t *testing.T, addr, name string, acknowledged *told) {
	cl := client(t, addr, kgo.MaxBufferedRecords(500), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	filler := strings.Repeat("x", 400)
	for n := 0; ctx.Err() == nil; n++ {
		topic := "many"
		if n%3 == 0 {
			topic = "one"
		}
		cl.Produce(ctx, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "%s-%d %s", name, n, filler)}, func(r *kgo.Record, err error) {
			if err == nil {
				acknowledged.record(r)
			}
		})
	}
	flush, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = cl.Flush(flush) // records that were on their way when the broker died are not acknowledged, and may or may not be there
}

// comeAndGo creates topics and deletes every other one.
func comeAndGo(ctx context.Context, t *testing.T, addr string, round int, acknowledged *told) {
	adm := admin(t, addr)
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("comes-%d-%d", round, n)
		if _, err := adm.CreateTopic(ctx, 2, 1, nil, name); err != nil {
			return
		}
		acknowledged.topic(name, true)
		if n%2 == 0 {
			continue
		}
		acknowledged.Lock()
		delete(acknowledged.there, name) // neither is promised until the answer is here
		acknowledged.Unlock()
		if deleted, err := adm.DeleteTopics(ctx, name); err != nil || deleted.Error() != nil {
			return
		}
		acknowledged.topic(name, false)
	}
}

func (w *told) check(t *testing.T, addr string, round int) {
	t.Helper()
	w.Lock()
	defer w.Unlock()
	listed, err := admin(t, addr).ListTopics(within(t, patience))
	if err != nil {
		t.Fatalf("round %d: list topics: %v", round, err)
	}
	for name, there := range w.there {
		if listed.Has(name) != there {
			t.Errorf("round %d: topic %s: there %v, the client was told %v", round, name, listed.Has(name), there)
		}
	}
	for topic, partitions := range w.records {
		got := read(t, addr, topic)
		for p, records := range partitions {
			for offset, value := range records {
				if got[p][offset] != value {
					t.Fatalf("round %d: %s-%d at %d: %.30q was acknowledged, %.30q is there", round, topic, p, offset, value, got[p][offset])
				}
			}
		}
		for p, records := range got {
			seen := map[string]int64{}
			for offset, value := range records {
				if before, twice := seen[value]; twice {
					t.Fatalf("round %d: %s-%d: %.30q stands at %d and at %d", round, topic, p, value, before, offset)
				}
				seen[value] = offset
			}
		}
	}
}

// TestSignals: a service manager's signals end the broker cleanly, under load too.
func TestSignals(t *testing.T) {
	if rig.System() != "barnabas" {
		t.Log("Apache Kafka's exit codes are its own business")
		return
	}
	b := rig.Start(t)
	createTopic(t, b.Addr, "signals", 6, nil)
	acknowledged := &told{records: map[string]map[int32]map[int64]string{}, there: map[string]bool{"signals": true}}
	for round, end := range []func() int{b.Stop, b.Interrupt} {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			cl := client(t, b.Addr, kgo.MaxBufferedRecords(500))
			for n := 0; ctx.Err() == nil; n++ {
				cl.Produce(ctx, &kgo.Record{Topic: "signals", Value: fmt.Appendf(nil, "%d-%d", round, n)}, func(r *kgo.Record, err error) {
					if err == nil {
						acknowledged.record(r)
					}
				})
			}
		}()
		pause(t, time.Second)
		code := end()
		stop()
		<-done
		if code != 0 {
			t.Errorf("signal %d ended the broker with exit code %d:\n%s", round, code, b.Log())
		}
		b.Restart()
		acknowledged.check(t, b.Addr, round)
	}
}

// TestSecondStartIsRefused: a directory serves one process, and says which.
func TestSecondStartIsRefused(t *testing.T) {
	if rig.System() != "barnabas" {
		t.Log("asks our own command line")
		return
	}
	b := rig.Start(t)
	createTopic(t, b.Addr, "kept", 1, nil)
	out, code := b.TryStart()
	if code == 0 || !strings.Contains(out, fmt.Sprint(b.PID())) || !strings.Contains(out, b.Data) {
		t.Errorf("a second start ended with %d and does not name the directory and the process %d that holds it:\n%s", code, b.PID(), out)
	}
	if err := client(t, b.Addr).ProduceSync(within(t, patience), &kgo.Record{Topic: "kept", Value: []byte("x")}).FirstErr(); err != nil {
		t.Errorf("the first broker was disturbed: %v", err)
	}
	b.Kill()
	b.Restart() // a dead process holds nothing
	if got := read(t, b.Addr, "kept")[0][0]; got != "x" {
		t.Errorf("%q is there", got)
	}
}

// storageErrorWithin produces until the broker says that it has no room, and returns what was taken before.
func storageErrorWithin(t *testing.T, cl *kgo.Client, topic string, most int) (taken map[int64]string) {
	t.Helper()
	taken = map[int64]string{}
	filler := strings.Repeat("0123456789abcdef", 4000)
	ctx := within(t, 2*time.Minute)
	for n := range most {
		r := &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "%d %s", n, filler)}
		err := cl.ProduceSync(ctx, r).FirstErr()
		switch {
		case err == nil:
			taken[r.Offset] = string(r.Value)
		case errors.Is(err, kerr.KafkaStorageError):
			return taken
		default:
			t.Fatalf("record %d: %v, want success or KAFKA_STORAGE_ERROR", n, err)
		}
	}
	t.Fatalf("%d records of 64 KiB fitted", most)
	return nil
}

// fillUp takes what a producer of large records has left of a disk, to the last byte, and returns the file
// that has it.
func fillUp(t *testing.T, dir string) (name string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	return f.Name()
}

// TestFullDisk fills a small disk of its own: producers hear KAFKA_STORAGE_ERROR, readers read on,
// nobody exits, a stop is clean and a start serves readers, retention still runs, and then writes go on.
func TestFullDisk(t *testing.T) {
	if rig.System() != "barnabas" {
		t.Log("Apache Kafka halts on a full disk; ours does not")
		return
	}
	mount := smallDisk(t, "96m")
	b := rig.StartWith(t, rig.Options{
		Data:     filepath.Join(mount, "data"),
		Settings: []string{"log.retention.check.interval.ms=200", "log.segment.delete.delay.ms=0"},
	})
	createTopic(t, b.Addr, "fills", 1, map[string]string{"segment.bytes": "1048576", "file.delete.delay.ms": "0"})
	createTopic(t, b.Addr, "other", 1, nil)
	cl := client(t, b.Addr, kgo.RecordRetries(1), kgo.DisableIdempotentWrite(), kgo.ProducerBatchMaxBytes(200_000),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	taken := storageErrorWithin(t, cl, "fills", 5000)
	if len(taken) < 100 {
		t.Errorf("the disk was full after %d records of 64 KiB", len(taken))
	}
	same := func() {
		t.Helper()
		got := read(t, b.Addr, "fills")[0]
		for offset, value := range taken {
			if got[offset] != value {
				t.Fatalf("offset %d: %.20q was acknowledged, %.20q is there", offset, value, got[offset])
			}
		}
	}
	same()
	select {
	case <-b.Gone():
		t.Fatalf("a full disk ended the broker:\n%s", b.Log())
	default:
	}
	filler := fillUp(t, mount)
	for range 2 {
		if code := b.Stop(); code != 0 {
			t.Errorf("a stop on a full disk ends with exit code %d:\n%s", code, b.Log())
		}
		b.Restart()
		same()
		b.Kill()
		b.Restart()
		same()
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}

	// The way out: what is retained gets less, which is a change of metadata on the same full disk.
	limit := "4194304"
	altered, err := admin(t, b.Addr).AlterTopicConfigs(within(t, patience), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.bytes", Value: &limit}}, "fills")
	if err != nil || altered[0].Err != nil {
		t.Fatalf("lower retention.bytes: %v %+v", err, altered)
	}
	// As large as what filled the disk: a small record might fit into the rest of the last page.
	room := bytes.Repeat([]byte("room"), 16<<10)
	for _, topic := range []string{"fills", "other"} {
		rig.Eventually(t, patience, "there is room again and records are taken by "+topic, func() bool {
			return cl.ProduceSync(within(t, 10*time.Second), &kgo.Record{Topic: topic, Value: room}).FirstErr() == nil
		})
	}
	if code := b.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	b.Restart()
	after := read(t, b.Addr, "fills")[0]
	for offset, value := range after {
		if was, ok := taken[offset]; ok && was != value {
			t.Errorf("offset %d has changed", offset)
		}
	}
}
