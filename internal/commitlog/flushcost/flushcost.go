// Package flushcost decides whether several files are flushed one by one or with the file system that they lie on, by what
// either has cost of late. It flushes nothing itself: commitlog, its only caller, does, and tells how long it took.
package flushcost

import (
	"sync"
	"time"
)

const (
	// InTurnUpTo is how many files and directories are flushed one after the other, whatever that has cost, so that each log
	// gets its own answer at once.
	InTurnUpTo = 2
	// syncEachAtMost is how many files and directories are ever flushed one by one where the file system can be flushed as
	// a whole, whatever that has cost of late.
	syncEachAtMost = 64
	// costFadesIn is the time in which half of what is known of a way's cost is forgotten: a way that was dear is tried
	// again some time.
	costFadesIn = 2 * time.Second
	// costWeight: a new measurement counts for one part in so many.
	costWeight = 8
)

// Costs chooses between flushing several files side by side and flushing the file system that they lie on. Which is
// quicker depends on what else is dirty there: alone, the whole takes 0.25 to 0.45 ms for 5 to 50 files, which cost 0.1 ms
// each one by one; beside a program that has written gigabytes, hundreds of milliseconds. So it goes by what either has
// taken of late. Unknown costs nothing, so that either is tried.
type Costs struct {
	mu        sync.Mutex // short
	each, all cost       // one file of several; the file system
}

type cost struct {
	took time.Duration // a moving average
	at   time.Time     // of the last measurement
}

// Together says whether n files are better flushed with their whole file system.
func (c *Costs) Together(n int, now time.Time) bool {
	if n <= InTurnUpTo || n > syncEachAtMost {
		return n > syncEachAtMost
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.faded(now) <= time.Duration(n)*c.each.faded(now)
}

// TookEach notes how long n files took, flushed side by side.
func (c *Costs) TookEach(n int, took time.Duration, now time.Time) {
	c.mu.Lock()
	c.each.note(took/time.Duration(max(n, 1)), now)
	c.mu.Unlock()
}

// TookAll notes how long the file system took.
func (c *Costs) TookAll(took time.Duration, now time.Time) {
	c.mu.Lock()
	c.all.note(took, now)
	c.mu.Unlock()
}

func (c *cost) note(took time.Duration, now time.Time) {
	was := c.faded(now)
	if c.at.IsZero() || was == 0 {
		was = took
	}
	c.took, c.at = was+(took-was)/costWeight, now
}

// faded is the average, halved for every costFadesIn that has passed without a measurement.
func (c *cost) faded(now time.Time) time.Duration {
	return c.took >> min(max(now.Sub(c.at), 0)/costFadesIn, 62)
}
