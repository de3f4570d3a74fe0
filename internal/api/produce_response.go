package api

import (
	"encoding/binary"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// appendResponse writes the response's body. The usual case, in which nothing failed, is written by
// hand: every batch passes here, and kmsg compares tagged fields by reflection for each partition.
func (w *produceRequest) appendResponse(dst []byte, image *metadata.Image, peer *wire.Peer) []byte {
	for i := range w.topics {
		for j := range w.topics[i].partitions {
			if w.topics[i].partitions[j].err != nil {
				return w.asMessage(image, peer).AppendTo(dst)
			}
		}
	}
	e := encoder{dst: dst, flexible: w.version >= 9}
	e.arrayLen(len(w.topics))
	for i := range w.topics {
		topic := &w.topics[i]
		if w.version >= 13 {
			e.dst = append(e.dst, topic.id[:]...)
		} else {
			e.string(topic.name)
		}
		e.arrayLen(len(topic.partitions))
		for j := range topic.partitions {
			p := &topic.partitions[j]
			e.int32(p.number)
			e.int16(0)
			e.int64(p.first)
			e.int64(p.timeMs)
			if w.version >= 5 {
				e.int64(p.start)
			}
			if w.version >= 8 {
				e.arrayLen(0)
				e.nullString()
			}
			e.noTags()
		}
		e.noTags()
	}
	e.int32(0) // throttle
	e.noTags()
	return e.dst
}

// asMessage is the response with its errors: codes, messages, the records at fault, and where the
// leader is if it is not here (KIP-951).
func (w *produceRequest) asMessage(image *metadata.Image, peer *wire.Peer) *kmsg.ProduceResponse {
	res := kmsg.NewPtrProduceResponse()
	res.Version = w.version
	var leaders leaderHints
	for i := range w.topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = w.topics[i].name, w.topics[i].id
		for j := range w.topics[i].partitions {
			p := &w.topics[i].partitions[j]
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition, part.ErrorCode, part.ErrorMessage = p.number, codeOf(p.err), messageOf(p.err)
			part.BaseOffset, part.LogAppendTime, part.LogStartOffset = p.first, p.timeMs, p.start
			var invalid *batch.InvalidRecordsError
			if errors.As(p.err, &invalid) {
				for _, r := range invalid.Records {
					record := kmsg.NewProduceResponseTopicPartitionErrorRecord()
					record.RelativeOffset, record.ErrorMessage = r.Index, &r.Message
					part.ErrorRecords = append(part.ErrorRecords, record)
				}
			}
			if w.version >= 10 && errors.Is(p.err, replica.ErrNotLeader) && !errors.Is(p.err, replica.ErrCutOff) {
				part.CurrentLeader.LeaderID, part.CurrentLeader.LeaderEpoch = leaders.add(image, w.topics[i].name, p.number)
			}
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	for _, b := range leaders.brokersFor(image, peer) {
		node := kmsg.NewProduceResponseBroker()
		node.NodeID, node.Host, node.Port, node.Rack = b.id, b.host, b.port, b.rack
		res.Brokers = append(res.Brokers, node)
	}
	return res
}

// encoder writes the protocol's primitive types where kmsg is too slow. flexible chooses compact
// lengths and tagged fields (KIP-482).
type encoder struct {
	dst      []byte
	flexible bool
}

func (e *encoder) int16(v int16) { e.dst = binary.BigEndian.AppendUint16(e.dst, uint16(v)) }
func (e *encoder) int32(v int32) { e.dst = binary.BigEndian.AppendUint32(e.dst, uint32(v)) }
func (e *encoder) int64(v int64) { e.dst = binary.BigEndian.AppendUint64(e.dst, uint64(v)) }

func (e *encoder) arrayLen(n int) {
	if e.flexible {
		e.dst = binary.AppendUvarint(e.dst, uint64(n)+1)
	} else {
		e.int32(int32(n))
	}
}

func (e *encoder) nullArray() {
	if e.flexible {
		e.dst = append(e.dst, 0)
	} else {
		e.int32(-1)
	}
}

// bytesLen writes the length of bytes that follow from elsewhere: a file, for instance.
func (e *encoder) bytesLen(n int) { e.arrayLen(n) }

func (e *encoder) string(s string) {
	if e.flexible {
		e.dst = binary.AppendUvarint(e.dst, uint64(len(s))+1)
	} else {
		e.int16(int16(len(s)))
	}
	e.dst = append(e.dst, s...)
}

func (e *encoder) nullString() {
	if e.flexible {
		e.dst = append(e.dst, 0)
	} else {
		e.int16(-1)
	}
}

// noTags ends a struct that has no tagged field set.
func (e *encoder) noTags() {
	if e.flexible {
		e.dst = append(e.dst, 0)
	}
}
