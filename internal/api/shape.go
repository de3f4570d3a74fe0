package api

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
	"barnabas/internal/wire/shape"
)

// errShape: the bytes are not a request of the key and version.
var errShape = errors.New("malformed request")

// checkShape walks a request's body before kmsg sees it, which is cheap. Versions that are not flexible have no tagged
// fields, and kmsg is careful with the rest.
func checkShape(key, version int16, body []byte) error {
	if !wire.FlexibleRequest(key, version) {
		return nil
	}
	if _, ok := shape.Walk(shapes[kmsg.Key(key)], version, body); !ok {
		return fmt.Errorf("%s version %d: %w", kmsg.NameForKey(key), version, errShape)
	}
	return nil
}

// Short names for the table.
var (
	structs, list, inline, maybe, tag = shape.Structs, shape.List, shape.Inline, shape.Maybe, shape.Tag

	int8s, int16s, int32s, int64s, uuid, text = shape.Int8, shape.Int16, shape.Int32, shape.Int64, shape.UUID, shape.Text
)

// shapes are the layouts of the requests' flexible versions. That they are right is tested against kmsg's own encoder.
var shapes = map[kmsg.Key][]shape.Field{
	kmsg.Produce: {
		text, int16s, int32s,
		structs(text.Until(12), uuid.Since(13), structs(int32s, text)),
	},
	kmsg.Fetch: {
		int32s.Until(14), int32s, int32s, int32s, int8s, int32s, int32s,
		structs(text.Until(12), uuid.Since(13), structs(int32s, int32s, int64s, int32s, int64s, int32s)),
		structs(text.Until(12), uuid.Since(13), list(int32s)), text,
		tag(1, inline(int32s, int64s)), // ReplicaState
	},
	kmsg.OffsetCommit: {
		text, int32s, text, text.Since(7), int64s.Until(4), // the retention is gone before there are tags
		structs(text.Until(9), uuid.Since(10), structs(int32s, int64s, int32s.Since(6), text)),
	},
	kmsg.OffsetFetch: {
		text.Until(7), structs(text, list(int32s)).Until(7),
		structs(text, text.Since(9), int32s.Since(9), structs(text.Until(9), uuid.Since(10), list(int32s))).Since(8), int8s.Since(7),
	},
	kmsg.FindCoordinator:      {text.Until(3), int8s, list(text).Since(4)},
	kmsg.JoinGroup:            {text, int32s, int32s, text, text, text, structs(text, text), text.Since(8)},
	kmsg.Heartbeat:            {text, int32s, text, text},
	kmsg.LeaveGroup:           {text, structs(text, text, text.Since(5))},
	kmsg.SyncGroup:            {text, int32s, text, text, text.Since(5), text.Since(5), structs(text, text)},
	kmsg.DescribeGroups:       {list(text), int8s},
	kmsg.ListGroups:           {list(text).Since(4), list(text).Since(5)},
	kmsg.DeleteGroups:         {list(text)},
	kmsg.ListOffsets:          {int32s, int8s, structs(text, structs(int32s, int32s, int64s)), int32s.Since(10)},
	kmsg.Metadata:             {structs(uuid.Since(10), text), int8s, int8s.Until(10), int8s},
	kmsg.ApiVersions:          {text, text},
	kmsg.CreateTopics:         {structs(text, int32s, int16s, structs(int32s, list(int32s)), structs(text, text)), int32s, int8s},
	kmsg.DeleteTopics:         {list(text).Until(5), structs(text, uuid).Since(6), int32s},
	kmsg.DeleteRecords:        {structs(text, structs(int32s, int64s)), int32s},
	kmsg.InitProducerID:       {text, int32s, int64s.Since(3), int16s.Since(3)},
	kmsg.OffsetForLeaderEpoch: {int32s, structs(text, structs(int32s, int32s, int32s))},
	kmsg.DescribeConfigs:      {structs(int8s, text, list(text)), int8s, int8s},
	kmsg.AlterConfigs:         {structs(int8s, text, structs(text, text)), int8s},
	kmsg.DescribeLogDirs:      {structs(text, list(int32s))},
	kmsg.CreatePartitions:     {structs(text, int32s, structs(list(int32s))), int32s, int8s},
	kmsg.IncrementalAlterConfigs: {
		structs(int8s, text, structs(text, int8s, text)), int8s,
	},
	kmsg.ElectLeaders:               {int8s, structs(text, list(int32s)), int32s},
	kmsg.AlterPartitionAssignments:  {int32s, int8s.Since(1), structs(text, structs(int32s, list(int32s)))},
	kmsg.ListPartitionReassignments: {int32s, structs(text, list(int32s))},
	kmsg.DescribeQuorum:             {structs(text, structs(int32s))},
	kmsg.UpdateFeatures:             {int32s, structs(text, int16s, int8s), int8s.Since(1)},
	kmsg.DescribeCluster:            {int8s, int8s.Since(1), int8s.Since(2)},
	kmsg.DescribeProducers:          {structs(text, list(int32s))},
	kmsg.UnregisterBroker:           {int32s},
	kmsg.ListConfigResources:        {list(int8s).Since(1)},
	kmsg.ConsumerGroupHeartbeat: {
		text, text, int32s, text, text, int32s, list(text), text.Since(1), text, structs(uuid, list(int32s)),
	},
	kmsg.DescribeTopicPartitions: {structs(text), int32s, maybe(text, int32s)},
	kmsg.AddRaftVoter:            {text, int32s, int32s, uuid, structs(text, text, int16s), int8s.Since(1)},
	kmsg.RemoveRaftVoter:         {text, int32s, uuid},
	kmsg.UpdateRaftVoter:         {text, int32s, int32s, uuid, structs(text, text, int16s), inline(int16s, int16s)},
}
