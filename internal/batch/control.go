package batch

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

// Control is the one control record that a control batch holds.
type Control struct {
	Type ControlType
	// CoordinatorEpoch of the transaction coordinator that wrote the marker (AbortMarker, CommitMarker).
	CoordinatorEpoch int32
	// Value is the record's value, whatever the type; it aliases the batch or is a copy.
	Value []byte
}

// ParseControl reads a control batch's record.
// Errors: ErrCorrupt, also where b is not a control batch or holds no record; those of Records.
func (c *Checker) ParseControl(b Batch) (Control, error) { return Control{}, ErrUnsupportedCodec }

// EndTransaction is what a transaction marker says.
type EndTransaction struct {
	Commit           bool // otherwise abort
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32
	TimestampMs      int64
}

// BuildEndTransaction returns a batch that holds a transaction marker and nothing else.
func BuildEndTransaction(e EndTransaction) Batch { return nil }
