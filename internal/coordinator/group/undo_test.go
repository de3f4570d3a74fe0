package group

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// durable is everything of a shard that must survive: what a reload has to bring back.
func durable(s *Shard) map[string]string {
	all := make(map[string]string)
	for id, g := range s.groups {
		if g.stored != nil {
			all[id] = fmt.Sprintf("%x", g.stored)
		}
		for _, t := range g.topics {
			for _, c := range t.parts {
				all[fmt.Sprintf("%s %s %d", id, t.name, c.partition)] = fmt.Sprintf("%+v", c)
			}
		}
	}
	return all
}

// same compares durable state without writing it out.
func same(a, b *Shard) bool {
	n := 0
	for id, g := range a.groups {
		if g.stored == nil && len(g.topics) == 0 {
			continue
		}
		n++
		h := b.groups[id]
		if h == nil || !bytes.Equal(g.stored, h.stored) || (g.stored == nil) != (h.stored == nil) || len(g.topics) != len(h.topics) {
			return false
		}
		for name, t := range g.topics {
			if u := h.topics[name]; u == nil || !slices.Equal(t.parts, u.parts) {
				return false
			}
		}
	}
	for _, g := range b.groups {
		if g.stored != nil || len(g.topics) > 0 {
			n--
		}
	}
	return n == 0
}

// replayed is a shard that knows the log alone.
func replayed(log []Record, now time.Time) (*Shard, error) {
	s := New(Defaults(), rand.NewPCG(9, 9))
	for _, r := range log {
		if err := s.Replay(r, now); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (b *bench) agrees(what string) {
	b.t.Helper()
	s, err := replayed(b.log, b.now)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	if !same(s, b.s) {
		b.t.Fatalf("%s: the log says -, the shard +:\n%s", what, cmp.Diff(durable(s), durable(b.s)))
	}
	b.sound(what)
}

// sound checks what must hold between the parts of a shard.
func (b *bench) sound(what string) {
	b.t.Helper()
	if wrong := unsound(b.s); wrong != "" {
		b.t.Fatalf("%s: %s", what, wrong)
	}
}

func unsound(s *Shard) string {
	waiting := 0
	for id, g := range s.groups {
		if wrong := g.unsound(s); wrong != "" {
			return fmt.Sprintf("group %s (%v): %s", id, g.state, wrong)
		}
		for _, m := range g.order {
			if m.join.on && !m.join.deaf {
				waiting++
			}
			if m.sync.on && !m.sync.deaf {
				waiting++
			}
		}
	}
	if waiting != len(s.waiting) {
		return fmt.Sprintf("%d members wait, %d are noted", waiting, len(s.waiting))
	}
	for i, t := range s.timers {
		if t.place != i+1 || !t.armed || (i > 0 && t.due.Before(s.timers[(i-1)/2].due)) {
			return fmt.Sprintf("timer %d of %d is out of place", i, len(s.timers))
		}
	}
	return ""
}

func (g *group) unsound(s *Shard) string {
	joining, unsynced, statics, supported := 0, 0, 0, make(map[string]int)
	for _, m := range g.order {
		switch {
		case g.members[m.id] != m, m.group != g:
			return "member " + m.id + " is not under its id"
		case m.instance != nil && g.static[*m.instance] != m:
			return "member " + m.id + " is not under its instance"
		case m.join.on && !m.join.deaf && s.waiting[m.join.token] != m, m.sync.on && !m.sync.deaf && s.waiting[m.sync.token] != m:
			return "member " + m.id + " waits and is not noted"
		case m.timer.place == 0 && !m.join.on && !m.sync.on && !s.loading:
			return "member " + m.id + " lives for ever"
		case m.join.on && g.state != PreparingRebalance:
			return "member " + m.id + " waits to join, and nobody will let it"
		case m.sync.on && g.state != CompletingRebalance:
			return "member " + m.id + " waits for an assignment, and nobody will make one"
		}
		if m.join.on {
			joining++
		}
		if m.owesSync {
			unsynced++
		}
		if m.instance != nil {
			statics++
		}
		for _, p := range m.protocols {
			supported[p.name]++
		}
	}
	for id, m := range g.pending {
		if m.id != id || m.timer.place == 0 || g.members[id] != nil {
			return "pending member " + id + " is lost"
		}
	}
	switch {
	case len(g.members) != len(g.order), len(g.static) != statics, g.joining != joining, g.unsynced != unsynced:
		return fmt.Sprintf("counts are wrong: %d members of %d, %d static of %d, %d joining of %d, %d unsynced of %d",
			len(g.members), len(g.order), len(g.static), statics, g.joining, joining, g.unsynced, unsynced)
	case !maps.Equal(supported, g.supported) && len(supported)+len(g.supported) > 0:
		return fmt.Sprintf("protocols are counted %v, are %v", g.supported, supported)
	case g.size() > 0 && !slices.Contains(g.order, g.leader), g.size() == 0 && g.leader != nil:
		return "the leader is not a member"
	case (g.state == Empty) != (g.size() == 0) && g.state != PreparingRebalance:
		return fmt.Sprintf("it has %d members", g.size())
	case g.state == PreparingRebalance && g.joinTimer.place == 0:
		return "nothing ends its join phase"
	case g.unsynced > 0 && g.syncTimer.place == 0:
		return "nothing ends its sync phase"
	case g.bare() && g.state != PreparingRebalance: // which ends, and leaves a record
		return "nothing of it is left"
	case g.state == Stable && g.stored == nil:
		return "it is stable and not in the log"
	}
	return ""
}

func TestRefusedCommitIsUndone(t *testing.T) {
	b := newBench(t, nil)
	b.commit("g", "", -1, "flights", 0, 5)
	b.hold = true
	at := []Token{b.send(committing("g", "", -1, "flights", 0, 6)), b.send(committing("h", "", -1, "flights", 0, 6))}
	f := kmsg.NewPtrOffsetFetchRequest()
	f.Version = 9
	f.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g"}}
	read := b.send(f)
	b.waits(append(at, read)...)
	b.hold = false
	b.failed(kerr.NotEnoughReplicas.Code)
	for _, at := range at {
		if got := answer[*kmsg.OffsetCommitResponse](b, at).Topics[0].Partitions[0].ErrorCode; got != kerr.CoordinatorNotAvailable.Code {
			t.Fatalf("commit gets %d", got)
		}
	}
	if r := answer[*kmsg.OffsetFetchResponse](b, read).Groups[0]; r.ErrorCode != kerr.NotCoordinator.Code || r.Topics != nil {
		t.Fatalf("who read what is undone gets %+v", r)
	}
	if got := b.offset("g", "flights", 0); got != 5 || b.state("h") != Dead {
		t.Fatalf("left: %d, and a group that is %v", got, b.state("h"))
	}
	b.agrees("after the failure")
}

func TestRefusedAssignmentRebalances(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	joins := []Token{b.send(joining("g", ids[0], "flights")), b.send(joining("g", ids[1], "flights"))}
	b.code(joins[1], nil)
	b.hold = true
	follower := b.send(syncing("g", ids[1], 2))
	leader := b.send(syncing("g", ids[0], 2, ids[0], "x", ids[1], "y"))
	late := b.send(syncing("g", ids[1], 2))
	b.waits(follower, leader, late)
	b.hold = false
	b.failed(kerr.NotEnoughReplicas.Code)
	for _, at := range []Token{follower, leader, late} {
		b.code(at, kerr.CoordinatorNotAvailable)
	}
	if b.state("g") != PreparingRebalance {
		t.Fatalf("group is %v", b.state("g"))
	}
	b.agrees("after the failure")
	if g := b.rejoin("g", ids, "flights"); g != 3 {
		t.Fatalf("generation %d", g)
	}
	b.agrees("in the end")
}

func TestRefusedFirstRecordUnmakesTheGroup(t *testing.T) {
	b := newBench(t, nil)
	b.hold = true
	old := joining("g", "", "flights")
	old.Version = 3
	waits := b.send(old)
	pending := ask[*kmsg.JoinGroupResponse](b, joining("h", "", "flights")).MemberID
	b.hold = false
	b.failed(kerr.KafkaStorageError.Code)
	b.code(waits, kerr.NotCoordinator)
	if len(b.s.groups) != 0 {
		t.Fatalf("left over: %v", b.s.groups)
	}
	b.refused(joining("h", pending, "flights"), kerr.UnknownMemberID)
	b.agrees("after the failure")
	b.stable("g", 2, "flights")
}

func TestRefusedReplacementGivesThePlaceBack(t *testing.T) {
	b := newBench(t, nil)
	ids := staticPair(b)
	b.hold = true
	at := b.send(static(joining("g", "", "airports"), "b"))
	b.waits(at)
	b.hold = false
	b.failed(kerr.NotEnoughReplicas.Code)
	b.code(at, kerr.CoordinatorNotAvailable)
	if got := b.beat("g", ids[1], 1); got != 0 || b.state("g") != Stable {
		t.Fatalf("the old one's heartbeat gets %d in a group that is %v", got, b.state("g"))
	}
	if m := b.s.groups["g"].static["b"]; !slices.Equal(m.metadata("range"), subscription("flights")) {
		t.Fatal("it has the other one's subscription")
	}
	b.agrees("after the failure")
	if r := ask[*kmsg.JoinGroupResponse](b, static(joining("g", "", "flights"), "b")); r.ErrorCode != 0 {
		t.Fatalf("the new one's next try: %+v", r)
	}
	b.agrees("in the end")
}

func TestRefusedDeletionBringsTheGroupBack(t *testing.T) {
	for _, madeAnew := range []bool{false, true} {
		b := newBench(t, nil)
		ids := b.stable("g", 1, "flights")
		b.commit("g", ids[0], 1, "flights", 0, 5)
		b.send(leaving("g", ids[0]))
		b.hold = true
		r := kmsg.NewPtrDeleteGroupsRequest()
		r.Version, r.Groups = 2, []string{"g"}
		at := b.send(r)
		if b.state("g") != Dead {
			t.Fatalf("group is %v", b.state("g"))
		}
		if madeAnew {
			old := joining("g", "", "flights")
			old.Version = 3
			b.send(old)
		}
		b.hold = false
		b.failed(kerr.NotEnoughReplicas.Code)
		if got := answer[*kmsg.DeleteGroupsResponse](b, at).Groups[0].ErrorCode; got != kerr.CoordinatorNotAvailable.Code {
			t.Fatalf("deletion gets %d", got)
		}
		if got := b.offset("g", "flights", 0); got != 5 {
			t.Fatalf("offset %d", got)
		}
		b.agrees("after the failure")
		if madeAnew {
			b.pass(3 * time.Second)
		}
		if g := b.s.groups["g"]; g.generation < 2 {
			t.Fatalf("generation %d comes again", g.generation)
		}
	}
}

// TestFailedRestoresExactly: random requests, random refusals; the shard's durable state is always
// that of one which has replayed what was appended, and its parts fit each other.
func TestFailedRestoresExactly(t *testing.T) {
	for seed := range seeds(t, 150) {
		b := newBench(t, func(c *Config) {
			c.OffsetsRetention = 3 * time.Minute
			c.OffsetsRetentionCheckInterval = 40 * time.Second
		})
		b.hold = true
		rnd := rand.New(rand.NewPCG(seed, 3))
		var ids []string
		for step := range 250 {
			what := fmt.Sprintf("seed %d, step %d", seed, step)
			b.send(anything(rnd, b.s, ids))
			for t, r := range b.answers {
				if r, ok := r.(*kmsg.JoinGroupResponse); ok && r.MemberID != "" && !slices.Contains(ids, r.MemberID) {
					ids = append(ids, r.MemberID)
				}
				delete(b.answers, t)
			}
			slices.Sort(ids)
			switch rnd.IntN(12) {
			case 0:
				b.failed(kerr.NotEnoughReplicas.Code)
				if len(b.batch) == 0 {
					b.agrees(what)
				}
			case 1, 2, 3:
				b.appended()
				b.agrees(what)
			case 4:
				b.take(b.s.TopicsDeleted(b.now, []string{"flights"}, [][16]byte{{15: 1}}))
			case 5, 6:
				b.pass(time.Duration(rnd.IntN(20_000)) * time.Millisecond)
			case 7:
				b.s.Forget(b.now, Token(rnd.Uint64N(uint64(b.next)+1)))
			}
			b.sound(what)
		}
	}
}

// anything is a request about one of a few groups, mostly one that makes sense.
func anything(rnd *rand.Rand, s *Shard, ids []string) kmsg.Request {
	group := string(rune('a' + rnd.IntN(4)))
	id, generation := "", int32(rnd.IntN(6))
	if len(ids) > 0 && rnd.IntN(3) > 0 {
		id = ids[rnd.IntN(len(ids))]
	}
	var instance *string
	g := s.groups[group]
	if g != nil && rnd.IntN(4) > 0 {
		generation = g.generation
		if g.size() > 0 {
			m := g.order[rnd.IntN(g.size())]
			id, instance = m.id, m.instance
		}
		if known := slices.Sorted(maps.Keys(g.pending)); len(known) > 0 && rnd.IntN(2) == 0 {
			id, instance = known[0], nil
		}
	}
	switch rnd.IntN(14) {
	case 0, 1, 2, 3:
		r := joining(group, id, []string{"flights", "airports"}[rnd.IntN(2)])
		r.RebalanceTimeoutMillis = 15_000
		r.Version, r.InstanceID = int16(rnd.IntN(10)), instance
		if instance == nil && rnd.IntN(3) == 0 {
			static(r, string(rune('p'+rnd.IntN(2))))
		}
		if rnd.IntN(4) == 0 {
			r.MemberID = ""
		}
		return r
	case 4, 5, 6, 7:
		r := syncing(group, id, generation)
		if g != nil && g.leader != nil && rnd.IntN(2) == 0 {
			r.MemberID = g.leader.id
			for _, m := range g.order {
				r.GroupAssignment = append(r.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: m.id, MemberAssignment: []byte(m.id)})
			}
		}
		return r
	case 8:
		return leaving(group, id)
	case 9:
		r := kmsg.NewPtrDeleteGroupsRequest()
		r.Version, r.Groups = 2, []string{group}
		return r
	case 10:
		r := kmsg.NewPtrOffsetDeleteRequest()
		r.Group = group
		r.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "airports", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 1}}}}
		return r
	case 11:
		return beating(group, id, generation)
	}
	if rnd.IntN(2) == 0 {
		id, generation = "", -1
	}
	return committing(group, id, generation, []string{"flights", "airports"}[rnd.IntN(2)], int32(rnd.IntN(4)), rnd.Int64N(1000))
}
