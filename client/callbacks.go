package client

import (
	"context"
	"sync"
	"time"
)

// callbacks is step (f): one goroutine runs the callbacks given to Send, batch after batch. Each
// partition hands its batches over in order, so its callbacks run in order. A slow callback holds
// up other callbacks, and when buffer.memory is used up Send; it holds up no request.
type callbacks struct {
	p    *Producer
	wake chan struct{} // one slot

	mu struct { // never held while a callback runs
		sync.Mutex
		ended []finished
		last  bool
	}
}

// finished is a batch whose callbacks are to run, or a Flush that waits for those before it.
type finished struct {
	batch *producerBatch
	flush chan struct{}
}

func newCallbacks(p *Producer) *callbacks { return &callbacks{p: p, wake: make(chan struct{}, 1)} }

func (c *callbacks) add(b *producerBatch) { c.put(finished{batch: b}) }

func (c *callbacks) put(f finished) {
	c.mu.Lock()
	c.mu.ended = append(c.mu.ended, f)
	c.mu.Unlock()
	c.signal()
}

func (c *callbacks) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// await waits until the callbacks of all that has been added have run.
func (c *callbacks) await(ctx context.Context) error {
	mark := make(chan struct{})
	c.put(finished{flush: mark})
	select {
	case <-mark:
		return nil
	case <-c.p.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end lets run return once what has been added is done. Nothing may be added after it.
func (c *callbacks) end() {
	c.mu.Lock()
	c.mu.last = true
	c.mu.Unlock()
	c.signal()
}

func (c *callbacks) run() {
	var spare []finished
	for {
		c.mu.Lock()
		todo, last := c.mu.ended, c.mu.last
		c.mu.ended = spare[:0]
		c.mu.Unlock()
		for i, f := range todo {
			if f.batch != nil {
				c.finish(f.batch)
			} else {
				close(f.flush)
			}
			todo[i] = finished{}
		}
		spare = todo
		switch {
		case len(todo) > 0:
		case last:
			return
		default:
			<-c.wake
		}
	}
}

// finish gives back the batch's memory, so that a callback that sends finds some, and then runs
// the callbacks.
func (c *callbacks) finish(b *producerBatch) {
	c.p.memory.release(b.memory)
	o := &b.outcome
	for i := range b.records {
		r := &b.records[i]
		if r.done == nil {
			continue
		}
		m := RecordMetadata{Topic: b.queue.topic.name, Partition: b.queue.partition, Offset: -1}
		ms := r.timestampMs
		if o.appendTimeMs >= 0 {
			ms = o.appendTimeMs
		}
		m.Timestamp = time.UnixMilli(ms)
		if o.err == nil {
			if o.baseOffset >= 0 {
				m.Offset = o.baseOffset + int64(i)
			}
			r.done(m, nil)
			continue
		}
		err := o.err
		if own, ok := o.perRecord[int32(i)]; ok {
			err = own
		}
		r.done(m, err)
	}
	b.records = nil
}
