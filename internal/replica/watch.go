package replica

import "sync"

// Watch is one reader's interest in many partitions, registered once for as long as the reader
// lives (a fetch session, or one request without a session). It collects which of them moved, so
// that a long poll re-reads those and no others. A Watch is used by one waiting goroutine at a
// time; partitions add to it from any.
type Watch struct {
	// Moved has a value when something moved since the last Take. It is never closed.
	Moved chan struct{}

	mu struct {
		sync.Mutex
		moved map[int]struct{} // keys given at Add; bounded by the partitions watched
		quiet bool             // see hush
	}
}

// NewWatch returns a Watch that watches nothing yet.
func NewWatch() *Watch {
	w := &Watch{Moved: make(chan struct{}, 1)}
	w.mu.moved = map[int]struct{}{}
	return w
}

// Take returns the keys of the partitions that moved since the last call, in no order.
func (w *Watch) Take() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.mu.moved) == 0 {
		return nil
	}
	keys := make([]int, 0, len(w.mu.moved))
	for k := range w.mu.moved {
		keys = append(keys, k)
	}
	clear(w.mu.moved)
	return keys
}

func (w *Watch) notify(key int) { w.note(key, true) }

// whisper is notify for what can wait: it wakes nobody who has asked for quiet.
func (w *Watch) whisper(key int) { w.note(key, false) }

// hush asks for quiet, or ends it: the reader will look at a time of its own.
func (w *Watch) hush(quiet bool) {
	w.mu.Lock()
	w.mu.quiet = quiet
	w.mu.Unlock()
}

func (w *Watch) note(key int, loud bool) {
	w.mu.Lock()
	w.mu.moved[key] = struct{}{}
	quiet := w.mu.quiet && !loud
	w.mu.Unlock()
	if quiet {
		return
	}
	select {
	case w.Moved <- struct{}{}:
	default: // the reader has a wake-up waiting already, and will find this key with it
	}
}
