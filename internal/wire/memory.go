package wire

import (
	"strings"
	"unsafe"
)

// worthUnzeroed is from which size on memory is taken as it is; below it zeroing is not to be noticed.
const worthUnzeroed = 32 << 10

// unzeroed gives n bytes for whoever overwrites all of them before anybody reads one: what is in them is what happened to be
// there. A consumer's responses are megabytes, which make would write once more from end to end, a sixth of its processor time.
//
// Only strings.Builder gives such memory out. Nobody keeps the string that the bytes are reached by, so that nothing that must
// not change does.
func unzeroed(n int) []byte {
	if n < worthUnzeroed {
		return make([]byte, n)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(0) // an empty string need not point to its memory
	return unsafe.Slice(unsafe.StringData(b.String()), n)
}
