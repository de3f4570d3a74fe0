package clustertest

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"

	"barnabas/internal/faketime"
	"barnabas/internal/netx"
)

// seedsVariable says which seeds property tests try in place of each test's own number: N for the
// first N, or FROM-TO with both ends.
const seedsVariable = "BARNABAS_TEST_SEEDS"

// raceShare is which part of the seeds is tried under the race detector, which is ten times slower
// and looks for something else.
const raceShare = 10

// Seeds yields the seeds that a test tries: the first usual ones, a tenth of them under the race
// detector, unless the environment's BARNABAS_TEST_SEEDS says otherwise (N or FROM-TO). The variable
// is read here alone.
func Seeds(usual uint64) iter.Seq[uint64] {
	first, end := uint64(0), usual
	if UnderRace {
		end = (usual + raceShare - 1) / raceShare
	}
	from, to, isRange := strings.Cut(os.Getenv(seedsVariable), "-")
	if n, err := strconv.ParseUint(from, 10, 32); err == nil {
		end = n
		if m, err := strconv.ParseUint(to, 10, 32); err == nil && isRange {
			first, end = n, m+1
		}
	}
	return func(yield func(uint64) bool) {
		for seed := first; seed < end && yield(seed); seed++ {
		}
	}
}

// World is one bubble with nodes in it. Its methods belong to the test's goroutine, but for Trace.
type World struct {
	T    *testing.T
	Seed uint64
	Net  *netx.Mem

	began time.Time
	nodes []*Node
	trace struct { // short
		sync.Mutex
		sum  uint64
		last []string
	}
}

// traceKept is how many of the newest events a failing world prints.
const traceKept = 40

// Run makes a world in a bubble of its own and returns its trace hash. Nodes that still run when
// f returns are killed. Tests that call it cannot be parallel.
func Run(t *testing.T, seed uint64, f func(*World)) (hash uint64) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed) // raft draws its election timeouts there
	faketime.Test(t, func(t *testing.T) {
		w := &World{T: t, Seed: seed, Net: netx.NewMem(seed), began: time.Now()}
		defer func() {
			if t.Failed() {
				t.Logf("seed %d, last events:\n%s", seed, w.Story())
			}
		}()
		defer func() {
			for _, n := range w.nodes {
				n.Kill()
			}
		}()
		f(w)
		hash = w.Hash()
	})
	return hash
}

// Context ends with the world. A context from outside of the bubble must not be waited for in it.
func (w *World) Context() context.Context { return w.T.Context() }

// Fatalf fails the test and names the seed. Only for the test's goroutine.
func (w *World) Fatalf(format string, args ...any) {
	w.T.Helper()
	w.T.Fatalf("seed %d, after %v: %s", w.Seed, time.Since(w.began), fmt.Sprintf(format, args...))
}

// Errorf is Fatalf for any goroutine; the test goes on.
func (w *World) Errorf(format string, args ...any) {
	w.T.Helper()
	w.T.Errorf("seed %d, after %v: %s", w.Seed, time.Since(w.began), fmt.Sprintf(format, args...))
}

// Trace adds an event, with its time, to the hash of what happened in this world.
func (w *World) Trace(who, format string, args ...any) {
	line := fmt.Sprintf("%d %s %s", time.Since(w.began), who, fmt.Sprintf(format, args...))
	h := fnv.New64a()
	_, _ = io.WriteString(h, line) // never fails
	w.trace.Lock()
	defer w.trace.Unlock()
	// Events at one instant come in no order; the sum has none either.
	w.trace.sum += h.Sum64()
	w.trace.last = append(w.trace.last, line)
	if len(w.trace.last) > 2*traceKept {
		w.trace.last = append([]string(nil), w.trace.last[traceKept:]...)
	}
}

// Hash is the sum of all events so far.
func (w *World) Hash() uint64 {
	w.trace.Lock()
	defer w.trace.Unlock()
	return w.trace.sum
}

// Story is the newest events, a line each.
func (w *World) Story() string {
	w.trace.Lock()
	defer w.trace.Unlock()
	text := ""
	for _, line := range w.trace.last {
		text += line + "\n"
	}
	return text
}

// Dice are an actor's own: the same for the same seed and name, whatever others do.
func (w *World) Dice(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // never fails
	return rand.New(rand.NewPCG(w.Seed, h.Sum64()))
}

// randomBytes is an endless source for a node, safe for concurrent use.
type randomBytes struct {
	mu   sync.Mutex
	dice *rand.ChaCha8
}

func newRandomBytes(r *rand.Rand) *randomBytes {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	return &randomBytes{dice: rand.NewChaCha8(seed)}
}

func (r *randomBytes) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dice.Read(p)
}

// Jitter sleeps for d and up to a fifth more, so that no two actors move at one instant.
func Jitter(r *rand.Rand, d time.Duration) {
	time.Sleep(d + time.Duration(r.Int64N(int64(d)/5+1000)))
}
