package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

const (
	// tendEvery is how often, in ticks, a leader looks whether a member is to be promoted.
	tendEvery = 4
	// nearlyThere is how many entries a learner may be behind when it is promoted.
	nearlyThere = 64
	// lostAfter is how many election timeouts a node hears of no leader before it asks to be taken in,
	// joinEvery how many ticks pass before it asks again, joinPatience how long it waits for an answer.
	lostAfter    = 4
	joinEvery    = 10
	joinPatience = time.Second
	// rivalTimes is how many answers in a row have to say that another process runs under this node's number until this one
	// stops: some 5 seconds. A voter that has just died is not heard of for long before that.
	rivalTimes = 10
)

// proposeChange proposes a change of the members. Raft takes one at a time, and turns a second into nothing
// without a word, so whoever asks looks again later. Owner only.
func (q *Quorum) proposeChange(changes []*pb.ConfChangeSingle, c membersChange) error {
	c.Voters = q.votersWith(changes, c)
	context, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a change of the metadata quorum's members: %w", err)
	}
	return q.raft.ProposeConfChange(&pb.ConfChangeV2{Changes: changes, Context: context})
}

// votersWith are those who vote after a change of the members. Owner only.
func (q *Quorum) votersWith(changes []*pb.ConfChangeSingle, c membersChange) []metadata.Voter {
	status := q.raft.Status()
	ids := slices.Collect(maps.Keys(status.Config.Voters[0]))
	for _, one := range changes {
		ids = slices.DeleteFunc(ids, func(id uint64) bool { return id == one.GetNodeId() && one.GetType() != pb.ConfChangeUpdateNode })
		if one.GetType() == pb.ConfChangeAddNode {
			ids = append(ids, one.GetNodeId())
		}
	}
	all := membership{Members: append(slices.Clone(c.Members), q.me()), Addresses: slices.Concat(c.Addresses, q.membership().Addresses)}
	for _, m := range q.members {
		if !slices.Contains(all.Members, m) {
			all.Members = append(all.Members, m)
		}
	}
	slices.SortFunc(all.Members, compareMembers)
	all.Members = slices.Compact(all.Members)
	return all.voters(ids)
}

func change(kind pb.ConfChangeType, id uint64) *pb.ConfChangeSingle {
	return &pb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(id)}
}

// tend promotes members that were taken in and have caught up. Where one stands in the place of a voter
// whose disk was wiped, one step makes the new directory a voter and removes the old one. Otherwise its
// node is to vote by the configuration and does not yet: the quorum grows. Leader only, owner only.
func (q *Quorum) tend() {
	if q.raft.BasicStatus().RaftState != raft.StateLeader {
		return
	}
	s := q.raft.Status()
	if len(s.Config.Voters[1]) > 0 || s.LeadTransferee != raft.None || q.led < q.o.ElectionTicks { // who is alive is not known yet
		return
	}
	for _, id := range slices.Sorted(maps.Keys(s.Config.Learners)) {
		member, known := q.members[id]
		p := s.Progress[id]
		if !known || !p.RecentActive || p.State != tracker.StateReplicate || p.Match+nearlyThere < s.GetCommit() {
			continue
		}
		changes := []*pb.ConfChangeSingle{change(pb.ConfChangeAddNode, id)}
		old, found := q.voterOf(&s, member.NodeID)
		switch {
		case found && q.alive(old): // it had only stood still, and is not to lose its vote for that
			continue
		case found:
			changes = append(changes, change(pb.ConfChangeRemoveNode, old))
			q.log.Info("a node whose disk was wiped becomes a voter again", "node", member.NodeID,
				"directory", member.Directory.String(), "instead_of", q.members[old].Directory.String())
		case slices.Contains(q.o.Expected, member.NodeID) && !slices.Contains(q.membership().Removed, member.NodeID):
			q.log.Info("a node becomes a voter", "node", member.NodeID, "directory", member.Directory.String())
		default:
			continue
		}
		if err := q.proposeChange(changes, membersChange{Members: []Member{member}}); err != nil {
			q.log.Debug("the members of the quorum cannot be changed now", "err", err)
		}
		return
	}
}

// voterOf finds the voter with a node's number.
func (q *Quorum) voterOf(s *raft.Status, node int32) (id uint64, found bool) {
	for id := range s.Config.Voters.IDs() {
		if m, known := q.members[id]; known && m.NodeID == node {
			return id, true
		}
	}
	return 0, false
}

func (q *Quorum) hasVoter(s *raft.Status, node int32) bool {
	_, found := q.voterOf(s, node)
	return found
}

// applyChange takes a committed change of the members. Applier only.
func (q *Quorum) applyChange(index uint64, change *pb.ConfChangeV2) error {
	said, err := decodeMembersChange(change.GetContext())
	if err != nil {
		return err
	}
	if err := q.whenThereIsSpace(func() error { return q.st.saveCommitted(index) }); err != nil {
		return err
	}
	q.reach(said.Addresses) // before raft has something to say to them
	done := make(chan struct{})
	if !q.do(func() {
		q.reconfigured(index, said, q.raft.ApplyConfChange(change))
		close(done)
	}) {
		return context.Cause(q.ctx)
	}
	select {
	case <-done:
	case <-q.ctx.Done():
		return context.Cause(q.ctx)
	}
	q.st.needSnapshot(index)
	return nil
}

// reconfigured makes a configuration the newest, and shows it: raft may have nothing more to say, in a quorum of one for
// ever. Owner only.
func (q *Quorum) reconfigured(index uint64, said membersChange, state *pb.ConfState) {
	q.learn(said.Members)
	said.Members = append(said.Members, q.me())
	q.mu.Lock()
	last := q.mu.confs[len(q.mu.confs)-1]
	next := confAt{index, state, last.members.after(said, state)}
	next.members.ClusterID = q.o.ClusterID
	q.mu.confs = append(q.mu.confs, next)
	q.mu.Unlock()
	q.askAgain()
	q.publishStatus()
}

// learn notes whose raft's ids are. Owner only.
func (q *Quorum) learn(members []Member) {
	for _, m := range members {
		q.members[m.raftID()], q.routes[m.raftID()] = m, m.NodeID
	}
}

// reach tells the transport where nodes are.
func (q *Quorum) reach(addresses []address) {
	if q.o.Transport == nil {
		return
	}
	for _, a := range addresses {
		if len(a.Listeners) > 0 && a.NodeID != q.o.NodeID {
			q.o.Transport.SetAddress(a.NodeID, a.Listeners[0].addr())
		}
	}
}

// membership is the newest that was applied.
func (q *Quorum) membership() membership {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.confs[len(q.mu.confs)-1].members
}

func (q *Quorum) me() Member { return Member{q.o.NodeID, q.o.Dir.ID()} }

// confAsOf is the configuration after the entry with the index.
func (q *Quorum) confAsOf(index uint64) confAt {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.mu.confs[0]
	for _, c := range q.mu.confs {
		if c.index <= index {
			at = c
		}
	}
	return at
}

// forgetConfs drops the configurations that a snapshot has made superfluous.
func (q *Quorum) forgetConfs(index uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.mu.confs) > 1 && q.mu.confs[1].index <= index {
		q.mu.confs = slices.Clone(q.mu.confs[1:])
	}
}

// admission is the answer to a node that wants in.
type admission struct {
	Leader int32 `json:"leader"` // who could take it in, -1: nobody is known
	// Listeners are where that is, if it became a voter on request: the asker need not know it.
	Listeners []Listener `json:"listeners,omitempty"`
	Taken     bool       `json:"taken"`
	// Observe: it has no vote here, and gets none by asking; it may follow (follow.go).
	Observe bool `json:"observe,omitempty"`
	// Rival is the member of the asker's number that is alive, with another directory: there are two processes of that number.
	Rival *Member `json:"rival,omitempty"`

	leads bool // who answered is the leader
}

// answerJoin takes a node in that has a number of ours and an empty disk.
func (q *Quorum) answerJoin(ctx context.Context, from peer.Node, _ []byte) ([]byte, error) {
	done := make(chan admission, 1)
	if !q.do(func() { done <- q.admit(Member{from.ID, metadata.UUID(from.Directory)}) }) {
		return nil, ErrClosed
	}
	select {
	case a := <-done:
		return json.Marshal(a)
	case <-q.ctx.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// admit makes a node a member without a vote, in the place of any that it was with an earlier disk.
// Owner only.
func (q *Quorum) admit(m Member) admission {
	s := q.raft.Status()
	a := admission{Leader: q.leaderNode(s.Lead)}
	if s.RaftState != raft.StateLeader {
		a.Listeners = q.membership().listeners(a.Leader)
		if leader, known := q.members[s.Lead]; known && leader.NodeID == m.NodeID && leader != m {
			a.Rival = &leader // whom the asker cannot ask
		}
		return a
	}
	id := m.raftID()
	_, isLearner := s.Config.Learners[id]
	_, isNext := s.Config.LearnersNext[id]
	_, isVoter := s.Config.Voters.IDs()[id]
	switch {
	case isVoter:
		a.Taken = true
		return a
	case q.led < q.o.ElectionTicks: // whether an earlier disk of its is alive is not known yet
		return a
	}
	if rival, found := q.rivalOf(&s, m); found {
		if q.refused != m {
			q.refused = m
			q.log.Warn("a second process under a voter's number, on another disk, is refused: the first is alive", "node", m.NodeID,
				"directory", m.Directory.String(), "directory_of_the_first", rival.Directory.String())
		}
		a.Rival = &rival
		return a
	}
	switch {
	case isLearner || isNext:
		a.Taken = true
		return a
	case q.hasVoter(&s, m.NodeID): // an earlier disk of its
	case !slices.Contains(q.o.Expected, m.NodeID) || slices.Contains(q.membership().Removed, m.NodeID):
		a.Observe = true
		return a
	}
	changes := []*pb.ConfChangeSingle{change(pb.ConfChangeAddLearnerNode, id)}
	for old := range s.Config.Learners {
		if q.members[old].NodeID == m.NodeID {
			changes = append(changes, change(pb.ConfChangeRemoveNode, old))
		}
	}
	if len(s.Config.Voters[1]) > 0 || len(s.Config.Learners) > len(q.o.Expected) {
		return a // a change is under way
	}
	q.log.Info("a node with an empty disk is taken in", "node", m.NodeID, "directory", m.Directory.String())
	if err := q.proposeChange(changes, membersChange{Members: []Member{m}}); err != nil {
		q.log.Debug("the members of the quorum cannot be changed now", "err", err)
	}
	return a
}

// alive tells whether a member was heard of within an election's timeout. By ticks, for clocks jump. Leader only, owner only.
func (q *Quorum) alive(id uint64) bool {
	v := q.voices[id]
	return id == q.self || v != nil && q.ticks-v.tick < q.o.ElectionTicks && !q.down[q.members[id].NodeID]
}

// rivalOf finds a member of a node's number that is alive, and is not that node. Leader only, owner only.
func (q *Quorum) rivalOf(s *raft.Status, m Member) (rival Member, found bool) {
	for id := range s.Progress {
		if other, known := q.members[id]; known && other.NodeID == m.NodeID && other != m && q.alive(id) {
			return other, true
		}
	}
	return Member{}, false
}

// rivalled takes what the leader said of another process of this node's number; nil: there is none. This one stops over it: if
// it waited for the other's end, that one would lose its vote to it when it is only started again. Owner only.
func (q *Quorum) rivalled(rival *Member) {
	if rival == nil {
		q.rivals = 0
		return
	}
	q.rivals++
	err := fmt.Errorf("%w: node %d takes part in cluster %s with directory %s, and this process has directory %s: "+
		"give this one a number of its own (node.id), or stop the other first", ErrRival, rival.NodeID, q.o.ClusterID, rival.Directory, q.me().Directory)
	switch q.rivals {
	case 2: // one that has just died may still be believed to live
		q.log.Warn("this node is not taken in", "err", err)
	case rivalTimes:
		q.fail(err)
	}
}

// Joined is closed once this node has the cluster's metadata, which it lacks only at first (Blank).
func (q *Quorum) Joined() <-chan struct{} { return q.joined }

// seekLeader is called at every tick. A node that no leader speaks to for long may not be a member:
// because its disk is new, or because its place went to another directory, by a request of an earlier
// life of its that was long under way, or because it was removed. It asks to be taken in, which does nothing
// for a member. Owner only.
func (q *Quorum) seekLeader() {
	q.quiet++
	if q.following || q.raft.BasicStatus().Lead != raft.None && (q.votes() || q.quiet < 2*q.o.ElectionTicks) {
		q.alone = 0
		return
	}
	if q.alone++; q.alone < q.o.ElectionTicks*lostAfter || q.asking {
		return
	}
	q.asking = true
	q.running.Go(func() {
		q.askAll()
		q.do(func() {
			q.asking = false
			q.alone -= joinEvery
		})
	})
}

// votes tells whether this node is a voter, as far as it knows. Owner only.
func (q *Quorum) votes() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	conf := q.mu.confs[len(q.mu.confs)-1].state
	return slices.Contains(conf.GetVoters(), q.self) || slices.Contains(conf.GetVotersOutgoing(), q.self)
}

// askAll asks every node that may know a leader, and the leader that they name.
func (q *Quorum) askAll() {
	others := q.others()
	answers := make([]admission, len(others))
	var asking sync.WaitGroup
	for i, node := range others {
		asking.Go(func() {
			a, err := q.askJoin(node)
			if err == nil && a.Leader >= 0 && a.Leader != node && a.Leader != q.o.NodeID && !slices.Contains(others, a.Leader) {
				q.reach([]address{{a.Leader, a.Listeners}})
				node = a.Leader
				a, err = q.askJoin(node)
			}
			if err != nil {
				return
			}
			if a.Observe {
				q.do(func() { q.follow(node) })
			}
			a.leads = a.Leader == node
			answers[i] = a
		})
	}
	asking.Wait()
	said := slices.IndexFunc(answers, func(a admission) bool { return a.leads }) // others may have heard of it long ago
	if said < 0 {
		said = slices.IndexFunc(answers, func(a admission) bool { return a.Rival != nil })
	}
	if said >= 0 {
		q.do(func() { q.rivalled(answers[said].Rival) })
	}
}

// others are the nodes that may vote: those configured and those that do.
func (q *Quorum) others() (nodes []int32) {
	nodes = slices.Clone(q.o.Expected)
	for _, m := range q.membership().Members {
		nodes = append(nodes, m.NodeID)
	}
	slices.Sort(nodes)
	return slices.DeleteFunc(slices.Compact(nodes), func(node int32) bool { return node == q.o.NodeID })
}

func (q *Quorum) askJoin(node int32) (a admission, err error) {
	ctx, cancel := context.WithTimeout(q.ctx, joinPatience)
	defer cancel()
	answer, err := q.o.Transport.Call(ctx, node, kindJoin, nil)
	if err == nil {
		err = json.Unmarshal(answer, &a)
	}
	if err != nil {
		return a, fmt.Errorf("ask node %d to be taken in: %w", node, err)
	}
	return a, nil
}

// handOver gives the leadership of the metadata to another voter, if this node has it, and waits until the other has
// committed what there is, at most for an election's time: of three voters of which one is down the last one could
// never learn what was decided by the two.
func (q *Quorum) handOver() {
	if q.o.Transport == nil {
		return
	}
	if !q.do(func() {
		q.leaving = true
		if s := q.raft.Status(); s.RaftState != raft.StateLeader || !q.startHandOver(&s) {
			q.release()
		}
	}) {
		return
	}
	patience := time.NewTimer(time.Duration(q.o.ElectionTicks) * q.o.Tick)
	defer patience.Stop()
	select {
	case <-q.handedOver:
	case <-patience.C:
		q.log.Info("the leadership of the metadata could not be handed over in time")
	case <-q.ctx.Done():
	}
}

// startHandOver gives the leadership to the voter that has most; false: none answers. Owner only.
func (q *Quorum) startHandOver(s *raft.Status) bool {
	best := raft.None
	for id, p := range s.Progress {
		if id == q.self || p.IsLearner || !p.RecentActive || q.down[q.leaderNode(id)] {
			continue
		}
		if best == raft.None || p.Match > s.Progress[best].Match || p.Match == s.Progress[best].Match && id < best {
			best = id
		}
	}
	if best == raft.None {
		return false
	}
	q.raft.TransferLeader(best)
	return true
}

// release lets a Close go on. Owner only.
func (q *Quorum) release() {
	select {
	case <-q.handedOver:
	default:
		close(q.handedOver)
	}
}
