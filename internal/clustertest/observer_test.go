package clustertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"barnabas/internal/disk"
)

// TestFollowerOfMetadataIsGivenNothingThatIsWrittenOver: a leader of the quorum that stood still has an entry of its own where the others
// have committed another. It hears of that while it is writing its own, and must not hand the old entry to a broker without a vote.
func TestFollowerOfMetadataIsGivenNothingThatIsWrittenOver(t *testing.T) {
	for seed := range Seeds(6) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			observer := w.Broker(nodes)
			observer.MustStart()
			c := w.MustDial("asks", nodes[0])
			old := w.leader(c, nodes)
			other := nodes[0]
			if other == old {
				other = nodes[1]
			}
			asks := w.MustDial("asks another", other)
			var asking sync.WaitGroup
			var clients []*Client
			for range 6 {
				clients = append(clients, w.MustDial("client", old))
			}
			old.Fault(func(op disk.Op) error {
				if isFlush(op, "/data/__cluster_metadata") {
					time.Sleep(30 * time.Millisecond)
				}
				return nil
			})
			old.Pause()
			for i, c := range clients { // what they ask is waiting when the leader goes on, and has not heard of another
				asking.Go(func() {
					soon, cancel := context.WithTimeout(w.Context(), 5*time.Second)
					defer cancel()
					_, _ = c.CreateTopic(soon, fmt.Sprint("asked-", i), 1) // it may be made or not
				})
			}
			w.Eventually("another leads", 5*time.Second, func() bool {
				leader := w.leader(asks, nodes)
				return leader != nil && leader != old
			})
			old.Resume()
			asking.Wait()
			time.Sleep(3 * time.Second)
			old.Fault(nil)
			if _, err := w.MustDial("asks", other).CreateTopic(w.Context(), "kept", 1); err != nil {
				w.Fatalf("%v", err)
			}
			w.Eventually("the broker without a vote knows what the others know", 20*time.Second, func() bool {
				_, kept := observer.Broker().Image().Topic("kept")
				return kept && observer.Broker().Image().Offset() >= other.Broker().Image().Offset()-5
			})
			for i := range clients {
				name := fmt.Sprint("asked-", i)
				_, here := observer.Broker().Image().Topic(name)
				_, there := other.Broker().Image().Topic(name)
				if here != there {
					w.Fatalf("the broker without a vote knows of %s: %v, a voter: %v", name, here, there)
				}
			}
		})
	}
}
