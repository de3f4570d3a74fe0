package clustertest

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// TestLastNodesStopSoon: who stops when the others have gone does not wait for a controller that cannot be: neither one after
// the other, nor all at once. It is a clean stop all the same, and the cluster comes back with all it had.
func TestLastNodesStopSoon(t *testing.T) {
	threeNodes(t, 10, func(w *World, nodes []*Node) {
		c := w.MustDial("client", nodes[0])
		if err := c.PlaceTopic(w.Context(), "orders", 3, 1, 2, 3); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		order := slices.Clone(nodes)
		w.Dice("order").Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		stop := func(n *Node) {
			began := time.Now()
			if err := n.Stop(); err != nil {
				w.Errorf("stop %s: %v", n.Name, err)
			}
			if took := time.Since(began); took > time.Second {
				w.Errorf("%s stopped after %v\n%s", n.Name, took, n.Log())
			}
		}
		var stopping sync.WaitGroup
		for _, n := range order {
			if w.Seed%2 == 0 {
				stop(n)
			} else {
				stopping.Go(func() { stop(n) })
			}
		}
		stopping.Wait()
		for _, n := range nodes {
			if _, err := n.Disk().Stat("/data/.kafka_cleanshutdown"); err != nil {
				w.Errorf("%s was not stopped cleanly: %v", n.Name, err)
			}
		}
		w.StartAll(nodes...)
		w.whole(nodes, 10*time.Second, "orders")
	})
}
