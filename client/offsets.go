package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/prefetch"
)

// The times that ListOffsets gives a meaning of their own.
const (
	listLatest   = -1
	listEarliest = -2
)

func listTime(at prefetch.Start) int64 {
	switch at.Kind {
	case prefetch.Earliest:
		return listEarliest
	case prefetch.Time:
		return at.Number
	default:
		return listLatest
	}
}

// resolve asks the leader for the offsets that positions stand for.
func (f *fetcher) resolve(ctx context.Context, conn *cluster.Connection, claims []fetchClaim) {
	if len(claims) == 0 {
		return
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.IsolationLevel = int8(f.k.cfg.isolation)
	req.TimeoutMillis = int32(f.k.c.cfg.RequestTimeout.Milliseconds())
	for i := range claims {
		c := &claims[i]
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != c.Topic {
			req.Topics = append(req.Topics, kmsg.ListOffsetsRequestTopic{Topic: c.Topic})
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = c.Partition, c.LeaderEpoch, listTime(c.Start)
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	resp, err := conn.Ask(ctx, req, -1)
	if err != nil {
		f.release(err, claims)
		return
	}
	parts := map[partitionKey]*kmsg.ListOffsetsResponseTopicPartition{}
	answer := resp.(*kmsg.ListOffsetsResponse)
	for i := range answer.Topics {
		t := &answer.Topics[i]
		for j := range t.Partitions {
			parts[partitionKey{topic: t.Topic, partition: t.Partitions[j].Partition}] = &t.Partitions[j]
		}
	}
	f.k.change(func(s *prefetch.Store[Record], now time.Time) {
		for i := range claims {
			c := &claims[i]
			part := parts[partitionKey{topic: c.Topic, partition: c.Partition}]
			if part == nil {
				s.Missing(now, c)
				continue
			}
			s.Resolved(now, c, prefetch.Spot{Offset: part.Offset, LeaderEpoch: part.LeaderEpoch}, CodeError(part.ErrorCode, nil))
		}
	})
}

// confirm asks a leader that is new whether it has what was read of the one before (KIP-320): where
// the epoch of the latest record that was fetched ends, in the leader's log.
func (f *fetcher) confirm(ctx context.Context, conn *cluster.Connection, claims []fetchClaim) {
	if len(claims) == 0 {
		return
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	for i := range claims {
		c := &claims[i]
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != c.Topic {
			req.Topics = append(req.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: c.Topic})
		}
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = c.Partition, c.LeaderEpoch, c.ReadEpoch
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	resp, err := conn.Ask(ctx, req, -1)
	tooOld := errors.Is(err, ErrUnsupported)
	if err != nil && !tooOld {
		f.release(err, claims)
		return
	}
	parts := map[partitionKey]*kmsg.OffsetForLeaderEpochResponseTopicPartition{}
	if answer, ok := resp.(*kmsg.OffsetForLeaderEpochResponse); ok {
		for i := range answer.Topics {
			t := &answer.Topics[i]
			for j := range t.Partitions {
				parts[partitionKey{topic: t.Topic, partition: t.Partitions[j].Partition}] = &t.Partitions[j]
			}
		}
	}
	f.k.change(func(s *prefetch.Store[Record], now time.Time) {
		for i := range claims {
			c := &claims[i]
			part := parts[partitionKey{topic: c.Topic, partition: c.Partition}]
			switch {
			case tooOld:
				s.CannotConfirm(c)
			case part == nil:
				s.Missing(now, c)
			default:
				s.Confirmed(now, c, prefetch.Spot{Offset: part.EndOffset, LeaderEpoch: part.LeaderEpoch}, CodeError(part.ErrorCode, nil))
			}
		}
	})
}

// Partitions gives the number of partitions of a topic, asking the cluster. It never creates one.
// Errors: ErrUnknownTopicOrPartition, ErrTopicAuthorizationFailed, ErrInvalidTopic, ErrNoBrokers, ctx's.
func (c *Client) Partitions(ctx context.Context, topic string) (int32, error) {
	answer, err := c.meta.Ask(ctx, []string{topic}, false)
	if err != nil {
		return 0, fmt.Errorf("partitions of topic %q: %w", topic, err)
	}
	for i := range answer.Topics {
		if t := cluster.ReadTopic(&answer.Topics[i]); t.Name == topic {
			if t.Err != nil {
				return 0, fmt.Errorf("partitions of topic %q: %w", topic, t.Err)
			}
			return int32(len(t.Partitions)), nil
		}
	}
	return 0, fmt.Errorf("partitions of topic %q: %w", topic, ErrUnknownTopicOrPartition)
}
