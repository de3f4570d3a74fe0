package epoch

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestEpochsAreThoseOfTheRecordsHoweverOftenTheseAreRead: recovery notes the epochs of the records from somewhere on again.
func TestEpochsAreThoseOfTheRecordsHoweverOftenTheseAreRead(t *testing.T) {
	for seed := range uint64(500) {
		dice := rand.New(rand.NewPCG(seed, 3))
		var records []Start
		var e History
		epoch := int32(dice.IntN(3))
		for offset := range int64(1 + dice.IntN(30)) {
			if dice.IntN(4) == 0 {
				epoch += 1 + int32(dice.IntN(3))
			}
			records = append(records, Start{epoch, offset})
			e.Assign(epoch, offset)
		}
		var want []Start
		for _, r := range records {
			if len(want) == 0 || want[len(want)-1].Epoch != r.Epoch {
				want = append(want, r)
			}
		}
		for range 3 {
			from := dice.IntN(len(records))
			for _, r := range records[from:] {
				e.Assign(r.Epoch, r.Offset)
			}
			if got := e.All(); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v once the records from %d on were read again, want %v", seed, got, from, want)
			}
		}
		// A newer leader has written over the end.
		from := dice.IntN(len(records))
		e.Assign(epoch+1, int64(from))
		for _, r := range e.All() {
			if r.Epoch <= epoch && r.Offset >= int64(from) {
				t.Fatalf("seed %d: %v is left although epoch %d began at %d", seed, r, epoch+1, from)
			}
		}
	}
}
