package clustertest

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestTwoOfThreeLeadAfterAPowerCut: all nodes lose power, and one of them for good. What was acknowledged is on the disks of the other
// two, so they lead everything and have it all once the third's session is over, also where one in-sync replica is enough.
func TestTwoOfThreeLeadAfterAPowerCut(t *testing.T) {
	for seed := range Seeds(9) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			c := w.MustDial("client", nodes[0])
			const partitions, each = 3, 5
			w.mustCreate(c, "orders", partitions, "min.insync.replicas", "1")
			w.whole(nodes, 5*time.Second, "orders")
			var acked []string
			for i := range each {
				acked = append(acked, fmt.Sprint("v", i))
			}
			for number := range int32(partitions) {
				at := w.MustDial("producer", nodes[w.leaderOf(c, "orders", number)-1])
				for _, v := range acked {
					w.mustProduce(at, "orders", number, v)
				}
			}
			for _, n := range nodes {
				n.Crash(seed)
			}
			gone := int32(1 + seed%3)
			back := slices.Delete(slices.Clone(nodes), int(gone)-1, int(gone))
			w.StartAll(back...)
			w.Eventually("the two lead", 20*time.Second, func() bool {
				time.Sleep(50 * time.Millisecond)
				topic, _ := back[0].Broker().Image().Topic("orders")
				for _, p := range topic.Partitions {
					if p.Leader < 0 || p.Leader == gone || len(p.ISR) != 2 {
						return false
					}
				}
				return true
			})
			c = w.MustDial("client again", back[1])
			for number := range int32(partitions) {
				at := w.MustDial("reader", nodes[w.leaderOf(c, "orders", number)-1])
				if got := w.values(at, "orders", number); !slices.Equal(got, acked) {
					w.Fatalf("orders-%d holds %v of %v", number, got, acked)
				}
				w.mustProduce(at, "orders", number, "on")
			}
		})
	}
}
