package node

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
	"barnabas/internal/quorum"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// replication is what connects this broker's replicas with those of others: messages travel over the internal
// listener, and in-sync replicas are the controller's to change, wherever it is. nil where a node is alone.
func (n *Node) replication(seed uint64) *replica.Cluster {
	if n.bound.internal == nil {
		return nil
	}
	dice := newJitter(seed, n.nodeID)
	return &replica.Cluster{
		Peers: otherBrokers{n}, ISRs: inSync{n}, Jitter: dice.below,
		MaxLagMessages: n.o.Config.Int64("replica.lag.max.messages"),
	}
}

// serveReplicas answers the brokers that follow what this one leads, once its replicas can be there.
func (n *Node) serveReplicas() {
	if n.peers == nil {
		return
	}
	for _, kind := range []replica.Kind{replica.KindFetch, replica.KindFlushed, replica.KindNudge} {
		n.peers.Handle(peer.Kind(kind), func(_ context.Context, from peer.Node, body []byte) (wire.Reply, bool, error) {
			return n.replicas.Serve(from.ID, kind, body)
		})
	}
}

// observePeers tells the controller whose connections break, for that is how it learns at once that a process has died, and
// the broker when it can be heard again.
func (n *Node) observePeers() {
	if n.peers == nil {
		return
	}
	n.peers.Observe(func(node int32, up bool) {
		n.controller.Connection(node, up)
		if up {
			n.speakUp()
		}
	})
}

// addressBook tells the connections to other nodes where those are that the configuration does not name: brokers without a
// vote say it when they register. A node that is neither registered nor a member of the quorum any more is forgotten.
type addressBook struct {
	n     *Node
	known map[int32]bool // whose address was told from here; Publish's alone
}

// Publish implements metadata.Publisher.
func (a *addressBook) Publish(_ context.Context, d *metadata.Delta, img *metadata.Image) {
	if a.n.peers == nil || len(d.Brokers) == 0 {
		return
	}
	named := voterIDs(a.n.o.Config)
	for _, b := range img.Brokers() {
		if b.ID == a.n.nodeID || slices.Contains(named, b.ID) {
			continue
		}
		for _, l := range b.Listeners {
			if a.n.o.Config.IsControllerListener(l.Name) {
				a.n.peers.SetAddress(b.ID, net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port))))
				a.known[b.ID] = true
			}
		}
	}
	if !a.n.member.Load() {
		return // the quorum, which is asked, is not there yet
	}
	status := a.n.quorum.Status()
	if status.Epoch == 0 {
		return // who votes is not known yet, and what is replayed now may be long ago
	}
	members := slices.Concat(status.Voters, status.Observers)
	for id := range a.known {
		_, registered := img.Broker(id)
		if !registered && !slices.ContainsFunc(members, func(r quorum.Replica) bool { return r.NodeID == id }) {
			a.n.peers.Forget(id)
			delete(a.known, id)
		}
	}
}

// otherBrokers implements replica.Peers. The connections are there before the first replica is.
type otherBrokers struct{ n *Node }

func (o otherBrokers) Call(ctx context.Context, broker int32, kind replica.Kind, body []byte, memory func(n int) []byte) ([]byte, error) {
	return o.n.peers.CallInto(ctx, broker, peer.Kind(kind), body, memory)
}

func (o otherBrokers) Post(broker int32, kind replica.Kind, body []byte) bool {
	return o.n.peers.Post(broker, peer.Kind(kind), body)
}

// inSync implements replica.ISRs.
type inSync struct{ n *Node }

func (i inSync) Alter(ctx context.Context, epoch int64, proposals []metadata.ISRProposal) ([]metadata.ISROutcome, error) {
	return i.n.router.Alter(ctx, epoch, proposals)
}

// jitter draws from one source for many goroutines.
type jitter struct {
	mu     sync.Mutex // short
	random *rand.Rand
}

func newJitter(seed uint64, node int32) *jitter {
	return &jitter{random: rand.New(rand.NewPCG(seed, uint64(node)))}
}

// below is at least 0 and less than d, which is positive.
func (j *jitter) below(d time.Duration) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Duration(j.random.Int64N(int64(d)))
}
