package typed

import (
	"context"
	"sync"
	"time"

	"barnabas/client"
)

// Producer sends records with keys of type K and values of type V. It is safe for concurrent use.
// It has nothing to be closed: the client.Producer that it stands on has.
type Producer[K, V any] struct {
	to    *client.Producer
	key   Serializer[K]
	value Serializer[V]
	spare sync.Pool // of *memory
}

// ProducerRecord is a record to be sent, as client.ProducerRecord is.
type ProducerRecord[K, V any] struct {
	Topic     string                 // required
	Partition client.PartitionChoice // client.ToPartition(3), or left out
	Key       K
	Value     V
	Headers   []client.Header
	Timestamp time.Time // in whole milliseconds; the zero value means now
}

// NewProducer makes a producer that sends through to.
func NewProducer[K, V any](to *client.Producer, key Serializer[K], value Serializer[V]) *Producer[K, V] {
	return &Producer[K, V]{to: to, key: key, value: value}
}

// Send is client.Producer's Send: it hands a record over and returns, and done, which may be nil,
// is called once with what became of it. Errors: a *SerializationError; client.Producer's.
func (p *Producer[K, V]) Send(ctx context.Context, r ProducerRecord[K, V], done func(client.RecordMetadata, error)) error {
	m := p.memory()
	defer p.spare.Put(m)
	raw, err := p.serialize(ctx, &r, m)
	if err != nil {
		return err
	}
	return p.to.Send(ctx, raw, done) // copies what it was given before it returns
}

// SendSync sends a record and waits until it is acknowledged. When ctx ends first the record may
// yet be written. Errors: a *SerializationError; client.Producer's.
func (p *Producer[K, V]) SendSync(ctx context.Context, r ProducerRecord[K, V]) (client.RecordMetadata, error) {
	m := p.memory()
	defer p.spare.Put(m)
	raw, err := p.serialize(ctx, &r, m)
	if err != nil {
		return client.RecordMetadata{}, err
	}
	return p.to.SendSync(ctx, raw)
}

// memory is where keys and values are put together, one record after the other.
type memory struct{ key, value []byte }

// keptBytes bounds the memory that is kept of a key or a value for those that follow.
const keptBytes = 64 << 10

func (p *Producer[K, V]) memory() *memory {
	if m, ok := p.spare.Get().(*memory); ok {
		return m
	}
	return new(memory)
}

func (p *Producer[K, V]) serialize(ctx context.Context, r *ProducerRecord[K, V], m *memory) (client.ProducerRecord, error) {
	raw := client.ProducerRecord{Topic: r.Topic, Partition: r.Partition, Headers: r.Headers, Timestamp: r.Timestamp}
	var err error
	if raw.Key, err = p.key.Serialize(ctx, r.Topic, m.key[:0], r.Key); err != nil {
		return raw, &SerializationError{Topic: r.Topic, Part: Key, Err: err}
	}
	if raw.Value, err = p.value.Serialize(ctx, r.Topic, m.value[:0], r.Value); err != nil {
		return raw, &SerializationError{Topic: r.Topic, Part: Value, Err: err}
	}
	m.key, m.value = room(m.key, raw.Key), room(m.value, raw.Value)
	return raw, nil
}

// room gives memory for the next of the kind. What a Serializer returned may be the program's own,
// and is never written to: where it did not fit into the memory there is, there will be more.
func room(have, needed []byte) []byte {
	if len(needed) <= cap(have) || len(needed) > keptBytes {
		return have
	}
	return make([]byte, 0, min(2*len(needed), keptBytes))
}
