package cluster

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire/shape"
)

// Short names for the table.
var (
	structs, list, inline, maybe, tag = shape.Structs, shape.List, shape.Inline, shape.Maybe, shape.Tag

	int8s, int16s, int32s, int64s, uuid, text = shape.Int8, shape.Int16, shape.Int32, shape.Int64, shape.UUID, shape.Text
)

// shapes are the layouts of the flexible versions of all responses that kmsg knows.
var shapes = map[kmsg.Key][]shape.Field{
	kmsg.Produce: {
		structs(text.Until(12), uuid.Since(13), structs(int32s, int16s, int64s, int64s, int64s, structs(int32s, text), text, tag(0, inline(int32s, int32s)))),
		int32s, tag(0, structs(int32s, text, int32s, text)),
	},
	kmsg.Fetch: {
		int32s, int16s, int32s,
		structs(text.Until(12), uuid.Since(13), structs(int32s, int16s, int64s, int64s, int64s, structs(int64s, int64s), int32s, text, tag(0, inline(int32s, int64s)), tag(1, inline(int32s, int32s)), tag(2, inline(int64s, int32s)))),
		tag(0, structs(int32s, text, int32s, text)),
	},
	kmsg.ListOffsets: {int32s, structs(text, structs(int32s, int16s, int64s, int64s, int32s))},
	kmsg.Metadata: {
		int32s, structs(int32s, text, int32s, text), text, int32s,
		structs(int16s, text, uuid.Since(10), int8s, structs(int16s, int32s, int32s, int32s, list(int32s), list(int32s), list(int32s)), int32s),
		int32s.Until(10), int16s.Since(13),
	},
	kmsg.LeaderAndISR: {
		int16s, structs(text.Until(4), int32s, int16s).Until(4), structs(uuid, structs(text.Until(4), int32s, int16s)).Since(5),
	},
	kmsg.StopReplica:        {int16s, structs(text, int32s, int16s)},
	kmsg.UpdateMetadata:     {int16s},
	kmsg.ControlledShutdown: {int16s, structs(text, int32s)},
	kmsg.OffsetCommit:       {int32s, structs(text.Until(9), uuid.Since(10), structs(int32s, int16s))},
	kmsg.OffsetFetch: {
		int32s, structs(text, structs(int32s, int64s, int32s, text, int16s)).Until(7), int16s.Until(7),
		structs(text, structs(text.Since(8).Until(9), uuid.Since(10), structs(int32s, int64s, int32s, text, int16s)), int16s).Since(8),
	},
	kmsg.FindCoordinator: {
		int32s, int16s.Until(3), text.Until(3), int32s.Until(3), text.Until(3), int32s.Until(3),
		structs(text, int32s, text, int32s, int16s, text).Since(4),
	},
	kmsg.JoinGroup:  {int32s, int16s, int32s, text.Since(7), text, text, int8s.Since(9), text, structs(text, text, text)},
	kmsg.Heartbeat:  {int32s, int16s},
	kmsg.LeaveGroup: {int32s, int16s, structs(text, text, int16s)},
	kmsg.SyncGroup:  {int32s, int16s, text.Since(5), text.Since(5), text},
	kmsg.DescribeGroups: {
		int32s, structs(int16s, text.Since(6), text, text, text, text, structs(text, text, text, text, text, text), int32s),
	},
	kmsg.ListGroups: {int32s, int16s, structs(text, text, text.Since(4), text.Since(5))},
	kmsg.ApiVersions: {
		int16s, structs(int16s, int16s, int16s), int32s, tag(0, structs(text, int16s, int16s)), tag(1, int64s),
		tag(2, structs(text, int16s, int16s)), tag(3, int8s),
	},
	kmsg.CreateTopics: {
		int32s, structs(text, uuid.Since(7), int16s, text, int32s, int16s, structs(text, text, int8s, int8s, int8s), tag(0, int16s)),
	},
	kmsg.DeleteTopics:         {int32s, structs(text, uuid.Since(6), int16s, text.Since(5))},
	kmsg.DeleteRecords:        {int32s, structs(text, structs(int32s, int64s, int16s))},
	kmsg.InitProducerID:       {int32s, int16s, int64s, int16s},
	kmsg.OffsetForLeaderEpoch: {int32s, structs(text, structs(int16s, int32s, int32s, int64s))},
	kmsg.AddPartitionsToTxn: {
		int32s, int16s.Since(4), structs(text, structs(text, structs(int32s, int16s))).Since(4),
		structs(text, structs(int32s, int16s)).Until(3),
	},
	kmsg.AddOffsetsToTxn: {int32s, int16s},
	kmsg.EndTxn:          {int32s, int16s, int64s.Since(5), int16s.Since(5)},
	kmsg.WriteTxnMarkers: {structs(int64s, structs(text, structs(int32s, int16s)))},
	kmsg.TxnOffsetCommit: {int32s, structs(text.Until(5), uuid.Since(6), structs(int32s, int16s))},
	kmsg.DescribeACLs:    {int32s, int16s, text, structs(int8s, text, int8s, structs(text, text, int8s, int8s))},
	kmsg.CreateACLs:      {int32s, structs(int16s, text)},
	kmsg.DeleteACLs:      {int32s, structs(int16s, text, structs(int16s, text, int8s, text, int8s, text, text, int8s, int8s))},
	kmsg.DescribeConfigs: {
		int32s, structs(int16s, text, int8s, text, structs(text, text, int8s, int8s, int8s, structs(text, text, int8s), int8s, text)),
	},
	kmsg.AlterConfigs:        {int32s, structs(int16s, text, int8s, text)},
	kmsg.AlterReplicaLogDirs: {int32s, structs(text, structs(int32s, int16s))},
	kmsg.DescribeLogDirs: {
		int32s, int16s.Since(3),
		structs(int16s, text, structs(text, structs(int32s, int64s, int64s, int8s)), int64s.Since(4), int64s.Since(4), int8s.Since(5)),
	},
	kmsg.SASLAuthenticate: {int16s, text, text, int64s},
	kmsg.CreatePartitions: {int32s, structs(text, int16s, text)},
	kmsg.CreateDelegationToken: {
		int16s, text, text, text.Since(3), text.Since(3), int64s, int64s, int64s, text, text, int32s,
	},
	kmsg.RenewDelegationToken:  {int16s, int64s, int32s},
	kmsg.ExpireDelegationToken: {int16s, int64s, int32s},
	kmsg.DescribeDelegationToken: {
		int16s, structs(text, text, text.Since(3), text.Since(3), int64s, int64s, int64s, text, text, structs(text, text)), int32s,
	},
	kmsg.DeleteGroups:              {int32s, structs(text, int16s, text.Since(3))},
	kmsg.ElectLeaders:              {int32s, int16s, structs(text, structs(int32s, int16s, text))},
	kmsg.IncrementalAlterConfigs:   {int32s, structs(int16s, text, int8s, text)},
	kmsg.AlterPartitionAssignments: {int32s, int8s.Since(1), int16s, text, structs(text, structs(int32s, int16s, text))},
	kmsg.ListPartitionReassignments: {
		int32s, int16s, text, structs(text, structs(int32s, list(int32s), list(int32s), list(int32s))),
	},
	kmsg.DescribeClientQuotas:         {int32s, int16s, text, structs(structs(text, text), structs(text, int64s))},
	kmsg.AlterClientQuotas:            {int32s, structs(int16s, text, structs(text, text))},
	kmsg.DescribeUserSCRAMCredentials: {int32s, int16s, text, structs(text, int16s, text, structs(int8s, int32s))},
	kmsg.AlterUserSCRAMCredentials:    {int32s, structs(text, int16s, text)},
	kmsg.Vote: {
		int16s, structs(text, structs(int32s, int16s, int32s, int32s, int8s)),
		tag(0, structs(int32s.Since(1), text.Since(1), int16s.Since(1))),
	},
	kmsg.BeginQuorumEpoch: {
		int16s, structs(text, structs(int32s, int16s, int32s, int32s)), tag(0, structs(int32s, text, int16s)),
	},
	kmsg.EndQuorumEpoch: {
		int16s, structs(text, structs(int32s, int16s, int32s, int32s)), tag(0, structs(int32s, text, int16s)),
	},
	kmsg.DescribeQuorum: {
		int16s, text.Since(2),
		structs(text, structs(int32s, int16s, text.Since(2), int32s, int32s, int64s, structs(int32s, uuid.Since(2), int64s, int64s.Since(1), int64s.Since(1)), structs(int32s, uuid.Since(2), int64s, int64s.Since(1), int64s.Since(1)))),
		structs(int32s, structs(text, text, int16s)).Since(2),
	},
	kmsg.AlterPartition: {
		int32s, int16s,
		structs(text.Until(1), uuid.Since(2), structs(int32s, int16s, int32s, int32s, list(int32s), int8s.Since(1), int32s)),
	},
	kmsg.UpdateFeatures: {int32s, int16s, text, structs(text, int16s, text).Until(1)},
	kmsg.Envelope:       {text, int16s},
	kmsg.FetchSnapshot: {
		int32s, int16s,
		structs(text, structs(int32s, int16s, inline(int64s, int32s), int64s, int64s, text, tag(0, inline(int32s, int32s)))),
		tag(0, structs(int32s.Since(1), text.Since(1), int16s.Since(1))),
	},
	kmsg.DescribeCluster: {
		int32s, int16s, text, int8s.Since(1), text, int32s, structs(int32s, text, int32s, text, int8s.Since(2)), int32s,
	},
	kmsg.DescribeProducers: {
		int32s, structs(text, structs(int32s, int16s, text, structs(int64s, int32s, int32s, int64s, int32s, int64s))),
	},
	kmsg.BrokerRegistration: {int32s, int16s, int64s},
	kmsg.BrokerHeartbeat:    {int32s, int16s, int8s, int8s, int8s},
	kmsg.UnregisterBroker:   {int32s, int16s, text},
	kmsg.DescribeTransactions: {
		int32s, structs(int16s, text, text, int32s, int64s, int64s, int16s, structs(text, list(int32s))),
	},
	kmsg.ListTransactions:       {int32s, int16s, list(text), structs(text, int64s, text)},
	kmsg.AllocateProducerIDs:    {int32s, int16s, int64s, int32s},
	kmsg.ConsumerGroupHeartbeat: {int32s, int16s, text, text, int32s, int32s, maybe(structs(uuid, list(int32s)))},
	kmsg.ConsumerGroupDescribe: {
		int32s,
		structs(int16s, text, text, text, int32s, int32s, text, structs(text, text, text, int32s, text, text, list(text), text, inline(structs(uuid, text, list(int32s))), inline(structs(uuid, text, list(int32s))), int8s.Since(1)), int32s),
	},
	kmsg.ControllerRegistration:    {int32s, int16s, text},
	kmsg.GetTelemetrySubscriptions: {int32s, int16s, uuid, int32s, list(int8s), int32s, int32s, int8s, list(text)},
	kmsg.PushTelemetry:             {int32s, int16s},
	kmsg.AssignReplicasToDirs:      {int32s, int16s, structs(uuid, structs(uuid, structs(int32s, int16s)))},
	kmsg.ListConfigResources:       {int32s, int16s, structs(text, int8s.Since(1))},
	kmsg.DescribeTopicPartitions: {
		int32s,
		structs(int16s, text, uuid, int8s, structs(int16s, int32s, int32s, int32s, list(int32s), list(int32s), list(int32s), list(int32s), list(int32s)), int32s),
		maybe(text, int32s),
	},
	kmsg.ShareGroupHeartbeat: {int32s, int16s, text, text, int32s, int32s, maybe(structs(uuid, list(int32s)))},
	kmsg.ShareGroupDescribe: {
		int32s,
		structs(int16s, text, text, text, int32s, int32s, text, structs(text, text, int32s, text, text, list(text), inline(structs(uuid, text, list(int32s)))), int32s),
	},
	kmsg.ShareFetch: {
		int32s, int16s, text, int32s.Since(1),
		structs(uuid, structs(int32s, int16s, text, int16s, text, inline(int32s, int32s), text, structs(int64s, int64s, int16s))),
		structs(int32s, text, int32s, text),
	},
	kmsg.ShareAcknowledge: {
		int32s, int16s, text, int32s.Since(2), structs(uuid, structs(int32s, int16s, text, inline(int32s, int32s))),
		structs(int32s, text, int32s, text),
	},
	kmsg.AddRaftVoter:              {int32s, int16s, text},
	kmsg.RemoveRaftVoter:           {int32s, int16s, text},
	kmsg.UpdateRaftVoter:           {int32s, int16s, tag(0, inline(int32s, int32s, text, int32s))},
	kmsg.InitializeShareGroupState: {structs(uuid, structs(int32s, int16s, text))},
	kmsg.ReadShareGroupState: {
		structs(uuid, structs(int32s, int16s, text, int32s, int64s, structs(int64s, int64s, int8s, int16s))),
	},
	kmsg.WriteShareGroupState:  {structs(uuid, structs(int32s, int16s, text))},
	kmsg.DeleteShareGroupState: {structs(uuid, structs(int32s, int16s, text))},
	kmsg.ReadShareGroupStateSummary: {
		structs(uuid, structs(int32s, int16s, text, int32s, int32s, int64s, int32s.Since(1))),
	},
	kmsg.StreamsGroupHeartbeat: {
		int32s, int16s, text, text, int32s, int32s, int32s.Until(0), int32s, int64s.Since(1), structs(int8s, text),
		structs(text, list(int32s)), structs(text, list(int32s)), structs(text, list(int32s)), int8s.Since(1), int32s,
		structs(inline(text, int16s), structs(text, list(int32s)), structs(text, list(int32s))),
	},
	kmsg.StreamsGroupDescribe: {
		int32s,
		structs(int16s, text, text, text, int32s, int32s, maybe(int32s, structs(text, list(text), list(text), structs(text, int32s, int16s, structs(text, text)), structs(text, int32s, int16s, structs(text, text)))), structs(text, int32s, text, text, text, text, int32s, text, maybe(text, int16s), structs(text, text), structs(text, int32s, int64s), structs(text, int32s, int64s), inline(structs(text, list(int32s)), structs(text, list(int32s)), structs(text, list(int32s))), inline(structs(text, list(int32s)), structs(text, list(int32s)), structs(text, list(int32s))), int8s), int32s, maybe(structs(text, structs(text, int8s, list(text), text, list(text), list(text))), structs(inline(text, int8s, list(text), text, list(text), list(text)), inline(text, int8s, list(text), text, list(text), list(text)))).Since(1), int8s.Since(1), text.Since(1)),
	},
	kmsg.DescribeShareGroupOffsets: {
		int32s, structs(text, structs(text, uuid, structs(int32s, int64s, int32s, int64s.Since(1), int16s, text)), int16s, text),
	},
	kmsg.AlterShareGroupOffsets:                {int32s, int16s, text, structs(text, uuid, structs(int32s, int16s, text))},
	kmsg.DeleteShareGroupOffsets:               {int32s, int16s, text, structs(text, uuid, int16s, text)},
	kmsg.StreamsGroupTopologyDescriptionUpdate: {int32s, int16s, text},
	kmsg.UnregisterController:                  {int32s, int16s, text},
}
