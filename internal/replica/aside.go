package replica

import (
	"errors"
	"slices"
	"time"

	"barnabas/internal/commitlog"
)

// Cutting a log, emptying it, or moving its start takes flushes, waits for compaction to put segments in their places, and
// reads again what is known of producers: a second for a segment of some hundred megabytes. The fetcher does not wait for
// it, for it copies thousands of other partitions: the partition is not asked for until it is done.

// mostAside is how many partitions are dealt with at the same time; the rest wait their turn.
const mostAside = 4

// returned is a partition that was dealt with beside the fetches.
type returned struct {
	pull *pull
	err  error
	then func()
}

// aside does work on a partition's log beside the fetches; then follows in the fetcher's goroutine if there is no error.
func (f *fetcher) aside(n *pull, work func() error, then func()) {
	n.away = true
	f.unqueue(n)
	if n.held {
		n.held = false
		f.held = slices.DeleteFunc(f.held, func(o *pull) bool { return o == n })
	}
	f.links.beside(func() {
		r := returned{n, work(), then}
		f.mu.Lock()
		f.mu.back = append(f.mu.back, r)
		f.mu.nudge = f.mu.nudge || f.mu.waiting
		f.mu.Unlock()
		f.links.signal()
	})
}

// resume goes on with partitions that were dealt with.
func (f *fetcher) resume(back []returned, now time.Time) {
	for _, r := range back {
		n := r.pull
		n.away = false
		if f.over(n) {
			continue
		}
		if r.err != nil {
			if !errors.Is(r.err, commitlog.ErrEpochOver) {
				f.failed(n, now, r.err)
			}
			continue
		}
		n.failures = 0
		if n.full && !n.waits {
			f.pass(n) // it may have nothing to bring now
		}
		r.then()
		if missed := n.missed; missed != nil {
			n.missed = nil
			if !f.over(n) { // it may have got another slot
				f.apply(n, missed, now)
			}
		}
	}
}

// beside runs a job, when its turn comes. Jobs that have not begun when the links close are not done.
func (l *links) beside(job func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.jobs = append(l.mu.jobs, job)
	if l.mu.workers < mostAside {
		l.mu.workers++
		l.running.Go(l.work)
	}
}

// work does jobs until there are none.
func (l *links) work() {
	for {
		l.mu.Lock()
		if len(l.mu.jobs) == 0 || l.ctx.Err() != nil {
			l.mu.workers--
			l.mu.Unlock()
			return
		}
		job := l.mu.jobs[0]
		l.mu.jobs[0] = nil
		l.mu.jobs = l.mu.jobs[1:]
		l.mu.Unlock()
		job()
	}
}
