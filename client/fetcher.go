package client

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/fetchsession"
	"barnabas/client/internal/prefetch"
)

// fetcher reads the partitions that one broker leads, on a connection of its own. It asks for more
// as soon as an answer has come, and decodes that answer while the next is on its way.
type fetcher struct {
	k       *Consumer
	node    int32
	wake    chan struct{} // one slot
	session fetchsession.Session
	refused int   // sessions in a row that the broker did not know
	failed  error // why the latest request got no answer; guarded by the consumer's lock
}

type (
	fetchWork  = prefetch.Work[Record]
	fetchClaim = prefetch.Claim[Record]
	fetched    = prefetch.Fetched[Record]
)

// crowdedMaxWait is how long a broker may hold an answer while some partition is left out because
// Poll has not taken what it has: it must not stay out for a whole fetch.max.wait.ms.
const crowdedMaxWait = 20 * time.Millisecond

// mostAskedBytes keeps answers below what a connection takes, with a first batch that is larger than asked for.
const mostAskedBytes = defaultMaxResponseBytes / 2

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
		work := f.claim()
		if work.Empty() {
			if len(answers) > 0 {
				f.decode(answers)
				answers = nil
				continue // decoding may have made room for more
			}
			f.await(ctx, work.Again)
			continue
		}
		conn, err := f.connect(ctx)
		if err != nil {
			f.decode(answers)
			answers = nil
			f.release(err, slices.Concat(work.Fetch, work.Resolve, work.Confirm))
			continue
		}
		if len(work.Fetch) == 0 {
			f.decode(answers)
			answers = nil
			f.resolve(ctx, conn, work.Resolve)
			f.confirm(ctx, conn, work.Confirm)
			continue
		}
		call, whole, err := f.start(ctx, conn, &work)
		f.decode(answers)
		answers = nil
		if err == nil {
			answers, err = f.receive(ctx, call, whole, work.Fetch)
		}
		if err != nil {
			f.session.Failed()
			f.release(err, work.Fetch)
		}
	}
}

// claim marks what this broker is to be asked for as busy.
func (f *fetcher) claim() (work fetchWork) {
	f.k.change(func(s *prefetch.Store[Record], now time.Time) {
		if work = s.Claim(now, f.node); work.Empty() && work.Again.IsZero() {
			f.failed = nil // nothing waits for it any more
		}
	})
	return work
}

// await waits until there may be something to claim.
func (f *fetcher) await(ctx context.Context, again time.Time) {
	var due <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(time.Until(again))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-f.wake:
	case <-due:
	case <-ctx.Done():
	}
}

func (f *fetcher) connect(ctx context.Context) (*cluster.Connection, error) {
	if err := f.k.refusal(); err != nil {
		return nil, err
	}
	l, err := f.k.links.Node(f.node)
	if err != nil {
		return nil, err
	}
	conn, err := l.Connect(ctx)
	if cluster.Refused(err) {
		f.k.refuse(err)
	}
	return conn, err
}

// release gives back what was claimed when the request failed as a whole.
func (f *fetcher) release(err error, claims []fetchClaim) {
	if f.k.ctx.Err() != nil {
		return
	}
	f.k.c.log.Debug("fetch failed", "broker", f.node, "error", err)
	f.k.change(func(s *prefetch.Store[Record], now time.Time) {
		f.failed = err
		s.Release(now, claims...)
	})
}

// start sends a Fetch request that names what has changed since the one before. whole says that the
// answer names every partition, not only those with news.
func (f *fetcher) start(ctx context.Context, conn *cluster.Connection, w *fetchWork) (call *cluster.Call, whole bool, err error) {
	req := kmsg.NewPtrFetchRequest()
	limit := versionLimit(w.Fetch)
	version, err := conn.Version(req, limit)
	if err != nil {
		return nil, false, err
	}
	cfg := &f.k.cfg
	req.ReplicaID = -1
	req.MaxWaitMillis = int32(cfg.maxWait.Milliseconds())
	if w.Crowded {
		req.MaxWaitMillis = min(req.MaxWaitMillis, int32(crowdedMaxWait.Milliseconds()))
	}
	req.MinBytes, req.MaxBytes = cfg.minBytes, min(cfg.maxBytes, mostAskedBytes)
	req.IsolationLevel, req.Rack = int8(cfg.isolation), cfg.rack
	reads := f.reads(w.Fetch, version >= firstFetchWithTopicIDs)
	next := fetchsession.Request{Epoch: -1, Reads: reads}
	if version >= firstFetchWithSessions {
		next = f.session.Next(reads, version >= firstFetchWithTopicIDs)
	}
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
	call, err = conn.Start(ctx, req, limit)
	return call, next.Whole(), err
}

// reads gives how the claimed partitions are to be read.
func (f *fetcher) reads(claims []fetchClaim, ids bool) []fetchsession.Read {
	reads := make([]fetchsession.Read, len(claims))
	for i := range claims {
		c := &claims[i]
		reads[i] = fetchsession.Read{
			Partition: fetchsession.Partition{Topic: c.Topic, Number: c.Partition},
			Offset:    c.Offset, LeaderEpoch: c.LeaderEpoch, MaxBytes: f.k.cfg.maxPartition,
		}
		if ids {
			reads[i].Partition.ID = c.TopicID
		}
	}
	return reads
}

// The versions of Fetch from which there are sessions, and from which topics have ids and no names.
const (
	firstFetchWithSessions = 7
	firstFetchWithTopicIDs = 13
)

func versionLimit(claims []fetchClaim) int16 {
	if slices.ContainsFunc(claims, func(c fetchClaim) bool { return c.TopicID == [16]byte{} }) {
		return firstFetchWithTopicIDs - 1
	}
	return -1
}

// receive takes in an answer: positions move at once, so that the next request can leave before
// the records of this one are decoded.
func (f *fetcher) receive(ctx context.Context, p *cluster.Call, whole bool, claims []fetchClaim) ([]fetched, error) {
	p.Extra = f.k.cfg.maxWait
	resp, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	answer := resp.(*kmsg.FetchResponse)
	if f.session.Answered(answer.SessionID, Error(answer.ErrorCode)) && f.refused == 0 {
		f.refused++
		f.k.change(func(s *prefetch.Store[Record], _ time.Time) { s.Return(claims...) })
		return nil, nil
	}
	if err := CodeError(answer.ErrorCode, nil); err != nil {
		return nil, err
	}
	f.refused = 0
	parts := indexFetch(answer)
	var out []fetched
	moved := false
	f.k.change(func(s *prefetch.Store[Record], now time.Time) {
		f.failed = nil
		for i := range claims {
			c := &claims[i]
			part := parts[keyOf(c, answer.Version)]
			switch {
			case part == nil && whole:
				s.Missing(now, c)
			case part == nil:
				s.Return(*c)
			case part.ErrorCode != 0:
				err := CodeError(part.ErrorCode, nil)
				hinted := staleMetadata(err) && f.hint(c, part, answer)
				moved = moved || hinted
				s.Refused(now, c, err, hinted)
			default:
				if got, some := s.Fetched(now, f.node, c, part); some {
					out = append(out, got)
				}
			}
		}
	})
	if moved {
		f.k.route()
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

// keyOf names a claimed partition as an answer of that version does.
func keyOf(c *fetchClaim, version int16) partitionKey {
	if version >= firstFetchWithTopicIDs {
		return partitionKey{id: c.TopicID, partition: c.Partition}
	}
	return partitionKey{topic: c.Topic, partition: c.Partition}
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

// hint takes in which broker leads now, where the answer names another one (KIP-951).
func (f *fetcher) hint(c *fetchClaim, part *kmsg.FetchResponseTopicPartition, answer *kmsg.FetchResponse) bool {
	leader := part.CurrentLeader
	return leader.LeaderID != f.node && f.k.c.meta.Hint(cluster.Hint{
		Topic: c.Topic, Partition: c.Partition, Leader: leader.LeaderID, LeaderEpoch: leader.LeaderEpoch,
	}, fetchBrokers(answer))
}

func fetchBrokers(answer *kmsg.FetchResponse) []cluster.Broker {
	brokers := make([]cluster.Broker, 0, len(answer.Brokers))
	for _, b := range answer.Brokers {
		brokers = append(brokers, cluster.NewBroker(b.NodeID, b.Host, b.Port, b.Rack))
	}
	return brokers
}

// decode makes records of answers and hands them to Poll.
func (f *fetcher) decode(answers []fetched) {
	for i := range answers {
		a := &answers[i]
		records, err := f.k.decode(a)
		f.k.tellRead(a, len(records))
		f.k.change(func(s *prefetch.Store[Record], _ time.Time) { s.Decoded(a, records, err) })
	}
}
