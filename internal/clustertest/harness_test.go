package clustertest

import (
	"testing"
	"time"

	"barnabas/internal/batch"
)

func TestNodeServesStopsAndServesAgain(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker")
		n.MustStart()
		c := w.MustDial("client", n)
		if _, err := c.CreateTopic(w.Context(), "orders", 2); err != nil {
			w.Fatalf("%v", err)
		}
		at, err := c.Produce(w.Context(), -1, "orders", 1, Batch(time.Now().UnixMilli(), batch.Lz4, "a", "b"))
		if err != nil || at != 0 {
			w.Fatalf("produced at %d: %v", at, err)
		}
		if err := n.Stop(); err != nil {
			w.Fatalf("%v", err)
		}
		n.MustStart()
		c = w.MustDial("client", n)
		got, err := c.ReadAll(w.Context(), "orders", 1, 0)
		if err != nil || len(got) != 2 || got[1].Value != "b" {
			w.Fatalf("read %v: %v", got, err)
		}
	})
}
