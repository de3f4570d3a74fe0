package quorum

import (
	"fmt"
	"sync"

	"barnabas/internal/metadata"
)

// history is what was ever told to a Machine, by cluster: it must be the same everywhere.
type history struct {
	sync.Mutex
	entries map[string]string // what was applied at an offset
	leaders map[string]int32  // who led in an epoch
	wrong   string            // the first contradiction
}

func (h *history) applied(cluster string, node int32, c metadata.Committed) {
	records, err := metadata.Encode(c.Records)
	h.Lock()
	defer h.Unlock()
	at, what := fmt.Sprintf("%s offset %d", cluster, c.Offset), fmt.Sprintf("epoch %d: %x", c.Epoch, records)
	if before, known := h.entries[at]; err != nil || known && before != what && h.wrong == "" {
		h.wrong = fmt.Sprintf("node %d applies %q at %s, where another applied %q (%v)", node, what, at, before, err)
	}
	h.entries[at] = what
}

func (h *history) led(cluster string, node int32, l metadata.Leadership) {
	if !l.Mine {
		return
	}
	h.Lock()
	defer h.Unlock()
	at := fmt.Sprintf("%s epoch %d", cluster, l.Epoch)
	if before, known := h.leaders[at]; known && before != node && h.wrong == "" {
		h.wrong = fmt.Sprintf("nodes %d and %d both lead in %s", before, node, at)
	}
	h.leaders[at] = node
}

// check fails the test over a contradiction.
func (h *history) check(w *world) {
	w.t.Helper()
	h.Lock()
	defer h.Unlock()
	if h.wrong != "" {
		w.fatalf("%s", h.wrong)
	}
}
