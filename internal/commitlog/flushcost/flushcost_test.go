package flushcost

import (
	"testing"
	"time"
)

// TestFlushGoesByWhatItCost: many files go together where that is quick, one by one where it has become slow, and together
// again once that has been forgotten; very few never go together and very many always.
func TestFlushGoesByWhatItCost(t *testing.T) {
	var c Costs
	now := time.Unix(1000, 0)
	expect := func(when string, n int, together bool) {
		t.Helper()
		if c.Together(n, now) != together {
			t.Fatalf("%s, %d files: together is %v", when, n, !together)
		}
	}
	expect("nothing known", InTurnUpTo, false)
	expect("nothing known", InTurnUpTo+1, true)
	c.TookAll(300*time.Microsecond, now)
	expect("one by one unknown", 10, false)
	c.TookEach(10, time.Millisecond, now)
	expect("0.3 ms together, 0.1 ms each", InTurnUpTo, false)
	expect("0.3 ms together, 0.1 ms each", 3, true)
	expect("0.3 ms together, 0.1 ms each", 10, true)
	for range 20 {
		c.TookAll(400*time.Millisecond, now)
	}
	expect("a busy file system", 10, false)
	expect("a busy file system", syncEachAtMost, false)
	expect("a busy file system", syncEachAtMost+1, true)
	for range 60 { // one by one goes on being measured
		now = now.Add(time.Second)
		c.TookEach(10, time.Millisecond, now)
	}
	expect("a minute later", 10, true)
}
