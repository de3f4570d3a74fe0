package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// kmsg believes the number of tagged fields that a flexible response names (KIP-482) and counts down
// from it, four billion times for six hostile bytes; and it makes an array of as many structs as
// there are bytes left. So before kmsg sees a body it is walked once by the shapes of shapes.go,
// which copies nothing and holds every count against the bytes that are there. What kmsg then makes
// is a small multiple of the body. That the shapes are right is tested against kmsg's own encoder.

// errShape says that a body is not a response of its kind and version.
var errShape = errors.New("malformed response")

// maxBodyBytes bounds a response that is no Fetch: Metadata of a million partitions fits. A larger
// one is refused undecoded.
const maxBodyBytes = 64 << 20

// kind of a field in a shape.
type kind byte

const (
	fixed1  kind = 1 // int8, bool
	fixed2  kind = 2
	fixed4  kind = 4
	fixed8  kind = 8
	fixed16 kind = 16  // a UUID
	compact kind = 's' // a string or bytes, perhaps null
	array   kind = '[' // of structs
	values  kind = 'v' // an array of plain values, each of kind element
	within  kind = '{' // a struct
	perhaps kind = '?' // a struct after a byte that says whether it is there
	tagged  kind = 't' // among a struct's tagged fields, the one of the number
)

// field is a part of a struct, in the versions from from on and before before (0: no end).
type field struct {
	kind         kind
	from, before int16
	of           []field // a struct's fields; the one that a tag holds
	element      kind    // values
	number       uint64  // tagged
}

func structs(of ...field) field         { return field{kind: array, of: of} }
func list(element kind) field           { return field{kind: values, element: element} }
func inline(of ...field) field          { return field{kind: within, of: of} }
func maybe(of ...field) field           { return field{kind: perhaps, of: of} }
func tag(number uint64, of field) field { return field{kind: tagged, number: number, of: []field{of}} }

func (f field) since(version int16) field { f.from = version; return f }
func (f field) until(version int16) field { f.before = version + 1; return f }

var (
	int8s  = field{kind: fixed1}
	int16s = field{kind: fixed2}
	int32s = field{kind: fixed4}
	int64s = field{kind: fixed8}
	uuid   = field{kind: fixed16}
	text   = field{kind: compact}
)

// checkShape walks a response's body. Versions that are not flexible have no tagged fields.
func checkShape(key, version int16, body []byte) error {
	if key != fetchKey && len(body) > maxBodyBytes {
		return fmt.Errorf("%s of %d bytes: %w", kmsg.NameForKey(key), len(body), errShape)
	}
	shape, known := shapes[kmsg.Key(key)]
	if !known || !wire.FlexibleRequest(key, version) {
		return nil
	}
	w := walker{rest: body, version: version}
	w.structure(shape)
	if w.bad {
		return fmt.Errorf("%s version %d: %w", kmsg.NameForKey(key), version, errShape)
	}
	return nil
}

const fetchKey = 1

// walker walks over bytes by a shape.
type walker struct {
	rest    []byte
	version int16
	bad     bool
}

func (w *walker) structure(fields []field) {
	for i := range fields {
		if f := &fields[i]; f.kind != tagged && w.version >= f.from && (f.before == 0 || w.version < f.before) {
			w.value(f)
		}
	}
	w.tags(fields)
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
	case within:
		w.structure(f.of)
	case perhaps:
		there := len(w.rest) > 0 && int8(w.rest[0]) != -1
		w.skip(1)
		if there {
			w.structure(f.of)
		}
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
func (w *walker) tags(fields []field) {
	n := w.uvarint()
	if n > uint64(len(w.rest)/2) {
		w.bad = true
		return
	}
	for range n {
		number, size := w.uvarint(), w.uvarint()
		if w.bad || size > uint64(len(w.rest)) {
			w.bad = true
			return
		}
		for i := range fields {
			if f := &fields[i]; f.kind == tagged && f.number == number {
				inner := walker{rest: w.rest[:size], version: w.version}
				inner.value(&f.of[0])
				w.bad = w.bad || inner.bad
			}
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
