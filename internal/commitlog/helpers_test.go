package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

var (
	testTopic = TopicPartition{"orders", 3}
	testID    = [16]byte{1, 2, 3}
)

// watcher is an Observer that remembers what it was told.
type watcher struct {
	mu      sync.Mutex
	flushed map[TopicPartition]int64
	offline error
	gone    chan struct{}
}

func newWatcher() *watcher {
	return &watcher{flushed: map[TopicPartition]int64{}, gone: make(chan struct{})}
}

func (w *watcher) Flushed(l *Log, end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushed[l.ID()] = max(end, w.flushed[l.ID()])
}

func (w *watcher) Offline(_ *Dir, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offline = cause
	close(w.gone)
}

func (w *watcher) end(tp TopicPartition) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushed[tp]
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func testOptions(fsys disk.FS) DirOptions {
	return DirOptions{FS: fsys, Path: "/data", NodeID: 1, ClusterID: "cluster", Checker: sharedChecker}
}

var sharedChecker = batch.NewChecker()

func withLog(o DirOptions) (DirOptions, *lines) {
	out := &lines{}
	o.Logger = slog.New(slog.NewTextHandler(out, nil))
	return o, out
}

func mustOpen(t testing.TB, o DirOptions) *Dir {
	t.Helper()
	d, err := OpenDir(context.Background(), o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return d
}

// abandon stops the goroutines of a directory whose disk has crashed.
func abandon(d *Dir) {
	_ = d.fail(errors.New("abandoned by the test"))
	_ = d.Close()
}

// remove removes logs and waits until they are buried.
func remove(d *Dir, tps ...TopicPartition) {
	d.Remove(tps...)
	for _, tp := range tps {
		d.burials.Await(tp)
	}
}

func mustLog(t testing.TB, d *Dir, cfg Config) *Log {
	t.Helper()
	l, err := d.Log(testTopic, testID, cfg)
	if err != nil {
		t.Fatalf("log: %v", err)
	}
	return l
}

// smallConfig rolls and indexes often.
func smallConfig() Config {
	cfg := DefaultConfig()
	cfg.SegmentBytes, cfg.IndexIntervalBytes, cfg.IndexMaxBytes = 2048, 256, 4096
	cfg.TimestampAfterMaxMs = 1 << 60
	return cfg
}

const testNow = int64(1_700_000_000_000)

// records makes a batch whose values say which records they are.
func records(from, n int, size int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range n {
		b.Append(testNow+int64(from+i), []byte("k"), recordValue(from+i, size), nil)
	}
	made, err := b.Build()
	if err != nil {
		panic(err)
	}
	return made
}

func recordValue(i, size int) []byte {
	v := fmt.Appendf(nil, "record-%08d-", i)
	for len(v) < size {
		v = append(v, byte('a'+(i+len(v))%26))
	}
	return v
}

func produced(id int64, epoch int16, sequence int32, from, n int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range n {
		b.Append(testNow+int64(from+i), nil, recordValue(from+i, 20), nil)
	}
	b.SetProducer(id, epoch, sequence, false)
	made, err := b.Build()
	if err != nil {
		panic(err)
	}
	return made
}

func mustAppend(t testing.TB, l *Log, b batch.Batch) Appended {
	t.Helper()
	a, err := l.Append(b, AppendOptions{LeaderEpoch: 0, NowMs: testNow})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return a
}

// stored is a record as it was read back.
type stored struct {
	offset int64
	value  string
}

// readAll reads from start to end in steps of maxBytes.
func readAll(t testing.TB, l *Log, maxBytes int) []stored {
	t.Helper()
	var out []stored
	p := l.Progress()
	for from := p.Start; from < p.End; {
		r, err := l.Read(from, maxBytes, p.End, true)
		if err != nil {
			t.Fatalf("read %d of %+v: %v", from, p, err)
		}
		data, err := r.AppendTo(nil)
		if err != nil {
			t.Fatalf("read %d of %+v: %v", from, p, err)
		}
		if r.Len() == 0 || r.Next <= from || r.First > from {
			t.Fatalf("read %d of %+v: %d bytes, %d to %d", from, p, r.Len(), r.First, r.Next)
		}
		next := r.First
		for len(data) > 0 {
			b, rest, err := batch.Next(data)
			if err != nil {
				t.Fatalf("read %d: %v", from, err)
			}
			for rec, err := range sharedChecker.Records(b) {
				if err != nil {
					t.Fatalf("records at %d: %v", b.BaseOffset(), err)
				}
				out = append(out, stored{b.OffsetOf(&rec), string(rec.Value)})
			}
			next, data = b.NextOffset(), rest
		}
		if next != r.Next {
			t.Fatalf("read %d: range ends at %d, says %d", from, next, r.Next)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		from = r.Next
	}
	return out
}

func flush(t testing.TB, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.Flush(ctx); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// leads begins a leader epoch at the log's end.
func leads(l *Log, epoch int32) error {
	_, err := l.Lead(epoch)
	return err
}
