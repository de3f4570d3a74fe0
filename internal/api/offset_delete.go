package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetDelete, key 47, version 0 (KIP-496).

var offsetDelete = groupAPI[kmsg.OffsetDeleteRequest, *kmsg.OffsetDeleteRequest]{
	group: func(q *kmsg.OffsetDeleteRequest) string { return q.Group },
	check: func(q *kmsg.OffsetDeleteRequest) int16 { return needsGroup(q.Group) },
	refusal: func(*kmsg.OffsetDeleteRequest) func(int16) kmsg.Response {
		return func(code int16) kmsg.Response {
			res := kmsg.NewPtrOffsetDeleteResponse()
			res.ErrorCode = code
			return res
		}
	},
}
