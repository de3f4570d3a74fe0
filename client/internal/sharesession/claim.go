package sharesession

import (
	"slices"
	"time"
)

// Task is what a broker is to be sent.
type Task int8

// The tasks.
const (
	Nothing     Task = iota
	Fetch            // a ShareFetch
	Acknowledge      // a ShareAcknowledge
)

// Work is what a broker is to be sent.
type Work struct {
	Task   Task
	Epoch  int32
	Fetch  []Partition // that the session is to read and does not yet
	Forget []Partition // that it reads and is not to any more
	Acks   []Acknowledgements
	Renews bool      // some of them are renewals
	Again  time.Time // when to look again where there is nothing to do; zero: when something happens
}

// Acknowledgements are those of one partition, in the order of the offsets.
type Acknowledgements struct {
	Partition Partition
	Runs      []Run
}

// plan is what Claim would have done.
type plan struct {
	task    Task
	final   bool
	readers []*cursor // to be fetched from
	acks    []*cursor // with something due
	again   time.Time
}

// Pending tells whether there is something to send to a broker, and when to look again otherwise:
// a connection is to be made before anything is claimed, so that one that cannot be had holds up
// nobody else.
func (s *Store[R]) Pending(now time.Time, node int32) (pending bool, again time.Time) {
	ss := s.sessions[node]
	if ss == nil {
		return false, time.Time{}
	}
	p := s.plan(now, ss)
	return p.task != Nothing, p.again
}

// Claim gives what a broker is to be sent now. Answered or Failed follows.
func (s *Store[R]) Claim(now time.Time, node int32) Work {
	ss := s.sessions[node]
	if ss == nil {
		return Work{}
	}
	p := s.plan(now, ss)
	if p.task == Nothing {
		return Work{Again: p.again}
	}
	w := Work{Task: p.task, Epoch: ss.epoch}
	f := &flight{final: p.final}
	if p.final {
		w.Epoch = finalEpoch
	}
	for _, cur := range p.acks {
		out, runs, renews := s.depart(now, cur)
		if len(runs) == 0 {
			continue
		}
		f.acks = append(f.acks, out)
		w.Acks = append(w.Acks, Acknowledgements{cur.Partition, runs})
		w.Renews = w.Renews || renews
	}
	if p.task == Acknowledge && len(w.Acks) == 0 && !p.final {
		return Work{} // all of it was too late
	}
	if p.task == Fetch {
		s.turn = node
		f.fetched = make(map[Partition]*tenure, len(p.readers))
		wanted := make(map[Partition]bool, len(p.readers))
		for _, cur := range p.readers {
			f.fetched[cur.Partition], wanted[cur.Partition] = cur.tenure, true
			if !ss.known[cur.Partition] {
				w.Fetch = append(w.Fetch, cur.Partition)
			}
		}
		for known := range ss.known {
			if !wanted[known] {
				w.Forget = append(w.Forget, known)
			}
		}
		ss.known = wanted
		slices.SortFunc(w.Fetch, Compare)
		slices.SortFunc(w.Forget, Compare)
	}
	ss.flight = f
	return w
}

// plan decides without changing anything.
func (s *Store[R]) plan(now time.Time, ss *session) plan {
	var p plan
	switch {
	case ss.flight != nil || ss.over:
		return p
	case now.Before(ss.notUntil) && !s.closing:
		p.again = ss.notUntil
		return p
	}
	p.acks = s.acknowledging(ss)
	if s.closing || s.idle(ss, now) {
		if ss.epoch == initialEpoch && !s.closing {
			return plan{}
		}
		p.task, p.final = Acknowledge, true
		return p
	}
	if s.mayFetch() {
		p.readers, p.again = s.fetchable(ss, now)
		if s.cfg.RecordLimit && len(p.readers) > 0 && s.next(now) != ss.node {
			p.readers = nil
		}
	}
	switch {
	case len(p.acks) > 0 && (len(p.readers) == 0 || len(s.watches) > 0 || !s.travels(p)):
		p.task, p.readers = Acknowledge, nil
	case len(p.readers) > 0:
		p.task = Fetch
	}
	return p
}

// acknowledging gives the partitions of which something is to be said to a broker.
func (s *Store[R]) acknowledging(ss *session) []*cursor {
	var list []*cursor
	for _, cur := range s.cursors {
		if cur.node == ss.node && len(cur.due)+len(cur.dueRuns) > 0 {
			list = append(list, cur)
		}
	}
	slices.SortFunc(list, func(a, b *cursor) int { return Compare(a.Partition, b.Partition) })
	return list
}

// idle tells whether a session is for nothing: nothing is read from the broker, and nothing that it
// has acquired can be acknowledged.
func (s *Store[R]) idle(ss *session, now time.Time) bool {
	for _, cur := range s.cursors {
		if cur.node == ss.node && (cur.assigned || now.Before(cur.until)) {
			return false
		}
	}
	return true
}

// mayFetch tells whether records are wanted. What waits for Poll goes first.
func (s *Store[R]) mayFetch() bool {
	if !s.wanting || len(s.ready) > 0 || len(s.failures) > 0 {
		return false
	}
	if s.cfg.RecordLimit {
		for _, ss := range s.sessions {
			if ss.flight != nil && ss.flight.fetched != nil {
				return false
			}
		}
	}
	return true
}

// fetchable gives the partitions to read from a broker now, and when there is another one.
func (s *Store[R]) fetchable(ss *session, now time.Time) (list []*cursor, again time.Time) {
	for _, cur := range s.cursors {
		switch {
		case !cur.assigned || cur.node != ss.node:
		case now.Before(cur.notUntil):
			if again.IsZero() || cur.notUntil.Before(again) {
				again = cur.notUntil
			}
		default:
			list = append(list, cur)
		}
	}
	return list, again
}

// next gives the broker whose turn it is to be asked for records, where only one is at a time.
func (s *Store[R]) next(now time.Time) int32 {
	first, after := int32(-1), int32(-1)
	for _, node := range s.Nodes() {
		ss := s.sessions[node]
		if now.Before(ss.notUntil) {
			continue
		}
		if list, _ := s.fetchable(ss, now); len(list) == 0 {
			continue
		}
		if first < 0 {
			first = node
		}
		if after < 0 && node > s.turn {
			after = node
		}
	}
	if after >= 0 {
		return after
	}
	return first
}

// travels tells whether what is to be said can go with a fetch: a partition that is listed only to
// carry an acknowledgement would join the session, and its records be acquired for nobody (trap 27);
// a fetch with renewals fetches nothing.
func (s *Store[R]) travels(p plan) bool {
	reads := make(map[*cursor]bool, len(p.readers))
	for _, cur := range p.readers {
		reads[cur] = true
	}
	for _, cur := range p.acks {
		if !reads[cur] || slices.ContainsFunc(cur.due, func(a ack) bool { return a.mark == Renew }) {
			return false
		}
	}
	return true
}

// depart takes what is to be said of a partition. What is too late by now is answered here.
func (s *Store[R]) depart(now time.Time, cur *cursor) (out sent, runs []Run, renews bool) {
	out = sent{cur: cur, tenure: cur.tenure, runs: cur.dueRuns}
	var late []ack
	for _, a := range cur.due {
		a.state &^= due
		if s.lostOf(now, a.Held) != nil {
			a.state |= done
			late = append(late, a)
			continue
		}
		a.state |= flying
		a.flying = a.mark
		renews = renews || a.mark == Renew
		out.acks = append(out.acks, a)
	}
	cur.due, cur.dueRuns = nil, nil
	s.answered(cur, late, lost(errLock))
	runs = slices.Clone(out.runs)
	for _, a := range out.acks {
		runs = append(runs, Run{a.offset, a.offset, a.flying})
	}
	return out, merge(runs), renews
}

// merge sorts runs and joins those that touch and say the same: brokers want a partition's in
// ascending order.
func merge(runs []Run) []Run {
	slices.SortFunc(runs, func(a, b Run) int { return int(min(max(a.First-b.First, -1), 1)) })
	out := runs[:0]
	for _, r := range runs {
		if n := len(out); n > 0 && out[n-1].Kind == r.Kind && out[n-1].Last+1 == r.First {
			out[n-1].Last = r.Last
			continue
		}
		out = append(out, r)
	}
	return out
}
