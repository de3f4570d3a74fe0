package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster, key 60, versions 0 to 2 (KIP-700). Version 1 can ask a controller (KIP-919), 2
// includes fenced brokers (KIP-1073).

// Endpoint types of DescribeCluster.
const (
	brokerEndpoint     int8 = 1
	controllerEndpoint int8 = 2
)

func describeCluster(c *call, q *kmsg.DescribeClusterRequest) kmsg.Response {
	res := kmsg.NewPtrDescribeClusterResponse()
	res.EndpointType = brokerEndpoint
	if q.Version >= 1 && q.EndpointType != brokerEndpoint {
		code, why := kerr.UnsupportedEndpointType, "there is no such endpoint type"
		if q.EndpointType == controllerEndpoint {
			code, why = kerr.MismatchedEndpointType, "this is a broker's endpoint, not a controller's"
		}
		res.ErrorCode, res.ErrorMessage = code.Code, &why
		return res
	}
	image := c.h.o.Images.Image()
	res.ClusterID = image.ClusterID()
	res.ControllerID = anyOf(aliveBrokers(image, c.peer), c.h.o.NodeID)
	if q.IncludeClusterAuthorizedOperations {
		res.ClusterAuthorizedOperations = clusterOperations
	}
	for _, b := range image.Brokers() {
		a, ok := addressOf(b, c.peer)
		if !ok || b.Fenced && !(q.Version >= 2 && q.IncludeFencedBrokers) {
			continue
		}
		broker := kmsg.NewDescribeClusterResponseBroker()
		broker.NodeID, broker.Host, broker.Port, broker.Rack, broker.IsFenced = a.id, a.host, a.port, a.rack, b.Fenced
		res.Brokers = append(res.Brokers, broker)
	}
	return res
}
