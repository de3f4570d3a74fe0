package batch

import (
	"encoding/binary"
	"fmt"
)

// ControlType is what a control record says.
type ControlType int16

// The control records of Kafka. All but the first two belong to KRaft's own log.
const (
	AbortMarker    ControlType = 0
	CommitMarker   ControlType = 1
	LeaderChange   ControlType = 2
	SnapshotHeader ControlType = 3
	SnapshotFooter ControlType = 4
	KRaftVersion   ControlType = 5
	KRaftVoters    ControlType = 6
)

// Control is the first record of a control batch, which in a log of data is the only one.
type Control struct {
	Type ControlType
	// CoordinatorEpoch of the transaction coordinator that wrote the marker; 0 but for AbortMarker and CommitMarker.
	CoordinatorEpoch int32
	Value            []byte // the record's value, whatever the type: a copy
}

const (
	controlKeyBytes      = 4 // version and type, 16 bits each; later versions may be longer
	endTransactionBytes  = 6 // version (16 bits) and coordinator epoch (32 bits)
	controlRecordVersion = 0
)

// ParseControl reads a control batch's first record. It does not check the CRC.
// Errors: ErrCorrupt, also where b is no control batch; those of Records.
func (c *Checker) ParseControl(b Batch) (Control, error) {
	if !b.IsControl() {
		return Control{}, fmt.Errorf("%w at offset %d: not a control batch", ErrCorrupt, b.BaseOffset())
	}
	for r, err := range c.Records(b) {
		if err != nil {
			return Control{}, err
		}
		return parseControl(b, &r)
	}
	return Control{}, fmt.Errorf("%w at offset %d: a control batch without a record", ErrCorrupt, b.BaseOffset())
}

func parseControl(b Batch, r *Record) (Control, error) {
	if len(r.Key) < controlKeyBytes || int16(binary.BigEndian.Uint16(r.Key)) < 0 {
		return Control{}, fmt.Errorf("%w at offset %d: a control record's key is %x", ErrCorrupt, b.BaseOffset(), r.Key)
	}
	ctl := Control{Type: ControlType(binary.BigEndian.Uint16(r.Key[2:])), Value: append([]byte(nil), r.Value...)}
	if ctl.Type == AbortMarker || ctl.Type == CommitMarker {
		if len(r.Value) < endTransactionBytes || int16(binary.BigEndian.Uint16(r.Value)) < 0 {
			return Control{}, fmt.Errorf("%w at offset %d: a transaction marker's value is %x", ErrCorrupt, b.BaseOffset(), r.Value)
		}
		ctl.CoordinatorEpoch = int32(binary.BigEndian.Uint32(r.Value[2:]))
	}
	return ctl, nil
}

// EndTransaction is what a transaction marker says.
type EndTransaction struct {
	Commit           bool // otherwise abort
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32
	TimestampMs      int64
}

// BuildEndTransaction returns a batch that holds a transaction marker and nothing else.
func BuildEndTransaction(e EndTransaction) Batch {
	b := NewBuilder(BuilderOptions{Control: true})
	b.SetProducer(e.ProducerID, e.ProducerEpoch, NoSequence, true)
	kind := AbortMarker
	if e.Commit {
		kind = CommitMarker
	}
	var key [controlKeyBytes]byte
	binary.BigEndian.PutUint16(key[:], controlRecordVersion)
	binary.BigEndian.PutUint16(key[2:], uint16(kind))
	var value [endTransactionBytes]byte
	binary.BigEndian.PutUint16(value[:], controlRecordVersion)
	binary.BigEndian.PutUint32(value[2:], uint32(e.CoordinatorEpoch))
	b.Append(e.TimestampMs, key[:], value[:], nil)
	made, err := b.Build()
	if err != nil {
		panic(fmt.Sprintf("BUG: a batch of one small record without a codec was not built: %v", err)) // cannot be
	}
	return made
}
