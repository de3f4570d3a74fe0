package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumerGroupHeartbeat, key 68, versions 0 and 1 (KIP-848). There are no groups of the consumer
// protocol: the answer is the one that Kafka gives where the feature group.version is 0. It is listed,
// as it is there, since librdkafka looks for another coordinator for ever where it is not.

func consumerGroupHeartbeat(*call, *kmsg.ConsumerGroupHeartbeatRequest) kmsg.Response {
	res := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	res.ErrorCode = kerr.UnsupportedVersion.Code
	return res
}
