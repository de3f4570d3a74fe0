package controller

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// The kinds of election that ElectLeaders can ask for.
const (
	preferredElection = 0
	uncleanElection   = 1 // even of a replica that lacks committed records, for who asks says so
)

// electLeaders decides ElectLeaders (KIP-183, KIP-460). Without topics it looks at all partitions and answers for those
// that needed an election.
func electLeaders(v *view, req *kmsg.ElectLeadersRequest) ([]metadata.Record, *kmsg.ElectLeadersResponse) {
	resp := kmsg.NewPtrElectLeadersResponse()
	resp.Version = req.Version
	if req.ElectionType != preferredElection && req.ElectionType != uncleanElection {
		return nil, refuseElection(req, refuse(kerr.InvalidRequest, "there is no election type %d", req.ElectionType))
	}
	d := v.partitions()
	var records []metadata.Record
	elected := map[partitionKey]bool{}
	elect := func(name string, t *metadata.Topic, numbers []int32, all bool) {
		answer := kmsg.NewElectLeadersResponseTopic()
		answer.Topic = name
		for _, n := range numbers {
			change, why := d.electOne(t, n, req.ElectionType == uncleanElection)
			if all && why != nil && why.code == kerr.ElectionNotNeeded {
				continue
			}
			if change != nil && !elected[partitionKey{t.ID, n}] {
				elected[partitionKey{t.ID, n}] = true // named again, it is answered again
				records = append(records, change)
			}
			a := kmsg.NewElectLeadersResponseTopicPartition()
			a.Partition = n
			a.ErrorCode, a.ErrorMessage = why.fields()
			answer.Partitions = append(answer.Partitions, a)
		}
		if len(answer.Partitions) > 0 {
			resp.Topics = append(resp.Topics, answer)
		}
	}
	if req.Topics == nil {
		for t := range v.image.Topics() {
			numbers := make([]int32, len(t.Partitions))
			for n := range numbers {
				numbers[n] = int32(n)
			}
			elect(t.Name, t, numbers, true)
		}
		return records, resp
	}
	for _, wanted := range req.Topics {
		t, _ := v.image.Topic(wanted.Topic)
		elect(wanted.Topic, t, wanted.Partitions, false)
	}
	return records, resp
}

// refuseElection refuses a request, and each partition of it: version 0 has no other place for the code.
func refuseElection(req *kmsg.ElectLeadersRequest, why *refusal) *kmsg.ElectLeadersResponse {
	resp := kmsg.NewPtrElectLeadersResponse()
	resp.Version, resp.ErrorCode = req.Version, why.code.Code
	for _, wanted := range req.Topics {
		t := kmsg.NewElectLeadersResponseTopic()
		t.Topic = wanted.Topic
		for _, n := range wanted.Partitions {
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition = n
			p.ErrorCode, p.ErrorMessage = why.fields()
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (d Partitions) electOne(t *metadata.Topic, n int32, unclean bool) (metadata.Record, *refusal) {
	if t == nil || n < 0 || int(n) >= len(t.Partitions) {
		return nil, refuse(kerr.UnknownTopicOrPartition, "there is no such partition")
	}
	p := t.Partitions[n]
	if unclean {
		if p.Leader != metadata.NoLeader {
			return nil, refuse(kerr.ElectionNotNeeded, "broker %d leads", p.Leader)
		}
		if change := d.electNow(t, n, true); change != nil {
			return change, nil
		}
		return nil, refuse(kerr.EligibleLeadersNotAvailable, "no replica is on a broker that takes part")
	}
	if p.Leader == p.Replicas[0] {
		return nil, refuse(kerr.ElectionNotNeeded, "the preferred replica leads")
	}
	if change := d.prefer(t, n); change != nil {
		return change, nil
	}
	return nil, refuse(kerr.PreferredLeaderNotAvailable, "the preferred replica, on broker %d, is not in sync, or its broker does not take part", p.Replicas[0])
}

// ElectLeaders gives partitions their preferred leaders, or those without a leader any.
func (c *Controller) ElectLeaders(ctx context.Context, req *kmsg.ElectLeadersRequest) (*kmsg.ElectLeadersResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	resp, err := submit(ctx, c, true, func(v *view) ([]metadata.Record, *kmsg.ElectLeadersResponse) { return electLeaders(v, req) })
	if err == nil {
		return resp, nil
	}
	why, err := wholly(err)
	if err != nil {
		return nil, err
	}
	return refuseElection(req, why), nil
}
