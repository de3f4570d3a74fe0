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
	// triedFor is how long a partition that shows whether there is room may bring nothing, before it is another one's turn.
	triedFor = 5 * time.Second
)

// fullDisk is a data directory that had no room for what a leader sent.
type fullDisk struct {
	probe    *pull   // is asked for
	waiting  []*pull // are not
	failures int
	met      time.Time // when something did not fit last; what comes soon after there was room again goes on counting
	said     bool      // that it is full; a disk that has room now and then has it said once in a while
	saidAt   time.Time
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
	if e.probe == nil && now.Sub(e.met) > 2*lastRoom {
		e.failures = 0
	}
	if !e.said && now.Sub(e.saidAt) > 2*lastRoom {
		e.said, e.saidAt = true, now
		f.links.m.log.Warn("the disk is full: this broker cannot follow until there is room", "dir", dir.Path(), "leader", f.leader, "partition", n.p.id, "err", err)
	}
	e.probe, e.met, n.full = n, now, true
	f.restUntil(n, now.Add(min(firstRoom<<min(e.failures, 10), lastRoom)))
	e.failures++
}

// room notes that the records of the partition that is asked for fitted.
func (f *fetcher) room(n *pull, now time.Time) {
	dir := n.p.log.Dir()
	e := f.full[dir]
	if e.said {
		e.said = false
		f.links.m.log.Info("there is room on the disk again", "dir", dir.Path(), "leader", f.leader, "partition", n.p.id)
	}
	n.full = false
	e.probe = nil
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
		f.try(e, 0)
	}
}

// try has one of those that wait asked for.
func (f *fetcher) try(e *fullDisk, which int) {
	e.probe = e.waiting[which]
	e.waiting = slices.Delete(e.waiting, which, which+1)
	e.probe.waits = false
	f.enqueue(e.probe)
}

// tryOthers takes the turn from partitions that are asked for to see whether there is room, and show nothing: a throttle holds
// them back here, or one at their leader's, at a rate of zero for ever.
func (f *fetcher) tryOthers(now time.Time) {
	if len(f.full) == 0 { // nearly always
		return
	}
	for _, dir := range f.links.m.dirs { // in a fixed order
		e := f.full[dir]
		if e == nil || e.probe == nil {
			continue
		}
		switch n := e.probe; {
		case n.mayHold() && !n.rests:
			at := slices.IndexFunc(e.waiting, func(o *pull) bool { return !o.p.mayHoldItself() })
			if at < 0 {
				continue // all that wait are throttled as well
			}
			f.try(e, at)
			f.unqueue(n)
			f.unhold(n)
			n.waits = true
			e.waiting = append(e.waiting, n)
		case !n.queued && !n.rests && !n.away && now.Sub(n.tried) > triedFor:
			f.pass(n)
		}
	}
}

// mayHold: it is put off, or would be next.
func (n *pull) mayHold() bool { return n.held || n.queued && n.p.mayHoldItself() }

func (f *fetcher) unhold(n *pull) {
	if n.held {
		n.held = false
		f.held = slices.DeleteFunc(f.held, func(o *pull) bool { return o == n })
	}
}
