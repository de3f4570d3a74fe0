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
	calls := make([]groupCall, len(groups))
	for i, groupID := range groups {
		one := kmsg.NewPtrDeleteGroupsRequest()
		one.Version, one.Groups = q.Version, []string{groupID}
		calls[i] = groupCall{h.submit(c, groupID, one), func(code int16) kmsg.Response {
			res := kmsg.NewPtrDeleteGroupsResponse()
			g := kmsg.NewDeleteGroupsResponseGroup()
			g.Group, g.ErrorCode = groupID, code
			res.Groups = append(res.Groups, g)
			return res
		}, q.Version}
	}
	c.req.AnnouncesWait = true
	version := q.Version
	return merged(calls, func(responses []kmsg.Response) kmsg.Response {
		all := kmsg.NewPtrDeleteGroupsResponse()
		all.Version = version
		for _, res := range responses {
			all.Groups = append(all.Groups, res.(*kmsg.DeleteGroupsResponse).Groups...)
		}
		return all
	}), allReady(calls), nil
}
