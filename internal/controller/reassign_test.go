package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

func (c *cluster) view() *view {
	return &view{image: c.image, settings: c.settings, random: rand.New(rand.NewPCG(1, 2))}
}

// move reassigns the partition; nil cancels.
func (c *cluster) move(replicas []int32) *kerr.Error {
	c.t.Helper()
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{
		Topic: "orders", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Replicas: replicas}},
	}}
	records, resp := alterReassignments(c.view(), req)
	c.apply(records...)
	return kerr.TypedErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

func (c *cluster) wantReplicas(what, want string) {
	c.t.Helper()
	p := c.partition()
	if got := fmt.Sprintf("%v +%v -%v isr=%v leader=%d", p.Replicas, p.Adding, p.Removing, p.ISR, p.Leader); got != want {
		c.t.Fatalf("%s: %s, want %s", what, got, want)
	}
}

// TestReassignment: new replicas come beside the old ones, which go once the new ones are in sync, the leader with them.
func TestReassignment(t *testing.T) {
	c := newCluster(t, 6, nil, 1, 2, 3)
	if err := c.move([]int32{4, 5, 3}); err != nil {
		t.Fatal(err)
	}
	c.wantReplicas("begun", "[4 5 3 1 2] +[4 5] -[1 2] isr=[1 2 3] leader=1")
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	if listed := listReassignments(c.image, req); len(listed.Topics) != 1 || len(listed.Topics[0].Partitions) != 1 {
		t.Fatalf("%+v", listed)
	}
	c.alter(c.propose(1, 2, 3, 4))
	c.wantReplicas("one has come", "[4 5 3 1 2] +[4 5] -[1 2] isr=[1 2 3 4] leader=1")
	c.alter(c.propose(1, 2, 3, 4, 5))
	c.wantReplicas("done", "[4 5 3] +[] -[] isr=[3 4 5] leader=4")
	if listed := listReassignments(c.image, req); len(listed.Topics) != 0 {
		t.Fatalf("%+v", listed)
	}
	if err := c.move(nil); err != kerr.NoReassignmentInProgress {
		t.Fatal(err)
	}
	for name, bad := range map[string][]int32{"nobody": {}, "twice": {4, 4}, "unknown": {4, 9}} {
		if err := c.move(bad); err != kerr.InvalidReplicaAssignment {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.move([]int32{3, 5}); err != nil {
		t.Fatal(err)
	}
	c.wantReplicas("fewer, at once", "[3 5] +[] -[] isr=[3 5] leader=3")
	epoch := c.partition().LeaderEpoch
	if err := c.move([]int32{3}); err != nil || c.partition().LeaderEpoch != epoch+1 {
		t.Fatalf("one has gone: %v, leader epoch %d after %d", err, c.partition().LeaderEpoch, epoch)
	}
	if err := c.move([]int32{3, 4}); err != nil {
		t.Fatal(err)
	}
	c.alter(c.propose(3, 4))
	c.wantReplicas("one has come, and none gone", "[3 4] +[] -[] isr=[3 4] leader=3")
	if p := c.partition(); p.LeaderEpoch != epoch+1 {
		t.Fatalf("leader epoch %d after %d, for one that has come", p.LeaderEpoch, epoch+1)
	}
}

// TestReassignmentCancelled: what was added goes, and what was to go stays.
func TestReassignmentCancelled(t *testing.T) {
	c := newCluster(t, 6, nil, 1, 2, 3)
	_ = c.move([]int32{4, 5, 6})
	c.alter(c.propose(1, 2, 3, 4))
	if err := c.move([]int32{5, 1, 2}); err != nil {
		t.Fatal(err)
	}
	c.wantReplicas("changed on the way", "[5 1 2 3] +[5] -[3] isr=[1 2 3] leader=1")
	if err := c.move(nil); err != nil {
		t.Fatal(err)
	}
	c.wantReplicas("cancelled", "[1 2 3] +[] -[] isr=[1 2 3] leader=1")
}

// TestElectLeaders: the preferred one where it is in sync, an unclean one only where nobody leads.
func TestElectLeaders(t *testing.T) {
	c := newCluster(t, 3, nil, 1, 2, 3)
	ask := func(kind int8, all bool) (code int16, answered bool) {
		req := kmsg.NewPtrElectLeadersRequest()
		req.ElectionType = kind
		if !all {
			req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
		}
		records, resp := electLeaders(c.view(), req)
		c.apply(records...)
		if len(resp.Topics) == 0 {
			return resp.ErrorCode, false
		}
		return resp.Topics[0].Partitions[0].ErrorCode, true
	}
	want := func(what string, kind int8, all bool, code *kerr.Error) {
		t.Helper()
		got, answered := ask(kind, all)
		switch {
		case code == nil && (got != 0 || !answered):
			t.Fatalf("%s: %d %v", what, got, answered)
		case code != nil && got != code.Code:
			t.Fatalf("%s: %d, want %v", what, got, code)
		}
	}
	want("it leads", preferredElection, false, kerr.ElectionNotNeeded)
	if _, answered := ask(preferredElection, true); answered {
		t.Fatal("answered for one that needs no election")
	}
	c.fence(1)
	want("it is gone", preferredElection, false, kerr.PreferredLeaderNotAvailable)
	c.unfence(1)
	c.alter(c.propose(2, 3, 1))
	want("it is back", preferredElection, true, nil)
	c.want("back", "1/2 isr=[2 3 1] elr=[]")
	c.fence(1)
	c.unfence(1)
	c.fence(2)
	want("somebody leads", uncleanElection, false, kerr.ElectionNotNeeded)
	c.fence(3)
	want("one that lacks records", uncleanElection, false, nil)
	if p := c.partition(); p.Leader != 1 || !slices.Equal(p.ISR, []int32{1}) || len(p.ELR) > 0 {
		t.Fatalf("%+v", p)
	}
	want("of another kind", 7, false, kerr.InvalidRequest)
	var none *metadata.Topic
	if _, why := c.decide().electOne(none, 0, false); why.code != kerr.UnknownTopicOrPartition {
		t.Fatal(why)
	}
}

// TestReassignmentKeepsFactor: who forbids another replication factor reads why in the words that Kafka's tools print.
func TestReassignmentKeepsFactor(t *testing.T) {
	c := newCluster(t, 4, nil, 1, 2, 3)
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.AllowReplicationFactorChange = false
	for _, replicas := range [][]int32{{4}, {1, 2, 3, 4}, {4, 2, 3}} {
		req.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{
			Topic: "orders", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Replicas: replicas}},
		}}
		_, resp := alterReassignments(c.view(), req)
		got := resp.Topics[0].Partitions[0]
		if len(replicas) == 3 {
			if got.ErrorCode != 0 {
				t.Errorf("to %v: error %d", replicas, got.ErrorCode)
			}
			continue
		}
		if got.ErrorCode != kerr.InvalidReplicationFactor.Code || got.ErrorMessage == nil {
			t.Fatalf("to %v: error %d, and no words", replicas, got.ErrorCode)
		}
		if want := fmt.Sprintf("The replication factor is changed from 3 to %d", len(replicas)); *got.ErrorMessage != want {
			t.Errorf("to %v: %q, want %q", replicas, *got.ErrorMessage, want)
		}
	}
}
