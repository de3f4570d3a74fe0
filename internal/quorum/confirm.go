package quorum

import (
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3"
)

// maxConfirming is how many callers of Confirm may wait; beyond it they are told ErrBusy. They wait only while a majority
// is silent, which ends this node's leadership within two election timeouts.
const maxConfirming = maxInbox

// confirming is a question to the voters whether this node leads still, and who waits for the answer. There is one at a
// time: whoever comes meanwhile shares the next, for its answer must be younger than the call. The owner's alone.
type confirming struct {
	number uint64 // of the question; no two have one
	term   uint64
	asked  []chan<- error // an empty slice: there is no question
	next   []chan<- error
}

// Confirm returns once a majority of the voters has said, after it was called, that this node leads in epoch. Until then
// nobody else has committed anything: what this node knows to be committed is all there was when Confirm was called. It
// writes nothing (raft's ReadIndex; Ongaro, Consensus: Bridging Theory and Practice, 6.4).
// Errors: ErrNotLeader, ErrBusy, ErrClosed, ctx's.
func (q *Quorum) Confirm(ctx context.Context, epoch int32) error {
	done := make(chan error, 1)
	err := ErrClosed
	if q.do(func() { q.confirm(epoch, done) }) {
		select {
		case err = <-done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-q.ctx.Done():
		}
	}
	if err != nil {
		return fmt.Errorf("confirm who leads the metadata quorum: %w", err)
	}
	return nil
}

// confirm takes who asks. Owner only.
func (q *Quorum) confirm(epoch int32, done chan<- error) {
	c := &q.confirming
	s := q.raft.BasicStatus()
	switch {
	case s.RaftState != raft.StateLeader || int32(s.GetTerm()) != epoch:
		done <- ErrNotLeader
	case len(c.asked)+len(c.next) >= maxConfirming:
		done <- ErrBusy
	case len(c.asked) > 0:
		c.next = append(c.next, done)
	default:
		c.term = s.GetTerm()
		c.asked = append(c.asked, done)
		q.question()
	}
}

// question asks the voters. Owner only.
func (q *Quorum) question() {
	q.confirming.number++
	q.askAgain()
}

// askAgain puts the question that is open once more, under its number: raft counts the answers when one comes, and of voters that
// have become fewer none may. Owner only.
func (q *Quorum) askAgain() {
	if len(q.confirming.asked) > 0 {
		q.raft.ReadIndex(binary.BigEndian.AppendUint64(nil, q.confirming.number))
	}
}

// confirmed takes what raft says that the voters have answered. Owner only.
func (q *Quorum) confirmed(states []raft.ReadState) {
	c := &q.confirming
	for _, s := range states {
		if len(c.asked) == 0 || binary.BigEndian.Uint64(s.RequestCtx) != c.number {
			continue // of an earlier leadership
		}
		for _, done := range c.asked {
			done <- nil
		}
		c.asked, c.next = c.next, nil
		if len(c.asked) > 0 {
			q.question()
		}
	}
}

// unconfirmed lets those go who wait for voters that will not answer, for this node does not lead any more, or again. Owner only.
func (q *Quorum) unconfirmed(s raft.BasicStatus) {
	c := &q.confirming
	if len(c.asked) == 0 || s.RaftState == raft.StateLeader && s.GetTerm() == c.term {
		return
	}
	for _, done := range append(c.asked, c.next...) {
		done <- ErrNotLeader
	}
	c.asked, c.next = nil, nil
}
