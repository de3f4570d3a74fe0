package clustertest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// clock is a node's wall clock, which may be wrong; the monotonic one beside it never is. In a bubble time.Now has no
// monotonic reading, so that who subtracts two times would see the wall clock's jumps although no program outside does:
// a node gets times with both.
type clock struct{ ahead atomic.Int64 } // nanoseconds

// SetClock lets the node's wall clock be ahead of the world's, or behind, from now on and over all its lives.
func (n *Node) SetClock(ahead time.Duration) { n.clock.ahead.Store(int64(ahead)) }

// ClockAhead is by how much the node's wall clock is wrong.
func (n *Node) ClockAhead() time.Duration { return time.Duration(n.clock.ahead.Load()) }

// now reads both clocks.
func (c *clock) now() time.Time {
	now := time.Now()
	return withMonotonic(now.Add(time.Duration(c.ahead.Load())), time.Duration(now.UnixNano()))
}

// timeLayout is a time.Time with a monotonic reading: a flag, 33 bits of seconds since 1885 and 30 bits of nanoseconds
// of the wall clock; the nanoseconds of the monotonic one. It has been that since Go 1.9, and a test says when it is not.
type timeLayout struct {
	wall      uint64
	monotonic int64
	location  *time.Location
}

const (
	hasMonotonic    = 1 << 63
	nanosecondsBits = 30
	since1885       = 2_682_288_000 // seconds from then to 1970
)

func withMonotonic(wall time.Time, monotonic time.Duration) time.Time {
	t := timeLayout{
		wall:      hasMonotonic | uint64(wall.Unix()+since1885)<<nanosecondsBits | uint64(wall.Nanosecond()),
		monotonic: int64(monotonic), location: time.Local,
	}
	return *(*time.Time)(unsafe.Pointer(&t))
}
