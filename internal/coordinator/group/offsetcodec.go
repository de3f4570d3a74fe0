package group

import (
	"encoding/binary"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Committed offsets are nearly all that this package writes and reads, a hundred to a request, so their usual forms are
// encoded and decoded here; kmsg does it for the others, and is the judge of these in the tests. The value's version 4 is
//
//	version 2 · offset 8 · leader epoch 4 · metadata (length + 1 as a varint, bytes) · commit time 8
//	number of tagged fields, 0, or 1 and then tag 0 · size 16 · topic id 16
const (
	topicIDTag   = 0
	topicIDBytes = 16
	varintBytes  = 5 // the most that a length takes
)

// appendOffsetValue writes a committed offset as Apache Kafka 4.3.1 does.
func appendOffsetValue(dst []byte, c *committed) []byte {
	if c.expires != never {
		v := kmsg.OffsetCommitValue{
			Version: offsetValueWithExpiry, Offset: c.offset, LeaderEpoch: c.epoch, Metadata: c.metadata,
			CommitTimestamp: c.at, ExpireTimestamp: c.expires,
		}
		return v.AppendTo(dst)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(offsetValueVersion))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.epoch))
	dst = binary.AppendUvarint(dst, uint64(len(c.metadata))+1)
	dst = append(dst, c.metadata...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.at))
	if c.topicID == [topicIDBytes]byte{} {
		return append(dst, 0)
	}
	dst = append(dst, 1, topicIDTag, topicIDBytes)
	return append(dst, c.topicID[:]...)
}

// viewOffsetValue reads a value of version 4; its metadata is a view on value. False: it is not one of these, or there is
// something about it that kmsg has to look at.
func viewOffsetValue(value []byte) (v kmsg.OffsetCommitValue, ok bool) {
	const fixed = 2 + 8 + 4
	if len(value) < fixed || int16(binary.BigEndian.Uint16(value)) != offsetValueVersion {
		return v, false
	}
	n, width := binary.Uvarint(value[fixed:])
	rest := value[fixed+max(width, 0):]
	if width <= 0 || width > varintBytes || n == 0 || n-1 > uint64(len(rest)) || uint64(len(rest))-(n-1) < 8+1 {
		return v, false
	}
	v.Version = offsetValueVersion
	v.Offset = int64(binary.BigEndian.Uint64(value[2:]))
	v.LeaderEpoch = int32(binary.BigEndian.Uint32(value[10:]))
	v.Metadata = view(rest[:n-1])
	rest = rest[n-1:]
	v.CommitTimestamp = int64(binary.BigEndian.Uint64(rest))
	v.ExpireTimestamp = never
	switch tags := rest[8:]; {
	case len(tags) == 1 && tags[0] == 0:
		return v, true
	case len(tags) == 3+topicIDBytes && tags[0] == 1 && tags[1] == topicIDTag && tags[2] == topicIDBytes:
		v.TopicID = [topicIDBytes]byte(tags[3:])
		return v, true
	}
	return v, false
}

// viewOffsetKey reads a key; its strings are views on key. False: kmsg has to look at it.
func viewOffsetKey(key []byte) (k kmsg.OffsetCommitKey, ok bool) {
	if len(key) < 2 {
		return k, false
	}
	k.Version = int16(binary.BigEndian.Uint16(key))
	group, rest, ok := viewString(key[2:])
	if !ok {
		return k, false
	}
	topic, rest, ok := viewString(rest)
	if !ok || len(rest) != 4 {
		return k, false
	}
	k.Group, k.Topic, k.Partition = group, topic, int32(binary.BigEndian.Uint32(rest))
	return k, k.Partition >= 0
}

func viewString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(int16(binary.BigEndian.Uint16(b)))
	if n < 0 || n > len(b)-2 {
		return "", nil, false
	}
	return view(b[2 : 2+n]), b[2+n:], true
}

// view is a string for as long as b does not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
