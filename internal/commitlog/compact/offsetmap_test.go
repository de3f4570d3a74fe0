package compact

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

// The first of the vectors that SipHash's authors publish for 128 bits: key 00..0f, messages of 0, 1, 2 ... bytes.
func TestSipHashAgreesWithItsAuthors(t *testing.T) {
	key := sipKey{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	var message []byte
	for n, want := range []string{"a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45"} {
		high, low := key.sum(message)
		got := hex.EncodeToString(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, high), low))
		if got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
		message = append(message, byte(n))
	}
}

// TestMapIsAMap compares with Go's, full maps, reused ones and far offsets included.
func TestMapIsAMap(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		m, err := NewMap(int64(r.IntN(4000)), 0.5+r.Float64()/2)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			first := r.Int64N(1 << 50)
			m.Reset(first)
			want := map[string]int64{}
			for offset := first; len(want) < 400 && offset < first+2000; offset += 1 + r.Int64N(3) {
				key := fmt.Sprint(r.IntN(500))
				_, known := want[key]
				if !m.Put([]byte(key), offset) {
					if known || m.Len() < m.most {
						t.Fatalf("seed %d: %s was refused with %d of %d keys", seed, key, m.Len(), m.most)
					}
					continue
				}
				want[key] = offset
			}
			if m.Len() != len(want) {
				t.Fatalf("seed %d: %d keys, want %d", seed, m.Len(), len(want))
			}
			for i := range 500 {
				key := fmt.Sprint(i)
				offset, known := want[key]
				if got, found := m.Get([]byte(key)); found != known || got != offset {
					t.Fatalf("seed %d: %s is at %d %v, want %d %v", seed, key, got, found, offset, known)
				}
			}
		}
		m.Free()
	}
}

func TestMapRefusesOffsetsThatItCannotHold(t *testing.T) {
	m, err := NewMap(1024, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	m.Reset(100)
	if !m.Put([]byte("a"), 100+maxDistance) {
		t.Fatal("the last offset in reach is refused")
	}
	if at, found := m.Get([]byte("a")); !found || at != 100+maxDistance {
		t.Fatalf("%d %v", at, found)
	}
	if m.Put([]byte("b"), 101+maxDistance) {
		t.Fatal("an offset out of reach is taken")
	}
}

func BenchmarkMap(b *testing.B) {
	m, err := NewMap(128<<20, 0.9)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Free()
	keys := make([][]byte, 1_000_000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%012d", i)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := 0; b.Loop(); i++ {
		m.Put(keys[r.IntN(len(keys))], int64(i))
	}
}
