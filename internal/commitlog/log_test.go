package commitlog

import (
	"errors"
	"testing"

	"barnabas/internal/disk"
)

func TestWhatIsAppendedIsReadBack(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	n := 0
	for i := range 60 {
		a := mustAppend(t, l, records(n, 1+i%5, 30))
		if a.First != int64(n) {
			t.Fatalf("batch %d got offset %d, want %d", i, a.First, n)
		}
		n += 1 + i%5
	}
	check := func(l *Log) {
		for _, maxBytes := range []int{1, 300, 1000, 1 << 20} {
			got := readAll(t, l, maxBytes)
			if len(got) != n {
				t.Fatalf("%d records, want %d", len(got), n)
			}
			for i, r := range got {
				if r.offset != int64(i) || r.value != string(recordValue(i, 30)) {
					t.Fatalf("record %d is %+v", i, r)
				}
			}
		}
	}
	check(l)
	if len(l.Segments()) < 3 {
		t.Fatalf("%d segments: nothing was rolled", len(l.Segments()))
	}
	flush(t, l)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, smallConfig())
	check(l)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAppendInAnEndedEpochIsRefused: once an epoch has begun in the log, a leader of an earlier one writes nothing, and the
// history of epochs stays.
func TestAppendInAnEndedEpochIsRefused(t *testing.T) {
	d := mustOpen(t, testOptions(disk.NewMem()))
	l := mustLog(t, d, DefaultConfig())
	mustAppend(t, l, records(0, 1, 30))
	if err := leads(l, 6); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(records(1, 1, 30), AppendOptions{LeaderEpoch: 5, NowMs: testNow}); !errors.Is(err, ErrEpochOver) {
		t.Fatalf("an append in epoch 5 after 6 has begun: %v", err)
	}
	if p := l.Progress(); p.End != 1 || l.LatestEpoch() != 6 {
		t.Fatalf("%+v, epoch %d", p, l.LatestEpoch())
	}
	_ = d.Close()
}
