package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Refused turns an answer into the one that its client gets when the records behind it were not
// stored. code is the log's own: each API has its way of saying it, as in Kafka. What the answer
// showed or promised is gone from it.
func (r Reply) Refused(code int16) Reply {
	code = coordinatorCode(code)
	switch resp := r.Response.(type) {
	case *kmsg.OffsetCommitResponse:
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
					p.ErrorCode = code
				}
			}
		}
	case *kmsg.OffsetFetchResponse:
		refuseFetch(resp, code)
	case *kmsg.OffsetDeleteResponse:
		resp.ErrorCode, resp.Topics = code, nil
	case *kmsg.JoinGroupResponse:
		refused := joinResponse(resp.Version, "")
		refused.ErrorCode = code
		r.Response = refused
	case *kmsg.SyncGroupResponse:
		r.Response = syncResponse(resp.Version, code)
	case *kmsg.LeaveGroupResponse:
		resp.ErrorCode, resp.Members = code, nil
	default:
		refuseAdministration(resp, code)
	}
	r.Committed = false
	return r
}

func refuseAdministration(resp kmsg.Response, code int16) {
	switch resp := resp.(type) {
	case *kmsg.DescribeGroupsResponse:
		for i := range resp.Groups {
			id := resp.Groups[i].Group
			resp.Groups[i] = kmsg.NewDescribeGroupsResponseGroup()
			resp.Groups[i].Group, resp.Groups[i].ErrorCode = id, code
		}
	case *kmsg.ListGroupsResponse:
		resp.ErrorCode, resp.Groups = code, nil
	case *kmsg.DeleteGroupsResponse:
		for i := range resp.Groups {
			if g := &resp.Groups[i]; g.ErrorCode == 0 {
				g.ErrorCode = code
			}
		}
	default:
		panic("BUG: not a response that the shard promises")
	}
}

// coordinatorCode is what a coordinator's client is told of a failed append.
func coordinatorCode(code int16) int16 {
	switch code {
	case kerr.UnknownTopicOrPartition.Code, kerr.NotEnoughReplicas.Code,
		kerr.NotEnoughReplicasAfterAppend.Code, kerr.RequestTimedOut.Code:
		return kerr.CoordinatorNotAvailable.Code
	case kerr.NotLeaderForPartition.Code, kerr.KafkaStorageError.Code, kerr.FencedLeaderEpoch.Code:
		return kerr.NotCoordinator.Code
	case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code, kerr.InvalidFetchSize.Code:
		return kerr.UnknownServerError.Code
	}
	return code
}

func refuseFetch(resp *kmsg.OffsetFetchResponse, code int16) {
	if code == kerr.CoordinatorNotAvailable.Code {
		code = kerr.NotCoordinator.Code // clients before 3.9 do not try again after the other one
	}
	for i := range resp.Groups {
		resp.Groups[i].Topics, resp.Groups[i].ErrorCode = nil, code
	}
	if resp.Version >= firstManyGroups {
		return
	}
	resp.ErrorCode = code
	if resp.Version >= 2 {
		resp.Topics = nil
		return
	}
	for i := range resp.Topics { // version 1 has no other place for it
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			p.Offset, p.Metadata, p.ErrorCode = none, noMetadata, code
		}
	}
}
