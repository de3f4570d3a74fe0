package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// firstSyncProtocol is the first version of SyncGroup that has to name the protocol (KIP-559).
const firstSyncProtocol = 5

func (s *Shard) syncGroup(t Token, req *kmsg.SyncGroupRequest) {
	code := s.maySync(req)
	g := s.groups[req.Group]
	if code == 0 && g.state == PreparingRebalance {
		code = kerr.RebalanceInProgress.Code
	}
	if code != 0 {
		s.answer(t, syncResponse(req.Version, code))
		return
	}
	m := g.members[req.MemberID]
	s.noLongerUnsynced(g, m)
	if g.state == Stable {
		// The assignment may be younger than the watermark.
		s.promise(t, g.assigned(m, req.Version))
		return
	}
	s.awaitSync(m, t, req.Version)
	if g.leader == m {
		s.assign(g, req)
	}
}

func (s *Shard) maySync(req *kmsg.SyncGroupRequest) int16 {
	if req.Group == "" {
		return kerr.InvalidGroupID.Code
	}
	if req.Version >= firstSyncProtocol && (req.ProtocolType == nil || req.Protocol == nil) {
		return kerr.InconsistentGroupProtocol.Code
	}
	g := s.groups[req.Group]
	if g == nil || g.state == Empty {
		return kerr.UnknownMemberID.Code
	}
	if code := g.known(req.MemberID, req.InstanceID); code != 0 {
		return code
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	if differs(req.ProtocolType, g.protocolType) || differs(req.Protocol, g.protocol) {
		return kerr.InconsistentGroupProtocol.Code
	}
	return 0
}

func differs(said *string, is string) bool { return said != nil && is != "" && *said != is }

func syncResponse(version, code int16) *kmsg.SyncGroupResponse {
	r := kmsg.NewPtrSyncGroupResponse()
	r.Version, r.ErrorCode, r.MemberAssignment = version, code, []byte{}
	return r
}

func (g *group) assigned(m *member, version int16) *kmsg.SyncGroupResponse {
	r := syncResponse(version, 0)
	r.ProtocolType, r.Protocol = stringOf(g.protocolType), stringOf(g.protocol)
	if m.assignment != nil {
		r.MemberAssignment = m.assignment
	}
	return r
}

// awaitSync parks a SyncGroup; an earlier one of the same member is answered, as in awaitJoin.
func (s *Shard) awaitSync(m *member, t Token, version int16) {
	s.endSync(m, nil, kerr.RebalanceInProgress.Code)
	m.sync = request{on: true, token: t, version: version}
	s.waiting[t] = m
}

// endSync answers m's SyncGroup, if it waits: with r, once that is committed, or with code.
func (s *Shard) endSync(m *member, r *kmsg.SyncGroupResponse, code int16) {
	if !m.sync.on {
		return
	}
	switch {
	case m.sync.deaf:
	case r != nil:
		s.promise(m.sync.token, r)
	default:
		s.answer(m.sync.token, syncResponse(m.sync.version, code))
	}
	if !m.sync.deaf {
		s.keepAlive(m)
	}
	delete(s.waiting, m.sync.token)
	m.sync = request{}
}

// assign takes the leader's assignment. The record makes the group Stable and the assignments the
// members' own, when it is replayed; whoever waits is answered when it is committed.
func (s *Shard) assign(g *group, req *kmsg.SyncGroupRequest) {
	n := 0
	for i := range req.GroupAssignment {
		n += len(req.GroupAssignment[i].MemberAssignment)
	}
	room := make([]byte, 0, n) // answers outlive the request
	assignments := make(map[string][]byte, len(g.order))
	for i := range req.GroupAssignment {
		a := &req.GroupAssignment[i]
		if g.members[a.MemberID] == nil {
			continue
		}
		at := len(room)
		room = append(room, a.MemberAssignment...)
		assignments[a.MemberID] = room[at:len(room):len(room)]
	}
	s.w.group(g.id, g.value(assignments))
	for _, m := range g.order {
		if m.sync.on {
			r := g.assigned(m, m.sync.version)
			r.MemberAssignment = assignments[m.id]
			s.endSync(m, r, 0)
		}
	}
}

func (s *Shard) noLongerUnsynced(g *group, m *member) {
	if !m.owesSync {
		return
	}
	m.owesSync = false
	if g.unsynced--; g.unsynced == 0 {
		s.stop(&g.syncTimer)
	}
}

// setSyncTimer bounds how long members of the new generation may take to send their SyncGroup.
func (s *Shard) setSyncTimer(g *group) {
	if g.syncTimer.run == nil {
		g.syncTimer.run = g.syncsOverdue
	}
	s.set(&g.syncTimer, s.now.Add(g.rebalanceTimeout()))
}

func (g *group) syncsOverdue(s *Shard) {
	if g.unsynced == 0 || (g.state != CompletingRebalance && g.state != Stable) {
		return
	}
	var silent []string
	for _, m := range g.order {
		if m.owesSync {
			silent = append(silent, m.id)
		}
	}
	for _, id := range silent {
		s.remove(g, id)
	}
	s.prepareRebalance(g)
}
