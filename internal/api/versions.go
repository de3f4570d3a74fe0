package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// routes is the table of versions: what is listed here works and is advertised, and nothing else.
// The ranges are Apache Kafka 4.3.1's.
var routes = [...]*route{
	{key: kmsg.Produce, min: 0, max: 13, servedMin: 3, handle: onHandler((*Handler).produce)},
	{key: kmsg.Fetch, min: 4, max: 18, handle: onHandler((*Handler).fetch)},
	{key: kmsg.ListOffsets, min: 1, max: 11, handle: waiting(listOffsets)},
	{key: kmsg.Metadata, min: 0, max: 13, handle: onHandler((*Handler).metadata)},
	{key: kmsg.OffsetCommit, min: 2, max: 10, handle: onHandler((*Handler).offsetCommit)},
	{key: kmsg.OffsetFetch, min: 1, max: 10, handle: onHandler((*Handler).offsetFetch)},
	{key: kmsg.FindCoordinator, min: 0, max: 6, handle: onHandler((*Handler).findCoordinator)},
	{key: kmsg.JoinGroup, min: 0, max: 9, handle: joinGroup.handle},
	{key: kmsg.Heartbeat, min: 0, max: 4, handle: heartbeat.handle},
	{key: kmsg.LeaveGroup, min: 0, max: 5, handle: leaveGroup.handle},
	{key: kmsg.SyncGroup, min: 0, max: 5, handle: syncGroup.handle},
	{key: kmsg.DescribeGroups, min: 0, max: 6, handle: onHandler((*Handler).describeGroups)},
	{key: kmsg.ListGroups, min: 0, max: 5, handle: onHandler((*Handler).listGroups)},
	{key: kmsg.ApiVersions, min: 0, max: 4, handle: onHandler((*Handler).apiVersions)},
	{key: kmsg.CreateTopics, min: 2, max: 7, handle: decided(Controller.CreateTopics)},
	{key: kmsg.DeleteTopics, min: 1, max: 6, handle: decided(Controller.DeleteTopics)},
	{key: kmsg.DeleteRecords, min: 0, max: 2, handle: waiting(deleteRecords)},
	{key: kmsg.InitProducerID, min: 0, max: 5, handle: waiting(initProducerID)},
	{key: kmsg.OffsetForLeaderEpoch, min: 2, max: 4, handle: waiting(offsetForLeaderEpoch)},
	{key: kmsg.DescribeConfigs, min: 1, max: 4, handle: answered(describeConfigs)},
	{key: kmsg.AlterConfigs, min: 0, max: 2, handle: decided(Controller.AlterConfigs)},
	{key: kmsg.DescribeLogDirs, min: 1, max: 5, handle: waiting(describeLogDirs)},
	{key: kmsg.CreatePartitions, min: 0, max: 3, handle: decided(Controller.CreatePartitions)},
	{key: kmsg.DeleteGroups, min: 0, max: 2, handle: onHandler((*Handler).deleteGroups)},
	{key: kmsg.ElectLeaders, min: 0, max: 2, handle: decided(Controller.ElectLeaders)},
	{key: kmsg.IncrementalAlterConfigs, min: 0, max: 1, handle: decided(Controller.IncrementalAlterConfigs)},
	{key: kmsg.AlterPartitionAssignments, min: 0, max: 1, handle: decided(Controller.AlterPartitionReassignments)},
	{key: kmsg.ListPartitionReassignments, min: 0, max: 0, handle: decided(Controller.ListPartitionReassignments)},
	{key: kmsg.OffsetDelete, min: 0, max: 0, handle: onHandler((*Handler).offsetDelete)},
	{key: kmsg.DescribeQuorum, min: 0, max: 2, handle: waiting(describeQuorum)},
	{key: kmsg.UpdateFeatures, min: 0, max: 2, handle: decided(Controller.UpdateFeatures)},
	{key: kmsg.DescribeCluster, min: 0, max: 2, handle: answered(describeCluster)},
	{key: kmsg.DescribeProducers, min: 0, max: 0, handle: waiting(describeProducers)},
	{key: kmsg.ListConfigResources, min: 0, max: 1, handle: answered(listConfigResources)},
	{key: kmsg.UnregisterBroker, min: 0, max: 0, handle: decided(Controller.UnregisterBroker)},
	{key: kmsg.ConsumerGroupHeartbeat, min: 0, max: 1, handle: answered(consumerGroupHeartbeat)},
	{key: kmsg.DescribeTopicPartitions, min: 0, max: 0, handle: answered(describeTopicPartitions)},
	{key: kmsg.AddRaftVoter, min: 0, max: 1, handle: waiting(addRaftVoter)},
	{key: kmsg.RemoveRaftVoter, min: 0, max: 0, handle: waiting(removeRaftVoter)},
	{key: kmsg.UpdateRaftVoter, min: 0, max: 0, handle: waiting(updateRaftVoter)},
}

// routeOf finds the row of an api key, nil if the api is not served.
func routeOf(key int16) *route {
	for _, r := range routes {
		if r.key.Int16() == key {
			return r
		}
	}
	return nil
}

// onHandler makes a route's handler of a method that does its own decoding.
func onHandler(f func(*Handler, context.Context, *call) (wire.Reply, bool, error)) func(context.Context, *call) (wire.Reply, bool, error) {
	return func(ctx context.Context, c *call) (wire.Reply, bool, error) { return f(c.h, ctx, c) }
}
