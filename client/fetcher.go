package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/fetchsession"
	"barnabas/internal/batch"
)

// fetcher reads the partitions that one broker leads, on a connection of its own. It asks for more
// as soon as an answer has come, and decodes that answer while the next is on its way.
type fetcher struct {
	k       *Consumer
	node    int32
	wake    chan struct{} // one slot
	session fetchsession.Session
	refused int // sessions in a row that the broker did not know
	turn    int // rotates which partition is asked for first: a broker fills up in this order
}

// fetchWork is what a fetcher asks for at once: the starts to resolve, or the positions to confirm,
// or else records.
type fetchWork struct {
	resolve  []*cursor
	validate []*cursor
	fetch    []*cursor
	offsets  []int64 // of each to fetch
	whole    bool    // the answer names every partition, not only those with news
	crowded  bool    // some partition was left out because Poll has not taken what it has
}

// fetched is the answer for one partition, not yet decoded.
type fetched struct {
	cur     *cursor
	from    int64 // the offset that was asked for
	next    int64
	batches []batch.Batch
	aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction
	bytes   int
	err     error // behind the batches
}

// crowdedMaxWait is how long a broker may hold an answer while some partition is left out because
// Poll has not taken what it has: it must not stay out for a whole fetch.max.wait.ms.
const crowdedMaxWait = 20 * time.Millisecond

func newFetcher(k *Consumer, node int32) *fetcher {
	return &fetcher{k: k, node: node, wake: make(chan struct{}, 1)}
}

func (f *fetcher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fetcher) run() {
	var answers []fetched
	ctx := f.k.ctx
	for ctx.Err() == nil {
		work := f.claim(time.Now())
		if len(work.resolve) == 0 && len(work.validate) == 0 && len(work.fetch) == 0 {
			if len(answers) > 0 {
				f.decode(answers)
				answers = nil
				continue // decoding may have made room for more
			}
			select {
			case <-f.wake:
			case <-ctx.Done():
			}
			continue
		}
		conn, err := f.connect(ctx)
		if err != nil {
			f.decode(answers)
			answers = nil
			f.release(work, err)
			continue
		}
		if len(work.fetch) == 0 {
			f.decode(answers)
			answers = nil
			f.resolveStarts(ctx, conn, work.resolve)
			f.confirm(ctx, conn, work.validate)
			continue
		}
		call, err := f.start(ctx, conn, &work)
		f.decode(answers)
		answers = nil
		if err == nil {
			answers, err = f.receive(ctx, call, work)
		}
		if err != nil {
			f.session.Failed()
			f.release(work, err)
		}
	}
}

func (f *fetcher) connect(ctx context.Context) (*cluster.Connection, error) {
	l, err := f.k.links.Node(f.node)
	if err != nil {
		return nil, err
	}
	return l.Connect(ctx)
}

// claim marks what this broker is to be asked for as busy.
func (f *fetcher) claim(now time.Time) fetchWork {
	k := f.k
	var w fetchWork
	k.mu.Lock()
	defer k.mu.Unlock()
	room := k.mu.pending < int(k.cfg.maxBytes)
	for _, cur := range k.mu.cursors {
		// What another fetcher has yet to decode comes before what we would fetch.
		if cur.leader != f.node || cur.busy || cur.stopped || now.Before(cur.notUntil) || cur.holder != nil && cur.holder != f {
			continue
		}
		switch {
		case cur.start.kind == positionCommitted:
		case cur.start.kind != positionNone:
			w.resolve = append(w.resolve, cur)
		case cur.validate:
			w.validate = append(w.validate, cur)
		case cur.paused:
		case !room || cur.pending >= int(k.cfg.maxPartition):
			w.crowded = true
		default:
			w.fetch = append(w.fetch, cur)
		}
	}
	if len(w.resolve)+len(w.validate) > 0 {
		w.fetch = nil
	}
	slices.SortFunc(w.fetch, func(a, b *cursor) int { return compareTP(a.tp, b.tp) })
	slices.SortFunc(w.resolve, func(a, b *cursor) int { return compareTP(a.tp, b.tp) })
	slices.SortFunc(w.validate, func(a, b *cursor) int { return compareTP(a.tp, b.tp) })
	if n := len(w.fetch); n > 0 {
		f.turn = (f.turn + 1) % n
		w.fetch = append(w.fetch[f.turn:n:n], w.fetch[:f.turn]...)
	}
	for _, cur := range w.fetch {
		cur.busy = true
		w.offsets = append(w.offsets, cur.next)
	}
	for _, cur := range slices.Concat(w.resolve, w.validate) {
		cur.busy = true
	}
	return w
}

func compareTP(a, b TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// release gives back what was claimed when the request failed as a whole.
func (f *fetcher) release(w fetchWork, err error) {
	if f.k.ctx.Err() != nil {
		return
	}
	f.k.mu.Lock()
	for _, cur := range slices.Concat(w.fetch, w.resolve, w.validate) {
		cur.busy = false
		f.backOffLocked(cur)
	}
	f.k.mu.Unlock()
	f.k.c.log.Debug("fetch failed", "broker", f.node, "error", err)
	f.k.c.meta.Update()
}

// unclaim gives back what was claimed, to be asked for again at once.
func (f *fetcher) unclaim(w fetchWork) {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	for _, cur := range w.fetch {
		cur.busy = false
	}
}

// backOffLocked leaves a partition alone for a while.
func (f *fetcher) backOffLocked(cur *cursor) {
	cur.failures++
	wait := f.k.c.cfg.RetryBackoff.After(cur.failures, f.k.c.random)
	cur.notUntil = time.Now().Add(wait)
	// The leader may be another by then.
	time.AfterFunc(wait, f.k.wakeFetchers)
}

// start sends a Fetch request that names what has changed since the one before.
func (f *fetcher) start(ctx context.Context, conn *cluster.Connection, w *fetchWork) (*cluster.Call, error) {
	req := kmsg.NewPtrFetchRequest()
	limit := f.versionLimit(*w)
	version, err := conn.Version(req, limit)
	if err != nil {
		return nil, err
	}
	cfg := &f.k.cfg
	req.ReplicaID = -1
	req.MaxWaitMillis = int32(cfg.maxWait.Milliseconds())
	if w.crowded {
		req.MaxWaitMillis = min(req.MaxWaitMillis, int32(crowdedMaxWait.Milliseconds()))
	}
	req.MinBytes, req.MaxBytes = cfg.minBytes, cfg.maxBytes
	req.IsolationLevel = int8(cfg.isolation)
	reads := f.reads(w, version >= firstFetchWithTopicIDs)
	next := fetchsession.Request{Epoch: -1, Reads: reads}
	if version >= firstFetchWithSessions {
		next = f.session.Next(reads, version >= firstFetchWithTopicIDs)
	}
	w.whole = next.Whole()
	req.SessionID, req.SessionEpoch = next.ID, next.Epoch
	for _, r := range next.Reads {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != r.Partition.Topic {
			req.Topics = append(req.Topics, kmsg.FetchRequestTopic{Topic: r.Partition.Topic, TopicID: r.Partition.ID})
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = r.Partition.Number, r.Offset, r.MaxBytes
		p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset = r.LeaderEpoch, -1, -1
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	for _, p := range next.Forget {
		if n := len(req.ForgottenTopics); n == 0 || req.ForgottenTopics[n-1].Topic != p.Topic || req.ForgottenTopics[n-1].TopicID != p.ID {
			req.ForgottenTopics = append(req.ForgottenTopics, kmsg.FetchRequestForgottenTopic{Topic: p.Topic, TopicID: p.ID})
		}
		t := &req.ForgottenTopics[len(req.ForgottenTopics)-1]
		t.Partitions = append(t.Partitions, p.Number)
	}
	return conn.Start(ctx, req, limit)
}

// reads gives how the claimed partitions are to be read.
func (f *fetcher) reads(w *fetchWork, ids bool) []fetchsession.Read {
	reads := make([]fetchsession.Read, len(w.fetch))
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	for i, cur := range w.fetch {
		reads[i] = fetchsession.Read{
			Partition: fetchsession.Partition{Topic: cur.tp.Topic, Number: cur.tp.Partition},
			Offset:    w.offsets[i], LeaderEpoch: cur.epoch, MaxBytes: f.k.cfg.maxPartition,
		}
		if ids {
			reads[i].Partition.ID = cur.topicID
		}
	}
	return reads
}

// The versions of Fetch from which there are sessions, and from which topics have ids and no names.
const (
	firstFetchWithSessions = 7
	firstFetchWithTopicIDs = 13
)

func (f *fetcher) versionLimit(w fetchWork) int16 {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	for _, cur := range w.fetch {
		if cur.topicID == [16]byte{} {
			return firstFetchWithTopicIDs - 1
		}
	}
	return -1
}

// receive takes in an answer: positions move at once, so that the next request can leave before
// the records of this one are decoded.
func (f *fetcher) receive(ctx context.Context, p *cluster.Call, w fetchWork) ([]fetched, error) {
	p.Extra = f.k.cfg.maxWait
	resp, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	answer := resp.(*kmsg.FetchResponse)
	if f.session.Answered(answer.SessionID, Error(answer.ErrorCode)) && f.refused == 0 {
		f.refused++
		f.unclaim(w)
		return nil, nil
	}
	if err := CodeError(answer.ErrorCode, nil); err != nil {
		return nil, err
	}
	f.refused = 0
	parts := indexFetch(answer)
	var out []fetched
	stale := false
	f.k.mu.Lock()
	for i, cur := range w.fetch {
		cur.busy = false
		if cur.dropped || cur.stopped {
			continue
		}
		key := partitionKey{topic: cur.tp.Topic, partition: cur.tp.Partition}
		if answer.Version >= firstFetchWithTopicIDs {
			key = partitionKey{id: cur.topicID, partition: cur.tp.Partition}
		}
		part := parts[key]
		if part == nil {
			if w.whole {
				f.backOffLocked(cur)
			}
			continue
		}
		if err := CodeError(part.ErrorCode, nil); err != nil {
			stale = f.refusedLocked(cur, err, part, answer) || stale
			continue
		}
		if got, some := f.advanceLocked(cur, w.offsets[i], part); some {
			out = append(out, got)
		}
	}
	f.k.mu.Unlock()
	if stale {
		f.k.route() // a hint may have named the new leader already
		f.k.c.meta.Update()
	}
	if answer.ThrottleMillis > 0 {
		f.decode(out)
		out = nil
		if err := cluster.Sleep(ctx, time.Duration(answer.ThrottleMillis)*time.Millisecond); err != nil {
			return nil, nil //nolint:nilerr // the consumer has been closed: run ends
		}
	}
	return out, nil
}

func indexFetch(answer *kmsg.FetchResponse) map[partitionKey]*kmsg.FetchResponseTopicPartition {
	parts := make(map[partitionKey]*kmsg.FetchResponseTopicPartition, len(answer.Topics))
	for i := range answer.Topics {
		t := &answer.Topics[i]
		for j := range t.Partitions {
			parts[partitionKey{t.Topic, t.TopicID, t.Partitions[j].Partition}] = &t.Partitions[j]
		}
	}
	return parts
}

// advanceLocked moves a position past the whole batches that an answer holds. A broker may cut the
// last batch short; the first is always whole (and starts before the offset asked for, where that
// lies inside it).
func (f *fetcher) advanceLocked(cur *cursor, from int64, part *kmsg.FetchResponseTopicPartition) (fetched, bool) {
	cur.failures = 0
	cur.highWatermark, cur.logStart = part.HighWatermark, part.LogStartOffset
	if f.k.cfg.isolation == ReadCommitted && part.LastStableOffset >= 0 {
		cur.highWatermark = part.LastStableOffset
	}
	out := fetched{cur: cur, from: from, next: from, aborted: part.AbortedTransactions, bytes: len(part.RecordBatches)}
	rest := part.RecordBatches
	for len(rest) > 0 {
		b, after, err := batch.Next(rest)
		if errors.Is(err, batch.ErrIncomplete) && len(out.batches) > 0 {
			break
		}
		if err != nil {
			out.err = fmt.Errorf("batch at offset %d: %w: %w", out.next, ErrCorruptMessage, err)
			break
		}
		if rest = after; b.NextOffset() <= out.next {
			continue // the broker sent something that lies before
		}
		out.batches = append(out.batches, b)
		out.next = b.NextOffset()
		cur.nextEpoch = b.LeaderEpoch()
	}
	if out.err != nil {
		cur.stopped = true // the error reaches Poll behind the records
	}
	if len(out.batches) == 0 && out.err == nil {
		return out, false
	}
	cur.next = out.next
	cur.holder = f
	cur.pending += out.bytes
	f.k.mu.pending += out.bytes
	return out, true
}

// refusedLocked deals with a partition's error code; true where the metadata is stale.
func (f *fetcher) refusedLocked(cur *cursor, err error, part *kmsg.FetchResponseTopicPartition, answer *kmsg.FetchResponse) bool {
	switch {
	case errors.Is(err, ErrOffsetOutOfRange):
		if f.k.cfg.reset.report() {
			f.k.stopLocked(cur, fmt.Errorf("offset %d: %w", cur.next, err))
			f.k.tell()
			return false
		}
		cur.start = f.k.cfg.reset.position(time.Now())
		f.k.c.log.Info("offset out of range", "partition", cur.tp.String(), "offset", cur.next, "reset", cur.start.String())
		return false
	case staleMetadata(err):
		hint := cluster.Hint{Topic: cur.tp.Topic, Partition: cur.tp.Partition, Leader: part.CurrentLeader.LeaderID, LeaderEpoch: part.CurrentLeader.LeaderEpoch}
		if hint.Leader == f.node || !f.k.c.meta.Hint(hint, fetchBrokers(answer)) {
			f.backOffLocked(cur)
		}
		return true
	case retriable(err), errors.Is(err, ErrUnknownServerError):
		f.backOffLocked(cur)
		f.k.c.log.Warn("fetch refused", "partition", cur.tp.String(), "error", err)
		return false
	default:
		f.k.stopLocked(cur, err)
		f.k.tell()
		return false
	}
}

func fetchBrokers(answer *kmsg.FetchResponse) []cluster.Broker {
	brokers := make([]cluster.Broker, 0, len(answer.Brokers))
	for _, b := range answer.Brokers {
		info := cluster.Broker{ID: b.NodeID, Address: cluster.JoinHostPort(b.Host, b.Port)}
		if b.Rack != nil {
			info.Rack = *b.Rack
		}
		brokers = append(brokers, info)
	}
	return brokers
}

// decode makes records of answers and hands them to Poll.
func (f *fetcher) decode(answers []fetched) {
	for i := range answers {
		a := &answers[i]
		records, err := f.k.decode(a)
		if err == nil {
			err = a.err
		}
		if err != nil {
			err = &PartitionError{a.cur.tp, err}
		}
		f.k.mu.Lock()
		a.cur.holder = nil
		if a.cur.leader != f.node {
			f.k.wakeFetchersLocked()
		}
		if !a.cur.dropped {
			next := a.next
			if err != nil {
				next = a.from
				if n := len(records); n > 0 {
					next = records[n-1].Offset + 1
				}
			}
			a.cur.addLocked(chunk{records: records, bytes: a.bytes, next: next, err: err})
			a.cur.stopped = a.cur.stopped || err != nil
			f.k.enlistLocked(a.cur)
		}
		f.k.mu.Unlock()
		f.k.tell()
	}
}
