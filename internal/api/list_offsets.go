package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/commitlog"
	"barnabas/internal/replica"
)

// ListOffsets, key 2, versions 1 to 11. Version 2 has an isolation level (KIP-98), 4 leader epochs
// (KIP-320), 7 the record with the highest timestamp (KIP-734), 8 and 9 the ends of the local and of
// the tiered part of a log (KIP-405, KIP-1005), 10 a timeout for reading tiers, 11 what waits to be
// tiered (KIP-1023). Nothing is tiered here, so nothing waits for a tier and the timeout has no use.
//
// A new leader does not know how far its predecessor had committed until its own watermark has passed the start of its
// epoch. Until then consumers are told to ask again where the answer depends on it (KIP-207, version 5).

// Timestamps with a meaning of their own, and the version that brings them.
const (
	latest              = -1
	earliest            = -2
	ofMaxTimestamp      = -3 // version 7
	earliestLocal       = -4 // 8
	latestTiered        = -5 // 9
	earliestPendingTier = -6 // 11
	consumerReplicaID   = -1
	debuggingReplicaID  = -2
	noOffset, noEpoch   = -1, -1
	noTimestamp         = -1
)

func specialSince(timestamp int64) int16 {
	switch timestamp {
	case latest, earliest:
		return 1
	case ofMaxTimestamp:
		return 7
	case earliestLocal:
		return 8
	case latestTiered:
		return 9
	case earliestPendingTier:
		return 11
	}
	return 1<<15 - 1
}

func listOffsets(ctx context.Context, c *call, q *kmsg.ListOffsetsRequest) (kmsg.Response, error) {
	type partition struct {
		topic  string
		number int32
	}
	times := map[partition]int{}
	for _, t := range q.Topics {
		for _, p := range t.Partitions {
			times[partition{t.Topic, p.Partition}]++
		}
	}
	res := kmsg.NewPtrListOffsetsResponse()
	for _, t := range q.Topics {
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = t.Topic
		for i := range t.Partitions {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("list offsets: %w", err)
			}
			asked := &t.Partitions[i]
			part := kmsg.NewListOffsetsResponseTopicPartition()
			part.Partition = asked.Partition
			found, err := commitlog.TimedOffset{TimestampMs: noTimestamp, Offset: noOffset, LeaderEpoch: noEpoch}, error(kerr.InvalidRequest)
			if times[partition{t.Topic, asked.Partition}] == 1 {
				found, err = c.h.findOffset(q, t.Topic, asked)
			}
			if unexpected(err) {
				c.h.log.Error("list offsets failed", "topic", t.Topic, "partition", asked.Partition, "timestamp", asked.Timestamp, "err", err)
			}
			if errors.Is(err, replica.ErrOffsetNotAvailable) && q.Version < 5 {
				err = kerr.LeaderNotAvailable // its code is younger than the version
			}
			part.ErrorCode, part.Timestamp, part.Offset, part.LeaderEpoch = codeOf(err), found.TimestampMs, found.Offset, found.LeaderEpoch
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res, nil
}

// findOffset finds what one partition is asked for. No error and offset -1: there is none.
func (h *Handler) findOffset(q *kmsg.ListOffsetsRequest, topic string, asked *kmsg.ListOffsetsRequestTopicPartition) (commitlog.TimedOffset, error) {
	none := commitlog.TimedOffset{TimestampMs: noTimestamp, Offset: noOffset, LeaderEpoch: noEpoch}
	if asked.Timestamp < 0 && q.Version < specialSince(asked.Timestamp) {
		return none, kerr.UnsupportedVersion
	}
	p, err := h.partition(h.o.Images.Image(), topic, asked.Partition)
	if err != nil {
		return none, err
	}
	callerEpoch := int32(noEpoch)
	if q.Version >= 4 {
		callerEpoch = asked.CurrentLeaderEpoch
	}
	epochOf := p.LeaderEpoch
	if q.ReplicaID == debuggingReplicaID { // it may look at a follower
		epochOf = p.EpochHere
	}
	epoch, err := epochOf(callerEpoch)
	if err != nil {
		return none, err
	}
	if err := p.Log().Dir().Offline(); err != nil {
		return none, fmt.Errorf("list offsets of %v: %w", p.ID(), err)
	}
	progress := p.Progress()
	readable, notYet := readableEnd(q, p, callerEpoch)
	var found commitlog.TimedOffset
	var ok bool
	switch asked.Timestamp {
	case latest:
		if notYet != nil {
			return none, notYet
		}
		return commitlog.TimedOffset{TimestampMs: noTimestamp, Offset: readable, LeaderEpoch: epoch}, nil
	case earliest, earliestLocal:
		return commitlog.TimedOffset{TimestampMs: noTimestamp, Offset: progress.Start, LeaderEpoch: p.Log().EpochAt(progress.Start)}, nil
	case latestTiered, earliestPendingTier:
		return none, nil
	case ofMaxTimestamp:
		found, ok, err = p.Log().MaxTimestamp()
	default:
		found, ok, err = p.Log().OffsetForTime(asked.Timestamp)
	}
	switch {
	case err != nil:
		return none, fmt.Errorf("list offsets of %v at time %d: %w", p.ID(), asked.Timestamp, err)
	case ok && found.Offset < readable:
		return found, nil
	}
	return none, notYet // what is beyond is not committed, or not known to be
}

// readableEnd is the offset up to which the asker may know the log. Replicas and debuggers see all of it. notYet says that
// there is more which it may know soon.
func readableEnd(q *kmsg.ListOffsetsRequest, p *replica.Partition, callerEpoch int32) (end int64, notYet error) {
	if q.ReplicaID != consumerReplicaID {
		return p.Progress().End, nil
	}
	isolation := replica.ReadUncommitted
	if q.Version >= 2 && q.IsolationLevel == int8(replica.ReadCommitted) {
		isolation = replica.ReadCommitted
	}
	end, err := p.LatestOffset(callerEpoch, isolation)
	if errors.Is(err, replica.ErrOffsetNotAvailable) {
		return p.ReadableEnd(isolation), err
	}
	return end, err
}
