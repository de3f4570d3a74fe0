package membership

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/errcode"
	"barnabas/client/internal/groupmodel"
)

// nextWorld is a group's members by the consumer protocol and its coordinator, in pretended time.
// Requests and answers are late and lost, though those of one member stay in order, as on a
// connection; programs poll, dawdle and take their time in callbacks; members come, leave, die, are
// cut off and taken for dead; topics come, go, grow and are made again. One seed is one history.
type nextWorld struct {
	*world
	group   *groupmodel.Coordinator
	known   map[[16]byte]string // what metadata tells of names: it may lag
	players []*nextPlayer
	topicNo byte
}

type nextPlayer struct {
	w      *nextWorld
	name   string
	m      *Reconciler
	sent   time.Time // when the latest request arrives
	dead   bool
	closed bool
	cutOff bool
	failed error
	inPoll bool
	tick   int
}

func newNextWorld(t *testing.T, seed uint64) *nextWorld {
	w := &nextWorld{
		world: &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 5)), now: epoch},
		group: groupmodel.New(6*time.Second, time.Second), known: map[[16]byte]string{},
	}
	w.topic("t", 5)
	w.topic("u", 3)
	return w
}

// topic makes a topic, anew where it is there.
func (w *nextWorld) topic(name string, partitions int32) {
	w.topicNo++
	for id, t := range w.group.Topics {
		if t.Name == name {
			delete(w.group.Topics, id)
		}
	}
	id := [16]byte{w.topicNo}
	w.group.Topics[id] = groupmodel.Topic{Name: name, Partitions: partitions}
	w.group.TopicsChanged()
	w.after(time.Duration(w.rng.IntN(3_000_000_000)), func() { w.known[id] = name; w.tellNames() })
}

func (w *nextWorld) tellNames() {
	for _, p := range w.players {
		p.tell(func(m *Reconciler) { m.Metadata(w.now, w.known) })
	}
}

// check: a partition has one owner among those that the coordinator has for members.
func (w *nextWorld) check() {
	w.group.Expire(w.now)
	owner := map[groupmodel.Partition]string{}
	for _, p := range w.players {
		id, mine, ok := p.m.Generation()
		if _, member := w.group.Epoch(id); p.dead || !ok || !member {
			continue
		}
		if at, _ := w.group.Epoch(id); mine > at {
			w.t.Fatalf("seed %d, %v: %s is in epoch %d, the coordinator has it in %d", w.seed, w.now.Sub(epoch), p.name, mine, at)
		}
		for _, tp := range p.m.Owned() {
			part := groupmodel.Partition{Topic: p.m.ids[tp.Topic], Number: tp.Partition}
			if was := owner[part]; was != "" {
				w.t.Fatalf("seed %d, %v: %v is owned by %s and %s", w.seed, w.now.Sub(epoch), tp, was, p.name)
			}
			owner[part] = p.name
		}
	}
}

func (w *nextWorld) run(until time.Time) {
	for len(w.events) > 0 && !w.events[0].at.After(until) {
		w.world.step()
		w.check()
	}
	w.now = until
}

// ask carries a heartbeat to the coordinator and its answer back, or neither.
func (p *nextPlayer) ask(req *kmsg.ConsumerGroupHeartbeatRequest, answered func(*kmsg.ConsumerGroupHeartbeatResponse, error)) {
	w := p.w
	settle := func(resp *kmsg.ConsumerGroupHeartbeatResponse, err error) {
		w.after(w.lag(), func() {
			if !p.dead {
				answered(resp, err)
			}
		})
	}
	if w.lost() || p.cutOff {
		settle(nil, errcode.Network)
		return
	}
	p.sent = w.now.Add(max(w.lag(), p.sent.Sub(w.now)+time.Nanosecond))
	w.after(p.sent.Sub(w.now), func() {
		if !w.calm && w.rng.IntN(40) == 0 {
			resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
			resp.ErrorCode = []errcode.Error{errcode.NotCoordinator, errcode.CoordinatorLoadInProgress, errcode.UnknownServerError}[w.rng.IntN(3)].Code()
			settle(resp, nil)
			return
		}
		resp := w.group.Heartbeat(w.now, req)
		if w.lost() {
			settle(nil, errcode.Network)
			return
		}
		settle(resp, nil)
	})
}

func (p *nextPlayer) tell(what func(m *Reconciler)) {
	w := p.w
	if p.dead {
		return
	}
	what(p.m)
	for _, a := range p.m.Actions() {
		p.perform(a)
	}
	p.tick++
	if at, ok := p.m.Deadline(); ok {
		mine := p.tick
		w.after(max(at.Sub(w.now), time.Nanosecond), func() {
			if p.tick == mine {
				p.tell(func(m *Reconciler) { m.Tick(w.now) })
			}
		})
	}
}

func (p *nextPlayer) perform(a Action) {
	w := p.w
	switch a := a.(type) {
	case FindCoordinator:
		w.after(w.lag(), func() {
			err := error(nil)
			if w.lost() {
				err = errcode.CoordinatorNotAvailable
			}
			p.tell(func(m *Reconciler) { m.Found(w.now, a.Flight, 1, err) })
		})
	case ConsumerHeartbeat:
		p.ask(a.Request, func(resp *kmsg.ConsumerGroupHeartbeatResponse, err error) {
			p.tell(func(m *Reconciler) {
				if a.Leaves {
					m.Left(w.now, a.Flight)
				} else {
					m.Answered(w.now, a.Flight, resp, err)
					m.Metadata(w.now, w.known)
				}
			})
		})
	case Tell:
		if p.inPoll || p.closed {
			w.after(0, p.serve)
		}
	case Fail:
		p.failed = a.Err
	case Gone:
		p.dead = true
	}
}

func (p *nextPlayer) serve() {
	w := p.w
	if p.dead || !p.inPoll && !p.closed {
		return
	}
	if _, ok := p.m.TakeCall(); !ok {
		return
	}
	p.tell(func(m *Reconciler) { m.PollEnded(w.now) })
	takes := w.lag()
	if !w.calm && w.rng.IntN(10) == 0 {
		takes = time.Duration(w.rng.IntN(15)) * time.Second
	}
	w.after(takes, func() {
		p.tell(func(m *Reconciler) { m.CallDone(w.now); m.PollBegan(w.now) })
		p.serve()
	})
}

func (p *nextPlayer) live() {
	w := p.w
	if p.dead || p.closed || p.failed != nil {
		return
	}
	p.inPoll = true
	p.tell(func(m *Reconciler) { m.PollBegan(w.now) })
	p.serve()
	w.after(time.Duration(1+w.rng.IntN(500))*time.Millisecond, func() {
		if p.dead || p.closed || p.m.call != nil {
			w.after(50*time.Millisecond, p.live)
			return
		}
		p.inPoll = false
		p.tell(func(m *Reconciler) { m.PollEnded(w.now) })
		works := w.lag()
		if !w.calm && w.rng.IntN(60) == 0 {
			works = time.Duration(w.rng.IntN(20)) * time.Second
		}
		w.after(works, p.live)
	})
}

func (w *nextWorld) enter(instance string) *nextPlayer {
	p := &nextPlayer{w: w, name: fmt.Sprint("m", len(w.players))}
	p.m = NewReconciler(Config{
		Group: "g", InstanceID: instance, MemberID: "id of " + p.name, MaxPollInterval: 12 * time.Second,
		RetryBackoff: 100 * time.Millisecond, RetryBackoffMax: time.Second, Jitter: w.rng.Float64,
	})
	w.players = append(w.players, p)
	p.subscribe()
	p.live()
	return p
}

// subscribe is to both topics, by name or by pattern.
func (p *nextPlayer) subscribe() {
	names, pattern := []string{"t", "u"}, ""
	switch p.w.rng.IntN(3) {
	case 0:
		names, pattern = nil, "[tu]"
	case 1:
		names, pattern = []string{"t"}, "u"
	}
	p.tell(func(m *Reconciler) { m.Subscribe(p.w.now, names, pattern) })
}

func (w *nextWorld) happen() {
	live := slices.DeleteFunc(slices.Clone(w.players), func(p *nextPlayer) bool { return p.dead || p.closed })
	pick := func() *nextPlayer { return live[w.rng.IntN(len(live))] }
	switch kind := w.rng.IntN(14); {
	case len(live) == 0 || kind < 4 && len(live) < 8:
		instance := ""
		if w.rng.IntN(4) == 0 {
			instance = fmt.Sprint("i", len(w.players))
		}
		w.enter(instance)
	case kind == 4:
		p := pick()
		p.closed, p.inPoll = true, true
		p.tell(func(m *Reconciler) { m.Close(w.now) })
		w.after(0, p.serve)
	case kind == 5:
		pick().dead = true // kill -9
	case kind == 6:
		w.topic([]string{"t", "u"}[w.rng.IntN(2)], int32(1+w.rng.IntN(6)))
	case kind == 7:
		for id, t := range w.group.Topics {
			w.group.Topics[id] = groupmodel.Topic{Name: t.Name, Partitions: t.Partitions + 1}
		}
		w.group.TopicsChanged()
	case kind == 8:
		w.group.Remove(pick().m.id)
	case kind == 9:
		p := pick()
		p.cutOff = true
		w.after(time.Duration(w.rng.IntN(12))*time.Second, func() { p.cutOff = false })
	case kind == 10:
		pick().subscribe()
	case kind == 11:
		p := pick()
		p.tell(func(m *Reconciler) { m.Subscribe(w.now, nil, "") })
		w.after(time.Duration(w.rng.IntN(3000))*time.Millisecond, func() {
			if !p.closed {
				p.subscribe()
			}
		})
	}
}

// Whatever happens, no partition has two owners among the group's members, and nobody is ahead of the
// coordinator; and once it is calm, everybody who is left settles and every partition has one owner.
func TestReconciledMembersSettle(t *testing.T) {
	for seed := range uint64(40) {
		w := newNextWorld(t, seed)
		for range 40 {
			w.happen()
			w.run(w.now.Add(time.Duration(w.rng.IntN(4_000_000_000))))
		}
		w.calm = true
		w.run(w.now.Add(3 * time.Minute))
		owners := map[groupmodel.Partition]int{}
		alive := 0
		for _, p := range w.players {
			if p.dead {
				continue
			}
			alive++
			if p.failed != nil || !p.m.Settled() {
				t.Fatalf("seed %d: %s has not settled: %v; %+v", seed, p.name, p.failed, *p.m)
			}
			if at, _ := w.group.Epoch(p.m.id); at != p.m.epoch {
				t.Fatalf("seed %d: %s is in epoch %d, the coordinator has it in %d", seed, p.name, p.m.epoch, at)
			}
			for _, tp := range p.m.Owned() {
				owners[groupmodel.Partition{Topic: p.m.ids[tp.Topic], Number: tp.Partition}]++
			}
		}
		for id, topic := range w.group.Topics {
			for n := range topic.Partitions {
				if got := owners[groupmodel.Partition{Topic: id, Number: n}]; alive > 0 && got != 1 {
					t.Fatalf("seed %d: %s-%d has %d owners", seed, topic.Name, n, got)
				}
				delete(owners, groupmodel.Partition{Topic: id, Number: n})
			}
		}
		if len(owners) > 0 {
			t.Fatalf("seed %d: of what is not there, %v is owned", seed, owners)
		}
	}
}

// script is a member with a coordinator that says what the test lets it say.
type script struct {
	t   *testing.T
	m   *Reconciler
	now time.Time
}

func newScript(t *testing.T, instance string) *script {
	s := &script{t: t, now: epoch}
	s.m = NewReconciler(Config{
		Group: "g", InstanceID: instance, MemberID: "me", MaxPollInterval: time.Minute,
		RetryBackoff: 100 * time.Millisecond, RetryBackoffMax: time.Second, Jitter: func() float64 { return 0.5 },
	})
	s.m.PollBegan(s.now)
	s.m.Subscribe(s.now, []string{"t"}, "")
	find := s.m.Actions()[0].(FindCoordinator)
	s.m.Found(s.now, find.Flight, 1, nil)
	return s
}

// beat gives the heartbeat that the member sends now, nil where it sends none.
func (s *script) beat() *ConsumerHeartbeat {
	for _, a := range s.m.Actions() {
		if b, ok := a.(ConsumerHeartbeat); ok {
			return &b
		}
	}
	return nil
}

func (s *script) answer(b *ConsumerHeartbeat, epoch int32, partitions ...int32) {
	s.t.Helper()
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.MemberEpoch, resp.HeartbeatIntervalMillis = epoch, 5000
	if partitions != nil {
		resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{
			Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{{TopicID: [16]byte{1}, Partitions: partitions}},
		}
	}
	s.m.Answered(s.now, b.Flight, resp, nil)
	s.m.Metadata(s.now, map[[16]byte]string{{1}: "t"})
}

func (s *script) refuse(b *ConsumerHeartbeat, code errcode.Error) {
	s.m.Answered(s.now, b.Flight, &kmsg.ConsumerGroupHeartbeatResponse{ErrorCode: code.Code()}, nil)
}

func (s *script) told(kind CallKind, partitions int) {
	s.t.Helper()
	if c, ok := s.m.TakeCall(); !ok || c.Kind != kind || len(c.Partitions) != partitions {
		s.t.Fatalf("told %+v (%v), expected %v of %d", c, ok, kind, partitions)
	}
	s.m.CallDone(s.now)
}

// joined is a member that owns partitions 0 to 2 and has said so.
func joined(t *testing.T, instance string) *script {
	t.Helper()
	s := newScript(t, instance)
	s.answer(s.beat(), 1, 0, 1, 2)
	s.answer(s.beat(), 1)
	s.told(Assigned, 3)
	return s
}

// What is to be given up is owned, and told to be, until the program is done with it; then the
// coordinator hears at once.
func TestRevokedBeforeAcknowledged(t *testing.T) {
	s := joined(t, "")
	s.now = s.now.Add(5 * time.Second)
	s.m.Tick(s.now)
	s.answer(s.beat(), 1, 0, 1)
	if _, ok := s.m.TakeCall(); !ok {
		t.Fatal("the program is not told")
	}
	s.now = s.now.Add(5 * time.Second)
	s.m.Tick(s.now)
	if b := s.beat(); b == nil || b.Request.Topics != nil {
		t.Errorf("while the program gives up, it says %+v", b)
	} else {
		s.answer(b, 1)
	}
	s.m.CallDone(s.now)
	if b := s.beat(); b == nil || len(b.Request.Topics) != 1 || !slices.Equal(b.Request.Topics[0].Partitions, []int32{0, 1}) || b.Request.SubscribedTopicNames != nil {
		t.Errorf("then it says %+v", b)
	}
}

// A leave waits until the program has given up what it owns: it has commits to make.
func TestTrap24LeaveWaitsForRevocation(t *testing.T) {
	for instance, epoch := range map[string]int32{"": -1, "static": -2} {
		s := joined(t, instance)
		s.m.Close(s.now)
		if b := s.beat(); b != nil {
			t.Fatalf("it says %+v before the program has heard", b.Request)
		}
		if _, _, member := s.m.Generation(); !member {
			t.Error("there is no identity left to commit under")
		}
		s.told(Revoked, 3)
		b := s.beat()
		if b == nil || !b.Leaves || b.Request.MemberEpoch != epoch {
			t.Fatalf("instance %q: then it says %+v", instance, b)
		}
		s.m.Left(s.now, b.Flight)
		if a := s.m.Actions(); len(a) != 1 || a[0] != (Gone{}) {
			t.Errorf("in the end %+v", a)
		}
	}
}

// A topic that the coordinator knows before the metadata does is asked for by its id, and assigned
// when its name is known.
func TestTrap24TopicBeforeItsMetadata(t *testing.T) {
	s := newScript(t, "")
	b := s.beat()
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.MemberEpoch = 1
	resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{
		Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{{TopicID: [16]byte{7}, Partitions: []int32{3, -1, 3}}},
	}
	s.m.Answered(s.now, b.Flight, resp, nil)
	if c, ok := s.m.TakeCall(); ok {
		t.Errorf("told %+v of a topic without a name", c)
	}
	if ids := s.m.Unresolved(); len(ids) != 1 || ids[0] != [16]byte{7} {
		t.Errorf("asks for %v", ids)
	}
	s.m.Metadata(s.now, map[[16]byte]string{{7}: "t"})
	if c, ok := s.m.TakeCall(); !ok || len(c.Partitions) != 1 || c.TopicIDs["t"] != [16]byte{7} {
		t.Errorf("told %+v", c)
	}
}

// A topic that was made again is another: its partitions are given up and taken over.
func TestTrap26RecreatedTopicIsAnother(t *testing.T) {
	s := joined(t, "")
	s.now = s.now.Add(5 * time.Second)
	s.m.Tick(s.now)
	b := s.beat()
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.MemberEpoch = 2
	resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{
		Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{{TopicID: [16]byte{9}, Partitions: []int32{0, 1}}},
	}
	s.m.Answered(s.now, b.Flight, resp, nil)
	s.m.Metadata(s.now, map[[16]byte]string{{9}: "t"})
	s.told(Revoked, 3)
	c, ok := s.m.TakeCall()
	if !ok || c.Kind != Assigned || len(c.Partitions) != 2 || c.TopicIDs["t"] != [16]byte{9} {
		t.Fatalf("told %+v", c)
	}
	s.m.CallDone(s.now)
}

// Who is not a member any more has lost everything, hears of it before it joins again, and joins
// owning nothing under the id that it has.
func TestTrap28LostMembershipIsNotClaimedByReconcilers(t *testing.T) {
	for _, code := range []errcode.Error{errcode.UnknownMemberID, errcode.FencedMemberEpoch, errcode.GroupIDNotFound} {
		for _, byCommit := range []bool{false, true} {
			if byCommit && code == errcode.GroupIDNotFound {
				continue
			}
			s := joined(t, "")
			s.now = s.now.Add(5 * time.Second)
			if byCommit {
				s.m.CommitAnswered(s.now, "me", 1, code)
			} else {
				s.m.Tick(s.now)
				s.refuse(s.beat(), code)
			}
			if _, _, ok := s.m.Generation(); ok {
				t.Errorf("%v: it has an epoch still", code)
			}
			if b := s.beat(); b != nil {
				t.Fatalf("%v: it says %+v before the program has heard of the loss", code, b.Request)
			}
			s.told(Lost, 3)
			b := s.beat()
			if b == nil || b.Request.MemberEpoch != 0 || b.Request.Topics == nil || len(b.Request.Topics) > 0 || b.Request.MemberID != "me" || b.Request.RebalanceTimeoutMillis < 0 {
				t.Errorf("%v: it joins with %+v", code, b)
			}
		}
	}
}

// A commit under an epoch that has passed is no reason to give anything up: the next heartbeat brings
// the epoch (trap 23), and it goes out at once.
func TestTrap23StaleEpochOfACommitIsNoLoss(t *testing.T) {
	s := joined(t, "")
	s.m.CommitAnswered(s.now, "me", 1, fmt.Errorf("t-0: %w", errcode.StaleMemberEpoch))
	b := s.beat()
	if b == nil || s.m.Owned() == nil {
		t.Fatalf("it says %+v and owns %v", b, s.m.Owned())
	}
	s.answer(b, 2)
	if _, epoch, ok := s.m.Generation(); !ok || epoch != 2 {
		t.Errorf("it is in epoch %d", epoch)
	}
	s.m.CommitAnswered(s.now, "me", 1, errcode.UnknownMemberID) // of an epoch before: somebody else's answer
	if _, ok := s.m.TakeCall(); ok {
		t.Error("an answer to an epoch that has passed took the partitions away")
	}
}

// An answer that is lost may have said anything, and the request may have been taken in or not: the
// next heartbeat says everything, so that the coordinator says everything too.
func TestUncertainHeartbeatsTellEverything(t *testing.T) {
	s := joined(t, "")
	s.now = s.now.Add(5 * time.Second)
	s.m.Tick(s.now)
	s.m.Answered(s.now, s.beat().Flight, nil, errcode.Network)
	s.now = s.now.Add(time.Second)
	s.m.Tick(s.now)
	find := s.m.Actions()[0].(FindCoordinator)
	s.m.Found(s.now, find.Flight, 2, nil)
	b := s.beat()
	if b == nil || b.To != 2 || len(b.Request.Topics) != 1 || b.Request.RebalanceTimeoutMillis < 0 || !slices.Equal(b.Request.SubscribedTopicNames, []string{"t"}) {
		t.Errorf("it says %+v", b)
	}
}

// An epoch below 1 would have the next heartbeat leave.
func TestNegativeEpochsAreRefused(t *testing.T) {
	s := joined(t, "")
	s.now = s.now.Add(5 * time.Second)
	s.m.Tick(s.now)
	s.answer(s.beat(), -1)
	if _, epoch, ok := s.m.Generation(); !ok || epoch != 1 {
		t.Errorf("it is in epoch %d", epoch)
	}
}

func TestFatalErrorsEndAReconciler(t *testing.T) {
	for _, code := range []errcode.Error{errcode.UnreleasedInstanceID, errcode.InvalidRequest, errcode.GroupAuthorizationFailed, errcode.UnsupportedVersion, errcode.FencedInstanceID} {
		s := joined(t, "i")
		s.now = s.now.Add(5 * time.Second)
		s.m.Tick(s.now)
		s.refuse(s.beat(), code)
		if fail, ok := s.m.Actions()[0].(Fail); !ok || !errors.Is(fail.Err, code) {
			t.Errorf("%v: %+v", code, fail)
		}
		s.told(Lost, 3)
	}
}

// What a commit is refused for is between the program and the broker, unless it is about the member.
func TestRefusedOffsetsDoNotEndAMembership(t *testing.T) {
	const offsetMetadataTooLarge, topicAuthorizationFailed = errcode.Error(12), errcode.Error(29)
	s := joined(t, "")
	w := newWorld(t, 3)
	w.calm = true
	p := w.enter([]assignor.Assignor{assignor.Range{}}, "")
	w.run(w.now.Add(10 * time.Second))
	id, generation, _ := p.m.Generation()
	for _, code := range []errcode.Error{offsetMetadataTooLarge, topicAuthorizationFailed, errcode.UnknownTopicID} {
		s.m.CommitAnswered(s.now, "me", 1, code)
		if _, _, ok := s.m.Generation(); !ok || len(s.m.Owned()) != 3 {
			t.Errorf("%v ended a membership of the consumer protocol", code)
		}
		p.tell(func(m *Machine) { m.CommitAnswered(w.now, id, generation, code) })
		if p.failed != nil || len(p.m.Owned()) != 8 {
			t.Errorf("%v ended a membership of the classic protocol: %v", code, p.failed)
		}
	}
}

// answerFor is answer with partitions of any topic, whose name the metadata learns afterwards.
func (s *script) answerFor(b *ConsumerHeartbeat, epoch int32, topic byte, partitions ...int32) {
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.MemberEpoch, resp.HeartbeatIntervalMillis = epoch, 5000
	resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{
		Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{{TopicID: [16]byte{topic}, Partitions: partitions}},
	}
	s.m.Answered(s.now, b.Flight, resp, nil)
}

func (s *script) later(d time.Duration) *ConsumerHeartbeat {
	s.t.Helper()
	s.now = s.now.Add(d)
	s.m.Tick(s.now)
	b := s.beat()
	if b == nil {
		s.t.Fatalf("no heartbeat after %v", d)
	}
	return b
}

// Also a topic whose name is known at once, while the program is still busy with the one before.
func TestTrap26RecreatedTopicWhileTheProgramIsBusy(t *testing.T) {
	s := joined(t, "")
	s.answer(s.later(5*time.Second), 1, 0, 1)
	if _, ok := s.m.TakeCall(); !ok {
		t.Fatal("the program is not told")
	}
	s.answerFor(s.later(5*time.Second), 1, 9, 0, 1)
	s.m.Metadata(s.now, map[[16]byte]string{{9}: "t"})
	s.m.CallDone(s.now)
	s.told(Revoked, 2)
	if c, ok := s.m.TakeCall(); !ok || len(c.Partitions) != 2 || c.TopicIDs["t"] != [16]byte{9} {
		t.Errorf("then it is told %+v", c)
	}
}

// A pattern that is not wanted any more is taken back by name: what is left out stays as it is.
func TestPatternIsTakenBack(t *testing.T) {
	s := joined(t, "")
	s.m.Subscribe(s.now, []string{"t"}, "u.*")
	b := s.beat()
	if b == nil || b.Request.SubscribedTopicRegex == nil || *b.Request.SubscribedTopicRegex != "u.*" || b.Request.SubscribedTopicNames != nil {
		t.Fatalf("it says %+v", b)
	}
	s.answer(b, 2)
	s.m.Subscribe(s.now, []string{"t"}, "")
	if b := s.beat(); b == nil || b.Request.SubscribedTopicRegex == nil || *b.Request.SubscribedTopicRegex != "" {
		t.Errorf("then it says %+v", b)
	}
}

// Who unsubscribes gives everything up and leaves, and says nothing else before: an empty subscription
// would have the group divide once more.
func TestUnsubscribingIsLeaving(t *testing.T) {
	s := joined(t, "")
	s.m.Subscribe(s.now, nil, "")
	if b := s.beat(); b != nil {
		t.Errorf("it says %+v first", b.Request)
	}
	s.told(Revoked, 3)
	leave := s.beat()
	if leave == nil || !leave.Leaves || leave.Request.MemberEpoch != -1 {
		t.Fatalf("then %+v", leave)
	}
	s.m.Subscribe(s.now, []string{"t"}, "")
	if b := s.beat(); b != nil {
		t.Errorf("while it leaves it says %+v, which may come first", b.Request)
	}
	s.m.Left(s.now, leave.Flight)
	if b := s.beat(); b == nil || b.Leaves || b.Request.MemberEpoch != 0 {
		t.Errorf("subscribed again, it says %+v", b)
	}
}

// A program that was away for too long and closes has left before it is gone: who runs the member ends what is under way.
func TestLeavingComesBeforeGone(t *testing.T) {
	gone := func(actions []Action) bool { return slices.Contains(actions, Action(Gone{})) }
	s := joined(t, "")
	s.m.PollEnded(s.now)
	s.now = s.now.Add(time.Minute)
	s.m.Tick(s.now)
	leave := s.beat()
	if leave == nil || !leave.Leaves {
		t.Fatalf("after max.poll.interval.ms it says %+v", leave)
	}
	s.told(Lost, 3)
	s.m.Close(s.now)
	if gone(s.m.Actions()) {
		t.Error("gone before it has left")
	}
	s.m.Left(s.now, leave.Flight)
	if !gone(s.m.Actions()) {
		t.Error("it is never gone")
	}

	w := newWorld(t, 3)
	w.calm = true
	p := w.enter([]assignor.Assignor{assignor.Range{}}, "")
	w.run(w.now.Add(10 * time.Second))
	m := p.m
	m.Actions()
	m.PollEnded(w.now)
	now := w.now.Add(m.cfg.MaxPollInterval)
	m.Tick(now)
	var flight Flight
	for _, a := range m.Actions() {
		if l, ok := a.(Leave); ok {
			flight = l.Flight
		}
	}
	if _, ok := m.TakeCall(); !ok || flight == 0 {
		t.Fatal("the classic member does not leave")
	}
	m.CallDone(now)
	m.Close(now)
	if gone(m.Actions()) {
		t.Error("the classic member is gone before it has left")
	}
	m.Left(now, flight)
	if !gone(m.Actions()) {
		t.Error("the classic member is never gone")
	}
}

// A heartbeat whose answer is not waited for any more, since somebody else found the coordinator gone,
// may have been lost too.
func TestHeartbeatsToALostCoordinatorAreUncertain(t *testing.T) {
	s := joined(t, "")
	s.m.Subscribe(s.now, []string{"t", "u"}, "")
	if s.beat() == nil {
		t.Fatal("nobody hears of the subscription")
	}
	s.m.CoordinatorLost(s.now, 1)
	s.now = s.now.Add(time.Second)
	s.m.Tick(s.now)
	s.m.Found(s.now, s.m.Actions()[0].(FindCoordinator).Flight, 2, nil)
	if b := s.beat(); b == nil || !slices.Equal(b.Request.SubscribedTopicNames, []string{"t", "u"}) || b.Request.Topics == nil {
		t.Errorf("the next coordinator hears %+v", b)
	}
}

// What is owned has a name, whatever the metadata has just then.
func TestNamesOfWhatIsOwnedAreKept(t *testing.T) {
	s := joined(t, "")
	s.answerFor(s.later(5*time.Second), 1, 9, 0)
	if _, ok := s.m.TakeCall(); !ok {
		t.Fatal("the program is not told")
	}
	s.answerFor(s.later(5*time.Second), 1, 1, 0, 1, 2)
	if ids := s.m.Unresolved(); len(ids) > 0 {
		t.Errorf("it asks what %v is called", ids)
	}
}

// FuzzAnswers lets a coordinator answer anything. The member owns nothing that cannot be, is in no
// epoch that would have it leave, and what it says can be sent.
func FuzzAnswers(f *testing.F) {
	whole := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	whole.MemberEpoch, whole.HeartbeatIntervalMillis = 7, -1
	whole.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{
		Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{{TopicID: [16]byte{1}, Partitions: []int32{3, 3, -1, 0}}, {TopicID: [16]byte{1}, Partitions: []int32{0}}, {}},
	}
	f.Add(whole.AppendTo(nil), whole.AppendTo(nil))
	whole.MemberEpoch, whole.Assignment.Topics = -2, nil
	f.Add(whole.AppendTo(nil), []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := newScript(t, "")
		for _, raw := range [][]byte{first, second} {
			resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
			if len(raw) > 1000 || resp.ReadFrom(raw) != nil {
				return
			}
			b := s.beat()
			if b == nil {
				return
			}
			s.m.Answered(s.now, b.Flight, resp, nil)
			s.m.Metadata(s.now, map[[16]byte]string{{1}: "t", {2}: "t", {}: "none"})
			for _, ok := s.m.TakeCall(); ok; _, ok = s.m.TakeCall() {
				s.m.CallDone(s.now)
			}
			if _, epoch, member := s.m.Generation(); member && epoch < 1 {
				t.Fatalf("it is in epoch %d", epoch)
			}
			for i, tp := range s.m.Owned() {
				if tp.Partition < 0 || i > 0 && tp == s.m.Owned()[i-1] {
					t.Fatalf("it owns %v", s.m.Owned())
				}
			}
			s.now = s.now.Add(24 * time.Hour)
			s.m.PollBegan(s.now)
			s.m.Tick(s.now)
		}
	})
}
