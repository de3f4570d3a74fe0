package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Voter is one of the metadata quorum, as Kafka's VotersRecord has it (KIP-853).
type Voter struct {
	NodeID    int32           `json:"nodeId"`
	Directory UUID            `json:"directoryId"`
	Endpoints []VoterEndpoint `json:"listeners,omitempty"` // as far as they are known
}

// VoterEndpoint is an address under which other nodes reach a voter.
type VoterEndpoint struct {
	Name string `json:"name"`
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

// KRaftVersion is the level of the feature kraft.version that lets voters change.
const KRaftVersion = 1

const (
	maxRecordVoters    = 256 // of one record; a longer one is malformed
	maxRecordEndpoints = 256 // of one voter
	maxTags            = 16  // of one structure
)

// AppendKRaftVersion appends the value of Kafka's control record KRaftVersion.
func AppendKRaftVersion(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, KRaftVersion)
	return append(dst, 0) // no tags
}

// AppendVoters appends the value of Kafka's control record KRaftVoters, version 0. rest, unless it is empty, stands in a tagged
// field of ours, which Kafka passes over; the number of a field of Kafka's would come from 0 upwards.
func AppendVoters(dst []byte, voters []Voter, rest []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = appendCount(dst, len(voters))
	for _, v := range voters {
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.NodeID))
		dst = append(dst, v.Directory[:]...)
		dst = appendCount(dst, len(v.Endpoints))
		for _, e := range v.Endpoints {
			dst = append(appendCount(dst, len(e.Name)), e.Name...)
			dst = append(appendCount(dst, len(e.Host)), e.Host...)
			dst = append(binary.BigEndian.AppendUint16(dst, e.Port), 0)
		}
		dst = binary.BigEndian.AppendUint16(dst, 0) // the levels of kraft.version that it supports
		dst = binary.BigEndian.AppendUint16(dst, KRaftVersion)
		dst = append(dst, 0, 0) // no tags of these, nor of the voter
	}
	if len(rest) == 0 {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(append(dst, 1), restTag)
	dst = binary.AppendUvarint(dst, uint64(len(rest)))
	return append(dst, rest...)
}

// restTag numbers our tagged field of a VotersRecord.
const restTag = 0x4242

// appendCount: in Kafka's compact forms a length is one more than it is, for 0 is none.
func appendCount(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)+1) }

// ParseVoters is the inverse of AppendVoters. rest is part of value.
// Errors: ErrMalformed.
func ParseVoters(value []byte) (voters []Voter, rest []byte, err error) {
	r := votersReader{left: value}
	if version := r.number(2); version != 0 && r.err == nil {
		return nil, nil, fmt.Errorf("voters record of version %d: %w", version, ErrMalformed)
	}
	for range r.count(maxRecordVoters) {
		v := Voter{NodeID: int32(r.number(4))}
		copy(v.Directory[:], r.take(len(v.Directory)))
		for range r.count(maxRecordEndpoints) {
			v.Endpoints = append(v.Endpoints, VoterEndpoint{r.text(), r.text(), uint16(r.number(2))})
			r.tags()
		}
		r.take(4) // the supported levels
		r.tags()
		r.tags()
		voters = append(voters, v)
		if r.err != nil {
			break
		}
	}
	rest = r.tags()
	if r.err == nil && len(r.left) > 0 {
		r.err = fmt.Errorf("%d bytes after its end", len(r.left))
	}
	if r.err != nil {
		return nil, nil, fmt.Errorf("voters record: %w: %w", ErrMalformed, r.err)
	}
	return voters, rest, nil
}

// votersReader reads Kafka's compact forms. After an error all it gives is zero.
type votersReader struct {
	left []byte
	err  error
}

var errShort = errors.New("it ends too early")

func (r *votersReader) take(n int) []byte {
	if r.err == nil && n > len(r.left) {
		r.err = errShort
	}
	if r.err != nil {
		return nil
	}
	got := r.left[:n]
	r.left = r.left[n:]
	return got
}

func (r *votersReader) number(bytes int) (n uint32) {
	for _, b := range r.take(bytes) {
		n = n<<8 | uint32(b)
	}
	return n
}

// uvarint is at most the number of bytes that are left, unless it is a tag.
func (r *votersReader) uvarint(most uint64) int {
	if r.err != nil {
		return 0
	}
	n, size := binary.Uvarint(r.left)
	if size <= 0 || n > most {
		r.err = errors.New("a length or number in it is wrong")
		return 0
	}
	r.left = r.left[size:]
	return int(n)
}

func (r *votersReader) count(most int) int {
	n := r.uvarint(uint64(most) + 1)
	if n == 0 && r.err == nil {
		r.err = errors.New("a list in it is missing")
	}
	return max(n-1, 0)
}

func (r *votersReader) text() string { return string(r.take(r.count(len(r.left)))) }

// tags passes over tagged fields, and returns ours.
func (r *votersReader) tags() (rest []byte) {
	for range r.uvarint(maxTags) {
		tag := r.uvarint(1 << 31)
		field := r.take(r.uvarint(uint64(len(r.left))))
		if tag == restTag {
			rest = field
		}
	}
	return rest
}
