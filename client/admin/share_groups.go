package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// DescribeShareGroups gives share groups with their members, in the order of the names (KIP-932). A group of another
// type has Err ErrGroupIDNotFound.
func (a *Admin) DescribeShareGroups(ctx context.Context, groups ...string) ([]GroupDescription, error) {
	at := map[string]BrokerDescription{}
	out, err := perCoordinator(ctx, a, "describe share groups", groups, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrShareGroupDescribeRequest()
			req.GroupIDs, req.IncludeAuthorizedOperations = of, a.authorized
			return req
		},
		func(resp *kmsg.ShareGroupDescribeResponse, give func(string, GroupDescription, error)) {
			for i := range resp.Groups {
				d := readShareGroup(&resp.Groups[i])
				give(d.Group, d, d.Err)
			}
		}, failedGroup)
	for i := range out {
		out[i].Coordinator = at[out[i].Group]
	}
	return out, err
}

// shareProtocol is the protocol type of share groups in listings.
const shareProtocol = "share"

func readShareGroup(in *kmsg.ShareGroupDescribeResponseGroup) GroupDescription {
	d := GroupDescription{
		Group: in.GroupID, Type: ShareGroup, State: GroupState(in.GroupState), ProtocolType: shareProtocol, Protocol: in.Assignor,
		Epoch: in.GroupEpoch, AssignmentEpoch: in.AssignmentEpoch, AuthorizedOperations: operations(in.AuthorizedOperations),
		Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	for i := range in.Members {
		m := &in.Members[i]
		out := GroupMember{
			ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, Epoch: m.MemberEpoch, Rack: text(m.RackID),
			Topics: slices.Sorted(slices.Values(m.SubscribedTopicNames)),
		}
		for _, t := range m.Assignment.TopicPartitions {
			out.Assignment = appendPartitions(out.Assignment, t.Topic, t.Partitions)
		}
		slices.SortFunc(out.Assignment, comparePartitions)
		d.Members = append(d.Members, out)
	}
	slices.SortFunc(d.Members, func(a, b GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	return d
}

// ShareOffset is from where a share group delivers a partition's records.
type ShareOffset struct {
	TopicPartition client.TopicPartition
	Start          int64              // everything before is done with; -1: the group has not read the partition yet
	LeaderEpoch    client.LeaderEpoch // beside it
	Lag            int64              // how many records are still to be delivered (KIP-1226); NoLag where the broker does not say
	Err            error              // ErrUnknownTopicOrPartition, ErrTopicAuthorizationFailed
}

// ShareGroupOffsets is from where a share group delivers.
type ShareGroupOffsets struct {
	Group   string
	Offsets []ShareOffset // sorted by partition; none where nothing is known of the group
	Err     error         // ErrGroupAuthorizationFailed
}

// shareOffsetsWithLag is the version of DescribeShareGroupOffsets that brought the lag.
const shareOffsetsWithLag int16 = 1

// ShareGroupOffsets gives from where share groups deliver each of their partitions, in the order of the names. Kafka:
// listShareGroupOffsets.
func (a *Admin) ShareGroupOffsets(ctx context.Context, groups ...string) ([]ShareGroupOffsets, error) {
	return perCoordinator(ctx, a, "offsets of share groups", groups, nil,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
			for _, group := range of {
				g := kmsg.NewDescribeShareGroupOffsetsRequestGroup() // no list of topics: all
				g.GroupID = group
				req.Groups = append(req.Groups, g)
			}
			return req
		},
		func(resp *kmsg.DescribeShareGroupOffsetsResponse, give func(string, ShareGroupOffsets, error)) {
			for i := range resp.Groups {
				g := readShareOffsets(resp.Version, &resp.Groups[i])
				give(g.Group, g, g.unsettled())
			}
		},
		func(group string, err error) ShareGroupOffsets { return ShareGroupOffsets{Group: group, Err: err} })
}

func readShareOffsets(version int16, in *kmsg.DescribeShareGroupOffsetsResponseGroup) ShareGroupOffsets {
	g := ShareGroupOffsets{Group: in.GroupID, Err: client.CodeError(in.ErrorCode, in.ErrorMessage)}
	for _, t := range in.Topics {
		for _, p := range t.Partitions {
			o := ShareOffset{
				TopicPartition: client.TopicPartition{Topic: t.Topic, Partition: p.Partition}, Start: p.StartOffset,
				LeaderEpoch: client.InEpoch(p.LeaderEpoch), Lag: p.Lag, Err: client.CodeError(p.ErrorCode, p.ErrorMessage),
			}
			if version < shareOffsetsWithLag || o.Lag < 0 {
				o.Lag = NoLag
			}
			g.Offsets = append(g.Offsets, o)
		}
	}
	slices.SortFunc(g.Offsets, func(a, b ShareOffset) int { return comparePartitions(a.TopicPartition, b.TopicPartition) })
	return g
}

// unsettled is the group's error, or that of a partition which may pass: then all is asked again.
func (g *ShareGroupOffsets) unsettled() error {
	if g.Err != nil {
		return g.Err
	}
	for _, o := range g.Offsets {
		if passing(o.Err) {
			return o.Err
		}
	}
	return nil
}

// passing tells whether asking a coordinator again helps: a topic that is not there is not waited for, as in byLeader.
func passing(err error) bool {
	return again(err) && !errors.Is(err, client.ErrUnknownTopicOrPartition)
}

// AlterShareGroupOffsets lets a share group without members deliver from other offsets. The results are sorted by
// partition. Where the group has members each wraps ErrNonEmptyGroup; ErrGroupIDNotFound where there is no such group.
func (a *Admin) AlterShareGroupOffsets(ctx context.Context, group string, starts map[client.TopicPartition]int64) ([]PartitionResult, error) {
	partitions := slices.SortedFunc(maps.Keys(starts), comparePartitions)
	results, err := perCoordinator(ctx, a, "alter offsets of share group "+group, []string{group}, nil,
		func(context.Context, []string) kmsg.Request {
			req := kmsg.NewPtrAlterShareGroupOffsetsRequest()
			req.GroupID = group
			eachTopic(partitions, func(topic string, tps []client.TopicPartition) {
				t := kmsg.NewAlterShareGroupOffsetsRequestTopic()
				t.Topic = topic
				for _, tp := range tps {
					t.Partitions = append(t.Partitions, kmsg.AlterShareGroupOffsetsRequestTopicPartition{Partition: tp.Partition, StartOffset: starts[tp]})
				}
				req.Topics = append(req.Topics, t)
			})
			return req
		},
		func(resp *kmsg.AlterShareGroupOffsetsResponse, give func(string, map[client.TopicPartition]error, error)) {
			errs, whole := map[client.TopicPartition]error{}, client.CodeError(resp.ErrorCode, resp.ErrorMessage)
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					err := client.CodeError(p.ErrorCode, p.ErrorMessage)
					errs[client.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = err
					if whole == nil && passing(err) {
						whole = err
					}
				}
			}
			give(group, errs, whole)
		},
		func(_ string, err error) map[client.TopicPartition]error { return forAll(partitions, err) })
	if err != nil {
		return nil, err
	}
	return partitionResults(partitions, results[0]), nil
}

// DeleteShareGroupOffsets forgets what a share group without members has delivered of topics. The results are in the
// order of the topics. Errors: ErrGroupIDNotFound, ErrNonEmptyGroup, ErrUnknownTopicOrPartition.
func (a *Admin) DeleteShareGroupOffsets(ctx context.Context, group string, topics ...string) ([]TopicResult, error) {
	results, err := perCoordinator(ctx, a, "delete offsets of share group "+group, []string{group}, nil,
		func(context.Context, []string) kmsg.Request {
			req := kmsg.NewPtrDeleteShareGroupOffsetsRequest()
			req.GroupID = group
			for _, topic := range topics {
				req.Topics = append(req.Topics, kmsg.DeleteShareGroupOffsetsRequestTopic{Topic: topic})
			}
			return req
		},
		func(resp *kmsg.DeleteShareGroupOffsetsResponse, give func(string, map[string]error, error)) {
			errs, whole := map[string]error{}, client.CodeError(resp.ErrorCode, resp.ErrorMessage)
			for _, t := range resp.Topics {
				errs[t.Topic] = client.CodeError(t.ErrorCode, t.ErrorMessage)
				if whole == nil && passing(errs[t.Topic]) {
					whole = errs[t.Topic]
				}
			}
			give(group, errs, whole)
		},
		func(_ string, err error) map[string]error {
			errs := map[string]error{}
			for _, topic := range topics {
				errs[topic] = err
			}
			return errs
		})
	if err != nil {
		return nil, err
	}
	out := make([]TopicResult, len(topics))
	for i, topic := range topics {
		err, answered := results[0][topic]
		if !answered {
			err = errLeftOut
		}
		out[i] = TopicResult{topic, err}
	}
	return out, nil
}
