package peer

import (
	"maps"
	"slices"
	"sync"
)

// observer is somebody who is told of connections. A goroutine of its own tells it, so that one that waits
// holds up neither a connection nor the others.
type observer struct {
	tell func(node int32, up bool)
	wake chan struct{} // holds one token: there is news, or it is over
	done chan struct{} // closed when the goroutine has ended

	mu struct { // short
		sync.Mutex
		news []change // in order; at most two of a node
		over bool
	}
}

// change is that the control connection to a node was made or has ended.
type change struct {
	node int32
	up   bool
}

// Observe has f told when the control connection to a node is made or has ended, first of those that
// stand now. It is called on one goroutine, in the order of each node's changes; while it waits, what
// goes back and forth is told as one end and one beginning. An end is never left out. cancel ends it: it
// waits for a call under way and must not be called from f. So does Close, which tells nobody of the
// connections that it ends.
func (p *Peers) Observe(f func(node int32, up bool)) (cancel func()) {
	o := &observer{tell: f, wake: make(chan struct{}, 1), done: make(chan struct{})}
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		return func() {}
	}
	// Under p.mu, so that no change of a link's is missed, nor told of before its beginning.
	for _, node := range slices.Sorted(maps.Keys(p.mu.up)) {
		if p.mu.up[node] {
			o.mu.news = append(o.mu.news, change{node, true})
		}
	}
	p.mu.observers = append(p.mu.observers, o)
	p.running.Go(o.run)
	p.mu.Unlock()
	o.signal()
	return func() {
		p.mu.Lock()
		p.mu.observers = slices.DeleteFunc(p.mu.observers, func(one *observer) bool { return one == o })
		p.mu.Unlock()
		o.end()
		<-o.done
	}
}

// observed passes on what has become of a control connection.
func (p *Peers) observed(l *link, up bool) {
	if l.data {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || l.forgotten { // which was told
		return
	}
	p.mu.up[l.to] = up
	for _, o := range p.mu.observers {
		o.add(change{l.to, up})
	}
}

// add queues news. What a node has done and undone since it was last told of is left out, as long as an
// end remains where there was one.
func (o *observer) add(c change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.signal()
	before, of := -1, -1 // the last two of this node
	for i := range o.mu.news {
		if o.mu.news[i].node == c.node {
			before, of = of, i
		}
	}
	if before >= 0 { // x, not x, and x again: x
		o.mu.news = append(o.mu.news[:of], o.mu.news[of+1:]...)
		return
	}
	o.mu.news = append(o.mu.news, c)
}

func (o *observer) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *observer) end() {
	o.mu.Lock()
	o.mu.over = true
	o.mu.Unlock()
	o.signal()
}

func (o *observer) run() {
	defer close(o.done)
	for range o.wake {
		for {
			c, more, over := o.next()
			if over {
				return
			}
			if !more {
				break
			}
			o.tell(c.node, c.up)
		}
	}
}

func (o *observer) next() (c change, more, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.over || len(o.mu.news) == 0 {
		return change{}, false, o.mu.over
	}
	c = o.mu.news[0]
	o.mu.news = o.mu.news[1:]
	return c, true, false
}
