package api

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// OffsetCommit, key 8, versions 2 to 10. Versions 2 to 4 may ask for a retention of their own, 6 has
// leader epochs (KIP-320), 7 static members (KIP-345), 9 codes of consumer groups (KIP-848), 10 names
// topics by their ids.

// refusedCommit answers every partition with an error.
func refusedCommit(q *kmsg.OffsetCommitRequest) func(int16) kmsg.Response {
	topics := q.Topics
	return func(code int16) kmsg.Response {
		res := kmsg.NewPtrOffsetCommitResponse()
		res.Topics = make([]kmsg.OffsetCommitResponseTopic, len(topics))
		for i := range topics {
			res.Topics[i] = refusedTopic(&topics[i], code)
		}
		return res
	}
}

func refusedTopic(asked *kmsg.OffsetCommitRequestTopic, code int16) kmsg.OffsetCommitResponseTopic {
	t := kmsg.OffsetCommitResponseTopic{Topic: asked.Topic, TopicID: asked.TopicID}
	t.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(asked.Partitions))
	for j := range asked.Partitions {
		t.Partitions[j].Partition, t.Partitions[j].ErrorCode = asked.Partitions[j].Partition, code
	}
	return t
}

// offsetCommit refuses the partitions that the metadata does not know, and hands the others on. (Topics
// that are not known the coordinator refuses.)
func (h *Handler) offsetCommit(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := owned(c, kmsg.NewPtrOffsetCommitRequest())
	if err != nil {
		return nil, false, err
	}
	unknown := unknownPartitions(h.o.Coordinator.Image(), q)
	if len(q.Topics) == 0 && len(unknown) > 0 {
		res := kmsg.NewPtrOffsetCommitResponse()
		res.Version, res.Topics = q.Version, unknown
		return replyWith(res), true, nil
	}
	refuse := refusedCommit(q)
	g := groupCall{h.submit(c, q.Group, q), refuse, q.Version}
	if len(unknown) > 0 {
		g.asked = withTopics{g.asked, unknown}
		g.refuse = func(code int16) kmsg.Response {
			return withRefused(refuse(code).(*kmsg.OffsetCommitResponse), unknown)
		}
	}
	c.req.AnnouncesWait = true
	return g.reply, g.asked.Ready(), nil
}

// unknownPartitions takes partitions that do not exist out of a request, and the topics that are left
// without any, and returns them as they are to be answered.
func unknownPartitions(image *metadata.Image, q *kmsg.OffsetCommitRequest) (unknown []kmsg.OffsetCommitResponseTopic) {
	var emptied []int
	for i := range q.Topics {
		asked := &q.Topics[i]
		var topic *metadata.Topic
		var ok bool
		if q.Version >= 10 {
			topic, ok = image.TopicByID(asked.TopicID)
		} else {
			topic, ok = image.Topic(asked.Topic)
		}
		outside := func(p kmsg.OffsetCommitRequestTopicPartition) bool {
			return p.Partition < 0 || int(p.Partition) >= len(topic.Partitions)
		}
		if !ok || !slices.ContainsFunc(asked.Partitions, outside) {
			continue
		}
		only := *asked
		only.Partitions = slices.DeleteFunc(slices.Clone(asked.Partitions), func(p kmsg.OffsetCommitRequestTopicPartition) bool { return !outside(p) })
		unknown = append(unknown, refusedTopic(&only, kerr.UnknownTopicOrPartition.Code))
		if asked.Partitions = slices.DeleteFunc(asked.Partitions, outside); len(asked.Partitions) == 0 {
			emptied = append(emptied, i)
		}
	}
	for _, i := range slices.Backward(emptied) {
		q.Topics = slices.Delete(q.Topics, i, i+1)
	}
	return unknown
}

// withTopics adds what was refused before to the answer of the coordinator.
type withTopics struct {
	asked
	topics []kmsg.OffsetCommitResponseTopic
}

func (w withTopics) Await(ctx context.Context) (kmsg.Response, error) {
	res, err := w.asked.Await(ctx)
	if err != nil {
		return nil, err
	}
	return withRefused(res.(*kmsg.OffsetCommitResponse), w.topics), nil
}

// withRefused adds partitions to a response, to the topics that are in it already where they are.
func withRefused(res *kmsg.OffsetCommitResponse, topics []kmsg.OffsetCommitResponseTopic) *kmsg.OffsetCommitResponse {
	for _, t := range topics {
		i := slices.IndexFunc(res.Topics, func(o kmsg.OffsetCommitResponseTopic) bool { return o.Topic == t.Topic && o.TopicID == t.TopicID })
		if i < 0 {
			res.Topics = append(res.Topics, t)
			continue
		}
		res.Topics[i].Partitions = append(res.Topics[i].Partitions, t.Partitions...)
	}
	return res
}
