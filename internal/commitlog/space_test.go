package commitlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// TestFullDiskAtEveryByte lets the disk take so many bytes of the appended data and no more, for every number.
func TestFullDiskAtEveryByte(t *testing.T) {
	for room := 0; room < 900; room += 1 + room%3 {
		m := disk.NewMem()
		o := testOptions(m)
		o.Observer = newWatcher()
		d := mustOpen(t, o)
		l := mustLog(t, d, smallConfig())
		h := &history{}
		left := room
		var mu sync.Mutex
		m.SetFault(func(op disk.Op) error {
			if op.Kind != disk.OpWrite {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if int64(left) >= op.Len {
				left -= int(op.Len)
				return nil
			}
			n := left
			left = 0
			return disk.Short{N: n, Err: syscall.ENOSPC}
		})
		refused := 0
		for i := range 12 {
			a, err := l.Append(records(i, 1, 60), AppendOptions{NowMs: testNow})
			if err != nil {
				refused++
				if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrOffline) {
					t.Fatalf("room %d: %v", room, err)
				}
				continue
			}
			h.add(a, i, 1, 60)
		}
		if refused == 0 {
			t.Fatalf("room %d: everything found room", room)
		}
		if got := readAll(t, l, 300); len(got) != len(h.values) {
			t.Fatalf("room %d: %d records, %d appended", room, len(got), len(h.values))
		}
		m.SetFault(nil) // there is space again
		for _, s := range l.Segments() {
			if e, err := m.Stat(s.Path); err != nil || e.Size != s.Size {
				t.Fatalf("room %d: %s has %d bytes, %d are of whole batches (%v)", room, s.Path, e.Size, s.Size, err)
			}
		}
		for i := 20; i < 25; i++ {
			h.add(mustAppend(t, l, records(i, 1, 33)), i, 1, 33)
		}
		flush(t, l)
		if d.Offline() != nil {
			t.Fatalf("room %d: %v", room, d.Offline())
		}
		m = m.Crash(uint64(room))
		abandon(d)
		d = mustOpen(t, testOptions(m))
		l = mustLog(t, d, smallConfig())
		checkSurvivors(t, l, h, int64(len(h.values)))
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDiskWithinItsCapacity fills a small disk through rolls, indexes, snapshots and checkpoints.
func TestFullDiskWithinItsCapacity(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 4))
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		cfg := smallConfig()
		cfg.RetentionBytes, cfg.FileDeleteDelayMs = 6000, 0
		l := mustLog(t, d, cfg)
		m.SetCapacity(int64(40+r.IntN(100)) * 4096)
		full := 0
		next := int64(0)
		for i := range 400 {
			a, err := l.Append(records(i, 1, 100+r.IntN(300)), AppendOptions{NowMs: testNow})
			switch {
			case errors.Is(err, ErrNoSpace):
				full++
				// Retention goes on on a full disk, and writes go on when it has made room.
				flush(t, l)
				l.AdvanceHighWatermark(l.Progress().End)
				d.keeper.retain()
				d.keeper.remove(d.keeper.graves.TakeAll())
			case err != nil:
				t.Fatalf("seed %d: %v", seed, err)
			default:
				if a.First != next {
					t.Fatalf("seed %d: offset %d, want %d", seed, a.First, next)
				}
				next = a.Next
			}
			if i%90 == 0 {
				d.keeper.checkpoint()
				d.keeper.storeStarts()
			}
		}
		if d.Offline() != nil {
			t.Fatalf("seed %d: %v", seed, d.Offline())
		}
		if full == 0 || l.Progress().Start == 0 {
			t.Fatalf("seed %d: full %d times, start %d", seed, full, l.Progress().Start)
		}
		m.SetCapacity(0)
		mustAppend(t, l, records(0, 1, 10))
		flush(t, l)
		end := l.Progress().End
		m = m.Crash(seed)
		abandon(d)
		d = mustOpen(t, testOptions(m))
		if got := mustLog(t, d, cfg).Progress().End; got != end {
			t.Fatalf("seed %d: ends at %d, flushed to %d", seed, got, end)
		}
		_ = d.Close()
	}
}

// TestPreallocatedLogOutlivesAFullDisk: the metadata log keeps its space, and uses it when it cannot roll.
func TestPreallocatedLogOutlivesAFullDisk(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := smallConfig()
	cfg.SegmentBytes, cfg.Preallocate, cfg.ReserveBytes = 16<<10, true, 32<<10
	l := mustLog(t, d, cfg)
	mustAppend(t, l, records(0, 1, 50))
	flush(t, l)
	m.SetCapacity(1) // full from here on
	bytes := 0
	for i := 1; ; i++ {
		b := records(i, 1, 500)
		_, err := l.Append(b, AppendOptions{NowMs: testNow})
		if err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
		if bytes += len(b); bytes > 60<<10 {
			t.Fatal("the disk is not full")
		}
	}
	if bytes < 44<<10 {
		t.Fatalf("%d bytes found room, 48 KiB had been kept", bytes)
	}
	flush(t, l)
	m.SetCapacity(0)
	mustAppend(t, l, records(900, 1, 500))
	if n := len(l.Segments()); n != 2 {
		t.Fatalf("%d segments", n)
	}
	_ = d.Close()
}

// TestStalledDiskHoldsUpNobodyButThoseWhoWaitForIt runs in fake time: a flush takes ten seconds.
func TestStalledDiskHoldsUpNobodyButThoseWhoWaitForIt(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := disk.NewMem()
		o := testOptions(m)
		w := newWatcher()
		o.Observer = w
		d := mustOpen(t, o)
		l := mustLog(t, d, smallConfig())
		mustAppend(t, l, records(0, 1, 50))
		flush(t, l)
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
				time.Sleep(10 * time.Second)
			}
			return nil
		})
		begun := time.Now()
		for i := range 50 {
			mustAppend(t, l, records(i, 1, 200))
			if _, err := l.Read(0, 1000, 1, true); err != nil {
				t.Fatal(err)
			}
			l.Progress()
		}
		if took := time.Since(begun); took > 0 {
			t.Fatalf("appends waited %v for the flush", took)
		}
		if p := l.Progress(); p.Flushed != 1 {
			t.Fatalf("%+v", p)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("flush: %v", err)
		}
		flush(t, l)
		m.SetFault(nil)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWriteErrorThatIsNoFullDiskTakesTheDirectoryOffline(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	w := newWatcher()
	o.Observer = w
	d := mustOpen(t, o)
	l := mustLog(t, d, smallConfig())
	mustAppend(t, l, records(0, 1, 50))
	m.SetFault(func(op disk.Op) error {
		if op.Kind == disk.OpWrite && strings.HasSuffix(op.Path, segment.DataSuffix) {
			return disk.Short{N: 5, Err: syscall.EIO}
		}
		return nil
	})
	if _, err := l.Append(records(1, 1, 50), AppendOptions{NowMs: testNow}); !errors.Is(err, ErrOffline) {
		t.Fatal(err)
	}
	<-w.gone
	if w.offline == nil || !errors.Is(w.offline, syscall.EIO) {
		t.Fatalf("observer heard %v", w.offline)
	}
	if err := d.Close(); !errors.Is(err, ErrOffline) {
		t.Fatal(err)
	}
	if _, err := m.Stat("/data/" + cleanFile); err == nil {
		t.Fatal("a failed directory is marked as cleanly stopped")
	}
}

// TestStopAndStartOnAFullDisk: a full disk is stopped on without an error, also twice, and started on again: everything
// is there to be read, the log with a reserve takes records in new epochs, and the others do once there is space.
func TestStopAndStartOnAFullDisk(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := &fullDisk{t: t, seed: seed, m: disk.NewMem(), plain: &history{}, reserved: &history{}}
		w.open()
		w.append(0)
		flush(t, w.withReserve)
		w.m.SetCapacity(int64(10+r.IntN(60)) * 4096)
		for i := 1; w.append(i); i++ {
		}
		flush(t, w.log)
		for epoch := range int32(4) {
			w.m.SetCapacity(1)
			how := r.IntN(3)
			if how == 0 {
				if err := w.d.Close(); err != nil {
					t.Fatalf("seed %d: stop %d on a full disk: %v", seed, epoch, err)
				}
			}
			if how == 1 {
				w.m = w.m.Crash(seed)
				abandon(w.d)
			} else {
				w.m = w.m.Kill()
				abandon(w.d)
			}
			w.open()
			w.check(epoch + 1)
		}
		w.m.SetCapacity(0)
		w.end()
	}
}

// fullDisk is a directory with two logs, of which one keeps a reserve.
type fullDisk struct {
	t               *testing.T
	seed            uint64
	m               *disk.Mem
	d               *Dir
	log             *Log
	withReserve     *Log
	plain, reserved *history
	epoch           int32
}

func (w *fullDisk) open() {
	w.t.Helper()
	w.d = mustOpen(w.t, testOptions(w.m))
	w.log = mustLog(w.t, w.d, smallConfig())
	cfg := smallConfig()
	cfg.SegmentBytes, cfg.Preallocate, cfg.ReserveBytes = 16<<10, true, 16<<10
	var err error
	if w.withReserve, err = w.d.Log(TopicPartition{"reserved", 0}, [16]byte{}, cfg); err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
}

// append writes to both logs, to the one with the reserve rarely, and tells whether the other took it.
func (w *fullDisk) append(i int) bool {
	w.t.Helper()
	o := AppendOptions{NowMs: testNow, LeaderEpoch: w.epoch}
	if i%20 == 0 {
		a, err := w.withReserve.Append(records(i, 1, 50), o)
		if err != nil {
			w.t.Fatalf("seed %d: the log with a reserve: %v", w.seed, err)
		}
		w.reserved.add(a, i, 1, 50)
	}
	a, err := w.log.Append(records(i, 1, 300), o)
	switch {
	case err == nil:
		w.plain.add(a, i, 1, 300)
	case !errors.Is(err, ErrNoSpace):
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	return err == nil
}

func (w *fullDisk) check(epoch int32) {
	w.t.Helper()
	w.epoch = epoch
	for _, l := range []*Log{w.log, w.withReserve} {
		if err := leads(l, epoch); err != nil {
			w.t.Fatalf("seed %d: epoch %d: %v", w.seed, epoch, err)
		}
	}
	if w.append(0) {
		w.t.Fatalf("seed %d: the disk is not full", w.seed)
	}
	flush(w.t, w.withReserve)
	checkSurvivors(w.t, w.log, w.plain, int64(len(w.plain.values)))
	checkSurvivors(w.t, w.withReserve, w.reserved, int64(len(w.reserved.values)))
}

// end: there is space again.
func (w *fullDisk) end() {
	w.t.Helper()
	if !w.append(0) {
		w.t.Fatalf("seed %d: no space yet", w.seed)
	}
	if err := w.d.Close(); err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	if _, err := w.m.Stat("/data/" + cleanFile); err != nil {
		w.t.Fatalf("seed %d: not marked as cleanly stopped: %v", w.seed, err)
	}
	w.open()
	checkSurvivors(w.t, w.log, w.plain, int64(len(w.plain.values)))
	if got, want := w.log.LatestEpoch(), w.epoch; got != want {
		w.t.Fatalf("seed %d: in epoch %d, want %d", w.seed, got, want)
	}
	_ = w.d.Close()
}
