// Package burial takes what is deleted off a disk without anybody waiting for it: removals are carried out one after the other
// by a goroutine that owns them, and files that are to stay for a while are kept account of until they are due.
//
// It decides when, and in which order. It knows neither logs nor file systems: commitlog's directories, its only callers, say
// what a removal does.
package burial

import (
	"fmt"
	"sync"
	"time"
)

const (
	// MostWaiting bounds the removals of a directory that wait for a disk that does not answer. Past it who adds another waits,
	// rather than memory growing: a node then takes no further metadata until the disk answers or fails.
	MostWaiting = 100_000
	// Patience is how long a disk may take over removals before that is told.
	Patience = 10 * time.Second
)

const (
	// Suffix ends the names of deleted logs' directories.
	Suffix  = "-delete"
	maxName = 255 // bytes of a name, as file systems have it
)

// Name is what the directory of a deleted log is called: its own name, which is cut where it is too long, as Kafka does, and id.
func Name(log string, id [16]byte) string {
	suffix := fmt.Sprintf(".%x%s", id, Suffix)
	return log[:min(len(log), maxName-len(suffix))] + suffix
}

// Queue carries removals out, in the order in which they came. Methods are safe for concurrent use.
type Queue[K comparable, R any] struct {
	carryOut func([]R)
	slow     func(waiting int)
	most     int
	wake     chan struct{} // holds one signal
	ended    chan struct{} // closed when the goroutine has ended

	mu struct { // short
		sync.Mutex
		waiting []R
		keys    []K // of waiting, in its order
		pending map[K]int
		count   int           // waiting and under way
		changed chan struct{} // closed and replaced when a batch is done
		closing bool
	}
}

// NewQueue starts the goroutine. carryOut does all that has gathered; slow is told when that takes longer than Patience, with
// how many removals there are by then. Neither is called by two goroutines at once, but slow may be while carryOut is.
func NewQueue[K comparable, R any](carryOut func([]R), slow func(waiting int)) *Queue[K, R] {
	return newQueue[K](carryOut, slow, MostWaiting)
}

func newQueue[K comparable, R any](carryOut func([]R), slow func(int), most int) *Queue[K, R] {
	q := &Queue[K, R]{carryOut: carryOut, slow: slow, most: most, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	q.mu.pending, q.mu.changed = map[K]int{}, make(chan struct{})
	go q.run()
	return q
}

// Add has removals carried out, each known by the key at its place. It waits for nothing as long as there are fewer than
// MostWaiting. After Close it does nothing.
func (q *Queue[K, R]) Add(keys []K, removals []R) {
	for {
		q.mu.Lock()
		if q.mu.closing || len(removals) == 0 {
			q.mu.Unlock()
			return
		}
		if q.mu.count < q.most {
			break
		}
		changed := q.mu.changed
		q.mu.Unlock()
		<-changed
	}
	defer q.mu.Unlock()
	q.mu.waiting, q.mu.keys = append(q.mu.waiting, removals...), append(q.mu.keys, keys...)
	for _, k := range keys {
		q.mu.pending[k]++
	}
	q.mu.count += len(removals)
	q.signal()
}

// Await returns when no removal that is known by key waits or is under way. It must not be called by carryOut.
func (q *Queue[K, R]) Await(key K) {
	for {
		q.mu.Lock()
		pending, changed := q.mu.pending[key], q.mu.changed
		q.mu.Unlock()
		if pending == 0 {
			return
		}
		<-changed
	}
}

// Close returns when everything that was added is carried out.
func (q *Queue[K, R]) Close() {
	q.mu.Lock()
	q.mu.closing = true
	q.mu.Unlock()
	q.signal()
	<-q.ended
}

func (q *Queue[K, R]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue[K, R]) run() {
	defer close(q.ended)
	for range q.wake {
		for {
			q.mu.Lock()
			removals, keys, closing := q.mu.waiting, q.mu.keys, q.mu.closing
			q.mu.waiting, q.mu.keys = nil, nil
			q.mu.Unlock()
			if len(removals) == 0 && closing {
				return
			}
			if len(removals) == 0 {
				break
			}
			q.batch(removals)
			q.finished(keys)
		}
	}
}

func (q *Queue[K, R]) batch(removals []R) {
	late := time.AfterFunc(Patience, func() {
		q.mu.Lock()
		count := q.mu.count
		q.mu.Unlock()
		q.slow(count)
	})
	defer late.Stop()
	q.carryOut(removals)
}

// finished lets those go who wait.
func (q *Queue[K, R]) finished(keys []K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.count -= len(keys)
	for _, k := range keys {
		if q.mu.pending[k]--; q.mu.pending[k] == 0 {
			delete(q.mu.pending, k)
		}
	}
	close(q.mu.changed)
	q.mu.changed = make(chan struct{})
}
