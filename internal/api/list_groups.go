package api

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// ListGroups, key 16, versions 0 to 5. Version 4 filters by state (KIP-518), 5 by type (KIP-848).

// listGroups asks every partition that this broker leads. While one of them is loading the list would
// lack its groups, so the answer is COORDINATOR_LOAD_IN_PROGRESS.
func (h *Handler) listGroups(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := owned(c, kmsg.NewPtrListGroupsRequest())
	if err != nil {
		return nil, false, err
	}
	led := h.o.Coordinator.Led()
	slices.Sort(led)
	calls := make([]groupCall, len(led))
	for i, n := range led {
		one := kmsg.NewPtrListGroupsRequest()
		one.Version, one.StatesFilter, one.TypesFilter = q.Version, q.StatesFilter, q.TypesFilter
		calls[i] = groupCall{h.o.Coordinator.SubmitTo(n, c.client(), one, c.req.Bytes), func(code int16) kmsg.Response {
			res := kmsg.NewPtrListGroupsResponse()
			res.ErrorCode = code
			return res
		}, q.Version}
	}
	c.req.AnnouncesWait = true
	version := q.Version
	return merged(calls, func(responses []kmsg.Response) kmsg.Response {
		all := kmsg.NewPtrListGroupsResponse()
		all.Version = version
		for _, res := range responses {
			part := res.(*kmsg.ListGroupsResponse)
			switch part.ErrorCode {
			case 0:
				all.Groups = append(all.Groups, part.Groups...)
			case kerr.NotCoordinator.Code: // lost meanwhile: another broker lists its groups
			default:
				all.ErrorCode = part.ErrorCode
			}
		}
		if all.ErrorCode != 0 {
			all.Groups = nil
		}
		return all
	}), allReady(calls), nil
}
