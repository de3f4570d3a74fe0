package commitlog

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"barnabas/internal/disk"
)

// A log that is deleted and made again must not inherit the recovery point of the old one: it would
// be ahead of the new one's end, and a crash would make the log look damaged. Nor when the disk had no
// room to take it out of the file at the first attempt.
func TestNewLogDoesNotInheritRecoveryPointThroughFullDisk(t *testing.T) {
	for attempt := range 3 {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, smallConfig())
		mustAppend(t, l, records(0, 20, 50))
		flush(t, l)
		d.keeper.checkpoint()
		remove(d, testTopic)
		l = mustLog(t, d, smallConfig())
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpWrite && strings.Contains(op.Path, recoveryPointFile) {
				return syscall.ENOSPC
			}
			return nil
		})
		for range attempt {
			if _, err := l.Append(records(0, 1, 10), AppendOptions{}); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("append with a full disk: %v", err)
			}
		}
		m.SetFault(nil)
		mustAppend(t, l, records(0, 1, 10))
		flush(t, l)
		m = m.Kill()
		abandon(d)
		d = mustOpen(t, testOptions(m))
		l = mustLog(t, d, smallConfig())
		if at, damaged := l.Damaged(); damaged || l.Progress().End != 1 {
			t.Errorf("%d failed attempts: damaged %v at %d, end %d", attempt, damaged, at, l.Progress().End)
		}
		if err := d.Close(); err != nil {
			t.Fatal(fmt.Errorf("%d failed attempts: %w", attempt, err))
		}
	}
}
