package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// SyncGroup, key 14, versions 0 to 5. Version 3 has static members (KIP-345), 5 names protocol type
// and protocol (KIP-559), and wants them.

var syncGroup = groupAPI[kmsg.SyncGroupRequest, *kmsg.SyncGroupRequest]{
	group: func(q *kmsg.SyncGroupRequest) string { return q.Group },
	check: func(q *kmsg.SyncGroupRequest) int16 {
		if q.Version >= 5 && (q.ProtocolType == nil || q.Protocol == nil) {
			return kerr.InconsistentGroupProtocol.Code
		}
		return needsGroup(q.Group)
	},
	refusal: func(*kmsg.SyncGroupRequest) func(int16) kmsg.Response {
		return func(code int16) kmsg.Response {
			res := kmsg.NewPtrSyncGroupResponse()
			res.ErrorCode = code
			return res
		}
	},
}
