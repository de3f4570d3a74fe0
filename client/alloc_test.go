package client

import (
	"testing"
	"time"

	"barnabas/internal/faketime"
)

// Send makes no garbage: what a record needs is in the memory of its batch.
func TestSendAllocatesNothing(t *testing.T) {
	for name, r := range map[string]ProducerRecord{
		"value":   {Value: make([]byte, 100)},
		"key":     {Key: []byte("a key"), Value: make([]byte, 100)},
		"headers": {Value: make([]byte, 100), Headers: []Header{{"trace", []byte("x")}, {"origin", []byte("y")}}},
	} {
		for _, spread := range []Spread{SpreadInTurn, SpreadSticky, SpreadUniformly} {
			bubble(t, 1, func(t *testing.T, f *fakeCluster) {
				f.topic("t", 3)
				c, p := newTestProducer(t, f, Linger(time.Hour), DeliveryTimeout(2*time.Hour), BatchSize(1<<20), SpreadBy(spread))
				defer c.Close()
				defer closeProducer(t, p)
				r.Topic = "t"
				failed := 0
				done := func(_ RecordMetadata, err error) {
					if err != nil {
						failed++
					}
				}
				send := func() {
					if err := p.Send(t.Context(), r, done); err != nil {
						t.Error(err)
					}
				}
				for range 1000 { // the metadata is here, and the memory of the batches
					send()
				}
				if allocs := testing.AllocsPerRun(1000, send); allocs > 0.1 && !faketime.RaceDetector {
					t.Errorf("%s, spread %d: %v allocations for each record", name, spread, allocs)
				}
			})
		}
	}
}
