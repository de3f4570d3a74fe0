// Package sharemember decides what a member of a share group tells the group's coordinator, and when:
// joining, heartbeats, a changed subscription, leaving (KIP-932). It is for package client/share. A
// Member is a state machine: events come in with the time at which they happened, and actions are
// taken out, which the caller performs and answers.
//
// It refuses to know connections and records. What a member was assigned needs no callback and no
// handing over, since every partition may be read by several members at once.
package sharemember

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
)

// Config is who the member is. All fields but Rack are required.
type Config struct {
	Group           string
	MemberID        string        // for as long as the program runs, over all its memberships
	Rack            string        // client.rack
	MaxPollInterval time.Duration // max.poll.interval.ms
	RetryBackoff    time.Duration // retry.backoff.ms, the first wait
	RetryBackoffMax time.Duration
	Jitter          func() float64 // in [0, 1)
}

// Flight tells requests apart: an answer to one that is not awaited any more is dropped.
type Flight int

// Action is something that the caller is to do.
type Action interface{ action() }

// FindCoordinator asks who coordinates the group; answered with Found.
type FindCoordinator struct{ Flight Flight }

// Heartbeat joins, lives and changes the subscription; answered with Answered, or with Left where it Leaves.
type Heartbeat struct {
	Flight  Flight
	To      int32
	Request *kmsg.ShareGroupHeartbeatRequest
	Leaves  bool
}

// Reassigned says that Assignment gives something else than before.
type Reassigned struct{}

// Fail ends the membership for good.
type Fail struct{ Err error }

// Gone says that Close is done.
type Gone struct{}

func (FindCoordinator) action() {}
func (Heartbeat) action()       {}
func (Reassigned) action()      {}
func (Fail) action()            {}
func (Gone) action()            {}

// Epochs that a heartbeat carries and that are no epochs.
const (
	epochToJoin  = 0
	epochToLeave = -1
)

type state int8

const (
	out     state = iota // wants to be no member, or its program has stayed away
	joining              // wants to be one
	member
	leaving // Close waits for the answer
	ended
)

// Member is a member of a share group. It is not safe for concurrent use. After each event the caller
// takes the Actions, and sees to it that Tick comes at the Deadline.
type Member struct {
	cfg     Config
	state   state
	actions []Action
	flights Flight
	closing bool
	gone    bool

	topics []string // wanted, sorted
	told   []string // that the coordinator knows for certain; nil: none

	coordinator int32 // -1: unknown
	finding     Flight
	beat        Flight
	goodbye     Flight
	epoch       int32
	joins       bool // a heartbeat that joins may have reached the coordinator
	interval    time.Duration
	nextBeat    time.Time
	failures    int
	notBefore   time.Time // of the next attempt

	assigned map[[16]byte][]int32 // sorted

	polling bool
	polled  time.Time // when the program was last seen
	expired bool      // it has stayed away for too long
}

// New makes a member that waits for Subscribe.
func New(cfg Config) *Member {
	return &Member{cfg: cfg, coordinator: -1}
}

// Actions gives what is to be done since the last call, in order.
func (m *Member) Actions() []Action {
	a := m.actions
	m.actions = nil
	return a
}

// Assignment gives the partitions to read, by topic id. It must not be changed.
func (m *Member) Assignment() map[[16]byte][]int32 { return m.assigned }

// Topics gives what the program subscribes to, sorted. It must not be changed.
func (m *Member) Topics() []string { return m.topics }

// Epoch gives the member's epoch; false while it is no member.
func (m *Member) Epoch() (int32, bool) { return m.epoch, m.state == member }

// Deadline gives when Tick is wanted next; false where only other events matter.
func (m *Member) Deadline() (at time.Time, ok bool) {
	if m.state == joining || m.state == member {
		switch {
		case m.coordinator < 0 && m.finding == 0:
			at, ok = m.notBefore, true
		case m.coordinator >= 0 && m.beat == 0:
			at, ok = m.nextBeat, true
		}
		if limit := m.polled.Add(m.cfg.MaxPollInterval); !m.polling && (!ok || limit.Before(at)) {
			at, ok = limit, true
		}
	}
	return at, ok
}

// Subscribe says which topics the program wants; none means that it wants to be no member.
func (m *Member) Subscribe(now time.Time, topics []string) {
	if m.closing || m.state == ended {
		return
	}
	topics = slices.Compact(slices.Sorted(slices.Values(topics)))
	if slices.Equal(topics, m.topics) {
		return
	}
	if len(m.topics) == 0 {
		m.polled = now
	}
	m.topics = topics
	m.advance(now)
}

// PollBegan says that the program waits for records.
func (m *Member) PollBegan(now time.Time) {
	m.polling, m.polled, m.expired = true, now, false
	m.advance(now)
}

// PollEnded says that the program works on records, and starts max.poll.interval.ms anew.
func (m *Member) PollEnded(now time.Time) { m.polling, m.polled = false, now }

// Tick does what is due.
func (m *Member) Tick(now time.Time) {
	if !m.polling && (m.state == joining || m.state == member) && !now.Before(m.polled.Add(m.cfg.MaxPollInterval)) {
		m.expired = true
	}
	m.advance(now)
}

// Close leaves the group. Gone follows.
func (m *Member) Close(now time.Time) {
	if m.closing {
		return
	}
	m.closing = true
	m.advance(now)
}

// advance takes every step that can be taken now.
func (m *Member) advance(now time.Time) {
	if m.state == leaving {
		return
	}
	if m.state == ended {
		if m.closing {
			m.end()
		}
		return
	}
	if m.closing || m.expired || len(m.topics) == 0 {
		m.stepOut()
		return
	}
	if m.state == out {
		m.state = joining
	}
	switch {
	case m.coordinator < 0:
		if m.finding == 0 && !now.Before(m.notBefore) {
			m.finding = m.flight()
			m.emit(FindCoordinator{m.finding})
		}
	case m.beat != 0 || now.Before(m.notBefore):
	case !now.Before(m.nextBeat) || m.state == member && !slices.Equal(m.topics, m.told):
		m.beat = m.flight()
		m.joins = true
		m.emit(Heartbeat{Flight: m.beat, To: m.coordinator, Request: m.request()})
	}
}

// request tells the topics where it is not certain that the coordinator knows them.
func (m *Member) request() *kmsg.ShareGroupHeartbeatRequest {
	req := kmsg.NewPtrShareGroupHeartbeatRequest()
	req.GroupID, req.MemberID, req.MemberEpoch = m.cfg.Group, m.cfg.MemberID, m.epoch
	if m.epoch == epochToJoin && m.cfg.Rack != "" {
		req.RackID = &m.cfg.Rack
	}
	if m.epoch == epochToJoin || !slices.Equal(m.topics, m.told) {
		req.SubscribedTopicNames = slices.Clone(m.topics)
	}
	m.told = m.topics
	return req
}

// stepOut leaves, and ends where that is wanted.
func (m *Member) stepOut() {
	if m.state != out {
		sent := m.leave()
		if m.state = out; m.closing && sent {
			m.state = leaving
			return
		}
	}
	if m.closing {
		m.end()
	}
}

// end is the end of Close.
func (m *Member) end() {
	if m.state = ended; !m.gone {
		m.gone = true
		m.emit(Gone{})
	}
}

// leave tells the coordinator, and forgets the membership; true where the request is under way.
func (m *Member) leave() (sent bool) {
	if m.joins && m.coordinator >= 0 {
		req := kmsg.NewPtrShareGroupHeartbeatRequest()
		req.GroupID, req.MemberID, req.MemberEpoch = m.cfg.Group, m.cfg.MemberID, epochToLeave
		m.goodbye = m.flight()
		m.emit(Heartbeat{Flight: m.goodbye, To: m.coordinator, Request: req, Leaves: true})
		sent = true
	}
	m.joins = false
	m.forget()
	return sent
}

// forget begins anew, as one that joins.
func (m *Member) forget() {
	m.epoch, m.beat, m.nextBeat, m.told = epochToJoin, 0, time.Time{}, nil
	m.assign(nil)
}

func (m *Member) assign(to map[[16]byte][]int32) {
	if !maps.EqualFunc(m.assigned, to, slices.Equal[[]int32]) {
		m.assigned = to
		m.emit(Reassigned{})
	}
}

// Left answers a heartbeat that leaves, whatever became of it.
func (m *Member) Left(f Flight) {
	if f == 0 || f != m.goodbye || m.state != leaving {
		return
	}
	m.end()
}

// Found answers FindCoordinator: the coordinator's node, or why there is none.
func (m *Member) Found(now time.Time, f Flight, node int32, err error) {
	if f == 0 || f != m.finding {
		return
	}
	m.finding = 0
	switch {
	case err == nil:
		m.coordinator = node
		m.nextBeat = now
	case fatal(err):
		m.fail(fmt.Errorf("find the coordinator: %w", err))
	default:
		m.backOff(now)
	}
	m.advance(now)
}

// Answered answers a heartbeat.
func (m *Member) Answered(now time.Time, f Flight, resp *kmsg.ShareGroupHeartbeatResponse, err error) {
	if f == 0 || f != m.beat {
		return
	}
	m.beat = 0
	if err == nil {
		err = errcode.Of(resp.ErrorCode, resp.ErrorMessage)
	}
	if err == nil && resp.MemberEpoch <= epochToJoin {
		err = errcode.UnknownServerError // taken over, it would have the next heartbeat leave
	}
	if err != nil {
		m.refused(now, err)
		m.advance(now)
		return
	}
	m.failures = 0
	m.state, m.epoch = member, resp.MemberEpoch
	if d := time.Duration(resp.HeartbeatIntervalMillis) * time.Millisecond; d > 0 {
		m.interval = d
	}
	m.nextBeat = now.Add(max(m.interval, m.cfg.RetryBackoff))
	if resp.Assignment != nil {
		m.assign(readAssignment(resp.Assignment))
	}
	m.advance(now)
}

// readAssignment sorts numbers of partitions, and drops what cannot be one.
func readAssignment(in *kmsg.ShareGroupHeartbeatResponseAssignment) map[[16]byte][]int32 {
	to := make(map[[16]byte][]int32, len(in.TopicPartitions))
	for _, t := range in.TopicPartitions {
		to[t.TopicID] = append(to[t.TopicID], t.Partitions...)
	}
	for id, list := range to {
		list = slices.Compact(slices.Sorted(slices.Values(list)))
		list = slices.DeleteFunc(list, func(n int32) bool { return n < 0 })
		if to[id] = list; len(list) == 0 {
			delete(to, id)
		}
	}
	return to
}

// refused deals with a heartbeat that failed.
func (m *Member) refused(now time.Time, err error) {
	m.told = nil // what the coordinator has taken in is not certain, and it may be another one
	switch {
	case errors.Is(err, errcode.UnknownMemberID), errors.Is(err, errcode.FencedMemberEpoch),
		errors.Is(err, errcode.GroupIDNotFound) && m.epoch != epochToJoin:
		if m.epoch == epochToJoin {
			m.backOff(now)
		}
		m.forget()
		m.state, m.nextBeat = joining, m.notBefore
	case fatal(err):
		m.fail(fmt.Errorf("heartbeat to share group %q: %w", m.cfg.Group, err))
	default:
		if lostCoordinator(err) {
			m.coordinator = -1
		}
		m.backOff(now)
		m.nextBeat = m.notBefore
	}
}

func (m *Member) fail(err error) {
	m.forget()
	m.state = ended
	m.emit(Fail{err})
}

func (m *Member) emit(a Action) { m.actions = append(m.actions, a) }

func (m *Member) flight() Flight {
	m.flights++
	return m.flights
}

// doublings is how often the wait may double: more would not fit into a Duration.
const doublings = 20

func (m *Member) backOff(now time.Time) {
	m.failures++
	wait := m.cfg.RetryBackoffMax
	if shift := m.failures - 1; shift < doublings && m.cfg.RetryBackoff<<shift < wait {
		wait = m.cfg.RetryBackoff << shift
	}
	m.notBefore = now.Add(time.Duration(float64(wait) * (0.8 + 0.4*m.cfg.Jitter())))
}

// lostCoordinator tells whether an error means that somebody else coordinates, or nobody we reach.
func lostCoordinator(err error) bool {
	var code errcode.Error
	if !errors.As(err, &code) {
		return true // not even sent
	}
	switch code {
	case errcode.NotCoordinator, errcode.CoordinatorNotAvailable, errcode.Network, errcode.RequestTimedOut:
		return true
	}
	return false
}

// fatal tells whether an error is one that trying again does not mend.
func fatal(err error) bool {
	if errors.Is(err, errcode.ErrAuthentication) {
		return true
	}
	var code errcode.Error
	return errors.As(err, &code) && !code.Retriable() && code != errcode.UnknownServerError && code != errcode.UnknownMemberID
}
