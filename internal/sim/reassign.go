package sim

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
)

// move has a partition of a topic that stays kept by other brokers, or by the same in another order, as many as before; or it asks
// for the election of the leader that should be.
func (a *admin) move(ctx context.Context, c *clustertest.Client) error {
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	t := a.r.plan.steady[a.dice.IntN(len(a.r.plan.steady))]
	partition := int32(a.dice.IntN(int(t.partitions)))
	if a.dice.IntN(3) == 0 {
		return a.prefer(ctx, c, t.name, partition)
	}
	now, err := c.Topic(ctx, t.name)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(now.Partitions, func(p kmsg.MetadataResponseTopicPartition) bool { return p.Partition == partition })
	if at < 0 {
		return fmt.Errorf("%s has no partition %d", t.name, partition)
	}
	var brokers []int32
	for i := range a.r.there() {
		brokers = append(brokers, int32(i+1))
	}
	a.dice.Shuffle(len(brokers), func(i, j int) { brokers[i], brokers[j] = brokers[j], brokers[i] })
	to := brokers[:min(a.r.plan.copies(t), len(brokers))]
	one := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
	one.Partition, one.Replicas = partition, to
	topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	topic.Topic, topic.Partitions = t.name, append(topic.Partitions, one)
	q := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	q.TimeoutMillis, q.Topics = int32(adminPatience.Milliseconds()), append(q.Topics, topic)
	res, err := clustertest.Call[*kmsg.AlterPartitionAssignmentsResponse](ctx, c, q)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(res.ErrorCode)
	if err == nil && len(res.Topics) > 0 {
		err = kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
	}
	a.r.Trace(a.host, "%s-%d goes from %v to %v: %v", t.name, partition, now.Partitions[at].Replicas, to, err == nil)
	if err == nil {
		a.r.met(replicasMoved)
	}
	return err
}

func (a *admin) prefer(ctx context.Context, c *clustertest.Client, topic string, partition int32) error {
	t := kmsg.NewElectLeadersRequestTopic()
	t.Topic, t.Partitions = topic, []int32{partition}
	q := kmsg.NewPtrElectLeadersRequest()
	q.TimeoutMillis, q.Topics = int32(adminPatience.Milliseconds()), append(q.Topics, t)
	res, err := clustertest.Call[*kmsg.ElectLeadersResponse](ctx, c, q)
	if err == nil {
		err = kerr.ErrorForCode(res.ErrorCode)
	}
	if err == nil {
		a.r.met(leaderPreferred)
	}
	return err
}

// copies is how many replicas a topic's partitions have.
func (p plan) copies(t steadyTopic) int {
	if t.replicas > 0 {
		return int(t.replicas)
	}
	return 3
}
