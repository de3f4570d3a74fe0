package controller

import (
	"fmt"
	"slices"

	"barnabas/internal/metadata"
	"barnabas/internal/planted"
)

// AlterISR decides the proposals of a broker that leads partitions (AlterPartition in Kafka): in-sync replicas
// change in no other way while a leader lives. Each proposal holds for one leader epoch and one partition epoch, and
// each of its members for one life of a broker, so that a stale one, however late it comes, changes
// nothing (KIP-497, KIP-841, KIP-903). An accepted proposal raises the partition epoch even where it changes
// nothing else, so that all that was proposed before it is stale. The outcomes are in the order of the proposals.
//
// Errors: ErrUnknownBroker, ErrStaleBrokerEpoch.
func (d Partitions) AlterISR(broker int32, epoch int64, proposals []metadata.ISRProposal) ([]metadata.Record, []metadata.ISROutcome, error) {
	b, ok := d.Image.Broker(broker)
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("in-sync replicas proposed by broker %d: %w", broker, ErrUnknownBroker)
	case b.Epoch != epoch:
		return nil, nil, fmt.Errorf("in-sync replicas proposed by broker %d in epoch %d, it is registered in %d: %w", broker, epoch, b.Epoch, ErrStaleBrokerEpoch)
	}
	var records []metadata.Record
	outcomes := make([]metadata.ISROutcome, len(proposals))
	seen := map[partitionKey]bool{}
	for i := range proposals {
		p := &proposals[i]
		key := partitionKey{p.Topic, p.Partition}
		if seen[key] { // the first one made it stale
			outcomes[i] = metadata.ISRStale
			continue
		}
		var change metadata.Record
		if change, outcomes[i] = d.alterOne(broker, p); change != nil {
			records = append(records, change)
			seen[key] = true
		}
	}
	return records, outcomes, nil
}

type partitionKey struct {
	topic  metadata.UUID
	number int32
}

func (d Partitions) alterOne(broker int32, p *metadata.ISRProposal) (metadata.Record, metadata.ISROutcome) {
	topic, ok := d.Image.TopicByID(p.Topic)
	if !ok || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions) {
		return nil, metadata.ISRUnknown
	}
	now := topic.Partitions[p.Partition]
	switch {
	case planted.AcceptStaleISR:
	case p.LeaderEpoch > now.LeaderEpoch || p.PartitionEpoch > now.PartitionEpoch:
		return nil, metadata.ISRBehind
	case p.LeaderEpoch < now.LeaderEpoch || p.PartitionEpoch < now.PartitionEpoch || now.Leader != broker:
		return nil, metadata.ISRStale
	}
	isr, outcome := d.members(now, p)
	if outcome != metadata.ISRAccepted {
		return nil, outcome
	}
	r := d.revise(topic, p.Partition)
	r.next.ISR, r.lost = isr, p.Lost
	if p.Unflushed != nil && (*p.Unflushed || len(now.ELR) == 0 && sameBrokers(isr, now.ISR)) { // of others the leader did not speak
		r.next.Unflushed = *p.Unflushed
	}
	if !slices.Contains(isr, broker) {
		return d.resign(r, broker)
	}
	finishReassignment(r)
	r.elect()
	if change := r.record(); change != nil {
		return change, metadata.ISRAccepted
	}
	return &metadata.PartitionChangeRecord{TopicId: topic.ID.Bytes(), Partition: p.Partition}, metadata.ISRAccepted
}

func sameBrokers(a, b []int32) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(id int32) bool { return !slices.Contains(b, id) })
}

// members checks who is proposed.
func (d Partitions) members(now *metadata.Partition, p *metadata.ISRProposal) ([]int32, metadata.ISROutcome) {
	var isr []int32
	for _, m := range p.ISR {
		if !slices.Contains(now.Replicas, m.Broker) || slices.Contains(isr, m.Broker) || slices.Contains(p.Lost, m.Broker) {
			return nil, metadata.ISRInvalid
		}
		isr = append(isr, m.Broker)
	}
	if slices.Contains(isr, now.Leader) == slices.Contains(p.Lost, now.Leader) {
		return nil, metadata.ISRInvalid // it leads, or it hands over
	}
	for _, m := range p.ISR {
		if m.Broker == now.Leader {
			continue // who asks; the request's own epoch has been compared
		}
		if b, ok := d.broker(m.Broker); !ok || !d.active(m.Broker) || b.Epoch != m.Epoch && !planted.AcceptStaleISR || !online(b, now) {
			return nil, metadata.ISRIneligible
		}
	}
	return isr, metadata.ISRAccepted
}

// resign gives the partition another leader, if there is one that has everything.
func (d Partitions) resign(r *revision, broker int32) (metadata.Record, metadata.ISROutcome) {
	if !slices.ContainsFunc(r.complete(), r.acceptable) {
		return nil, metadata.ISRIneligible
	}
	r.leave(broker)
	r.elect()
	return r.record(), metadata.ISRAccepted
}
