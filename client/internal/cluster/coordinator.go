package cluster

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
)

// CoordinatorKind says for what a broker is the coordinator; the numbers are those of the protocol.
type CoordinatorKind int8

// The kinds of coordinators.
const (
	GroupCoordinator       CoordinatorKind = 0
	TransactionCoordinator CoordinatorKind = 1
)

// firstFindCoordinatorOfMany is the version of FindCoordinator from which it asks for several.
const firstFindCoordinatorOfMany = 4

// FindCoordinator asks any broker which one coordinates a group or a transactional id. The broker
// found can be reached by its number from then on.
func (c *Cluster) FindCoordinator(ctx context.Context, kind CoordinatorKind, key string) (int32, error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType = int8(kind)
	req.CoordinatorKey, req.CoordinatorKeys = key, []string{key}
	resp, err := c.RequestAny(ctx, req)
	if err != nil {
		return -1, err
	}
	answer := resp.(*kmsg.FindCoordinatorResponse)
	found := kmsg.FindCoordinatorResponseCoordinator{
		NodeID: answer.NodeID, Host: answer.Host, Port: answer.Port, ErrorCode: answer.ErrorCode, ErrorMessage: answer.ErrorMessage,
	}
	if answer.Version >= firstFindCoordinatorOfMany {
		if len(answer.Coordinators) != 1 {
			return -1, fmt.Errorf("%w: the answer names %d coordinators", errcode.CoordinatorNotAvailable, len(answer.Coordinators))
		}
		found = answer.Coordinators[0]
	}
	if err := errcode.Of(found.ErrorCode, found.ErrorMessage); err != nil {
		return -1, err
	}
	c.Metadata.AddBroker(Broker{ID: found.NodeID, Address: JoinHostPort(found.Host, found.Port)})
	return found.NodeID, nil
}
