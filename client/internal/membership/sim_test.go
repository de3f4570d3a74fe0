package membership

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/errcode"
	"barnabas/internal/coordinator/group"
)

// world is a group's members, each a Machine, and the broker's own coordinator, in pretended time:
// requests and answers are delayed and lost, programs poll, dawdle and take their time in callbacks,
// members come, leave and die. One seed is one history.
type world struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     time.Time
	events  schedule
	serial  int
	shard   *group.Shard
	waiting map[group.Token]func(kmsg.Response)
	token   group.Token
	topics  map[string]assignor.Topic
	members []*player
	calm    bool // nothing is lost, nobody dawdles
}

type event struct {
	at     time.Time
	serial int // of equal times the earlier made comes first
	do     func()
}

// schedule is a heap of events, the earliest first.
type schedule []event

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(a, b int) bool {
	return s[a].at.Before(s[b].at) || s[a].at.Equal(s[b].at) && s[a].serial < s[b].serial
}
func (s schedule) Swap(a, b int) { s[a], s[b] = s[b], s[a] }
func (s *schedule) Push(e any)   { *s = append(*s, e.(event)) }
func (s *schedule) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// player is a machine with its program.
type player struct {
	w      *world
	name   string
	m      *Machine
	dead   bool // killed, or left
	closed bool
	failed error
	inPoll bool
	tick   int // the latest timer that was set
}

func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now.Add(d), w.serial, do})
}

// run lets time pass until the end.
func (w *world) run(until time.Time) {
	for len(w.events) > 0 && !w.events[0].at.After(until) {
		w.step()
		w.check()
	}
	w.now = until
}

// step lets the next thing happen.
func (w *world) step() {
	e := heap.Pop(&w.events).(event)
	if e.at.After(w.now) {
		w.now = e.at
	}
	e.do()
}

// check: no partition has two owners in one generation.
func (w *world) check() {
	type held struct {
		tp         assignor.TopicPartition
		generation int32
	}
	owner := map[held]string{}
	for _, p := range w.members {
		_, generation, ok := p.m.Generation()
		if p.dead || !ok {
			continue
		}
		for _, tp := range p.m.Owned() {
			if was := owner[held{tp, generation}]; was != "" {
				w.t.Fatalf("seed %d, %v: %v is owned by %s and %s in generation %d", w.seed, w.now.Sub(epoch), tp, was, p.name, generation)
			}
			owner[held{tp, generation}] = p.name
		}
	}
}

var epoch = time.Unix(1_000_000_000, 0)

func (w *world) lag() time.Duration { return time.Duration(1+w.rng.IntN(20_000_000)) * time.Nanosecond }

func (w *world) lost() bool { return !w.calm && w.rng.IntN(40) == 0 }

// ask carries a request to the coordinator and its answer back, or neither.
func (p *player) ask(req kmsg.Request, answered func(kmsg.Response, error)) {
	w := p.w
	req.SetVersion(req.MaxVersion())
	once := false
	settle := func(resp kmsg.Response, err error) {
		if !once && !p.dead {
			once = true
			answered(resp, err)
		}
	}
	if w.lost() {
		w.after(w.lag(), func() { settle(nil, errcode.Network) })
		return
	}
	w.after(w.lag(), func() {
		w.token++
		w.waiting[w.token] = func(resp kmsg.Response) {
			if w.lost() {
				w.after(w.lag(), func() { settle(nil, errcode.Network) })
				return
			}
			w.after(w.lag(), func() { settle(resp, nil) })
		}
		w.take(w.shard.Handle(w.now, w.token, group.Client{ID: p.name, Host: "/127.0.0.1"}, w, req))
	})
}

func (w *world) take(e group.Effects) {
	for _, r := range e.Records {
		if err := w.shard.Replay(r, w.now); err != nil {
			w.t.Fatalf("seed %d: replay: %v", w.seed, err)
		}
	}
	w.shard.Appended()
	for _, r := range e.Replies {
		if answer := w.waiting[r.Token]; answer != nil {
			delete(w.waiting, r.Token)
			answer(r.Response)
		}
	}
	if at, ok := w.shard.Deadline(); ok {
		w.after(max(at.Sub(w.now), 0), func() {
			if at, ok := w.shard.Deadline(); ok && !at.After(w.now) {
				w.take(w.shard.Tick(w.now, w))
			}
		})
	}
}

// Topic and Name are what the coordinator knows of topics.
func (w *world) Topic(name string) (id [16]byte, partitions int32, ok bool) {
	t, ok := w.topics[name]
	return t.ID, t.Partitions, ok
}

func (w *world) Name([16]byte) (string, bool) { return "", false }

// tell lets the machine take something in, and does what it wants.
func (p *player) tell(what func(m *Machine)) {
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
				p.tell(func(m *Machine) { m.Tick(w.now) })
			}
		})
	}
}

func (p *player) perform(a Action) {
	w := p.w
	switch a := a.(type) {
	case FindCoordinator:
		w.after(w.lag(), func() {
			err := error(nil)
			if w.lost() {
				err = errcode.CoordinatorNotAvailable
			}
			p.tell(func(m *Machine) { m.Found(w.now, a.Flight, 1, err) })
		})
	case Join:
		p.ask(a.Request, func(resp kmsg.Response, err error) {
			r, _ := resp.(*kmsg.JoinGroupResponse)
			p.tell(func(m *Machine) { m.Joined(w.now, a.Flight, r, err) })
		})
	case Learn:
		w.after(w.lag(), func() { p.tell(func(m *Machine) { m.Learned(w.now, a.Flight, w.topics) }) })
	case Sync:
		p.ask(a.Request, func(resp kmsg.Response, err error) {
			r, _ := resp.(*kmsg.SyncGroupResponse)
			p.tell(func(m *Machine) { m.Synced(w.now, a.Flight, r, err) })
		})
	case Heartbeat:
		p.ask(a.Request, func(resp kmsg.Response, err error) {
			r, _ := resp.(*kmsg.HeartbeatResponse)
			p.tell(func(m *Machine) { m.Beaten(w.now, a.Flight, r, err) })
		})
	case Leave:
		p.ask(a.Request, func(kmsg.Response, error) { p.tell(func(m *Machine) { m.Left(w.now, a.Flight) }) })
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

// serve is a program's callback, which takes its time.
func (p *player) serve() {
	w := p.w
	if p.dead || !p.inPoll && !p.closed {
		return
	}
	if _, ok := p.m.TakeCall(); !ok {
		return
	}
	p.tell(func(m *Machine) { m.PollEnded(w.now) })
	takes := w.lag()
	if !w.calm && w.rng.IntN(10) == 0 {
		takes = time.Duration(w.rng.IntN(15)) * time.Second
	}
	w.after(takes, func() {
		p.tell(func(m *Machine) { m.CallDone(w.now); m.PollBegan(w.now) })
		p.serve()
	})
}

// live is a program's loop: it polls for a while, and works for a while.
func (p *player) live() {
	w := p.w
	if p.dead || p.closed || p.failed != nil {
		return
	}
	p.inPoll = true
	p.tell(func(m *Machine) { m.PollBegan(w.now) })
	p.serve()
	w.after(time.Duration(1+w.rng.IntN(500))*time.Millisecond, func() {
		if p.dead || p.closed || p.m.call != nil { // a Poll does not return in a callback
			w.after(50*time.Millisecond, p.live)
			return
		}
		p.inPoll = false
		p.tell(func(m *Machine) { m.PollEnded(w.now) })
		works := w.lag()
		if !w.calm && w.rng.IntN(60) == 0 {
			works = time.Duration(w.rng.IntN(20)) * time.Second
		}
		w.after(works, p.live)
	})
}

func (w *world) enter(assignors []assignor.Assignor, instance string) *player {
	p := &player{w: w, name: fmt.Sprint("m", len(w.members))}
	p.m = New(Config{
		Group: "g", InstanceID: instance, Assignors: assignors, SessionTimeout: 6 * time.Second, HeartbeatInterval: 2 * time.Second,
		MaxPollInterval: 12 * time.Second, RetryBackoff: 100 * time.Millisecond, RetryBackoffMax: time.Second, Jitter: w.rng.Float64,
	})
	w.members = append(w.members, p)
	p.tell(func(m *Machine) { m.Subscribe(w.now, []string{"t", "u"}) })
	p.live()
	return p
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 3)), now: epoch, waiting: map[group.Token]func(kmsg.Response){},
		topics: map[string]assignor.Topic{"t": {Partitions: 5}, "u": {Partitions: 3}},
	}
	c := group.Defaults()
	c.GroupInitialRebalanceDelay = time.Duration(seed%2) * time.Second
	w.shard = group.New(c, rand.NewPCG(seed, 4))
	w.shard.Loaded(w.now)
	return w
}

// Whatever happens, no partition has two owners in one generation; and once it is calm, everybody
// who is left settles and every partition has exactly one owner.
func TestMembersOfAGroupSettle(t *testing.T) {
	sets := [][]assignor.Assignor{
		{assignor.CooperativeSticky{}}, {assignor.Range{}, assignor.CooperativeSticky{}}, {assignor.Sticky{}}, {assignor.RoundRobin{}},
	}
	for seed := range uint64(80) {
		w := newWorld(t, seed)
		assignors := sets[seed/2%uint64(len(sets))]
		for turn := range 25 {
			live := slices.DeleteFunc(slices.Clone(w.members), func(p *player) bool { return p.dead || p.closed })
			switch pick := w.rng.IntN(8); {
			case len(live) == 0 || pick < 3 && len(live) < 8:
				instance := ""
				if w.rng.IntN(4) == 0 {
					instance = fmt.Sprint("i", len(w.members))
				}
				w.enter(assignors, instance)
			case pick == 3:
				p := live[w.rng.IntN(len(live))]
				p.closed, p.inPoll = true, true
				p.tell(func(m *Machine) { m.Close(w.now) })
				w.after(0, p.serve)
			case pick == 4:
				live[w.rng.IntN(len(live))].dead = true // kill -9
			case pick == 5 && turn > 3:
				name := []string{"t", "u"}[w.rng.IntN(2)]
				w.topics[name] = assignor.Topic{Partitions: w.topics[name].Partitions + 1}
				for _, p := range live {
					p.tell(func(m *Machine) { m.Metadata(w.now, w.topics) })
				}
			}
			w.run(w.now.Add(time.Duration(w.rng.IntN(4_000_000_000))))
		}
		w.calm = true
		w.run(w.now.Add(2 * time.Minute))
		for _, p := range w.members {
			p.tell(func(m *Machine) { m.Metadata(w.now, w.topics) })
		}
		w.run(w.now.Add(2 * time.Minute))
		owners := map[assignor.TopicPartition]int{}
		alive := 0
		for _, p := range w.members {
			if p.dead {
				continue
			}
			alive++
			if p.failed != nil || !p.m.Settled() {
				t.Fatalf("seed %d: %s has not settled: %v; %+v", seed, p.name, p.failed, *p.m)
			}
			for _, tp := range p.m.Owned() {
				owners[tp]++
			}
		}
		for name, topic := range w.topics {
			for n := range topic.Partitions {
				if got := owners[assignor.TopicPartition{Topic: name, Partition: n}]; alive > 0 && got != 1 {
					t.Fatalf("seed %d: %s-%d has %d owners", seed, name, n, got)
				}
			}
		}
	}
}

// A member that the group took for dead comes back owning nothing: in its next subscription neither
// the old generation nor its partitions appear (KIP-792).
func TestTrap28LostMembershipIsNotClaimed(t *testing.T) {
	w := newWorld(t, 1)
	p := w.enter([]assignor.Assignor{assignor.CooperativeSticky{}}, "")
	w.calm = true
	w.run(w.now.Add(10 * time.Second))
	if len(p.m.Owned()) != 8 {
		t.Fatalf("owns %v", p.m.Owned())
	}
	p.inPoll = true
	p.m.Beaten(w.now, p.m.beat, nil, nil) // whatever is under way
	p.m.beat = p.m.flight()
	p.m.Beaten(w.now, p.m.beat, &kmsg.HeartbeatResponse{ErrorCode: errcode.UnknownMemberID.Code()}, nil)
	if _, _, ok := p.m.Generation(); ok {
		t.Error("it has a generation still")
	}
	for _, a := range p.m.Actions() {
		if _, early := a.(Join); early {
			t.Fatal("it joins before the program has heard of the loss")
		}
	}
	if c, ok := p.m.TakeCall(); !ok || c.Kind != Lost || len(c.Partitions) != 8 {
		t.Fatalf("told %v", c)
	}
	p.m.CallDone(w.now)
	for _, a := range p.m.Actions() {
		if join, ok := a.(Join); ok {
			s, err := assignor.ReadSubscription(assignor.CooperativeSticky{}, "", "", join.Request.Protocols[0].Metadata)
			if err != nil || len(s.Owned) > 0 || s.Generation != assignor.NoGeneration || join.Request.MemberID != "" {
				t.Errorf("it joins with %+v as %q, %v", s, join.Request.MemberID, err)
			}
			return
		}
	}
	t.Error("it does not join again")
}

// Errors that nothing mends end the membership, after the program has heard what it lost.
func TestFatalErrorsEndTheMembership(t *testing.T) {
	w := newWorld(t, 2)
	w.calm = true
	p := w.enter([]assignor.Assignor{assignor.Range{}}, "i")
	w.run(w.now.Add(10 * time.Second))
	p.m.beat = p.m.flight()
	p.tell(func(m *Machine) {
		m.Beaten(w.now, m.beat, &kmsg.HeartbeatResponse{ErrorCode: errcode.FencedInstanceID.Code()}, nil)
	})
	if !errors.Is(p.failed, errcode.FencedInstanceID) {
		t.Errorf("failed with %v", p.failed)
	}
	if c, ok := p.m.TakeCall(); !ok || c.Kind != Lost || len(c.Partitions) != 8 {
		t.Errorf("told %v, %v", c, ok)
	}
}

// Members that come one after another: the second of the two rebalances that each costs follows on the first
// without another HeartbeatInterval in between.
func TestCooperativeRebalancesFollowAtOnce(t *testing.T) {
	for seed := range uint64(30) {
		w := newWorld(t, seed)
		w.calm = true
		w.enter([]assignor.Assignor{assignor.CooperativeSticky{}}, "")
		w.run(w.now.Add(10*time.Second + w.lag()*100))
		for n := 2; n <= 6; n++ {
			came := w.now
			last := w.enter([]assignor.Assignor{assignor.CooperativeSticky{}}, "")
			interval := last.m.cfg.HeartbeatInterval
			settled := func() bool {
				owned := 0
				for _, p := range w.members {
					if !p.m.Settled() {
						return false
					}
					owned += len(p.m.Owned())
				}
				return owned == 8 && len(last.m.Owned()) > 0
			}
			for !settled() {
				if w.step(); w.now.Sub(came) > interval+interval/2 {
					t.Fatalf("seed %d: not settled %v after member %d came", seed, w.now.Sub(came), n)
				}
			}
			w.run(w.now.Add(w.lag() * 200)) // some beats later
		}
	}
}
