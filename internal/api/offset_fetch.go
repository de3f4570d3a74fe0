package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// OffsetFetch, key 9, versions 1 to 10. Version 2 has an error for the whole answer and can ask for all
// topics, 5 has leader epochs (KIP-320), 7 waits for transactions (KIP-447), 8 asks for several groups
// (KIP-709), 9 names the member (KIP-848), 10 names topics by their ids.

// manyGroups is the first version that asks for several groups.
const manyGroups = 8

func (h *Handler) offsetFetch(ctx context.Context, c *call) (wire.Reply, bool, error) {
	if c.req.Version < manyGroups {
		return offsetFetchOne.handle(ctx, c)
	}
	q, err := owned(c, kmsg.NewPtrOffsetFetchRequest())
	if err != nil {
		return nil, false, err
	}
	groups := make([]string, len(q.Groups))
	for i := range q.Groups {
		groups[i] = q.Groups[i].Group
	}
	return c.askEach(q.Version, groups, func(i int) kmsg.Request {
		one := kmsg.NewPtrOffsetFetchRequest()
		one.RequireStable, one.Groups = q.RequireStable, q.Groups[i:i+1:i+1]
		return one
	}, func(groupID string, code int16) kmsg.Response {
		res := kmsg.NewPtrOffsetFetchResponse()
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group, g.ErrorCode = groupID, code
		res.Groups = append(res.Groups, g)
		return res
	}, func(responses []kmsg.Response) kmsg.Response {
		all := kmsg.NewPtrOffsetFetchResponse()
		for _, res := range responses {
			all.Groups = append(all.Groups, res.(*kmsg.OffsetFetchResponse).Groups...)
		}
		return all
	})
}

// offsetFetchOne is the versions that ask for one group.
var offsetFetchOne = groupAPI[kmsg.OffsetFetchRequest, *kmsg.OffsetFetchRequest]{
	group: func(q *kmsg.OffsetFetchRequest) string { return q.Group },
	refusal: func(q *kmsg.OffsetFetchRequest) func(int16) kmsg.Response {
		version, topics := q.Version, q.Topics
		return func(code int16) kmsg.Response {
			res := kmsg.NewPtrOffsetFetchResponse()
			if version >= 2 {
				res.ErrorCode = code
				return res
			}
			for _, asked := range topics {
				t := kmsg.NewOffsetFetchResponseTopic()
				t.Topic = asked.Topic
				for _, number := range asked.Partitions {
					p := kmsg.NewOffsetFetchResponseTopicPartition()
					p.Partition, p.Offset, p.Metadata, p.ErrorCode = number, -1, kmsg.StringPtr(""), code
					t.Partitions = append(t.Partitions, p)
				}
				res.Topics = append(res.Topics, t)
			}
			return res
		}
	},
}
