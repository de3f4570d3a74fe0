package prefetch

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

// Fetched is what an answer held of one partition, not yet decoded.
type Fetched[R any] struct {
	TopicPartition
	From    int64 // the offset that was asked for: what lies before it is not wanted
	Batches []batch.Batch
	Aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction
	Err     error // what is wrong behind the batches

	cur   *cursor[R]
	next  int64
	bytes int
}

// Fetched takes in what a node answered without an error: the position moves past the whole batches
// at once, so that the next request can leave before the records are decoded. With true, Decoded
// must follow. A broker may cut the last batch short; the first is always whole, and starts before
// the offset asked for where that lies inside it.
func (s *Store[R]) Fetched(now time.Time, node int32, c *Claim[R], part *kmsg.FetchResponseTopicPartition) (Fetched[R], bool) {
	cur := c.cur
	s.free(c)
	if cur.dropped || cur.stopped {
		return Fetched[R]{}, false
	}
	cur.failures = 0
	if part.PreferredReadReplica >= 0 && part.PreferredReadReplica != node {
		cur.replica, cur.replicaUntil = part.PreferredReadReplica, now.Add(s.cfg.ReplicaLease)
		s.signals.Fetchers, s.signals.Sources = true, true
	}
	cur.highWatermark, cur.logStart = part.HighWatermark, part.LogStartOffset
	if s.cfg.ReadCommitted && part.LastStableOffset >= 0 {
		cur.highWatermark = part.LastStableOffset
	}
	out := Fetched[R]{
		TopicPartition: cur.tp, From: c.Offset, Aborted: part.AbortedTransactions,
		cur: cur, next: c.Offset, bytes: len(part.RecordBatches),
	}
	rest := part.RecordBatches
	for len(rest) > 0 {
		b, after, err := batch.Next(rest)
		if errors.Is(err, batch.ErrIncomplete) && len(out.Batches) > 0 {
			break
		}
		if err != nil {
			out.Err = fmt.Errorf("batch at offset %d: %w: %w", out.next, errcode.CorruptMessage, err)
			break
		}
		if rest = after; b.NextOffset() <= out.next {
			continue // the broker sent something that lies before
		}
		out.Batches = append(out.Batches, b)
		out.next = b.NextOffset()
		cur.nextEpoch = b.LeaderEpoch()
	}
	if out.Err != nil {
		cur.stopped = true // the error reaches Take behind the records
	}
	if len(out.Batches) == 0 && out.Err == nil {
		return out, false
	}
	cur.next = out.next
	cur.holder = node
	s.hold(cur, out.bytes)
	return out, true
}

// Decoded takes in the records of an answer, and what is wrong behind them.
func (s *Store[R]) Decoded(f *Fetched[R], records []R, err error) {
	cur := f.cur
	held := cur.holder
	cur.holder = -1
	if cur.source() != held {
		s.signals.Fetchers = true // who waited for this
	}
	if cur.dropped {
		return
	}
	if err == nil {
		err = f.Err
	}
	next := f.next
	if err != nil {
		next = f.From
		if n := len(records); n > 0 {
			next = s.spotOf(&records[n-1]).Offset + 1
		}
	}
	// The error of a cursor that was stopped meanwhile comes last.
	at := len(cur.chunks)
	if cur.stopped && at > 0 && cur.chunks[at-1].err != nil {
		at--
	}
	cur.chunks = slices.Insert(cur.chunks, at, chunk[R]{records: records, bytes: f.bytes, next: next, err: err})
	cur.stopped = cur.stopped || err != nil
	s.enlist(cur)
}

// Brought tells how many bytes an answer brought, and how many records there were behind it at the node, -1 where it has not
// said; false: nobody wants it any more.
func (s *Store[R]) Brought(f *Fetched[R]) (bytes int, lag int64, wanted bool) {
	lag = -1
	if end := f.cur.highWatermark; end >= 0 {
		lag = max(end-f.next, 0)
	}
	return f.bytes, lag, !f.cur.dropped
}

// Missing says that an answer which names everything that was asked for leaves a partition out.
func (s *Store[R]) Missing(now time.Time, c *Claim[R]) {
	s.free(c)
	s.backOff(now, c.cur)
}

// Refused takes in the error that a node answered for a partition's records. moved says that the
// answer named another leader, and that it has been taken in.
func (s *Store[R]) Refused(now time.Time, c *Claim[R], err error, moved bool) {
	cur := c.cur
	s.free(c)
	if cur.dropped || cur.stopped {
		return
	}
	fromLeader := !s.readLeader(cur)
	switch {
	case errors.Is(err, errcode.OffsetOutOfRange) && !fromLeader:
		// A replica may lag, or have cut its log already. The leader knows.
	case errors.Is(err, errcode.OffsetOutOfRange):
		if s.cfg.Reset.Reports() {
			s.stop(cur, fmt.Errorf("offset %d: %w", cur.next, err))
			return
		}
		cur.start = s.cfg.Reset.start(now)
		cur.validate = false
		s.signals.Fetchers = true
		s.cfg.Log.Info("offset out of range", "partition", cur.tp.Topic, "number", cur.tp.Partition, "offset", cur.next, "reset", cur.start.String())
	case errcode.StaleMetadata(err):
		if !moved {
			s.backOff(now, cur)
		}
		s.signals.Metadata = true
	case mayPass(err):
		s.backOff(now, cur)
		s.cfg.Log.Warn("fetch refused", "partition", cur.tp.Topic, "number", cur.tp.Partition, "error", err)
	default:
		s.stop(cur, err)
	}
}

// mayPass tells whether the same request may succeed later.
func mayPass(err error) bool {
	return errcode.Retriable(err) || errors.Is(err, errcode.UnknownServerError)
}

// Resolved takes in the offset that a start stands for, with its leader epoch, or the error.
func (s *Store[R]) Resolved(now time.Time, c *Claim[R], at Spot, err error) {
	cur := c.cur
	s.free(c)
	switch {
	case cur.dropped || cur.stopped:
	case err == nil && at.Offset < 0 && cur.start.Kind == Time:
		cur.start = Start{Kind: Latest} // nothing is that late
	case err == nil && at.Offset < 0:
		s.backOff(now, cur)
	case err == nil:
		cur.start, cur.failures = Start{}, 0
		cur.next, cur.nextEpoch, cur.validate = at.Offset, at.LeaderEpoch, false
		// What was fetched before a reset is still to be taken, and says itself where it ends.
		if len(cur.chunks) == 0 && cur.holder < 0 {
			cur.position = at.Offset
		}
	case mayPass(err):
		s.backOff(now, cur)
		s.signals.Metadata = s.signals.Metadata || errcode.StaleMetadata(err)
	default:
		s.stop(cur, fmt.Errorf("find %v: %w", cur.start, err))
	}
}

// Confirmed takes in where, in the leader's log, the epoch of the latest record ends that was read:
// the end, the epoch that ends there, or the error.
func (s *Store[R]) Confirmed(now time.Time, c *Claim[R], end Spot, err error) {
	cur := c.cur
	s.free(c)
	switch {
	case cur.dropped || cur.stopped:
	case err == nil && (end.Offset < 0 || end.LeaderEpoch < 0 || end.Offset >= cur.next):
		// All is there; or the leader knows nothing of the epoch any more, which is no loss (trap 3):
		// if the position is out of range the fetch says so.
		cur.validate, cur.failures = false, 0
		s.signals.Fetchers = true
	case err == nil:
		s.truncated(cur, end)
	case mayPass(err):
		s.backOff(now, cur)
		s.signals.Metadata = s.signals.Metadata || errcode.StaleMetadata(err)
	default:
		s.stop(cur, fmt.Errorf("confirm offset %d: %w", cur.next, err))
	}
}

// CannotConfirm says that the broker is too old to tell where epochs end.
func (s *Store[R]) CannotConfirm(c *Claim[R]) {
	c.cur.validate = false
	s.free(c)
}

// truncated goes back to where the log parts from what was read.
func (s *Store[R]) truncated(cur *cursor[R], end Spot) {
	cur.validate = false
	if s.cfg.Reset.Reports() {
		s.stop(cur, fmt.Errorf("offset %d, but epoch %d ends at %d: %w", cur.next, cur.nextEpoch, end.Offset, ErrLogTruncated))
		return
	}
	s.cfg.Log.Warn("the log was cut below what was read; reading on where it parts",
		"partition", cur.tp.Topic, "number", cur.tp.Partition, "offset", cur.next, "end", end.Offset)
	s.empty(cur)
	if cur.position < 0 || cur.position > end.Offset {
		cur.position = end.Offset
	}
	cur.next, cur.nextEpoch, cur.lastRead = cur.position, end.LeaderEpoch, min(cur.lastRead, end.LeaderEpoch)
	s.signals.Fetchers = true
}

// AwaitCommitted gives the partitions that are to go on where the group has committed, and wait to
// hear where that is. Begin answers.
func (s *Store[R]) AwaitCommitted() []Claim[R] {
	var out []Claim[R]
	for _, cur := range s.inOrder() {
		if cur.start.Kind == Committed && !cur.stopped {
			out = append(out, cur.claim(-1))
		}
	}
	return out
}

// Begin says where the group has committed: there, nowhere, or that it cannot be found out. A
// partition that was given up meanwhile, or sought by the program, is left alone: one that has come
// back has another cursor, and may have been read and committed by others in between.
func (s *Store[R]) Begin(now time.Time, c *Claim[R], at Spot, found bool, err error) {
	cur := c.cur
	switch {
	case cur.dropped || cur.stopped:
		return
	case found:
		cur.begin(at)
		cur.committed = at.Offset
		s.cfg.Log.Debug("begins where the group has committed", "partition", cur.tp.Topic, "number", cur.tp.Partition, "offset", at.Offset)
	case err != nil:
		s.stop(cur, fmt.Errorf("find the committed offset: %w", err))
	case s.cfg.Reset.Reports():
		s.stop(cur, ErrNoOffset)
	default:
		cur.start = s.cfg.Reset.start(now)
		s.cfg.Log.Debug("nothing is committed", "partition", cur.tp.Topic, "number", cur.tp.Partition, "begin", cur.start.String())
	}
	s.signals.Fetchers = true
}
