package commitlog

import (
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
	// maxSnapshotBytes bounds what is read: some ten million producers.
	maxSnapshotBytes = 512 << 20
)

var (
	errSnapshot = errors.New("malformed producer snapshot")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

func (s *producers) snapshot() []byte {
	out := make([]byte, snapshotHeadBytes, snapshotHeadBytes+len(s.byID)*snapshotEntryBytes)
	for _, id := range slices.Sorted(maps.Keys(s.byID)) { // sorted: the same state makes the same file
		p := s.byID[id]
		last := producedBatch{lastSequence: -1, lastOffset: -1}
		if n := p.newest(); n != nil {
			last = *n
		}
		out = binary.BigEndian.AppendUint64(out, uint64(id))
		out = binary.BigEndian.AppendUint16(out, uint16(p.epoch))
		out = binary.BigEndian.AppendUint32(out, uint32(last.lastSequence))
		out = binary.BigEndian.AppendUint64(out, uint64(last.lastOffset))
		out = binary.BigEndian.AppendUint32(out, uint32(last.delta))
		out = binary.BigEndian.AppendUint64(out, uint64(p.timestampMs))
		out = binary.BigEndian.AppendUint32(out, uint32(p.coordinatorEpoch))
		out = binary.BigEndian.AppendUint64(out, uint64(p.transaction))
	}
	binary.BigEndian.PutUint16(out, snapshotVersion)
	binary.BigEndian.PutUint32(out[6:], uint32(len(s.byID)))
	binary.BigEndian.PutUint32(out[2:], crc32.Checksum(out[6:], castagnoli))
	return out
}

// parseSnapshot returns the producers in the order of the file.
func parseSnapshot(data []byte) ([]*producer, error) {
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
	found := make([]*producer, 0, count)
	for ; len(rest) > 0; rest = rest[snapshotEntryBytes:] {
		found = append(found, parseSnapshotEntry(rest))
	}
	return found, nil
}

func parseSnapshotEntry(e []byte) *producer {
	p := newProducer(int64(binary.BigEndian.Uint64(e)))
	p.epoch = int16(binary.BigEndian.Uint16(e[8:]))
	last := producedBatch{
		lastSequence: int32(binary.BigEndian.Uint32(e[10:])),
		lastOffset:   int64(binary.BigEndian.Uint64(e[14:])),
		delta:        int32(binary.BigEndian.Uint32(e[22:])),
		timestampMs:  int64(binary.BigEndian.Uint64(e[26:])),
	}
	if last.lastOffset >= 0 {
		p.remember(last)
	}
	p.timestampMs = last.timestampMs
	p.coordinatorEpoch = int32(binary.BigEndian.Uint32(e[34:]))
	p.transaction = int64(binary.BigEndian.Uint64(e[38:]))
	return p
}

// load replaces the state by a snapshot's, but for producers that had written nothing since beforeMs.
func (s *producers) load(found []*producer, at, beforeMs int64) {
	s.clear()
	s.end, s.snapshotAt = at, at
	slices.SortStableFunc(found, func(a, b *producer) int { // so that the list is by last use again
		switch {
		case a.timestampMs < b.timestampMs:
			return -1
		case a.timestampMs > b.timestampMs:
			return 1
		}
		return 0
	})
	for _, p := range found {
		if s.byID[p.id] == nil && (p.transaction >= 0 || p.timestampMs > beforeMs) {
			s.touch(p)
		}
	}
}
