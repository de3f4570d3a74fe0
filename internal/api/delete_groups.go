package api

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// DeleteGroups, key 42, versions 0 to 2 (KIP-229).

func (h *Handler) deleteGroups(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := owned(c, kmsg.NewPtrDeleteGroupsRequest())
	if err != nil {
		return nil, false, err
	}
	slices.Sort(q.Groups)
	groups := slices.Compact(q.Groups) // one named twice is deleted once, and not missing then
	return c.askEach(q.Version, groups, func(i int) kmsg.Request {
		one := kmsg.NewPtrDeleteGroupsRequest()
		one.Groups = groups[i : i+1 : i+1]
		return one
	}, func(groupID string, code int16) kmsg.Response {
		res := kmsg.NewPtrDeleteGroupsResponse()
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode = groupID, code
		res.Groups = append(res.Groups, g)
		return res
	}, func(responses []kmsg.Response) kmsg.Response {
		all := kmsg.NewPtrDeleteGroupsResponse()
		for _, res := range responses {
			all.Groups = append(all.Groups, res.(*kmsg.DeleteGroupsResponse).Groups...)
		}
		return all
	})
}
