package share

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/sharesession"
)

// sorted gives partitions in their order.
func sorted(set map[sharesession.Partition]bool) []sharesession.Partition {
	list := make([]sharesession.Partition, 0, len(set))
	for p := range set {
		list = append(list, p)
	}
	slices.SortFunc(list, sharesession.Compare)
	return list
}

// hint takes in which broker leads a partition now, as one that does not any more says (KIP-951).
func (b *broker) hint(p sharesession.Partition, leader, epoch int32, brokers []cluster.Broker) bool {
	if leader < 0 || leader == b.node {
		return false
	}
	b.k.mu.Lock()
	topic := b.k.mu.store.Topic(p)
	b.k.mu.Unlock()
	return topic != "" && b.k.in.Metadata.Hint(cluster.Hint{Topic: topic, Partition: p.Number, Leader: leader, LeaderEpoch: epoch}, brokers)
}

func (b *broker) hintFetch(in *kmsg.ShareFetchResponse) (moved bool) {
	var brokers []cluster.Broker
	for _, n := range in.NodeEndpoints {
		brokers = append(brokers, endpoint(n.NodeID, n.Host, n.Port, n.Rack))
	}
	for i := range in.Topics {
		t := &in.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if p.ErrorCode != 0 || p.AcknowledgeErrorCode != 0 {
				of := sharesession.Partition{TopicID: t.TopicID, Number: p.Partition}
				moved = b.hint(of, p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch, brokers) || moved
			}
		}
	}
	return moved
}

func (b *broker) hintAcknowledge(in *kmsg.ShareAcknowledgeResponse) (moved bool) {
	var brokers []cluster.Broker
	for _, n := range in.NodeEndpoints {
		brokers = append(brokers, endpoint(n.NodeID, n.Host, n.Port, n.Rack))
	}
	for i := range in.Topics {
		t := &in.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if p.ErrorCode != 0 {
				of := sharesession.Partition{TopicID: t.TopicID, Number: p.Partition}
				moved = b.hint(of, p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch, brokers) || moved
			}
		}
	}
	return moved
}

func endpoint(id int32, host string, port int32, rack *string) cluster.Broker {
	b := cluster.Broker{ID: id, Address: cluster.JoinHostPort(host, port)}
	if rack != nil {
		b.Rack = *rack
	}
	return b
}
