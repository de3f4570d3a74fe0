// Package shape decides whether bytes can be a flexible message (KIP-482) of a layout, before a decoder sees them.
//
// Decoders believe the number of tagged fields that a message names and count down from it, four billion times for six
// hostile bytes, and make an array of as many structs as there are bytes left. So a body is walked once by its layout, which
// copies nothing, and every count is held against the bytes that are there.
//
// Whoever decodes what others sent may call it: the broker for requests, the client for responses. The layouts are its
// callers', tested there against the decoder's own encoder; this package knows no message by name.
package shape

import (
	"encoding/binary"
	"math"
)

// kind of a field. The kinds of one size are that size.
type kind byte

const (
	fixed1  kind = 1
	fixed2  kind = 2
	fixed4  kind = 4
	fixed8  kind = 8
	fixed16 kind = 16
	compact kind = 's' // a string or bytes, perhaps null
	array   kind = '[' // of structs
	values  kind = 'v' // an array of plain values, each of kind element
	within  kind = '{' // a struct
	perhaps kind = '?' // a struct after a byte that says whether it is there
	tagged  kind = 't' // among a struct's tagged fields, the one of the number
)

// Field is a part of a struct, in all versions unless Since or Until say otherwise.
type Field struct {
	kind, element kind
	from, before  int16 // in the versions from from on and before before (0: no end)
	number        uint32
	of            []Field // a struct's fields; the one that a tag holds
}

// Plain fields.
var (
	Int8  = Field{kind: fixed1} // a bool too
	Int16 = Field{kind: fixed2}
	Int32 = Field{kind: fixed4}
	Int64 = Field{kind: fixed8}
	UUID  = Field{kind: fixed16}
	Text  = Field{kind: compact} // a string or bytes, perhaps null
)

// Structs is an array of structs, perhaps null.
func Structs(of ...Field) Field { return Field{kind: array, of: of} }

// List is an array of plain fields, perhaps null.
func List(of Field) Field { return Field{kind: values, element: of.kind} }

// Inline is a struct that is always there.
func Inline(of ...Field) Field { return Field{kind: within, of: of} }

// Maybe is a struct that may be null.
func Maybe(of ...Field) Field { return Field{kind: perhaps, of: of} }

// Tag is a tagged field of the struct that it stands in. Tagged fields without one are passed over unread.
func Tag(number uint32, of Field) Field { return Field{kind: tagged, number: number, of: []Field{of}} }

// Since is the field from a version on.
func (f Field) Since(version int16) Field { f.from = version; return f }

// Until is the field up to a version, that one included.
func (f Field) Until(version int16) Field { f.before = version + 1; return f }

// Walk walks over a message of these fields and returns what lies behind it; ok is false where the bytes are none.
func Walk(fields []Field, version int16, body []byte) (rest []byte, ok bool) {
	w := walker{rest: body, version: version}
	w.structure(fields)
	return w.rest, !w.bad
}

// walker walks over bytes by a shape. After something bad nothing is left.
type walker struct {
	rest    []byte
	version int16
	bad     bool
}

func (w *walker) structure(fields []Field) {
	for i := range fields {
		if f := &fields[i]; f.kind != tagged && w.version >= f.from && (f.before == 0 || w.version < f.before) {
			w.value(f)
		}
	}
	w.tags(fields)
}

func (w *walker) value(f *Field) {
	switch f.kind {
	case compact:
		w.text()
	case array:
		for range w.count() {
			if w.bad {
				return
			}
			w.structure(f.of)
		}
	case values:
		if f.element != compact {
			w.skip(w.count() * uint64(f.element))
			return
		}
		for range w.count() {
			if w.bad {
				return
			}
			w.text()
		}
	case within:
		w.structure(f.of)
	case perhaps:
		// Any byte but this one says that there is a struct: so kmsg takes it, and what it reads has to be walked.
		absent := len(w.rest) > 0 && int8(w.rest[0]) == -1
		w.skip(1)
		if !absent && !w.bad {
			w.structure(f.of)
		}
	default:
		w.skip(uint64(f.kind))
	}
}

func (w *walker) text() {
	if n := w.uvarint(); n > 0 {
		w.skip(n - 1)
	}
}

// count reads the length of a compact array, every element of which has at least a byte.
func (w *walker) count() uint64 {
	n := w.uvarint()
	if n == 0 {
		return 0
	}
	if n-1 > uint64(len(w.rest)) {
		w.fail()
		return 0
	}
	return n - 1
}

// tags walks over tagged fields, each of which has at least two bytes.
func (w *walker) tags(fields []Field) {
	n := w.uvarint()
	if n > uint64(len(w.rest)/2) {
		w.fail()
		return
	}
	for range n {
		number, size := w.uvarint(), w.uvarint()
		if w.bad || size > uint64(len(w.rest)) {
			w.fail()
			return
		}
		for i := range fields {
			if f := &fields[i]; f.kind == tagged && uint64(f.number) == number {
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
		w.fail()
		return
	}
	w.rest = w.rest[n:]
}

func (w *walker) fail() { w.bad, w.rest = true, nil }

// uvarint reads at most 32 bits, as kmsg does.
func (w *walker) uvarint() uint64 {
	v, n := binary.Uvarint(w.rest)
	if n <= 0 || v > math.MaxUint32 {
		w.fail()
		return 0
	}
	w.rest = w.rest[n:]
	return v
}
