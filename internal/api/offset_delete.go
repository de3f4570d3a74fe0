package api

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// OffsetDelete, key 47, version 0 (KIP-496).

// offsetDelete refuses the partitions that the metadata does not know, and hands the others on. (Topics
// that are not known the coordinator refuses.)
func (h *Handler) offsetDelete(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := owned(c, kmsg.NewPtrOffsetDeleteRequest())
	if err != nil {
		return nil, false, err
	}
	refuse := func(code int16) kmsg.Response {
		res := kmsg.NewPtrOffsetDeleteResponse()
		res.ErrorCode = code
		return res
	}
	if code := needsGroup(q.Group); code != 0 {
		return refused(refuse, q.Version, code), true, nil
	}
	unknown := undeletable(h.o.Coordinator.Image(), q)
	if len(q.Topics) == 0 && len(unknown) > 0 {
		res := kmsg.NewPtrOffsetDeleteResponse()
		res.Topics = unknown
		return replyWith(res), true, nil
	}
	g := groupCall{h.submit(c, q.Group, q), refuse, q.Version}
	if len(unknown) > 0 {
		g.asked = withUndeletable{g.asked, unknown}
	}
	c.req.AnnouncesWait = true
	return g.reply, g.asked.Ready(), nil
}

// undeletable takes partitions that do not exist out of a request, and the topics that are left without
// any, and returns them as they are to be answered.
func undeletable(image *metadata.Image, q *kmsg.OffsetDeleteRequest) (unknown []kmsg.OffsetDeleteResponseTopic) {
	q.Topics = slices.DeleteFunc(q.Topics, func(asked kmsg.OffsetDeleteRequestTopic) bool { return len(asked.Partitions) == 0 })
	for i := range q.Topics {
		asked := &q.Topics[i]
		topic, ok := image.Topic(asked.Topic)
		if !ok {
			continue
		}
		refused := kmsg.NewOffsetDeleteResponseTopic()
		refused.Topic = asked.Topic
		asked.Partitions = slices.DeleteFunc(asked.Partitions, func(p kmsg.OffsetDeleteRequestTopicPartition) bool {
			outside := p.Partition < 0 || int(p.Partition) >= len(topic.Partitions)
			if outside {
				refused.Partitions = append(refused.Partitions,
					kmsg.OffsetDeleteResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.UnknownTopicOrPartition.Code})
			}
			return outside
		})
		if len(refused.Partitions) > 0 {
			unknown = append(unknown, refused)
		}
	}
	q.Topics = slices.DeleteFunc(q.Topics, func(asked kmsg.OffsetDeleteRequestTopic) bool { return len(asked.Partitions) == 0 })
	return unknown
}

// withUndeletable adds what was refused before to the answer of the coordinator.
type withUndeletable struct {
	asked
	topics []kmsg.OffsetDeleteResponseTopic
}

func (w withUndeletable) Await(ctx context.Context) (kmsg.Response, error) {
	got, err := w.asked.Await(ctx)
	if err != nil {
		return nil, err
	}
	res := got.(*kmsg.OffsetDeleteResponse)
	if res.ErrorCode != 0 {
		return res, nil
	}
	for _, t := range w.topics {
		i := slices.IndexFunc(res.Topics, func(o kmsg.OffsetDeleteResponseTopic) bool { return o.Topic == t.Topic })
		if i < 0 {
			res.Topics = append(res.Topics, t)
			continue
		}
		res.Topics[i].Partitions = append(res.Topics[i].Partitions, t.Partitions...)
	}
	return res, nil
}
