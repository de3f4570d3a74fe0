package accumulator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"barnabas/internal/batch"
)

// Nothing is handed out twice, nothing is lost that is needed again soon, and what is not needed goes.
func TestSparesAreKeptWhileNeeded(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var s spares[*int]
		now := time.Unix(0, 0)
		made := 0
		round := func(most int) {
			used := map[*int]bool{}
			for range most {
				p := s.take()
				if p == nil {
					p = new(int)
					made++
				}
				if used[p] {
					t.Fatalf("seed %d: given twice", seed)
				}
				used[p] = true
			}
			for p := range used {
				s.put(p)
			}
		}
		most := 1 + rng.IntN(50)
		for range 100 { // the largest round comes often enough
			round(most)
			round(rng.IntN(most + 1))
			now = now.Add(time.Duration(rng.Int64N(int64(spareFor) / 4)))
			s.trim(now)
		}
		if made != most {
			t.Errorf("seed %d: %d made for %d in use", seed, made, most)
		}
		few := rng.IntN(most)
		for range 3 {
			s.trim(now)
			round(few)
			now = now.Add(spareFor)
		}
		if s.trim(now); len(s.free) != few {
			t.Errorf("seed %d: %d are kept, and %d needed", seed, len(s.free), few)
		}
	}
}

// After a burst of full batches small ones do not keep its memory, while full ones go round in the same.
func TestSparesShrinkWithTheBatches(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.Gzip} {
		t.Run(fmt.Sprint(codec), func(t *testing.T) {
			const full = 1 << 20
			b := newBench(Config{BatchBytes: full, Linger: time.Hour, DeliveryTimeout: time.Hour, Codec: codec})
			defer b.acc.Stop()
			now := time.Now()
			var builder *batch.Builder
			var records *Sent[string]
			round := func(n, valueBytes int) (sameBuilder, sameRecords bool) {
				for range n {
					b.q.Append(&Record[string]{Value: make([]byte, valueBytes)}, now)
				}
				b.q.Flush(now)
				taken, _ := b.q.Take(1, full, now)
				if taken == nil {
					t.Fatal("there is nothing to send")
				}
				sameBuilder, sameRecords = taken.builder == builder, &taken.Records[0] == records
				builder, records = taken.builder, &taken.Records[0]
				if err := b.acc.Encode(taken); err != nil {
					t.Fatal(err)
				}
				b.q.Resolve(taken, Outcome{}, now)
				return sameBuilder, sameRecords
			}
			const many, few = 9000, 2
			for i := range 5 {
				sameBuilder, sameRecords := round(many, 100)
				if i > 0 && !(sameBuilder && sameRecords) {
					t.Errorf("full batch %d: the same builder %v, the same records %v", i, sameBuilder, sameRecords)
				}
			}
			round(few, 100) // in the memory of the large
			for i := range 5 {
				sameBuilder, sameRecords := round(few, 100)
				if reused := i > 0; sameBuilder != reused || sameRecords != reused {
					t.Errorf("small batch %d: the same builder %v, the same records %v", i, sameBuilder, sameRecords)
				}
				if n := builder.Capacity(); n > spareRoomBytes {
					t.Errorf("small batch %d has %d bytes", i, n)
				}
			}
		})
	}
}
