package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
)

// DeleteRecords, key 21, versions 0 to 2 (KIP-107).

func deleteRecords(ctx context.Context, c *call, q *kmsg.DeleteRecordsRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrDeleteRecordsResponse()
	for _, t := range q.Topics {
		topic := kmsg.NewDeleteRecordsResponseTopic()
		topic.Topic = t.Topic
		for _, asked := range t.Partitions {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("delete records: %w", err)
			}
			start, err := c.h.deleteRecords(ctx, t.Topic, asked.Partition, asked.Offset)
			if unexpected(err) {
				c.h.log.Error("delete records failed", "topic", t.Topic, "partition", asked.Partition, "err", err)
			}
			part := kmsg.NewDeleteRecordsResponseTopicPartition()
			part.Partition, part.LowWatermark, part.ErrorCode = asked.Partition, start, codeOf(err)
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res, nil
}

// deleteRecords returns the partition's new start, -1 with an error.
func (h *Handler) deleteRecords(ctx context.Context, topic string, number int32, before int64) (int64, error) {
	p, err := h.partition(h.o.Images.Image(), topic, number)
	if err != nil {
		return -1, err
	}
	if controller.InternalTopic(topic) {
		return -1, fmt.Errorf("delete records of %v, which a coordinator keeps its state in: %w", p.ID(), errInvalidTopic)
	}
	return p.DeleteRecords(ctx, before)
}
