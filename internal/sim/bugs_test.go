//go:build simbugs

package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"barnabas/internal/planted"
)

// What finding the planted bugs may take.
const (
	bugSeeds     = 200              // each bug is found within
	seedPatience = 2 * time.Minute  // of real time, for one world; one that takes longer is no finding
	buildTakes   = 10 * time.Minute // at most
)

// Variables of the environment that say how to look.
const (
	fromHints = "BARNABAS_SIMBUGS_FROM_HINTS" // 1: begin with the seeds that found the bugs last
	onlyBug   = "BARNABAS_SIMBUGS_ONLY"       // a part of a name: no other bugs
)

// hints are seeds that have found the bugs, by tag: where to begin when there is little time. Any change of the program or
// of the worlds may make another seed the first; the search then goes on through all.
var hints = map[string]int{
	"plant_count_unflushed": 14, "plant_vote_twice": 6, "plant_lose_directory_entry": 3, "plant_wiped_voter_votes": 13, "plant_ignore_elr": 2,
	"plant_fetch_any_epoch": 4,
}

// TestPlantedBugsAreFound builds this package's simulation once with each bug, and looks for a seed whose world a checker
// condemns. A world that hangs, panics or does not heal is no finding, unless a checker has something to say of it.
// Run by make sim-bugs.
func TestPlantedBugsAreFound(t *testing.T) {
	only := regexp.MustCompile(regexp.QuoteMeta(os.Getenv(onlyBug)))
	for _, b := range planted.All() {
		if !only.MatchString(b.Name) {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			began := time.Now()
			program := build(t, b.Tag)
			first := 0
			if os.Getenv(fromHints) == "1" {
				first = hints[b.Tag]
			}
			tried, f := search(t, program, first)
			if f == nil {
				t.Fatalf("%s: not found in %d seeds", b.Name, tried)
			}
			fmt.Printf("%-30s seed %3d  (%3d tried, %v): %s\n", b.Name, f.seed, tried, time.Since(began).Round(time.Second), f.verdict)
		})
	}
}

func build(t *testing.T, tag string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "sim.test")
	ctx, cancel := context.WithTimeout(t.Context(), buildTakes)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-tags", tag, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with %s: %v\n%s", tag, err, out)
	}
	return program
}

// finding is a seed and what a checker said.
type finding struct {
	seed    int
	verdict string
}

// search tries the seeds, as many at a time as there are processors, and returns the first finding in their order.
func search(t *testing.T, program string, first int) (tried int, found *finding) {
	t.Helper()
	for begin := 0; begin < bugSeeds && found == nil; {
		group := make([]string, min(runtime.NumCPU(), bugSeeds-begin))
		var running sync.WaitGroup
		for i := range group {
			running.Go(func() { group[i] = live(t, program, (first+begin+i)%bugSeeds) })
		}
		running.Wait()
		for i, verdict := range group {
			tried++
			if verdict != "" {
				return tried, &finding{(first + begin + i) % bugSeeds, verdict}
			}
		}
		begin += len(group)
	}
	return tried, nil
}

var verdictLine = regexp.MustCompile(`(?m)` + verdictMark + `(.*)$`)

// live runs one world in a process of its own, and returns what a checker said of it first.
func live(t *testing.T, program string, seed int) (verdict string) {
	ctx, cancel := context.WithTimeout(t.Context(), seedPatience)
	defer cancel()
	world := exec.CommandContext(ctx, program, "-test.run", "^TestSimulatedClusters$")
	world.Env = append(os.Environ(), "BARNABAS_TEST_SEEDS="+strconv.Itoa(seed)+"-"+strconv.Itoa(seed), "GOMAXPROCS=1", "GOGC=off")
	out, err := world.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Errorf("seed %d: %v", seed, err)
	}
	if m := verdictLine.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}
