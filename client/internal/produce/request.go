// Package produce makes Produce requests of batches, without copying those that are large. It is for
// package client. It decides the bytes of the request, which in every version are those of kmsg's; it
// refuses to know which batches there are, where they go, and what an answer means.
package produce

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// Batch is a batch of records for one partition. A request holds a partition once.
type Batch struct {
	Topic     string
	ID        [16]byte // of the topic: in all batches of a request or in none
	Partition int32
	Records   []byte
}

// Request is a Produce request that can be sent with splices. It is sent as what it was made of.
type Request struct {
	*kmsg.ProduceRequest
	room int // bytes of what is not spliced, about
}

// The versions of Produce from which it is written here, and from which things are otherwise.
const (
	firstHere         = 3 // with a transactional id
	firstFlexible     = 9
	firstWithTopicIDs = 13
)

// What a request has beside its batches, about: in all, and for each of them.
const (
	fieldBytes      = 256
	batchFieldBytes = 32
)

// NewRequest makes a request of batches, grouped by nothing, that are not changed until it is answered.
func NewRequest(acks int16, transactionalID *string, timeout time.Duration, batches []Batch) *Request {
	r := &Request{ProduceRequest: kmsg.NewPtrProduceRequest(), room: fieldBytes}
	r.Acks, r.TransactionID, r.TimeoutMillis = acks, transactionalID, int32(timeout.Milliseconds())
	if transactionalID != nil {
		r.room += len(*transactionalID)
	}
	at := make(map[string]int, 1)
	for _, b := range batches {
		i, ok := at[b.Topic]
		if !ok {
			i = len(r.Topics)
			at[b.Topic] = i
			r.Topics = append(r.Topics, kmsg.ProduceRequestTopic{Topic: b.Topic, TopicID: b.ID})
			r.room += len(b.Topic)
		}
		r.Topics[i].Partitions = append(r.Topics[i].Partitions, kmsg.ProduceRequestTopicPartition{Partition: b.Partition, Records: b.Records})
		r.room += batchFieldBytes
		if len(b.Records) < wire.SpliceBytes {
			r.room += len(b.Records)
		}
	}
	return r
}

// AppendTo appends the request's body with copies of all batches.
func (r *Request) AppendTo(dst []byte) []byte { return r.AppendSpliced(dst, nil) }

// AppendSpliced appends the request's body, but for those batches that s keeps.
func (r *Request) AppendSpliced(dst []byte, s *wire.Splices) []byte {
	if r.Version < firstHere {
		return r.ProduceRequest.AppendTo(dst)
	}
	f := fields{dst: slices.Grow(dst, r.room), flexible: r.Version >= firstFlexible}
	f.nullable(r.TransactionID)
	f.dst = binary.BigEndian.AppendUint16(f.dst, uint16(r.Acks))
	f.int32(r.TimeoutMillis)
	f.array(len(r.Topics))
	for i := range r.Topics {
		t := &r.Topics[i]
		if r.Version >= firstWithTopicIDs {
			f.dst = append(f.dst, t.TopicID[:]...)
		} else {
			f.nullable(&t.Topic)
		}
		f.array(len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			f.int32(p.Partition)
			f.array(len(p.Records))
			f.dst = s.Append(f.dst, p.Records)
			f.tags()
		}
		f.tags()
	}
	f.tags()
	return f.dst
}

// fields appends fields in one of the protocol's two ways.
type fields struct {
	dst      []byte
	flexible bool // lengths are varints plus one, and tagged fields follow
}

func (f *fields) int32(n int32) { f.dst = binary.BigEndian.AppendUint32(f.dst, uint32(n)) }

// array appends the length of an array, or of bytes.
func (f *fields) array(n int) {
	if f.flexible {
		f.dst = binary.AppendUvarint(f.dst, uint64(n)+1)
		return
	}
	f.int32(int32(n))
}

// nullable appends a string, or null.
func (f *fields) nullable(s *string) {
	switch {
	case f.flexible && s == nil:
		f.dst = append(f.dst, 0)
		return
	case s == nil:
		f.dst = append(f.dst, 0xff, 0xff)
		return
	case f.flexible:
		f.dst = binary.AppendUvarint(f.dst, uint64(len(*s))+1)
	default:
		f.dst = binary.BigEndian.AppendUint16(f.dst, uint16(len(*s)))
	}
	f.dst = append(f.dst, *s...)
}

// tags appends that there are no tagged fields.
func (f *fields) tags() {
	if f.flexible {
		f.dst = append(f.dst, 0)
	}
}
