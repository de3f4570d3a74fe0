package api

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// ListConfigResources, key 74, versions 0 and 1. Version 0 (KIP-714) knows only subscriptions of
// client metrics, 1 (KIP-1142) every resource that can have configs.

func listConfigResources(c *call, q *kmsg.ListConfigResourcesRequest) kmsg.Response {
	res := kmsg.NewPtrListConfigResourcesResponse()
	kinds := []kmsg.ConfigResourceType{kmsg.ConfigResourceTypeClientMetrics}
	if q.Version >= 1 {
		kinds = append(kinds, kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker,
			kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeGroupConfig)
	}
	asked := kinds
	if q.Version >= 1 && len(q.ResourceTypes) > 0 {
		asked = nil
		for _, kind := range q.ResourceTypes {
			if !slices.Contains(kinds, kmsg.ConfigResourceType(kind)) {
				res.ErrorCode = kerr.UnsupportedVersion.Code
				return res
			}
			asked = append(asked, kmsg.ConfigResourceType(kind))
		}
	}
	slices.Sort(asked)
	for _, kind := range slices.Compact(asked) {
		for _, name := range c.configurable(kind) {
			r := kmsg.NewListConfigResourcesResponseConfigResource()
			r.Name, r.Type = name, int8(kind)
			res.ConfigResources = append(res.ConfigResources, r)
		}
	}
	return res
}

// configurable names the resources of a kind that can have configs; of groups and subscriptions
// those that have.
func (c *call) configurable(kind kmsg.ConfigResourceType) (names []string) {
	image := c.h.o.Images.Image()
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		for t := range image.Topics() {
			names = append(names, t.Name)
		}
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger:
		for _, b := range aliveBrokers(image, c.peer) {
			names = append(names, strconv.Itoa(int(b.id)))
		}
	default:
		for r := range image.Configs() {
			if r.Kind == metadata.ResourceKind(kind) {
				names = append(names, r.Name)
			}
		}
	}
	return names
}
