package sim

import (
	"fmt"
	"runtime"
	"testing"
	"testing/cryptotest"
	"time"

	"barnabas/internal/clustertest"
)

// usualSeeds is how many worlds go test looks at; make sim looks at thousands.
const usualSeeds = 4

// runSeed lives one world, and returns what happened in it.
func runSeed(t *testing.T, seed uint64) (r *Run, hash uint64, lived time.Duration) {
	t.Helper()
	runtime.GC()
	cryptotest.SetGlobalRandom(t, seed) // raft draws its election timeouts there
	defer func() { judge(t, seed, r) }()
	hash = clustertest.Run(t, seed, func(w *clustertest.World) {
		r = newRun(w)
		defer func() {
			if t.Failed() {
				t.Logf("seed %d: %v\n%s", seed, r.plan, r.story())
			}
		}()
		r.live()
		lived = time.Since(r.began)
	})
	return r, hash, lived
}

func TestSimulatedClusters(t *testing.T) {
	for seed := range clustertest.Seeds(usualSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r, hash, lived := runSeed(t, seed)
			verdict := Check(r.history)
			for _, v := range append(r.Complaints(), verdict.Violations...) {
				t.Errorf("seed %d: %v", seed, v)
			}
			if t.Failed() {
				t.Logf("seed %d: %v\n%s", seed, r.plan, r.story())
			}
			t.Logf("%v, undecided %d", verdict.Examined, verdict.Undecided)
			t.Logf("%x, %v, %d acknowledged, %v", hash, lived, r.history.Acknowledged(), r.Counts())
		})
	}
}
