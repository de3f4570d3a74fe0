package commitlog

import (
	"strings"
	"testing"

	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// TestReadersDoNotNoticeThatAnIndexIsMadeAgain: one that is in the midst of searching an index when its entries go finds
// its records all the same.
func TestReadersDoNotNoticeThatAnIndexIsMadeAgain(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := smallConfig()
	cfg.SegmentBytes = 1 << 20
	l := mustLog(t, d, cfg)
	for i := range 200 {
		mustAppend(t, l, records(i, 1, 200))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, cfg)
	l.AdvanceHighWatermark(200)
	s := l.active()
	if err := l.take(); err != nil { // as housekeeping does
		t.Fatal(err)
	}
	reading, cleared, read := make(chan struct{}), make(chan struct{}), make(chan struct{})
	rebuilt := make(chan error, 1)
	search, scan := true, true
	m.SetFault(func(op disk.Op) error {
		switch {
		case search && op.Kind == disk.OpRead && strings.HasSuffix(op.Path, segment.IndexSuffix):
			search = false // the reader knows how long the index is, and now looks into it
			close(reading)
			<-cleared
		case !search && scan && op.Kind == disk.OpRead && strings.HasSuffix(op.Path, segment.DataSuffix):
			scan = false // the index is empty, and the segment about to be read for the new one
			close(cleared)
			<-read
		}
		return nil
	})
	go func() {
		<-reading
		rebuilt <- s.RebuildIndex(int64(cfg.IndexIntervalBytes), false, make([]byte, scanBytes))
	}()
	r, err := l.Read(150, 1000, 200, true)
	close(read)
	if err != nil {
		t.Fatalf("a reader noticed: %v", err)
	}
	if r.First != 150 {
		t.Errorf("read from %d on", r.First)
	}
	_ = r.Close()
	if err := <-rebuilt; err != nil {
		t.Fatal(err)
	}
	m.SetFault(nil)
	l.give()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
