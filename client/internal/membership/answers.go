package membership

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/errcode"
)

// ErrMalformed says that another member, or the broker, sent what cannot be read.
var ErrMalformed = errors.New("malformed group protocol")

// Found answers FindCoordinator: the coordinator's node, or why there is none.
func (m *Machine) Found(now time.Time, f Flight, node int32, err error) {
	known, mine := m.found(now, f, node, err)
	switch {
	case !mine:
		return
	case known && m.state == member:
		m.nextBeat = now
	case !known && fatal(err):
		m.fail(fmt.Errorf("find the coordinator: %w", err))
		return
	}
	m.advance(now)
}

// CoordinatorLost says that whoever talked to this coordinator found it not to be one any more, or
// out of reach.
func (m *Machine) CoordinatorLost(now time.Time, node int32) {
	if m.coordinator == node {
		m.forgetCoordinator(now)
		m.advance(now)
	}
}

// Joined answers Join.
func (m *Machine) Joined(now time.Time, f Flight, resp *kmsg.JoinGroupResponse, err error) {
	if f == 0 || f != m.request || m.state != joining {
		return
	}
	m.request = 0
	if err == nil {
		err = errcode.Of(resp.ErrorCode, nil)
	}
	if err != nil {
		m.notJoined(now, resp, err)
		m.advance(now)
		return
	}
	m.failures = 0
	m.memberID, m.generation = resp.MemberID, resp.Generation
	m.protocol, m.leads, m.members = nil, resp.LeaderID == resp.MemberID, nil
	for _, a := range m.cfg.Assignors {
		if resp.Protocol != nil && a.Name() == *resp.Protocol {
			m.protocol = a
		}
	}
	if m.protocol == nil {
		m.fail(fmt.Errorf("join group %q: the group chose an assignor that was not offered: %w", m.cfg.Group, errcode.InconsistentGroupProtocol))
		return
	}
	if m.leads {
		m.readMembers(resp.Members)
		m.state = assigning
		m.request = m.flight()
		m.leads = m.leads && !resp.SkipAssignment
		m.emit(Learn{m.request, topicsOf(m.members)})
		return
	}
	m.sync(nil)
}

// notJoined deals with a Join that failed.
func (m *Machine) notJoined(now time.Time, resp *kmsg.JoinGroupResponse, err error) {
	m.state = unjoined
	switch {
	case errors.Is(err, errcode.MemberIDRequired):
		m.memberID = resp.MemberID // KIP-394: join again under the id that was given
	case errors.Is(err, errcode.UnknownMemberID):
		m.forgetIdentity()
		m.lose()
		m.backOff(now)
	case fatal(err):
		m.fail(fmt.Errorf("join group %q: %w", m.cfg.Group, err))
	default:
		m.retry(now, err)
	}
}

// readMembers reads what the members told. One that cannot be read gets nothing and spoils nothing.
func (m *Machine) readMembers(list []kmsg.JoinGroupResponseMember) {
	for i := range list {
		in := &list[i]
		instance := ""
		if in.InstanceID != nil {
			instance = *in.InstanceID
		}
		read, err := assignor.ReadSubscription(m.protocol, in.MemberID, instance, in.ProtocolMetadata)
		if err != nil {
			read = assignor.Member{ID: in.MemberID, InstanceID: instance, Generation: assignor.NoGeneration}
		}
		m.members = append(m.members, read)
	}
}

func topicsOf(members []assignor.Member) []string {
	seen := map[string]bool{}
	var topics []string
	for i := range members {
		for _, t := range members[i].Topics {
			if !seen[t] {
				seen[t] = true
				topics = append(topics, t)
			}
		}
	}
	return topics
}

// Learned answers Learn. Topics that do not exist, or could not be asked for, are missing: when
// they appear the group rebalances.
func (m *Machine) Learned(now time.Time, f Flight, topics map[string]assignor.Topic) {
	if f == 0 || f != m.request || m.state != assigning {
		return
	}
	m.request = 0
	before := m.basis
	m.basis = map[string]assignor.Topic{}
	for _, name := range topicsOf(m.members) {
		m.basis[name] = topics[name]
	}
	if m.leads {
		m.sync(m.protocol.Assign(topics, m.members))
		return
	}
	// A static leader that came back: the group keeps its assignment (KIP-814), which rests on what
	// was known when it was made.
	m.leads = true
	for name, was := range before {
		if _, wanted := m.basis[name]; wanted {
			m.basis[name] = was
		}
	}
	m.sync(nil)
	m.compare(topics)
}

// sync sends the leader's assignment, or asks for ours.
func (m *Machine) sync(assignment map[string][]assignor.TopicPartition) {
	m.state = syncing
	m.request = m.flight()
	m.emit(Sync{m.request, m.coordinator, m.syncRequest(assignment)})
}

// Synced answers Sync.
func (m *Machine) Synced(now time.Time, f Flight, resp *kmsg.SyncGroupResponse, err error) {
	if f == 0 || f != m.request || m.state != syncing {
		return
	}
	m.request = 0
	var assigned []assignor.TopicPartition
	if err == nil {
		err = errcode.Of(resp.ErrorCode, nil)
	}
	if err == nil {
		if assigned, err = assignor.ReadAssignment(resp.MemberAssignment); err != nil {
			m.fail(fmt.Errorf("sync group %q: %w: %w", m.cfg.Group, ErrMalformed, err))
			return
		}
	}
	switch {
	case err == nil:
		m.take(now, assigned)
	case errors.Is(err, errcode.UnknownMemberID), errors.Is(err, errcode.IllegalGeneration):
		m.state = unjoined
		m.forgetIdentity()
		m.lose()
		m.backOff(now)
	case errors.Is(err, errcode.RebalanceInProgress):
		m.state = unjoined
	case fatal(err):
		m.fail(fmt.Errorf("sync group %q: %w", m.cfg.Group, err))
		return
	default:
		m.state = unjoined
		m.retry(now, err)
	}
	m.advance(now)
}

// take makes an assignment ours. A cooperative member first gives up what it may not keep, and
// then joins again so that somebody else gets it.
func (m *Machine) take(now time.Time, assigned []assignor.TopicPartition) {
	m.state = member
	m.failures, m.trouble, m.nextBeat = 0, nil, now.Add(m.firstBeatAfter())
	gone, added := without(m.owned, assigned), without(assigned, m.owned)
	if len(gone) > 0 {
		m.then = append(m.then, Call{Kind: Revoked, Partitions: gone})
		m.rejoin("partitions were given up")
	}
	m.then = append(m.then, Call{Kind: Assigned, Partitions: added})
	m.had, m.hadIn = nil, assignor.NoGeneration
}

// earlyBeat is the part of HeartbeatInterval after which a cooperative member beats for the first time.
const earlyBeat = 10

// firstBeatAfter is how long after an assignment the first heartbeat comes. A cooperative rebalance that takes
// partitions from somebody is followed by another as soon as they are given up, and nobody gets them before the last
// member has heard of that, which is by a heartbeat.
func (m *Machine) firstBeatAfter() time.Duration {
	if m.cfg.cooperative() {
		return m.cfg.HeartbeatInterval / earlyBeat
	}
	return m.cfg.HeartbeatInterval
}

// Beaten answers Heartbeat.
func (m *Machine) Beaten(now time.Time, f Flight, resp *kmsg.HeartbeatResponse, err error) {
	if f == 0 || f != m.beat {
		return
	}
	m.beat = 0
	if err == nil {
		err = errcode.Of(resp.ErrorCode, nil)
	}
	m.heardOf(now, err)
	m.advance(now)
}

// CommitAnswered takes in what the answer to a commit under the identity says about it; nil is a
// sign of life.
func (m *Machine) CommitAnswered(now time.Time, id string, generation int32, err error) {
	if m.state != member || id != m.memberID || generation != m.generation {
		return
	}
	m.heardOf(now, aboutMembership(err))
	m.advance(now)
}

// heardOf takes in what the coordinator thinks of us as a member.
func (m *Machine) heardOf(now time.Time, err error) {
	switch {
	case m.state != member, err == nil:
	case errors.Is(err, errcode.RebalanceInProgress):
		m.rejoin("the group is rebalancing")
	case errors.Is(err, errcode.UnknownMemberID), errors.Is(err, errcode.IllegalGeneration):
		m.state = unjoined
		m.forgetIdentity()
		m.lose()
	case errors.Is(err, errcode.CoordinatorLoadInProgress):
	case fatal(err):
		m.fail(fmt.Errorf("heartbeat to group %q: %w", m.cfg.Group, err))
	case lostCoordinator(err):
		m.forgetCoordinator(now)
	}
}

// Left answers Leave.
func (m *Machine) Left(now time.Time, f Flight) {
	if m.parted(f) {
		m.advance(now)
	}
}

// retry deals with a failure that may pass.
func (m *Machine) retry(now time.Time, err error) {
	m.trouble = err
	if lostCoordinator(err) {
		m.coordinator = -1
	}
	m.backOff(now)
}

// fail ends the membership. The program hears first what it has lost.
func (m *Machine) fail(err error) {
	m.forgetIdentity()
	m.lose()
	m.state = ended
	m.emit(Fail{err})
	if m.closing {
		m.emit(Gone{})
	}
}
