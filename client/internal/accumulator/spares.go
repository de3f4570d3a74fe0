package accumulator

import (
	"sync"
	"time"
)

// spares are what was used and can be used again, the latest first: its memory is the likeliest to be in a
// processor's cache. How many there are is bounded by how many were in use at once, how large each is by
// worthKeeping when it was put back, and trim lets go of those that nobody has needed for spareFor. (A sync.Pool would forget them at every other garbage collection, and a
// batch of a megabyte grow anew.)
type spares[T any] struct {
	mu      sync.Mutex
	free    []T
	least   int // of free since trim last looked
	trimmed time.Time
}

// spareFor is how long memory stays that is not needed.
const spareFor = 10 * time.Second

// spareRoom is what a spare may have beyond what it was last used for: so many times as much, and
// any up to so many bytes.
const (
	spareRoom      = 4
	spareRoomBytes = 64 << 10
)

// worthKeeping tells whether memory of which only a part was used, both in units of so many bytes, becomes a
// spare. Otherwise one burst of full batches would stay for as long as small ones go round in its memory.
func worthKeeping(capacity, used, unit int) bool {
	return capacity <= max(spareRoom*used, spareRoomBytes/unit)
}

// take gives the zero value where there is none.
func (s *spares[T]) take() (spare T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.free) - 1
	if last < 0 {
		return spare
	}
	spare, s.free[last] = s.free[last], spare
	s.free = s.free[:last]
	s.least = min(s.least, last)
	return spare
}

func (s *spares[T]) put(spare T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, spare)
}

// trim is called from time to time.
func (s *spares[T]) trim(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.trimmed) < spareFor {
		return
	}
	kept := copy(s.free, s.free[s.least:])
	clear(s.free[kept:])
	s.free, s.least, s.trimmed = s.free[:kept], kept, now
}
