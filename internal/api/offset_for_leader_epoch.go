package api

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetForLeaderEpoch, key 23, versions 2 to 4: where an epoch ended, so that a consumer finds out
// whether records that it has seen were truncated (KIP-101, KIP-320).

func offsetForLeaderEpoch(ctx context.Context, c *call, q *kmsg.OffsetForLeaderEpochRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrOffsetForLeaderEpochResponse()
	confirm := sync.OnceValue(func() error { return c.h.confirm(ctx, nil) }) // for all partitions
	for _, t := range q.Topics {
		topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
		topic.Topic = t.Topic
		for _, asked := range t.Partitions {
			epoch, end, err := c.h.epochEnd(t.Topic, asked.Partition, asked.LeaderEpoch, asked.CurrentLeaderEpoch, confirm)
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition, part.ErrorCode, part.LeaderEpoch, part.EndOffset = asked.Partition, codeOf(err), epoch, end
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("offset for leader epoch: %w", err)
	}
	return res, nil
}

// epochEnd finds where an epoch ended. One that this leader has never heard of may be that of a newer leader, which confirm finds out.
func (h *Handler) epochEnd(topic string, number, epoch, callerEpoch int32, confirm func() error) (found int32, end int64, err error) {
	for first := true; ; first = false {
		p, err := h.partition(h.o.Images.Image(), topic, number)
		if err != nil {
			return -1, -1, err
		}
		found, end, err = p.EpochEnd(epoch, callerEpoch)
		if err != nil || found >= 0 || epoch < 0 || !first || !p.OthersMayLead() {
			return found, end, err
		}
		if err := confirm(); err != nil {
			return -1, -1, fmt.Errorf("where epoch %d of %v ended: %w", epoch, p.ID(), err)
		}
	}
}
