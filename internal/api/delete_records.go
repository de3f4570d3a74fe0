package api

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
	"barnabas/internal/replica"
)

// DeleteRecords, key 21, versions 0 to 2 (KIP-107).

func deleteRecords(ctx context.Context, c *call, q *kmsg.DeleteRecordsRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrDeleteRecordsResponse()
	var deletions []deletion
	for _, t := range q.Topics {
		topic := kmsg.NewDeleteRecordsResponseTopic()
		topic.Topic = t.Topic
		for _, asked := range t.Partitions {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("delete records: %w", err)
			}
			p, start, err := c.h.deleteRecords(ctx, t.Topic, asked.Partition, asked.Offset)
			need := start
			if asked.Offset >= 0 {
				need = min(need, asked.Offset) // the log may have begun beyond that before
			}
			deletions = append(deletions, deletion{p, need, err})
			part := kmsg.NewDeleteRecordsResponseTopicPartition()
			part.Partition = asked.Partition
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	// The records are gone for readers of this broker. The answer says that they are everywhere (KIP-107).
	limited, cancel := context.WithTimeout(ctx, time.Duration(q.TimeoutMillis)*time.Millisecond)
	defer cancel()
	for i := range res.Topics {
		topic := &res.Topics[i]
		for j := range topic.Partitions {
			d, part := deletions[0], &topic.Partitions[j]
			deletions = deletions[1:]
			if d.err == nil {
				d.low, d.err = d.p.AwaitDeleted(limited, d.low)
			}
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("delete records: %w", err)
			}
			if unexpected(d.err) {
				c.h.log.Error("delete records failed", "topic", topic.Topic, "partition", part.Partition, "err", d.err)
			}
			part.LowWatermark, part.ErrorCode = d.low, codeOf(d.err)
		}
	}
	return res, nil
}

// deletion is what became of one partition's request.
type deletion struct {
	p   *replica.Partition
	low int64 // below which records have to go; then below which they have gone everywhere
	err error
}

// deleteRecords returns the partition's new start here, -1 with an error.
func (h *Handler) deleteRecords(ctx context.Context, topic string, number int32, before int64) (*replica.Partition, int64, error) {
	p, err := h.partition(h.o.Images.Image(), topic, number)
	if err != nil {
		return nil, -1, err
	}
	if controller.InternalTopic(topic) {
		return nil, -1, fmt.Errorf("delete records of %v, which a coordinator keeps its state in: %w", p.ID(), errInvalidTopic)
	}
	start, err := p.DeleteRecords(ctx, before)
	return p, start, err
}
