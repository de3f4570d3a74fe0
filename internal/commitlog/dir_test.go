package commitlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/commitlog/burial"
	"barnabas/internal/commitlog/flushcost"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

func TestADirectoryIsTakenOnce(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	_, err := OpenDir(context.Background(), testOptions(m))
	var locked *disk.LockedError
	if !errors.As(err, &locked) || !strings.Contains(locked.Holder, "pid ") {
		t.Fatalf("%v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testOptions(m))
	_ = d.Close()
}

func TestADirectoryOfAnotherNodeClusterOrFormatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string
		want    error
	}{
		{"newer", "version=2\nnode.id=1\ncluster.id=cluster\n", ErrNewerFormat},
		{"node", "version=1\nnode.id=2\ncluster.id=cluster\n", ErrForeign},
		{"cluster", "version=1\nnode.id=1\ncluster.id=other\n", ErrForeign},
		{"older", "version=0\nbroker.id=1\n", identity.ErrMeta},
		{"junk", "hello", identity.ErrMeta},
		{"empty", "", identity.ErrMeta},
	} {
		m := disk.NewMem()
		if err := disk.MkdirAllSync(m, "/data"); err != nil {
			t.Fatal(err)
		}
		if err := disk.WriteFileAtomic(m, "/data/meta.properties", []byte(c.content)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDir(context.Background(), testOptions(m)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "meta.properties") {
			t.Fatalf("%s: %v", c.name, err)
		}
		if after, _ := disk.ReadFile(m, "/data/meta.properties", 1000); string(after) != c.content {
			t.Fatalf("%s: it was changed to %q", c.name, after)
		}
		if l, err := m.Lock("/data/.lock", "test"); err != nil { // it is free again
			t.Fatalf("%s: %v", c.name, err)
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIdentityIsKept(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	o.ClusterID = ""
	d := mustOpen(t, o)
	if d.ClusterID() != "" {
		t.Fatal("a new directory has a cluster")
	}
	id := d.ID()
	if err := d.SetClusterID("abc=:d"); err != nil {
		t.Fatal(err)
	}
	if err := d.SetClusterID("other"); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
	m = m.Crash(1)
	abandon(d)
	o.FS = m
	d = mustOpen(t, o)
	if d.ClusterID() != "abc=:d" || d.ID() != id {
		t.Fatalf("%q %v, was %v", d.ClusterID(), d.ID(), id)
	}
	_ = d.Close()
}

// What a command line takes for a flag is no directory's id: Apache Kafka's tools could not remove its voter.
func TestDirectoryIDsAreNoFlags(t *testing.T) {
	o := testOptions(disk.NewMem())
	o.Rand = io.MultiReader(bytes.NewReader(bytes.Repeat([]byte{0xfb}, 16)), rand.NewChaCha8([32]byte{1}))
	d := mustOpen(t, o)
	defer func() { _ = d.Close() }()
	if text := d.ID().String(); text[0] == '-' {
		t.Fatal(text)
	}
}

func TestRemovedLogsAreGoneAndTheNameIsFree(t *testing.T) {
	for seed := range uint64(60) {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, smallConfig())
		for i := range 40 {
			mustAppend(t, l, produced(3, 0, int32(i), i, 1))
		}
		flush(t, l)
		l.AdvanceHighWatermark(40)
		if err := l.AdvanceStart(30); err != nil {
			t.Fatal(err)
		}
		d.keeper.checkpoint()
		d.keeper.storeStarts()
		r, err := l.Read(31, 1000, 40, true)
		if err != nil {
			t.Fatal(err)
		}
		remove(d, testTopic)
		if _, err := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if data, err := r.AppendTo(nil); err != nil || len(data) == 0 {
			t.Fatalf("a read under way: %v", err)
		}
		_ = r.Close()
		other := [16]byte{9}
		l2, err := d.Log(testTopic, other, smallConfig())
		if err != nil {
			t.Fatal(err)
		}
		if p := l2.Progress(); p != (Progress{}) {
			t.Fatalf("the new log has %+v", p)
		}
		if seed%2 == 0 {
			mustAppend(t, l2, records(0, 5, 20))
			flush(t, l2)
		}
		m = m.Crash(seed)
		abandon(d)
		d = mustOpen(t, testOptions(m))
		for _, f := range d.Found() {
			if f.TopicPartition == testTopic && f.TopicID == testID {
				t.Fatalf("seed %d: the removed log is back", seed)
			}
		}
		l2, err = d.Log(testTopic, other, smallConfig())
		if err != nil {
			t.Fatal(err)
		}
		want := Progress{}
		if seed%2 == 0 {
			want = Progress{End: 5, Flushed: 5}
		}
		if at, damaged := l2.Damaged(); l2.Progress() != want || damaged {
			t.Fatalf("seed %d: %+v, want %+v (damaged %v at %d)", seed, l2.Progress(), want, damaged, at)
		}
		if _, err := d.Log(testTopic, testID, smallConfig()); seed%2 == 0 && !errors.Is(err, ErrTopicID) {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		entries, err := m.List("/data")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name, burial.Suffix) {
				t.Fatalf("%s is still there", e.Name)
			}
		}
	}
}

func TestALogNeverWrittenToHasNoFile(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	before, _ := m.List("/data")
	l := mustLog(t, d, smallConfig())
	if err := errors.Join(leads(l, 3), l.Truncate(0), l.AdvanceStart(0)); err != nil {
		t.Fatal(err)
	}
	remove(d, TopicPartition{"none", 0})
	flush(t, l)
	if r, err := l.Read(0, 100, 10, true); err != nil || r.Len() != 0 || r.Close() != nil {
		t.Fatal(err)
	}
	if _, found, err := l.OffsetForTime(0); found || err != nil {
		t.Fatal(err)
	}
	if _, found, err := l.MaxTimestamp(); found || err != nil {
		t.Fatal(err)
	}
	d.keeper.checkpoint()
	d.keeper.retain()
	after, _ := m.List("/data")
	if len(after) != len(before) {
		t.Fatalf("%v, before %v", after, before)
	}
	remove(d, testTopic)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// manyLogs writes to n logs once each.
func manyLogs(t testing.TB, d *Dir, n int, size int) []*Log {
	t.Helper()
	var logs []*Log
	for i := range n {
		l, err := d.Log(TopicPartition{"many", int32(i)}, testID, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, records(i, 1, size))
		l.AdvanceHighWatermark(1)
		logs = append(logs, l)
	}
	for _, l := range logs {
		flush(t, l)
	}
	return logs
}

// offsetEntryBytes is the size of an entry in a .index file.
const offsetEntryBytes = 8

func TestIdleLogsHaveNoOpenFileAndLittleMemory(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	logs := manyLogs(t, d, 300, 50)
	if n := d.files.Count(); n < 300 {
		t.Fatalf("%d files are open", n)
	}
	goroutines := runtime.NumGoroutine()
	for range 4 {
		d.keeper.closeIdle()
	}
	if n := d.files.Count(); n != 0 {
		t.Fatalf("%d files are open", n)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Fatalf("%d goroutines, %d before", n, goroutines)
	}
	for _, l := range logs {
		if l.mu.warm != nil || !l.active().Resting() {
			t.Fatal("an idle log has a buffer")
		}
	}
	for i, l := range logs { // and they go on as if nothing had been
		if a := mustAppend(t, l, records(i, 1, 50)); a.First != 1 {
			t.Fatalf("%+v", a)
		}
		if got := readAll(t, l, 100); len(got) != 2 {
			t.Fatalf("%+v", got)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestABusyLogKeepsItsFiles(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	mustAppend(t, l, records(0, 1, 50))
	for i := range 10 {
		mustAppend(t, l, records(i, 1, 5))
		d.keeper.closeIdle()
		if !l.active().Data.IsOpen() {
			t.Fatal("closed while in use")
		}
	}
	_ = d.Close()
}

func TestOpenFilesAreBounded(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	o.MaxOpenFiles = 50
	d := mustOpen(t, o)
	logs := manyLogs(t, d, 200, 50)
	d.files.Idle()
	for i, l := range logs[180:] {
		mustAppend(t, l, records(i, 1, 50))
		flush(t, l)
	}
	for range 3 {
		d.keeper.shut(d.files.Surplus())
	}
	if n := d.files.Count(); n > 50 {
		t.Fatalf("%d files are open", n)
	}
	for _, l := range logs[180:] {
		if !l.active().Data.IsOpen() {
			t.Fatal("a file that was used last is not among the open ones")
		}
	}
	_ = d.Close()
}

// TestReadersAndClosingFilesDoNotMeet reads while files are closed all the time.
func TestReadersAndClosingFilesDoNotMeet(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	for i := range 200 {
		mustAppend(t, l, records(i, 1, 100))
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 5 {
				if got := readAll(t, l, 900); len(got) < 200 {
					t.Errorf("%d records", len(got))
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 100 {
			mustAppend(t, l, records(i, 1, 100))
			if i%3 == 0 {
				d.keeper.shut(d.files.Open())
			}
		}
	})
	wg.Wait()
	flush(t, l) // the flusher opens what it has to flush
	d.keeper.shut(d.files.Open())
	if n := d.files.Count(); n != 0 {
		t.Fatalf("%d files are open", n)
	}
	_ = d.Close()
}

// reads sums what is read of .log files.
type reads struct {
	mu    sync.Mutex
	bytes map[string]int64
	opens int
}

func watchReads(m *disk.Mem) *reads {
	r := &reads{bytes: map[string]int64{}}
	m.SetFault(func(op disk.Op) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if op.Kind == disk.OpRead && strings.HasSuffix(op.Path, segment.DataSuffix) {
			r.bytes[op.Path] += op.Len
		}
		if op.Kind == disk.OpOpen {
			r.opens++
		}
		return nil
	})
	return r
}

func (r *reads) total() (n int64) {
	for _, b := range r.bytes {
		n += b
	}
	return n
}

func TestRecoveryReadsOnlyWhatLiesPastTheRecoveryPoint(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := DefaultConfig()
	l := mustLog(t, d, cfg)
	for i := range 400 {
		mustAppend(t, l, produced(4, 0, int32(i), i, 1))
		mustAppend(t, l, records(i, 1, 5000))
	}
	flush(t, l)
	d.keeper.checkpoint()
	checked := l.Size()
	for i := range 20 {
		mustAppend(t, l, records(i, 1, 5000))
	}
	flush(t, l)
	size := l.Size()
	m = m.Kill()
	abandon(d)
	r := watchReads(m)
	d = mustOpen(t, testOptions(m))
	if end := d.logs()[0].Progress().End; end != 820 {
		t.Fatalf("log ends at %d", end)
	}
	if got, past := r.total(), size-checked; got > past+4*segment.BlockBytes {
		t.Fatalf("read %d bytes of the log, %d lie past the recovery point", got, past)
	}
	if states, err := d.logs()[0].Producers(); err != nil || len(states) != 0 {
		t.Logf("%+v", states) // expired: the test's records are old
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r = watchReads(m)
	d = mustOpen(t, testOptions(m))
	if got := r.total(); got > 2*segment.BlockBytes {
		t.Fatalf("after a clean stop %d bytes of the log were read", got)
	}
	_ = d.Close()
}

func TestOpeningAfterACleanStopOpensFewFiles(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	manyLogs(t, d, 100, 50)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r := watchReads(m)
	d = mustOpen(t, testOptions(m))
	if r.opens > 100*6+10 {
		t.Fatalf("%d files were opened for 100 logs", r.opens)
	}
	if n := d.files.Count(); n != 0 {
		t.Fatalf("%d files are open", n)
	}
	if len(d.Found()) != 100 {
		t.Fatalf("%d logs found", len(d.Found()))
	}
	_ = d.Close()
}

func TestLostAndDamagedIndexesAreMadeAgain(t *testing.T) {
	for name, damage := range map[string]func(m *disk.Mem, path string) error{
		"lost": func(m *disk.Mem, path string) error { return m.Remove(path) },
		"cut": func(m *disk.Mem, path string) error {
			data, err := disk.ReadFile(m, path, 1<<20)
			if err != nil || len(data) < 8 {
				return err
			}
			return disk.WriteFileAtomic(m, path, data[:len(data)-3])
		},
		"shifted": func(m *disk.Mem, path string) error { // every second position is wrong by a few bytes
			data, err := disk.ReadFile(m, path, 1<<20)
			if err != nil || strings.HasSuffix(path, segment.TimeSuffix) {
				return err
			}
			for i := 7; i < len(data)-offsetEntryBytes; i += 2 * offsetEntryBytes {
				data[i] += 3
			}
			return disk.WriteFileAtomic(m, path, data)
		},
		"junk": func(m *disk.Mem, path string) error {
			return disk.WriteFileAtomic(m, path, []byte(strings.Repeat("junk", 24)))
		},
		"zeros": func(m *disk.Mem, path string) error { return disk.WriteFileAtomic(m, path, make([]byte, 240)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := disk.NewMem()
			d := mustOpen(t, testOptions(m))
			l := mustLog(t, d, smallConfig())
			for i := range 100 {
				mustAppend(t, l, records(i, 1, 100))
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			entries, err := m.List(l.path)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.HasSuffix(e.Name, segment.IndexSuffix) || strings.HasSuffix(e.Name, segment.TimeSuffix) {
					if err := damage(m, l.path+"/"+e.Name); err != nil {
						t.Fatal(err)
					}
				}
			}
			o := testOptions(m)
			o.CheckConfig = func(TopicPartition) Config { return smallConfig() }
			d = mustOpen(t, o)
			l = mustLog(t, d, smallConfig())
			for from := range int64(100) {
				r, err := l.Read(from, 1, 100, true)
				if err != nil || r.First != from || r.Next != from+1 {
					t.Fatalf("read %d: %d to %d, %v", from, r.First, r.Next, err)
				}
				_ = r.Close()
				when, found, err := l.OffsetForTime(testNow + from)
				if err != nil || !found || when.Offset != from {
					t.Fatalf("time of %d: %+v %v %v", from, when, found, err)
				}
			}
			d.keeper.repair()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = mustOpen(t, testOptions(m))
			l = mustLog(t, d, smallConfig())
			for _, s := range *l.segments.Load() {
				if !s.Indexed() || (s.Size.Load() > 1000 && s.IndexEntries() == 0) {
					t.Fatalf("segment %d of %d bytes: index of %d entries", s.Base, s.Size.Load(), s.IndexEntries())
				}
			}
			_ = d.Close()
		})
	}
}

// TestFlushRoundsUseOneFlushForManyLogs holds up a round and appends to 40 logs meanwhile: they share the next.
func TestFlushRoundsUseOneFlushForManyLogs(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	o.Now = newClock().now // by the clock no flush takes any time: then many go together
	d := mustOpen(t, o)
	logs := manyLogs(t, d, 41, 50)
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var files, all atomic.Int64
	m.SetFault(func(op disk.Op) error {
		switch op.Kind {
		case disk.OpSync:
			files.Add(1)
			once.Do(func() {
				close(held)
				<-release
			})
		case disk.OpSyncFS:
			all.Add(1)
		}
		return nil
	})
	mustAppend(t, logs[40], records(40, 1, 50))
	<-held
	for i, l := range logs[:40] {
		mustAppend(t, l, records(i, 1, 50))
	}
	close(release)
	for _, l := range logs {
		flush(t, l)
		if p := l.Progress(); p.Flushed != p.End {
			t.Fatalf("%+v", p)
		}
	}
	if files.Load() > 1+flushcost.InTurnUpTo || all.Load() != 1 {
		t.Fatalf("%d files flushed one by one, %d flushes of all", files.Load(), all.Load())
	}
	_ = d.Close()
}

func TestFlushMessagesAndFlushMsAreHonoured(t *testing.T) {
	m, c := disk.NewMem(), newClock()
	o := testOptions(m)
	o.Now = c.now
	d := mustOpen(t, o)
	cfg := DefaultConfig()
	cfg.FlushBeforeAck, cfg.FlushMessages = false, 10
	l := mustLog(t, d, cfg)
	for i := range 25 {
		mustAppend(t, l, records(i, 1, 50))
		if want := int64(i+1) / 10 * 10; l.Progress().Flushed != want {
			t.Fatalf("%d records, %d flushed, want %d", i+1, l.Progress().Flushed, want)
		}
	}
	cfg.FlushMessages, cfg.FlushMs = 1<<60, 500
	l.Reconfigure(cfg)
	mustAppend(t, l, records(25, 1, 50))
	d.keeper.flushDue(c.now().Add(499 * time.Millisecond))
	if l.Progress().Flushed != 20 {
		t.Fatal("flushed too early")
	}
	d.keeper.flushDue(c.now().Add(500 * time.Millisecond))
	for l.Progress().Flushed != 26 {
		runtime.Gosched()
	}
	_ = d.Close()
}

func TestLogNames(t *testing.T) {
	for name, want := range map[string]TopicPartition{
		"orders-0": {"orders", 0}, "a-b-12": {"a-b", 12}, "__cluster_metadata-0": {"__cluster_metadata", 0},
	} {
		if tp, ok := parseLogName(name); !ok || tp != want || tp.String() != name {
			t.Fatalf("%s: %v %v", name, tp, ok)
		}
	}
	for _, name := range []string{"", "-", "-1", "a-", "a-01", "a--1x", "orders", "a-99999999999", "a-1.0123456789abcdef-delete"} {
		if tp, ok := parseLogName(name); ok {
			t.Fatalf("%s is taken for %v", name, tp)
		}
	}
}
