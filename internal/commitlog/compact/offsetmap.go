package compact

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// An entry of a Map is 16 bytes: 64 bits of the key's hash, 24 more of them, and 40 bits of the offset.
const (
	entryWords  = 2
	EntryBytes  = entryWords * 8
	offsetBits  = 40
	offsetMask  = 1<<offsetBits - 1
	maxDistance = offsetMask - 1 // of an offset from the map's first; 0 is an empty entry
)

// Map knows the last offset of every key of a stretch of a log. A key is known by 88 bits of SipHash-2-4 under a secret that is
// drawn for each map. Two keys that had the same 88 bits would cost one of them its record: with n keys the
// chance is n²/2⁸⁹, which for the seven million of a default buffer is one in ten million million, whatever
// the keys are, hostile ones included (Kafka keeps all 128 bits of MD5, for which colliding keys can be made).
//
// Collisions of place are resolved by looking at the next entry. Its memory is not the Go heap's, where the system
// offers other, so that a large map does not let the heap grow with it.
type Map struct {
	entries []uint64
	slots   uint64
	most    int // keys
	count   int
	first   int64 // offset that others are counted from
	secret  sipKey
	free    func()
}

// NewMap makes an empty map of at most so many bytes, which takes keys until its entries are used up to the load factor, at
// least one. Free it.
func NewMap(bytes int64, load float64) (*Map, error) {
	slots := max(bytes/EntryBytes, 2)
	m := &Map{slots: uint64(slots), most: max(1, min(int(float64(slots)*load), int(slots)-1))}
	var err error
	if m.entries, m.free, err = allocate(int(slots) * entryWords); err != nil {
		return nil, fmt.Errorf("take %d bytes for the keys of compaction: %w", slots*EntryBytes, err)
	}
	var seed [16]byte
	if _, err := rand.Read(seed[:]); err != nil {
		m.free()
		return nil, fmt.Errorf("draw a secret: %w", err)
	}
	m.secret = sipKey{binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])}
	return m, nil
}

// Free gives the memory back.
func (m *Map) Free() { m.free() }

// Reset empties the map; no offset below first will be put into it.
func (m *Map) Reset(first int64) {
	m.first = first
	if m.count > 0 {
		clear(m.entries)
	}
	m.count = 0
}

// Len is the number of keys.
func (m *Map) Len() int { return m.count }

// Used is the part of the room for keys that is taken, from 0 to 1.
func (m *Map) Used() float64 { return float64(m.count) / float64(m.most) }

// find returns the place of the key's entry, or of the empty one where it belongs, and what of the hash stands beside the offset.
func (m *Map) find(key []byte) (place, high, low uint64) {
	high, low = m.secret.sum(key)
	low &^= offsetMask
	// The hash's place among all hashes is its place among the slots.
	at, _ := bits.Mul64(high, m.slots)
	for {
		place = at * entryWords
		e := m.entries[place : place+entryWords : place+entryWords]
		if e[1] == 0 || (e[0] == high && e[1]&^offsetMask == low) {
			return place, high, low
		}
		if at++; at == m.slots {
			at = 0
		}
	}
}

// Put notes that the key's last record is at offset. Offsets ascend. False, and nothing noted, when there is no room.
func (m *Map) Put(key []byte, offset int64) bool {
	distance := uint64(offset - m.first)
	if distance > maxDistance {
		return false
	}
	place, high, low := m.find(key)
	if m.entries[place+1] == 0 {
		if m.count == m.most {
			return false
		}
		m.count++
		m.entries[place] = high
	}
	m.entries[place+1] = low | (distance + 1)
	return true
}

// Get returns the offset of the key's last record, false when it has none.
func (m *Map) Get(key []byte) (offset int64, found bool) {
	place, _, _ := m.find(key)
	e := m.entries[place+1]
	if e == 0 {
		return 0, false
	}
	return m.first + int64(e&offsetMask) - 1, true
}
