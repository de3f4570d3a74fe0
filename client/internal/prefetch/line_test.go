package prefetch

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLineKeepsOrder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var l line[int]
		var want []int
		for i := range 300 {
			switch {
			case rng.IntN(20) == 0:
				odd := func(n int) bool { return n%2 == 1 }
				l.remove(odd)
				want = slices.DeleteFunc(want, odd)
			case rng.IntN(2) == 0 && len(want) > 0:
				if got := l.pop(); got != want[0] {
					t.Fatalf("seed %d: %d, expected %d", seed, got, want[0])
				}
				want = want[1:]
			default:
				l.push(i)
				want = append(want, i)
			}
			if l.len() != len(want) {
				t.Fatalf("seed %d: %d in line, expected %d", seed, l.len(), len(want))
			}
		}
	}
}

// Taking turns makes no garbage.
func TestLineAllocatesNothing(t *testing.T) {
	var l line[int]
	for i := range 6 {
		l.push(i)
	}
	for range 10 {
		l.push(l.pop())
	}
	if n := testing.AllocsPerRun(1000, func() { l.push(l.pop()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
