package client

import "encoding/binary"

// Partitioner is the second half of step (b), after serialising: it chooses the partition of a
// record that names none. partitions is how many the topic has, at least 1; the result must be
// below. It is called concurrently.
type Partitioner interface {
	Partition(topic string, key, value []byte, partitions int32) int32
}

// PartitionerFunc makes a Partitioner of a function.
type PartitionerFunc func(topic string, key, value []byte, partitions int32) int32

// Partition calls the function.
func (f PartitionerFunc) Partition(topic string, key, value []byte, partitions int32) int32 {
	return f(topic, key, value, partitions)
}

// choosePartition is step (b) for a serialised record: its own partition, else the murmur2 hash of
// its key modulo the partitions, else a counter of the topic that started at random and goes up by
// one. A Partitioner of the user's replaces the second and the third.
func (t *producerTopic) choosePartition(own PartitionChoice, key, value []byte, partitions int32) (int32, error) {
	if n, asked := own.Get(); asked {
		if n >= partitions {
			return 0, ErrNoSuchPartition
		}
		return n, nil
	}
	if custom := t.producer.cfg.partitioner; custom != nil {
		n := custom.Partition(t.name, key, value, partitions)
		if n < 0 || n >= partitions {
			return 0, ErrNoSuchPartition
		}
		return n, nil
	}
	if key != nil {
		return KeyPartition(key, partitions), nil
	}
	return int32(t.counter.Add(1) & 0x7fffffff % uint32(partitions)), nil
}

// KeyPartition is the partition that Kafka's clients choose for a key: its murmur2 hash without
// the sign bit, modulo the number of partitions. Records of one key keep their order because of
// it, as long as the number of partitions stays.
func KeyPartition(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 is the 32-bit MurmurHash2 with the seed that Kafka's Java client has.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := seed ^ uint32(len(data))
	for len(data) >= 4 {
		k := binary.LittleEndian.Uint32(data)
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
