package group

import (
	"container/heap"
	"time"
)

// timer is one deadline: of a group or of a member.
type timer struct {
	due   time.Time
	place int  // in the heap, from 1 on; 0: not there
	armed bool // set, and neither stopped nor run since
	run   func(*Shard)
}

// timers is the heap of all deadlines, earliest first.
type timers []*timer

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}

// Push and Pop are container/heap's.
func (h *timers) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.place = len(*h)
}

// Pop takes the last of the slice.
func (h *timers) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.place = 0
	return t
}

func (s *Shard) set(t *timer, due time.Time) {
	t.due, t.armed = due, true
	if t.place == 0 {
		heap.Push(&s.timers, t)
		return
	}
	heap.Fix(&s.timers, t.place-1)
}

func (s *Shard) stop(t *timer) {
	t.armed = false
	if t.place != 0 {
		heap.Remove(&s.timers, t.place-1)
	}
}

// Deadline says when Tick is wanted next. It may be early: a session that was renewed is looked at
// once more at its old end.
func (s *Shard) Deadline() (time.Time, bool) {
	if len(s.timers) == 0 {
		return time.Time{}, false
	}
	return s.timers[0].due, true
}

// Tick does what is due: sessions and joins that time out, the end of the initial delay, offsets and
// groups that expire.
func (s *Shard) Tick(now time.Time, topics Topics) Effects {
	s.begin(now)
	s.tick()
	return s.take()
}

// tick runs what is due now. What a timer sets for now is left to the next Tick, as Kafka's timers
// go through its queue again: requests that wait get their turn first.
func (s *Shard) tick() {
	for due := s.takeDue(); len(due) > 0; due = due[1:] {
		if t := due[0]; t.armed && t.place == 0 { // neither stopped nor set anew by those before it
			t.armed = false
			t.run(s)
		}
	}
}

func (s *Shard) takeDue() (due []*timer) {
	for len(s.timers) > 0 && !s.timers[0].due.After(s.now) {
		due = append(due, heap.Pop(&s.timers).(*timer))
	}
	return due
}

// keepAlive gives the member a whole session from now.
func (s *Shard) keepAlive(m *member) { s.aliveFor(m, m.session) }

// aliveFor leaves a timer that is set where it is when the session grows, which is what nearly
// always happens: a heartbeat then costs nothing here.
func (s *Shard) aliveFor(m *member, d time.Duration) {
	m.alive = s.now.Add(d)
	if m.timer.run == nil {
		m.timer.run = m.sessionEnds
	}
	if m.timer.place == 0 || m.alive.Before(m.timer.due) {
		s.set(&m.timer, m.alive)
	}
}

func (m *member) sessionEnds(s *Shard) {
	if m.alive.After(s.now) {
		s.set(&m.timer, m.alive)
		return
	}
	s.sessionEnded(m)
}
