package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"barnabas/internal/clustertest"
)

// usualSeeds is how many worlds go test looks at; .ci/run looks at 200 and make sim at 2,000.
const usualSeeds = 6

var resultLines = flag.Bool("sim.results", false, "print what each world came to on a line of its own")

// result is what one world came to.
type result struct {
	Seed         uint64
	Hash         uint64
	Lived        time.Duration
	Acknowledged int
	Counts       map[string]int
	Examined     map[string]int // by checker
	Undecided    int            // topics
	Failed       bool
}

// resultMark begins the line of a result.
const resultMark = "RESULT "

// runSeed lives one world, has it judged, and returns what happened in it. A test that fails tells the world's story.
func runSeed(t *testing.T, seed uint64) (r *Run, hash uint64, lived time.Duration) {
	t.Helper()
	runtime.GC()
	defer func() {
		verdict := judge(t, seed, r)
		if r == nil {
			return
		}
		if why := r.tooLittle(lived); why != "" && !t.Failed() {
			t.Errorf("seed %d: %s", seed, why)
		}
		if t.Failed() {
			t.Logf("seed %d: %v\n%s", seed, r.plan, r.story())
		}
		if *resultLines {
			tell(t, result{seed, hash, lived, r.history.Acknowledged(), r.Counts(), verdict.Examined, verdict.Undecided, t.Failed()})
		}
	}()
	hash = clustertest.Run(t, seed, func(w *clustertest.World) {
		r = newRun(w)
		r.live()
		lived = time.Since(r.began)
	})
	return r, hash, lived
}

func tell(t *testing.T, r result) {
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatalf("%v", err)
	}
	fmt.Printf("\n%s%s\n", resultMark, line)
}

// TestSimulatedClusters lives worlds one after the other, or, asked for a whole set of them, in processes of their own.
func TestSimulatedClusters(t *testing.T) {
	if *setSeeds > 0 {
		runSet(t)
		return
	}
	for seed := range clustertest.Seeds(usualSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r, hash, lived := runSeed(t, seed)
			t.Logf("%x, %v, %d acknowledged, %v", hash, lived, r.history.Acknowledged(), r.Counts())
		})
	}
}
