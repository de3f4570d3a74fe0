package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
)

// The times that ListOffsets gives a meaning of their own.
const (
	listLatest   = -1
	listEarliest = -2
)

func (p Position) listTime() int64 {
	switch p.kind {
	case positionEarliest:
		return listEarliest
	case positionTime:
		return p.number
	default:
		return listLatest
	}
}

// resolveStarts asks the leader for the offsets that positions stand for.
func (f *fetcher) resolveStarts(ctx context.Context, conn *cluster.Connection, cursors []*cursor) {
	if len(cursors) == 0 {
		return
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.IsolationLevel = int8(f.k.cfg.isolation)
	req.TimeoutMillis = int32(f.k.c.cfg.RequestTimeout.Milliseconds())
	f.k.mu.Lock()
	for _, cur := range cursors {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != cur.tp.Topic {
			req.Topics = append(req.Topics, kmsg.ListOffsetsRequestTopic{Topic: cur.tp.Topic})
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = cur.tp.Partition, cur.epoch, cur.start.listTime()
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	f.k.mu.Unlock()
	resp, err := conn.Ask(ctx, req, -1)
	if err != nil {
		f.release(fetchWork{resolve: cursors}, err)
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
	stale := false
	f.k.mu.Lock()
	for _, cur := range cursors {
		cur.busy = false
		part := parts[partitionKey{topic: cur.tp.Topic, partition: cur.tp.Partition}]
		if part == nil {
			f.backOffLocked(cur)
			continue
		}
		stale = f.resolvedLocked(cur, part) || stale
	}
	f.k.mu.Unlock()
	if stale {
		f.k.c.meta.Update()
	}
}

// resolvedLocked takes in the offset that a position stands for; true where the metadata is stale.
func (f *fetcher) resolvedLocked(cur *cursor, part *kmsg.ListOffsetsResponseTopicPartition) bool {
	err := CodeError(part.ErrorCode, nil)
	switch {
	case err == nil && part.Offset < 0 && cur.start.kind == positionTime:
		cur.start = Latest // nothing is that late
		return false
	case err == nil && part.Offset < 0:
		f.backOffLocked(cur)
		return false
	case err == nil:
		cur.start, cur.failures = Position{}, 0
		cur.next, cur.nextEpoch, cur.validate = part.Offset, part.LeaderEpoch, false
		// What was fetched before a reset is still to be polled, and says itself where it ends.
		if len(cur.chunks) == 0 {
			cur.position = part.Offset
		}
		return false
	case retriable(err), errors.Is(err, ErrUnknownServerError):
		f.backOffLocked(cur)
		return staleMetadata(err)
	default:
		f.k.stopLocked(cur, fmt.Errorf("find %v: %w", cur.start, err))
		f.k.tell()
		return false
	}
}

// confirm asks a leader that is new whether it has what was read of the one before (KIP-320): where
// the epoch of the latest record that was fetched ends, in the leader's log.
func (f *fetcher) confirm(ctx context.Context, conn *cluster.Connection, cursors []*cursor) {
	if len(cursors) == 0 {
		return
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	f.k.mu.Lock()
	for _, cur := range cursors {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != cur.tp.Topic {
			req.Topics = append(req.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: cur.tp.Topic})
		}
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = cur.tp.Partition, cur.epoch, cur.nextEpoch
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	f.k.mu.Unlock()
	resp, err := conn.Ask(ctx, req, -1)
	if err != nil && !errors.Is(err, ErrUnsupported) {
		f.release(fetchWork{validate: cursors}, err)
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
	stale := false
	f.k.mu.Lock()
	for _, cur := range cursors {
		cur.busy = false
		part := parts[partitionKey{topic: cur.tp.Topic, partition: cur.tp.Partition}]
		switch {
		case err != nil:
			cur.validate = false // a broker that old cannot tell
		case part == nil:
			f.backOffLocked(cur)
		default:
			stale = f.confirmedLocked(cur, part) || stale
		}
	}
	f.k.mu.Unlock()
	if stale {
		f.k.c.meta.Update()
	}
}

// confirmedLocked takes in where the epoch ends; true where the metadata is stale.
func (f *fetcher) confirmedLocked(cur *cursor, part *kmsg.OffsetForLeaderEpochResponseTopicPartition) bool {
	if cur.dropped {
		return false
	}
	err := CodeError(part.ErrorCode, nil)
	switch {
	case err == nil && (part.EndOffset < 0 || part.LeaderEpoch < 0 || part.EndOffset >= cur.next):
		// All is there; or the leader knows nothing of the epoch any more, which is no loss (trap 3):
		// if the position is out of range the fetch says so.
		cur.validate, cur.failures = false, 0
		return false
	case err == nil:
		f.truncatedLocked(cur, part.EndOffset, part.LeaderEpoch)
		return false
	case retriable(err), errors.Is(err, ErrUnknownServerError):
		f.backOffLocked(cur)
		return staleMetadata(err)
	default:
		f.k.stopLocked(cur, fmt.Errorf("confirm offset %d: %w", cur.next, err))
		f.k.tell()
		return false
	}
}

// truncatedLocked goes back to where the log parts from what was read.
func (f *fetcher) truncatedLocked(cur *cursor, end int64, epoch int32) {
	k := f.k
	cur.validate = false
	if k.cfg.reset.report() {
		k.stopLocked(cur, fmt.Errorf("offset %d, but epoch %d ends at %d: %w", cur.next, cur.nextEpoch, end, ErrLogTruncated))
		k.tell()
		return
	}
	k.c.log.Warn("the log was cut below what was read; reading on where it parts", "partition", cur.tp.String(), "offset", cur.next, "end", end)
	k.mu.pending -= cur.pending
	cur.pending, cur.chunks = 0, nil
	if cur.waiting {
		cur.waiting = false
		k.mu.ready = slices.DeleteFunc(k.mu.ready, func(other *cursor) bool { return other == cur })
	}
	if cur.position < 0 || cur.position > end {
		cur.position = end
	}
	cur.next, cur.nextEpoch, cur.lastRead = cur.position, epoch, min(cur.lastRead, epoch)
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
