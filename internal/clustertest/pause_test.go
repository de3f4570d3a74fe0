package clustertest

import (
	"context"
	"testing"
	"time"
)

// A node that stands still answers nothing and writes nothing; then it goes on, or dies in the middle of it, or of its start.
func TestPausedNodeGoesOnOrDies(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker")
		n.MustStart()
		c := w.MustDial("client", n)
		w.mustCreate(c, "orders", 1)
		n.Pause()
		began := time.Now()
		time.AfterFunc(3*time.Second, n.Resume)
		w.mustProduce(c, "orders", 0, "a")
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			w.Fatalf("a node that stood still for 3 s has answered after %v", took)
		}
		n.Pause()
		soon, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if _, err := c.Topic(soon, "orders"); err == nil {
			w.Fatalf("a node that stands still has answered")
		}
		n.Kill()
		if _, err := n.Begin(w.Context()); err != nil {
			w.Fatalf("%v", err)
		}
		n.Crash(1)
		if n.Broker() != nil || n.IsStarting() {
			w.Fatalf("a node that lost its power in the middle of its start runs")
		}
		s, err := n.Begin(w.Context())
		if err != nil {
			w.Fatalf("%v", err)
		}
		<-s.Done()
		if err := n.Started(); err != nil || n.Broker() == nil {
			w.Fatalf("start again: %v", err)
		}
		if got := w.values(w.MustDial("client", n), "orders", 0); len(got) != 1 || got[0] != "a" {
			w.Fatalf("%v is left", got)
		}
	})
}
