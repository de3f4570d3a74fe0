// Package gather decides when a flush round begins for logs that can wait a little for each other. It flushes nothing
// itself and knows no logs: commitlog's flusher, its only caller, does, and guards it with its mutex.
package gather

import "time"

const (
	// AtMost is how long a log of a coordinator's waits for others to share its flush round.
	AtMost = 5 * time.Millisecond
	// Window is the time over which the logs are counted that are likely to write again soon.
	Window = 10 * time.Millisecond
)

// Rounds lets the logs of coordinators share flush rounds. Groups commit independently of each other, a little at a time
// and spread over the partitions of __consumer_offsets, so that with a hundred of them nearly every commit would have a
// round for itself, and the rounds, not the commits, would take the processor's time. A round begins when half as many logs
// wait as have written of late, or when the first has waited for AtMost: one group that commits after every record
// waits for nobody, and a hundred wait a few milliseconds. Its zero value is ready.
type Rounds struct {
	began   time.Time // of the window
	number  Mark      // of the window, from 1 on
	logs    int       // that wrote in it
	before  int       // that wrote in the one before
	waiting int       // logs for the next round
	timer   *time.Timer
}

// Mark is a log's own: the last window that it wrote in. Its zero value is none.
type Mark uint64

// Add counts a log, known by its mark, for the next round, and says whether that has waited for enough of them. wake is
// called when it has waited long enough; it is the same at every call.
func (g *Rounds) Add(log *Mark, now time.Time, wake func()) (enough bool) {
	if age := now.Sub(g.began); age >= Window || age < 0 {
		g.before = 0
		if age < 2*Window {
			g.before = g.logs
		}
		g.began, g.logs = now, 0
		g.number++
	}
	if *log != g.number {
		*log = g.number
		g.logs++
	}
	g.waiting++
	if 2*g.waiting >= max(g.logs, g.before) {
		return true
	}
	switch {
	case g.timer == nil:
		g.timer = time.AfterFunc(AtMost, wake)
	case g.waiting == 1:
		g.timer.Reset(AtMost)
	}
	return false
}

// Begin is a round's that takes all who wait.
func (g *Rounds) Begin() {
	if g.waiting > 0 && g.timer != nil {
		g.timer.Stop()
	}
	g.waiting = 0
}
