package accumulator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Why bytes are not to be had; package client gives them to users under these names.
var (
	ErrBufferFull     = errors.New("buffer.memory is exhausted")
	ErrRecordTooLarge = errors.New("record is larger than max.request.size or buffer.memory allows")
)

// Memory is buffer.memory: the bytes that records may occupy between Send and their
// callbacks. Who finds it exhausted waits, first come, first served.
type Memory struct {
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

// NewMemory makes one with all of its bytes free.
func NewMemory(limit int64) *Memory { return &Memory{limit: limit} }

// Used is how many bytes are taken.
func (m *Memory) Used() int64 { return m.used.Load() }

// TryTake takes the bytes where they are free and nobody waits.
func (m *Memory) TryTake(bytes int64) bool {
	return m.waiting.Load() == 0 && m.takeFree(bytes)
}

func (m *Memory) takeFree(bytes int64) bool {
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

// Take waits for the bytes until the deadline (zero: there is none), ctx or ended end the wait. What
// ended ends is told by the caller's endedErr. Errors: ErrBufferFull at the deadline,
// ErrRecordTooLarge for more than there will ever be, ctx's.
func (m *Memory) Take(ctx context.Context, bytes int64, deadline time.Time, ended <-chan struct{}, endedErr error) error {
	if m.TryTake(bytes) {
		return nil
	}
	if bytes > m.limit {
		return fmt.Errorf("%w: %d bytes, buffer.memory is %d", ErrRecordTooLarge, bytes, m.limit)
	}
	var passed <-chan time.Time
	if !deadline.IsZero() {
		wait := time.Until(deadline)
		if wait <= 0 {
			return ErrBufferFull
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		passed = timer.C
	}
	w := &memoryWaiter{bytes: bytes, granted: make(chan struct{})}
	m.mu.Lock()
	m.waiting.Add(1)
	m.mu.queue = append(m.mu.queue, w)
	m.grantLocked() // what was released before waiting was counted woke nobody
	m.mu.Unlock()

	var err error
	select {
	case <-w.granted:
		return nil
	case <-passed:
		err = ErrBufferFull
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-ended:
		err = endedErr
	}
	if m.giveUp(w) {
		return err
	}
	return nil // granted at the same moment
}

// giveUp takes a waiter out of the queue; false where it has been granted.
func (m *Memory) giveUp(w *memoryWaiter) bool {
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

// Release gives bytes back.
func (m *Memory) Release(bytes int64) {
	m.used.Add(-bytes)
	if m.waiting.Load() == 0 {
		return
	}
	m.mu.Lock()
	m.grantLocked()
	m.mu.Unlock()
}

func (m *Memory) grantLocked() {
	for len(m.mu.queue) > 0 && m.takeFree(m.mu.queue[0].bytes) {
		close(m.mu.queue[0].granted)
		m.mu.queue = m.mu.queue[1:]
		m.waiting.Add(-1)
	}
}
