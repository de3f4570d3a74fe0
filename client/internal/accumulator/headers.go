package accumulator

import "barnabas/internal/batch"

// Headers is memory for a record's headers on their way into a batch, which copies them.
type Headers struct {
	all  []batch.Header
	keys []byte // of all of them
}

// keptHeaderBytes bounds the keys for which memory is kept.
const keptHeaderBytes = 4 << 10

// Headers gives empty ones, until ReleaseHeaders.
func (a *Accumulator[D]) Headers() *Headers {
	if h, ok := a.headers.Get().(*Headers); ok {
		return h
	}
	return new(Headers)
}

// ReleaseHeaders takes them back, and with them what All gave.
func (a *Accumulator[D]) ReleaseHeaders(h *Headers) {
	clear(h.all)
	h.all, h.keys = h.all[:0], h.keys[:0]
	if cap(h.keys) > keptHeaderBytes {
		h.keys = nil
	}
	a.headers.Put(h)
}

// Add appends a header.
func (h *Headers) Add(key string, value []byte) {
	at := len(h.keys)
	h.keys = append(h.keys, key...) // where it grows, the keys before stay in the old memory
	h.all = append(h.all, batch.Header{Key: h.keys[at:], Value: value})
}

// All gives those that were added.
func (h *Headers) All() []batch.Header { return h.all }
