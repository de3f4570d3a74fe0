//go:build !race

package batch

import "testing"

// A batch that is stored as it came costs no allocation, whatever its codec. (Not under the race
// detector, which makes pools forget at random.)
func TestCheckDoesNotAllocate(t *testing.T) {
	for codec := None; codec < codecs; codec++ {
		c := NewChecker()
		b := benchBatch(t, codec, 200, 124)
		check := func() {
			if _, err := c.Check(b, anyTime); err != nil {
				t.Fatal(err)
			}
		}
		check()
		if n := testing.AllocsPerRun(100, check); n != 0 {
			t.Errorf("%s: %v allocations", codec, n)
		}
	}
	b := golden(t)
	if n := testing.AllocsPerRun(100, func() {
		first, _, err := Next(b)
		if err != nil || first.CheckCRC() != nil {
			t.Fatal(err)
		}
		first.Assign(1, 2)
		first.SetLogAppendTime(int64(first.LastSequence()))
		first.SetMaxTimestamp(first.NextOffset())
	}); n != 0 {
		t.Errorf("framing and patching: %v allocations", n)
	}
}
