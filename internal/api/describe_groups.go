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
	operations := q.IncludeAuthorizedOperations
	return c.askEach(q.Version, q.Groups, func(i int) kmsg.Request {
		one := kmsg.NewPtrDescribeGroupsRequest()
		one.Groups, one.IncludeAuthorizedOperations = q.Groups[i:i+1:i+1], q.IncludeAuthorizedOperations
		return one
	}, func(groupID string, code int16) kmsg.Response {
		res := kmsg.NewPtrDescribeGroupsResponse()
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.ErrorCode = groupID, code
		res.Groups = append(res.Groups, g)
		return res
	}, func(responses []kmsg.Response) kmsg.Response {
		all := kmsg.NewPtrDescribeGroupsResponse()
		for _, res := range responses {
			for _, g := range res.(*kmsg.DescribeGroupsResponse).Groups {
				if operations && g.ErrorCode == 0 {
					g.AuthorizedOperations = groupOperations
				}
				all.Groups = append(all.Groups, g)
			}
		}
		return all
	})
}
