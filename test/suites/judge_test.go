//go:build compat

package suites

import (
	"slices"
	"testing"
)

// TestJudgeCountsEachTestOnce: the scripts name a test more than once, and a failure counts unless
// a later line takes it back.
func TestJudgeCountsEachTestOnce(t *testing.T) {
	l := lists{
		leftOut: []leaveOut{
			{"s/TestTxn", "transactions"}, {"s/TestGroup/848*", "KIP-848"}, {"s/Class#moves", "reassignment"}, {"s/TestReady", "quotas"},
		},
		skipThemselves: []leaveOut{{"s/TestOldBroker", "a test of an old broker"}},
	}
	lines := []string{
		"the script talks",
		"PASS TestPlain # 0.01s",
		"FAIL TestTwice # first", "PASS TestTwice # second",
		"FAIL TestOther # excluded below", "SKIP TestOther # excluded (fails on Apache Kafka too); was FAIL",
		"FAIL TestTxn # it hung", "PASS TestTxn/setup # fine by itself",
		"FAIL TestGroup/848/static", "PASS TestGroup/848 # this one does",
		"PASS Class#moves[1] # 12ms", "FAIL Class#moves[2] # 13ms no",
		"PASS TestReady # 1.00s",
		"SKIP TestOldBroker # 0.00s",
		"SKIP TestSilently # 0.00s",
		"SKIP TestLate # time is up",
		"SKIP TestInside # 3ms org.opentest4j.TestAbortedException: needs broker internals: broker.metrics",
		"FAIL Class#brackets[1]",
	}
	var verdicts []verdict
	for _, line := range lines {
		if v, ok := readVerdict(line); ok {
			verdicts = append(verdicts, v)
		}
	}
	r := judge("s", verdicts, l)
	var failed, pass []string
	for _, v := range r.failed {
		failed = append(failed, v.test)
	}
	for _, v := range r.pass {
		pass = append(pass, v.test)
	}
	// What stands below a line of the list with something that fails is not yet to be taken out.
	if want := []string{"TestTwice", "TestSilently", "TestLate", "Class#brackets[1]"}; !slices.Equal(failed, want) {
		t.Errorf("failed: %q, want %q", failed, want)
	}
	if want := []string{"TestReady"}; !slices.Equal(pass, want) {
		t.Errorf("to be taken out of the list: %q, want %q", pass, want)
	}
	if r.passed != 4 || r.excluded != 3 || r.leftOut != 3 {
		t.Errorf("%d passed, %d excluded, %d left out; want 4, 3, 3", r.passed, r.excluded, r.leftOut)
	}
}

// TestLeftOutNamesWhatItNames: brackets are only brackets, a star crosses slashes, and a method
// takes its invocations along, a test its subtests, but no test of a similar name.
func TestLeftOutNamesWhatItNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"s/Class#m", "s/Class#m[2]", true},
		{"s/Class#m[1]", "s/Class#m[2]", false},
		{"s/Class#m[1]", "s/Class#m[1]", true},
		{"s/Class#m", "s/Class#more", false},
		{"s/*#m*", "s/Class#more[1]", true},
		{"s/Test", "s/Test/sub/subsub", true},
		{"s/Test", "s/Tests", false},
		{"s/Test/sub", "s/Test", false},
		{"s/Test", "other/Test", false},
	} {
		if _, got := find([]leaveOut{{c.pattern, "quotas"}}, c.name); got != c.want {
			t.Errorf("%s names %s: %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

// TestListsAreRead: each line has one of the reasons that there are.
func TestListsAreRead(t *testing.T) {
	l, err := readLists()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]leaveOut{l.leftOut, l.skipThemselves} {
		seen := map[string]bool{}
		for _, line := range list {
			if seen[line.pattern] {
				t.Errorf("%s stands there twice", line.pattern)
			}
			seen[line.pattern] = true
		}
	}
}
