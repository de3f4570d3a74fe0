package sim

import (
	"runtime"
	"runtime/debug"
	"testing"

	"barnabas/internal/clustertest"
)

// TestSameSeedIsTheSameWorld: on one processor and without a collector a seed replays, down to the nanosecond. Where the machine is
// busy that holds for some runs only: a goroutine that has been on its processor for ten milliseconds of real time has to go
// behind the others, whether it ran or the machine did. How many that befalls is the machine's business; chance in the code has
// all of them differ.
func TestSameSeedIsTheSameWorld(t *testing.T) {
	most := 40
	if clustertest.UnderRace { // whose scheduler is random
		most = 1
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const seed = 3
	hashes := map[uint64]int{}
	alike := 0
	for runs := 0; runs < most && alike < 2; runs++ {
		_, hash, _ := runSeed(t, seed)
		hashes[hash]++
		alike = max(alike, hashes[hash])
	}
	if alike < 2 && !clustertest.UnderRace {
		t.Errorf("seed %d: of %d runs no two are alike: %x", seed, most, hashes)
	}
}
