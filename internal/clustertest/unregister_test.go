package clustertest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// TestABrokerThatWasUnregisteredComesBackToItsReplicas: taking a dead broker off the list (KIP-185) takes no replica from it, and is
// no reason not to start again on what it has.
func TestABrokerThatWasUnregisteredComesBackToItsReplicas(t *testing.T) {
	for seed := range Seeds(3) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3, quick...)
			w.StartAll(nodes...)
			c := w.MustDial("asks", nodes[0])
			if _, err := c.CreateTopic(w.Context(), "orders", 4); err != nil {
				w.Fatalf("%v", err)
			}
			w.whole(nodes, 10*time.Second, "orders")
			for _, n := range nodes { // one of them leads: what is written is on the disks of all
				at := w.MustDial("writes", n)
				for p := range int32(4) {
					_, _ = at.Produce(w.Context(), -1, "orders", p, Batch(time.Now().UnixMilli(), batch.None, "v"))
				}
			}
			nodes[2].Kill()
			q := kmsg.NewPtrUnregisterBrokerRequest()
			q.BrokerID = 3
			w.Eventually("the dead broker is unregistered", 10*time.Second, func() bool {
				res, err := Call[*kmsg.UnregisterBrokerResponse](w.Context(), c, q)
				return err == nil && failure(res.ErrorCode, res.ErrorMessage) == nil
			})
			w.Eventually("nobody knows it", 5*time.Second, func() bool {
				_, known := nodes[0].Broker().Image().Broker(3)
				return !known
			})
			nodes[2].MustStart()
			w.whole(nodes, 20*time.Second, "orders")
		})
	}
}
