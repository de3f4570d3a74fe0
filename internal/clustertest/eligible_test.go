package clustertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// TestReplicaThatStoppedInPeaceStaysEligible: in a topic that is acknowledged from the page cache, a replica that was eligible to lead
// and ended in peace has everything, and leads when it is back, although the last that was in sync has lost its power; also where it
// was started in between and stopped again before there was anybody to register with.
func TestReplicaThatStoppedInPeaceStaysEligible(t *testing.T) {
	threeNodes(t, 8, func(w *World, nodes []*Node) {
		c := w.MustDial("admin", nodes[2])
		if _, err := c.CreateTopic(w.Context(), "clicks", 1, "min.insync.replicas", "2", "flush.before.ack", "false"); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "clicks")
		leader := nodes[w.leaderOf(c, "clicks", 0)-1]
		others := without(nodes, leader)
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
		leader.Crash(w.Seed)
		if w.Seed%2 == 1 {
			alone, cancel := context.WithTimeout(w.Context(), 3*time.Second)
			if err := others[1].Start(alone); err == nil {
				w.Fatalf("one of three serves")
			}
			cancel()
		}
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

// TestTopicThatBecomesDurableIsNotTrustedAtOnce: what was acknowledged from page caches before the topic was made durable is on a
// replica's disk only after a while. If that crashes before, it leads nothing, although the topic is durable by then; once all
// in-sync replicas have everything on disk, and the metadata says so, a crash takes nothing and it leads. A topic that is made
// the opposite is not trusted from then on.
func TestTopicThatBecomesDurableIsNotTrustedAtOnce(t *testing.T) {
	const flush = 3 * time.Second // of the second's disk
	for seed := range Seeds(9) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			for range 2 {
				n := w.Broker(nodes)
				n.MustStart()
				nodes = append(nodes, n)
			}
			first, second := nodes[3], nodes[4]
			c := w.MustDial("client", nodes[0])
			if err := c.PlaceTopic(w.Context(), "orders", 1, 4, 5); err != nil {
				w.Fatalf("%v", err)
			}
			w.mustAlter(c, "orders", "min.insync.replicas", "2")
			w.mustAlter(c, "orders", "flush.before.ack", "false")
			unflushed := func() bool { return w.partition(nodes[0], "orders", 0).Unflushed }
			w.Eventually("it is known that nothing need be on disk", 5*time.Second, unflushed)
			second.Fault(func(op disk.Op) error {
				if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
					time.Sleep(flush)
				}
				return nil
			})
			at := w.MustDial("producer", first)
			for i := range 20 {
				w.mustProduce(at, "orders", 0, fmt.Sprint("v", i))
			}
			w.mustAlter(c, "orders", "flush.before.ack", "true")
			trusted := false
			switch seed % 3 {
			case 1: // long enough
				w.Eventually("everything is on disk", 20*time.Second, func() bool { return !unflushed() })
				trusted = true
			case 2: // and no longer
				w.Eventually("everything is on disk", 20*time.Second, func() bool { return !unflushed() })
				w.mustAlter(c, "orders", "flush.before.ack", "false")
				w.Eventually("it is known that nothing need be on disk", 5*time.Second, unflushed)
				w.mustAlter(c, "orders", "flush.before.ack", "true")
				w.mustProduce(at, "orders", 0, "last") // with the disk: it is acknowledged when all before is there
				trusted = true
				w.Eventually("everything is on disk again", 20*time.Second, func() bool { return !unflushed() })
			}
			second.Crash(w.Seed)
			w.Eventually("the second is out of sync", 10*time.Second, func() bool { return len(w.partition(nodes[0], "orders", 0).ISR) == 1 })
			first.Kill()
			w.Eventually("nobody leads", 10*time.Second, func() bool { return w.partition(nodes[0], "orders", 0).Leader == metadata.NoLeader })
			second.MustStart()
			time.Sleep(10 * time.Second)
			if p := w.partition(nodes[0], "orders", 0); (p.Leader == 5) != trusted {
				w.Fatalf("trusted: %v; led by %d: %+v", trusted, p.Leader, p)
			}
			first.MustStart()
			w.Eventually("somebody leads", 10*time.Second, func() bool { return w.partition(nodes[0], "orders", 0).Leader != metadata.NoLeader })
			w.Eventually("all that was acknowledged is there", 20*time.Second, func() bool {
				leader := nodes[w.partition(nodes[0], "orders", 0).Leader-1]
				all, err := w.MustDial("reader", leader).ReadAll(w.Context(), "orders", 0, 0)
				return err == nil && len(all) >= 20
			})
		})
	}
}

// TestChangeIsKnownWhereItWasAskedForThoughTheControllerGoes: a change is answered once the node that was asked knows it, also
// where the controller that decided it is gone before that node has heard that it is committed.
func TestChangeIsKnownWhereItWasAskedForThoughTheControllerGoes(t *testing.T) {
	threeNodes(t, 12, func(w *World, nodes []*Node) {
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
		if w.Seed%2 == 0 {
			controller.Kill()
		} else if err := controller.Stop(); err != nil {
			w.Errorf("stop: %v", err)
		}
		<-done
	})
}
