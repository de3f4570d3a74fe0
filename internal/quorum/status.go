package quorum

import (
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3"

	"barnabas/internal/metadata"
)

// Status is the state of the quorum as this node sees it, for DescribeQuorum (KIP-595).
type Status struct {
	Leader        int32 // node id, -1: none known
	Epoch         int32
	HighWatermark int64 // everything below is committed
	Voters        []Replica
	Observers     []Replica
}

// Replica is one node's copy of the metadata log.
type Replica struct {
	NodeID    int32
	Directory metadata.UUID
	LogEnd    int64
	// LastFetch is when the replica last asked for records, LastCaughtUp when it last had all. Both
	// are zero where unknown; for the leader they are the time of asking.
	LastFetch, LastCaughtUp time.Time
}

// Status returns a snapshot; it waits for nothing.
func (q *Quorum) Status() Status {
	q.mu.Lock()
	s := q.mu.status
	q.mu.Unlock()
	self := s.Voters[0]
	self.LogEnd = q.st.log.Progress().End
	if s.Leader == q.o.NodeID {
		now := q.o.Now()
		self.LastFetch, self.LastCaughtUp = now, now
	}
	s.Voters = []Replica{self}
	return s
}

func (q *Quorum) idleStatus() Status {
	return Status{Leader: -1, Voters: []Replica{{NodeID: q.o.NodeID, Directory: q.o.Dir.ID()}}}
}

// publishStatus copies what others may ask for out of raft's state. Owner only.
func (q *Quorum) publishStatus() {
	b := q.raft.BasicStatus()
	next := q.idleStatus()
	next.Epoch, next.HighWatermark = int32(b.GetTerm()), offsetOf(b.GetCommit())+1
	if b.Lead == q.self && b.Lead != raft.None {
		next.Leader = q.o.NodeID
	}
	q.st.log.AdvanceHighWatermark(max(next.HighWatermark, 0))
	q.mu.Lock()
	q.mu.status = next
	q.mu.Unlock()
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
