package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// bufferMemory is buffer.memory: the bytes that records may occupy between Send and their
// callbacks. Who finds it exhausted waits, first come, first served.
type bufferMemory struct {
	limit   int64
	used    atomic.Int64
	waiting atomic.Int64 // changes only under mu

	mu struct {
		sync.Mutex
		queue []*memoryWaiter
	}
}

type memoryWaiter struct {
	bytes   int64
	granted chan struct{}
}

func newBufferMemory(limit int64) *bufferMemory { return &bufferMemory{limit: limit} }

// tryTake takes the bytes where they are free and nobody waits.
func (m *bufferMemory) tryTake(bytes int64) bool {
	return m.waiting.Load() == 0 && m.takeFree(bytes)
}

func (m *bufferMemory) takeFree(bytes int64) bool {
	for {
		used := m.used.Load()
		if used+bytes > m.limit {
			return false
		}
		if m.used.CompareAndSwap(used, used+bytes) {
			return true
		}
	}
}

// take waits for the bytes until the deadline, ctx or closed end the wait.
func (m *bufferMemory) take(ctx context.Context, bytes int64, deadline time.Time, closed <-chan struct{}) error {
	if m.tryTake(bytes) {
		return nil
	}
	if bytes > m.limit {
		return ErrRecordTooLarge
	}
	wait := time.Until(deadline)
	if wait <= 0 {
		return ErrBufferFull
	}
	w := &memoryWaiter{bytes: bytes, granted: make(chan struct{})}
	m.mu.Lock()
	m.waiting.Add(1)
	m.mu.queue = append(m.mu.queue, w)
	m.grantLocked() // what was released before waiting was counted woke nobody
	m.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case <-w.granted:
		return nil
	case <-timer.C:
		err = ErrBufferFull
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-closed:
		err = ErrClosed
	}
	if m.giveUp(w) {
		return err
	}
	return nil // granted at the same moment
}

// giveUp takes a waiter out of the queue; false where it has been granted.
func (m *bufferMemory) giveUp(w *memoryWaiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.mu.queue {
		if other == w {
			m.mu.queue = append(m.mu.queue[:i], m.mu.queue[i+1:]...)
			m.waiting.Add(-1)
			m.grantLocked() // those behind may need less
			return true
		}
	}
	return false
}

// release gives bytes back.
func (m *bufferMemory) release(bytes int64) {
	m.used.Add(-bytes)
	if m.waiting.Load() == 0 {
		return
	}
	m.mu.Lock()
	m.grantLocked()
	m.mu.Unlock()
}

func (m *bufferMemory) grantLocked() {
	for len(m.mu.queue) > 0 && m.takeFree(m.mu.queue[0].bytes) {
		close(m.mu.queue[0].granted)
		m.mu.queue = m.mu.queue[1:]
		m.waiting.Add(-1)
	}
}
