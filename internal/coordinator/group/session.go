package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (s *Shard) heartbeat(t Token, req *kmsg.HeartbeatRequest) {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version, resp.ErrorCode = req.Version, s.beat(req)
	s.answer(t, resp)
}

func (s *Shard) beat(req *kmsg.HeartbeatRequest) int16 {
	if req.Group == "" {
		return kerr.InvalidGroupID.Code
	}
	g := s.groups[req.Group]
	if g == nil {
		return kerr.UnknownMemberID.Code
	}
	if code := g.known(req.MemberID, req.InstanceID); code != 0 {
		return code
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	s.keepAlive(g.members[req.MemberID])
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

// sessionEnded drops a member that was not heard of. One whose request waits here is alive as far as
// can be seen, but for a new one, whose first JoinGroup has waited too long, and one whose connection has
// gone.
func (s *Shard) sessionEnded(m *member) {
	g := m.group
	if g.pending[m.id] == m {
		s.remove(g, m.id)
		s.afterPendingLeft(g)
		return
	}
	if g.members[m.id] != m || (!m.fresh && (m.join.listens() || m.sync.listens())) {
		return
	}
	s.remove(g, m.id)
	s.afterLeaving(g)
}

// afterLeaving lets those who stay go on.
func (s *Shard) afterLeaving(g *group) {
	switch g.state {
	case Stable, CompletingRebalance:
		s.prepareRebalance(g)
	case PreparingRebalance:
		s.maybeCompleteJoin(g)
	}
}

func (s *Shard) afterPendingLeft(g *group) {
	s.maybeCompleteJoin(g)
	s.dissolveIfBare(g)
}

func (s *Shard) leaveGroup(t Token, req *kmsg.LeaveGroupRequest) {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	members := req.Members
	if req.Version < firstManyLeave {
		members = []kmsg.LeaveGroupRequestMember{{MemberID: req.MemberID}}
	}
	if req.Group == "" {
		resp.ErrorCode = kerr.InvalidGroupID.Code
		s.answer(t, resp)
		return
	}
	g := s.groups[req.Group]
	left, pendingLeft := false, false
	resp.Members = make([]kmsg.LeaveGroupResponseMember, len(members))
	for i := range members {
		out := &resp.Members[i]
		out.MemberID, out.InstanceID = members[i].MemberID, members[i].InstanceID
		switch {
		case g == nil:
			out.ErrorCode = kerr.UnknownMemberID.Code
		case g.pending[out.MemberID] != nil:
			s.remove(g, out.MemberID)
			pendingLeft = true
		default:
			out.ErrorCode = s.leave(g, out.MemberID, out.InstanceID)
			left = left || out.ErrorCode == 0
		}
	}
	if req.Version < firstManyLeave {
		resp.ErrorCode, resp.Members = resp.Members[0].ErrorCode, nil
	}
	switch {
	case left:
		s.afterLeaving(g)
	case pendingLeft:
		s.afterPendingLeft(g)
	}
	if len(s.w.records) > 0 {
		s.promise(t, resp)
		return
	}
	s.answer(t, resp)
}

// firstManyLeave is the first version of LeaveGroup that names several members, so that an
// administrator can remove static ones.
const firstManyLeave = 3

func (s *Shard) leave(g *group, id string, instance *string) int16 {
	if id == "" {
		if instance == nil || g.static[*instance] == nil {
			return kerr.UnknownMemberID.Code
		}
		id = g.static[*instance].id
	} else if code := g.known(id, instance); code != 0 {
		return code
	}
	s.remove(g, id)
	return 0
}

func (s *Shard) setJoinTimer(g *group, after time.Duration) {
	if g.joinTimer.run == nil {
		g.joinTimer.run = g.joinEnds
	}
	s.set(&g.joinTimer, s.now.Add(after))
}

// joinEnds ends the join phase, or, in a group that was empty, waits once more when another member has
// joined meanwhile, as long as the members' rebalance timeout allows.
func (g *group) joinEnds(s *Shard) {
	if g.state != PreparingRebalance {
		return
	}
	d := &g.delay
	if g.before != Empty || !d.another || d.remaining == 0 {
		s.completeJoin(g)
		return
	}
	next := min(d.current, d.remaining)
	*d = initialDelay{current: next, remaining: max(d.remaining-d.current, 0)}
	s.setJoinTimer(g, next)
}
