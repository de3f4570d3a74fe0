package sim

import "testing"

// verdictMark stands before what a checker has found, in the output of a test that fails; sim-bugs looks for it.
const verdictMark = "VERDICT "

// judge says what the checkers find in a world, also in one that has been given up: clients saw something until then.
func judge(t *testing.T, seed uint64, r *Run) Verdict {
	t.Helper()
	if r == nil {
		return Verdict{}
	}
	v := Check(r.history)
	for _, x := range append(r.Complaints(), v.Violations...) {
		t.Errorf("seed %d: %s%v", seed, verdictMark, x)
	}
	if v.Undecided > 0 {
		t.Logf("seed %d: undecided topics: %d", seed, v.Undecided)
	}
	if !t.Failed() {
		t.Logf("seed %d: examined %v", seed, v.Examined)
	}
	return v
}
