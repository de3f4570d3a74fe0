package typed

import (
	"context"
	"errors"
	"strconv"

	"barnabas/client"
)

// Source is what records are read from: a *client.Consumer or a *client.GroupConsumer. One Poll
// returns records of one partition.
type Source interface {
	Poll(ctx context.Context) ([]client.Record, error)
	Seek(tp client.TopicPartition, at client.Position) error
	Pause(partitions ...client.TopicPartition)
	Resume(partitions ...client.TopicPartition)
}

// Record is a record that was consumed, with its key and its value as Go values.
type Record[K, V any] struct {
	*client.Record // as it was read; its own Key and Value are the bytes
	Key            K
	Value          V
}

// Consumer reads records with keys of type K and values of type V. Poll is for one goroutine at a
// time. It has nothing to be closed: the consumer that it stands on has, which is also where
// positions are committed.
type Consumer[K, V any] struct {
	from   Source
	key    Deserializer[K]
	value  Deserializer[V]
	poison func(context.Context, *PoisonError) error
	failed error // behind the records that Poll has returned
}

// ConsumerOption sets something of a Consumer.
type ConsumerOption func(*consumerConfig)

type consumerConfig struct {
	poison func(context.Context, *PoisonError) error
}

// OnPoison decides about a record that cannot be read: where f returns nil the record is passed
// over, and otherwise Poll returns the error, behind the records before it, and the partition is
// paused at the record while others go on. The position is then the record's own, so that a group
// commits it as not read. Consumer.Skip reads on behind it, Resume tries it again. f is called by Poll, before the records of
// that Poll are returned; ctx is Poll's. Default: the *PoisonError is Poll's error.
func OnPoison(f func(ctx context.Context, bad *PoisonError) error) ConsumerOption {
	return func(c *consumerConfig) { c.poison = f }
}

// NewConsumer makes a consumer that reads from a consumer of client.
func NewConsumer[K, V any](from Source, key Deserializer[K], value Deserializer[V], options ...ConsumerOption) *Consumer[K, V] {
	cfg := consumerConfig{poison: func(_ context.Context, bad *PoisonError) error { return bad }}
	for _, o := range options {
		o(&cfg)
	}
	return &Consumer[K, V]{from: from, key: key, value: value, poison: cfg.poison}
}

// Poll is the Poll of what the Consumer reads from: records of one partition, at least one, waiting
// until there are some. Errors: that Poll's; for a record that cannot be read what OnPoison decides,
// by default a *PoisonError.
func (c *Consumer[K, V]) Poll(ctx context.Context) ([]Record[K, V], error) {
	if err := c.failed; err != nil {
		c.failed = nil
		return nil, err
	}
	for {
		raw, err := c.from.Poll(ctx)
		if err != nil {
			return nil, err
		}
		records, refused, err := c.deserializeAll(ctx, raw)
		switch {
		case len(records) > 0:
			if refused {
				c.failed = err
			}
			return records, nil
		case err != nil:
			return nil, err
		}
	}
}

// deserializeAll gives the records up to the first that is not passed over, because it is refused or
// because ctx has ended: then it comes again.
func (c *Consumer[K, V]) deserializeAll(ctx context.Context, raw []client.Record) (records []Record[K, V], refused bool, err error) {
	records = make([]Record[K, V], 0, len(raw))
	for i := range raw {
		r := Record[K, V]{Record: &raw[i]}
		bad := c.deserialize(ctx, &r)
		if bad == nil {
			records = append(records, r)
			continue
		}
		if err = context.Cause(ctx); err == nil {
			if err = c.poison(ctx, bad); err == nil {
				continue
			}
			refused = ctx.Err() == nil
		}
		return records, refused, errors.Join(err, c.goBack(bad.Record, refused))
	}
	return records, false, nil
}

func (c *Consumer[K, V]) deserialize(ctx context.Context, r *Record[K, V]) (bad *PoisonError) {
	var err error
	if r.Key, err = c.key.Deserialize(ctx, r.Topic, r.Record.Key); err != nil {
		return &PoisonError{Record: r.Record, Part: Key, Err: err}
	}
	if r.Value, err = c.value.Deserialize(ctx, r.Topic, r.Record.Value); err != nil {
		return &PoisonError{Record: r.Record, Part: Value, Err: err}
	}
	return nil
}

// goBack takes the position back to a record, so that neither a commit nor the next Poll passes it.
func (c *Consumer[K, V]) goBack(to *client.Record, pause bool) error {
	tp := to.TopicPartition()
	err := c.from.Seek(tp, client.AtOffset(to.Offset))
	if err == nil && pause {
		c.from.Pause(tp)
	}
	return unlessGone(err)
}

// unlessGone passes over that a partition is not this consumer's any more: its record is then the
// business of whoever reads it next.
func unlessGone(err error) error {
	if errors.Is(err, client.ErrNotAssigned) || errors.Is(err, client.ErrClosed) {
		return nil
	}
	return err
}

// Skip reads on behind a record that Poll has refused. It does nothing where the partition is no
// longer this consumer's.
func (c *Consumer[K, V]) Skip(bad *PoisonError) error {
	tp := bad.Record.TopicPartition()
	if err := unlessGone(c.from.Seek(tp, client.AtOffset(bad.Record.Offset+1))); err != nil {
		return err
	}
	c.from.Resume(tp)
	return nil
}

// Headers that DeadLetters adds, under the names that Kafka Connect gives them (KIP-298), so that
// tools which read its dead letters read these.
const (
	deadTopic     = "__connect.errors.topic"
	deadPartition = "__connect.errors.partition"
	deadOffset    = "__connect.errors.offset"
	deadStage     = "__connect.errors.stage"
	deadMessage   = "__connect.errors.exception.message"
)

// DeadLetters is for OnPoison: it writes a record that cannot be read to a topic for such, with key,
// value and headers as they are and further headers that say where it was read and what is wrong,
// and waits until that is acknowledged. Where it is not, Poll returns why and the record is not
// passed over. A record may be written twice: it is read again after a crash before its offset
// was committed.
func DeadLetters(to *client.Producer, topic string) func(context.Context, *PoisonError) error {
	return func(ctx context.Context, bad *PoisonError) error {
		r := bad.Record
		stage := "KEY_CONVERTER"
		if bad.Part == Value {
			stage = "VALUE_CONVERTER"
		}
		_, err := to.SendSync(ctx, client.ProducerRecord{
			Topic: topic, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp,
			Headers: append(r.Headers[:len(r.Headers):len(r.Headers)],
				client.Header{Key: deadTopic, Value: []byte(r.Topic)},
				client.Header{Key: deadPartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
				client.Header{Key: deadOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
				client.Header{Key: deadStage, Value: []byte(stage)},
				client.Header{Key: deadMessage, Value: []byte(bad.Err.Error())}),
		})
		if err != nil {
			return errors.Join(bad, err)
		}
		return nil
	}
}
