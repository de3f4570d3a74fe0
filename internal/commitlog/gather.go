package commitlog

import "time"

const (
	// gatherAtMost is how long a log of a coordinator's waits for others to share its flush round.
	gatherAtMost = 5 * time.Millisecond
	// gatherWindow is the time over which the logs are counted that are likely to write again soon.
	gatherWindow = 10 * time.Millisecond
)

// gathering lets the logs of coordinators share flush rounds. Groups commit independently of each other, a little at a time
// and spread over the partitions of __consumer_offsets, so that with a hundred of them nearly every commit would have a
// round for itself, and the rounds, not the commits, would take the processor's time. A round begins when half as many logs
// wait as have written of late, or when the first has waited for gatherAtMost: one group that commits after every record
// waits for nobody, and a hundred wait a few milliseconds. The flusher's mutex guards it.
type gathering struct {
	began   time.Time // of the window
	number  uint64    // of the window, from 1 on
	logs    int       // that wrote in it
	before  int       // that wrote in the one before
	waiting int       // logs for the next round
	timer   *time.Timer
}

// add counts a log for the next round, and says whether that has waited for enough of them. wake is called when it has
// waited long enough.
func (g *gathering) add(l *Log, now time.Time, wake func()) (enough bool) {
	if age := now.Sub(g.began); age >= gatherWindow || age < 0 {
		g.before = 0
		if age < 2*gatherWindow {
			g.before = g.logs
		}
		g.began, g.logs = now, 0
		g.number++
	}
	if l.gathered != g.number {
		l.gathered = g.number
		g.logs++
	}
	g.waiting++
	if 2*g.waiting >= max(g.logs, g.before) {
		return true
	}
	switch {
	case g.timer == nil:
		g.timer = time.AfterFunc(gatherAtMost, wake)
	case g.waiting == 1:
		g.timer.Reset(gatherAtMost)
	}
	return false
}

// begin is a round's that takes all who wait.
func (g *gathering) begin() {
	if g.waiting > 0 && g.timer != nil {
		g.timer.Stop()
	}
	g.waiting = 0
}
