package partitioner

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// The file holds what org.apache.kafka.common.utils.Utils of Apache Kafka 4.3.1 made of keys of all
// lengths up to 67 bytes and of some long ones: key in hex, its hash, its partition of 1, 3, 12,
// 100 and 2147483647.
func TestKeysGoWhereJavaSendsThem(t *testing.T) {
	f, err := os.Open("testdata/java_murmur2.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	keys := 0
	for lines := bufio.NewScanner(f); lines.Scan(); keys++ {
		var text string
		var hash int32
		var want [5]int32
		if _, err := fmt.Sscanf(lines.Text(), "key=%s %d %d %d %d %d %d", &text, &hash, &want[0], &want[1], &want[2], &want[3], &want[4]); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		key, err := hex.DecodeString(text[1:]) // behind a letter, so that an empty key is a word
		if err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if got := int32(Murmur2(key)); got != hash {
			t.Errorf("key %x: hash %d, Java's is %d", key, got, hash)
		}
		for i, partitions := range []int32{1, 3, 12, 100, 1<<31 - 1} {
			if got := ForKey(key, partitions); got != want[i] {
				t.Errorf("key %x: partition %d of %d, Java's is %d", key, got, partitions, want[i])
			}
		}
	}
	if keys < 300 {
		t.Errorf("only %d keys", keys)
	}
}

func TestCounterDealsInTurn(t *testing.T) {
	var c Counter
	c.StartAt(0xfffffff0) // runs over
	seen := make([]int, 5)
	for range 5000 {
		seen[c.Next(5)]++
	}
	for n, count := range seen {
		if count < 999 || count > 1001 {
			t.Errorf("partition %d was given %d of 5000 records", n, count)
		}
	}
}

// world is a topic whose partitions have backlogs.
type world struct {
	rng   *rand.Rand
	loads []Load
	looks int
}

func (w *world) Loads() []Load  { w.looks++; return w.loads }
func (w *world) Random() uint32 { return w.rng.Uint32() }

func newWorld(seed uint64, backlogs ...int) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7))}
	for n, b := range backlogs {
		if b >= 0 { // below: cannot be written to
			w.loads = append(w.loads, Load{int32(n), b})
		}
	}
	return w
}

func TestStickyStaysUntilItMoves(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(seed, 0, 0, -1, 0)
		var s Sticky
		at := s.Current(4, w)
		for range 50 {
			if again := s.Current(4, w); again != at {
				t.Fatalf("seed %d: moved from %d to %d by itself", seed, at, again)
			}
			next := s.Move(at, 4, w)
			if next == at || next == 2 {
				t.Fatalf("seed %d: from %d to %d, where 2 cannot be written to", seed, at, next)
			}
			if follow := s.Move(at, 4, w); follow != next {
				t.Fatalf("seed %d: the second who found %d full went to %d, the first to %d", seed, at, follow, next)
			}
			at = next
		}
	}
}

func TestStickyHasNowhereElseToGo(t *testing.T) {
	w := newWorld(1, -1, 0, -1)
	var s Sticky
	if a, b := s.Current(3, w), s.Move(1, 3, w); a != 1 || b != 1 {
		t.Errorf("chosen %d, then %d, of which only 1 can be written to", a, b)
	}
	none := newWorld(1, -1, -1, -1)
	if n := s.Move(1, 3, none); n < 0 || n > 2 || n == 1 {
		t.Errorf("without any partition that can be written to: %d", n)
	}
	if n := s.Current(1, newWorld(1, 0)); n != 0 {
		t.Errorf("of a topic made again with one partition: %d", n)
	}
}

// Whatever sizes records have, all partitions get the same number of bytes in the long run, and
// with backlogs those with shorter ones more (KIP-794).
func TestUniformSpreadsBytes(t *testing.T) {
	for seed := range uint64(10) {
		for _, c := range []struct {
			adaptive bool
			backlogs []int
			shares   []float64
		}{
			{false, []int{0, 9, 3, 0}, []float64{0.25, 0.25, 0.25, 0.25}},
			{true, []int{2, 2, 2, 2}, []float64{0.25, 0.25, 0.25, 0.25}},
			{true, []int{0, 3, 1, 2}, []float64{0.4, 0.1, 0.3, 0.2}},
			{true, []int{0, -1, 3, 0}, []float64{4. / 9, 0, 1. / 9, 4. / 9}},
		} {
			w := newWorld(seed, c.backlogs...)
			u := Uniform{BatchBytes: 1000, Adaptive: c.adaptive}
			bytes := make([]float64, 4)
			total, batch, records := 0., 0, 0
			for total < 5_000_000 {
				n := u.Current(4, w)
				size := 1 + w.rng.IntN(400)
				batch += size
				full := batch >= 1000
				if full {
					batch = 0
				}
				u.Appended(n, size, full, 4, w)
				bytes[n] += float64(size)
				total += float64(size)
				records++
			}
			for n, want := range c.shares {
				if got := bytes[n] / total; got < want-0.03 || got > want+0.03 {
					t.Errorf("seed %d: backlogs %v: partition %d got %.3f of the bytes, expected %.3f", seed, c.backlogs, n, got, want)
				}
			}
			if w.looks > records/3 {
				t.Errorf("seed %d: looked at the loads %d times for %d records", seed, w.looks, records)
			}
		}
	}
}

// A partition is left when its batch is full, not in the middle of one, and at the latest after
// two batches' worth.
func TestUniformLeavesNoHalfBatch(t *testing.T) {
	w := newWorld(3, 0, 0, 0, 0, 0, 0, 0, 0)
	u := Uniform{BatchBytes: 1000}
	at := u.Current(8, w)
	looks := w.looks
	for _, step := range []struct {
		bytes int
		full  bool
		moves bool
	}{{900, true, false}, {200, false, false}, {800, false, false}, {99, false, false}, {1, false, true}, {1000, true, true}, {1999, false, false}, {0, true, true}} {
		u.Appended(u.Current(8, w), step.bytes, step.full, 8, w)
		if moved := w.looks != looks; moved != step.moves {
			t.Errorf("%+v: chosen anew: %v", step, moved)
		}
		looks = w.looks
	}
	u.Appended((at+1)%8, 5000, true, 8, w) // of somebody who chose before
	if u.last != (at+1)%8 && w.looks != looks {
		t.Error("bytes of another partition moved it")
	}
}
