package api

import (
	"errors"
	"fmt"
	"slices"

	"barnabas/internal/metadata"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// partition finds this broker's replica of a partition. Of one that exists, and of which this broker has none, it says
// ErrNotLeader, so that whoever asks looks for the leader.
func (h *Handler) partition(image *metadata.Image, topic string, number int32) (*replica.Partition, error) {
	p, err := h.o.Replicas.Partition(topic, number)
	if err != nil && errors.Is(err, replica.ErrUnknownPartition) {
		if _, exists := image.Partition(topic, number); exists {
			return nil, fmt.Errorf("%s-%d is not on broker %d: %w", topic, number, h.o.NodeID, replica.ErrNotLeader)
		}
	}
	return p, err
}

// leaderHints collects the leaders that a response names instead of this broker, so that it can
// give their addresses too (KIP-951). The zero value is ready.
type leaderHints struct{ ids []int32 }

// add returns leader and epoch of a partition, -1 and -1 where there is none.
func (l *leaderHints) add(image *metadata.Image, topic string, partition int32) (leader, epoch int32) {
	p, ok := image.Partition(topic, partition)
	if !ok || p.Leader == metadata.NoLeader {
		return -1, -1
	}
	if !slices.Contains(l.ids, p.Leader) {
		l.ids = append(l.ids, p.Leader)
	}
	return p.Leader, p.LeaderEpoch
}

// brokerAddress is a broker as clients of one listener reach it.
type brokerAddress struct {
	id   int32
	host string
	port int32
	rack *string
}

func (l *leaderHints) brokersFor(image *metadata.Image, peer *wire.Peer) []brokerAddress {
	var all []brokerAddress
	for _, id := range l.ids {
		if b, ok := image.Broker(id); ok {
			if a, ok := addressOf(b, peer); ok {
				all = append(all, a)
			}
		}
	}
	return all
}

// addressOf finds the address of a broker on the listener that the peer came in by.
func addressOf(b *metadata.Broker, peer *wire.Peer) (brokerAddress, bool) {
	for _, l := range b.Listeners {
		if l.Name == peer.Listener {
			return brokerAddress{b.ID, l.Host, int32(l.Port), b.Rack}, true
		}
	}
	return brokerAddress{}, false
}
