package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A node without a vote fetches what the voters have committed (observers.go). What it is given it hands
// to raft as if its leader had said it, so that log, snapshots and applying are the same as a voter's, and
// it can become one as it stands. It ends when a leader speaks to it by itself: then it is a member.

const (
	fetchPatience = fetchWait + 1500*time.Millisecond // for an answer
	// fetchPause is between a fetch that failed and the next, by another node, plus as much at random.
	fetchPause = 100 * time.Millisecond
	// manyApart is how many answers in a row say that what this node has is not in the cluster's log until
	// that is taken for the truth: one does after a change of leaders.
	manyApart = 50
)

// spokenTo notes that a leader has spoken to this node. Owner only.
func (q *Quorum) spokenTo(m *pb.Message) {
	switch m.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		if m.GetTerm() >= q.raft.BasicStatus().GetTerm() {
			q.quiet, q.following = 0, false
		}
	}
}

// follow begins to fetch, first from a node that has said that this one has no vote. Owner only.
func (q *Quorum) follow(from int32) {
	if q.following || q.ctx.Err() != nil {
		return
	}
	q.following, q.fed, q.apart = true, nil, 0
	q.log.Info("this node has no vote in the metadata quorum, and follows it", "from", from)
	if q.fetching {
		return // the goroutine of before has not yet seen that it was not needed
	}
	q.fetching = true
	dice := q.random.Uint64()
	q.running.Go(func() { q.fetchAll(from, dice) })
}

// fetchAll fetches until a leader speaks to this node.
func (q *Quorum) fetchAll(from int32, dice uint64) {
	for q.ctx.Err() == nil {
		has, following, ok := q.lastFed()
		if !ok || !following {
			return
		}
		leader, err := q.fetch(from, has)
		if err == nil {
			if leader != q.o.NodeID {
				from = leader
			}
			continue
		}
		if q.ctx.Err() != nil {
			return
		}
		q.log.Debug("metadata could not be fetched", "from", from, "err", err)
		others := q.others()
		if len(others) > 0 {
			from = others[(slices.Index(others, from)+1)%len(others)]
		}
		dice = dice*6364136223846793005 + 1442695040888963407 // Knuth's, for jitter
		if !pause(q.ctx, fetchPause+time.Duration(dice>>33)%fetchPause) {
			return
		}
	}
}

// lastFed is the entry after which this node needs more.
func (q *Quorum) lastFed() (has entryID, following, ok bool) {
	type answer struct {
		has       entryID
		following bool
	}
	done := make(chan answer, 1)
	if !q.do(func() {
		a := answer{following: q.following}
		q.fetching = q.following
		if q.fed != nil {
			a.has = *q.fed
		} else if a.has.Index = q.raft.BasicStatus().GetCommit(); a.has.Index > 0 {
			a.has.Term, _ = q.st.Term(a.has.Index) // 0 where it is just being written: then another entry's is asked for
		}
		done <- a
	}) {
		return entryID{}, false, false
	}
	select {
	case a := <-done:
		return a.has, a.following, true
	case <-q.ctx.Done():
		return entryID{}, false, false
	}
}

// fetch asks a node, and hands on what it answers. leader is who leads, by its word.
func (q *Quorum) fetch(from int32, has entryID) (leader int32, err error) {
	asked, err := json.Marshal(has)
	if err != nil {
		return 0, fmt.Errorf("encode a fetch: %w", err)
	}
	ctx, cancel := context.WithTimeout(q.ctx, fetchPatience)
	defer cancel()
	answer, err := q.o.Transport.Call(ctx, from, kindFetch, asked)
	if err != nil {
		return 0, fmt.Errorf("fetch metadata from node %d: %w", from, err)
	}
	h, m, err := decodeFetched(answer)
	if err != nil {
		return 0, fmt.Errorf("fetch metadata from node %d: %w", from, err)
	}
	var file *snapshotFile
	if m.GetType() == pb.MsgSnap && m.Snapshot != nil {
		if file, err = q.fetchSnapshot(from, m.GetSnapshot().GetMetadata(), h.Bytes); err != nil {
			return 0, fmt.Errorf("fetch a snapshot of the metadata from node %d: %w", from, err)
		}
	}
	q.reach([]address{{h.Leader.NodeID, h.Listeners}})
	if !q.do(func() { q.take(h, m, file) }) {
		return 0, ErrClosed
	}
	if h.Apart { // what is committed here may just be being written
		pause(q.ctx, fetchPause)
	}
	return h.Leader.NodeID, nil
}

// take hands raft what was fetched. Owner only.
func (q *Quorum) take(h fetchHead, m *pb.Message, file *snapshotFile) {
	if !q.following {
		return
	}
	q.learn([]Member{h.Leader})
	q.quiet = 0
	if h.Apart {
		q.fed = nil
		if q.apart++; q.apart == manyApart {
			q.log.Error("the committed metadata of this node is not that of the cluster, which was perhaps recovered without it: "+
				"empty the data directories of this node and start it again", "offset", offsetOf(q.raft.BasicStatus().GetCommit()))
		}
		return
	}
	q.apart = 0
	if m.Type == nil || m.GetTo() != q.self || m.GetFrom() != h.Leader.raftID() {
		return // nothing new
	}
	// This node has no vote, and may have seen a later term when it had one.
	m.Term = new(max(m.GetTerm(), q.raft.BasicStatus().GetTerm()))
	switch {
	case file != nil:
		q.fed = &entryID{file.meta.GetIndex(), file.meta.GetTerm()}
		q.stepSnapshot(m, file)
	case m.GetType() == pb.MsgApp:
		if n := len(m.GetEntries()); n > 0 {
			last := m.GetEntries()[n-1]
			q.fed = &entryID{last.GetIndex(), last.GetTerm()}
		}
		_ = q.raft.Step(m)
	}
}

// fetchSnapshot fetches a whole snapshot, as raft is told of it: with this node as a member without a vote.
func (q *Quorum) fetchSnapshot(from int32, meta *pb.SnapshotMetadata, size int64) (*snapshotFile, error) {
	if size <= 0 || size > maxTransferBytes {
		return nil, fmt.Errorf("a snapshot of %d bytes, at most %d: %w", size, maxTransferBytes, errPiece)
	}
	var data []byte
	for int64(len(data)) < size {
		asked, err := json.Marshal(pieceQuestion{entryID{meta.GetIndex(), meta.GetTerm()}, int64(len(data))})
		if err != nil {
			return nil, fmt.Errorf("encode a question for a piece: %w", err)
		}
		ctx, cancel := context.WithTimeout(q.ctx, piecePatience)
		piece, err := q.o.Transport.Call(ctx, from, kindPiece, asked)
		cancel()
		if err != nil {
			return nil, err
		}
		if len(piece) == 0 || int64(len(data)+len(piece)) > size {
			return nil, errPiece
		}
		data = append(data, piece...)
	}
	file, err := decodeSnapshot(q.st.checker, data)
	if err != nil {
		return nil, err
	}
	if snapshotName(file.meta) != snapshotName(meta) {
		return nil, fmt.Errorf("snapshot %s came for %s: %w", snapshotName(file.meta), snapshotName(meta), errPiece)
	}
	file.meta = meta
	if me := q.me(); !slices.Contains(file.members.Members, me) {
		file.members.Members = append(file.members.Members, me)
	}
	file.data, err = encodeSnapshot(file, q.o.Now().UnixMilli())
	return file, err
}
