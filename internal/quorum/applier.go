package quorum

import (
	"fmt"

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
		for _, r := range m.GetResponses() {
			_ = q.raft.Step(r) // raft drops what is out of date, and says so
		}
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
		q.do(func() { q.raft.ApplyConfChange(change) })
	}
	if err := q.o.Machine.Apply(c); err != nil {
		return err
	}
	if e.GetType() == pb.EntryNormal && len(e.GetData()) == 0 {
		q.do(func() { q.lead(e.GetTerm()) })
	}
	return nil
}

// lead tells the Machine that this node leads, once the entry that began its term has been
// applied, and everything before it with it.
func (q *Quorum) lead(term uint64) {
	if s := q.raft.BasicStatus(); s.RaftState != raft.StateLeader || s.GetTerm() != term {
		return
	}
	l := metadata.Leadership{Epoch: int32(term), Leader: q.o.NodeID, Mine: true}
	q.leading = l
	q.apply(func() error { q.o.Machine.Leadership(l); return nil })
}

// maybeSnapshot starts one if enough has been applied since the last. (The log's size would not
// tell: its active segment stays, whatever a snapshot has made superfluous in it.) Applier only.
func (q *Quorum) maybeSnapshot() {
	if q.appliedBytes >= q.o.SnapshotBytes && q.startSnapshot() {
		q.appliedBytes = 0
	}
}

// snapshotByTime starts one if there are entries that no snapshot has, and the last was long ago. Owner only.
func (q *Quorum) snapshotByTime() {
	now := q.o.Now()
	if q.o.SnapshotInterval <= 0 || now.Sub(q.snapped) < q.o.SnapshotInterval {
		return
	}
	q.snapped = now
	if q.raft.BasicStatus().Applied > q.st.snapshotMeta().GetIndex() {
		q.startSnapshot()
	}
}

// startSnapshot writes a snapshot on a goroutine of its own, unless one is being written.
func (q *Quorum) startSnapshot() bool {
	select {
	case q.snapshotting <- struct{}{}:
	default:
		return false
	}
	q.running.Go(func() {
		defer func() { <-q.snapshotting }()
		if err := q.takeSnapshot(); err != nil && q.ctx.Err() == nil {
			if isNoSpace(err) {
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
	before := q.st.snapshotMeta()
	if indexOf(s.Offset) <= before.GetIndex() {
		return nil
	}
	meta := &pb.SnapshotMetadata{
		Index: new(indexOf(s.Offset)), Term: new(uint64(s.Epoch)), ConfState: before.GetConfState(),
	}
	if err := q.st.saveSnapshot(meta, s.Records, q.o.Now().UnixMilli()); err != nil {
		return err
	}
	q.log.Info("metadata snapshot written", "offset", s.Offset, "records", len(s.Records))
	return q.st.compact(meta)
}
