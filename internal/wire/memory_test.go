package wire

import (
	"bytes"
	"runtime"
	"testing"
)

// Memory that was not zeroed is as long as was asked for, nobody else's, and stays as it was written.
func TestUnzeroedMemoryIsOnesOwn(t *testing.T) {
	var all [][]byte
	for i, n := range []int{0, 1, worthUnzeroed - 1, worthUnzeroed, worthUnzeroed + 1, 1 << 20, 6_000_001} {
		b := unzeroed(n)
		if len(b) != n {
			t.Fatalf("%d bytes, not %d", len(b), n)
		}
		for j := range b {
			b[j] = byte(i + 1)
		}
		all = append(all, b)
		runtime.GC()
	}
	for i, b := range all {
		if bytes.Count(b, []byte{byte(i + 1)}) != len(b) {
			t.Errorf("%d bytes have changed", len(b))
		}
	}
}
