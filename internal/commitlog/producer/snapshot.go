package producer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

// A producer snapshot, NNNNNNNNNNNNNNNNNNNN.snapshot, holds the producer state of everything below the offset in its
// name, as Kafka writes it (version 1): version int16, CRC-32C of what follows uint32, count int32, then the entries.
// Of the batches of a producer it keeps the last only.
const (
	snapshotVersion    = 1
	snapshotHeadBytes  = 2 + 4 + 4
	snapshotEntryBytes = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8
	// MaxSnapshotBytes bounds what is worth reading: some ten million producers.
	MaxSnapshotBytes = 512 << 20
)

var (
	errSnapshot = errors.New("malformed producer snapshot")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

// Snapshot returns the file's content.
func (t *Table) Snapshot() []byte {
	out := make([]byte, snapshotHeadBytes, snapshotHeadBytes+len(t.byID)*snapshotEntryBytes)
	for _, id := range slices.Sorted(maps.Keys(t.byID)) { // sorted: the same state makes the same file
		p := t.byID[id]
		last := Written{LastSequence: -1, LastOffset: -1}
		if n := p.Newest(); n != nil {
			last = *n
		}
		out = binary.BigEndian.AppendUint64(out, uint64(id))
		out = binary.BigEndian.AppendUint16(out, uint16(p.Epoch))
		out = binary.BigEndian.AppendUint32(out, uint32(last.LastSequence))
		out = binary.BigEndian.AppendUint64(out, uint64(last.LastOffset))
		out = binary.BigEndian.AppendUint32(out, uint32(last.Delta))
		out = binary.BigEndian.AppendUint64(out, uint64(p.TimestampMs))
		out = binary.BigEndian.AppendUint32(out, uint32(p.CoordinatorEpoch))
		out = binary.BigEndian.AppendUint64(out, uint64(p.Transaction))
	}
	binary.BigEndian.PutUint16(out, snapshotVersion)
	binary.BigEndian.PutUint32(out[6:], uint32(len(t.byID)))
	binary.BigEndian.PutUint32(out[2:], crc32.Checksum(out[6:], castagnoli))
	return out
}

// ParseSnapshot returns the producers in the order of the file.
func ParseSnapshot(data []byte) ([]*State, error) {
	if len(data) < snapshotHeadBytes {
		return nil, fmt.Errorf("%w: %d bytes", errSnapshot, len(data))
	}
	if v := binary.BigEndian.Uint16(data); v != snapshotVersion {
		return nil, fmt.Errorf("%w: version %d", errSnapshot, v)
	}
	if binary.BigEndian.Uint32(data[2:]) != crc32.Checksum(data[6:], castagnoli) {
		return nil, fmt.Errorf("%w: wrong checksum", errSnapshot)
	}
	count, rest := binary.BigEndian.Uint32(data[6:]), data[snapshotHeadBytes:]
	if uint64(len(rest)) != uint64(count)*snapshotEntryBytes {
		return nil, fmt.Errorf("%w: %d bytes for %d entries", errSnapshot, len(rest), count)
	}
	found := make([]*State, 0, count)
	for ; len(rest) > 0; rest = rest[snapshotEntryBytes:] {
		found = append(found, parseSnapshotEntry(rest))
	}
	return found, nil
}

func parseSnapshotEntry(e []byte) *State {
	p := newState(int64(binary.BigEndian.Uint64(e)))
	p.Epoch = int16(binary.BigEndian.Uint16(e[8:]))
	last := Written{
		LastSequence: int32(binary.BigEndian.Uint32(e[10:])),
		LastOffset:   int64(binary.BigEndian.Uint64(e[14:])),
		Delta:        int32(binary.BigEndian.Uint32(e[22:])),
		TimestampMs:  int64(binary.BigEndian.Uint64(e[26:])),
	}
	if last.LastOffset >= 0 {
		p.remember(last)
	}
	p.TimestampMs = last.TimestampMs
	p.CoordinatorEpoch = int32(binary.BigEndian.Uint32(e[34:]))
	p.Transaction = int64(binary.BigEndian.Uint64(e[38:]))
	return p
}

// Load replaces the state by a snapshot's, but for producers that had written nothing since beforeMs.
func (t *Table) Load(found []*State, at, beforeMs int64) {
	t.Clear()
	t.End = at
	// So that the list is by last use again.
	slices.SortStableFunc(found, func(a, b *State) int { return cmp.Compare(a.TimestampMs, b.TimestampMs) })
	for _, p := range found {
		if t.byID[p.ID] == nil && (p.Transaction >= 0 || p.TimestampMs > beforeMs) {
			p.partial = true
			t.touch(p)
		}
	}
}
