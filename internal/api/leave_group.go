package api

import "github.com/twmb/franz-go/pkg/kmsg"

// LeaveGroup, key 13, versions 0 to 5. Version 3 takes several members, and static ones by their
// instance ids (KIP-345), 5 gives a reason (KIP-800).

var leaveGroup = groupAPI[kmsg.LeaveGroupRequest, *kmsg.LeaveGroupRequest]{
	group: func(q *kmsg.LeaveGroupRequest) string { return q.Group },
	check: func(q *kmsg.LeaveGroupRequest) int16 { return needsGroup(q.Group) },
	refusal: func(*kmsg.LeaveGroupRequest) func(int16) kmsg.Response {
		return func(code int16) kmsg.Response {
			res := kmsg.NewPtrLeaveGroupResponse()
			res.ErrorCode = code
			return res
		}
	},
}
