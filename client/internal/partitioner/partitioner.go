// Package partitioner decides which partition of a topic a record goes to: by the hash of its key,
// or, without one, in turn, sticking to a partition for a batch, or evenly by bytes. It is for
// package client, which says what partitions there are and how loaded they are. It knows no
// cluster and draws no random numbers of its own.
package partitioner

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// ForKey is the partition that Kafka's clients choose for a key: its murmur2 hash without the sign
// bit, modulo the number of partitions.
func ForKey(key []byte, partitions int32) int32 {
	return int32(Murmur2(key)&0x7fffffff) % partitions
}

// Murmur2 is the 32-bit MurmurHash2 with the seed that Kafka's Java client has.
func Murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := seed ^ uint32(len(data))
	for len(data) >= 4 {
		k := binary.LittleEndian.Uint32(data)
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

// Counter deals records out in turn: it starts somewhere and goes up by one. It is safe for
// concurrent use.
type Counter struct{ n atomic.Uint32 }

// StartAt sets where the counter starts, which is to be random: of many producers that start
// together each begins with another partition.
func (c *Counter) StartAt(n uint32) { c.n.Store(n) }

// Next gives the partition whose turn it is.
func (c *Counter) Next(partitions int32) int32 {
	return int32(c.n.Add(1) & 0x7fffffff % uint32(partitions))
}

// Load is a partition that may be chosen and how many of its batches wait or are on their way.
type Load struct {
	Partition int32
	Backlog   int
}

// View is what a new choice is made from. It is looked at only when one is due, not for each record.
type View interface {
	Loads() []Load // of those that can be written to now; none: all count
	Random() uint32
}

// among gives the partitions to choose from.
func among(partitions int32, v View) []Load {
	if loads := v.Loads(); len(loads) > 0 {
		return loads
	}
	all := make([]Load, partitions)
	for n := range all {
		all[n].Partition = int32(n)
	}
	return all
}

// Sticky stays with one partition until a batch there is full or gone, and then goes to another
// one at random (KIP-480): batches fill up sooner. Its zero value is ready; it is safe for
// concurrent use.
type Sticky struct {
	mu     sync.Mutex
	chosen bool
	last   int32
}

// Current gives the partition to stay with.
func (s *Sticky) Current(partitions int32, v View) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.chosen || s.last >= partitions {
		s.moveLocked(partitions, v)
	}
	return s.last
}

// Move gives up a partition for another one, where there is one. Of several who find the same
// partition full one moves, and the others follow.
func (s *Sticky) Move(from, partitions int32, v View) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.chosen || s.last == from || s.last >= partitions {
		s.moveLocked(partitions, v)
	}
	return s.last
}

func (s *Sticky) moveLocked(partitions int32, v View) {
	loads := among(partitions, v)
	at := int(v.Random() % uint32(len(loads)))
	if s.chosen && loads[at].Partition == s.last {
		at = (at + 1) % len(loads)
	}
	s.chosen, s.last = true, loads[at].Partition
}

// Uniform gives every partition the same number of bytes in the long run: it stays with one until
// a batch's worth has gone there (KIP-794). Adaptive, it goes the more rarely to a partition the
// more of its batches wait, so that a slow broker gets less. It is safe for concurrent use.
type Uniform struct {
	BatchBytes int // batch.size
	Adaptive   bool

	mu       sync.Mutex
	chosen   bool
	last     int32
	produced int
}

// Current gives the partition to stay with.
func (u *Uniform) Current(partitions int32, v View) int32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.chosen || u.last >= partitions {
		u.moveLocked(partitions, v)
	}
	return u.last
}

// Appended counts what went to a partition, and moves on once that is enough. Within a batch it
// stays a little longer, up to twice as much, so that no half-full batch is left behind.
func (u *Uniform) Appended(partition int32, bytes int, full bool, partitions int32, v View) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.chosen || u.last != partition {
		return // somebody has moved on already
	}
	u.produced += bytes
	if u.produced >= u.BatchBytes && full || u.produced >= 2*u.BatchBytes {
		u.moveLocked(partitions, v)
	}
}

func (u *Uniform) moveLocked(partitions int32, v View) {
	loads := among(partitions, v)
	u.chosen, u.produced = true, 0
	if !u.Adaptive {
		u.last = loads[v.Random()%uint32(len(loads))].Partition
		return
	}
	u.last = loads[weighted(loads, v.Random())].Partition
}

// weighted draws an index, each with a weight of one more than the longest backlog less its own.
func weighted(loads []Load, random uint32) int {
	most := 0
	for _, l := range loads {
		most = max(most, l.Backlog)
	}
	total := uint64(0)
	for _, l := range loads {
		total += uint64(most + 1 - l.Backlog)
	}
	left := uint64(random) * total >> 32
	for i, l := range loads {
		w := uint64(most + 1 - l.Backlog)
		if left < w {
			return i
		}
		left -= w
	}
	return len(loads) - 1
}
