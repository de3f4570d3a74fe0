package replica

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// TestTrap26FilesThatStayedBehind: the files of a topic that could not be taken away, for the disk had no room for the
// longer name, are none of the next topic's of that name; and that one's replica is used again by itself once there is room.
func TestTrap26FilesThatStayedBehind(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EMFILE} {
		faketime.Test(t, func(t *testing.T) {
			d := disk.NewMem()
			b := newBroker(t, d, "/data")
			b.register(incarnation)
			b.create("orders", 1)
			b.partition("orders").append(t, 3)
			d.SetFault(func(op disk.Op) error {
				if op.Kind == disk.OpRename {
					return cause
				}
				return nil
			})
			b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(1).Bytes()})
			b.create("orders", 2)
			p := b.partition("orders")
			if _, err := p.Append(records(1), true, time.Now().UnixMilli()); !errors.Is(err, commitlog.ErrNoSpace) {
				t.Fatalf("%v: %v", cause, err)
			}
			d.SetFault(nil)
			p.append(t, 1)
			if at := p.Progress(); at.Start != 0 || at.End != 1 {
				t.Errorf("%v: %+v", cause, at)
			}
			b.close()
			b = newBroker(t, d, "/data")
			b.commit(topicRecord("orders", 2), partitionRecord(2, 0, b.dirs[0].ID()))
			b.register(incarnation)
			if at := b.partition("orders").Progress(); at.Start != 0 || at.End != 1 {
				t.Errorf("%v, after a restart: %+v", cause, at)
			}
		})
	}
}
