package group

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Record is one record of __consumer_offsets as it stands in the log. A nil Value is a tombstone.
type Record struct{ Key, Value []byte }

// What a key's first two bytes say it is. Kinds from 3 on belong to other protocols (KIP-848, KIP-932,
// KIP-1071).
const (
	offsetKeyV0 int16 = 0
	offsetKeyV1 int16 = 1
	groupKeyV2  int16 = 2
)

// Versions of values: what Apache Kafka 4.3.1 writes, and the newest that it knows.
const (
	offsetValueWithExpiry int16 = 1 // the only one with a field for a retention asked for by the client
	offsetValueVersion    int16 = 4 // the first with a topic id
	firstLeaderEpoch      int16 = 3
	newestOffsetValue     int16 = 4
	groupValueVersion     int16 = 3
	newestGroupValue      int16 = 4
)

// ErrMalformed is wrapped by the errors of Replay for records that cannot be read. Nothing has
// changed then, and the record can be left out.
var ErrMalformed = errors.New("malformed record of __consumer_offsets")

// KindError says that a record belongs to a kind of group that this Shard does not keep. Nothing has
// changed then.
type KindError struct {
	Kind int16 // the key's first two bytes
}

// Error names the kind.
func (e *KindError) Error() string {
	return fmt.Sprintf("record of __consumer_offsets of kind %d: not one of a classic group", e.Kind)
}

func malformed(what string, err error) error {
	return fmt.Errorf("%s: %w: %w", what, ErrMalformed, err)
}

var (
	errShort   = errors.New("too short")
	errVersion = errors.New("unknown version")
	errRange   = errors.New("out of range")
)

func kindOf(key []byte) (int16, error) {
	if len(key) < 2 {
		return 0, malformed("read a key", errShort)
	}
	return int16(binary.BigEndian.Uint16(key)), nil
}

// readOffsetKey's strings are views on key.
func readOffsetKey(key []byte) (k kmsg.OffsetCommitKey, err error) {
	if k, ok := viewOffsetKey(key); ok {
		return k, nil
	}
	if err := k.UnsafeReadFrom(key); err != nil {
		return k, malformed("read the key of an offset", err)
	}
	if k.Partition < 0 {
		return k, malformed(fmt.Sprintf("read the key of an offset: partition %d", k.Partition), errRange)
	}
	return k, nil
}

// readOffsetValue's metadata is a view on value.
func readOffsetValue(value []byte) (v kmsg.OffsetCommitValue, err error) {
	if v, ok := viewOffsetValue(value); ok {
		return v, nil
	}
	version, err := versionOf(value, newestOffsetValue)
	if err != nil {
		return v, malformed("read a committed offset", err)
	}
	v.Default()
	v.LeaderEpoch = noEpoch
	v.ExpireTimestamp = never
	epoch, expires := v.LeaderEpoch, v.ExpireTimestamp
	if err := v.UnsafeReadFrom(value); err != nil {
		return v, malformed("read a committed offset", err)
	}
	if version < firstLeaderEpoch {
		v.LeaderEpoch = epoch
	}
	if version != offsetValueWithExpiry {
		v.ExpireTimestamp = expires
	}
	return v, nil
}

func readGroupKey(key []byte) (k kmsg.GroupMetadataKey, err error) {
	if err := k.UnsafeReadFrom(key); err != nil {
		return k, malformed("read the key of a group", err)
	}
	return k, nil
}

func readGroupValue(value []byte) (v kmsg.GroupMetadataValue, err error) {
	if _, err := versionOf(value, newestGroupValue); err != nil {
		return v, malformed("read a group", err)
	}
	if err := v.ReadFrom(value); err != nil {
		return v, malformed("read a group", err)
	}
	return v, nil
}

func versionOf(value []byte, newest int16) (int16, error) {
	if len(value) < 2 {
		return 0, errShort
	}
	version := int16(binary.BigEndian.Uint16(value))
	if version < 0 || version > newest {
		return 0, fmt.Errorf("version %d: %w", version, errVersion)
	}
	return version, nil
}

// writer puts the records of one event into one stretch of memory.
type writer struct {
	buf     []byte
	records []Record
}

// expect makes room for n records about offsets of a group whose names take nameBytes in all.
func (w *writer) expect(n, nameBytes int) {
	const fixed = 10 + 50 // a key and a value without their strings, at most
	if room := n*fixed + nameBytes; cap(w.buf)-len(w.buf) < room {
		w.buf = make([]byte, 0, room) // what was written before stays with its records
	}
	if w.records == nil {
		w.records = make([]Record, 0, n)
	}
}

func (w *writer) key(kind int16, names ...string) {
	w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(kind))
	for _, s := range names {
		w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(len(s)))
		w.buf = append(w.buf, s...)
	}
}

func (w *writer) add(keyAt, valueAt int) {
	r := Record{Key: w.buf[keyAt:valueAt:valueAt]}
	if valueAt < len(w.buf) {
		r.Value = w.buf[valueAt:len(w.buf):len(w.buf)]
	}
	w.records = append(w.records, r)
}

// commit writes an offset.
func (w *writer) commit(group, topic string, c committed) {
	keyAt := len(w.buf)
	w.key(offsetKeyV1, group, topic)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(c.partition))
	valueAt := len(w.buf)
	w.buf = appendOffsetValue(w.buf, &c)
	w.add(keyAt, valueAt)
}

// forget writes the tombstone of an offset.
func (w *writer) forget(group, topic string, partition int32) {
	keyAt := len(w.buf)
	w.key(offsetKeyV1, group, topic)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(partition))
	w.add(keyAt, len(w.buf))
}

// group writes a group; nil is its tombstone.
func (w *writer) group(id string, v *kmsg.GroupMetadataValue) {
	keyAt := len(w.buf)
	w.key(groupKeyV2, id)
	valueAt := len(w.buf)
	if v != nil {
		v.Version = groupValueVersion
		w.buf = v.AppendTo(w.buf)
	}
	w.add(keyAt, valueAt)
}
