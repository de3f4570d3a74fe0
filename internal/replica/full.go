package replica

import (
	"slices"
	"time"
)

// A follower whose disk is full cannot take what it is sent. All that one leader has for that disk waits then, but for
// one partition, which is asked for from time to time: what it brings shows whether there is room again. So a full disk
// costs a leader and the network one answer now and then, however many partitions lie on it.

const (
	// firstRoom and lastRoom bound how long it takes until it is tried again whether there is room.
	firstRoom = time.Second
	lastRoom  = 30 * time.Second
)

// fullDisk is a data directory that had no room for what a leader sent.
type fullDisk struct {
	probe    *pull   // is asked for
	waiting  []*pull // are not
	failures int
	ended    time.Time // when there was room again; what comes soon after goes on counting
}

// noRoom notes that a partition's records did not fit.
func (f *fetcher) noRoom(n *pull, now time.Time, err error) {
	dir := n.p.log.Dir()
	e := f.full[dir]
	if e == nil {
		e = &fullDisk{}
		f.full[dir] = e
	}
	f.unqueue(n)
	if e.probe != nil && e.probe != n {
		if !n.waits {
			n.full, n.waits = true, true
			e.waiting = append(e.waiting, n)
		}
		return
	}
	if e.probe == nil {
		if now.Sub(e.ended) > lastRoom {
			e.failures = 0
		}
		f.links.m.log.Warn("the disk is full: this broker cannot follow until there is room", "dir", dir.Path(), "leader", f.leader, "partition", n.p.id, "err", err)
	}
	e.probe, n.full = n, true
	f.restUntil(n, now.Add(min(firstRoom<<min(e.failures, 10), lastRoom)))
	e.failures++
}

// room notes that the records of the partition that is asked for fitted.
func (f *fetcher) room(n *pull, now time.Time) {
	dir := n.p.log.Dir()
	f.links.m.log.Info("there is room on the disk again", "dir", dir.Path(), "leader", f.leader, "partition", n.p.id)
	e := f.full[dir]
	n.full = false
	e.probe, e.ended = nil, now
	for _, other := range e.waiting {
		other.full, other.waits = false, false
		f.enqueue(other)
	}
	e.waiting = nil
}

// pass gives the turn of a partition that is not followed any more, or has nothing to bring, to another.
func (f *fetcher) pass(n *pull) {
	if !n.full {
		return
	}
	e := f.full[n.p.log.Dir()]
	waited := n.waits
	n.full, n.waits = false, false
	if waited {
		e.waiting = slices.DeleteFunc(e.waiting, func(o *pull) bool { return o == n })
		return
	}
	e.probe = nil
	if len(e.waiting) > 0 {
		e.probe = e.waiting[0]
		e.waiting = slices.Delete(e.waiting, 0, 1)
		e.probe.waits = false
		f.enqueue(e.probe)
	}
}
