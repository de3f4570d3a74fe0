package clustertest

import (
	"context"
	"strings"
	"testing"
	"time"
)

// A node of a cluster that waits for a leader says in its log, and under /ready, for whom, or what may be wrong.
func TestNodeWithoutALeaderSaysWhy(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		w.StartAll(nodes...)
		for _, n := range nodes {
			if err := n.Stop(); err != nil {
				w.Fatalf("stop: %v", err)
			}
		}
		alone, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		defer cancel()
		if err := nodes[2].Start(alone); err == nil {
			w.Fatalf("one of three serves")
		}
		if log := nodes[2].Log(); !strings.Contains(log, "waiting for a leader of the metadata quorum; no answer from node 1, node 2") {
			w.Errorf("alone it says %s", log)
		}
		nodes[2].SetSecret("not what the others have")
		w.StartAll(nodes[:2]...)
		refused, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		defer cancel()
		if err := nodes[2].Start(refused); err == nil {
			w.Fatalf("without the secret it serves")
		}
		if log := nodes[2].Log(); !strings.Contains(log, "no answer from node 1, node 2; connect to node 1") || !strings.Contains(log, "the same secret") {
			w.Errorf("without the secret it says %s", log)
		}
		nodes[2].SetSecret(nodes[0].secret)
		nodes[2].Set("controller.quorum.voters=1@broker1:9093,2@broker2:9093,3@broker3:9094")
		elsewhere, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		defer cancel()
		if err := nodes[2].Start(elsewhere); err == nil {
			w.Fatalf("where nobody looks for it, it serves")
		}
		if log := nodes[2].Log(); !strings.Contains(log, "do the others have this node at broker3:9094, too (controller.quorum.voters)?") {
			w.Errorf("at another port it says %s", log)
		}
	})
}
