package controller

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// createPartitions decides CreatePartitions. Topics only grow.
func createPartitions(v *view, req *kmsg.CreatePartitionsRequest) ([]metadata.Record, *kmsg.CreatePartitionsResponse) {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	resp.Version = req.Version
	if tooMany := v.tooManyMore(req); tooMany != nil {
		return nil, refuseGrowth(req, tooMany)
	}
	times := make(map[string]int)
	for _, t := range req.Topics {
		times[t.Topic]++
	}
	var records []metadata.Record
	for _, t := range req.Topics {
		n := times[t.Topic]
		if n == 0 {
			continue // a duplicate that has been answered
		}
		times[t.Topic] = 0
		var grown []metadata.Record
		why := refuse(kerr.InvalidRequest, "topic %q is in the request %d times", t.Topic, n)
		if n == 1 {
			grown, why = v.grow(t)
		}
		records = append(records, grown...)
		resp.Topics = append(resp.Topics, growth(t.Topic, why))
	}
	if req.ValidateOnly {
		return nil, resp
	}
	return records, resp
}

func growth(topic string, why *refusal) kmsg.CreatePartitionsResponseTopic {
	r := kmsg.NewCreatePartitionsResponseTopic()
	r.Topic = topic
	r.ErrorCode, r.ErrorMessage = why.fields()
	return r
}

// tooManyMore refuses a request before its partitions cost anything.
func (v *view) tooManyMore(req *kmsg.CreatePartitionsRequest) *refusal {
	total := 0
	for _, t := range req.Topics {
		if topic, exists := v.image.Topic(t.Topic); exists {
			total += max(int(t.Count)-len(topic.Partitions), 0)
		}
	}
	if total > maxRecordsPerRequest {
		return tooMuch(total)
	}
	return nil
}

// refuseGrowth answers every topic of a request alike.
func refuseGrowth(req *kmsg.CreatePartitionsRequest, why *refusal) *kmsg.CreatePartitionsResponse {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	resp.Version = req.Version
	for _, t := range req.Topics {
		resp.Topics = append(resp.Topics, growth(t.Topic, why))
	}
	return resp
}

func (v *view) grow(t kmsg.CreatePartitionsRequestTopic) ([]metadata.Record, *refusal) {
	topic, exists := v.image.Topic(t.Topic)
	if !exists {
		return nil, refuse(kerr.UnknownTopicOrPartition, "there is no topic %q", t.Topic)
	}
	has, more := len(topic.Partitions), int(t.Count)-len(topic.Partitions)
	switch {
	case more == 0:
		return nil, refuse(kerr.InvalidPartitions, "topic %q has %d partitions already", t.Topic, has)
	case more < 0:
		return nil, refuse(kerr.InvalidPartitions, "topic %q has %d partitions, and a topic never has fewer later: %d is not more", t.Topic, has, t.Count)
	case t.Assignment != nil && len(t.Assignment) != more:
		return nil, refuse(kerr.InvalidReplicaAssignment, "%d assignments for %d new partitions", len(t.Assignment), more)
	}
	p := newPlacer(v.image, v.random)
	p.next = has // go on where the topic's partitions stopped
	replicationFactor := topic.ReplicationFactor()
	if t.Assignment == nil {
		if why := p.check(replicationFactor); why != nil {
			return nil, why
		}
	}
	durable := v.partitions().rules(topic).durable
	records := make([]metadata.Record, more)
	for n := range more {
		var where placement
		code := kerr.InvalidReplicationFactor
		if t.Assignment == nil {
			where = p.place(replicationFactor)
		} else {
			var why *refusal
			if where, why = p.assign(t.Assignment[n].Replicas, replicationFactor); why != nil {
				return nil, why
			}
			code = kerr.InvalidReplicaAssignment
		}
		record, ok := where.record(v.image, topic.ID, int32(has+n), durable)
		if !ok {
			return nil, refuse(code, "all brokers for partition %d are fenced or shutting down", has+n)
		}
		records[n] = record
	}
	return records, nil
}
