package commitlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// TestWhateverHappensToTheFilesWhatIsServedIsTrue changes, cuts or removes one file of a stopped or killed log at random. The
// directory opens all the same, and every record that is served is the one that was written at its offset.
func TestWhateverHappensToTheFilesWhatIsServedIsTrue(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 9))
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, smallConfig())
		h, serial := &history{}, 0
		for range 2 {
			crashRound(t, r, l, h, &serial)
		}
		flush(t, l)
		d.keeper.checkpoint()
		if r.IntN(2) == 0 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			m = m.Kill()
			abandon(d)
		}
		what := damageFile(t, m, r, l.path)
		d = mustOpen(t, testOptions(m))
		l, err := d.Log(testTopic, [16]byte{}, smallConfig()) // the topic id may have suffered
		if err != nil {
			t.Fatal(err)
		}
		p := l.Progress()
		for from := p.Start; from < p.End; {
			next, err := checkServed(t, l, h, from, 1+r.IntN(1500))
			if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrOutOfRange) {
				break
			}
			if err != nil || next <= from {
				t.Fatalf("seed %d, %s: read %d of %+v: %v", seed, what, from, p, err)
			}
			from = next
		}
		for range 20 {
			if p.End > p.Start {
				_, _ = checkServed(t, l, h, p.Start+r.Int64N(p.End-p.Start), 500)
			}
		}
		if err := l.Verify(context.Background()); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("seed %d, %s: verify: %v", seed, what, err)
		}
		if at, damaged := l.Damaged(); damaged { // from peers, in a cluster
			if err := l.Truncate(max(at, p.Start)); err != nil {
				t.Fatalf("seed %d, %s: truncate: %v", seed, what, err)
			}
		}
		b := records(1, 1, 10)
		b.Assign(l.Progress().End, 9)
		if err := l.AppendAt(b); err != nil {
			t.Fatalf("seed %d, %s: append: %v", seed, what, err)
		}
		if err := d.Close(); err != nil {
			t.Fatalf("seed %d, %s: %v", seed, what, err)
		}
	}
}

// checkServed reads once and compares with the history.
func checkServed(t *testing.T, l *Log, h *history, from int64, maxBytes int) (next int64, err error) {
	t.Helper()
	r, err := l.Read(from, maxBytes, l.Progress().End, true)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	data, err := r.AppendTo(nil)
	if err != nil {
		return 0, err
	}
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range sharedChecker.Records(b) {
			if at := b.OffsetOf(&rec); err != nil || at >= int64(len(h.values)) || h.values[at] != string(rec.Value) {
				t.Fatalf("offset %d: %.40q, %v", at, rec.Value, err)
			}
		}
		data = rest
	}
	return r.Next, nil
}

// damageFile does something to one file of a log.
func damageFile(t *testing.T, m *disk.Mem, r *rand.Rand, dir string) string {
	t.Helper()
	entries, err := m.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := entries[r.IntN(len(entries))]
	path := dir + "/" + e.Name
	switch k := r.IntN(4); {
	case k == 0:
		if err := m.Remove(path); err != nil {
			t.Fatal(err)
		}
		return "removed " + e.Name
	case k == 1 && e.Size > 0:
		data, err := disk.ReadFile(m, path, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.WriteFileAtomic(m, path, data[:r.IntN(len(data))]); err != nil {
			t.Fatal(err)
		}
		return "cut " + e.Name
	case e.Size > 0:
		at := r.Int64N(e.Size)
		if err := m.FlipBit(path, at, uint8(r.IntN(8))); err != nil {
			t.Fatal(err)
		}
		return "flipped a bit of " + e.Name
	}
	return "nothing"
}
