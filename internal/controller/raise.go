package controller

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

const (
	// raisesAtOnce bounds the partitions of internal topics that get another replica at the same time; the others wait
	// until those that get it are done. Those whose new broker has gone again do not count: they may wait for long.
	raisesAtOnce = 16
	// minISRFrom is the number of replicas from which an internal topic asks for more than one in-sync replica: of two
	// either must be able to fail.
	minISRFrom = 3
)

// coordinatorSettings is what the settings of an internal topic begin with; "" for any other topic.
func coordinatorSettings(topic string) (prefix string) {
	switch topic {
	case offsetsTopic:
		return "offsets.topic."
	case transactionsTopic:
		return "transaction.state.log."
	case shareStateTopic:
		return "share.coordinator.state.topic."
	}
	return ""
}

// coordinatorMinISR is the min.insync.replicas that an internal topic sets for itself, from minISRFrom replicas on; 1 where
// it leaves that to the default.
func (v *view) coordinatorMinISR(topic string) int {
	switch topic {
	case transactionsTopic, shareStateTopic:
		return v.settings.Int(coordinatorSettings(topic) + "min.isr")
	}
	return 1
}

// raiseInternal gives partitions of internal topics that have fewer replicas than their coordinator's settings ask for, since
// there were fewer brokers when they were made, another replica each, as long as there are brokers for it. At most limit
// partitions are under way at once.
//
// One replica at a time, because min.insync.replicas goes by the number of replicas: a partition that went from one to three
// would take no write until one of the new ones has caught up, or for good, if both die. The first replica stays the first,
// what is being reassigned is left alone, and nothing is ever lowered: who wants fewer replicas sets
// offsets.topic.replication.factor and the like.
func (v *view) raiseInternal(limit int) (records []metadata.Record) {
	d := v.partitions()
	brokers := 0
	for _, b := range v.image.Brokers() {
		if d.active(b.ID) {
			brokers++
		}
	}
	var topics []*metadata.Topic
	for _, name := range []string{offsetsTopic, transactionsTopic, shareStateTopic} {
		t, exists := v.image.Topic(name)
		if !exists {
			continue
		}
		topics = append(topics, t)
		for _, p := range t.Partitions {
			if len(p.Adding) > 0 && !slices.ContainsFunc(p.Adding, func(id int32) bool { return !d.active(id) }) {
				limit--
			}
		}
	}
	for _, t := range topics {
		want := min(v.settings.Int(coordinatorSettings(t.Name)+"replication.factor"), brokers)
		changes, minISR := v.raiseTopic(d, t, want, limit)
		limit -= len(changes)
		records = append(records, changes...)
		if minISR != nil {
			records = append(records, minISR)
		}
	}
	return records
}

// raiseTopic gives at most limit partitions of a topic that have fewer than want replicas one more. minISR is what the topic
// asks for from then on, if these are the last to come to as many replicas as that needs; it is set then and not
// later, so that an operator can take it back.
func (v *view) raiseTopic(d Partitions, t *metadata.Topic, want, limit int) (changes []metadata.Record, minISR metadata.Record) {
	var placer *placer
	crosses, all := false, true
	for n, p := range t.Partitions {
		has := len(p.Replicas) - len(p.Removing)
		moves := len(p.Adding)+len(p.Removing) > 0
		if has < want && !moves && p.Leader != metadata.NoLeader && len(changes) < limit {
			if placer == nil {
				placer = newPlacer(v.image, v.random)
				placer.count(t)
			}
			if change := d.addReplica(t, int32(n), placer); change != nil {
				changes = append(changes, change)
				has++
				crosses = crosses || has == minISRFrom
			}
		}
		all = all && has >= minISRFrom
	}
	const key = "min.insync.replicas"
	least := v.coordinatorMinISR(t.Name)
	if _, set := v.image.Config(metadata.TopicResource, t.Name)[key]; set || !crosses || !all || least <= 1 {
		return changes, nil
	}
	return changes, &metadata.ConfigRecord{
		Kind: int32(metadata.TopicResource), Name: t.Name, Key: key, Value: kmsg.StringPtr(strconv.Itoa(least)),
	}
}

// addReplica begins a reassignment that gives a partition one more replica; nil where there is no broker for it.
func (d Partitions) addReplica(t *metadata.Topic, number int32, placer *placer) metadata.Record {
	r := d.revise(t, number)
	id, ok := placer.another(r.old.Replicas)
	if !ok {
		return nil
	}
	r.next.Adding = []int32{id}
	r.setReplicas(append(slices.Clone(r.old.Replicas), id), placer)
	return asRecord(r.record())
}

// raise is the chore: it looks at few partitions, so it does so whenever the clock does, which is soon after a broker
// has come.
func (s *shard) raise() {
	records := s.view().raiseInternal(raisesAtOnce)
	if len(records) == 0 {
		return
	}
	s.options.Logger.Info("internal topics get replicas on brokers that have joined", "changes", len(records))
	if err := s.proposeAll(records, recordsPerEntry); err != nil {
		s.options.Logger.Error("internal topics could not be given more replicas", "err", err)
	}
}
