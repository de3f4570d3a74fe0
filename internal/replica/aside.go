package replica

import (
	"errors"
	"time"

	"barnabas/internal/commitlog"
)

// Cutting a log, emptying it, or moving its start takes flushes, waits for compaction to put segments in their places, and
// reads again what is known of producers: a second for a segment of some hundred megabytes. The fetcher does not wait for
// it, for it copies thousands of other partitions: the partition is not asked for until it is done.

// mostAside is how many partitions of one data directory are dealt with at the same time; the rest wait their turn. A disk that
// does not answer holds up what lies on it, and nothing else.
const mostAside = 4

// lane is what is to be done beside the fetches on the logs of one data directory.
type lane struct {
	jobs    []func() // at most one for each partition that is followed
	workers int
}

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
	f.unhold(n)
	f.links.beside(n.p.log.Dir(), func() {
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

// beside runs a job on a log of a directory, when its turn comes. Jobs that have not begun when the links close are not done.
func (l *links) beside(dir *commitlog.Dir, job func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	on := l.mu.lanes[dir]
	if on == nil {
		on = &lane{}
		l.mu.lanes[dir] = on
	}
	on.jobs = append(on.jobs, job)
	if on.workers < mostAside {
		on.workers++
		l.running.Go(func() { l.work(on) })
	}
}

// work does the jobs of a lane until there are none.
func (l *links) work(on *lane) {
	for {
		l.mu.Lock()
		if len(on.jobs) == 0 || l.ctx.Err() != nil {
			on.workers--
			l.mu.Unlock()
			return
		}
		job := on.jobs[0]
		on.jobs[0] = nil
		on.jobs = on.jobs[1:]
		l.mu.Unlock()
		job()
	}
}
