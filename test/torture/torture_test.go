package torture

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/test/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Producers, a reader and a group of the classic protocol go through a proxy that delays, throttles and cuts connections, refuses
// new ones, and lets bytes of the old ones come late: nothing is lost, doubled, reordered or seen and gone.
func TestThroughFaults(t *testing.T) {
	broker := barnabastest.Start(t, barnabastest.OverTCP())
	const seed = 1
	network := faults.New(seed, faults.Plan{
		Delay: 5 * time.Millisecond, Lives: 700 * time.Millisecond, Refusals: 8, Trickles: 6, Rate: 40_000, Late: 300 * time.Millisecond,
	})
	defer network.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	counts, err := Run(ctx, Options{
		Brokers: []string{broker.Addr()}, Client: []client.Option{client.Dialer(network.Dial)}, Topic: "faults", Partitions: 3, Replicas: 1, MinInSync: 1,
		Writers: 2, Lasts: 4 * time.Second, Heal: network.Heal, Settle: time.Minute, Groups: []client.Protocol{client.ClassicProtocol}, Seed: seed,
	})
	if err != nil {
		t.Fatalf("seed %d: %v; %v", seed, err, network.Counts())
	}
	t.Log(counts)
	t.Log(network.Counts())
	if wrongs := counts.Wrongs(); len(wrongs) > 0 {
		t.Errorf("seed %d: %s", seed, strings.Join(wrongs, ", "))
	}
	if n := network.Counts(); n.Cuts == 0 || n.Refused == 0 || n.Throttled == 0 || n.Late == 0 {
		t.Errorf("a kind of harm was not done: %v", n)
	}
}
