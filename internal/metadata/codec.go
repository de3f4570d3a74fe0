package metadata

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// entryVersion is the version of records.proto that this program writes and the highest that it
// reads. A record type or a field that an older program must not miss raises it.
const entryVersion = 1

var (
	// ErrNewerFormat means that an entry holds something that only a newer version of this
	// program understands. Going on without it would diverge from the rest of the cluster.
	ErrNewerFormat = errors.New("written by a newer version")
	// ErrMalformed means that bytes are no entry, or that a record contradicts itself or the
	// image that it is replayed into.
	ErrMalformed = errors.New("malformed metadata")
)

// A Record is one change of the cluster's metadata: one of the generated *...Record types.
// A record that was handed to anybody is not changed any more.
type Record interface {
	proto.Message
	envelope() *Envelope
}

func (r *ClusterRecord) envelope() *Envelope { return &Envelope{Kind: &Envelope_Cluster{r}} }
func (r *FeatureRecord) envelope() *Envelope { return &Envelope{Kind: &Envelope_Feature{r}} }
func (r *BrokerRecord) envelope() *Envelope  { return &Envelope{Kind: &Envelope_Broker{r}} }
func (r *TopicRecord) envelope() *Envelope   { return &Envelope{Kind: &Envelope_Topic{r}} }
func (r *ConfigRecord) envelope() *Envelope  { return &Envelope{Kind: &Envelope_Config{r}} }
func (r *NoOpRecord) envelope() *Envelope    { return &Envelope{Kind: &Envelope_NoOp{r}} }
func (r *BrokerChangeRecord) envelope() *Envelope {
	return &Envelope{Kind: &Envelope_BrokerChange{r}}
}

func (r *BrokerRemovalRecord) envelope() *Envelope {
	return &Envelope{Kind: &Envelope_BrokerRemoval{r}}
}
func (r *PartitionRecord) envelope() *Envelope { return &Envelope{Kind: &Envelope_Partition{r}} }
func (r *PartitionChangeRecord) envelope() *Envelope {
	return &Envelope{Kind: &Envelope_PartitionChange{r}}
}

func (r *TopicRemovalRecord) envelope() *Envelope { return &Envelope{Kind: &Envelope_TopicRemoval{r}} }

func (r *ProducerIDsRecord) envelope() *Envelope { return &Envelope{Kind: &Envelope_ProducerIds{r}} }

// record opens the envelope; nil if it is empty.
func (e *Envelope) record() Record {
	switch k := e.GetKind().(type) {
	case *Envelope_Cluster:
		return k.Cluster
	case *Envelope_Feature:
		return k.Feature
	case *Envelope_Broker:
		return k.Broker
	case *Envelope_BrokerChange:
		return k.BrokerChange
	case *Envelope_BrokerRemoval:
		return k.BrokerRemoval
	case *Envelope_Topic:
		return k.Topic
	case *Envelope_Partition:
		return k.Partition
	case *Envelope_PartitionChange:
		return k.PartitionChange
	case *Envelope_TopicRemoval:
		return k.TopicRemoval
	case *Envelope_Config:
		return k.Config
	case *Envelope_ProducerIds:
		return k.ProducerIds
	case *Envelope_NoOp:
		return k.NoOp
	}
	return nil
}

// Encode returns records as one entry of the metadata log. It fails only where a text is not
// UTF-8; equal records give equal bytes.
func Encode(records []Record) ([]byte, error) {
	e := &Entry{Version: entryVersion, Records: make([]*Envelope, len(records))}
	for i, r := range records {
		e.Records[i] = r.envelope()
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode %d metadata records: %w", len(records), err)
	}
	return b, nil
}

// Decode is the inverse of Encode. It keeps no reference to b. Its errors wrap ErrNewerFormat or
// ErrMalformed.
func Decode(b []byte) ([]Record, error) {
	var e Entry
	if err := proto.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("decode metadata entry of %d bytes: %w: %w", len(b), ErrMalformed, err)
	}
	switch {
	case e.Version == 0:
		return nil, fmt.Errorf("decode metadata entry: %w: it has no version", ErrMalformed)
	case e.Version > entryVersion:
		return nil, fmt.Errorf("decode metadata entry of version %d: %w: this one reads up to version %d", e.Version, ErrNewerFormat, entryVersion)
	}
	if name, number := unknownField(e.ProtoReflect()); number != 0 {
		return nil, fmt.Errorf("decode metadata entry: %w: field %d of %s is unknown here", ErrNewerFormat, number, name)
	}
	records := make([]Record, len(e.Records))
	for i, envelope := range e.Records {
		if records[i] = envelope.record(); records[i] == nil {
			return nil, fmt.Errorf("decode metadata entry: %w: record %d is empty", ErrMalformed, i)
		}
	}
	return records, nil
}

// unknownField finds a field that this version does not know, anywhere in m: the name of the
// message that holds it and its number, 0 if there is none.
func unknownField(m protoreflect.Message) (in protoreflect.Name, number int32) {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		n, _, _ := protowire.ConsumeField(unknown)
		return m.Descriptor().Name(), int32(n)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				if in, number = unknownField(v.List().Get(i).Message()); number != 0 {
					return false
				}
			}
		default:
			in, number = unknownField(v.Message())
		}
		return number == 0
	})
	return in, number
}
