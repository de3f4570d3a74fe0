package clustertest

import (
	"testing"
	"time"
)

func TestClockThatJumpsMeasuresTimeAsBefore(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker")
		before := n.clock.now()
		if d := time.Since(before); d != 0 || before.UnixNano() != time.Now().UnixNano() {
			w.Fatalf("a right clock is %v off", d)
		}
		for _, ahead := range []time.Duration{40 * time.Minute, -40 * time.Minute, 17 * time.Nanosecond, 0} {
			n.SetClock(ahead)
			time.Sleep(time.Second)
			after := n.clock.now()
			if got := after.UnixNano() - time.Now().UnixNano(); got != int64(ahead) || n.ClockAhead() != ahead {
				w.Fatalf("set ahead by %v, it is by %v", ahead, time.Duration(got))
			}
			if passed := after.Sub(before); passed != time.Second {
				w.Fatalf("ahead by %v: a second was measured as %v", ahead, passed)
			}
			if later := after.Add(time.Minute); later.Sub(before) != 61*time.Second || later.UnixNano()-after.UnixNano() != int64(time.Minute) {
				w.Fatalf("a minute after %v is %v", after, later)
			}
			before = after
		}
	})
}
