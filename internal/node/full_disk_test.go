package node_test

import (
	"fmt"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
)

// TestFullDiskIsStoppedAndStartedOn: a clean stop of a node whose disk is completely full is one, the next
// starts serve what is there and take changes of metadata, and writes go on once there is space.
func TestFullDiskIsStoppedAndStartedOn(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.MustStart()
		write(w, n, "t", "a")
		n.Disk().SetCapacity(1)
		for i := range 4 {
			mustStop(w, n)
			n.MustStart()
			check(w, n, "t", "a")
			c := w.MustDial("client", n)
			if _, err := c.CreateTopic(w.Context(), fmt.Sprint("empty-", i), 1); err != nil {
				w.Fatalf("start %d: create a topic: %v", i, err)
			}
			if offset, err := c.Produce(w.Context(), -1, "t", 0, clustertest.Batch(time.Now().UnixMilli(), batch.None, "b")); err == nil {
				w.Fatalf("start %d: a record is taken at offset %d: the disk is not full", i, offset)
			}
		}
		n.Disk().SetCapacity(0)
		c := w.MustDial("client", n)
		if offset, err := c.Produce(w.Context(), -1, "t", 0, clustertest.Batch(time.Now().UnixMilli(), batch.None, "b")); err != nil || offset != 1 {
			w.Fatalf("with space again: offset %d, %v", offset, err)
		}
		mustStop(w, n)
		n.MustStart()
		if got, err := w.MustDial("client", n).ReadAll(w.Context(), "t", 0, 0); err != nil || len(got) != 2 || got[1].Value != "b" {
			w.Fatalf("%v, %v", got, err)
		}
	})
}
