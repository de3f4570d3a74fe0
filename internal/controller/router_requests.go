package controller

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What clients ask of the controller, wherever it is. Each is answered as by the Controller's method of its name.

// alterMillis is alterTimeout for ask.
const alterMillis = int32(alterTimeout / time.Millisecond)

// CreateTopics makes topics.
func (r *Router) CreateTopics(ctx context.Context, req *kmsg.CreateTopicsRequest) (*kmsg.CreateTopicsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.CreateTopics)
}

// DeleteTopics deletes topics with their configs.
func (r *Router) DeleteTopics(ctx context.Context, req *kmsg.DeleteTopicsRequest) (*kmsg.DeleteTopicsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.DeleteTopics)
}

// CreatePartitions adds partitions to topics.
func (r *Router) CreatePartitions(ctx context.Context, req *kmsg.CreatePartitionsRequest) (*kmsg.CreatePartitionsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.CreatePartitions)
}

// AlterConfigs replaces all configs that resources have set.
func (r *Router) AlterConfigs(ctx context.Context, req *kmsg.AlterConfigsRequest) (*kmsg.AlterConfigsResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.AlterConfigs)
}

// IncrementalAlterConfigs changes single configs of resources.
func (r *Router) IncrementalAlterConfigs(ctx context.Context, req *kmsg.IncrementalAlterConfigsRequest) (*kmsg.IncrementalAlterConfigsResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.IncrementalAlterConfigs)
}

// UpdateFeatures sets finalised levels of features.
func (r *Router) UpdateFeatures(ctx context.Context, req *kmsg.UpdateFeaturesRequest) (*kmsg.UpdateFeaturesResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.UpdateFeatures)
}

// UnregisterBroker removes a broker for good.
func (r *Router) UnregisterBroker(ctx context.Context, req *kmsg.UnregisterBrokerRequest) (*kmsg.UnregisterBrokerResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.UnregisterBroker)
}

// ElectLeaders gives partitions their preferred leaders, or those without a leader any.
func (r *Router) ElectLeaders(ctx context.Context, req *kmsg.ElectLeadersRequest) (*kmsg.ElectLeadersResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.ElectLeaders)
}

// AlterPartitionReassignments moves partitions to other brokers, or stops that.
func (r *Router) AlterPartitionReassignments(ctx context.Context, req *kmsg.AlterPartitionAssignmentsRequest) (*kmsg.AlterPartitionAssignmentsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.AlterPartitionReassignments)
}

// ListPartitionReassignments lists what is being moved, as the controller knows it: whoever has just moved something by
// another broker finds it in the list.
func (r *Router) ListPartitionReassignments(ctx context.Context, req *kmsg.ListPartitionReassignmentsRequest) (*kmsg.ListPartitionReassignmentsResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.ListPartitionReassignments) // nothing is changed: as in Kafka, the request's own bound is not looked at
}
