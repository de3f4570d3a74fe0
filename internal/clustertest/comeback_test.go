package clustertest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
	"barnabas/internal/netx"
)

// TestBrokerIsEligibleAfterACleanStopOnly: of a topic that is not durable a broker has, after a crash, perhaps not all that was
// acknowledged, so it leads nothing before it has copied what another has (KIP-966). After a clean stop it has
// everything, and leads where the others are gone. Of a durable topic it has everything in either case.
func TestBrokerIsEligibleAfterACleanStopOnly(t *testing.T) {
	for seed := range Seeds(6) {
		clean := seed%2 == 0
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			for range 2 {
				n := w.Broker(nodes)
				n.MustStart()
				nodes = append(nodes, n)
			}
			first, second := nodes[3], nodes[4]
			c := w.MustDial("client", nodes[0])
			for _, name := range []string{"cached", "durable"} {
				if err := c.PlaceTopic(w.Context(), name, 1, 4, 5); err != nil {
					w.Fatalf("%v", err)
				}
				w.mustAlter(c, name, "min.insync.replicas", "2")
				w.mustAlter(c, name, "flush.before.ack", fmt.Sprint(name == "durable"))
			}
			w.whole(nodes, 5*time.Second, "cached", "durable")
			leader := func(name string) int32 { return w.partition(nodes[0], name, 0).Leader }
			if clean {
				if err := second.Stop(); err != nil {
					w.Fatalf("stop: %v", err)
				}
			} else {
				second.Kill()
			}
			w.Eventually("the second is eligible", 5*time.Second, func() bool {
				p := w.partition(nodes[0], "cached", 0)
				return p.Leader == 4 && slices.Contains(p.ELR, 5)
			})
			first.Kill()
			w.Eventually("nobody leads", 5*time.Second, func() bool {
				return leader("cached") == metadata.NoLeader && leader("durable") == metadata.NoLeader
			})
			second.MustStart()
			w.Eventually("the second leads what is durable", 5*time.Second, func() bool { return leader("durable") == 5 })
			time.Sleep(5 * time.Second)
			want := metadata.NoLeader
			if clean {
				want = 5
			}
			if p := w.partition(nodes[0], "cached", 0); p.Leader != want {
				w.Fatalf("stopped cleanly: %v: cached is led by %d: %+v\n%s", clean, p.Leader, p, second.Log())
			}
			first.MustStart()
			w.whole(nodes, 10*time.Second, "durable")
			if !clean { // neither has ended in peace, so neither is known to have everything
				return
			}
			w.whole(nodes, 10*time.Second, "cached")
		})
	}
}

// partition is one as a node knows it.
func (w *World) partition(n *Node, topic string, number int32) metadata.Partition {
	w.T.Helper()
	t, known := n.Broker().Image().Topic(topic)
	if !known {
		w.Fatalf("%s does not know %s", n.Name, topic)
	}
	return *t.Partitions[number]
}

func (w *World) mustAlter(c *Client, topic, key, value string) {
	w.T.Helper()
	if err := c.Alter(w.Context(), kmsg.ConfigResourceTypeTopic, topic, key, &value); err != nil {
		w.Fatalf("set %s of %s: %v", key, topic, err)
	}
}

// dials counts a host's attempts to reach an address.
type dials struct {
	netx.Network
	to    string
	count atomic.Int64
}

func (d *dials) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if addr == d.to {
		d.count.Add(1)
	}
	return d.Network.Dial(ctx, addr)
}

// TestUnregisteredBrokerIsNotDialled: a broker that is gone is looked for as long as it is registered, and no longer; it may come back.
func TestUnregisteredBrokerIsNotDialled(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		network := &dials{Network: w.Net.Host(nodes[0].Name), to: "broker4:" + internalPort}
		set, err := nodes[0].Config()
		if err != nil {
			w.Fatalf("%v", err)
		}
		var starting sync.WaitGroup
		starting.Go(func() {
			if err := nodes[0].StartOn(w.Context(), network, set); err != nil {
				w.Errorf("%v", err)
			}
		})
		w.StartAll(nodes[1:]...)
		starting.Wait()
		fourth := w.Broker(nodes)
		fourth.MustStart()
		fourth.Kill()
		before := network.count.Load()
		time.Sleep(10 * time.Second)
		if network.count.Load()-before < 5 {
			w.Fatalf("a broker that is missed was looked for %d times", network.count.Load()-before)
		}
		c := w.MustDial("client", nodes[1])
		q := kmsg.NewPtrUnregisterBrokerRequest()
		q.BrokerID = 4
		if res, err := Call[*kmsg.UnregisterBrokerResponse](w.Context(), c, q); err != nil || res.ErrorCode != 0 {
			w.Fatalf("unregister: %+v, %v", res, err)
		}
		time.Sleep(time.Second)
		before = network.count.Load()
		time.Sleep(time.Minute)
		if now := network.count.Load(); now != before {
			w.Fatalf("a broker that is no more was looked for %d times", now-before)
		}
		fourth.MustStart()
		if err := c.PlaceTopic(w.Context(), "orders", 2, 4, 1); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(append(nodes, fourth), 5*time.Second, "orders")
	})
}
