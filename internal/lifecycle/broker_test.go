package lifecycle

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// TestDeadBrokerIsFencedByItsConnection: a process that has died is fenced within a few hundred milliseconds, and all it had
// is led by others in one entry of the log.
func TestDeadBrokerIsFencedByItsConnection(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 300)
		w.pass(time.Duration(w.seed) * 37 * time.Millisecond)
		before := w.ledger.entryCount()
		w.kill(2)
		if took := w.awaitImage("2 is fenced", time.Second, fenced(2)); took > 450*time.Millisecond {
			w.failf("it took %v", took)
		}
		topic, _ := w.image().Topic("orders")
		for n, p := range topic.Partitions {
			if slices.Contains(p.ISR, 2) || p.Leader == 2 || p.Leader == metadata.NoLeader {
				w.failf("partition %d: %+v", n, p)
			}
		}
		if entries := w.ledger.since(before); len(entries) != 1 || len(entries[0]) != 301 {
			w.failf("%d entries, the first of %d records", len(entries), len(entries[0]))
		}
		w.pass(10 * time.Second)
		for _, id := range []int32{1, 3} {
			if !takesPart(id)(w.image()) {
				w.failf("broker %d does not take part", id)
			}
		}
	})
}

// TestSilentBrokerIsFencedByItsSession: a broker that hangs, or is cut off, keeps its connections for a while; it is fenced
// when its session ends, not before, and takes part again once it is heard of.
func TestSilentBrokerIsFencedByItsSession(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 3)
		epoch := w.epoch(3)
		w.pass(time.Duration(w.seed) * 37 * time.Millisecond)
		w.net.Isolate(host(3))
		others := func(img *metadata.Image) bool { return fenced(3)(w.image()) }
		if took := w.awaitImage("3 is fenced", 3*time.Second, others); took < 1500*time.Millisecond || took > 2100*time.Millisecond {
			w.failf("fenced after %v", took)
		}
		w.net.Rejoin(host(3))
		w.awaitImage("3 takes part", 3*time.Second, takesPart(3))
		if w.epoch(3) != epoch {
			w.failf("it has registered again")
		}
	})
}

// TestReconnectionIsNoDeath: a connection that breaks and is there again at once fences nobody.
func TestReconnectionIsNoDeath(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		before := w.ledger.entryCount()
		for range 20 {
			w.net.Reset(host(1), host(2))
			w.net.Reset(host(1), host(3))
			w.pass(1700 * time.Millisecond)
		}
		if n := w.ledger.entryCount(); n != before {
			w.failf("%d changes: %v", n-before, w.ledger.since(before))
		}
	})
}

// TestNewControllerGivesFreshSessions: who takes over hears everybody before it takes anybody for dead, and then the old
// controller, whose connections are broken.
func TestNewControllerGivesFreshSessions(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 30)
		w.pass(time.Duration(w.seed) * 37 * time.Millisecond)
		w.net.Isolate(host(3)) // its connections stay, but nobody hears it
		w.pass(1500 * time.Millisecond)
		w.kill(1)
		w.pass(600 * time.Millisecond)
		w.ledger.elect(2)
		w.net.Rejoin(host(3))
		if took := w.awaitImage("1 is fenced", time.Second, fenced(1)); took > 400*time.Millisecond {
			w.failf("it took %v", took)
		}
		for range 5000 {
			w.pass(time.Millisecond)
			if fenced(3)(w.image()) || fenced(2)(w.image()) {
				w.failf("one that lives is fenced")
			}
		}
	})
}

// TestDeposedControllerDecidesNothing: its timers end with its leadership.
func TestDeposedControllerDecidesNothing(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.ledger.elect(-1)
		w.pass(100 * time.Millisecond)
		before := w.ledger.entryCount()
		w.net.Isolate(host(2))
		w.kill(3)
		w.pass(time.Hour)
		if n := w.ledger.entryCount(); n != before {
			w.failf("%d changes by nobody", n-before)
		}
		if _, err := w.nodes[1].controller.Heartbeat(w.t.Context(), metadata.Heartbeat{Broker: 1, Epoch: 1}); err == nil {
			w.failf("a deposed controller has taken a heartbeat")
		}
	})
}

// TestShutDownHandsOver: before a broker goes, all that it leads is led by others, without a moment in between; the last
// one is let go too, once the metadata says that nobody leads.
func TestShutDownHandsOver(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 30)
		for _, id := range []int32{3, 2, 1} {
			began := time.Now()
			if err := w.nodes[id].broker.ShutDown(w.t.Context()); err != nil {
				w.failf("broker %d: %v", id, err)
			}
			if took := time.Since(began); took > 100*time.Millisecond {
				w.failf("broker %d was let go after %v", id, took)
			}
			topic, _ := w.nodes[id].controller.Image().Topic("orders")
			for n, p := range topic.Partitions {
				if p.Leader == id || (p.Leader == metadata.NoLeader) != (id == 1) {
					w.failf("broker %d may go, and partition %d: %+v", id, n, p)
				}
			}
			if id != 1 {
				w.kill(id)
				w.awaitImage("gone", 400*time.Millisecond, fenced(id))
			}
		}
	})
}

// TestShutDownGivesUp: without anybody who decides, a broker goes after a session's time.
func TestShutDownGivesUp(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.kill(1)
		began := time.Now()
		if err := w.nodes[2].broker.ShutDown(w.t.Context()); !errors.Is(err, ErrNoController) {
			w.failf("%v", err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 5*time.Second {
			w.failf("it took %v", took)
		}
		ctx, cancel := context.WithTimeoutCause(w.t.Context(), time.Second, context.DeadlineExceeded)
		defer cancel()
		if err := w.nodes[3].broker.ShutDown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			w.failf("%v", err)
		}
	})
}

// TestRestartDoesNotWaitForItsSession: a broker that is started again at once, on the same disk, registers at once.
func TestRestartDoesNotWaitForItsSession(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 3)
		epoch := w.epoch(2)
		w.kill(2)
		began := time.Now()
		w.build(2, 1).mustStart()
		if took := time.Since(began); took > 200*time.Millisecond {
			w.failf("it took %v", took)
		}
		if w.epoch(2) == epoch {
			w.failf("still in epoch %d", epoch)
		}
		topic, _ := w.image().Topic("orders")
		for n, p := range topic.Partitions {
			if slices.Contains(p.ISR, 2) {
				w.failf("partition %d counts on one that may have missed records: %+v", n, p)
			}
		}
	})
}

// TestTrap05WipedBrokerIsNotInSync: a broker that comes back with an empty disk has to wait for the session of who it was,
// and is in sync nowhere (KIP-903).
func TestTrap05WipedBrokerIsNotInSync(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 3)
		w.net.Isolate(host(2)) // it loses power: nobody hears of its end
		w.kill(2)
		w.net.Rejoin(host(2))
		began := time.Now()
		w.build(2, 2).mustStart()
		if took := time.Since(began); took > 2500*time.Millisecond {
			w.failf("it took %v", took)
		}
		topic, _ := w.image().Topic("orders")
		for n, p := range topic.Partitions {
			at := slices.Index(p.Replicas, 2)
			if slices.Contains(p.ISR, 2) || slices.Contains(p.ELR, 2) || p.Directories[at] != w.nodes[2].directory() {
				w.failf("partition %d: %+v", n, p)
			}
		}
	})
}

// TestWipedBrokerNeedNotWaitForItsSession: where its connection has shown that the process before is gone, one on an empty disk is
// taken at once, although the controller is connected to it again before it registers.
func TestWipedBrokerNeedNotWaitForItsSession(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 3)
		w.kill(2)
		w.pass(time.Duration(w.seed) * 20 * time.Millisecond)
		began := time.Now()
		n := w.build(2, 2)
		w.pass(50 * time.Millisecond) // it looks who leads before it registers
		n.mustStart()
		if took := time.Since(began); took > 800*time.Millisecond {
			w.failf("it took %v", took)
		}
	})
}

// TestTwoProcessesOfOneBroker: while one lives another under its id, on another disk, is turned away; on its own disk it
// takes over, and the first stops.
func TestTwoProcessesOfOneBroker(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		first := w.nodes[2]
		r := first.registration()
		r.Incarnation, r.Directories = metadata.UUID{1: 77}, []metadata.UUID{{2, 99, 15: 0xdd}}
		if _, err := w.nodes[2].router.RegisterBroker(w.t.Context(), r); !errors.Is(err, metadata.ErrDuplicateBroker) {
			w.failf("%v", err)
		}
		r.Directories = first.registration().Directories
		if _, err := w.nodes[2].router.RegisterBroker(w.t.Context(), r); err != nil {
			w.failf("%v", err)
		}
		select {
		case err := <-first.fatal:
			if !errors.Is(err, ErrReplaced) {
				w.failf("%v", err)
			}
		case <-time.After(time.Second):
			w.failf("both go on")
		}
	})
}

// TestUnregisteredBrokerRegistersAgain: a broker that was removed while it lived is told so, and comes back as new.
func TestUnregisteredBrokerRegistersAgain(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.create("orders", 3)
		epoch := w.epoch(3)
		req := kmsg.NewPtrUnregisterBrokerRequest()
		req.BrokerID = 3
		if resp, err := w.nodes[2].router.UnregisterBroker(w.t.Context(), req); err != nil || resp.ErrorCode != 0 {
			w.failf("%+v, %v", resp, err)
		}
		w.awaitImage("3 is back", 2*time.Second, takesPart(3))
		if w.epoch(3) <= epoch || w.nodes[3].broker.Epoch() != w.epoch(3) {
			w.failf("epoch %d after %d", w.epoch(3), epoch)
		}
	})
}

// TestFencedUntilServing: a broker that is registered takes no part before its clients are served.
func TestFencedUntilServing(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.kill(3)
		n := w.build(3, 1)
		if err := n.broker.Register(w.t.Context()); err != nil {
			w.failf("%v", err)
		}
		for range 5000 {
			w.pass(time.Millisecond)
			if !fenced(3)(w.image()) {
				w.failf("it takes part")
			}
		}
		began := time.Now()
		if err := n.broker.Serve(w.t.Context()); err != nil {
			w.failf("%v", err)
		}
		if took := time.Since(began); took > 50*time.Millisecond {
			w.failf("it took %v", took)
		}
	})
}

// TestInSyncReplicasChangeFromAfar: the leader of a partition proposes to the controller on another node; what it is told
// is in its metadata by then, and refusals come at once and as what they are.
func TestInSyncReplicasChangeFromAfar(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.create("orders", 3)
		n := w.nodes[2]
		w.awaitImage("the topic is known", time.Second, func(img *metadata.Image) bool { _, ok := img.Topic("orders"); return ok })
		proposal := func() metadata.ISRProposal {
			topic, _ := n.controller.Image().Topic("orders")
			p := topic.Partitions[1]
			return metadata.ISRProposal{
				Topic: topic.ID, Partition: 1, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
				ISR: []metadata.Member{{Broker: 2, Epoch: w.epoch(2)}, {Broker: 3, Epoch: w.epoch(3)}},
			}
		}
		asked := []metadata.ISRProposal{proposal(), {Topic: metadata.UUID{1}}}
		outcomes, err := n.router.Alter(w.t.Context(), w.epoch(2), asked)
		if err != nil || !slices.Equal(outcomes, []metadata.ISROutcome{metadata.ISRAccepted, metadata.ISRUnknown}) {
			w.failf("%v, %v", outcomes, err)
		}
		if p, _ := n.controller.Image().Partition("orders", 1); !slices.Equal(p.ISR, []int32{2, 3}) {
			w.failf("%+v", p)
		}
		if outcomes, err = n.router.Alter(w.t.Context(), w.epoch(2), asked[:1]); err != nil || outcomes[0] != metadata.ISRStale {
			w.failf("the same again: %v, %v", outcomes, err)
		}
		began := time.Now()
		if _, err = n.router.Alter(w.t.Context(), w.epoch(2)-1, asked); !errors.Is(err, metadata.ErrStaleBrokerEpoch) {
			w.failf("%v", err)
		}
		h := metadata.Heartbeat{Broker: 3, Epoch: w.epoch(3), WantFence: true}
		if _, err = n.router.Heartbeat(w.t.Context(), h); err == nil || fenced(3)(w.image()) {
			w.failf("broker 2 speaks for broker 3: %v", err)
		}
		if took := time.Since(began); took > 50*time.Millisecond {
			w.failf("two refusals took %v", took)
		}
	})
}
