package fetchsession

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"barnabas/client/internal/errcode"
)

// broker does with a session what KIP-227 says.
type broker struct {
	id, epoch int32
	next      int32
	cached    map[Partition]Read
}

func (b *broker) fetch(r Request) (id int32, code errcode.Error) {
	switch {
	case r.Epoch == noSession:
		return 0, 0
	case r.Epoch == initialEpoch:
		b.next++
		b.id, b.epoch, b.cached = b.next, 1, map[Partition]Read{}
	case r.ID != b.id:
		return 0, errcode.FetchSessionIDNotFound
	case r.Epoch != b.epoch:
		return 0, errcode.InvalidFetchSessionEpoch
	default:
		b.epoch++
	}
	for _, p := range r.Forget {
		delete(b.cached, p)
	}
	for _, read := range r.Reads {
		b.cached[read.Partition] = read
	}
	return b.id, 0
}

// Whatever is lost or evicted, a broker that answers without an error reads what is wanted, and
// nothing else; and in a quiet session nothing is named again.
func TestBrokerReadsWhatIsWanted(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s Session
		b := &broker{}
		reads := map[Partition]Read{}
		refused := 0
		for step := range 200 {
			p := Partition{Topic: fmt.Sprint("t", rng.IntN(3)), Number: int32(rng.IntN(4))}
			switch rng.IntN(4) {
			case 0:
				delete(reads, p)
			case 1, 2:
				reads[p] = Read{Partition: p, Offset: int64(step), MaxBytes: 1}
			}
			var list []Read
			for _, r := range reads {
				list = append(list, r)
			}
			req := s.Next(list, rng.IntN(50) > 0)
			lost, evicted := rng.IntN(20) == 0, rng.IntN(30) == 0
			if evicted {
				b.id = -1
			}
			if lost && rng.IntN(2) == 0 {
				s.Failed()
				continue
			}
			id, code := b.fetch(req)
			if lost {
				s.Failed()
				continue
			}
			if s.Answered(id, code) {
				refused++
				if refused > 1 {
					t.Fatalf("seed %d, step %d: refused again: %v", seed, step, code)
				}
				continue
			}
			refused = 0
			if code != 0 || len(b.cached) != len(reads) {
				t.Fatalf("seed %d, step %d: code %v; the broker reads %v, wanted is %v", seed, step, code, b.cached, reads)
			}
			for p, r := range reads {
				if b.cached[p] != r {
					t.Fatalf("seed %d, step %d: the broker reads %v, wanted is %v", seed, step, b.cached[p], r)
				}
			}
			if quiet := s.Next(list, s.ids); !quiet.Whole() {
				if len(quiet.Reads)+len(quiet.Forget) > 0 {
					t.Fatalf("seed %d, step %d: named again: %+v", seed, step, quiet)
				}
				id, code := b.fetch(quiet)
				s.Answered(id, code)
			}
		}
	}
}

func TestBrokerWithoutRoomForSessions(t *testing.T) {
	var s Session
	list := []Read{{Partition: Partition{Topic: "t"}}}
	for range 3 {
		req := s.Next(list, true)
		if !req.Whole() || req.ID != 0 || len(req.Reads) != 1 {
			t.Fatalf("%+v", req)
		}
		if s.Answered(0, 0) {
			t.Fatal("refused")
		}
	}
}
