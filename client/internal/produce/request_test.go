package produce

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

func random(rng *rand.Rand) *Request {
	var id *string
	if rng.IntN(2) == 0 {
		text := fmt.Sprintf("txn-%0*d", rng.IntN(300), 1)
		id = &text
	}
	var batches []Batch
	for n := range rng.IntN(12) {
		topic := rng.IntN(3)
		b := Batch{Topic: fmt.Sprintf("topic-%d", topic), ID: [16]byte{byte(topic)}, Partition: int32(n), Records: make([]byte, rng.IntN(300))}
		if rng.IntN(4) == 0 {
			b.Records = make([]byte, wire.SpliceBytes-2+rng.IntN(4))
		}
		for i := range b.Records {
			b.Records[i] = byte(rng.Uint32())
		}
		batches = append(batches, b)
	}
	return NewRequest(int16(rng.IntN(3)-1), id, time.Duration(rng.IntN(100_000))*time.Millisecond, batches)
}

// In every version, copied or spliced, the request has the bytes that kmsg gives it, and what is small is copied.
func TestRequestsHaveKmsgsBytes(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		r := random(rng)
		for version := range kmsg.NewPtrProduceRequest().MaxVersion() + 1 {
			r.SetVersion(version)
			want := r.ProduceRequest.AppendTo([]byte("before"))
			if got := r.AppendTo([]byte("before")); !bytes.Equal(got, want) {
				t.Fatalf("seed %d, version %d, copied: %x, expected %x", seed, version, got, want)
			}
			var s wire.Splices
			buf := r.AppendSpliced([]byte("before"), &s)
			if got := bytes.Join(s.Pieces(nil, buf), nil); !bytes.Equal(got, want) || len(buf)+s.Bytes() != len(want) {
				t.Fatalf("seed %d, version %d, spliced: %x, expected %x", seed, version, got, want)
			}
			if large := len(want) - len(buf); version >= firstHere && large%wire.SpliceBytes > 12*4 || version < firstHere && large != 0 {
				t.Fatalf("seed %d, version %d: %d bytes are not copied", seed, version, large)
			}
		}
	}
}

// The room that is made for a request suffices, so that nothing is copied twice.
func TestRoomSuffices(t *testing.T) {
	for seed := range uint64(100) {
		r := random(rand.New(rand.NewPCG(seed, 1)))
		r.SetVersion(firstWithTopicIDs)
		var s wire.Splices
		buf := make([]byte, 0, r.room)
		if got := r.AppendSpliced(buf, &s); len(got) > 0 && &got[0] != &buf[:1][0] {
			t.Errorf("seed %d: %d bytes did not fit into %d", seed, len(got), r.room)
		}
	}
}
