package quorum

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// fullDiskPause is how long a full disk is left alone before the waiting entries are tried again.
const fullDiskPause = 500 * time.Millisecond

// write is a message to the disk; one with a snapshot brings the file.
type write struct {
	*pb.Message
	file *snapshotFile
}

// appendAll writes what raft asks for: everything that is queued, one flush, then all answers.
func (q *Quorum) appendAll() {
	for {
		var asked []write
		select {
		case w := <-q.appends:
			if q.ctx.Err() != nil {
				return
			}
			asked = append(asked, w)
		case <-q.ctx.Done():
			return
		}
		for range len(q.appends) {
			asked = append(asked, <-q.appends)
		}
		for len(asked) > 0 {
			n := 0
			for n < len(asked) && asked[n].GetSnapshot() == nil {
				n++
			}
			err := q.saveAll(asked[:n])
			if n == 0 {
				n = 1
				if err = q.install(asked[0].Message, asked[0].file); err == nil {
					err = q.saveAll(asked[:1]) // entries that came behind the snapshot, before raft was asked
				}
			}
			if err != nil {
				if q.ctx.Err() == nil {
					q.fail(fmt.Errorf("write metadata: %w", err))
				}
				return
			}
			if !q.answer(asked[:n]) {
				return
			}
			asked = asked[n:]
		}
	}
}

// answer releases what waited for the writes, in raft's order.
func (q *Quorum) answer(written []write) bool {
	return q.do(func() {
		for _, w := range written {
			q.deliver(w.GetResponses())
		}
	})
}

// saveAll writes the messages' entries together, then the newest term and vote. It waits while
// the disk is full: what raft has accepted must not be lost, and a write that was refused whole
// may be made again, unlike a flush.
func (q *Quorum) saveAll(asked []write) error {
	var entries []*pb.Entry
	var hard *pb.HardState
	flush := func() error {
		err := q.saveWhenThereIsSpace(entries, hard)
		entries, hard = nil, nil
		return err
	}
	for _, w := range asked {
		more := w.GetEntries()
		// Entries that replace earlier ones of the same group must not be written after them.
		if len(more) > 0 && len(entries) > 0 && more[0].GetIndex() != entries[len(entries)-1].GetIndex()+1 {
			if err := flush(); err != nil {
				return err
			}
		}
		entries = append(entries, more...)
		if h := hardOf(w.Message); h != nil {
			hard = h
		}
	}
	return flush()
}

// hardOf is the term and vote that a message to the disk brings, nil for none.
func hardOf(m *pb.Message) *pb.HardState {
	if m.Term == nil {
		return nil
	}
	return &pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
}

func (q *Quorum) saveWhenThereIsSpace(entries []*pb.Entry, hard *pb.HardState) error {
	return q.whenThereIsSpace(func() error { return q.st.save(q.ctx, entries, hard, q.o.Now().UnixMilli()) })
}

// whenThereIsSpace does what may be done again after ErrNoSpace, as often as it takes.
func (q *Quorum) whenThereIsSpace(write func() error) error {
	for {
		err := write()
		if !isNoSpace(err) {
			q.setFull(false)
			return err
		}
		if !q.isFull() {
			q.log.Error("metadata directory is full: changes of metadata are refused until there is space", "dir", q.st.dir)
		}
		q.setFull(true)
		if !pause(q.ctx, fullDiskPause) {
			return errors.Join(err, context.Cause(q.ctx))
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
