package quorum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
)

// An entry on disk is a batch of one record: its key is raft's type of the entry (one byte), its
// value raft's data. The data of a proposal begins with the id under which its proposer waits.
//
// An entry that says who votes from then on is a control batch instead, whose record is Kafka's KRaftVoters, for Kafka's tools to
// read; type and data stand in a tagged field of it, where those do not look.
const proposalIDBytes = 8

// builders make batches, for one goroutine.
type builders struct{ data, control *batch.Builder }

func newBuilders() builders {
	return builders{batch.NewBuilder(batch.BuilderOptions{}), batch.NewBuilder(batch.BuilderOptions{Control: true})}
}

func controlKey(kind batch.ControlType) []byte {
	return binary.BigEndian.AppendUint16(make([]byte, 2), uint16(kind))
}

func encodeEntry(with builders, e *pb.Entry, nowMs int64) (batch.Batch, error) {
	b, key, value := with.data, []byte{byte(e.GetType())}, e.GetData()
	if voters := votersAfter(e); len(voters) > 0 {
		value = metadata.AppendVoters(nil, voters, append(key, value...))
		b, key = with.control, controlKey(batch.KRaftVoters)
	}
	b.Reset()
	b.Append(nowMs, key, value, nil)
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
		owned := r.Clone()
		kind, data := owned.Key, owned.Value
		if b.IsControl() {
			_, data, err = metadata.ParseVoters(data)
			if err != nil || !bytes.Equal(owned.Key, controlKey(batch.KRaftVoters)) || len(data) == 0 {
				return nil, errors.Join(fmt.Errorf("metadata entry at offset %d is an unknown control record: %w", b.BaseOffset(), ErrDamaged), err)
			}
			kind, data = data[:1], data[1:]
		}
		if len(kind) != 1 {
			return nil, fmt.Errorf("metadata entry at offset %d has a key of %d bytes: %w", b.BaseOffset(), len(kind), ErrDamaged)
		}
		e.Type, e.Data = pb.EntryType(kind[0]).Enum(), data
	}
	return e, nil
}

// votersAfter are those who vote after an entry that changes the members; nil where it says nothing of it.
func votersAfter(e *pb.Entry) []metadata.Voter {
	if e.GetType() != pb.EntryConfChangeV2 {
		return nil
	}
	change := &pb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return nil // whoever applies it will say so
	}
	said, err := decodeMembersChange(change.GetContext())
	if err != nil {
		return nil
	}
	return said.Voters
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
