package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// DescribeGroups, key 15, versions 0 to 6. Version 3 names the authorized operations (KIP-430), 4 the
// instance ids of members (KIP-345), 6 tells a group that does not exist from a dead one.

func (h *Handler) describeGroups(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := owned(c, kmsg.NewPtrDescribeGroupsRequest())
	if err != nil {
		return nil, false, err
	}
	calls := make([]groupCall, len(q.Groups))
	for i, groupID := range q.Groups {
		one := kmsg.NewPtrDescribeGroupsRequest()
		one.Version, one.Groups, one.IncludeAuthorizedOperations = q.Version, []string{groupID}, q.IncludeAuthorizedOperations
		calls[i] = groupCall{h.submit(c, groupID, one), func(code int16) kmsg.Response {
			res := kmsg.NewPtrDescribeGroupsResponse()
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group, g.ErrorCode = groupID, code
			res.Groups = append(res.Groups, g)
			return res
		}, q.Version}
	}
	c.req.AnnouncesWait = true
	version, operations := q.Version, q.IncludeAuthorizedOperations
	return merged(calls, func(responses []kmsg.Response) kmsg.Response {
		all := kmsg.NewPtrDescribeGroupsResponse()
		all.Version = version
		for _, res := range responses {
			for _, g := range res.(*kmsg.DescribeGroupsResponse).Groups {
				if operations && g.ErrorCode == 0 {
					g.AuthorizedOperations = groupOperations
				}
				all.Groups = append(all.Groups, g)
			}
		}
		return all
	}), allReady(calls), nil
}
