package api

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
	"barnabas/internal/wire"
)

func metadataOf(version int16, names ...string) *kmsg.MetadataRequest {
	q := kmsg.NewPtrMetadataRequest()
	q.Version = version
	q.Topics = []kmsg.MetadataRequestTopic{}
	for i := range names {
		q.Topics = append(q.Topics, kmsg.MetadataRequestTopic{Topic: &names[i]})
	}
	return q
}

// answers are the topics of a response with their codes and numbers of partitions.
func answers(res *kmsg.MetadataResponse) (all []string) {
	for _, t := range res.Topics {
		all = append(all, fmt.Sprintf("%s:%d:%d", deref(t.Topic), t.ErrorCode, len(t.Partitions)))
	}
	return all
}

func (s *stack) wantAnswers(q *kmsg.MetadataRequest, all ...string) *kmsg.MetadataResponse {
	s.t.Helper()
	res := ask[*kmsg.MetadataResponse](s, q)
	if got := answers(res); !slices.Equal(got, all) {
		s.t.Fatalf("version %d: %q, want %q", q.Version, got, all)
	}
	return res
}

// TestMetadataChoosesTopics: all, none, by name, by id, at every version.
func TestMetadataChoosesTopics(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "auto.create.topics.enable=false")
		a := s.createTopic("a", 2)
		s.createTopic("b", 1)
		for version := int16(0); version <= 13; version++ {
			all := metadataOf(version)
			all.Topics = nil
			s.wantAnswers(all, "a:0:2", "b:0:1")
			none := []string{}
			if version == 0 {
				none = []string{"a:0:2", "b:0:1"} // version 0 cannot tell none from all
			}
			s.wantAnswers(metadataOf(version), none...)
			res := s.wantAnswers(metadataOf(version, "b", "missing", "not legal", "b", "."), "b:0:1", "missing:3:0", "not legal:17:0", ".:17:0")
			if len(res.Brokers) != 1 || res.Brokers[0].Host != "broker.example" || res.Brokers[0].Port != 9092 {
				t.Fatalf("version %d: %+v", version, res.Brokers)
			}
			if version >= 1 && res.ControllerID != 1 || version >= 2 && deref(res.ClusterID) != "test-cluster" {
				t.Fatalf("version %d: controller %d of %s", version, res.ControllerID, deref(res.ClusterID))
			}
			p := res.Topics[0].Partitions[0]
			if p.Leader != 1 || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) || len(p.OfflineReplicas) != 0 {
				t.Fatalf("version %d: %+v", version, p)
			}
			q := metadataOf(version)
			q.Topics = []kmsg.MetadataRequestTopic{{TopicID: a}, {TopicID: [16]byte{1, 2}}, {TopicID: a}}
			switch {
			case version >= 12:
				s.wantAnswers(q, "a:0:2", "(null):100:0")
			case version >= 10:
				s.wantAnswers(q, ":42:0", ":42:0", ":42:0")
			}
		}
	})
}

// TestMetadataAuthorizedOperations: without an authorizer everything is allowed, for who asks.
func TestMetadataAuthorizedOperations(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.createTopic("a", 1)
		const none = -1 << 31
		for version := int16(8); version <= 13; version++ {
			for _, asked := range []bool{false, true} {
				q := metadataOf(version, "a")
				q.IncludeTopicAuthorizedOperations, q.IncludeClusterAuthorizedOperations = asked, asked
				res := ask[*kmsg.MetadataResponse](s, q)
				topic, cluster := int32(none), int32(none)
				if asked {
					topic = 3576
					if version <= 10 {
						cluster = 8096
					}
				}
				if res.Topics[0].AuthorizedOperations != topic || res.AuthorizedOperations != cluster {
					t.Errorf("version %d asked %v: %d and %d", version, asked, res.Topics[0].AuthorizedOperations, res.AuthorizedOperations)
				}
			}
		}
	})
}

// TestMetadataMakesTopics: a topic that is asked for by name is made, where broker and client allow
// it. The answer says that it is unknown; to the next question it is there.
func TestMetadataMakesTopics(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "num.partitions=3")
		q := metadataOf(4, "x")
		q.AllowAutoTopicCreation = false
		s.wantAnswers(q, "x:3:0")
		q.AllowAutoTopicCreation = true
		if _, ready, err := s.begin(s.peer(), q); ready || err != nil {
			t.Fatal("a reply that waits for the controller promises not to wait", err)
		}
		s.wantAnswers(q, "x:3:0")
		s.wantAnswers(q, "x:0:3")
		s.wantAnswers(metadataOf(3, "y", "not legal", "x"), "y:3:0", "not legal:17:0", "x:0:3")
		s.wantAnswers(metadataOf(3, "p.q"), "p.q:3:0")
		s.wantAnswers(metadataOf(3, "p_q"), "p_q:17:0") // its metrics would be p.q's
		s.wantAnswers(metadataOf(3, "__cluster_metadata"), "__cluster_metadata:3:0")
		s.wantAnswers(metadataOf(3, "__consumer_offsets"), "__consumer_offsets:3:0")
		res := s.wantAnswers(metadataOf(3, "__consumer_offsets"), "__consumer_offsets:0:50")
		if !res.Topics[0].IsInternal {
			t.Error("__consumer_offsets is not internal")
		}
		byID := metadataOf(12)
		byID.AllowAutoTopicCreation = true
		byID.Topics = []kmsg.MetadataRequestTopic{{TopicID: [16]byte{7}}}
		s.wantAnswers(byID, "(null):100:0")
		// A controller that cannot answer is no reason not to.
		s.log.refuse(quorum.ErrNotLeader)
		s.wantAnswers(metadataOf(3, "z", "y"), "z:3:0", "y:0:3")
		s.logged.take()
	})
}

// askedToCreate keeps the names that a controller is asked to make, call by call.
type askedToCreate struct {
	Controller
	calls [][]string
}

func (c *askedToCreate) AutoCreateTopics(ctx context.Context, names []string) (*kmsg.CreateTopicsResponse, error) {
	c.calls = append(c.calls, slices.Clone(names))
	return c.Controller.AutoCreateTopics(ctx, names)
}

// TestMetadataMakesTopicsByTheHundred: one request with many names, each twice, is neither work that
// grows with their square nor a flood for the controller. The clients, asking again, get them all.
func TestMetadataMakesTopicsByTheHundred(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		asked := &askedToCreate{Controller: s.controller}
		s.handler.o.Controller = asked
		names := make([]string, 2*(maxAutoCreated+50))
		for i := range names {
			names[i] = fmt.Sprint("topic-", i/2)
		}
		for _, there := range []int{0, maxAutoCreated, maxAutoCreated + 50} {
			res := ask[*kmsg.MetadataResponse](s, metadataOf(3, names...))
			made := 0
			for _, topic := range res.Topics {
				switch topic.ErrorCode {
				case 0:
					made++
				case kerr.UnknownTopicOrPartition.Code:
				default:
					t.Fatalf("%s: %d", *topic.Topic, topic.ErrorCode)
				}
			}
			if len(res.Topics) != maxAutoCreated+50 || made != there {
				t.Fatalf("%d of %d topics are there, want %d", made, len(res.Topics), there)
			}
		}
		if len(asked.calls) != 2 || len(asked.calls[0]) != maxAutoCreated || len(asked.calls[1]) != 50 {
			t.Fatalf("%d calls: %q", len(asked.calls), asked.calls)
		}
		// Made by the request before, on the same connection: nothing is left to ask for, and it is there.
		q := metadataOf(3, "late")
		first, _, errA := s.begin(s.peer(), q)
		second, ready, errB := s.begin(s.peer(), q)
		if errA != nil || errB != nil || ready {
			t.Fatal(errA, errB, ready)
		}
		for n, reply := range []wire.Reply{first, second} {
			want := []string{"late:3:0", "late:0:1"}[n]
			res, err := s.finish(s.ctx, q, reply)
			if err != nil {
				t.Fatal(err)
			}
			if got := answers(res.(*kmsg.MetadataResponse)); !slices.Equal(got, []string{want}) {
				t.Fatalf("%q", got)
			}
		}
		if len(asked.calls) != 3 {
			t.Fatalf("the controller is asked again for what is there: %q", asked.calls[2:])
		}
	})
}

// TestMetadataAutoCreationIsTheBrokersChoice: auto.create.topics.enable=false.
func TestMetadataAutoCreationIsTheBrokersChoice(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "auto.create.topics.enable=false")
		q := metadataOf(9, "x")
		q.AllowAutoTopicCreation = true
		if _, ready, err := s.begin(s.peer(), q); !ready || err != nil {
			t.Fatal("nothing to wait for", err)
		}
		s.wantAnswers(q, "x:3:0")
		if n := s.controller.Image().TopicCount(); n != 0 {
			t.Fatalf("%d topics", n)
		}
	})
}

// TestMetadataOfTheUnavailable: brokers that are fenced, gone, or not on the client's listener.
func TestMetadataOfTheUnavailable(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("a", 1)
		uuid := metadata.UUID{1: 1}
		listener := &metadata.BrokerRecord_Listener{Name: testListener, Host: "second.example", Port: 9093}
		internal := &metadata.BrokerRecord_Listener{Name: "INTERNAL", Host: "third.example", Port: 9094}
		_, err := s.log.Propose(1, []metadata.Record{
			&metadata.BrokerRecord{Id: 2, Epoch: 100, Incarnation: uuid.Bytes(), Listeners: []*metadata.BrokerRecord_Listener{listener}, Fenced: true},
			&metadata.BrokerRecord{Id: 3, Epoch: 101, Incarnation: uuid.Bytes(), Listeners: []*metadata.BrokerRecord_Listener{internal}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for number, leader := range []int32{2, 3, -1} {
			directories := [][]byte{metadata.UnassignedDirectory.Bytes(), metadata.UnassignedDirectory.Bytes(), metadata.LostDirectory.Bytes()}
			_, err := s.log.Propose(1, []metadata.Record{&metadata.PartitionRecord{
				TopicId: id.Bytes(), Partition: int32(number + 1), Replicas: []int32{2, 3, 4}, Directories: directories,
				Isr: []int32{2, 3}, Leader: leader, LeaderEpoch: 5,
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for version := int16(0); version <= 13; version++ {
			res := ask[*kmsg.MetadataResponse](s, metadataOf(version, "a"))
			if len(res.Brokers) != 1 || res.Brokers[0].NodeID != 1 {
				t.Fatalf("version %d: brokers %+v", version, res.Brokers)
			}
			otherListener := kerr.LeaderNotAvailable.Code
			if version >= 6 {
				otherListener = kerr.ListenerNotFound.Code
			}
			for number, code := range []int16{0, kerr.LeaderNotAvailable.Code, otherListener, kerr.LeaderNotAvailable.Code} {
				p := res.Topics[0].Partitions[number]
				if p.ErrorCode != code || number > 0 && p.Leader != -1 {
					t.Errorf("version %d partition %d: %+v, want code %d", version, number, p, code)
				}
				if number > 0 && version >= 5 && !slices.Equal(p.OfflineReplicas, []int32{2, 3, 4}) {
					t.Errorf("version %d partition %d: offline %v", version, number, p.OfflineReplicas)
				}
			}
		}
		d := kmsg.NewPtrDescribeClusterRequest()
		d.Version, d.IncludeFencedBrokers, d.EndpointType = 2, true, 1
		if res := ask[*kmsg.DescribeClusterResponse](s, d); len(res.Brokers) != 2 || !res.Brokers[1].IsFenced || res.Brokers[0].IsFenced {
			t.Errorf("with fenced brokers: %+v", res.Brokers)
		}
		d.IncludeFencedBrokers = false
		if res := ask[*kmsg.DescribeClusterResponse](s, d); len(res.Brokers) != 1 || res.ControllerID != 1 {
			t.Errorf("without fenced brokers: %+v", res)
		}
		// Nobody leads here what others lead.
		q := kmsg.NewPtrListOffsetsRequest()
		q.Version, q.ReplicaID = 6, -1
		q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "a", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: 1, Timestamp: -1, CurrentLeaderEpoch: -1}}}}
		if code := ask[*kmsg.ListOffsetsResponse](s, q).Topics[0].Partitions[0].ErrorCode; code != kerr.UnknownTopicOrPartition.Code && code != kerr.NotLeaderForPartition.Code {
			t.Errorf("a partition of others: %d", code)
		}
	})
}
