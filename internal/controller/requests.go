package controller

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// alterTimeout bounds the requests that carry no timeout of their own.
const alterTimeout = 30 * time.Second

// The methods named after Kafka's requests answer with a complete response, whatever happened: where
// the whole request failed (a timeout, another controller, a full disk) every part of it says so.
// The error is set only when ctx was cancelled, that is, when nobody hears the answer; the change
// may take effect all the same. The response has the request's version. A message beside the code
// NONE is a warning.

// CreateTopics makes topics.
func (c *Controller) CreateTopics(ctx context.Context, req *kmsg.CreateTopicsRequest) (*kmsg.CreateTopicsResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.CreateTopicsResponse) {
		return createTopics(v, req)
	})
	return c.created(req, resp, err)
}

func (c *Controller) created(req *kmsg.CreateTopicsRequest, resp *kmsg.CreateTopicsResponse, err error) (*kmsg.CreateTopicsResponse, error) {
	if err != nil {
		why, err := wholly(err)
		if err != nil {
			return nil, err
		}
		return refuseCreation(req, why), nil
	}
	for _, t := range resp.Topics {
		if t.ErrorCode == 0 && t.ErrorMessage != nil {
			c.options.Logger.Warn("topic created", "topic", t.Topic, "warning", *t.ErrorMessage)
		}
	}
	return resp, nil
}

// AutoCreateTopics makes topics because somebody uses them on this node: with its defaults, and internal ones as
// their coordinators' settings say on the controller. Whether that is allowed (auto.create.topics.enable) is the
// caller's question. The response is of CreateTopics' newest version; TOPIC_ALREADY_EXISTS is among
// its codes. ctx bounds the wait.
func (c *Controller) AutoCreateTopics(ctx context.Context, names []string) (*kmsg.CreateTopicsResponse, error) {
	return c.autoCreate(ctx, names, topicDefaultsOf(c.options.Config))
}

func (c *Controller) autoCreate(ctx context.Context, names []string, defaults topicDefaults) (*kmsg.CreateTopicsResponse, error) {
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.CreateTopicsResponse) {
		return autoCreateTopics(v, names, defaults)
	})
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = req.MaxVersion()
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic = name
		req.Topics = append(req.Topics, t)
	}
	return c.created(req, resp, err)
}

// DeleteTopics deletes topics with their configs.
func (c *Controller) DeleteTopics(ctx context.Context, req *kmsg.DeleteTopicsRequest) (*kmsg.DeleteTopicsResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.DeleteTopicsResponse) {
		return deleteTopics(v, req)
	})
	if err != nil {
		why, err := wholly(err)
		if err != nil {
			return nil, err
		}
		return refuseDeletion(req, why), nil
	}
	return resp, nil
}

// CreatePartitions adds partitions to topics.
func (c *Controller) CreatePartitions(ctx context.Context, req *kmsg.CreatePartitionsRequest) (*kmsg.CreatePartitionsResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.CreatePartitionsResponse) {
		return createPartitions(v, req)
	})
	if err != nil {
		why, err := wholly(err)
		if err != nil {
			return nil, err
		}
		return refuseGrowth(req, why), nil
	}
	return resp, nil
}

// AlterConfigs replaces all configs that resources have set.
func (c *Controller) AlterConfigs(ctx context.Context, req *kmsg.AlterConfigsRequest) (*kmsg.AlterConfigsResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, alterTimeout, ErrTimedOut)
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.AlterConfigsResponse) {
		return alterConfigs(v, req)
	})
	if err != nil {
		why, err := wholly(err)
		if err != nil {
			return nil, err
		}
		resp = kmsg.NewPtrAlterConfigsResponse()
		resp.Version = req.Version
		for _, r := range req.Resources {
			answer := kmsg.NewAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = r.ResourceType, r.ResourceName
			answer.ErrorCode, answer.ErrorMessage = why.fields()
			resp.Resources = append(resp.Resources, answer)
		}
		return resp, nil
	}
	for _, r := range resp.Resources {
		c.logConfigWarning(r.ResourceType, r.ResourceName, r.ErrorCode, r.ErrorMessage)
	}
	return resp, nil
}

// IncrementalAlterConfigs changes single configs of resources.
func (c *Controller) IncrementalAlterConfigs(ctx context.Context, req *kmsg.IncrementalAlterConfigsRequest) (*kmsg.IncrementalAlterConfigsResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, alterTimeout, ErrTimedOut)
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.IncrementalAlterConfigsResponse) {
		return incrementalAlterConfigs(v, req)
	})
	if err != nil {
		why, err := wholly(err)
		if err != nil {
			return nil, err
		}
		resp = kmsg.NewPtrIncrementalAlterConfigsResponse()
		resp.Version = req.Version
		for _, r := range req.Resources {
			answer := kmsg.NewIncrementalAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = r.ResourceType, r.ResourceName
			answer.ErrorCode, answer.ErrorMessage = why.fields()
			resp.Resources = append(resp.Resources, answer)
		}
		return resp, nil
	}
	for _, r := range resp.Resources {
		c.logConfigWarning(r.ResourceType, r.ResourceName, r.ErrorCode, r.ErrorMessage)
	}
	return resp, nil
}

func (c *Controller) logConfigWarning(kind kmsg.ConfigResourceType, name string, code int16, message *string) {
	if code == 0 && message != nil {
		c.options.Logger.Warn("configs changed", "kind", kind, "resource", name, "warning", *message)
	}
}

// UpdateFeatures sets finalised levels of features.
func (c *Controller) UpdateFeatures(ctx context.Context, req *kmsg.UpdateFeaturesRequest) (*kmsg.UpdateFeaturesResponse, error) {
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	resp, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, *kmsg.UpdateFeaturesResponse) {
		return updateFeatures(v, req)
	})
	if err != nil {
		why, err := wholly(err)
		if err != nil {
			return nil, err
		}
		return refuseFeatures(req, why), nil
	}
	return resp, nil
}

// The methods below are for this cluster's own nodes. Their errors wrap this package's sentinels, or
// those of the quorum where it refused the change.

// AllocateProducerIDs gives a block of producer ids to a broker, registered in epoch.
func (c *Controller) AllocateProducerIDs(ctx context.Context, broker int32, epoch int64) (ProducerIDs, error) {
	r, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, blockOrError) {
		return allocateProducerIDs(v, broker, epoch)
	})
	if err != nil {
		return ProducerIDs{}, err
	}
	return r.block, r.err
}
