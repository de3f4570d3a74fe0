package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	setSeeds = flag.Int("sim.seeds", 0, "how many worlds to live, in processes of their own; 0: a few in this one")
	setFrom  = flag.Uint64("sim.from", 0, "the first of their seeds")
)

const (
	// seedsPerProcess is how many worlds one process lives: a process is a third of a second, a world half of one.
	seedsPerProcess = 10
	// patiencePerSeed is real time. A world in which a goroutine never waits hangs for ever.
	patiencePerSeed = 2 * time.Minute
	// heapLimit lets the collector rest in a process that lives one world after the other, as seeds that replay want it to.
	heapLimit = "GOMEMLIMIT=1500MiB"
	// countedSeeds is from how many worlds on every kind of fault, and whatever else is counted, must have happened; and what is
	// seldom, in so many times as many.
	countedSeeds = 200
	seldomTimes  = 5
	// mostUndecided is which part of the topics' changes may be left without a verdict, on a machine that is busy.
	mostUndecided = 0.05
	// mostToldFailures bounds the stories that are told of worlds that fail.
	mostToldFailures = 3
)

// examinedFor begins the name of the counter of what a checker has looked at.
const examinedFor = "examined: "

// set sums up worlds.
type set struct {
	sync.Mutex
	next, end uint64
	results   []result
	failed    map[uint64]string // what the world's process said
}

// runSet lives many worlds: a process per processor, each with one processor of its own and no collector, so that a seed
// replays. A seed that fails is lived again alone, to see whether it does.
func runSet(t *testing.T) {
	s := &set{next: *setFrom, end: *setFrom + uint64(*setSeeds), failed: map[uint64]string{}}
	began := time.Now()
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for {
				from, to, more := s.take()
				if !more {
					return
				}
				s.live(t, from, to)
			}
		})
	}
	workers.Wait()
	for _, seed := range slices.Sorted(maps.Keys(s.failed)) {
		_, out := process(t, seed, seed)
		t.Errorf("seed %d fails; lived again it fails: %v", seed, out != "")
	}
	s.sumUp(t, time.Since(began))
}

// take hands out the next few seeds, both ends included.
func (s *set) take() (from, to uint64, more bool) {
	s.Lock()
	defer s.Unlock()
	from = s.next
	s.next = min(s.end, from+seedsPerProcess)
	return from, s.next - 1, from < s.end
}

// live lives the worlds of some seeds, in one process as long as none fails, and in another from the one after that on.
func (s *set) live(t *testing.T, from, to uint64) {
	for from <= to {
		results, out := process(t, from, to)
		s.Lock()
		s.results = append(s.results, results...)
		from += uint64(len(results))
		switch n := len(results); {
		case n > 0 && results[n-1].Failed:
			s.fail(results[n-1].Seed, out)
		case from > to && out != "":
			s.fail(to, out)
		case from <= to: // it has died, or was given up
			s.fail(from, out)
			from++
		}
		s.Unlock()
	}
}

// fail notes a failure, and tells the first of them at once: a set takes minutes.
func (s *set) fail(seed uint64, out string) {
	if s.failed[seed] = out; len(s.failed) <= mostToldFailures {
		fmt.Printf("seed %d fails:\n%s\n", seed, out)
	}
}

// process lives worlds up to the first that fails.
func process(t *testing.T, from, to uint64) (results []result, out string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(to-from+1)*patiencePerSeed)
	defer cancel()
	p := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSimulatedClusters$", "-test.failfast", "-test.timeout=0", "-test.v", "-sim.results")
	p.Env = append(os.Environ(), fmt.Sprintf("BARNABAS_TEST_SEEDS=%d-%d", from, to), "GOMAXPROCS=1", "GOGC=off", heapLimit)
	said, err := p.CombinedOutput()
	lines := bufio.NewScanner(bytes.NewReader(said))
	lines.Buffer(nil, len(said)+1)
	for lines.Scan() {
		var r result
		if line, is := strings.CutPrefix(lines.Text(), resultMark); is && json.Unmarshal([]byte(line), &r) == nil {
			results = append(results, r)
			if r.Failed {
				break
			}
		}
	}
	if err != nil {
		out = fmt.Sprintf("seeds %d to %d: %v\n%s", from, to, err, lastWorld(string(said)))
	}
	return results, out
}

// lastWorld is what a process said of the world that it ended with.
func lastWorld(said string) string {
	return said[max(0, strings.LastIndex(said, "=== RUN")):]
}

// sumUp prints the counters, and fails where one is zero over a whole set: what has not come has shown nothing, and neither has
// a checker that has looked at nothing.
func (s *set) sumUp(t *testing.T, took time.Duration) {
	counts := map[string]int{}
	for _, k := range append(slices.Clone(allKinds), otherCounts...) {
		counts[k] = 0
	}
	for _, k := range Checkers() {
		counts[examinedFor+k] = 0
	}
	acknowledged, lived, undecided := 0, time.Duration(0), 0
	for _, r := range s.results {
		acknowledged, lived, undecided = acknowledged+r.Acknowledged, lived+r.Lived, undecided+r.Undecided
		for k, n := range r.Counts {
			counts[k] += n
		}
		for k, n := range r.Examined {
			counts[examinedFor+k] += n
		}
	}
	if most := mostUndecided * float64(changingNames*len(s.results)); float64(undecided) > most {
		t.Errorf("of %d topics it was not found out whether their changes have an order", undecided)
	}
	fmt.Printf("%d worlds from seed %d on, %d failed, %d topics undecided; %d records acknowledged in %v of the worlds' time; took %v\n",
		len(s.results), *setFrom, len(s.failed), undecided, acknowledged, lived.Round(time.Second), took.Round(time.Second))
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("%8d  %s\n", counts[k], k)
		enough := countedSeeds
		if slices.Contains(seldom, k) {
			enough *= seldomTimes
		}
		if counts[k] == 0 && *setSeeds >= enough {
			t.Errorf("in %d worlds it has never happened: %s", *setSeeds, k)
		}
	}
}
