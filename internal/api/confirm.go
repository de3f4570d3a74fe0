package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"barnabas/internal/replica"
)

// confirmPatience is how long the controller is waited for until it says that this broker leads still. Without its word
// the client is sent to look for another leader, and comes back where there is none.
const confirmPatience = 500 * time.Millisecond

// confirmations are the questions to the controller whether this broker's metadata is the newest. There is one at a time, however
// many readers ask: those who come meanwhile share the next, for its answer must be younger than what they ask for. So who
// waits does it for two times confirmPatience at most.
type confirmations struct {
	mu            sync.Mutex // short
	running, next *confirmation
}

// confirmation is one question. Whoever was the first to share it asks it.
type confirmation struct {
	done chan struct{} // closed when err is known
	err  error
}

// confirm makes this broker's metadata as new as the request under way. A leader that was replaced a moment ago, and has not heard
// of it, would deny what its successor has: readers would begin anew, at the first record perhaps. So it denies nothing of
// the log's end before the controller has spoken; what it says after that was so when the request came. A closed hurried ends
// the wait.
// Errors: replica.ErrCutOff, the context's.
func (h *Handler) confirm(ctx context.Context, hurried <-chan struct{}) error {
	c := &h.confirmations
	c.mu.Lock()
	before, q := c.running, c.next
	first := q == nil
	if first {
		q = &confirmation{done: make(chan struct{})}
		c.next = q
	}
	c.mu.Unlock()
	if first {
		c.ask(q, before, func() error {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmPatience) // the others' question, too
			defer cancel()
			return h.o.Controller.Sync(limited)
		})
	}
	err := replica.ErrCutOff
	select {
	case <-q.done:
		if err = q.err; err != nil {
			h.log.Debug("the controller does not confirm that this broker leads; a reader is sent away", "err", err)
			err = replica.ErrCutOff
		}
	case <-hurried:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("confirm who leads: %w", err)
	}
	return nil
}

// ask asks q once the question before it is answered.
func (c *confirmations) ask(q, before *confirmation, sync func() error) {
	if before != nil {
		<-before.done
	}
	c.mu.Lock()
	c.running, c.next = q, nil // who comes from here on shares another
	c.mu.Unlock()
	q.err = sync()
	c.mu.Lock()
	if c.running == q {
		c.running = nil
	}
	c.mu.Unlock()
	close(q.done)
}
