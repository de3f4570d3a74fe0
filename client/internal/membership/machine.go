// Package membership is one consumer's part in a group: when it joins, beats, gives partitions up
// and leaves. Machine does so by the classic protocol, in which a member divides the partitions, and
// Reconciler by the consumer protocol (KIP-848), in which the coordinator does. Both are pure state
// machines: events and the time go in, actions come out, and a seed replays any run. Package client
// runs them, with the connections, timers and callbacks around them.
//
// It decides what a member owns and in which generation. It knows nothing of records or offsets,
// and never waits.
package membership

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
)

// Config is what does not change during a membership. All durations are above 0.
type Config struct {
	Group, InstanceID, Rack string

	// Of the classic protocol.
	Assignors         []assignor.Assignor // in the order of preference, at least one
	SessionTimeout    time.Duration
	HeartbeatInterval time.Duration

	// Of the consumer protocol.
	MemberID       string // made up by the member; unique
	RemoteAssignor string // "" leaves the choice to the group's coordinator

	MaxPollInterval time.Duration // also how long a rebalance waits for this member
	RetryBackoff    time.Duration // after the first failure, doubled with every further one
	RetryBackoffMax time.Duration
	Jitter          func() float64 // uniform in [0, 1)
}

// cooperative tells whether partitions are kept during a rebalance: only where all assignors can,
// since the group's choice among them is not known before.
func (c *Config) cooperative() bool {
	return !slices.ContainsFunc(c.Assignors, func(a assignor.Assignor) bool { return !a.Cooperative() })
}

// Action is something that the machine wants done.
type Action interface{ action() }

// Flight numbers a request, so that the answer to an earlier one is recognised and dropped.
type Flight uint64

type (
	// FindCoordinator is answered with Found.
	FindCoordinator struct{ Flight Flight }
	// Join is answered with Joined. The broker answers only when all have joined, which may take
	// MaxPollInterval.
	Join struct {
		Flight  Flight
		To      int32
		Request *kmsg.JoinGroupRequest
	}
	// Learn wants the metadata of topics as it is now, for an assignment. Answered with Learned.
	Learn struct {
		Flight Flight
		Topics []string
	}
	// Sync is answered with Synced; the broker waits for the leader's assignment.
	Sync struct {
		Flight  Flight
		To      int32
		Request *kmsg.SyncGroupRequest
	}
	// Heartbeat is answered with Beaten.
	Heartbeat struct {
		Flight  Flight
		To      int32
		Request *kmsg.HeartbeatRequest
	}
	// Leave is answered with Left, whatever becomes of it.
	Leave struct {
		Flight  Flight
		To      int32
		Request *kmsg.LeaveGroupRequest
	}
	// Tell wants the program to be told of changes in what it owns: see TakeCall.
	Tell struct{}
	// Fail says that the membership has ended for good: nothing mends Err. The program is still to
	// be told what it has lost.
	Fail struct{ Err error }
	// Gone says that the member has left, after Close.
	Gone struct{}
)

func (FindCoordinator) action() {}
func (Join) action()            {}
func (Learn) action()           {}
func (Sync) action()            {}
func (Heartbeat) action()       {}
func (Leave) action()           {}
func (Tell) action()            {}
func (Fail) action()            {}
func (Gone) action()            {}

// Call is a change in what the program owns.
type Call struct {
	Kind       CallKind
	Partitions []assignor.TopicPartition // sorted; may be empty with Assigned
	TopicIDs   map[string][16]byte       // of Assigned, where the coordinator tells them
}

// CallKind says how what is owned changes.
type CallKind int8

// The three callbacks. Before Revoked returns the member owns the partitions still and can commit;
// with Lost it has ceased to own them, and somebody else may.
const (
	Assigned CallKind = iota
	Revoked
	Lost
)

// String is the name in logs.
func (k CallKind) String() string { return [...]string{"assigned", "revoked", "lost"}[k] }

type state int8

const (
	out       state = iota // no member, and does not want to be
	unjoined               // wants to be
	joining                // Join is under way
	assigning              // the leader waits for metadata
	syncing                // Sync is under way
	member                 // has an assignment; perhaps about to rejoin
	leaving                // Leave is under way
	ended                  // Fail or Gone
)

// Machine is the state of one member. It is not safe for concurrent use. After each event the
// caller takes the actions, and sees to it that Tick comes at the Deadline.
type Machine struct {
	core

	subscribed []string // sorted; what the program wants now
	joinedWith []string // what the latest Join told
	reason     string   // why to rejoin, for the broker's log; "" does not want to
	beatAt     time.Time

	memberID   string
	generation int32
	protocol   assignor.Assignor
	had        []assignor.TopicPartition // what an eager member gave up last, and in which generation
	hadIn      int32

	leads   bool
	members []assignor.Member
	basis   map[string]assignor.Topic // what the leader's latest assignment rests on
}

// New makes a machine that waits for Subscribe.
func New(cfg Config) *Machine {
	return &Machine{core: core{cfg: cfg, coordinator: -1}, generation: assignor.NoGeneration, hadIn: assignor.NoGeneration}
}

// Generation gives the identity to commit under; false where there is none.
func (m *Machine) Generation() (id string, generation int32, ok bool) {
	return m.memberID, m.generation, m.generation != assignor.NoGeneration
}

// Subscribed tells whether the program wants to be a member.
func (m *Machine) Subscribed() bool { return len(m.subscribed) > 0 }

// Settled tells whether the member has an assignment and no reason to rejoin.
func (m *Machine) Settled() bool {
	return m.state == member && m.reason == "" && !m.telling()
}

// Watched gives the topics whose metadata matters: the program's, and for a leader everybody's.
func (m *Machine) Watched() []string {
	topics := slices.Clone(m.subscribed)
	if m.leads {
		for topic := range m.basis {
			topics = append(topics, topic)
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// Deadline gives when Tick is wanted next; false where only other events matter.
func (m *Machine) Deadline() (at time.Time, ok bool) {
	least := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	switch m.state {
	case unjoined:
		if !m.telling() && m.finding == 0 {
			least(m.notBefore)
		}
	case member:
		if m.coordinator < 0 && m.finding == 0 {
			least(m.notBefore)
		}
		if m.coordinator >= 0 && m.beat == 0 {
			least(m.nextBeat)
		}
		if m.beat != 0 {
			least(m.beatAt.Add(m.cfg.SessionTimeout))
		}
	}
	if m.pollMatters() {
		least(m.polled.last.Add(m.cfg.MaxPollInterval))
	}
	return at, ok
}

// Subscribe says which topics the program wants; none means that it wants to be no member.
func (m *Machine) Subscribe(now time.Time, topics []string) {
	if m.closing || m.state == ended {
		return
	}
	topics = slices.Compact(slices.Sorted(slices.Values(topics)))
	if slices.Equal(topics, m.subscribed) {
		return
	}
	m.subscribed = topics
	switch {
	case len(topics) > 0 && m.state == out:
		m.state = unjoined
		m.polled.last = now
	case !slices.Equal(topics, m.joinedWith):
		m.rejoin("the subscription has changed")
	}
	m.advance(now)
}

// PollBegan says that the program waits for records.
func (m *Machine) PollBegan(now time.Time) {
	m.polled.inside, m.polled.last = true, now
	m.polled.expired = false
	m.advance(now)
}

// Close ends the membership: what is owned is given up, and a dynamic member leaves. Gone follows.
func (m *Machine) Close(now time.Time) {
	if m.closing || m.state == ended {
		return
	}
	m.closing = true
	m.subscribed = nil
	m.advance(now)
}

// Metadata says what is known of topics now, all of the Watched ones that exist. A leader whose
// assignment rests on other numbers of partitions lets the group rebalance.
func (m *Machine) Metadata(now time.Time, topics map[string]assignor.Topic) {
	if m.state != member || !m.leads {
		return
	}
	m.compare(topics)
	m.advance(now)
}

// compare wants a rebalance where the assignment rests on other partitions than there are.
func (m *Machine) compare(topics map[string]assignor.Topic) {
	for name, was := range m.basis {
		is := topics[name]
		// A topic that is not there just now may be one that a broker has not heard of yet.
		if is.Partitions > 0 && (is.Partitions != was.Partitions || was.Partitions > 0 && is.ID != was.ID) {
			m.rejoin("the partitions of topic " + name + " have changed")
			return
		}
	}
}

// Tick does what is due.
func (m *Machine) Tick(now time.Time) {
	m.pollTick(now)
	if m.state == member && m.beat != 0 && !now.Before(m.beatAt.Add(m.cfg.SessionTimeout)) {
		m.beat = 0
		m.forgetCoordinator(now)
	}
	m.advance(now)
}

// rejoin wants another rebalance.
func (m *Machine) rejoin(reason string) {
	if m.reason == "" {
		m.reason = reason
	}
}

// wants tells whether the program wants to be a member.
func (m *Machine) wants() bool { return len(m.subscribed) > 0 && !m.closing && !m.polled.expired }

// advance takes every step that can be taken now.
func (m *Machine) advance(now time.Time) {
	for m.step(now) {
	}
	if m.call == nil && len(m.then) > 0 {
		m.emit(Tell{})
	}
}

// step takes one step; false where there is none.
func (m *Machine) step(now time.Time) bool {
	if m.state == ended || m.state == leaving {
		return false
	}
	if !m.wants() {
		return m.stepOut(now)
	}
	switch m.state {
	case out:
		m.state = unjoined
		return true
	case unjoined:
		return !m.telling() && m.stepIn(now)
	case member:
		return m.stepMember(now)
	}
	return false
}

// stepIn finds the coordinator and joins.
func (m *Machine) stepIn(now time.Time) bool {
	if now.Before(m.notBefore) {
		return false
	}
	if m.coordinator < 0 {
		return m.find()
	}
	m.state = joining
	m.request = m.flight()
	m.joinedWith = m.subscribed
	reason := m.reason
	m.reason = ""
	m.emit(Join{m.request, m.coordinator, m.joinRequest(reason)})
	return true
}

// stepMember beats, and gives up what must be given up before a rebalance.
func (m *Machine) stepMember(now time.Time) bool {
	if !m.telling() && m.reason != "" {
		give := m.owned
		if m.cfg.cooperative() {
			give = nil
			for _, tp := range m.owned {
				if !slices.Contains(m.subscribed, tp.Topic) {
					give = append(give, tp)
				}
			}
		}
		if len(give) > 0 {
			m.then = append(m.then, Call{Kind: Revoked, Partitions: give})
			return true
		}
		m.state, m.beat = unjoined, 0
		return true
	}
	return m.stepSession(now)
}

// stepSession keeps the session alive, whatever the program does meanwhile.
func (m *Machine) stepSession(now time.Time) bool {
	if m.coordinator < 0 {
		return !now.Before(m.notBefore) && m.find()
	}
	return m.stepBeat(now)
}

// stepBeat sends a heartbeat when one is due.
func (m *Machine) stepBeat(now time.Time) bool {
	if m.coordinator < 0 || m.beat != 0 || now.Before(m.nextBeat) {
		return false
	}
	m.beat, m.beatAt = m.flight(), now
	m.nextBeat = now.Add(m.cfg.HeartbeatInterval)
	m.emit(Heartbeat{m.beat, m.coordinator, m.heartbeatRequest()})
	return true
}

// stepOut gives everything up and leaves. A program that does not poll loses its partitions at
// once: nobody is there to hear of it before.
func (m *Machine) stepOut(now time.Time) bool {
	if m.polled.expired && !m.closing {
		if m.state == out {
			return false
		}
		m.leave("max.poll.interval.ms has passed without a poll")
		m.lose()
		m.state = out
		return true
	}
	if m.telling() {
		return m.state == member && m.stepSession(now) // the program finishes its work
	}
	if len(m.owned) > 0 {
		m.then = append(m.then, Call{Kind: Revoked, Partitions: m.owned})
		return true
	}
	if m.state != out {
		m.state = out
		m.leave("the consumer unsubscribed or was closed")
		return true
	}
	return m.stepGone()
}

// leave tells the coordinator, unless the member is static and may come back, and forgets who we
// were.
func (m *Machine) leave(reason string) {
	if m.cfg.InstanceID == "" && m.memberID != "" && m.coordinator >= 0 {
		m.parting = m.flight()
		m.emit(Leave{m.parting, m.coordinator, m.leaveRequest(reason)})
	}
	m.forgetIdentity()
	m.reason = ""
	m.joinedWith = nil
}

// forgetIdentity begins anew, as a member that nobody knows.
func (m *Machine) forgetIdentity() {
	m.memberID, m.generation, m.leads, m.members, m.beat = "", assignor.NoGeneration, false, nil, 0
}

// CallDone says that the program has been told.
func (m *Machine) CallDone(now time.Time) {
	c := m.call
	if c == nil {
		return
	}
	if c.Kind != Assigned && !m.cfg.cooperative() {
		m.had, m.hadIn = m.owned, m.generation
	}
	m.told(c)
	m.advance(now)
}
