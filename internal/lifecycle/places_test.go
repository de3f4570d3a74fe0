package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// TestPlacesAreSaidUntilTheyAreTaken: what the controller does not take is said again, ever more seldom, a piece at a time, and nothing
// is said of what it knows, nor by a broker that is not registered.
func TestPlacesAreSaidUntilTheyAreTaken(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var misplaced []metadata.ReplicaDirectory
		for n := range int32(2*maxPlaces + 1) {
			misplaced = append(misplaced, metadata.ReplicaDirectory{Partition: n})
		}
		var mu sync.Mutex // over what both sides use
		epoch, refusals, calls, largest := int64(0), 5, 0, 0
		p := NewPlaces(PlacesOptions{
			Assign: func(_ context.Context, in int64, places []metadata.ReplicaDirectory) error {
				mu.Lock()
				defer mu.Unlock()
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
			Epoch:     func() int64 { mu.Lock(); defer mu.Unlock(); return epoch },
			Misplaced: func() []metadata.ReplicaDirectory { mu.Lock(); defer mu.Unlock(); return misplaced },
			Jitter:    func(d time.Duration) time.Duration { return d / 3 }, Logger: slog.New(slog.DiscardHandler),
		})
		defer p.Close()
		// after lets a time pass and changes something, and returns the calls so far, and the replicas left before the change.
		after := func(d time.Duration, change func()) (int, int, int) {
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			said, left, most := calls, len(misplaced), largest
			change()
			return said, left, most
		}
		if said, _, _ := after(10*time.Second, func() { epoch = 7 }); said > 0 {
			t.Fatalf("%d calls without a registration", said)
		}
		said, left, most := after(time.Minute, func() { refusals, misplaced = 1_000, []metadata.ReplicaDirectory{{}} })
		if left > 0 || said != 5+3 || most != maxPlaces {
			t.Fatalf("%d left after %d calls of up to %d", left, said, most)
		}
		p.Look()
		if again, _, _ := after(time.Minute, func() {}); again-said < 40 || again-said > 70 {
			t.Fatalf("said %d times within a minute", again-said)
		}
	})
}
