package controller

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders gives partitions their preferred leaders, or those without a leader any.
func (r *Router) ElectLeaders(ctx context.Context, req *kmsg.ElectLeadersRequest) (*kmsg.ElectLeadersResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	return ask(ctx, r, req, r.local.ElectLeaders)
}

// AlterPartitionReassignments moves partitions to other brokers, or stops that.
func (r *Router) AlterPartitionReassignments(ctx context.Context, req *kmsg.AlterPartitionAssignmentsRequest) (*kmsg.AlterPartitionAssignmentsResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	return ask(ctx, r, req, r.local.AlterPartitionReassignments)
}

// ListPartitionReassignments lists what is being moved, as the controller knows it: whoever has just moved something by
// another broker finds it in the list.
func (r *Router) ListPartitionReassignments(ctx context.Context, req *kmsg.ListPartitionReassignmentsRequest) (*kmsg.ListPartitionReassignmentsResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, alterTimeout, ErrTimedOut) // nothing is changed: as in Kafka, the request's own bound is not looked at
	defer cancel()
	return ask(ctx, r, req, r.local.ListPartitionReassignments)
}
