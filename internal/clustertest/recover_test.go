package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/internal/metadata"
	"barnabas/internal/node"
)

// recover is what `barnabas cluster recover --force` does on a node that is down.
func (n *Node) recover() {
	n.w.T.Helper()
	set, err := n.Config()
	if err == nil {
		_, err = node.RecoverQuorum(n.w.Context(), n.prepare(n.w.Net.Host(n.Name), set), true)
	}
	if err != nil {
		n.w.Fatalf("recover with %s: %v", n.Name, err)
	}
}

// TestSurvivorLeadsWhatItHasAfterARecovery: two of three nodes are gone for good, and the third goes on alone. It leads the partitions
// that it was in sync for, where what it had is on its disk, whoever led them; after a crash it does not where records may be
// missing (KIP-966), nor ever where it was not in sync.
func TestSurvivorLeadsWhatItHasAfterARecovery(t *testing.T) {
	for seed := range Seeds(8) {
		clean := seed%2 == 0
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			// Not the controller, which would have said that the others are away before it was none any more.
			at := slices.IndexFunc(nodes, func(n *Node) bool { return !strings.Contains(n.Log(), "this node is the controller") })
			survivor, id := nodes[at], int32(at+1)
			c := w.MustDial("client", survivor)
			var durable, cached []string
			for least := range 2 {
				durable, cached = append(durable, fmt.Sprint("durable-", least+1)), append(cached, fmt.Sprint("cached-", least+1))
				for _, name := range []string{durable[least], cached[least]} {
					w.mustCreate(c, name, 3, "min.insync.replicas", fmt.Sprint(least+1), "flush.before.ack", fmt.Sprint(name == durable[least]))
				}
			}
			w.whole(nodes, 5*time.Second, append(durable, cached...)...)
			const each = 5
			for _, name := range append(durable, cached...) {
				for number := range int32(3) {
					at := w.MustDial("producer", nodes[w.leaderOf(c, name, number)-1])
					for i := range each {
						w.mustProduce(at, name, number, fmt.Sprint("v", i))
					}
				}
			}
			for _, n := range nodes {
				if n != survivor {
					n.Crash(seed)
				}
			}
			if time.Sleep(time.Duration(seed) * time.Second); clean {
				if err := survivor.Stop(); err != nil {
					w.Fatalf("stop: %v", err)
				}
			} else {
				survivor.Crash(seed)
			}
			survivor.recover()
			survivor.MustStart()
			time.Sleep(20 * time.Second)
			c = w.MustDial("client again", survivor)
			for _, name := range append(durable, cached...) {
				for number := range int32(3) {
					want := id
					if !clean && slices.Contains(cached, name) {
						want = metadata.NoLeader
					}
					if p := w.partition(survivor, name, number); p.Leader != want {
						w.Errorf("%s-%d is not led by %d: %+v", name, number, want, p)
					} else if all, err := c.ReadAll(w.Context(), name, number, 0); want == id && name == durable[0] && (err != nil || len(all) != each) {
						w.Errorf("%s-%d holds %v: %v", name, number, all, err)
					}
				}
			}
			if w.T.Failed() {
				w.Fatalf("%s", survivor.Log())
			}
		})
	}
}
