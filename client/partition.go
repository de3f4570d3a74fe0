package client

import (
	"time"

	"barnabas/client/internal/partitioner"
)

// Partitioner chooses the partition of a record that names none. partitions is how many the topic
// has, at least 1; the result must be below. It is called concurrently. See PartitionBy.
type Partitioner interface {
	Partition(topic string, key, value []byte, partitions int32) int32
}

// PartitionerFunc makes a Partitioner of a function.
type PartitionerFunc func(topic string, key, value []byte, partitions int32) int32

// Partition calls the function.
func (f PartitionerFunc) Partition(topic string, key, value []byte, partitions int32) int32 {
	return f(topic, key, value, partitions)
}

// Spread is how records without a key are spread over the partitions of their topic.
type Spread int8

// The ways to spread records. The order of records without a key is that of Send only within a
// partition, whichever is chosen.
const (
	// SpreadInTurn deals records out one by one, from a partition that is chosen at random.
	SpreadInTurn Spread = iota

	// SpreadSticky stays with a partition until a batch there is full or has been sent, and goes on
	// to another at random (KIP-480): fewer and larger batches where records are few.
	SpreadSticky

	// SpreadUniformly stays with a partition until BatchSize bytes have gone there, so that in the
	// long run all get the same number of bytes (KIP-794), or, adaptive, those less whose brokers
	// are slower. It is what Kafka's own producer does.
	SpreadUniformly
)

// KeyPartition is the partition that Kafka's clients choose for a key: its murmur2 hash without
// the sign bit, modulo the number of partitions. Records of one key keep their order because of
// it, as long as the number of partitions stays.
func KeyPartition(key []byte, partitions int32) int32 { return partitioner.ForKey(key, partitions) }

// topicPartitioner is step (b) for one topic: a serialised record goes to the partition that it
// names, else where the user's Partitioner says, else by its key, else as Spread says.
type topicPartitioner struct {
	custom     Partitioner
	spread     Spread
	ignoreKeys bool
	counter    partitioner.Counter
	sticky     partitioner.Sticky
	uniform    partitioner.Uniform
}

func newTopicPartitioner(cfg *producerConfig, random uint32) *topicPartitioner {
	t := &topicPartitioner{
		custom: cfg.partitioner, spread: cfg.spread, ignoreKeys: cfg.ignoreKeys,
		uniform: partitioner.Uniform{BatchBytes: max(cfg.batchBytes, 1), Adaptive: cfg.adaptive},
	}
	t.counter.StartAt(random)
	return t
}

// choice is the partition of a record. A free one was chosen by Spread, for whatever record came.
type choice struct {
	partition int32
	free      bool
}

// topicView is what step (b) knows of a topic.
type topicView interface {
	partitioner.View
	// hasRoom tells whether a partition has a batch that a record of so many bytes would go into.
	hasRoom(partition int32, bytes int64) bool
}

// choose is made before the record is appended; partitions is how many the topic has.
func (t *topicPartitioner) choose(topic string, r *ProducerRecord, partitions int32, v topicView) (choice, error) {
	n, asked := r.Partition.Get()
	switch {
	case asked:
		if n >= partitions {
			return choice{}, ErrNoSuchPartition
		}
		return choice{partition: n}, nil
	case t.custom != nil:
		n = t.custom.Partition(topic, r.Key, r.Value, partitions)
		if n < 0 || n >= partitions {
			return choice{}, ErrNoSuchPartition
		}
		return choice{partition: n}, nil
	case r.Key != nil && !t.ignoreKeys:
		return choice{partition: KeyPartition(r.Key, partitions)}, nil
	}
	switch t.spread {
	case SpreadSticky:
		if n = t.sticky.Current(partitions, v); !v.hasRoom(n, recordBytes(r)) {
			n = t.sticky.Move(n, partitions, v)
		}
	case SpreadUniformly:
		n = t.uniform.Current(partitions, v)
	default:
		n = t.counter.Next(partitions)
	}
	return choice{partition: n, free: true}, nil
}

// appended follows on choose once the record is in its batch.
func (t *topicPartitioner) appended(c choice, bytes int64, full bool, partitions int32, v topicView) {
	if c.free && t.spread == SpreadUniformly {
		t.uniform.Appended(c.partition, int(bytes), full, partitions, v)
	}
}

// Random is a partitioner.View's.
func (t *producerTopic) Random() uint32 { return t.producer.c.random.Uint32() }

// Loads gives the partitions that can be written to, leaving out those of a broker that has
// stalled for longer than partitioner.availability.timeout.ms.
func (t *producerTopic) Loads() []partitioner.Load {
	p := t.producer
	s := p.c.meta.Snapshot()
	info := s.Topics[t.name]
	if info == nil {
		return nil
	}
	now := time.Now()
	queues := *t.queues.Load()
	loads := make([]partitioner.Load, 0, len(info.Partitions))
	for n := range info.Partitions {
		leader := info.Partitions[n].Leader
		if _, reachable := s.Brokers[leader]; !reachable || p.stalled(leader, now) {
			continue
		}
		l := partitioner.Load{Partition: int32(n)}
		if n < len(queues) {
			l.Backlog = queues[n].Backlog()
		}
		loads = append(loads, l)
	}
	return loads
}

func (t *producerTopic) hasRoom(partition int32, bytes int64) bool {
	queues := *t.queues.Load()
	return int(partition) < len(queues) && queues[partition].HasRoom(bytes)
}
