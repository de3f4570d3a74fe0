package coordinator

import (
	"sync"
	"sync/atomic"
)

const (
	// maxQueuedEvents bounds the requests that wait for one partition. Past it they are refused with
	// ErrBusy, which makes clients ask again a little later; nothing has happened to them.
	maxQueuedEvents = 10_000
	// maxQueuedBytes bounds what the requests that wait for all partitions hold, by their size on the
	// wire. Past it they are refused likewise.
	maxQueuedBytes = 64 << 20
)

// event is one thing for a partition's goroutine to do: a request, or what do says.
type event struct {
	call *Call
	do   func(*partition)
}

// phase is how far a partition is.
type phase int8

const (
	loading phase = iota // requests are refused with ErrLoading
	serving
	lost // requests are refused with ErrNotCoordinator
)

// inbox is the one way into a partition's goroutine.
type inbox struct {
	all  *atomic.Int64 // bytes that wait for any partition
	wake chan struct{} // holds one token while there is something to look at
	mu   struct {      // short
		sync.Mutex
		phase phase
		queue []event
		bytes int64
	}
}

func newInbox(all *atomic.Int64) inbox { return inbox{all: all, wake: make(chan struct{}, 1)} }

// submit queues a request, or says why not.
func (i *inbox) submit(c *Call) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.mu.phase == loading:
		return ErrLoading
	case i.mu.phase == lost:
		return ErrNotCoordinator
	case len(i.mu.queue) >= maxQueuedEvents:
		return ErrBusy
	}
	if i.all.Add(c.bytes) > maxQueuedBytes {
		i.all.Add(-c.bytes)
		return ErrBusy
	}
	i.mu.queue = append(i.mu.queue, event{call: c})
	i.mu.bytes += c.bytes
	i.rouse()
	return nil
}

// post queues what must not be refused: its number is bounded by that of the requests under way and
// of the changes of metadata. It is dropped once the partition is lost.
func (i *inbox) post(do func(*partition)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.phase == lost {
		return
	}
	i.mu.queue = append(i.mu.queue, event{do: do})
	i.rouse()
}

// rouse makes the goroutine look.
func (i *inbox) rouse() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// take returns what is queued, in order, and reuses the memory of what was taken before.
func (i *inbox) take(done []event) []event {
	clear(done)
	i.mu.Lock()
	defer i.mu.Unlock()
	queue := i.mu.queue
	i.all.Add(-i.mu.bytes)
	i.mu.queue, i.mu.bytes = done[:0], 0
	if cap(done) > maxKeptEvents {
		i.mu.queue = nil
	}
	return queue
}

// maxKeptEvents is how long a queue may be to be used again.
const maxKeptEvents = 256

func (i *inbox) become(p phase) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.phase != lost {
		i.mu.phase = p
	}
}
