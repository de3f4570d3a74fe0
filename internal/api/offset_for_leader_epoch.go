package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetForLeaderEpoch, key 23, versions 2 to 4: where an epoch ended, so that a consumer finds out
// whether records that it has seen were truncated (KIP-101, KIP-320).

func offsetForLeaderEpoch(c *call, q *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	res := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for _, t := range q.Topics {
		topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
		topic.Topic = t.Topic
		for _, asked := range t.Partitions {
			epoch, end, err := c.h.epochEnd(t.Topic, asked.Partition, asked.LeaderEpoch, asked.CurrentLeaderEpoch)
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition, part.ErrorCode, part.LeaderEpoch, part.EndOffset = asked.Partition, codeOf(err), epoch, end
			topic.Partitions = append(topic.Partitions, part)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res
}

func (h *Handler) epochEnd(topic string, number, epoch, callerEpoch int32) (found int32, end int64, err error) {
	p, err := h.partition(h.o.Images.Image(), topic, number)
	if err != nil {
		return -1, -1, err
	}
	return p.EpochEnd(epoch, callerEpoch)
}
