package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/controller"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// Produce, key 0, versions 3 to 13 (advertised from 0, or librdkafka switches compression off:
// KAFKA-18659). Version 7 allows zstd, 8 has messages for single records (KIP-467), 10 names the
// new leader (KIP-951), 12 adds partitions to transactions by itself (KIP-890), 13 names topics by id.

// adminClient is the client id that may write to internal topics, as in Kafka.
const adminClient = "__admin_client"

// produced is what became of one partition's data.
type produced struct {
	partition *replica.Partition // nil where there is none
	number    int32
	first     int64 // offset of the first record, -1 on error
	next      int64
	epoch     int32 // in which it was appended
	timeMs    int64 // -1 with CreateTime
	start     int64 // log start offset, -1 where unknown
	err       error
}

// producedTopic keeps the request's order; responses have it too.
type producedTopic struct {
	name       string
	id         [16]byte
	partitions []produced
}

type produceRequest struct {
	version int16
	acks    int16
	timeout time.Duration
	topics  []producedTopic
}

func (h *Handler) produce(_ context.Context, c *call) (wire.Reply, bool, error) {
	if err := checkShape(c.req.Key, c.req.Version, c.req.Body); err != nil {
		return nil, false, err
	}
	var q kmsg.ProduceRequest
	q.Version = c.req.Version
	if err := scanProduce(c.req.Body, c.req.Version); err != nil {
		return nil, false, fmt.Errorf("decode Produce version %d: %w", c.req.Version, err)
	}
	if err := withoutPanic(func() error { return q.UnsafeReadFrom(c.req.Body) }); err != nil {
		return nil, false, fmt.Errorf("decode Produce version %d: %w", c.req.Version, err)
	}
	w := &produceRequest{version: q.Version, acks: q.Acks, timeout: time.Duration(q.TimeoutMillis) * time.Millisecond}
	h.appendAll(c, &q, w)
	if w.acks == 0 {
		// There is no reply that could carry an error, so the connection does.
		return nil, true, w.firstError()
	}
	peer := c.peer
	c.req.AnnouncesWait = true
	reply := func(ctx context.Context, out *wire.Out) error {
		if !w.settled() {
			out.Waiting()
		}
		if err := w.await(ctx); err != nil {
			return err
		}
		out.Append(func(dst []byte) []byte { return w.appendResponse(dst, h.o.Images.Image(), peer) })
		return nil
	}
	return reply, w.settled(), nil
}

// appendAll writes every partition's batch, in the order of the request.
func (h *Handler) appendAll(c *call, q *kmsg.ProduceRequest, w *produceRequest) {
	image := h.o.Images.Image()
	w.topics = make([]producedTopic, len(q.Topics))
	for i := range q.Topics {
		asked := &q.Topics[i]
		topic := &w.topics[i]
		topic.id = asked.TopicID
		topic.partitions = make([]produced, len(asked.Partitions))
		known, err := producedTo(image, asked, q.Version)
		if err == nil {
			topic.name = known.Name
		} else {
			topic.name = string(append([]byte(nil), asked.Topic...)) // the request's bytes go back to their pool
		}
		for j := range asked.Partitions {
			part := &asked.Partitions[j]
			done := &topic.partitions[j]
			*done = produced{number: part.Partition, first: -1, timeMs: -1, start: -1, err: err}
			if err == nil {
				h.appendOne(c, q, image, known, part.Records, done)
			}
			if unexpected(done.err) {
				h.log.Error("produce failed", "topic", topic.name, "partition", part.Partition, "err", done.err)
			}
		}
	}
}

// producedTo finds the topic that a request means, by name or from version 13 on by id.
func producedTo(image *metadata.Image, asked *kmsg.ProduceRequestTopic, version int16) (*metadata.Topic, error) {
	if version >= 13 {
		if t, ok := image.TopicByID(asked.TopicID); ok {
			return t, nil
		}
		return nil, fmt.Errorf("topic %s: %w", metadata.UUID(asked.TopicID), errUnknownTopicID)
	}
	if t, ok := image.Topic(asked.Topic); ok {
		return t, nil
	}
	return nil, fmt.Errorf("topic %q: %w", asked.Topic, replica.ErrUnknownPartition)
}

func (h *Handler) appendOne(c *call, q *kmsg.ProduceRequest, image *metadata.Image, topic *metadata.Topic, data []byte, done *produced) {
	// The order of these checks is Kafka's: it decides which error a request that has several gets.
	if done.partition, done.err = h.partition(image, topic.Name, done.number); done.err != nil {
		return
	}
	if done.partition.TopicID() != topic.ID {
		// The topic has been deleted and made again since the image was taken: another topic, whose
		// log must not get the first one's records.
		done.err = fmt.Errorf("produce to %s-%d: topic %v is gone: %w", topic.Name, done.number, topic.ID, replica.ErrNotLeader)
		return
	}
	b, err := oneBatch(data, q.Version)
	if err != nil {
		done.err = fmt.Errorf("produce to %s-%d: %w", topic.Name, done.number, err)
		return
	}
	if q.Acks < -1 || q.Acks > 1 {
		done.err = fmt.Errorf("produce to %s-%d: acks=%d: %w", topic.Name, done.number, q.Acks, errInvalidAcks)
		return
	}
	if controller.InternalTopic(topic.Name) && c.req.ClientID != adminClient {
		done.err = fmt.Errorf("produce to %s-%d, where a coordinator keeps its state: %w", topic.Name, done.number, errInvalidTopic)
		return
	}
	appended, err := done.partition.Append(b, q.Acks == -1, c.nowMs())
	if err != nil {
		done.err = err
		return
	}
	done.first, done.next, done.epoch = appended.First, appended.Next, appended.LeaderEpoch
	done.timeMs, done.start = appended.AppendTimeMs, appended.Start
}

// oneBatch frames the data of one partition: since version 3 it is one batch, neither more nor less.
func oneBatch(data []byte, version int16) (batch.Batch, error) {
	b, rest, err := batch.Next(data)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, errNotOneBatch
	case b.Codec() == batch.Zstd && version < 7:
		return nil, fmt.Errorf("Produce version %d: %w", version, errZstdTooNew)
	case b.IsTransactional():
		return nil, errTransactional
	}
	return b, nil
}

func (w *produceRequest) firstError() error {
	for i := range w.topics {
		for j := range w.topics[i].partitions {
			if err := w.topics[i].partitions[j].err; err != nil {
				return fmt.Errorf("acks=0: %w", err)
			}
		}
	}
	return nil
}

// settled reports whether the reply has nothing left to wait for.
func (w *produceRequest) settled() bool {
	if w.acks != -1 {
		return true
	}
	for i := range w.topics {
		for j := range w.topics[i].partitions {
			if p := &w.topics[i].partitions[j]; p.err == nil && !p.partition.Committed(p.next, p.epoch) {
				return false
			}
		}
	}
	return true
}

// await waits until every batch that was written is committed, or the request's timeout has passed.
func (w *produceRequest) await(ctx context.Context) error {
	if w.settled() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	for i := range w.topics {
		for j := range w.topics[i].partitions {
			p := &w.topics[i].partitions[j]
			if p.err != nil {
				continue
			}
			err := p.partition.AwaitCommitted(limited, p.next, p.epoch)
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return fmt.Errorf("produce: connection ended before the records were committed: %w", ctx.Err())
			case errors.Is(err, context.DeadlineExceeded):
				p.fail(fmt.Errorf("%s-%d after %v: %w", w.topics[i].name, p.number, w.timeout, errTimedOut))
			default:
				p.fail(err)
			}
		}
	}
	return nil
}

func (p *produced) fail(err error) {
	p.err, p.first, p.timeMs, p.start = err, -1, -1, -1
}
