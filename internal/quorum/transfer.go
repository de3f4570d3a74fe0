package quorum

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/disk"
	"barnabas/internal/peer"
	"barnabas/internal/wire"
)

// A snapshot travels in pieces, each a request that is answered once it is taken, so that the messages
// between them never wait for long:
//
//	index, term   8 bytes each: which snapshot
//	total, from   8 bytes each: its length, and where the piece begins
//	rest          the piece; with from = total it is raft's message, which ends the transfer
const (
	transferHeadBytes = 4 * 8
	transferPiece     = 256 << 10
	maxTransferBytes  = 1 << 30 // of a snapshot that is taken from another node
	piecePatience     = 5 * time.Second
)

// sendSnapshot streams the newest snapshot to a node that raft cannot bring up to date from the log,
// and tells raft what became of it. One at a time for each node. Owner only.
func (q *Quorum) sendSnapshot(to int32, m *pb.Message) {
	id := m.GetTo()
	if q.sending[id] {
		return
	}
	q.sending[id] = true
	q.running.Go(func() {
		err := q.transfer(to, m)
		outcome := raft.SnapshotFinish
		if err != nil {
			outcome = raft.SnapshotFailure
			if q.ctx.Err() == nil {
				q.log.Info("a snapshot of the metadata could not be sent and will be again", "to", to, "err", err)
			}
		}
		q.do(func() {
			delete(q.sending, id)
			q.raft.ReportSnapshot(id, outcome)
		})
	})
}

func (q *Quorum) transfer(to int32, m *pb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	name := snapshotName(meta)
	data, err := disk.ReadFile(q.st.fs, q.st.dir+"/"+name, maxTransferBytes)
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", name, err)
	}
	if _, err := decodeSnapshot(q.st.checker, data); err != nil { // it has rotten since: another is written (trap 9)
		q.log.Error("the newest snapshot of the metadata is damaged and will be written anew", "file", name, "err", err)
		q.st.needSnapshot(meta.GetIndex() + 1)
		return fmt.Errorf("send snapshot %s: %w", name, err)
	}
	last, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the message with snapshot %s: %w", name, err)
	}
	for from := 0; ; from += transferPiece {
		from = min(from, len(data))
		piece := last
		if from < len(data) {
			piece = data[from:min(from+transferPiece, len(data))]
		}
		ctx, cancel := context.WithTimeout(q.ctx, piecePatience)
		_, err := q.o.Transport.Call(ctx, to, kindSnapshot, encodePiece(meta, len(data), from, piece))
		cancel()
		if err != nil {
			return fmt.Errorf("send snapshot %s: %w", name, err)
		}
		if from == len(data) {
			q.log.Info("metadata snapshot sent", "to", to, "offset", offsetOf(meta.GetIndex()), "bytes", len(data))
			return nil
		}
	}
}

func encodePiece(meta *pb.SnapshotMetadata, total, from int, piece []byte) []byte {
	b := make([]byte, 0, transferHeadBytes+len(piece))
	for _, n := range []uint64{meta.GetIndex(), meta.GetTerm(), uint64(total), uint64(from)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, piece...)
}

// arriving is a snapshot of which some pieces have come.
type arriving struct {
	from        peer.Node
	index, term uint64
	total       uint64
	data        []byte
}

var errPiece = errors.New("this piece of a snapshot does not follow what came before")

// add takes the next piece; done: it was the message at the end.
func (a *arriving) add(from peer.Node, b []byte) (message []byte, done bool, err error) {
	if len(b) < transferHeadBytes {
		return nil, false, fmt.Errorf("%d bytes: %w", len(b), errPiece)
	}
	var head [4]uint64
	for i := range head {
		head[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	piece := b[transferHeadBytes:]
	if head[3] == 0 { // a transfer begins, in the place of any other
		*a = arriving{from: from, index: head[0], term: head[1], total: head[2]}
	}
	switch {
	case a.from != from || a.index != head[0] || a.term != head[1] || a.total != head[2] || head[3] != uint64(len(a.data)):
		return nil, false, errPiece
	case a.total > maxTransferBytes:
		return nil, false, fmt.Errorf("a snapshot of %d bytes, at most %d: %w", a.total, maxTransferBytes, errPiece)
	case head[3] == a.total:
		return piece, true, nil
	case uint64(len(a.data)+len(piece)) > a.total:
		return nil, false, errPiece
	}
	a.data = append(a.data, piece...)
	return nil, false, nil
}

// receiveSnapshot takes a piece. Its bytes are only valid now, and pieces are only taken one at a time.
func (q *Quorum) receiveSnapshot(_ context.Context, from peer.Node, body []byte) (wire.Reply, bool, error) {
	select {
	case q.intake <- struct{}{}:
		defer func() { <-q.intake }()
	case <-q.ctx.Done():
		return refused(ErrClosed), true, nil
	}
	message, done, err := q.arriving.add(from, body)
	if err != nil {
		return refused(err), true, nil
	}
	if !done {
		return nil, true, nil
	}
	data := q.arriving.data
	q.arriving = arriving{}
	if err := q.takeSnapshotFrom(data, message); err != nil {
		return refused(err), true, nil
	}
	return nil, true, nil
}

func refused(err error) wire.Reply {
	return func(context.Context, *wire.Out) error { return err }
}

// takeSnapshotFrom hands a whole snapshot to raft, which decides whether it is news.
func (q *Quorum) takeSnapshotFrom(data, message []byte) error {
	m := &pb.Message{}
	if err := proto.Unmarshal(message, m); err != nil {
		return fmt.Errorf("message with a snapshot: %w", err)
	}
	file, err := decodeSnapshot(q.st.checker, data)
	if err != nil {
		return err
	}
	meta := m.GetSnapshot().GetMetadata()
	if m.GetType() != pb.MsgSnap || m.GetTo() != q.self || snapshotName(meta) != snapshotName(file.meta) || !proto.Equal(meta, file.meta) {
		return fmt.Errorf("snapshot %s came with a message for another: %w", snapshotName(file.meta), errPiece)
	}
	file.data = data
	if !q.do(func() {
		q.spokenTo(m)
		q.stepSnapshot(m, file)
	}) {
		return ErrClosed
	}
	return nil
}

// stepSnapshot lets raft decide whether a snapshot is news. Owner only.
func (q *Quorum) stepSnapshot(m *pb.Message, file *snapshotFile) {
	before := q.raft.BasicStatus().GetCommit()
	_ = q.raft.Step(m) // raft drops what is out of date, and says so
	if at := q.raft.BasicStatus().GetCommit(); at <= before || at != file.meta.GetIndex() {
		return // it is no news: raft may still want one that came before
	}
	q.received = file
	q.learn(file.members.Members)
}

// install puts a snapshot from the leader in the place of the log: first it is durable, then term and
// vote, then the log is cut, for in another order a crash between could lose what was acknowledged.
// Appender only.
func (q *Quorum) install(m *pb.Message, file *snapshotFile) error {
	meta := m.GetSnapshot().GetMetadata()
	if file == nil || snapshotName(file.meta) != snapshotName(meta) {
		return fmt.Errorf("BUG: raft wants snapshot %s installed, which is not at hand", snapshotName(meta))
	}
	select { // a snapshot of this node's own that is being written would come out older
	case q.snapshotting <- struct{}{}:
		defer func() { <-q.snapshotting }()
	case <-q.ctx.Done():
		return context.Cause(q.ctx)
	}
	if err := q.whenThereIsSpace(func() error { return q.st.install(file, hardOf(m)) }); err != nil {
		return err
	}
	restored := make(chan error, 1)
	if !q.do(func() { q.apply(func() error { err := q.restore(file); restored <- err; return err }) }) {
		return context.Cause(q.ctx)
	}
	select {
	case err := <-restored:
		return err
	case <-q.ctx.Done():
		return context.Cause(q.ctx)
	}
}
