package quorum

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/metadata"
)

// applyAll calls the Machine, in raft's order.
func (q *Quorum) applyAll() {
	for {
		select {
		case f := <-q.applies:
			if q.ctx.Err() != nil {
				return
			}
			if err := f(); err != nil {
				q.fail(fmt.Errorf("apply metadata: %w", err))
				return
			}
		case <-q.ctx.Done():
			return
		}
	}
}

// applyEntries takes a group of committed entries, then tells raft so.
func (q *Quorum) applyEntries(m *pb.Message) error {
	for _, e := range m.GetEntries() {
		if err := q.applyEntry(e); err != nil {
			return err
		}
	}
	q.do(func() {
		q.deliver(m.GetResponses())
		q.publishStatus() // raft may have nothing more to say, and who follows waits for what is applied
	})
	q.maybeSnapshot()
	return nil
}

func (q *Quorum) applyEntry(e *pb.Entry) error {
	q.appliedBytes += int64(len(e.GetData()))
	c := metadata.Committed{Offset: offsetOf(e.GetIndex()), Epoch: int32(e.GetTerm())}
	switch e.GetType() {
	case pb.EntryNormal:
		id, records, err := decodeProposal(e)
		if err != nil {
			return err
		}
		c.Records = records
		if q.isOwn(id) {
			c.Proposal = id
		}
	default:
		change := &pb.ConfChangeV2{}
		if err := proto.Unmarshal(e.GetData(), change); err != nil {
			return fmt.Errorf("metadata entry %d: %w", e.GetIndex(), err)
		}
		if err := q.applyChange(e.GetIndex(), change); err != nil {
			return fmt.Errorf("metadata entry %d: %w", e.GetIndex(), err)
		}
	}
	if err := q.o.Machine.Apply(c); err != nil {
		return err
	}
	if e.GetType() == pb.EntryNormal && len(e.GetData()) == 0 {
		q.do(func() { q.lead(e.GetTerm()) })
	}
	return nil
}

// restore takes a leader's snapshot in the place of everything applied before.
func (q *Quorum) restore(f *snapshotFile) error {
	if f.meta.GetIndex() > 1 {
		if err := q.o.Machine.Restore(f.snapshot()); err != nil {
			return err
		}
	}
	q.appliedBytes = 0
	q.mu.Lock()
	q.mu.confs = []confAt{{f.meta.GetIndex(), f.meta.GetConfState(), f.members}}
	q.mu.Unlock()
	q.reach(f.members.Addresses)
	q.log.Info("metadata snapshot taken over", "offset", offsetOf(f.meta.GetIndex()), "records", len(f.records))
	q.nowJoined()
	return nil
}

// nowJoined closes Joined, once.
func (q *Quorum) nowJoined() {
	select {
	case <-q.joined:
	default:
		close(q.joined)
	}
}

// lead tells the Machine that this node leads, once the entry that began its term has been
// applied, and everything before it with it.
func (q *Quorum) lead(term uint64) {
	if s := q.raft.BasicStatus(); s.RaftState != raft.StateLeader || s.GetTerm() != term {
		return
	}
	l := metadata.Leadership{Epoch: int32(term), Leader: q.o.NodeID, Mine: true}
	q.leading = l
	clear(q.voices) // what was heard in an earlier term says nothing of this one
	q.apply(func() error { q.o.Machine.Leadership(l); return nil })
}

// maybeSnapshot starts one if enough has been applied since the last. (The log's size would not
// tell: its active segment stays, whatever a snapshot has made superfluous in it.) Applier only.
func (q *Quorum) maybeSnapshot() {
	if (q.appliedBytes >= q.o.SnapshotBytes || q.st.snapshotIsDue()) && q.startSnapshot() {
		q.appliedBytes = 0
	}
}

// snapshotByTime starts one if there are entries that no snapshot has, and the last was long ago. Owner only.
func (q *Quorum) snapshotByTime() {
	if q.st.snapshotIsDue() {
		q.startSnapshot()
		return
	}
	now := q.o.Now()
	if q.o.SnapshotInterval <= 0 || now.Sub(q.snapped) < q.o.SnapshotInterval {
		return
	}
	q.snapped = now
	if q.raft.BasicStatus().Applied > q.st.snapshotMeta().GetIndex() {
		q.startSnapshot()
	}
}

// fullDiskSnapshot is how long after a snapshot that found no space the next is tried.
const fullDiskSnapshot = 10 * time.Second

// startSnapshot writes a snapshot on a goroutine of its own, unless one is being written.
func (q *Quorum) startSnapshot() bool {
	if q.o.Now().UnixNano() < q.notBefore.Load() {
		return false
	}
	select {
	case q.snapshotting <- struct{}{}:
	default:
		return false
	}
	q.running.Go(func() {
		defer func() { <-q.snapshotting }()
		if err := q.takeSnapshot(); err != nil && q.ctx.Err() == nil {
			if isNoSpace(err) {
				q.notBefore.Store(q.o.Now().Add(fullDiskSnapshot).UnixNano())
				q.log.Warn("no space for a snapshot of the metadata; the log keeps growing", "err", err)
				return
			}
			q.fail(fmt.Errorf("metadata snapshot: %w", err))
		}
	})
	return true
}

// takeSnapshot writes the Machine's state to a file and cuts the log below it.
func (q *Quorum) takeSnapshot() error {
	s := q.o.Machine.Snapshot()
	index := indexOf(s.Offset)
	if index <= q.st.snapshotMeta().GetIndex() {
		return nil
	}
	conf := q.confAsOf(index)
	f := &snapshotFile{
		meta:    &pb.SnapshotMetadata{Index: new(index), Term: new(uint64(s.Epoch)), ConfState: conf.state},
		members: conf.members, records: s.Records,
	}
	if err := q.st.saveSnapshot(f, q.o.Now().UnixMilli()); err != nil {
		return err
	}
	q.log.Info("metadata snapshot written", "offset", s.Offset, "records", len(s.Records))
	q.forgetConfs(index)
	return q.st.compact(f.meta)
}
