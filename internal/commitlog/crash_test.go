package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"barnabas/internal/disk"
)

// history is what a test did to a log: the values by offset.
type history struct {
	values []string
}

func (h *history) add(a Appended, from, n, size int) {
	for i := range n {
		h.values = append(h.values[:a.First+int64(i)], string(recordValue(from+i, size)))
	}
}

// crashRound appends, flushes and rolls by chance, and returns how much had been flushed when it stopped.
func crashRound(t *testing.T, r *rand.Rand, l *Log, h *history, serial *int) (flushed int64) {
	for range 1 + r.IntN(40) {
		n, size := 1+r.IntN(6), 10+r.IntN(200)
		a := mustAppend(t, l, records(*serial, n, size))
		if a.First != int64(len(h.values)) {
			t.Fatalf("appended at %d, expected %d", a.First, len(h.values))
		}
		h.add(a, *serial, n, size)
		*serial += n
		if r.IntN(5) == 0 {
			flush(t, l)
		}
		if r.IntN(12) == 0 {
			l.AdvanceHighWatermark(l.Progress().Flushed)
		}
		if r.IntN(25) == 0 && l.Progress().Flushed > 0 {
			l.dir.keeper.checkpoint()
		}
	}
	return l.Progress().Flushed
}

// checkSurvivors demands that the log holds the history from its start to its end, in order and nothing else, and at
// least up to flushed.
func checkSurvivors(t *testing.T, l *Log, h *history, flushed int64) {
	t.Helper()
	p := l.Progress()
	if p.End < flushed || p.End > int64(len(h.values)) {
		t.Fatalf("log ends at %d; %d flushed, %d appended", p.End, flushed, len(h.values))
	}
	if p.Flushed != p.End {
		t.Fatalf("what survived is not flushed: %+v", p)
	}
	if at, damaged := l.Damaged(); damaged {
		t.Fatalf("damaged from %d on", at)
	}
	got := readAll(t, l, 700)
	if int64(len(got)) != p.End-p.Start {
		t.Fatalf("%d records in %+v", len(got), p)
	}
	for i, s := range got {
		if s.offset != p.Start+int64(i) || s.value != h.values[s.offset] {
			t.Fatalf("offset %d holds %.40q, want %.40q at %d", s.offset, s.value, h.values[s.offset], p.Start+int64(i))
		}
	}
	h.values = h.values[:p.End]
}

func TestFlushedRecordsSurviveCrashesInOrderAndNothingElseAppears(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			m, h, serial := disk.NewMem(), &history{}, 0
			for round := range uint64(4) {
				o := testOptions(m)
				o.Observer = newWatcher()
				d := mustOpen(t, o)
				cfg := smallConfig()
				cfg.FlushBeforeAck = seed%4 != 0
				l := mustLog(t, d, cfg)
				checkSurvivors(t, l, h, l.Progress().End)
				flushed := crashRound(t, r, l, h, &serial)
				if reported := o.Observer.(*watcher).end(testTopic); reported > flushed {
					flushed = reported
				}
				var next *disk.Mem
				if r.IntN(3) > 0 {
					next = m.Crash(seed*10 + round)
				} else {
					next = m.Kill()
					flushed = int64(len(h.values)) // only the machine's crash loses the page cache
				}
				abandon(d)
				m = next
				d = mustOpen(t, testOptions(m))
				l = mustLog(t, d, cfg)
				checkSurvivors(t, l, h, flushed)
				if r.IntN(2) == 0 {
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
				} else {
					m = m.Kill()
					abandon(d)
				}
			}
		})
	}
}

// TestALogThatCouldNotRollOnAFullDiskSurvivesCrashes: the next segment's file is made, does not get its space and is removed
// again, and the segment before goes on. A crash may bring that file back.
func TestALogThatCouldNotRollOnAFullDiskSurvivesCrashes(t *testing.T) {
	cfg := smallConfig()
	cfg.Preallocate, cfg.FlushBeforeAck = true, true
	cfg.ReserveBytes = int64(cfg.SegmentBytes)
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			m, h := disk.NewMem(), &history{}
			for round := range uint64(4) {
				d := mustOpen(t, testOptions(m))
				l := mustLog(t, d, cfg)
				checkSurvivors(t, l, h, l.Progress().End)
				for range 1 + r.IntN(80) {
					serial, size := len(h.values), 10+r.IntN(400)
					m.SetCapacity(int64(min(1, r.IntN(3)))) // two times of three it is full
					switch a, err := l.Append(records(serial, 1, size), AppendOptions{NowMs: testNow}); {
					case err == nil:
						h.add(a, serial, 1, size)
					case !errors.Is(err, ErrNoSpace):
						t.Fatal(err)
					}
					if r.IntN(8) == 0 {
						flush(t, l)
					}
				}
				flushed := l.Progress().Flushed
				m.SetCapacity(0)
				next := m.Crash(seed*10 + round)
				abandon(d)
				m = next
				d = mustOpen(t, testOptions(m))
				checkSurvivors(t, mustLog(t, d, cfg), h, flushed)
				m = m.Kill()
				abandon(d)
			}
		})
	}
}

func TestFlushedLogSurvivesLostDirectoryEntries(t *testing.T) {
	for seed := range uint64(200) {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		logs := map[string]*Log{}
		for i := range 12 { // more than are flushed one by one
			l, err := d.Log(TopicPartition{fmt.Sprint("t", i), 0}, testID, smallConfig())
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, records(i, 1, 20))
			logs[l.id.Topic] = l
			if i < int(seed%12) {
				flush(t, l)
			}
		}
		flushed := map[string]int64{}
		for name, l := range logs {
			flushed[name] = l.Progress().Flushed
		}
		m2 := m.Crash(seed)
		abandon(d)
		d = mustOpen(t, testOptions(m2))
		for name, want := range flushed {
			l, err := d.Log(TopicPartition{name, 0}, testID, smallConfig())
			if err != nil {
				t.Fatal(err)
			}
			if end := l.Progress().End; end < want {
				t.Fatalf("seed %d: %s ends at %d, %d was flushed", seed, name, end, want)
			}
			if want > 0 && l.TopicID() != testID {
				t.Fatalf("seed %d: %s has lost its topic id", seed, name)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTornTailIsCutAtAnyByte(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	var ends []int64
	for i := range 4 {
		mustAppend(t, l, records(i, 1, 30))
		ends = append(ends, l.Size())
	}
	path := l.Segments()[0].Path
	data, err := disk.ReadFile(m, path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	abandon(d)
	for cut := range len(data) + 1 {
		for _, junk := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", strings.Repeat("\x00", 300), "junk"} {
			m := disk.NewMem()
			if err := m.MkdirAll("/data/orders-3"); err != nil {
				t.Fatal(err)
			}
			if err := disk.WriteFileAtomic(m, path, append(data[:cut:cut], junk...)); err != nil {
				t.Fatal(err)
			}
			o, out := withLog(testOptions(m))
			d := mustOpen(t, o)
			l := mustLog(t, d, DefaultConfig())
			content := append(data[:cut:cut], junk...)
			whole, valid := 0, int64(0) // the junk may be what was missing
			for whole < len(ends) && bytes.HasPrefix(content, data[:ends[whole]]) {
				whole, valid = whole+1, ends[whole]
			}
			torn := valid < int64(len(content))
			if l.Progress().End != int64(whole) || len(readAll(t, l, 1)) != whole {
				t.Fatalf("cut %d: ends at %d, want %d", cut, l.Progress().End, whole)
			}
			if said := strings.Contains(out.String(), "cut what a crash left unfinished"); said != torn {
				t.Fatalf("cut %d, junk %q: log line %v, torn %v:\n%s", cut, junk, said, torn, out)
			}
			if torn && !strings.Contains(out.String(), fmt.Sprint("offset=", whole)) {
				t.Fatalf("cut %d: the line does not name offset %d:\n%s", cut, whole, out)
			}
			mustAppend(t, l, records(9, 1, 30))
			flush(t, l)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRecoveryFlushesWhatSurvivedBeforeTheLogIsGivenOut(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := DefaultConfig()
	cfg.FlushBeforeAck = false
	l := mustLog(t, d, cfg)
	mustAppend(t, l, records(0, 3, 30))
	m2 := m.Kill() // the records live in the page cache only
	abandon(d)
	d = mustOpen(t, testOptions(m2))
	for seed := range uint64(1) {
		m3 := m2.Crash(seed)
		abandon(d)
		d = mustOpen(t, testOptions(m3))
		if l := mustLog(t, d, cfg); l.Progress().End != 3 {
			t.Fatalf("seed %d: log ends at %d after a second crash", seed, l.Progress().End)
		}
	}
	_ = d.Close()
}

func TestFlushEndsWithItsContext(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	mustAppend(t, l, records(0, 1, 30))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Flush(ctx); err == nil {
		flush(t, l)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
