package api

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Decoding makes structures of a request's lists: a hostile frame can announce, in three bytes
// each, topics that take some hundred bytes once decoded. Other requests are bounded by the
// server's budget for decoding; a Produce frame may be as large as socket.request.max.bytes, so it is
// walked once, without allocating, before it is decoded. Honest partitions carry a batch of at
// least 61 bytes, so what is decoded is never larger than what was received.
const (
	decodedTopicBytes     = 112 // kmsg.ProduceRequestTopic, with room to spare
	decodedPartitionBytes = 64  // kmsg.ProduceRequestTopicPartition, likewise
	freeDecodedBytes      = 64 << 10
)

var errHostileProduce = errors.New("produce request announces more than it carries")

// scanProduce refuses a body whose lists would take more memory than the body itself. Bodies that
// end early pass: decoding finds that.
func scanProduce(body []byte, version int16) error {
	s := scanner{left: body, flexible: version >= 9}
	s.skip(s.stringLen()) // transactional id
	s.skip(2 + 4)         // acks, timeout
	budget := len(body) + freeDecodedBytes
	for topics := s.arrayLen(); topics > 0 && !s.ended; topics-- {
		budget -= decodedTopicBytes
		if version >= 13 {
			s.skip(16)
		} else {
			s.skip(s.stringLen())
		}
		partitions := s.arrayLen()
		if budget -= partitions * decodedPartitionBytes; budget < 0 {
			return fmt.Errorf("%d bytes: %w", len(body), errHostileProduce)
		}
		for ; partitions > 0 && !s.ended; partitions-- {
			s.skip(4)
			s.skip(s.arrayLen()) // the batch
			s.skipTags()
		}
		s.skipTags()
	}
	return nil
}

// scanner walks a body. Where it ends early, or a length makes no sense, ended is set.
type scanner struct {
	left     []byte
	flexible bool
	ended    bool
}

func (s *scanner) skip(n int) {
	if n > len(s.left) {
		s.left, s.ended = nil, true
		return
	}
	s.left = s.left[max(n, 0):]
}

func (s *scanner) uvarint() int {
	v, n := binary.Uvarint(s.left)
	if n <= 0 || v > 1<<31 {
		s.left, s.ended = nil, true
		return 0
	}
	s.left = s.left[n:]
	return int(v)
}

// arrayLen is the length of a list, or of bytes; null counts as empty. No list has more elements
// than bytes follow.
func (s *scanner) arrayLen() int {
	n := 0
	switch {
	case s.flexible:
		n = s.uvarint() - 1
	case len(s.left) < 4:
		s.left, s.ended = nil, true
	default:
		n = int(int32(binary.BigEndian.Uint32(s.left)))
		s.left = s.left[4:]
	}
	if n > len(s.left) {
		s.ended = true
	}
	return min(max(n, 0), len(s.left))
}

func (s *scanner) stringLen() int {
	if s.flexible {
		return s.arrayLen()
	}
	if len(s.left) < 2 {
		s.left, s.ended = nil, true
		return 0
	}
	n := int(int16(binary.BigEndian.Uint16(s.left)))
	s.left = s.left[2:]
	return max(n, 0)
}

func (s *scanner) skipTags() {
	if !s.flexible {
		return
	}
	for tags := s.uvarint(); tags > 0 && !s.ended; tags-- {
		s.uvarint()
		s.skip(s.uvarint())
	}
}
