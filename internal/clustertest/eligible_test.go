package clustertest

import (
	"fmt"
	"testing"
	"time"
)

// TestReplicaThatStoppedInPeaceStaysEligible: in a topic that is acknowledged from the page cache, a replica that was eligible to lead
// and ended in peace has everything, and leads when it is back, although the last that was in sync has lost its power.
func TestReplicaThatStoppedInPeaceStaysEligible(t *testing.T) {
	for seed := range Seeds(8) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			c := w.MustDial("admin", nodes[2])
			if _, err := c.CreateTopic(w.Context(), "clicks", 1, "min.insync.replicas", "2", "flush.before.ack", "false"); err != nil {
				w.Fatalf("%v", err)
			}
			w.whole(nodes, 5*time.Second, "clicks")
			leader := nodes[w.leaderOf(c, "clicks", 0)-1]
			var others []*Node
			for _, n := range nodes {
				if n != leader {
					others = append(others, n)
				}
			}
			mustStop := func(n *Node) {
				if err := n.Stop(); err != nil {
					w.Fatalf("stop %s: %v", n.Name, err)
				}
			}
			mustStop(others[0])
			at := w.MustDial("producer", leader)
			var acked []string
			for i := range 20 {
				v := fmt.Sprint("v", i)
				w.mustProduce(at, "clicks", 0, v)
				acked = append(acked, v)
			}
			mustStop(others[1]) // in sync with the leader up to now, and no record is acknowledged without it
			leader.Crash(seed)
			w.StartAll(leader, others[1])
			c = w.MustDial("admin again", others[1])
			w.Eventually("somebody leads", 10*time.Second, func() bool { return w.leaderOf(c, "clicks", 0) > 0 })
			reader := w.MustDial("reader", nodes[w.leaderOf(c, "clicks", 0)-1])
			var got []string
			for until := time.Now().Add(10 * time.Second); len(got) < len(acked) && time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
				all, err := reader.ReadAll(w.Context(), "clicks", 0, 0)
				if err != nil {
					continue // it has just become the leader
				}
				got = nil
				for _, r := range all {
					got = append(got, r.Value)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(acked) {
				w.Fatalf("%v were acknowledged, %v are left; %s leads", acked, got, nodes[w.leaderOf(c, "clicks", 0)-1].Name)
			}
		})
	}
}

// TestChangeIsKnownWhereItWasAskedForThoughTheControllerGoes: a change is answered once the node that was asked knows it, also
// where the controller that decided it is gone before that node has heard that it is committed.
func TestChangeIsKnownWhereItWasAskedForThoughTheControllerGoes(t *testing.T) {
	for seed := range Seeds(12) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			controller := w.leader(w.MustDial("asks", nodes[0]), nodes)
			asked := w.Broker(nodes) // has no vote, and hears of what is committed when it asks for it
			asked.MustStart()
			c := w.MustDial("client", asked)
			w.Net.SetLatency(controller.Name, asked.Name, time.Millisecond, 60*time.Millisecond) // of two connections either may be the quicker
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := range 40 {
					name := fmt.Sprint("topic", i)
					if _, err := c.CreateTopic(w.Context(), name, 1); err != nil {
						continue // it went in the middle of this one
					}
					if _, err := c.Topic(w.Context(), name); err != nil {
						w.Errorf("%s was created by the word of %s, which does not know it: %v", name, asked.Name, err)
					}
				}
			}()
			time.Sleep(time.Duration(w.Dice("kill").Int64N(int64(900 * time.Millisecond))))
			if seed%2 == 0 {
				controller.Kill()
			} else if err := controller.Stop(); err != nil {
				w.Errorf("stop: %v", err)
			}
			<-done
		})
	}
}
