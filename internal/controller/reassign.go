package controller

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// raisesAtOnce bounds the partitions of internal topics that get another replica at the same time; the others wait
// until those that get it are done. Those whose new broker has gone again do not count: they may wait for long.
const raisesAtOnce = 16

// finishReassignment ends a reassignment once every replica that it adds is in sync: those that it removes go,
// and with them, perhaps, the leader. A new leader epoch tells the ones that stay. Where none goes there is none, for
// a coordinator loads its partition anew with each.
func finishReassignment(r *revision) {
	if len(r.next.Adding)+len(r.next.Removing) == 0 {
		return
	}
	for _, id := range r.next.Adding {
		if !slices.Contains(r.next.ISR, id) {
			return
		}
	}
	stay := without(r.next.ISR, r.next.Removing...)
	if len(stay) == 0 {
		return
	}
	replicas, directories := []int32{}, []metadata.UUID{}
	for i, id := range r.next.Replicas {
		if !slices.Contains(r.next.Removing, id) {
			replicas, directories = append(replicas, id), append(directories, r.next.Directories[i])
		}
	}
	r.again = r.again || len(r.next.Removing) > 0
	r.next.Replicas, r.next.Directories, r.next.ISR = replicas, directories, stay
	r.next.Adding, r.next.Removing = nil, nil
}

// alterReassignments decides AlterPartitionReassignments (KIP-455): other replicas for partitions, or, without any, the
// end of a reassignment under way. A partition that cannot be moved does not keep the others from it.
func alterReassignments(v *view, req *kmsg.AlterPartitionAssignmentsRequest) ([]metadata.Record, *kmsg.AlterPartitionAssignmentsResponse) {
	resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
	resp.Version, resp.AllowReplicationFactorChange = req.Version, req.AllowReplicationFactorChange
	var records []metadata.Record
	seen := map[partitionKey]bool{}
	for _, t := range req.Topics {
		answer := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		answer.Topic = t.Topic
		topic, exists := v.image.Topic(t.Topic)
		for _, p := range t.Partitions {
			a := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			a.Partition = p.Partition
			var why *refusal
			var change metadata.Record
			switch {
			case !exists || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions):
				why = refuse(kerr.UnknownTopicOrPartition, "there is no partition %s-%d", t.Topic, p.Partition)
			case seen[partitionKey{topic.ID, p.Partition}]:
				why = refuse(kerr.InvalidRequest, "partition %s-%d is in the request twice", t.Topic, p.Partition)
			case p.Replicas == nil:
				change, why = v.cancelReassignment(topic, p.Partition)
			default:
				change, why = v.reassign(topic, p.Partition, p.Replicas, req.AllowReplicationFactorChange)
			}
			if exists {
				seen[partitionKey{topic.ID, p.Partition}] = true
			}
			if change != nil {
				records = append(records, change)
			}
			a.ErrorCode, a.ErrorMessage = why.fields()
			answer.Partitions = append(answer.Partitions, a)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return records, resp
}

// factorOf is how many replicas a partition has, without those that a reassignment under way adds.
func factorOf(p *metadata.Partition) int { return len(without(p.Replicas, p.Adding...)) }

// reassign gives a partition other replicas, as many as it has unless otherFactor. Those that it has go on until those
// that it gets are in sync.
func (v *view) reassign(t *metadata.Topic, number int32, target []int32, otherFactor bool) (metadata.Record, *refusal) {
	for i, id := range target {
		switch b, ok := v.image.Broker(id); {
		case !ok:
			return nil, refuse(kerr.InvalidReplicaAssignment, "broker %d is not registered", id)
		case slices.Contains(target[:i], id):
			return nil, refuse(kerr.InvalidReplicaAssignment, "broker %d is named twice for one partition", id)
		case !takesReplicas(b) && !slices.Contains(t.Partitions[number].Replicas, id):
			return nil, refuse(kerr.InvalidReplicaAssignment, "all log directories of broker %d are cordoned", id)
		}
	}
	if len(target) == 0 {
		return nil, refuse(kerr.InvalidReplicaAssignment, "an assignment without replicas")
	}
	if has := factorOf(t.Partitions[number]); !otherFactor && len(target) != has {
		// In the words of Apache Kafka, for its tools print them.
		return nil, refuse(kerr.InvalidReplicationFactor, "The replication factor is changed from %d to %d", has, len(target))
	}
	r := v.partitions().revise(t, number)
	had := without(r.old.Replicas, r.old.Adding...) // what a reassignment under way would end without is given up
	dropped := slices.DeleteFunc(slices.Clone(r.old.Adding), func(id int32) bool { return slices.Contains(target, id) })
	r.next.Adding = without(target, had...)
	r.next.Removing = without(had, target...)
	r.setReplicas(append(slices.Clone(target), r.next.Removing...), newPlacer(v.image, v.random))
	r.next.ISR = without(r.next.ISR, dropped...)
	if len(r.next.ISR) == 0 && len(r.old.ISR) > 0 {
		return nil, refuse(kerr.InvalidReplicaAssignment, "no in-sync replica of %s-%d would be left", t.Name, number)
	}
	finishReassignment(r)
	r.elect()
	return asRecord(r.record()), nil
}

// setReplicas puts replicas in an order. New ones get a log directory each.
func (r *revision) setReplicas(replicas []int32, placer *placer) {
	directories := make([]metadata.UUID, len(replicas))
	for i, id := range replicas {
		if at := slices.Index(r.old.Replicas, id); at >= 0 {
			directories[i] = r.old.Directories[at]
		} else {
			directories[i] = placer.directories(replicas[i : i+1])[0]
		}
	}
	r.next.Replicas, r.next.Directories = replicas, directories
}

// raiseInternal gives partitions of internal topics that have fewer replicas than their coordinator's settings ask for, since
// there were fewer brokers when they were made, another replica each where a broker takes part that has none. At most
// limit partitions are under way at once.
//
// One replica at a time, because min.insync.replicas, where a topic sets it, is bounded by the number of replicas alone: a partition
// that went from one to three would take no write until one of the new ones has caught up, or for good, if both die. The first replica stays the first,
// what is being reassigned is left alone, and nothing is ever lowered: who wants fewer replicas sets
// offsets.topic.replication.factor and the like.
func (v *view) raiseInternal(limit int) (records []metadata.Record) {
	d := v.partitions()
	var present []int32
	for _, b := range v.image.Brokers() {
		if d.active(b.ID) {
			present = append(present, b.ID)
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
		want := v.settings.Int(coordinatorSettings(t.Name) + "replication.factor")
		changes, minISR := v.raiseTopic(t, want, present, limit)
		limit -= len(changes)
		records = append(records, changes...)
		if minISR != nil {
			records = append(records, minISR)
		}
	}
	return records
}

// raiseTopic gives at most limit partitions of a topic that have fewer than want replicas one more, on one of the brokers that
// are present. minISR is what the topic asks for from then on, if these are the last to come to as many replicas as that
// needs; it is set then and not later, so that an operator can take it back.
func (v *view) raiseTopic(t *metadata.Topic, want int, present []int32, limit int) (changes []metadata.Record, minISR metadata.Record) {
	var placer *placer
	crosses, all := false, true
	for n, p := range t.Partitions {
		has := len(p.Replicas) - len(p.Removing)
		moves := len(p.Adding)+len(p.Removing) > 0
		hasNone := func(id int32) bool { return !slices.Contains(p.Replicas, id) }
		if has < want && !moves && p.Leader != metadata.NoLeader && len(changes) < limit && slices.ContainsFunc(present, hasNone) {
			if placer == nil {
				placer = newPlacer(v.image, v.random)
				placer.count(t)
			}
			if change := v.addReplica(t, int32(n), placer); change != nil {
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
func (v *view) addReplica(t *metadata.Topic, number int32, placer *placer) metadata.Record {
	id, ok := placer.another(t.Partitions[number].Replicas)
	if !ok {
		return nil // all directories of those that have none are cordoned
	}
	r := v.partitions().revise(t, number)
	r.next.Adding = []int32{id}
	r.setReplicas(append(slices.Clone(r.old.Replicas), id), placer)
	return asRecord(r.record())
}

// cancelReassignment goes back to the replicas of before.
func (v *view) cancelReassignment(t *metadata.Topic, number int32) (metadata.Record, *refusal) {
	r := v.partitions().revise(t, number)
	if len(r.old.Adding)+len(r.old.Removing) == 0 {
		return nil, refuse(kerr.NoReassignmentInProgress, "partition %s-%d is not being reassigned", t.Name, number)
	}
	before := without(r.old.Replicas, r.old.Adding...)
	stay := without(r.old.ISR, r.old.Adding...)
	if len(stay) == 0 && len(r.old.ISR) > 0 || len(before) == 0 {
		return nil, refuse(kerr.InvalidReplicaAssignment, "of the replicas that %s-%d had before none is in sync", t.Name, number)
	}
	r.setReplicas(before, newPlacer(v.image, v.random))
	r.next.ISR, r.next.Adding, r.next.Removing = stay, nil, nil
	r.elect()
	return asRecord(r.record()), nil
}

// listReassignments answers ListPartitionReassignments from an image. Without topics it lists all.
func listReassignments(image *metadata.Image, req *kmsg.ListPartitionReassignmentsRequest) *kmsg.ListPartitionReassignmentsResponse {
	resp := kmsg.NewPtrListPartitionReassignmentsResponse()
	resp.Version = req.Version
	list := func(t *metadata.Topic, wanted func(int32) bool) {
		answer := kmsg.NewListPartitionReassignmentsResponseTopic()
		answer.Topic = t.Name
		for n, p := range t.Partitions {
			if len(p.Adding)+len(p.Removing) == 0 || !wanted(int32(n)) {
				continue
			}
			a := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
			a.Partition, a.Replicas, a.AddingReplicas, a.RemovingReplicas = int32(n), p.Replicas, p.Adding, p.Removing
			answer.Partitions = append(answer.Partitions, a)
		}
		if len(answer.Partitions) > 0 {
			resp.Topics = append(resp.Topics, answer)
		}
	}
	if req.Topics == nil {
		for t := range image.Topics() {
			list(t, func(int32) bool { return true })
		}
		return resp
	}
	for _, wanted := range req.Topics {
		if t, ok := image.Topic(wanted.Topic); ok {
			list(t, func(n int32) bool { return slices.Contains(wanted.Partitions, n) })
		}
	}
	return resp
}

// AlterPartitionReassignments moves partitions to other brokers, or stops that.
func (c *Controller) AlterPartitionReassignments(ctx context.Context, req *kmsg.AlterPartitionAssignmentsRequest) (*kmsg.AlterPartitionAssignmentsResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	resp, err := submit(ctx, c, true, func(v *view) ([]metadata.Record, *kmsg.AlterPartitionAssignmentsResponse) {
		return alterReassignments(v, req)
	})
	if err == nil {
		return resp, nil
	}
	why, err := wholly(err)
	if err != nil {
		return nil, err
	}
	resp = kmsg.NewPtrAlterPartitionAssignmentsResponse()
	resp.Version, resp.AllowReplicationFactorChange = req.Version, req.AllowReplicationFactorChange
	resp.ErrorCode, resp.ErrorMessage = why.fields()
	return resp, nil
}

// ListPartitionReassignments lists what is being moved.
func (c *Controller) ListPartitionReassignments(ctx context.Context, req *kmsg.ListPartitionReassignmentsRequest) (*kmsg.ListPartitionReassignmentsResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, alterTimeout, ErrTimedOut) // nothing is changed: as in Kafka, the request's own bound is not looked at
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.ListPartitionReassignmentsResponse) {
		return nil, listReassignments(v.image, req)
	})
	if err == nil {
		return resp, nil
	}
	why, err := wholly(err)
	if err != nil {
		return nil, err
	}
	resp = kmsg.NewPtrListPartitionReassignmentsResponse()
	resp.Version = req.Version
	resp.ErrorCode, resp.ErrorMessage = why.fields()
	return resp, nil
}
