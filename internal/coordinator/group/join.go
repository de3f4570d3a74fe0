package group

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// From these versions of JoinGroup on: there is a rebalance timeout of its own; a dynamic member has
// to come back with the id that it is given first (KIP-394); the leader may be told that there is
// nothing to assign (KIP-814).
const (
	firstRebalanceTimeout = 1
	firstMemberIDRequired = 4
	firstSkipAssignment   = 9
)

// noGeneration is in the answers that refuse.
const noGeneration = int32(-1)

func (s *Shard) joinGroup(t Token, from Client, req *kmsg.JoinGroupRequest) {
	if req.Group == "" {
		s.refuseJoin(t, req.Version, req.MemberID, kerr.InvalidGroupID.Code)
		return
	}
	if session := sessionOf(req); session < s.config.GroupMinSessionTimeout || session > s.config.GroupMaxSessionTimeout {
		s.refuseJoin(t, req.Version, req.MemberID, kerr.InvalidSessionTimeout.Code)
		return
	}
	g := s.groups[req.Group]
	if g == nil {
		s.joinNewGroup(t, from, req)
		return
	}
	if !s.accepts(g, req.MemberID) {
		s.remove(g, req.MemberID)
		s.refuseJoin(t, req.Version, "", kerr.GroupMaxSizeReached.Code)
		s.maybeCompleteJoin(g)
		return
	}
	if req.MemberID == "" {
		s.joinAsNew(t, from, g, req)
		return
	}
	s.joinAgain(t, from, g, req)
}

// joinNewGroup makes a group for its first member. The group's empty record makes it last: a pending
// member is not written down.
func (s *Shard) joinNewGroup(t Token, from Client, req *kmsg.JoinGroupRequest) {
	if req.MemberID != "" {
		s.refuseJoin(t, req.Version, req.MemberID, kerr.UnknownMemberID.Code)
		return
	}
	if req.ProtocolType == "" || len(req.Protocols) == 0 {
		s.refuseJoin(t, req.Version, "", kerr.InconsistentGroupProtocol.Code)
		return
	}
	g := s.create(strings.Clone(req.Group))
	g.since = s.now.UnixMilli()
	s.joinAsNew(t, from, g, req)
	s.w.group(g.id, &kmsg.GroupMetadataValue{CurrentStateTimestamp: s.now.UnixMilli()})
}

func (s *Shard) refuseJoin(t Token, version int16, memberID string, code int16) {
	r := joinResponse(version, memberID)
	r.ErrorCode = code
	s.answer(t, r)
}

func joinResponse(version int16, memberID string) *kmsg.JoinGroupResponse {
	r := kmsg.NewPtrJoinGroupResponse()
	r.Version, r.MemberID, r.Generation = version, memberID, noGeneration
	return r
}

func sessionOf(req *kmsg.JoinGroupRequest) time.Duration {
	return time.Duration(req.SessionTimeoutMillis) * time.Millisecond
}

func rebalanceOf(req *kmsg.JoinGroupRequest) time.Duration {
	if req.Version < firstRebalanceTimeout {
		return sessionOf(req)
	}
	return time.Duration(max(req.RebalanceTimeoutMillis, 0)) * time.Millisecond
}

// accepts holds the group to its largest size. While members are joining, those that have come count,
// so that the last to come back are the ones to go where the limit was lowered.
func (s *Shard) accepts(g *group, memberID string) bool {
	m := g.members[memberID]
	switch g.state {
	case PreparingRebalance:
		return (m != nil && m.join.on) || g.joining < s.config.GroupMaxSize
	case CompletingRebalance, Stable:
		return m != nil || g.size() < s.config.GroupMaxSize
	}
	return true
}

func (s *Shard) newMemberID(prefix string) string {
	a, b := s.random.Uint64(), s.random.Uint64()
	a = a&^0xf000 | 0x4000 // version 4
	b = b&^(3<<62) | 1<<63 // variant 1
	return fmt.Sprintf("%s-%08x-%04x-%04x-%04x-%012x", prefix, a>>32, a>>16&0xffff, a&0xffff, b>>48, b&(1<<48-1))
}

// joinAsNew is a client without a member id: a new dynamic member, a new static one, or a static one
// that was started again.
func (s *Shard) joinAsNew(t Token, from Client, g *group, req *kmsg.JoinGroupRequest) {
	if !g.supports(req.ProtocolType, req.Protocols) {
		s.refuseJoin(t, req.Version, "", kerr.InconsistentGroupProtocol.Code)
		return
	}
	if req.InstanceID != nil {
		id := s.newMemberID(*req.InstanceID)
		if m := g.static[*req.InstanceID]; m != nil {
			s.joinInPlaceOf(t, g, m, id, req)
			return
		}
		s.addMember(t, from, g, id, req)
		return
	}
	id := s.newMemberID(from.ID)
	if req.Version < firstMemberIDRequired {
		s.addMember(t, from, g, id, req)
		return
	}
	if len(g.pending) >= maxPending {
		s.refuseJoin(t, req.Version, "", kerr.CoordinatorNotAvailable.Code)
		return
	}
	m := &member{group: g, id: id, session: sessionOf(req)}
	g.addPending(m)
	if g.state == PreparingRebalance && g.before == Empty && s.config.GroupInitialRebalanceDelay == 0 {
		g.delay.another = true
	}
	s.keepAlive(m)
	s.refuseJoin(t, req.Version, id, kerr.MemberIDRequired.Code)
}

// joinAgain is a client with a member id.
func (s *Shard) joinAgain(t Token, from Client, g *group, req *kmsg.JoinGroupRequest) {
	if !g.supports(req.ProtocolType, req.Protocols) {
		s.refuseJoin(t, req.Version, req.MemberID, kerr.InconsistentGroupProtocol.Code)
		return
	}
	if p := g.pending[req.MemberID]; p != nil {
		if req.InstanceID != nil { // no static member was ever told to come back
			s.refuseJoin(t, req.Version, req.MemberID, kerr.UnknownMemberID.Code)
			return
		}
		s.stop(&p.timer)
		s.addMember(t, from, g, p.id, req)
		return
	}
	if code := g.known(req.MemberID, req.InstanceID); code != 0 {
		s.refuseJoin(t, req.Version, req.MemberID, code)
		return
	}
	m := g.members[req.MemberID]
	same := m.offers(req.Protocols)
	switch {
	case g.state == PreparingRebalance,
		!same,
		g.state == Stable && g.leader == m: // it may have seen partitions come or go
		s.updateMember(t, g, m, req)
		s.rebalanceOrCompleteJoin(g)
	default:
		// It did not get the answer to its last JoinGroup: the generation stands.
		r := g.joined(m, req.Version)
		if g.state == Stable {
			r.Members = nil
		}
		s.keepAlive(m)
		s.answer(t, r)
	}
}

// joined is the answer that lets m into the present generation.
func (g *group) joined(m *member, version int16) *kmsg.JoinGroupResponse {
	r := joinResponse(version, m.id)
	r.Generation, r.ProtocolType, r.Protocol = g.generation, stringOf(g.protocolType), stringOf(g.protocol)
	if g.leader != nil {
		r.LeaderID = g.leader.id
	}
	if g.leader == m {
		r.Members = make([]kmsg.JoinGroupResponseMember, len(g.order))
		for i, other := range g.order {
			r.Members[i] = kmsg.JoinGroupResponseMember{
				MemberID: other.id, InstanceID: other.instance, ProtocolMetadata: other.metadata(g.protocol),
			}
		}
	}
	return r
}

func stringOf(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (s *Shard) addMember(t Token, from Client, g *group, id string, req *kmsg.JoinGroupRequest) {
	m := &member{
		group: g, id: id, client: Client{ID: strings.Clone(from.ID), Host: strings.Clone(from.Host)},
		session: sessionOf(req), rebalance: rebalanceOf(req), protocols: protocolsOf(req.Protocols), fresh: true,
	}
	if req.InstanceID != nil {
		instance := strings.Clone(*req.InstanceID)
		m.instance = &instance
	}
	if g.state == PreparingRebalance && g.before == Empty {
		g.delay.another = true
	}
	g.add(m, strings.Clone(req.ProtocolType))
	s.awaitJoin(m, t, req.Version)
	s.aliveFor(m, newMemberJoinTimeout)
	s.rebalanceOrCompleteJoin(g)
}

func (s *Shard) updateMember(t Token, g *group, m *member, req *kmsg.JoinGroupRequest) {
	if !m.offers(req.Protocols) {
		g.count(m, -1)
		m.protocols = protocolsOf(req.Protocols)
		g.count(m, 1)
	}
	m.rebalance, m.session = rebalanceOf(req), sessionOf(req)
	s.awaitJoin(m, t, req.Version)
}

// awaitJoin parks a JoinGroup. An earlier one of the same member that still waits is answered: its
// client has given it up, but on a connection that is still there it would hold up what follows.
func (s *Shard) awaitJoin(m *member, t Token, version int16) {
	s.endJoin(m, kerr.RebalanceInProgress.Code)
	m.join = request{on: true, token: t, version: version}
	m.group.joining++
	s.waiting[t] = m
}

// endJoin answers m's JoinGroup with an error, if it waits.
func (s *Shard) endJoin(m *member, code int16) {
	id := m.id
	if code == kerr.UnknownMemberID.Code {
		id = ""
	}
	if m.join.on {
		r := joinResponse(m.join.version, id)
		r.ErrorCode = code
		s.finishJoin(m, r)
	}
}

func (s *Shard) finishJoin(m *member, r *kmsg.JoinGroupResponse) {
	if !m.join.deaf {
		s.answer(m.join.token, r)
	}
	delete(s.waiting, m.join.token)
	m.join = request{}
	m.group.joining--
}

// joinInPlaceOf lets a static member that was started again take its own place under a new member id
// (KIP-345). Whoever still uses the old one is fenced.
func (s *Shard) joinInPlaceOf(t Token, g *group, m *member, id string, req *kmsg.JoinGroupRequest) {
	was := replacement{
		member: m, id: m.id, newID: id, protocols: m.protocols, session: m.session, rebalance: m.rebalance,
	}
	formerLeader := ""
	if g.leader != nil {
		formerLeader = g.leader.id
	}
	s.endJoin(m, kerr.FencedInstanceID.Code)
	s.endSync(m, nil, kerr.FencedInstanceID.Code)
	g.rename(m, id)
	s.updateMember(t, g, m, req)
	s.keepAlive(m)
	switch {
	case g.state == Stable && g.selectProtocol() == g.protocol:
		s.keepPlace(g, m, formerLeader)
		s.replaced = append(s.replaced, was)
	case g.state == Stable, g.state == CompletingRebalance:
		// The leader of a generation that completes may have been given the old id to assign to.
		s.prepareRebalance(g)
	default:
		s.maybeCompleteJoin(g)
	}
}

func (g *group) rename(m *member, id string) {
	delete(g.members, m.id)
	m.id = id
	g.members[id] = m
}

// keepPlace answers a static member that takes its place in a running generation: nobody else needs
// to know. Before version 9 a leader is not told that it leads: it would assign anew.
func (s *Shard) keepPlace(g *group, m *member, formerLeader string) {
	token, version, deaf := m.join.token, m.join.version, m.join.deaf
	delete(s.waiting, token)
	m.join = request{}
	g.joining--
	r := g.joined(m, version)
	if version >= firstSkipAssignment {
		r.SkipAssignment = g.leader == m
	} else {
		r.LeaderID, r.Members = formerLeader, nil
	}
	s.w.group(g.id, g.value(nil))
	if !deaf {
		s.promise(token, r)
	}
}

// remove takes a member, pending or not, out of the group.
func (s *Shard) remove(g *group, id string) {
	if p := g.pending[id]; p != nil {
		s.stop(&p.timer)
		delete(g.pending, id)
		return
	}
	m := g.members[id]
	if m == nil {
		return
	}
	s.endJoin(m, kerr.UnknownMemberID.Code)
	s.endSync(m, nil, kerr.UnknownMemberID.Code)
	s.stop(&m.timer)
	g.count(m, -1)
	delete(g.members, id)
	if m.instance != nil {
		delete(g.static, *m.instance)
	}
	i := slices.Index(g.order, m)
	g.order = slices.Delete(g.order, i, i+1)
	s.noLongerUnsynced(g, m)
	if g.leader == m {
		g.leader = nil
		if g.size() > 0 {
			g.leader = g.order[0]
		}
	}
}
