package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// served lists every key and version that is answered.
func servedVersions() (all [][2]int16) {
	for _, r := range routes {
		for version := max(r.min, r.servedMin); version <= r.max; version++ {
			all = append(all, [2]int16{r.key.Int16(), version})
		}
	}
	return all
}

// survive gives a body to the handler and runs the reply. Any answer and any error is fine.
func (s *stack) survive(key, version int16, body []byte) {
	reply, _, err := s.beginRaw(s.peer(), key, version, body)
	if err != nil || reply == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Millisecond) // a mutated max wait may be days
	defer cancel()
	_, _ = written(ctx, reply)
}

// TestRandomAndMutatedBodies: no body makes the handler panic or take memory out of proportion.
func TestRandomAndMutatedBodies(t *testing.T) {
	s := newStack(t)
	id := s.createTopic("orders", 2)
	s.append("orders", 0, records(3, 10))
	dice := rand.New(rand.NewPCG(1, 2))
	versions := servedVersions()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 40
	given := 0
	for _, kv := range versions {
		key := kmsg.Key(kv[0])
		for range rounds {
			body := make([]byte, dice.IntN(64))
			for i := range body {
				body[i] = byte(dice.Uint32() >> (8 * dice.IntN(4)))
			}
			given += len(body)
			s.survive(kv[0], kv[1], body)
			for _, req := range requestsFor(key, id) {
				req.SetVersion(kv[1])
				body := mutate(dice, req.AppendTo(nil))
				given += len(body)
				s.survive(kv[0], kv[1], body)
			}
		}
	}
	runtime.ReadMemStats(&after)
	s.logged.take() // what a mutated request does wrong may be worth a line
	// Most of it is DescribeConfigs, whose honest answer is some 100 KiB.
	if each := (after.TotalAlloc - before.TotalAlloc) / uint64(rounds*len(versions)*3); each > 1<<20 {
		t.Fatalf("%d bytes allocated for a request of %d on average", each, given/(rounds*len(versions)*3))
	}
}

// mutate changes a few bytes of a body, or its length.
func mutate(dice *rand.Rand, body []byte) []byte {
	for range dice.IntN(4) {
		if len(body) == 0 {
			break
		}
		at := dice.IntN(len(body))
		switch dice.IntN(4) {
		case 0:
			body[at] = byte(dice.Uint32())
		case 1:
			body[at] ^= 1 << dice.IntN(8)
		case 2:
			body = body[:at]
		default:
			body[at] = 0xff
		}
	}
	return body
}

// panicking is a request whose decoder has a defect.
type panicking struct{ kmsg.MetadataRequest }

func (*panicking) ReadFrom(body []byte) error { _ = body[len(body)]; return nil }

// TestDecoderPanicClosesTheConnection: a decoder's panic is an error of the one request.
func TestDecoderPanicClosesTheConnection(t *testing.T) {
	c := &call{req: &wire.Request{Header: wire.Header{Key: kmsg.Metadata.Int16(), Version: 4}, Body: []byte{1}}}
	if _, err := decoded(c, &panicking{}); !errors.Is(err, errDecoderPanic) || !strings.Contains(err.Error(), "Metadata version 4") {
		t.Fatalf("%v, want %v", err, errDecoderPanic)
	}
}

// FuzzHandle throws bodies at every key and version.
func FuzzHandle(f *testing.F) {
	for _, kv := range servedVersions() {
		for _, req := range requestsFor(kmsg.Key(kv[0]), metadata.UUID{1}) {
			req.SetVersion(kv[1])
			f.Add(kv[0], kv[1], req.AppendTo(nil))
		}
	}
	s := newStack(f)
	s.createTopic("orders", 2)
	f.Fuzz(func(_ *testing.T, key, version int16, body []byte) {
		s.survive(key, version, append([]byte(nil), body...))
		s.logged.take()
	})
}
