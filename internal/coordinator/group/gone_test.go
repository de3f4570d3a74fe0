package group

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAMemberWithoutConnectionHoldsUpForOneSessionOnly: a member is killed while its JoinGroup waits for
// another one that was killed before. The group does not wait for it to assign, nor longer than a session.
func TestAMemberWithoutConnectionHoldsUpForOneSessionOnly(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	leader, living := ids[0], ids[1] // the third is killed now: its session of 10 s runs
	gone := b.send(joining("g", leader, "flights"))
	b.pass(4 * time.Second)
	waits := b.send(joining("g", living, "flights"))
	b.s.Forget(b.now, gone)
	b.waits(waits)
	b.pass(6 * time.Second)
	r := answer[*kmsg.JoinGroupResponse](b, waits)
	if r.ErrorCode != 0 || r.LeaderID != living || len(r.Members) != 2 {
		t.Fatalf("who is left gets %+v", r)
	}
	assignment := ask[*kmsg.SyncGroupResponse](b, syncing("g", living, r.Generation, living, "all"))
	if assignment.ErrorCode != 0 || string(assignment.MemberAssignment) != "all" || b.state("g") != Stable {
		t.Fatalf("it assigns: %+v, %v", assignment, b.state("g"))
	}
	b.pass(4*time.Second - time.Millisecond)
	if got := b.beat("g", living, r.Generation); got != 0 {
		t.Fatalf("a moment before the session of the one without connection ends: %d", got)
	}
	b.pass(time.Millisecond)
	if got := b.beat("g", living, r.Generation); got != kerr.RebalanceInProgress.Code {
		t.Fatalf("when it has ended: %d", got)
	}
	if got := b.s.groups["g"].order; len(got) != 1 || got[0].id != living {
		t.Fatalf("members %v", got)
	}
}

// TestANewMemberWithoutConnectionGoesAfterItsSession: not after the five minutes that a first JoinGroup may wait.
func TestANewMemberWithoutConnectionGoesAfterItsSession(t *testing.T) {
	b := newBench(t, nil)
	b.stable("g", 1, "flights") // which does not come back
	id, joins := b.enter("g", "flights")
	b.s.Forget(b.now, joins)
	b.pass(10 * time.Second)
	if g := b.s.groups["g"]; g != nil && slices.ContainsFunc(g.order, func(m *member) bool { return m.id == id }) {
		t.Fatal("it is still there")
	}
}

// TestWhoComesBackOverAnotherConnectionIsAlive: its session does not run while its new JoinGroup waits.
func TestWhoComesBackOverAnotherConnectionIsAlive(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	gone := b.send(joining("g", ids[0], "flights", "airports"))
	b.s.Forget(b.now, gone)
	b.pass(5 * time.Second)
	again := b.send(joining("g", ids[0], "flights", "airports"))
	for range 6 {
		if got := b.beat("g", ids[1], 1); got != kerr.RebalanceInProgress.Code {
			t.Fatalf("the other one's heartbeat: %d", got)
		}
		b.pass(5 * time.Second)
	}
	b.waits(again)
	other := b.send(joining("g", ids[1], "flights"))
	b.code(again, nil)
	b.code(other, nil)
	if r := answer[*kmsg.JoinGroupResponse](b, again); r.LeaderID != ids[0] {
		t.Fatalf("the leader changes: %+v", r)
	}
}
