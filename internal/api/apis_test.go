package api

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
)

// TestEveryVersionAnswers asks everything that ApiVersions lists, at every version, with an empty and
// with a filled request: the answer decodes and encodes again to the same bytes.
func TestEveryVersionAnswers(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 2)
		s.append("orders", 0, records(3, 10))
		for _, r := range routes {
			for version := max(r.min, r.servedMin); version <= r.max; version++ {
				for _, req := range requestsFor(r.key, id) {
					req.SetVersion(version)
					res := s.ask(req)
					if res.GetVersion() != version {
						t.Errorf("%s version %d answered at version %d", r.key.Name(), version, res.GetVersion())
					}
				}
			}
		}
	})
}

// requestsFor makes requests of a key: an empty one, and one about the topic "orders".
func requestsFor(key kmsg.Key, id [16]byte) []kmsg.Request {
	empty := key.Request()
	if q, ok := empty.(*kmsg.ApiVersionsRequest); ok {
		q.ClientSoftwareName, q.ClientSoftwareVersion = "test", "1"
		return []kmsg.Request{empty}
	}
	filled := key.Request()
	switch q := filled.(type) {
	case *kmsg.ProduceRequest:
		q.Acks = 1
		p := kmsg.ProduceRequestTopicPartition{Partition: 1, Records: records(2, 10)}
		q.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{p}}}
		empty.(*kmsg.ProduceRequest).Acks = -1
	case *kmsg.FetchRequest:
		q.MaxBytes, q.ReplicaID = 1<<20, -1
		q.ReplicaState.ID, q.ReplicaState.Epoch = -1, -1
		p := kmsg.NewFetchRequestTopicPartition()
		p.PartitionMaxBytes = 1 << 20
		q.Topics = []kmsg.FetchRequestTopic{{Topic: "orders", TopicID: id, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	case *kmsg.ListOffsetsRequest:
		q.ReplicaID = -1
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp = -1
		q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	case *kmsg.MetadataRequest:
		q.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("orders")}}
	case *kmsg.DescribeLogDirsRequest:
		q.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "orders", Partitions: []int32{0, 1, 7}}}
	case *kmsg.DescribeProducersRequest:
		q.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0, 7}}}
	case *kmsg.DescribeConfigsRequest:
		q.IncludeSynonyms, q.IncludeDocumentation = true, true
		q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: 2, ResourceName: "orders"}, {ResourceType: 4, ResourceName: "1"}}
	case *kmsg.ElectLeadersRequest:
		q.TimeoutMillis, q.Topics = 5000, []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0, 7}}}
	case *kmsg.AlterPartitionAssignmentsRequest:
		p := kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: 1, Replicas: []int32{2}}
		q.TimeoutMillis = 5000
		q.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: "orders", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{p}}}
	case *kmsg.ListPartitionReassignmentsRequest:
		q.TimeoutMillis, q.Topics = 5000, []kmsg.ListPartitionReassignmentsRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	case *kmsg.DescribeQuorumRequest:
		q.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	case *kmsg.DescribeTopicPartitionsRequest:
		q.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "orders"}}
		q.ResponsePartitionLimit = 1
	case *kmsg.OffsetForLeaderEpochRequest:
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		q.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}}}
	case *kmsg.DeleteRecordsRequest:
		q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "orders", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
	}
	return []kmsg.Request{empty, filled}
}
