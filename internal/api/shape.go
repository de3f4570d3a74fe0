package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// kmsg believes the number of tagged fields that a flexible request names (KIP-482) and counts down
// from it, four billion times for six hostile bytes. So before kmsg sees a body it is walked once by
// the shapes below, which is cheap (nothing is copied) and holds every count against the bytes that
// are left. The shapes are the layouts of the requests' flexible versions; that they are right is
// tested against kmsg's own encoder.

// errShape: the bytes are not a request of the key and version.
var errShape = errors.New("malformed request")

// kind of a field in a shape.
type kind byte

const (
	fixed1   kind = 1 // int8, bool
	fixed2   kind = 2
	fixed4   kind = 4
	fixed8   kind = 8
	fixed16  kind = 16  // a UUID
	compact  kind = 's' // a string or bytes, perhaps null
	array    kind = '[' // of structs
	values   kind = 'v' // an array of plain values, each of kind element
	optional kind = '?' // a struct after a byte that says whether it is there
)

// field is a part of a struct, from version from to version to (0: no end).
type field struct {
	kind     kind
	from, to int16
	of       []field // array and optional: the struct's fields
	element  kind    // values
}

func structs(of ...field) field { return field{kind: array, of: of} }
func list(element kind) field   { return field{kind: values, element: element} }

func (f field) since(version int16) field { f.from = version; return f }
func (f field) until(version int16) field { f.to = version; return f }

var (
	int8s  = field{kind: fixed1}
	int16s = field{kind: fixed2}
	int32s = field{kind: fixed4}
	int64s = field{kind: fixed8}
	uuid   = field{kind: fixed16}
	text   = field{kind: compact}
)

// shapes are the requests' layouts.
var shapes = map[kmsg.Key][]field{
	kmsg.Produce: {
		text, int16s, int32s,
		structs(text.until(12), uuid.since(13), structs(int32s, text)),
	},
	kmsg.Fetch: {
		int32s.until(14), int32s, int32s, int32s, int8s, int32s, int32s,
		structs(text.until(12), uuid.since(13), structs(int32s, int32s, int64s, int32s, int64s, int32s)),
		structs(text.until(12), uuid.since(13), list(fixed4)), text,
	},
	kmsg.OffsetCommit: {
		text, int32s, text, text.since(7), int64s.until(4), // the retention is gone before there are tags
		structs(text.until(9), uuid.since(10), structs(int32s, int64s, int32s.since(6), text)),
	},
	kmsg.OffsetFetch: {
		text.until(7), structs(text, list(fixed4)).until(7),
		structs(text, text.since(9), int32s.since(9), structs(text.until(9), uuid.since(10), list(fixed4))).since(8), int8s.since(7),
	},
	kmsg.FindCoordinator:      {text.until(3), int8s, list(compact).since(4)},
	kmsg.JoinGroup:            {text, int32s, int32s, text, text, text, structs(text, text), text.since(8)},
	kmsg.Heartbeat:            {text, int32s, text, text},
	kmsg.LeaveGroup:           {text, structs(text, text, text.since(5))},
	kmsg.SyncGroup:            {text, int32s, text, text, text.since(5), text.since(5), structs(text, text)},
	kmsg.DescribeGroups:       {list(compact), int8s},
	kmsg.ListGroups:           {list(compact).since(4), list(compact).since(5)},
	kmsg.DeleteGroups:         {list(compact)},
	kmsg.ListOffsets:          {int32s, int8s, structs(text, structs(int32s, int32s, int64s)), int32s.since(10)},
	kmsg.Metadata:             {structs(uuid.since(10), text), int8s, int8s.until(10), int8s},
	kmsg.ApiVersions:          {text, text},
	kmsg.CreateTopics:         {structs(text, int32s, int16s, structs(int32s, list(fixed4)), structs(text, text)), int32s, int8s},
	kmsg.DeleteTopics:         {list(compact).until(5), structs(text, uuid).since(6), int32s},
	kmsg.DeleteRecords:        {structs(text, structs(int32s, int64s)), int32s},
	kmsg.InitProducerID:       {text, int32s, int64s.since(3), int16s.since(3)},
	kmsg.OffsetForLeaderEpoch: {int32s, structs(text, structs(int32s, int32s, int32s))},
	kmsg.DescribeConfigs:      {structs(int8s, text, list(compact)), int8s, int8s},
	kmsg.AlterConfigs:         {structs(int8s, text, structs(text, text)), int8s},
	kmsg.DescribeLogDirs:      {structs(text, list(fixed4))},
	kmsg.CreatePartitions:     {structs(text, int32s, structs(list(fixed4))), int32s, int8s},
	kmsg.IncrementalAlterConfigs: {
		structs(int8s, text, structs(text, int8s, text)), int8s,
	},
	kmsg.DescribeQuorum:      {structs(text, structs(int32s))},
	kmsg.UpdateFeatures:      {int32s, structs(text, int16s, int8s), int8s.since(1)},
	kmsg.DescribeCluster:     {int8s, int8s.since(1), int8s.since(2)},
	kmsg.DescribeProducers:   {structs(text, list(fixed4))},
	kmsg.ListConfigResources: {list(fixed1).since(1)},
	kmsg.ConsumerGroupHeartbeat: {
		text, text, int32s, text, text, int32s, list(compact), text.since(1), text, structs(uuid, list(fixed4)),
	},
	kmsg.DescribeTopicPartitions: {structs(text), int32s, {kind: optional, of: []field{text, int32s}}},
}

// taggedStructs are the structs within tagged fields that kmsg knows, which have tagged fields again.
var taggedStructs = map[kmsg.Key]map[uint64][]field{
	kmsg.Fetch: {1: {int32s, int64s}}, // ReplicaState
}

// checkShape walks a request's body. Versions that are not flexible have no tagged fields, and kmsg
// is careful with the rest.
func checkShape(key, version int16, body []byte) error {
	if !wire.FlexibleRequest(key, version) {
		return nil
	}
	w := walker{rest: body, version: version, tagged: taggedStructs[kmsg.Key(key)]}
	w.structure(shapes[kmsg.Key(key)])
	if w.bad {
		return fmt.Errorf("%s version %d: %w", kmsg.NameForKey(key), version, errShape)
	}
	return nil
}

// walker walks over bytes by a shape.
type walker struct {
	rest    []byte
	version int16
	tagged  map[uint64][]field // of the request itself, not of the structs in it
	bad     bool
}

func (w *walker) structure(fields []field) {
	tagged := w.tagged
	w.tagged = nil
	for i := range fields {
		f := &fields[i]
		if w.version < f.from || f.to > 0 && w.version > f.to {
			continue
		}
		w.value(f)
	}
	w.tags(tagged)
}

func (w *walker) value(f *field) {
	switch f.kind {
	case compact:
		if n := w.uvarint(); n > 0 {
			w.skip(n - 1)
		}
	case array, values:
		element := field{kind: f.element}
		for range w.count() {
			if w.bad {
				return
			}
			if f.kind == array {
				w.structure(f.of)
			} else {
				w.value(&element)
			}
		}
	case optional:
		if len(w.rest) > 0 && int8(w.rest[0]) >= 0 {
			w.skip(1)
			w.structure(f.of)
			return
		}
		w.skip(1)
	default:
		w.skip(uint64(f.kind))
	}
}

// count reads the length of a compact array, every element of which has at least a byte.
func (w *walker) count() uint64 {
	n := w.uvarint()
	if n == 0 {
		return 0
	}
	if n-1 > uint64(len(w.rest)) {
		w.bad = true
		return 0
	}
	return n - 1
}

// tags walks over tagged fields, each of which has at least two bytes.
func (w *walker) tags(known map[uint64][]field) {
	n := w.uvarint()
	if n > uint64(len(w.rest)/2) {
		w.bad = true
		return
	}
	for range n {
		tag, size := w.uvarint(), w.uvarint()
		if size > uint64(len(w.rest)) {
			w.bad = true
			return
		}
		if of, ok := known[tag]; ok {
			inner := walker{rest: w.rest[:size], version: w.version}
			inner.structure(of)
			w.bad = w.bad || inner.bad
		}
		w.skip(size)
	}
}

func (w *walker) skip(n uint64) {
	if n > uint64(len(w.rest)) {
		w.bad, w.rest = true, nil
		return
	}
	w.rest = w.rest[n:]
}

// uvarint reads at most 32 bits, as kmsg does.
func (w *walker) uvarint() uint64 {
	v, n := binary.Uvarint(w.rest)
	if n <= 0 || v > math.MaxUint32 {
		w.bad, w.rest = true, nil
		return 0
	}
	w.rest = w.rest[n:]
	return v
}
