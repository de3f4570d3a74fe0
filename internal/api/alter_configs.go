package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterConfigs (key 33, versions 0 to 2, replaces all that is set) and IncrementalAlterConfigs
// (key 44, 0 and 1, KIP-339). Topics and brokers are the controller's business. The levels of a
// broker's loggers would be this broker's own, if it had loggers (see errNoLoggers).

func alterConfigs(ctx context.Context, c *call, q *kmsg.AlterConfigsRequest) (kmsg.Response, error) {
	var refused []kmsg.AlterConfigsResponseResource
	rest := *q
	rest.Resources = nil
	for _, r := range q.Resources {
		if r.ResourceType != kmsg.ConfigResourceTypeBrokerLogger {
			rest.Resources = append(rest.Resources, r)
			continue
		}
		no := kmsg.NewAlterConfigsResponseResource()
		no.ResourceType, no.ResourceName = r.ResourceType, r.ResourceName
		no.ErrorCode, no.ErrorMessage = codeOf(errNoLoggers), messageOf(errNoLoggers)
		refused = append(refused, no)
	}
	res, err := c.h.o.Controller.AlterConfigs(ctx, &rest)
	if err != nil {
		return nil, err
	}
	res.Resources = append(res.Resources, refused...)
	return res, nil
}

func incrementalAlterConfigs(ctx context.Context, c *call, q *kmsg.IncrementalAlterConfigsRequest) (kmsg.Response, error) {
	var refused []kmsg.IncrementalAlterConfigsResponseResource
	rest := *q
	rest.Resources = nil
	for _, r := range q.Resources {
		if r.ResourceType != kmsg.ConfigResourceTypeBrokerLogger {
			rest.Resources = append(rest.Resources, r)
			continue
		}
		no := kmsg.NewIncrementalAlterConfigsResponseResource()
		no.ResourceType, no.ResourceName = r.ResourceType, r.ResourceName
		no.ErrorCode, no.ErrorMessage = codeOf(errNoLoggers), messageOf(errNoLoggers)
		refused = append(refused, no)
	}
	res, err := c.h.o.Controller.IncrementalAlterConfigs(ctx, &rest)
	if err != nil {
		return nil, err
	}
	res.Resources = append(res.Resources, refused...)
	return res, nil
}
