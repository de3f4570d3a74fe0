package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/metadata"
)

// TestPlacesAreSaidUntilTheyAreTaken: what the controller does not take is said again, ever more seldom, a piece at a time, and nothing
// is said of what it knows, nor by a broker that is not registered.
func TestPlacesAreSaidUntilTheyAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var misplaced []metadata.ReplicaDirectory
		for n := range int32(2*maxPlaces + 1) {
			misplaced = append(misplaced, metadata.ReplicaDirectory{Partition: n})
		}
		epoch, refusals, calls, largest := int64(0), 5, 0, 0
		p := NewPlaces(PlacesOptions{
			Assign: func(_ context.Context, in int64, places []metadata.ReplicaDirectory) error {
				calls++
				largest = max(largest, len(places))
				if in != 7 {
					t.Errorf("said in epoch %d", in)
				}
				if refusals--; refusals >= 0 {
					return errors.New("nobody decides")
				}
				misplaced = misplaced[len(places):]
				return nil
			},
			Epoch:     func() int64 { return epoch },
			Misplaced: func() []metadata.ReplicaDirectory { return misplaced },
			Jitter:    func(d time.Duration) time.Duration { return d / 3 }, Logger: slog.New(slog.DiscardHandler),
		})
		defer p.Close()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if calls > 0 {
			t.Fatalf("%d calls without a registration", calls)
		}
		epoch = 7
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(misplaced) > 0 || calls != 5+3 || largest != maxPlaces {
			t.Fatalf("%d left after %d calls of up to %d", len(misplaced), calls, largest)
		}
		refusals, misplaced = 1_000, []metadata.ReplicaDirectory{{}}
		p.Look()
		time.Sleep(time.Minute)
		synctest.Wait()
		if said := calls - 8; said < 40 || said > 70 {
			t.Fatalf("said %d times within a minute", said)
		}
	})
}
