package batch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// sieved is a record as the tests compare it.
type sieved struct {
	offset, ms int64
	key, value []byte
	headers    string
}

func readSieved(t *testing.T, b Batch) []sieved {
	t.Helper()
	if err := b.CheckCRC(); err != nil {
		t.Fatal(err)
	}
	var out []sieved
	for r, err := range NewChecker().Records(b) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sieved{b.OffsetOf(&r), b.TimestampOf(&r), bytes.Clone(r.Key), bytes.Clone(r.Value), fmt.Sprintf("%q", r.Headers)})
	}
	return out
}

// TestSieveTakesOutWhatIsToGoAndNothingElse sifts random batches of every codec, sets a delete horizon or not, sifts what came
// out again, and compares with a plain list.
func TestSieveTakesOutWhatIsToGoAndNothingElse(t *testing.T) {
	c := NewChecker()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := NewBuilder(BuilderOptions{Codec: Codec(r.IntN(5)), Checker: c, BaseOffset: r.Int64N(1 << 40), LeaderEpoch: 7})
		if r.IntN(2) == 0 {
			b.SetProducer(4, 2, 100, r.IntN(2) == 0)
		}
		for i := range 1 + r.IntN(60) {
			var key, value []byte
			if r.IntN(10) > 0 {
				key = fmt.Appendf(nil, "k%d", r.IntN(9))
			}
			if r.IntN(4) > 0 {
				value = bytes.Repeat([]byte{byte(i)}, r.IntN(2000))
			}
			var headers []Header
			for range r.IntN(3) {
				headers = append(headers, Header{Key: []byte("h"), Value: value})
			}
			b.Append(1_700_000_000_000+r.Int64N(100_000)-50_000, key, value, headers)
		}
		made, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(4) == 0 {
			made.SetLogAppendTime(1_700_000_000_500)
		}
		s := NewSieve(c)
		for round := range 3 {
			before := slices.Clone(made)
			all := readSieved(t, made)
			share := r.IntN(4)
			var want []sieved
			i, tombstones := 0, false
			sifted, err := s.Sift(made, func(g *Glimpse) bool {
				w := all[i]
				i++
				if made.BaseOffset()+int64(g.OffsetDelta) != w.offset || !bytes.Equal(g.Key, w.key) || (g.Key == nil) != (w.key == nil) || g.HasValue != (w.value != nil) {
					t.Fatalf("seed %d: glimpse %+v of %+v", seed, g, w)
				}
				if r.IntN(4) < share {
					return false
				}
				want = append(want, w)
				tombstones = tombstones || (w.key != nil && w.value == nil)
				return true
			})
			if err != nil || int(sifted.Kept) != len(want) || sifted.All != (len(want) == len(all)) || sifted.Tombstones != tombstones {
				t.Fatalf("seed %d: %+v %v, want %d records", seed, sifted, err, len(want))
			}
			if len(want) == 0 {
				checkEmpty(t, made)
				break
			}
			horizon := NoHorizon
			if round == 1 {
				horizon = 1_800_000_000_000 + r.Int64N(1000)
			}
			out, err := s.Append([]byte("before"), horizon)
			if err != nil || !bytes.Equal(made, before) {
				t.Fatalf("seed %d: %v, or the batch was changed", seed, err)
			}
			next := Batch(out[len("before"):])
			if got := readSieved(t, next); !slices.EqualFunc(got, want, sameSieved) {
				t.Fatalf("seed %d round %d: got %d records, want %d", seed, round, len(got), len(want))
			}
			checkHead(t, seed, made, next, horizon)
			made = slices.Clone(next)
		}
	}
}

func sameSieved(a, b sieved) bool {
	return a.offset == b.offset && a.ms == b.ms && bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value) &&
		(a.value == nil) == (b.value == nil) && a.headers == b.headers
}

func checkHead(t *testing.T, seed uint64, old, made Batch, horizon int64) {
	t.Helper()
	if made.BaseOffset() != old.BaseOffset() || made.LastOffset() != old.LastOffset() || made.Codec() != old.Codec() ||
		made.ProducerID() != old.ProducerID() || made.ProducerEpoch() != old.ProducerEpoch() || made.BaseSequence() != old.BaseSequence() ||
		made.LeaderEpoch() != old.LeaderEpoch() || made.TimestampType() != old.TimestampType() || made.IsTransactional() != old.IsTransactional() {
		t.Fatalf("seed %d: header % x became % x", seed, old[:HeaderBytes], made[:HeaderBytes])
	}
	before, had := old.DeleteHorizon()
	ms, has := made.DeleteHorizon()
	if horizon != NoHorizon && (!has || ms != horizon) || horizon == NoHorizon && (had != has || had && ms != before) {
		t.Fatalf("seed %d: horizon %d %v, asked for %d, had %d %v", seed, ms, has, horizon, before, had)
	}
	most := NoTimestamp
	for _, r := range readSieved(t, made) {
		most = max(most, r.ms)
	}
	if made.MaxTimestamp() != most {
		t.Fatalf("seed %d: max timestamp %d, want %d", seed, made.MaxTimestamp(), most)
	}
}

func checkEmpty(t *testing.T, b Batch) {
	t.Helper()
	e := Batch(AppendEmpty(nil, b))
	if err := e.CheckCRC(); err != nil {
		t.Fatal(err)
	}
	if len(e) != HeaderBytes || e.Count() != 0 || e.LastOffset() != b.LastOffset() || e.LastSequence() != b.LastSequence() || e.Codec() != None {
		t.Fatalf("% x", e)
	}
	if len(readSieved(t, e)) != 0 {
		t.Fatal("an empty batch has records")
	}
}

// FuzzSieve sifts any bytes: what comes out can be read, and what does not come out is an error.
func FuzzSieve(f *testing.F) {
	b := NewBuilder(BuilderOptions{})
	b.Append(5, []byte("k"), []byte("v"), nil)
	b.Append(6, []byte("k"), nil, []Header{{Key: []byte("h")}})
	made, err := b.Build()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(made), uint64(1), false)
	f.Add([]byte(made), uint64(2), true)
	f.Fuzz(func(t *testing.T, data []byte, keep uint64, dated bool) {
		b, _, err := Next(data)
		if err != nil || b.LastOffsetDelta() < 0 {
			return
		}
		s, i := NewSieve(NewChecker()), 0
		sifted, err := s.Sift(b, func(*Glimpse) bool { i++; return keep>>(i%64)&1 == 1 })
		if err != nil || sifted.Kept == 0 {
			return
		}
		horizon := NoHorizon
		if dated {
			horizon = 1 << 40
		}
		out, err := s.Append(nil, horizon)
		if err != nil {
			t.Fatal(err)
		}
		n := int32(0)
		for g, err := range NewChecker().Records(Batch(out)) {
			_ = g
			if err == nil {
				n++
			} else {
				return // a record whose fields do not fill it, which sifting does not look at
			}
		}
		if n != sifted.Kept {
			t.Fatalf("%d of %d records", n, sifted.Kept)
		}
	})
}
