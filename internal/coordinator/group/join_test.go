package group

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// codeOf is the error of an answer to JoinGroup, SyncGroup or Heartbeat.
func codeOf(r kmsg.Response) int16 {
	switch r := r.(type) {
	case *kmsg.JoinGroupResponse:
		return r.ErrorCode
	case *kmsg.SyncGroupResponse:
		return r.ErrorCode
	case *kmsg.HeartbeatResponse:
		return r.ErrorCode
	case *kmsg.LeaveGroupResponse:
		return r.ErrorCode
	}
	panic(fmt.Sprintf("%T", r))
}

func (b *bench) code(t Token, want *kerr.Error) {
	b.t.Helper()
	if b.answers[t] == nil {
		b.t.Fatalf("request %d waits, want %s", t, name(want))
	}
	if got := codeOf(b.answers[t]); got != codeFor(want) {
		b.t.Fatalf("request %d got %s, want %s", t, kerr.ErrorForCode(got), name(want))
	}
}

func codeFor(e *kerr.Error) int16 {
	if e == nil {
		return 0
	}
	return e.Code
}

func name(e *kerr.Error) string {
	if e == nil {
		return "no error"
	}
	return e.Message
}

func (b *bench) refused(req kmsg.Request, want *kerr.Error) {
	b.t.Helper()
	b.code(b.send(req), want)
}

// rejoin sends every member's JoinGroup again and takes the group to Stable.
func (b *bench) rejoin(group string, ids []string, topics ...string) int32 {
	b.t.Helper()
	tokens := make([]Token, len(ids))
	for i, id := range ids {
		tokens[i] = b.send(joining(group, id, topics...))
	}
	return b.syncAll(group, ids, tokens)
}

func TestGroupFormsCommitsAndComesBack(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	if code := b.beat("g", ids[1], 1); code != 0 {
		t.Fatalf("heartbeat: %d", code)
	}
	if code := b.commit("g", ids[2], 1, "flights", 1, 42); code != 0 {
		t.Fatalf("commit: %d", code)
	}
	if got := b.offset("g", "flights", 1); got != 42 {
		t.Fatalf("fetched %d", got)
	}
	b.reload()
	if b.state("g") != Stable {
		t.Fatalf("after the reload the group is %v", b.state("g"))
	}
	if got := b.offset("g", "flights", 1); got != 42 {
		t.Fatalf("fetched %d after the reload", got)
	}
	for i, id := range ids {
		if code := b.beat("g", id, 1); code != 0 {
			t.Fatalf("heartbeat after the reload: %d", code)
		}
		r := answer[*kmsg.SyncGroupResponse](b, b.send(syncing("g", id, 1)))
		if want := fmt.Sprintf("of %s in 1", ids[i]); string(r.MemberAssignment) != want {
			t.Fatalf("assignment after the reload %q, want %q", r.MemberAssignment, want)
		}
	}
}

// The five triggers of a rebalance.

func TestRebalanceWhenSubscriptionChanges(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	follower := b.send(joining("g", ids[2], "flights", "airports"))
	b.waits(follower)
	for _, id := range ids[:2] {
		if got := b.beat("g", id, 1); got != kerr.RebalanceInProgress.Code {
			t.Fatalf("heartbeat gets %d", got)
		}
	}
	rest := []Token{b.send(joining("g", ids[0], "flights")), b.send(joining("g", ids[1], "flights"))}
	b.syncAll("g", ids, append(rest, follower))
	if !b.s.groups["g"].subscribed["airports"] {
		t.Fatal("the new subscription does not count")
	}
}

func TestRebalanceWhenPartitionsAreAdded(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	// A follower that comes with what it came with before is let in again, and nothing happens.
	r := ask[*kmsg.JoinGroupResponse](b, joining("g", ids[1], "flights"))
	if r.ErrorCode != 0 || r.Generation != 1 || r.LeaderID != ids[0] || len(r.Members) != 0 || b.state("g") != Stable {
		t.Fatalf("a follower that comes again gets %+v", r)
	}
	// The leader knows the partitions: when it comes, it wants to assign anew.
	first := b.send(joining("g", ids[0], "flights"))
	b.waits(first)
	if got := b.beat("g", ids[1], 1); got != kerr.RebalanceInProgress.Code {
		t.Fatalf("heartbeat gets %d", got)
	}
	if g := b.syncAll("g", ids, []Token{first, b.send(joining("g", ids[1], "flights")), b.send(joining("g", ids[2], "flights"))}); g != 2 {
		t.Fatalf("generation %d", g)
	}
}

func TestRebalanceWhenMemberJoins(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	id, last := b.enter("g", "flights")
	b.waits(last)
	if b.state("g") != PreparingRebalance {
		t.Fatalf("group is %v", b.state("g"))
	}
	for _, id := range ids {
		if got := b.beat("g", id, 1); got != kerr.RebalanceInProgress.Code {
			t.Fatalf("heartbeat gets %d", got)
		}
	}
	b.syncAll("g", append(ids, id), []Token{b.send(joining("g", ids[0], "flights")), b.send(joining("g", ids[1], "flights")), last})
}

func TestRebalanceWhenMemberLeaves(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	at := b.now
	r := ask[*kmsg.LeaveGroupResponse](b, leaving("g", ids[0]))
	if r.ErrorCode != 0 || r.Members[0].ErrorCode != 0 {
		t.Fatalf("leave: %+v", r)
	}
	if b.state("g") != PreparingRebalance || !b.now.Equal(at) {
		t.Fatal("a graceful leave must rebalance at once")
	}
	if got := b.beat("g", ids[1], 1); got != kerr.RebalanceInProgress.Code {
		t.Fatalf("heartbeat gets %d", got)
	}
	b.rejoin("g", ids[1:], "flights")
	if l := b.s.groups["g"].leader.id; l != ids[1] {
		t.Fatalf("leader is %s", l)
	}
}

func TestRebalanceWhenMemberIsFoundDead(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	for range 4 { // the second member says nothing for longer than its session
		b.pass(3 * time.Second)
		b.beat("g", ids[0], 1)
		b.beat("g", ids[2], 1)
	}
	if b.state("g") != PreparingRebalance || b.s.groups["g"].members[ids[1]] != nil {
		t.Fatalf("group is %v", b.state("g"))
	}
	if got := b.beat("g", ids[1], 1); got != kerr.UnknownMemberID.Code {
		t.Fatalf("heartbeat of the dead gets %d", got)
	}
	b.rejoin("g", []string{ids[0], ids[2]}, "flights")
}

func TestInitialDelayGrowsWhileMembersCome(t *testing.T) {
	b := newBench(t, nil) // 3 s, and a rebalance timeout of 60 s
	_, first := b.enter("g", "flights")
	b.pass(2 * time.Second)
	_, second := b.enter("g", "flights")
	b.pass(2 * time.Second) // at 3 s another had come: until 6 s
	b.waits(first, second)
	_, third := b.enter("g", "flights")
	b.pass(4 * time.Second) // at 6 s another had come: until 9 s
	b.waits(first, second, third)
	b.pass(time.Second)
	for _, at := range []Token{first, second, third} {
		b.code(at, nil)
	}
}

func TestInitialDelayEndsWithRebalanceTimeout(t *testing.T) {
	b := newBench(t, nil)
	short := func(r *kmsg.JoinGroupRequest) *kmsg.JoinGroupRequest { r.RebalanceTimeoutMillis = 7000; return r }
	var first Token
	for i := range 8 { // one more every second
		id := ask[*kmsg.JoinGroupResponse](b, short(joining("g", "", "flights"))).MemberID
		at := b.send(short(joining("g", id, "flights")))
		if i == 0 {
			first = at
		}
		if i < 7 {
			b.waits(first)
			b.pass(time.Second)
		}
	}
	b.code(first, nil)
}

func TestPendingMemberThatNeverComesBack(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	pending := ask[*kmsg.JoinGroupResponse](b, joining("g", "", "flights")).MemberID
	if b.state("g") != Stable {
		t.Fatal("a member that is only pending starts a rebalance")
	}
	joins := []Token{b.send(joining("g", ids[0], "flights")), b.send(joining("g", ids[1], "flights"))}
	b.waits(joins...) // for the one that was promised a place
	b.pass(9 * time.Second)
	b.waits(joins...)
	b.pass(time.Second)
	b.syncAll("g", ids, joins)
	b.refused(joining("g", pending, "flights"), kerr.UnknownMemberID)
}

func TestMembersThatDoNotRejoinAreDropped(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	joins := []Token{b.send(joining("g", ids[0], "flights", "airports")), b.send(joining("g", ids[1], "flights"))}
	for range 59 { // the third member lives, but does not come
		b.pass(time.Second)
		b.waits(joins...)
		if got := b.beat("g", ids[2], 1); got != kerr.RebalanceInProgress.Code {
			t.Fatalf("heartbeat gets %d", got)
		}
	}
	b.pass(time.Second)
	b.syncAll("g", ids[:2], joins)
	if got := b.beat("g", ids[2], 1); got != kerr.UnknownMemberID.Code {
		t.Fatalf("heartbeat of the dropped gets %d", got)
	}
}

func TestMembersThatDoNotSyncAreDropped(t *testing.T) {
	b := newBench(t, nil)
	ids, tokens := make([]string, 3), make([]Token, 3)
	for i := range ids {
		ids[i], tokens[i] = b.enter("g", "flights")
	}
	b.pass(6 * time.Second)
	for _, at := range tokens {
		b.code(at, nil)
	}
	follower := b.send(syncing("g", ids[1], 1))
	for range 59 { // the leader lives, but does not assign; the third neither
		b.pass(time.Second)
		b.waits(follower)
		b.beat("g", ids[0], 1)
		b.beat("g", ids[2], 1)
	}
	b.pass(time.Second)
	b.code(follower, kerr.RebalanceInProgress)
	for i, want := range []int16{kerr.UnknownMemberID.Code, kerr.RebalanceInProgress.Code, kerr.UnknownMemberID.Code} {
		if got := b.beat("g", ids[i], 1); got != want {
			t.Fatalf("heartbeat of member %d gets %d, want %d", i, got, want)
		}
	}
	b.rejoin("g", ids[1:2], "flights")
}

func TestNewMemberWhoseJoinWaitsTooLong(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 1, "flights")
	j := joining("g", ids[0], "flights", "airports")
	j.RebalanceTimeoutMillis = int32((20 * time.Minute).Milliseconds())
	first := b.send(j)
	b.syncAll("g", ids, []Token{first})
	_, late := b.enter("g", "flights")
	for b.now.Before(began.Add(6 * time.Minute)) { // the old member lives and never comes
		b.pass(5 * time.Second)
		b.beat("g", ids[0], 2)
	}
	b.code(late, kerr.UnknownMemberID)
	if r := answer[*kmsg.JoinGroupResponse](b, late); r.MemberID != "" {
		t.Fatalf("told to go on as %q", r.MemberID)
	}
}

func TestLargestSize(t *testing.T) {
	b := newBench(t, func(c *Config) { c.GroupMaxSize = 3 })
	ids := b.stable("g", 3, "flights")
	b.refused(joining("g", "", "flights"), kerr.GroupMaxSizeReached)
	if b.state("g") != Stable {
		t.Fatal("one too many starts a rebalance")
	}
	b.send(leaving("g", ids[0]))
	id, fourth := b.enter("g", "flights")
	b.syncAll("g", []string{ids[1], ids[2], id}, []Token{b.send(joining("g", ids[1], "flights")), b.send(joining("g", ids[2], "flights")), fourth})
}

func TestLargestSizeLowered(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 4, "flights")
	b.s.config.GroupMaxSize = 2
	b.reload()
	if b.state("g") != PreparingRebalance {
		t.Fatalf("group is %v", b.state("g"))
	}
	joins := []Token{b.send(joining("g", ids[3], "flights")), b.send(joining("g", ids[1], "flights"))}
	b.refused(joining("g", ids[0], "flights"), kerr.GroupMaxSizeReached)
	b.refused(joining("g", ids[2], "flights"), kerr.GroupMaxSizeReached)
	b.syncAll("g", []string{ids[3], ids[1]}, joins)
}

func TestJoinsThatAreRefused(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	with := func(change func(*kmsg.JoinGroupRequest)) *kmsg.JoinGroupRequest {
		r := joining("g", "", "flights")
		change(r)
		return r
	}
	for what, test := range map[string]struct {
		r    *kmsg.JoinGroupRequest
		want *kerr.Error
	}{
		"no group":               {with(func(r *kmsg.JoinGroupRequest) { r.Group = "" }), kerr.InvalidGroupID},
		"session too short":      {with(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 5999 }), kerr.InvalidSessionTimeout},
		"session too long":       {with(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1_800_001 }), kerr.InvalidSessionTimeout},
		"another type":           {with(func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" }), kerr.InconsistentGroupProtocol},
		"another protocol":       {with(func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = "sticky" }), kerr.InconsistentGroupProtocol},
		"a member's other type":  {with(func(r *kmsg.JoinGroupRequest) { r.MemberID, r.ProtocolType = ids[0], "connect" }), kerr.InconsistentGroupProtocol},
		"no protocols":           {with(func(r *kmsg.JoinGroupRequest) { r.Group, r.Protocols = "new", nil }), kerr.InconsistentGroupProtocol},
		"no type":                {with(func(r *kmsg.JoinGroupRequest) { r.Group, r.ProtocolType = "new", "" }), kerr.InconsistentGroupProtocol},
		"unknown member":         {with(func(r *kmsg.JoinGroupRequest) { r.MemberID = "who" }), kerr.UnknownMemberID},
		"member of no group":     {with(func(r *kmsg.JoinGroupRequest) { r.Group, r.MemberID = "new", "who" }), kerr.UnknownMemberID},
		"dynamic with instance":  {static(joining("g", ids[0], "flights"), "i"), kerr.UnknownMemberID},
		"static with unknown id": {static(joining("g", "who", "flights"), "i"), kerr.UnknownMemberID},
	} {
		at := b.send(test.r)
		if got := codeOf(b.answers[at]); got != test.want.Code {
			t.Errorf("%s: %v, want %s", what, kerr.ErrorForCode(got), test.want.Message)
		}
	}
	if b.state("g") != Stable || b.state("new") != Dead {
		t.Fatalf("groups are %v and %v", b.state("g"), b.state("new"))
	}
}

func TestOldVersionsJoinAtOnce(t *testing.T) {
	for version := int16(0); version < firstMemberIDRequired; version++ {
		b := newBench(t, nil)
		r := joining("g", "", "flights")
		r.Version, r.RebalanceTimeoutMillis = version, -1
		if version >= firstRebalanceTimeout {
			r.RebalanceTimeoutMillis = 60_000
		}
		at := b.send(r)
		b.waits(at)
		m := b.s.groups["g"].order[0]
		if want := map[bool]time.Duration{true: 10 * time.Second, false: time.Minute}[version == 0]; m.rebalance != want {
			t.Errorf("version %d: rebalance timeout %v", version, m.rebalance)
		}
		b.pass(3 * time.Second)
		b.code(at, nil)
	}
}

func TestProtocolIsVotedFor(t *testing.T) {
	b := newBench(t, nil)
	join := func(member string, names ...string) Token {
		r := joining("g", member, "flights")
		r.Protocols = nil
		for _, n := range names {
			r.Protocols = append(r.Protocols, kmsg.JoinGroupRequestProtocol{Name: n, Metadata: subscription("flights")})
		}
		return b.send(r)
	}
	votes := [][]string{{"range", "sticky", "old"}, {"sticky", "range"}, {"new", "sticky", "range"}}
	var joins []Token
	for _, v := range votes {
		at := join("", v...)
		joins = append(joins, join(answer[*kmsg.JoinGroupResponse](b, at).MemberID, v...))
	}
	b.pass(6 * time.Second)
	if r := answer[*kmsg.JoinGroupResponse](b, joins[0]); *r.Protocol != "sticky" || *r.ProtocolType != consumerType {
		t.Fatalf("chose %s", *r.Protocol)
	}
}

func TestRepeatedJoinTakesThePlaceOfTheFirst(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	first := b.send(joining("g", ids[0], "flights", "airports"))
	second := b.send(joining("g", ids[0], "flights", "airports"))
	b.code(first, kerr.RebalanceInProgress) // its client does not wait any more
	b.syncAll("g", ids, []Token{second, b.send(joining("g", ids[1], "flights"))})
	// Late: the generation has gone on.
	r := ask[*kmsg.JoinGroupResponse](b, joining("g", ids[1], "flights"))
	if r.ErrorCode != 0 || r.Generation != 2 || b.state("g") != Stable {
		t.Fatalf("a late JoinGroup gets %+v and the group is %v", r, b.state("g"))
	}
}

func TestJoinWhileTheGenerationCompletes(t *testing.T) {
	b := newBench(t, nil)
	ids, tokens := make([]string, 2), make([]Token, 2)
	for i := range ids {
		ids[i], tokens[i] = b.enter("g", "flights")
	}
	b.pass(6 * time.Second)
	// The answer was lost: the same again.
	again := ask[*kmsg.JoinGroupResponse](b, joining("g", ids[0], "flights"))
	if again.ErrorCode != 0 || again.Generation != 1 || len(again.Members) != 2 {
		t.Fatalf("the leader gets %+v", again)
	}
	if r := ask[*kmsg.JoinGroupResponse](b, joining("g", ids[1], "flights")); r.ErrorCode != 0 || r.Generation != 1 || len(r.Members) != 0 {
		t.Fatalf("the follower gets %+v", r)
	}
	// Other metadata: everybody joins again.
	waits := b.send(syncing("g", ids[1], 1))
	changed := b.send(joining("g", ids[0], "airports"))
	b.code(waits, kerr.RebalanceInProgress)
	b.syncAll("g", ids, []Token{changed, b.send(joining("g", ids[1], "flights"))})
}

func TestSyncs(t *testing.T) {
	b := newBench(t, nil)
	ids, tokens := make([]string, 3), make([]Token, 3)
	for i := range ids {
		ids[i], tokens[i] = b.enter("g", "flights")
	}
	b.pass(6 * time.Second)
	first := b.send(syncing("g", ids[1], 1))
	second := b.send(syncing("g", ids[1], 1))
	b.code(first, kerr.RebalanceInProgress)
	b.waits(second)
	wrong := syncing("g", ids[2], 1)
	*wrong.Protocol = "sticky"
	b.refused(wrong, kerr.InconsistentGroupProtocol)
	wrong.Protocol = nil
	b.refused(wrong, kerr.InconsistentGroupProtocol)
	b.refused(syncing("g", ids[2], 2), kerr.IllegalGeneration)
	b.refused(syncing("g", "who", 1), kerr.UnknownMemberID)
	b.refused(syncing("", "who", 1), kerr.InvalidGroupID)
	b.refused(syncing("none", "who", 1), kerr.UnknownMemberID)
	if got := b.beat("g", ids[2], 1); got != 0 {
		t.Fatalf("heartbeat while the generation completes: %d", got)
	}
	if got := b.commit("g", ids[2], 1, "flights", 0, 1); got != kerr.RebalanceInProgress.Code {
		t.Fatalf("commit while the generation completes: %d", got)
	}
	leader := b.send(syncing("g", ids[0], 1, ids[0], "a", ids[1], "b", "stranger", "c"))
	for at, want := range map[Token]string{leader: "a", second: "b", b.send(syncing("g", ids[2], 1)): ""} {
		if r := answer[*kmsg.SyncGroupResponse](b, at); r.ErrorCode != 0 || string(r.MemberAssignment) != want {
			t.Fatalf("assigned %q, want %q", r.MemberAssignment, want)
		}
	}
	b.send(joining("g", ids[0], "flights"))
	b.refused(syncing("g", ids[1], 1), kerr.RebalanceInProgress)
}

func TestOtherTypesAreOpaque(t *testing.T) {
	b := newBench(t, nil)
	connect := func(member string) *kmsg.JoinGroupRequest {
		r := joining("workers", member)
		r.ProtocolType = "connect"
		r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "sessioned", Metadata: []byte{0xff}}, {Name: "default"}}
		return r
	}
	id := ask[*kmsg.JoinGroupResponse](b, connect("")).MemberID
	at := b.send(connect(id))
	b.pass(3 * time.Second)
	r := answer[*kmsg.JoinGroupResponse](b, at)
	if *r.Protocol != "sessioned" || *r.ProtocolType != "connect" || !slices.Equal(r.Members[0].ProtocolMetadata, []byte{0xff}) {
		t.Fatalf("joined %+v", r)
	}
	s := syncing("workers", id, 1, id, "tasks")
	*s.ProtocolType, *s.Protocol = "connect", "sessioned"
	if got := ask[*kmsg.SyncGroupResponse](b, s); string(got.MemberAssignment) != "tasks" {
		t.Fatalf("synced %+v", got)
	}
	b.reload()
	if g := b.s.groups["workers"]; g.state != Stable || g.protocolType != "connect" || g.protocol != "sessioned" {
		t.Fatalf("came back as %+v", g)
	}
}

func TestLeaving(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	pending := ask[*kmsg.JoinGroupResponse](b, joining("g", "", "flights")).MemberID
	old := leaving("g")
	old.Version, old.MemberID = 2, "who"
	b.refused(old, kerr.UnknownMemberID)
	b.refused(leaving("", "who"), kerr.InvalidGroupID)
	r := ask[*kmsg.LeaveGroupResponse](b, leaving("g", pending, "who", ids[1]))
	for i, want := range []int16{0, kerr.UnknownMemberID.Code, 0} {
		if got := r.Members[i].ErrorCode; got != want {
			t.Fatalf("member %d leaves with %d, want %d", i, got, want)
		}
	}
	b.rejoin("g", ids[:1], "flights")
	ask[*kmsg.LeaveGroupResponse](b, leaving("g", ids[0]))
	if b.state("g") != Empty {
		t.Fatalf("the group that everybody has left is %v", b.state("g"))
	}
	if r := ask[*kmsg.LeaveGroupResponse](b, leaving("none", "who")); r.ErrorCode != 0 || r.Members[0].ErrorCode != kerr.UnknownMemberID.Code {
		t.Fatalf("leaving no group: %+v", r)
	}
	b.reload()
	if g := b.s.groups["g"]; g.state != Empty || g.generation != 3 || g.protocolType != consumerType {
		t.Fatalf("came back as %+v", g)
	}
}

func TestMemberThatLeavesWhileItWaits(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	waits := b.send(joining("g", ids[0], "airports"))
	ask[*kmsg.LeaveGroupResponse](b, leaving("g", ids[0]))
	b.code(waits, kerr.UnknownMemberID)
	b.rejoin("g", ids[1:], "flights")
}

func TestSilentDeathOfAllLeavesNothingBehind(t *testing.T) {
	b := newBench(t, nil)
	b.stable("g", 3, "flights")
	b.pass(20 * time.Second)
	b.pass(2 * time.Minute)
	if b.state("g") != Empty {
		t.Fatalf("group is %v", b.state("g"))
	}
	b.pass(b.s.config.OffsetsRetentionCheckInterval)
	if b.state("g") != Dead || len(b.s.timers) != 1 {
		t.Fatalf("group is %v, and %d timers run", b.state("g"), len(b.s.timers))
	}
	b.reload()
	if b.state("g") != Dead {
		t.Fatal("it comes back")
	}
}

func TestForgottenRequestsAreNotAnswered(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	gone := b.send(joining("g", ids[0], "airports"))
	b.s.Forget(b.now, gone)
	if len(b.s.waiting) != 0 {
		t.Fatal("it still waits")
	}
	b.code(b.send(joining("g", ids[1], "flights")), nil) // the join phase ended: the member had come
	if b.answers[gone] != nil {
		t.Fatalf("answered %+v", b.answers[gone])
	}
	if got := b.beat("g", ids[0], 2); got != 0 {
		t.Fatalf("heartbeat of the forgotten gets %d", got)
	}
}

func TestUnloadAnswersEverybody(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	join := b.send(joining("g", ids[0], "airports"))
	others, tokens := make([]string, 2), make([]Token, 2)
	for i := range others {
		others[i], tokens[i] = b.enter("h", "flights")
	}
	b.pass(6 * time.Second)
	sync := b.send(syncing("h", others[1], 1))
	b.hold = true
	commit := b.send(committing("solo", "", -1, "flights", 0, 1))
	for _, r := range b.s.Unload(kerr.NotCoordinator.Code) {
		b.deliver(r)
	}
	b.code(join, kerr.NotCoordinator)
	b.code(sync, kerr.NotCoordinator)
	if r := answer[*kmsg.OffsetCommitResponse](b, commit); r.Topics[0].Partitions[0].ErrorCode != kerr.NotCoordinator.Code {
		t.Fatalf("commit gets %+v", r)
	}
}

func TestPendingMembersAreBounded(t *testing.T) {
	b := newBench(t, nil)
	for range maxPending {
		b.code(b.send(joining("g", "", "flights")), kerr.MemberIDRequired)
	}
	b.refused(joining("g", "", "flights"), kerr.CoordinatorNotAvailable)
	b.pass(10 * time.Second)
	b.refused(joining("g", "", "flights"), kerr.MemberIDRequired)
}

// TestTimersDueTogether: a Tick that comes late finds the end of a join phase and of a session due at
// once; what the first has settled the second must leave alone.
func TestTimersDueTogether(t *testing.T) {
	b := newBench(t, nil)
	var s timers
	var ran []string
	var one, two, three timer
	one.run = func(sh *Shard) {
		ran = append(ran, "one")
		sh.stop(&two)
		sh.set(&three, b.now.Add(time.Hour))
	}
	two.run = func(*Shard) { ran = append(ran, "two") }
	three.run = func(*Shard) { ran = append(ran, "three") }
	b.s.timers = s
	b.s.now = b.now
	for i, at := range []*timer{&one, &two, &three} {
		b.s.set(at, b.now.Add(time.Duration(i)*time.Second))
	}
	b.now = b.now.Add(time.Minute)
	b.take(b.s.Tick(b.now, b.topics))
	if !slices.Equal(ran, []string{"one"}) {
		t.Fatalf("ran %v", ran)
	}
	if due, ok := b.s.Deadline(); !ok || !due.Equal(b.now.Add(time.Hour)) {
		t.Fatalf("next at %v", due)
	}
}

// Where new groups wait for nobody, those that start together are in one generation, be it that one has just its id; one
// that gets its id and does not come does not hold the others up for long.
func TestMembersThatStartTogetherAreTogether(t *testing.T) {
	b := newBench(t, func(c *Config) { c.GroupInitialRebalanceDelay = 0 })
	const pause = togetherWithin - time.Millisecond
	first, joined := b.enter("g", "flights")
	b.pass(pause)
	second := ask[*kmsg.JoinGroupResponse](b, joining("g", "", "flights")).MemberID
	b.pass(pause)
	b.waits(joined)
	other := b.send(joining("g", second, "flights"))
	b.pass(3 * togetherWithin)
	if g := b.syncAll("g", []string{first, second}, []Token{joined, other}); g != 1 {
		t.Errorf("they are together in generation %d", g)
	}

	id, token := b.enter("visited", "flights")
	for range 2 * togetherAtMost / pause {
		ask[*kmsg.JoinGroupResponse](b, joining("visited", "", "flights")) // never seen again
		b.pass(pause)
	}
	b.syncAll("visited", []string{id}, []Token{token})

	id, token = b.enter("alone", "flights")
	b.pass(togetherWithin)
	b.syncAll("alone", []string{id}, []Token{token})
}
