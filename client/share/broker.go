package share

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	"barnabas/client/hooks"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/sharesession"
)

// broker carries what one broker is to be sent, on a connection of its own: fetches and
// acknowledgements, one after another, since each is numbered by the session. The session lives as
// long as the connection: brokers release what was acquired over one that breaks.
type broker struct {
	k    *Consumer
	node int32
	wake chan struct{} // one slot
}

func (b *broker) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *broker) run() {
	ctx := b.k.ctx
	for ctx.Err() == nil {
		var pending bool
		var again time.Time
		b.k.change(func(s *sharesession.Store[Record], now time.Time) { pending, again = s.Pending(now, b.node) })
		if !pending {
			b.await(ctx, again)
			continue
		}
		conn, err := b.connect(ctx)
		if err != nil {
			b.failed(ctx, err)
			continue
		}
		var work sharesession.Work
		b.k.change(func(s *sharesession.Store[Record], now time.Time) { work = s.Claim(now, b.node) })
		switch work.Task {
		case sharesession.Fetch:
			err = b.fetch(ctx, conn, &work)
		case sharesession.Acknowledge:
			err = b.acknowledge(ctx, conn, &work)
		}
		if err != nil {
			b.failed(ctx, err)
		}
	}
}

// await waits until there may be something to send.
func (b *broker) await(ctx context.Context, again time.Time) {
	var due <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(time.Until(again))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-b.wake:
	case <-due:
	case <-ctx.Done():
	}
}

func (b *broker) connect(ctx context.Context) (*cluster.Connection, error) {
	l, err := b.k.links.Node(b.node)
	if err != nil {
		return nil, err
	}
	conn, err := l.Connect(ctx)
	if err == nil {
		err = speaks(conn, kmsg.NewPtrShareFetchRequest())
	}
	if cluster.Refused(err) || errors.Is(err, client.ErrUnsupported) {
		b.k.refuse(err)
	}
	return conn, err
}

// failed takes in that a broker cannot be reached or has not answered.
func (b *broker) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	b.k.set.Logger.Debug("share request failed", "broker", b.node, "error", err)
	b.k.change(func(s *sharesession.Store[Record], now time.Time) { s.Failed(now, b.node, err) })
}

// The modes of share.acquire.mode as requests carry them.
const (
	batchOptimized int8 = 0
	recordLimit    int8 = 1
)

// fetch sends a ShareFetch, with what is to be acknowledged of the same partitions.
func (b *broker) fetch(ctx context.Context, conn *cluster.Connection, w *sharesession.Work) error {
	cfg := &b.k.cfg
	req := kmsg.NewPtrShareFetchRequest()
	req.GroupID, req.MemberID, req.ShareSessionEpoch = &b.k.group, &b.k.member, w.Epoch
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(cfg.maxWait.Milliseconds()), cfg.minBytes, cfg.maxBytes
	req.MaxRecords, req.BatchSize, req.ShareAcquireMode = int32(cfg.maxPoll), int32(cfg.maxPoll), batchOptimized
	if cfg.recordLimit {
		req.ShareAcquireMode = recordLimit
	}
	at := map[sharesession.Partition]*kmsg.ShareFetchRequestTopicPartition{}
	for _, p := range partitionsOf(w) {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].TopicID != p.TopicID {
			req.Topics = append(req.Topics, kmsg.ShareFetchRequestTopic{TopicID: p.TopicID})
		}
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, kmsg.ShareFetchRequestTopicPartition{Partition: p.Number})
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			at[sharesession.Partition{TopicID: t.TopicID, Number: t.Partitions[j].Partition}] = &t.Partitions[j]
		}
	}
	for _, a := range w.Acks {
		for _, r := range a.Runs {
			p := at[a.Partition]
			p.AcknowledgementBatches = append(p.AcknowledgementBatches, kmsg.ShareFetchRequestTopicPartitionAcknowledgementBatch{
				FirstOffset: r.First, LastOffset: r.Last, AcknowledgeTypes: []int8{int8(r.Kind)},
			})
		}
	}
	for _, p := range w.Forget {
		if n := len(req.ForgottenTopicsData); n == 0 || req.ForgottenTopicsData[n-1].TopicID != p.TopicID {
			req.ForgottenTopicsData = append(req.ForgottenTopicsData, kmsg.ShareFetchRequestForgottenTopicsData{TopicID: p.TopicID})
		}
		t := &req.ForgottenTopicsData[len(req.ForgottenTopicsData)-1]
		t.Partitions = append(t.Partitions, p.Number)
	}
	call, err := conn.Start(ctx, req, -1)
	if err != nil {
		return err
	}
	call.Extra = cfg.maxWait
	resp, err := call.Wait(ctx)
	if err != nil {
		return err
	}
	answer := resp.(*kmsg.ShareFetchResponse)
	moved := b.hintFetch(answer)
	b.answered(b.read(answer), moved)
	return throttled(ctx, answer.ThrottleMillis)
}

// partitionsOf gives what a fetch names: what is new to the session, and what carries acknowledgements.
func partitionsOf(w *sharesession.Work) []sharesession.Partition {
	set := make(map[sharesession.Partition]bool, len(w.Fetch)+len(w.Acks))
	for _, p := range w.Fetch {
		set[p] = true
	}
	for _, a := range w.Acks {
		set[a.Partition] = true
	}
	return sorted(set)
}

// acknowledge sends a ShareAcknowledge.
func (b *broker) acknowledge(ctx context.Context, conn *cluster.Connection, w *sharesession.Work) error {
	req := kmsg.NewPtrShareAcknowledgeRequest()
	if version, err := conn.Version(req, -1); err == nil && w.Renews && version < firstShareAcknowledgeWithRenew {
		b.k.change(func(s *sharesession.Store[Record], _ time.Time) { s.Refuse(b.node, client.ErrUnsupportedVersion) })
		return nil
	}
	req.GroupID, req.MemberID, req.ShareSessionEpoch, req.IsRenewAck = &b.k.group, &b.k.member, w.Epoch, w.Renews
	for _, a := range w.Acks {
		p := kmsg.ShareAcknowledgeRequestTopicPartition{Partition: a.Partition.Number}
		for _, r := range a.Runs {
			p.AcknowledgementBatches = append(p.AcknowledgementBatches, kmsg.ShareAcknowledgeRequestTopicPartitionAcknowledgementBatch{
				FirstOffset: r.First, LastOffset: r.Last, AcknowledgeTypes: []int8{int8(r.Kind)},
			})
		}
		if n := len(req.Topics); n == 0 || req.Topics[n-1].TopicID != a.Partition.TopicID {
			req.Topics = append(req.Topics, kmsg.ShareAcknowledgeRequestTopic{TopicID: a.Partition.TopicID})
		}
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	resp, err := conn.Ask(ctx, req, -1)
	if err != nil {
		return err
	}
	answer := resp.(*kmsg.ShareAcknowledgeResponse)
	moved := b.hintAcknowledge(answer)
	b.answered(readAcknowledge(answer), moved)
	return throttled(ctx, answer.ThrottleMillis)
}

// firstShareAcknowledgeWithRenew is the version from which locks can be renewed.
const firstShareAcknowledgeWithRenew = 2

// throttled waits as long as a broker wants to be left alone (KIP-219).
func throttled(ctx context.Context, millis int32) error {
	return cluster.Sleep(ctx, time.Duration(max(millis, 0))*time.Millisecond)
}

func (b *broker) answered(a sharesession.Answer[Record], moved bool) {
	b.k.change(func(s *sharesession.Store[Record], now time.Time) {
		if a.Lock > 0 {
			b.k.mu.lock = a.Lock
		}
		s.Answered(now, b.node, &a)
	})
	if moved {
		b.k.learn()
	}
}

func readAcknowledge(in *kmsg.ShareAcknowledgeResponse) sharesession.Answer[Record] {
	a := sharesession.Answer[Record]{Err: client.CodeError(in.ErrorCode, in.ErrorMessage), Lock: lockOf(in.AcquisitionLockTimeoutMillis)}
	for i := range in.Topics {
		t := &in.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			a.Parts = append(a.Parts, sharesession.Part[Record]{
				Partition: sharesession.Partition{TopicID: t.TopicID, Number: p.Partition},
				AckErr:    client.CodeError(p.ErrorCode, p.ErrorMessage),
			})
		}
	}
	return a
}

func lockOf(millis int32) time.Duration { return time.Duration(max(millis, 0)) * time.Millisecond }

// read takes an answer apart and decodes its records.
func (b *broker) read(in *kmsg.ShareFetchResponse) sharesession.Answer[Record] {
	a := sharesession.Answer[Record]{Err: client.CodeError(in.ErrorCode, in.ErrorMessage), Lock: lockOf(in.AcquisitionLockTimeoutMillis)}
	if a.Err != nil {
		return a
	}
	var until time.Time
	if a.Lock > 0 {
		until = time.Now().Add(a.Lock)
	}
	for i := range in.Topics {
		t := &in.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			part := sharesession.Part[Record]{
				Partition: sharesession.Partition{TopicID: t.TopicID, Number: p.Partition},
				Err:       client.CodeError(p.ErrorCode, p.ErrorMessage),
				AckErr:    client.CodeError(p.AcknowledgeErrorCode, p.AcknowledgeErrorMessage),
			}
			if part.Err == nil && len(p.AcquiredRecords) > 0 {
				topic := ""
				b.k.change(func(s *sharesession.Store[Record], _ time.Time) { topic = s.Topic(part.Partition) })
				d := decoder{checker: b.k.checker, checkCRCs: b.k.cfg.checkCRCs, topic: topic, partition: p.Partition, until: until}
				part.Catch = d.decode(p.Records, p.AcquiredRecords)
				b.k.tellRead(topic, p, len(part.Catch.Records))
			}
			a.Parts = append(a.Parts, part)
		}
	}
	return a
}

// tellRead tells the hooks what was acquired of a partition.
func (k *Consumer) tellRead(topic string, p *kmsg.ShareFetchResponseTopicPartition, records int) {
	if told := k.set.Hooks.Read; told != nil {
		told(hooks.Read{Partition: hooks.Partition{Topic: topic, Number: p.Partition}, Records: records, Bytes: len(p.Records), Lag: -1})
	}
}
