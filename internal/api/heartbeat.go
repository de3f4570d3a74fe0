package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat, key 12, versions 0 to 4. Version 3 has static members (KIP-345).

var heartbeat = groupAPI[kmsg.HeartbeatRequest, *kmsg.HeartbeatRequest]{
	group: func(q *kmsg.HeartbeatRequest) string { return q.Group },
	check: func(q *kmsg.HeartbeatRequest) int16 { return needsGroup(q.Group) },
	refusal: func(*kmsg.HeartbeatRequest) func(int16) kmsg.Response {
		return func(code int16) kmsg.Response {
			res := kmsg.NewPtrHeartbeatResponse()
			// While the group is loading nobody's session ends, so there is nothing to tell a member.
			if code != kerr.CoordinatorLoadInProgress.Code {
				res.ErrorCode = code
			}
			return res
		}
	},
}
