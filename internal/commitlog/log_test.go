package commitlog

import (
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
