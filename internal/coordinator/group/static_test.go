package group

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// staticPair is a Stable group of two static members, "a" leading and "b".
func staticPair(b *bench) (ids []string) {
	b.t.Helper()
	tokens := []Token{b.send(static(joining("g", "", "flights"), "a")), b.send(static(joining("g", "", "flights"), "b"))}
	b.pass(6 * time.Second)
	for _, t := range tokens {
		ids = append(ids, answer[*kmsg.JoinGroupResponse](b, t).MemberID)
	}
	b.syncAll("g", ids, tokens)
	return ids
}

func TestStaticMemberComesBackWithoutRebalance(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBench(t, nil)
		ids := staticPair(b)
		if restart {
			b.reload()
		}
		r := ask[*kmsg.JoinGroupResponse](b, static(joining("g", "", "flights"), "b"))
		if r.ErrorCode != 0 || r.Generation != 1 || r.MemberID == ids[1] || r.LeaderID != ids[0] || r.SkipAssignment || len(r.Members) != 0 {
			t.Fatalf("restart %v: the follower gets %+v", restart, r)
		}
		s := ask[*kmsg.SyncGroupResponse](b, syncing("g", r.MemberID, 1))
		if string(s.MemberAssignment) != "of "+ids[1]+" in 1" || b.state("g") != Stable {
			t.Fatalf("restart %v: it syncs to %q in a group that is %v", restart, s.MemberAssignment, b.state("g"))
		}
		// Whoever uses the old id is fenced if it says which instance it is, and unknown if not.
		beat := beating("g", ids[1], 1)
		b.refused(beat, kerr.UnknownMemberID)
		instance := "b"
		beat.InstanceID = &instance
		b.refused(beat, kerr.FencedInstanceID)
		b.refused(static(joining("g", ids[1], "flights"), "b"), kerr.FencedInstanceID)
		sync := syncing("g", ids[1], 1)
		sync.InstanceID = &instance
		b.refused(sync, kerr.FencedInstanceID)
		commit := committing("g", ids[1], 1, "flights", 0, 1)
		commit.InstanceID = &instance
		if got := ask[*kmsg.OffsetCommitResponse](b, commit).Topics[0].Partitions[0].ErrorCode; got != kerr.FencedInstanceID.Code {
			t.Fatalf("commit of the fenced gets %d", got)
		}
		b.reload()
		if m := b.s.groups["g"].static["b"]; m == nil || m.id != r.MemberID {
			t.Fatalf("restart %v: after another one the place is %+v's", restart, m)
		}
	}
}

func TestStaticLeaderComesBack(t *testing.T) {
	b := newBench(t, nil)
	ids := staticPair(b)
	old := joining("g", "", "flights")
	old.Version = 8
	r := ask[*kmsg.JoinGroupResponse](b, static(old, "a"))
	if r.ErrorCode != 0 || r.LeaderID != ids[0] || len(r.Members) != 0 {
		t.Fatalf("before KIP-814 it must not believe that it leads: %+v", r)
	}
	r = ask[*kmsg.JoinGroupResponse](b, static(joining("g", "", "flights"), "a"))
	if r.ErrorCode != 0 || r.LeaderID != r.MemberID || !r.SkipAssignment || len(r.Members) != 2 {
		t.Fatalf("the leader gets %+v", r)
	}
	if s := ask[*kmsg.SyncGroupResponse](b, syncing("g", r.MemberID, 1)); string(s.MemberAssignment) != "of "+ids[0]+" in 1" {
		t.Fatalf("it syncs to %q", s.MemberAssignment)
	}
}

func TestStaticMemberWithAnotherProtocolRebalances(t *testing.T) {
	b := newBench(t, nil)
	both := func(r *kmsg.JoinGroupRequest, names ...string) *kmsg.JoinGroupRequest {
		r.Protocols = nil
		for _, n := range names {
			r.Protocols = append(r.Protocols, kmsg.JoinGroupRequestProtocol{Name: n, Metadata: subscription("flights")})
		}
		return r
	}
	tokens := []Token{
		b.send(both(static(joining("g", "", "flights"), "a"), "range", "sticky")),
		b.send(both(static(joining("g", "", "flights"), "b"), "range", "sticky")),
	}
	b.pass(6 * time.Second)
	ids := []string{answer[*kmsg.JoinGroupResponse](b, tokens[0]).MemberID, answer[*kmsg.JoinGroupResponse](b, tokens[1]).MemberID}
	b.syncAll("g", ids, tokens)
	back := b.send(both(static(joining("g", "", "flights"), "b"), "sticky"))
	b.waits(back)
	if b.state("g") != PreparingRebalance {
		t.Fatalf("group is %v", b.state("g"))
	}
	b.send(both(static(joining("g", ids[0], "flights"), "a"), "range", "sticky"))
	if r := answer[*kmsg.JoinGroupResponse](b, back); *r.Protocol != "sticky" || r.Generation != 2 {
		t.Fatalf("joined %+v", r)
	}
}

func TestStaticMemberReplacedWhileItWaits(t *testing.T) {
	b := newBench(t, nil)
	ids := staticPair(b)
	first := b.send(static(joining("g", ids[1], "airports"), "b"))
	second := b.send(static(joining("g", "", "airports"), "b"))
	b.code(first, kerr.FencedInstanceID)
	b.waits(second)
	leader := b.send(static(joining("g", ids[0], "flights"), "a"))
	b.code(second, nil)
	b.code(leader, nil)
	// While the generation completes, everybody joins again: the leader may assign to the old id.
	id := answer[*kmsg.JoinGroupResponse](b, second).MemberID
	sync := syncing("g", id, 2)
	waits := b.send(sync)
	third := b.send(static(joining("g", "", "airports"), "b"))
	b.code(waits, kerr.FencedInstanceID)
	b.waits(third)
	if b.state("g") != PreparingRebalance {
		t.Fatalf("group is %v", b.state("g"))
	}
	b.syncAll("g", []string{ids[0], b.s.groups["g"].static["b"].id}, []Token{b.send(static(joining("g", ids[0], "flights"), "a")), third})
}

func TestStaticMembersKeepTheirPlaceInRebalances(t *testing.T) {
	b := newBench(t, nil)
	ids := staticPair(b)
	join := b.send(static(joining("g", ids[1], "airports"), "b"))
	for range 59 { // a is being started again: it is in the next generation, and must not be its leader
		b.pass(time.Second)
		b.waits(join)
		r := beating("g", ids[0], 1)
		b.send(r)
	}
	b.pass(time.Second)
	r := answer[*kmsg.JoinGroupResponse](b, join)
	if r.ErrorCode != 0 || r.LeaderID != ids[1] || len(r.Members) != 2 {
		t.Fatalf("joined %+v", r)
	}
	b.pass(11 * time.Second)
	if b.s.groups["g"].members[ids[0]] != nil {
		t.Fatal("a static member whose session has ended stays")
	}
}

func TestStaticMemberIsRemovedByItsInstance(t *testing.T) {
	b := newBench(t, nil)
	ids := staticPair(b)
	a, other := "a", "x"
	leave := leaving("g")
	leave.Members = []kmsg.LeaveGroupRequestMember{{InstanceID: &a}, {InstanceID: &other}, {MemberID: ids[1], InstanceID: &a}, {}}
	r := ask[*kmsg.LeaveGroupResponse](b, leave)
	for i, want := range []int16{0, kerr.UnknownMemberID.Code, kerr.UnknownMemberID.Code, kerr.UnknownMemberID.Code} {
		if got := r.Members[i].ErrorCode; got != want {
			t.Fatalf("member %d leaves with %d, want %d", i, got, want)
		}
	}
	if b.state("g") != PreparingRebalance {
		t.Fatalf("group is %v", b.state("g"))
	}
}
