package api

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// JoinGroup, key 11, versions 0 to 9. Version 1 has the rebalance timeout (KIP-62), 4 wants members to
// have ids (KIP-394), 5 has static members (KIP-345), 7 names the protocol type, 8 gives a reason
// (KIP-800), 9 lets the leader skip the assignment (KIP-814).

var joinGroup = groupAPI[kmsg.JoinGroupRequest, *kmsg.JoinGroupRequest]{
	group: func(q *kmsg.JoinGroupRequest) string { return q.Group },
	check: func(q *kmsg.JoinGroupRequest) int16 { return needsGroup(q.Group) },
	refusal: func(q *kmsg.JoinGroupRequest) func(int16) kmsg.Response {
		version, member := q.Version, strings.Clone(q.MemberID) // not the whole request, while others are waited for
		return func(code int16) kmsg.Response {
			res := kmsg.NewPtrJoinGroupResponse()
			res.ErrorCode, res.MemberID, res.Generation = code, member, -1
			if version < 7 {
				res.Protocol = kmsg.StringPtr("") // not nullable yet
			}
			return res
		}
	},
}
