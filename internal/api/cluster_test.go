package api

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
	"barnabas/internal/replica"
)

// commit writes records past the controller's decisions, as another controller may have.
func (s *stack) commit(records ...metadata.Record) {
	s.t.Helper()
	if _, err := s.log.Propose(1, records); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
	// The controller's speculative image does not know of them until it leads anew.
	epoch := s.epoch.Add(1)
	s.controller.Leadership(metadata.Leadership{Epoch: epoch, Leader: 1, Mine: true})
	synctest.Wait()
}

// otherBroker registers a broker that is not in this process, on its own in its rack.
func (s *stack) otherBroker(id int32, fenced bool) {
	s.t.Helper()
	rack := fmt.Sprint("rack-", id)
	s.commit(&metadata.BrokerRecord{
		Id: id, Epoch: int64(100 + id), Incarnation: metadata.UUID{byte(id)}.Bytes(), Fenced: fenced, Rack: &rack,
		Listeners:   []*metadata.BrokerRecord_Listener{{Name: testListener, Host: fmt.Sprintf("broker-%d.example", id), Port: 9092}},
		Directories: [][]byte{{15: byte(id)}},
	})
}

// place puts a partition on brokers.
func (s *stack) place(topic metadata.UUID, number int32, epoch, leader int32, replicas, isr, elr []int32) {
	s.t.Helper()
	directories := make([][]byte, len(replicas))
	for i, id := range replicas {
		directories[i] = metadata.UnassignedDirectory.Bytes()
		if id == 1 {
			directories[i] = s.dir.ID().Bytes()
		}
	}
	s.commit(&metadata.PartitionRecord{
		TopicId: topic.Bytes(), Partition: number, Replicas: replicas, Directories: directories, Isr: isr, Elr: elr,
		Leader: leader, LeaderEpoch: epoch, PartitionEpoch: epoch,
	})
}

func electing(version int16, kind int8, topic string, numbers ...int32) *kmsg.ElectLeadersRequest {
	q := kmsg.NewPtrElectLeadersRequest()
	q.Version, q.ElectionType, q.TimeoutMillis = version, kind, 5000
	if topic != "" {
		q.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: topic, Partitions: numbers}}
	}
	return q
}

// elections are the answers of ElectLeaders.
func (s *stack) elections(q *kmsg.ElectLeadersRequest) string {
	s.t.Helper()
	res := ask[*kmsg.ElectLeadersResponse](s, q)
	said := named(res.ErrorCode)
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			said += fmt.Sprintf(" %s-%d:%s", t.Topic, p.Partition, named(p.ErrorCode))
		}
	}
	return said
}

func named(code int16) string {
	if err := kerr.TypedErrorForCode(code); err != nil {
		return err.Message
	}
	return "NONE"
}

// TestElectLeaders: the codes are those that Apache Kafka 4.3.1 gives for the same requests.
func TestElectLeaders(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 3)
		s.otherBroker(2, false)
		for version := int16(0); version <= 2; version++ {
			unknownType := "INVALID_REQUEST orders-0:INVALID_REQUEST"
			if version == 0 { // it knows of no types
				unknownType = "NONE orders-0:PREFERRED_LEADER_NOT_AVAILABLE"
			}
			unclean := "NONE orders-2:ELIGIBLE_LEADERS_NOT_AVAILABLE"
			if version == 0 {
				unclean = "NONE orders-2:PREFERRED_LEADER_NOT_AVAILABLE"
			}
			epoch := 10 * int32(version+1)
			s.place(id, 0, epoch, 1, []int32{2, 1}, []int32{1}, nil)
			s.place(id, 1, epoch, 1, []int32{2, 1}, []int32{1, 2}, nil)
			s.place(id, 2, epoch, -1, []int32{3}, []int32{3}, nil)
			for _, c := range []struct {
				q    *kmsg.ElectLeadersRequest
				want string
			}{
				{electing(version, 7, "orders", 0), unknownType},
				{electing(version, 0, "nope", 0), "NONE nope-0:UNKNOWN_TOPIC_OR_PARTITION"},
				{electing(version, 0, "orders", 9, -1), "NONE orders-9:UNKNOWN_TOPIC_OR_PARTITION orders--1:UNKNOWN_TOPIC_OR_PARTITION"},
				{electing(version, 1, "orders", 2), unclean},
				{electing(version, 0, "orders", 1, 1), "NONE orders-1:NONE orders-1:NONE"},
				{electing(version, 0, "orders", 1), "NONE orders-1:ELECTION_NOT_NEEDED"},
				{electing(version, 0, ""), "NONE orders-0:PREFERRED_LEADER_NOT_AVAILABLE orders-2:PREFERRED_LEADER_NOT_AVAILABLE"},
			} {
				if got := s.elections(c.q); got != c.want {
					t.Errorf("version %d, type %d, %+v: %s, want %s", version, c.q.ElectionType, c.q.Topics, got, c.want)
				}
			}
			if p, _ := s.controller.Image().Partition("orders", 1); p.Leader != 2 || p.LeaderEpoch != epoch+1 {
				t.Errorf("version %d: %+v", version, p)
			}
		}
		s.place(id, 1, 90, 1, []int32{2, 1}, []int32{1, 2}, nil)
		s.log.refuse(quorum.ErrNoSpace)
		for version, want := range []string{"NONE orders-1:", "KAFKA_STORAGE_ERROR orders-1:", "KAFKA_STORAGE_ERROR orders-1:"} {
			if got := s.elections(electing(int16(version), 0, "orders", 1)); got != want+"KAFKA_STORAGE_ERROR" {
				t.Errorf("version %d, where nothing can be written: %s", version, got)
			}
		}
		s.logged.take()
	})
}

func moving(version int16, topic string, number int32, to []int32) *kmsg.AlterPartitionAssignmentsRequest {
	q := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	q.Version, q.TimeoutMillis = version, 5000
	t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	t.Topic = topic
	t.Partitions = []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: number, Replicas: to}}
	q.Topics = append(q.Topics, t)
	return q
}

// TestAlterPartitionReassignments: begun, listed, stopped; the codes are those that Apache Kafka 4.3.1 gives.
func TestAlterPartitionReassignments(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.createTopic("orders", 1)
		s.otherBroker(2, false)
		s.otherBroker(3, true)
		listed := func(topics ...kmsg.ListPartitionReassignmentsRequestTopic) (all string) {
			q := kmsg.NewPtrListPartitionReassignmentsRequest()
			q.TimeoutMillis, q.Topics = 0, topics // kafka-go sends none, and Kafka does not look at it
			for _, t := range ask[*kmsg.ListPartitionReassignmentsResponse](s, q).Topics {
				for _, p := range t.Partitions {
					all += fmt.Sprintf("%s-%d %v +%v -%v;", t.Topic, p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas)
				}
			}
			return all
		}
		for version := int16(0); version <= 1; version++ {
			for _, c := range []struct {
				topic  string
				number int32
				to     []int32
				keep   bool // allow_replication_factor_change is false
				want   string
			}{
				{"orders", 0, []int32{}, false, "INVALID_REPLICA_ASSIGNMENT"},
				{"orders", 0, []int32{1, 9}, false, "INVALID_REPLICA_ASSIGNMENT"},
				{"orders", 0, []int32{-1}, false, "INVALID_REPLICA_ASSIGNMENT"},
				{"orders", 0, []int32{2, 2}, false, "INVALID_REPLICA_ASSIGNMENT"},
				{"orders", 7, []int32{2}, false, "UNKNOWN_TOPIC_OR_PARTITION"},
				{"orders", -1, []int32{2}, false, "UNKNOWN_TOPIC_OR_PARTITION"},
				{"nope", 0, []int32{2}, false, "UNKNOWN_TOPIC_OR_PARTITION"},
				{"orders", 0, nil, false, "NO_REASSIGNMENT_IN_PROGRESS"},
				{"orders", 0, []int32{2, 1}, true, "INVALID_REPLICATION_FACTOR"},
				{"orders", 0, []int32{9, 8}, true, "INVALID_REPLICA_ASSIGNMENT"},
				{"orders", 0, []int32{2}, true, "NONE"},
				{"orders", 0, []int32{3, 2}, true, "INVALID_REPLICATION_FACTOR"}, // what is under way adds none
				{"orders", 0, nil, true, "NONE"},
				{"orders", 0, []int32{3, 1}, false, "NONE"},
				{"orders", 0, []int32{1}, false, "NONE"},
			} {
				if c.keep && version == 0 && c.want == "INVALID_REPLICATION_FACTOR" {
					continue // version 0 cannot forbid it
				}
				q := moving(version, c.topic, c.number, c.to)
				q.AllowReplicationFactorChange = !c.keep
				res := ask[*kmsg.AlterPartitionAssignmentsResponse](s, q)
				p := res.Topics[0].Partitions[0]
				if got := named(p.ErrorCode); got != c.want || res.ErrorCode != 0 || (p.ErrorCode == 0) != (p.ErrorMessage == nil) {
					t.Errorf("version %d, %s-%d to %v: %s (%s), want %s", version, c.topic, c.number, c.to, got, deref(p.ErrorMessage), c.want)
				}
				if version == 1 && res.AllowReplicationFactorChange != q.AllowReplicationFactorChange {
					t.Errorf("%s-%d to %v: the answer says that another factor was allowed: %v", c.topic, c.number, c.to, res.AllowReplicationFactorChange)
				}
				want := ""
				if c.want == "NONE" && c.to != nil && !slices.Equal(c.to, []int32{1}) {
					if want = "orders-0 [2 1] +[2] -[1];"; len(c.to) == 2 {
						want = "orders-0 [3 1] +[3] -[];"
					}
				}
				if c.want == "NONE" && listed() != want {
					t.Errorf("version %d, to %v: %q is under way, want %q", version, c.to, listed(), want)
				}
			}
		}
		ask[*kmsg.AlterPartitionAssignmentsResponse](s, moving(1, "orders", 0, []int32{2}))
		if got := listed(kmsg.ListPartitionReassignmentsRequestTopic{Topic: "orders", Partitions: []int32{7}},
			kmsg.ListPartitionReassignmentsRequestTopic{Topic: "nope", Partitions: []int32{0}}); got != "" {
			t.Errorf("of other partitions: %q", got)
		}
		if got := listed(kmsg.ListPartitionReassignmentsRequestTopic{Topic: "orders", Partitions: []int32{0, 7}}); got != "orders-0 [2 1] +[2] -[1];" {
			t.Errorf("of this partition: %q", got)
		}
	})
}

// TestCodesOfReplication: an error that wraps another has its own code.
func TestCodesOfReplication(t *testing.T) {
	for err, want := range map[error]*kerr.Error{
		replica.ErrNotEnoughReplicas:            kerr.NotEnoughReplicas,
		replica.ErrNotEnoughReplicasAfterAppend: kerr.NotEnoughReplicasAfterAppend,
		replica.ErrOffsetNotAvailable:           kerr.OffsetNotAvailable,
		replica.ErrNotLeader:                    kerr.NotLeaderForPartition,
	} {
		if got := codeOf(fmt.Errorf("append to orders-0: %w", err)); got != want.Code {
			t.Errorf("%v: %d, want %v", err, got, want)
		}
	}
}

// TestUnregisterBroker: who is gone is forgotten, once.
func TestUnregisterBroker(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.otherBroker(3, true)
		for i, c := range []struct {
			id   int32
			want string
		}{{99, "BROKER_ID_NOT_REGISTERED"}, {-1, "BROKER_ID_NOT_REGISTERED"}, {3, "NONE"}, {3, "BROKER_ID_NOT_REGISTERED"}} {
			q := kmsg.NewPtrUnregisterBrokerRequest()
			q.BrokerID = c.id
			if res := ask[*kmsg.UnregisterBrokerResponse](s, q); named(res.ErrorCode) != c.want || (res.ErrorCode == 0) != (res.ErrorMessage == nil) {
				t.Errorf("%d: broker %d: %s (%s)", i, c.id, named(res.ErrorCode), deref(res.ErrorMessage))
			}
		}
		if _, ok := s.controller.Image().Broker(3); ok {
			t.Error("broker 3 is still there")
		}
	})
}
