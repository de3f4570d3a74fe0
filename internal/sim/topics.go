package sim

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
)

// create makes a topic that stays.
func (t *steadyTopic) create(ctx context.Context, c *clustertest.Client) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = t.name, t.partitions, -1
	if t.replicas > 0 {
		topic.ReplicationFactor = t.replicas
	}
	for pair := range slices.Chunk(t.configs, 2) {
		topic.Configs = append(topic.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: pair[0], Value: &pair[1]})
	}
	q := kmsg.NewPtrCreateTopicsRequest()
	q.TimeoutMillis, q.Topics = int32(adminPatience.Milliseconds()), append(q.Topics, topic)
	res, err := clustertest.Call[*kmsg.CreateTopicsResponse](ctx, c, q)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(res.Topics[0].ErrorCode)
}
