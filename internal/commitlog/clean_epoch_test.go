package commitlog

import (
	"context"
	"testing"

	"barnabas/internal/disk"
)

// TestCleanStopTellsUnderWhichRegistration: the mark of a clean stop names the broker epoch for one start, and no other end does.
func TestCleanStopTellsUnderWhichRegistration(t *testing.T) {
	m := disk.NewMem()
	open := func(want int64) *Dir {
		t.Helper()
		d, err := OpenDir(context.Background(), testOptions(m))
		if err != nil {
			t.Fatalf("%v", err)
		}
		if got := d.CleanEpoch(); got != want {
			t.Fatalf("the process before ended in peace under epoch %d, want %d", got, want)
		}
		return d
	}
	closed := func(d *Dir) {
		t.Helper()
		if err := d.Close(); err != nil {
			t.Fatalf("%v", err)
		}
	}
	d := open(0)
	d.SetBrokerEpoch(17)
	closed(d)
	d = open(17)
	closed(d) // before it was registered
	d = open(0)
	d.SetBrokerEpoch(18)
	closed(d)
	d = open(18)
	m = m.Kill()
	_ = d.Close() // its disk is gone
	d = open(0)
	d.SetBrokerEpoch(19)
	closed(d)
	f, err := m.Open("/data/"+cleanFile, disk.Write)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := f.WriteAt([]byte("{{{"), 0); err != nil {
		t.Fatalf("%v", err)
	}
	_ = f.Close()
	closed(open(0))
}
