package segment

import (
	"bytes"
	"testing"
)

func FuzzAborted(f *testing.F) {
	e := AbortedEntry{AbortedTransaction{1, 2, 3}, 4}.entry()
	f.Add(e[:])
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseAborted(data)
		if err != nil {
			return
		}
		var out []byte
		for _, a := range entries {
			e := a.entry()
			out = append(out, e[:]...)
		}
		if !bytes.Equal(out, data) {
			t.Fatalf("%x, again %x", data, out)
		}
	})
}
