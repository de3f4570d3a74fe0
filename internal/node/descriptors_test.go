package node

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestDescriptorsAreShared: whatever the limit, connections and files together stay below it, nobody goes
// without, nobody gets more than was asked for, and a higher limit never means less.
func TestDescriptorsAreShared(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		limit, dirs, most := 256+r.IntN(1<<uint(2+r.IntN(20))), 1+r.IntN(12), 64+r.IntN(8192)
		d := shareDescriptors(limit, dirs, most)
		if d.filesPerDir < 1 || d.connections < 1 || d.filesPerDir > most {
			t.Fatalf("seed %d: limit %d, %d directories, %d files each: %+v", seed, limit, dirs, most, d)
		}
		if used := d.filesPerDir*dirs + d.connections + fixedDescriptors; used > limit {
			t.Fatalf("seed %d: limit %d, %d directories, %d files each: %+v takes %d", seed, limit, dirs, most, d, used)
		}
		if more := shareDescriptors(limit+1+r.IntN(1000), dirs, most); more.filesPerDir < d.filesPerDir || more.connections < d.connections-dirs {
			t.Fatalf("seed %d: limit %d gives %+v, a higher one %+v", seed, limit, d, more)
		}
	}
	if d := shareDescriptors(0, 1, 4096); d.filesPerDir != 4096 || d.connections != math.MaxInt32 {
		t.Errorf("without a known limit: %+v", d)
	}
}
