package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
)

// DescribeProducers, key 61, version 0 (KIP-664): what partitions know of their idempotent and
// transactional producers. Followers answer too, so that what they know can be compared.

func describeProducers(ctx context.Context, c *call, q *kmsg.DescribeProducersRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrDescribeProducersResponse()
	for _, t := range q.Topics {
		topic := kmsg.NewDescribeProducersResponseTopic()
		topic.Topic = t.Topic
		for _, number := range t.Partitions {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("describe producers: %w", err)
			}
			part := kmsg.NewDescribeProducersResponseTopicPartition()
			part.Partition = number
			var err error
			part.ActiveProducers, err = c.h.activeProducers(t.Topic, number)
			if unexpected(err) {
				c.h.log.Error("describe producers failed", "topic", t.Topic, "partition", number, "err", err)
			}
			part.ErrorCode, part.ErrorMessage = codeOf(err), messageOf(err)
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res, nil
}

func (h *Handler) activeProducers(topic string, number int32) ([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, error) {
	if reason := controller.CheckTopicName(topic); reason != "" {
		return nil, fmt.Errorf("%w: %s", errInvalidTopic, reason)
	}
	p, err := h.partition(h.o.Images.Image(), topic, number)
	if err != nil {
		return nil, err
	}
	states, err := p.Log().Producers()
	if err != nil {
		return nil, fmt.Errorf("describe producers of %v: %w", p.ID(), err)
	}
	all := make([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, len(states))
	for i, s := range states {
		all[i] = kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		all[i].ProducerID, all[i].ProducerEpoch, all[i].LastSequence = s.ID, int32(s.Epoch), s.LastSequence
		all[i].LastTimestamp, all[i].CoordinatorEpoch = s.LastTimestampMs, s.CoordinatorEpoch
		all[i].CurrentTxnStartOffset = s.TransactionStart
	}
	return all, nil
}
