package cluster

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
)

// Where nobody watches, watching a request costs no memory.
func TestNobodyWatchingCostsNothing(t *testing.T) {
	conn := &Connection{link: &Link{set: &Links{c: &Cluster{cfg: Config{Hooks: &hooks.Hooks{}}}}}}
	req := kmsg.NewPtrHeartbeatRequest()
	encode := func(dst []byte) []byte { return append(dst, 1) }
	var buf [8]byte
	if n := testing.AllocsPerRun(1000, func() {
		w := conn.watch(req, 0)
		w.counting(encode)(buf[:0])
		w.tellSent(false)
		w.arrived(nil)
		w.tellAnswered(nil, nil)
	}); n != 0 {
		t.Errorf("%v allocations for each request", n)
	}
}
