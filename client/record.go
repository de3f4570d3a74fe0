package client

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"
)

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String gives the form that Kafka's logs use, "topic-3".
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

// Header is a name and a value that travel with a record. Names may repeat; a nil Value is null.
type Header struct {
	Key   string
	Value []byte
}

// PartitionChoice is the partition that a record asks for. Its zero value asks for none, which
// leaves the choice to the producer's Partitioner.
type PartitionChoice struct{ plusOne int32 }

// ToPartition asks for partition n. A negative n asks for none.
func ToPartition(n int32) PartitionChoice { return PartitionChoice{max(n, -1) + 1} }

// Get gives the partition asked for, and whether there is one.
func (c PartitionChoice) Get() (partition int32, asked bool) { return c.plusOne - 1, c.plusOne > 0 }

// ProducerRecord is a record to be sent.
type ProducerRecord struct {
	Topic     string          // required
	Partition PartitionChoice // ToPartition(3), or left out
	Key       []byte          // nil is null, and then the record has no key
	Value     []byte          // nil is null, a tombstone where the topic is compacted
	Headers   []Header
	Timestamp time.Time // in whole milliseconds; the zero value means now
}

// RecordMetadata says where a record was written.
type RecordMetadata struct {
	Topic     string
	Partition int32
	Offset    int64     // -1 where the broker does not say: acks=0, or a retry that it recognised too late
	Timestamp time.Time // the record's own, or the broker's where the topic has LogAppendTime
}

// TimestampType says who set a record's timestamp.
type TimestampType int8

// The two kinds of message.timestamp.type.
const (
	CreateTime    TimestampType = 0 // the producer
	LogAppendTime TimestampType = 1 // the broker, when it wrote the record
)

// Record is a record that was consumed. Its slices are the caller's to keep, but not to change:
// records of one batch share memory, and keeping one of them keeps the batch.
type Record struct {
	Topic         string
	Partition     int32
	LeaderEpoch   int32 // of the batch; -1 where unknown
	Offset        int64
	Timestamp     time.Time // to the millisecond
	TimestampType TimestampType
	Key           []byte // nil is null
	Value         []byte // nil is null
	Headers       []Header
}

// TopicPartition gives the partition that the record was read from.
func (r *Record) TopicPartition() TopicPartition { return TopicPartition{r.Topic, r.Partition} }

// UUID is an id as Kafka gives to topics, directories and clusters.
type UUID [16]byte

// String gives Kafka's text form: 22 characters of URL-safe base64.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// randomUUID makes an id that nobody else has.
func randomUUID() (u UUID) {
	_, _ = rand.Read(u[:]) // never fails
	u[0] &= 0x7f           // no leading '-' or '_' in the text, which tools would take for an option
	return u
}

// ParseUUID reads Kafka's text form.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != len(u) {
		return UUID{}, fmt.Errorf("%q is not an id of 22 characters of URL-safe base64", s)
	}
	copy(u[:], b)
	return u, nil
}
