package quorum

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/disk"
	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

// Nodes without a vote fetch what is committed, from the leader or whoever knows one, and a snapshot in
// pieces where the log no longer reaches back to them (follow.go). The leader remembers who fetched, as
// its observers.

const (
	// fetchWait is how long a fetch waits for news.
	fetchWait = 500 * time.Millisecond
	// observerPatience is how long one that fetches no more is still an observer, as in Kafka.
	observerPatience = 5 * time.Minute
	// maxObservers bounds those that are remembered; more may fetch.
	maxObservers = 4096
	// observerEvery is how often, in ticks, those are forgotten that fetch no more.
	observerEvery = 100
)

var (
	errNoLeaderKnown = errors.New("no leader of the metadata quorum is known here")
	errSnapshotGone  = errors.New("that snapshot is not here")
)

// entryID names an entry of raft's.
type entryID struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// observed is what is known of a node that fetches.
type observed struct {
	at       time.Time
	end      uint64 // of the log then: its last index
	has      uint64 // the last entry that it has
	caughtUp time.Time
}

// seen is what a fetch is answered by.
type seen struct {
	lead   uint64 // raft's id of the leader
	leader Member
	term   uint64
	commit uint64
}

// fetchHead goes before raft's message in the answer to a fetch.
type fetchHead struct {
	Leader Member `json:"leader"`
	// Listeners are where it is, if it became a voter on request.
	Listeners []Listener `json:"listeners,omitempty"`
	// Apart: the asker's entry is not in this log. It is to ask from the last that it knows to be committed.
	Apart bool `json:"apart,omitempty"`
	// Bytes is the length of the snapshot, where the message is one.
	Bytes int64 `json:"bytes,omitempty"`
}

const headLengthBytes = 4

func encodeFetched(h fetchHead, m *pb.Message) ([]byte, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the head of an answer to a fetch: %w", err)
	}
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...)
	if m == nil {
		return b, nil
	}
	b, err = proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("encode fetched metadata: %w", err)
	}
	return b, nil
}

func decodeFetched(b []byte) (h fetchHead, m *pb.Message, err error) {
	if len(b) < headLengthBytes || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-headLengthBytes) {
		return h, nil, fmt.Errorf("an answer to a fetch of %d bytes: %w", len(b), errPiece)
	}
	n := headLengthBytes + int(binary.BigEndian.Uint32(b))
	if err := json.Unmarshal(b[headLengthBytes:n], &h); err != nil {
		return h, nil, fmt.Errorf("the head of an answer to a fetch: %w", err)
	}
	m = &pb.Message{}
	if err := proto.Unmarshal(b[n:], m); err != nil {
		return h, nil, fmt.Errorf("fetched metadata: %w", err)
	}
	return h, m, nil
}

// answerFetch gives what is committed after the asker's last entry, and waits a while for it.
func (q *Quorum) answerFetch(ctx context.Context, from peer.Node, body []byte) ([]byte, error) {
	var has entryID
	if err := json.Unmarshal(body, &has); err != nil {
		return nil, fmt.Errorf("a fetch of metadata: %w", err)
	}
	asker := Member{from.ID, metadata.UUID(from.Directory)}
	if !q.do(func() { q.noteObserver(asker, has.Index) }) {
		return nil, ErrClosed
	}
	patience := time.NewTimer(fetchWait)
	defer patience.Stop()
	for late := false; ; {
		q.mu.Lock()
		now, moved := q.mu.seen, q.mu.moved
		q.mu.Unlock()
		if now.lead == raft.None || now.leader == (Member{}) {
			return nil, errNoLeaderKnown
		}
		answer, news, err := q.feed(asker, has, &now)
		if err != nil || news || late {
			return answer, err
		}
		select {
		case <-moved:
		case <-patience.C:
			late = true
		case <-q.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// feed puts into raft's words what the asker lacks; news is false where that is nothing.
func (q *Quorum) feed(asker Member, has entryID, now *seen) (answer []byte, news bool, err error) {
	h := fetchHead{Leader: now.leader, Listeners: q.membership().listeners(now.leader.NodeID)}
	m := &pb.Message{
		Type: pb.MsgApp.Enum(), From: new(now.lead), To: new(asker.raftID()), Term: new(now.term), Commit: new(now.commit),
		Index: new(has.Index), LogTerm: new(has.Term),
	}
	last, _ := q.st.LastIndex() // it has no error
	term, err := q.st.Term(has.Index)
	switch {
	case has.Index < q.st.floor().Index || errors.Is(err, raft.ErrCompacted):
		return q.feedSnapshot(asker, h, m)
	case errors.Is(err, raft.ErrUnavailable) || err == nil && has.Index > now.commit:
		// It has what is not committed here. Either it is ahead, or what it has never will be.
		h.Apart = has.Index > now.commit
		answer, err = encodeFetched(h, nil)
		return answer, false, err
	case err != nil:
		return nil, false, fmt.Errorf("read metadata for node %d: %w", asker.NodeID, err)
	case term != has.Term:
		h.Apart = true
		answer, err = encodeFetched(h, nil)
		return answer, true, err
	}
	if upTo := min(now.commit, last); upTo > has.Index {
		if m.Entries, err = q.st.Entries(has.Index+1, upTo+1, maxMessage); err != nil {
			if errors.Is(err, raft.ErrCompacted) { // a snapshot has come between
				return q.feedSnapshot(asker, h, m)
			}
			return nil, false, fmt.Errorf("read metadata for node %d: %w", asker.NodeID, err)
		}
	}
	answer, err = encodeFetched(h, m)
	return answer, len(m.GetEntries()) > 0, err
}

// feedSnapshot names the snapshot to be fetched. Raft takes none in which it does not find itself, so
// the asker stands in it as a member without a vote.
func (q *Quorum) feedSnapshot(asker Member, h fetchHead, m *pb.Message) (answer []byte, news bool, err error) {
	s, err := q.st.Snapshot()
	if err != nil { // a newer one is being written
		answer, err = encodeFetched(h, nil)
		return answer, false, err
	}
	meta := proto.Clone(s.GetMetadata()).(*pb.SnapshotMetadata)
	if id := asker.raftID(); !slices.Contains(idsOf(meta.GetConfState()), id) {
		meta.ConfState.Learners = append(meta.ConfState.Learners, id)
	}
	size, err := q.sizeOfSnapshot(s.GetMetadata())
	if err != nil {
		return nil, false, err
	}
	h.Bytes = size
	answer, err = encodeFetched(h, &pb.Message{
		Type: pb.MsgSnap.Enum(), From: m.From, To: m.To, Term: m.Term, Snapshot: &pb.Snapshot{Metadata: meta},
	})
	return answer, true, err
}

func (q *Quorum) sizeOfSnapshot(meta *pb.SnapshotMetadata) (int64, error) {
	f, err := q.st.fs.Open(q.st.dir+"/"+snapshotName(meta), disk.Read)
	if err != nil {
		return 0, fmt.Errorf("open snapshot %s: %w: %w", snapshotName(meta), errSnapshotGone, err)
	}
	size, err := f.Size()
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("size of snapshot %s: %w", snapshotName(meta), err)
	}
	return size, nil
}

// pieceQuestion asks for a piece of the snapshot that ends with an entry.
type pieceQuestion struct {
	entryID
	From int64 `json:"from"`
}

// answerPiece gives one.
func (q *Quorum) answerPiece(_ context.Context, _ peer.Node, body []byte) (piece []byte, err error) {
	var asked pieceQuestion
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fmt.Errorf("a question for a piece of a snapshot: %w", err)
	}
	name := snapshotName(&pb.SnapshotMetadata{Index: new(asked.Index), Term: new(asked.Term)})
	f, err := q.st.fs.Open(q.st.dir+"/"+name, disk.Read)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w: %w", name, errSnapshotGone, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("size of snapshot %s: %w", name, err)
	}
	if asked.From < 0 || asked.From >= size {
		return nil, fmt.Errorf("a piece of snapshot %s from %d on, it has %d bytes: %w", name, asked.From, size, errPiece)
	}
	piece = make([]byte, min(transferPiece, size-asked.From))
	if _, err := f.ReadAt(piece, asked.From); err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	return piece, nil
}

// noteObserver remembers who fetches, while this node leads. Owner only.
func (q *Quorum) noteObserver(m Member, has uint64) {
	if q.raft.BasicStatus().RaftState != raft.StateLeader {
		return
	}
	o := q.observers[m]
	if o == nil {
		if len(q.observers) >= maxObservers {
			return
		}
		o = &observed{}
		q.observers[m] = o
	}
	now := q.o.Now()
	last, _ := q.st.LastIndex() // it has no error
	switch {
	case has >= last:
		o.caughtUp = now
	case has >= o.end && o.end > 0: // all that there was when it asked before
		o.caughtUp = o.at
	}
	o.at, o.end, o.has = now, last, has
}

// forgetObservers drops those that fetch no more. Owner only.
func (q *Quorum) forgetObservers() {
	now := q.o.Now()
	for m, o := range q.observers {
		if now.Sub(o.at) > observerPatience {
			delete(q.observers, m)
		}
	}
}

// observing lists who fetches here. Owner only.
func (q *Quorum) observing() (all []Replica) {
	q.mu.Lock()
	members := idsOf(q.mu.confs[len(q.mu.confs)-1].state)
	q.mu.Unlock()
	for m, o := range q.observers {
		if slices.Contains(members, m.raftID()) {
			continue // it is a member by now
		}
		all = append(all, Replica{
			NodeID: m.NodeID, Directory: m.Directory, LogEnd: offsetOf(o.has) + 1, LastFetch: o.at, LastCaughtUp: o.caughtUp,
		})
	}
	return all
}
