package faketime

import (
	"sync"
	"testing"
	"time"
)

// Timers that run out at the same moment on several goroutines do the race detector no harm.
func TestTimersThatRunOutTogether(t *testing.T) {
	for range 100 {
		Test(t, func(*testing.T) {
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 1000 {
						timer := time.NewTimer(0)
						select {
						case <-timer.C:
						default:
							t.Error("a timer of no time has not run out")
						}
					}
				})
			}
			all.Wait()
		})
	}
}
