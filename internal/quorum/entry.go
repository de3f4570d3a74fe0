package quorum

import (
	"encoding/binary"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
)

// An entry on disk is a batch of one record: its key is raft's type of the entry (one byte), its
// value raft's data. The data of a proposal begins with the id under which its proposer waits.
const proposalIDBytes = 8

func encodeEntry(b *batch.Builder, e *pb.Entry, nowMs int64) (batch.Batch, error) {
	b.Reset()
	b.Append(nowMs, []byte{byte(e.GetType())}, e.GetData(), nil)
	built, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("encode metadata entry %d: %w", e.GetIndex(), err)
	}
	built.Assign(offsetOf(e.GetIndex()), int32(e.GetTerm()))
	return built, nil
}

func decodeEntry(c *batch.Checker, b batch.Batch) (*pb.Entry, error) {
	if err := b.CheckCRC(); err != nil {
		return nil, fmt.Errorf("metadata entry at offset %d: %w", b.BaseOffset(), err)
	}
	if b.Count() != 1 {
		return nil, fmt.Errorf("metadata entry at offset %d has %d records: %w", b.BaseOffset(), b.Count(), ErrDamaged)
	}
	e := &pb.Entry{Index: new(indexOf(b.BaseOffset())), Term: new(uint64(b.LeaderEpoch()))}
	for r, err := range c.Records(b) {
		if err != nil {
			return nil, fmt.Errorf("metadata entry at offset %d: %w", b.BaseOffset(), err)
		}
		if len(r.Key) != 1 {
			return nil, fmt.Errorf("metadata entry at offset %d has a key of %d bytes: %w", b.BaseOffset(), len(r.Key), ErrDamaged)
		}
		e.Type, e.Data = pb.EntryType(r.Key[0]).Enum(), r.Clone().Value
	}
	return e, nil
}

func encodeProposal(id uint64, records []metadata.Record) ([]byte, error) {
	encoded, err := metadata.Encode(records)
	if err != nil {
		return nil, fmt.Errorf("encode metadata change: %w", err)
	}
	if len(encoded) > maxEntryBytes {
		return nil, fmt.Errorf("metadata change of %d bytes, at most %d: %w", len(encoded), maxEntryBytes, ErrTooLarge)
	}
	return append(binary.BigEndian.AppendUint64(nil, id), encoded...), nil
}

func decodeProposal(e *pb.Entry) (id uint64, records []metadata.Record, err error) {
	data := e.GetData()
	if len(data) == 0 { // the entry with which a leader begins its term
		return 0, nil, nil
	}
	if len(data) < proposalIDBytes {
		return 0, nil, fmt.Errorf("metadata entry %d of %d bytes: %w", e.GetIndex(), len(data), ErrDamaged)
	}
	if records, err = metadata.Decode(data[proposalIDBytes:]); err != nil {
		return 0, nil, fmt.Errorf("metadata entry %d: %w", e.GetIndex(), err)
	}
	return binary.BigEndian.Uint64(data), records, nil
}
