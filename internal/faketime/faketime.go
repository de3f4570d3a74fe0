// Package faketime opens the bubbles that tests with fake time live in: testing/synctest, and what has
// to be minded with it. Only tests, and the worlds made for tests, import it; what goes on within a
// bubble is none of its business.
package faketime

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Test runs f in a bubble, as synctest.Test does. Under the race detector the process has one
// processor meanwhile: two goroutines of a bubble that find two timers run out at the same moment
// otherwise share one of the detector's contexts, and it ends the process without a word about any
// test (golang/go#78156, seen with Go 1.26.8). Races are found all the same, since the detector goes
// by what is ordered and not by what coincides. Tests that call it cannot be parallel.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if RaceDetector {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}
