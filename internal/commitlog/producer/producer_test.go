package producer

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
)

const testNow = int64(1_700_000_000_000)

func newTable() *Table {
	t := NewTable(&atomic.Int64{})
	return &t
}

func TestTheOldestProducerIsForgottenFirst(t *testing.T) {
	s := newTable()
	for id := range int64(10) {
		s.touch(newState(id))
	}
	s.touch(s.Get(0))
	s.touch(s.Get(5))
	s.Get(1).Transaction = 3
	s.Trim(4)
	var left []int64
	for p := s.oldest; p != nil; p = p.newer {
		left = append(left, p.ID)
	}
	if !slices.Equal(left, []int64{1, 9, 0, 5}) { // 1 has a transaction open
		t.Fatalf("left are %v", left)
	}
	if s.total.Load() != 4 || s.Len() != 4 {
		t.Fatalf("%d and %d counted", s.total.Load(), s.Len())
	}
	s.Clear()
	if s.total.Load() != 0 || s.oldest != nil || s.newest != nil {
		t.Fatal("not empty after Clear")
	}
}

func TestSnapshotIsReadBackAndTornOnesAreNot(t *testing.T) {
	s := newTable()
	for id := range int64(5) {
		p := newState(id * 1000)
		p.Epoch, p.CoordinatorEpoch, p.Transaction = int16(id), int32(id-1), id-1
		if id > 0 {
			p.remember(Written{int32(id * 7), 2, id * 100, testNow + id})
		}
		s.touch(p)
	}
	data := s.Snapshot()
	found, err := ParseSnapshot(data)
	if err != nil || len(found) != 5 {
		t.Fatalf("%d entries, %v", len(found), err)
	}
	again := newTable()
	again.Load(found, 500, -2)
	if !bytes.Equal(again.Snapshot(), data) {
		t.Fatal("read back, it is another snapshot")
	}
	for i := range data {
		if _, err := ParseSnapshot(data[:i]); err == nil {
			t.Fatalf("cut at %d it is accepted", i)
		}
		broken := slices.Clone(data)
		broken[i] ^= 4
		if _, err := ParseSnapshot(broken); err == nil {
			t.Fatalf("byte %d changed, it is accepted", i)
		}
	}
}

// As Kafka 4.3.1 wrote it for one idempotent producer.
const kafkas = "\x00\x01\x6e\x5a\x5f\xe2\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x9f\x00\x00\x00\x00\x00\x00" +
	"\x04\x9f\x00\x00\x00\x93\x00\x00\x01\xa2\x04\x24\x48\xe9\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

func TestKafkasSnapshotIsReadAndWrittenAlike(t *testing.T) {
	found, err := ParseSnapshot([]byte(kafkas))
	if err != nil || len(found) != 1 || found[0].Newest().LastOffset != 1183 || found[0].Newest().Delta != 147 {
		t.Fatalf("%+v %v", found, err)
	}
	s := newTable()
	s.Load(found, 1184, 0)
	if out := s.Snapshot(); string(out) != kafkas {
		t.Fatalf("%x", out)
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(kafkas))
	f.Add([]byte("\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := ParseSnapshot(data)
		if err == nil && len(found)*snapshotEntryBytes+snapshotHeadBytes != len(data) {
			t.Fatalf("%d producers in %d bytes", len(found), len(data))
		}
	})
}

// TestFirstUnstableIsTheOldestThatCounts compares with a list that is gone through.
func TestFirstUnstableIsTheOldestThatCounts(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 8))
		var s Transactions
		var open, ended []Transaction
		offset, watermark := int64(0), int64(0)
		for range 60 {
			offset += 1 + r.Int64N(5)
			switch k := r.IntN(3); {
			case k == 0 || len(open) == 0:
				b := Transaction{Producer: offset, First: offset, Last: -1}
				open = append(open, b)
				s.Start(b)
			case k == 1:
				i := r.IntN(len(open))
				e := open[i]
				e.Last = offset
				want := offset + 1
				for j, o := range open {
					if j != i {
						want = min(want, o.First)
					}
				}
				if got := s.StableAfter(&e); got != want {
					t.Fatalf("seed %d: stable after %+v is %d, want %d", seed, e, got, want)
				}
				open = slices.Delete(open, i, i+1)
				ended = append(ended, e)
				s.End(e)
			default:
				watermark = max(watermark, r.Int64N(offset+2))
				s.Committed(watermark)
			}
			want := int64(-1)
			for _, o := range open {
				if want < 0 || o.First < want {
					want = o.First
				}
			}
			for _, e := range ended {
				if e.Last >= watermark && (want < 0 || e.First < want) {
					want = e.First
				}
			}
			got, ok := s.FirstUnstable()
			if ok != (want >= 0) || (ok && got != want) {
				t.Fatalf("seed %d: first unstable %d %v, want %d", seed, got, ok, want)
			}
		}
	}
}
