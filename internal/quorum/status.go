package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"barnabas/internal/metadata"
)

// Status is the state of the quorum as this node sees it, for DescribeQuorum (KIP-595).
type Status struct {
	Leader        int32 // node id, -1: none known
	Epoch         int32
	HighWatermark int64 // everything below is committed
	// Voters and Observers are known to the leader alone with their positions: elsewhere LogEnd is -1 and
	// the times are zero, but for this node's own.
	Voters    []Replica
	Observers []Replica
	// Changing: the voters are being changed, and until that is done a majority of those before is needed too.
	Changing bool
}

// Replica is one node's copy of the metadata log.
type Replica struct {
	NodeID    int32
	Directory metadata.UUID
	LogEnd    int64
	// LastFetch is when the replica was last heard of, LastCaughtUp when it last had all. Both are zero
	// where unknown; for the leader they are the time of asking.
	LastFetch, LastCaughtUp time.Time
	// Listeners are where it is reached, by what was said when it was made a voter on request.
	Listeners []Listener
}

// voice is what a leader has heard of another member.
type voice struct {
	at       time.Time
	tick     int    // the same in ticks
	end      uint64 // of the leader's log then: its last index
	caughtUp time.Time
}

// heard notes a member's answer. Owner only.
func (q *Quorum) heard(m *pb.Message) {
	if t := m.GetType(); t != pb.MsgAppResp && t != pb.MsgHeartbeatResp {
		return
	}
	now := q.o.Now()
	v := q.voices[m.GetFrom()]
	if v == nil {
		v = &voice{}
		q.voices[m.GetFrom()] = v
	}
	last, _ := q.st.LastIndex() // it has no error
	if m.GetType() == pb.MsgAppResp && !m.GetReject() {
		switch has := m.GetIndex(); {
		case has >= last:
			v.caughtUp = now
		case has >= v.end && v.end > 0: // all that there was when it was heard of before
			v.caughtUp = v.at
		}
	} else if p := q.matchOf(m.GetFrom()); p >= last {
		v.caughtUp = now
	}
	v.at, v.tick, v.end = now, q.ticks, last
}

// matchOf is the last entry that a follower is known to have on disk.
func (q *Quorum) matchOf(id uint64) (match uint64) {
	q.raft.WithProgress(func(of uint64, _ raft.ProgressType, p tracker.Progress) {
		if of == id {
			match = p.Match
		}
	})
	return match
}

// Status returns a snapshot; it waits for nothing.
func (q *Quorum) Status() Status {
	q.mu.Lock()
	s := q.mu.status
	q.mu.Unlock()
	end, now := q.st.log.Progress().End, q.o.Now()
	own := func(all []Replica) []Replica {
		all = slices.Clone(all)
		for i := range all {
			if all[i].NodeID != q.o.NodeID || all[i].Directory != q.o.Dir.ID() {
				continue
			}
			all[i].LogEnd = end
			if s.Leader == q.o.NodeID {
				all[i].LastFetch, all[i].LastCaughtUp = now, now
			}
		}
		return all
	}
	s.Voters, s.Observers = own(s.Voters), own(s.Observers)
	return s
}

// status is Status with those that observe, whom the leader alone knows.
func (q *Quorum) status(ctx context.Context) Status {
	done := make(chan []Replica, 1)
	if !q.do(func() { done <- q.observing() }) {
		return q.Status()
	}
	select {
	case more := <-done:
		s := q.Status()
		s.Observers = append(s.Observers, more...)
		sortReplicas(s.Observers)
		return s
	case <-ctx.Done():
	case <-q.ctx.Done():
	}
	return q.Status()
}

// askStatus asks another node for its own.
func (q *Quorum) askStatus(ctx context.Context, node int32) (s Status, err error) {
	answer, err := q.o.Transport.Call(ctx, node, kindStatus, nil)
	if err == nil {
		err = json.Unmarshal(answer, &s)
	}
	if err != nil {
		return s, fmt.Errorf("ask node %d for the state of the metadata quorum: %w", node, err)
	}
	return s, nil
}

// LeaderStatus returns the leader's, which alone knows how far the others are, and asks it if need be.
// Where no leader answers it is this node's own, and names none.
func (q *Quorum) LeaderStatus(ctx context.Context) Status {
	own := q.Status()
	if own.Leader == q.o.NodeID || q.o.Transport == nil {
		return q.status(ctx)
	}
	for at, hops := own.Leader, 0; at >= 0 && hops < mostHops; hops++ {
		s, err := q.askStatus(ctx, at)
		if err != nil {
			q.log.Debug("the leader of the metadata quorum does not answer", "err", err)
			break
		}
		if s.Leader == at {
			return s
		}
		at = s.Leader // it has just gone there
	}
	own.Leader = -1
	return own
}

// mostHops bounds how often a node that no longer leads is asked who does.
const mostHops = 3

func (q *Quorum) idleStatus() Status {
	return Status{Leader: -1, Voters: []Replica{{NodeID: q.o.NodeID, Directory: q.o.Dir.ID()}}}
}

// publishStatus copies what others may ask for out of raft's state. Owner only.
func (q *Quorum) publishStatus() {
	b := q.raft.BasicStatus()
	next := q.idleStatus()
	if q.o.Transport != nil {
		next.Voters, next.Observers, next.Changing = q.replicas(b.RaftState == raft.StateLeader)
	}
	next.Epoch, next.HighWatermark = int32(b.GetTerm()), offsetOf(b.GetCommit())+1
	next.Leader = q.leaderNode(b.Lead)
	q.st.log.AdvanceHighWatermark(max(next.HighWatermark, 0))
	// Applied, for raft's commit may be ahead of the log here: at an index that it counts as committed there can still be the
	// entry of a leader that was deposed, which is just being written over. Who follows would take that one for committed.
	now := seen{lead: b.Lead, leader: q.members[b.Lead], term: b.GetTerm(), commit: b.Applied}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.status = next
	if now != q.mu.seen {
		q.mu.seen = now
		close(q.mu.moved)
		q.mu.moved = make(chan struct{})
	}
}

// replicas lists the members as raft has them. Owner only.
func (q *Quorum) replicas(leads bool) (voters, observers []Replica, changing bool) {
	q.mu.Lock()
	conf, members := q.mu.confs[len(q.mu.confs)-1].state, q.mu.confs[len(q.mu.confs)-1].members
	q.mu.Unlock()
	replica := func(id uint64) (Replica, bool) {
		m, known := q.members[id]
		r := Replica{NodeID: m.NodeID, Directory: m.Directory, LogEnd: -1, Listeners: members.listeners(m.NodeID)}
		if v := q.voices[id]; v != nil && leads && id != q.self {
			r.LastFetch, r.LastCaughtUp = v.at, v.caughtUp
		}
		return r, known
	}
	add := func(to []Replica, ids []uint64) []Replica {
		for _, id := range ids {
			if r, known := replica(id); known {
				to = append(to, r)
			}
		}
		sortReplicas(to)
		return to
	}
	voters, observers = add(nil, conf.GetVoters()), add(nil, conf.GetLearners())
	if !leads {
		clear(q.observers)
	} else {
		q.raft.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
			for _, all := range [][]Replica{voters, observers} {
				for i := range all {
					if m := (Member{all[i].NodeID, all[i].Directory}); m == q.members[id] {
						all[i].LogEnd = offsetOf(p.Match) + 1
					}
				}
			}
		})
	}
	return voters, observers, len(conf.GetVotersOutgoing()) > 0
}

func sortReplicas(all []Replica) {
	slices.SortFunc(all, func(a, b Replica) int {
		return compareMembers(Member{a.NodeID, a.Directory}, Member{b.NodeID, b.Directory})
	})
}

// raftLogger sends raft's own words to the log: as debug output, for what matters of them is
// reported by this package in its own.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(v ...any)              { l.log.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Debugf(f string, v ...any)   { l.log.Debug(fmt.Sprintf(f, v...)) }
func (l raftLogger) Info(v ...any)               { l.log.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Infof(f string, v ...any)    { l.log.Debug(fmt.Sprintf(f, v...)) }
func (l raftLogger) Warning(v ...any)            { l.log.Warn(fmt.Sprint(v...)) }
func (l raftLogger) Warningf(f string, v ...any) { l.log.Warn(fmt.Sprintf(f, v...)) }
func (l raftLogger) Error(v ...any)              { l.log.Error(fmt.Sprint(v...)) }
func (l raftLogger) Errorf(f string, v ...any)   { l.log.Error(fmt.Sprintf(f, v...)) }

// Fatal and Panic of raft's logger must not return: recoverAs makes errors of them.
func (l raftLogger) Fatal(v ...any)            { panic("BUG: raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(f string, v ...any) { panic("BUG: raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Panic(v ...any)            { panic("BUG: raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Panicf(f string, v ...any) { panic("BUG: raft: " + fmt.Sprintf(f, v...)) }
