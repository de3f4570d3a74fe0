package api

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestHonestProduceRequestsPassTheScan(t *testing.T) {
	for version := int16(3); version <= 13; version++ {
		q := kmsg.NewPtrProduceRequest()
		q.Version, q.Acks, q.TimeoutMillis = version, -1, 1000
		for topic := range 40 {
			asked := kmsg.NewProduceRequestTopic()
			asked.Topic, asked.TopicID[0] = "a-topic", byte(topic)
			for n := range int32(50) {
				part := kmsg.NewProduceRequestTopicPartition()
				part.Partition, part.Records = n, make([]byte, 68)
				asked.Partitions = append(asked.Partitions, part)
			}
			q.Topics = append(q.Topics, asked)
		}
		if err := scanProduce(q.AppendTo(nil), version); err != nil {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

func TestProduceRequestThatAnnouncesTooMuchIsRefusedBeforeDecoding(t *testing.T) {
	const topics = 1 << 20
	flexible := append([]byte{0}, 0, 1, 0, 0, 0, 0) // no transactional id, acks, timeout
	flexible = binary.AppendUvarint(flexible, topics+1)
	flexible = append(flexible, make([]byte, 3*topics)...) // name "", no partitions, no tags
	if err := scanProduce(flexible, 12); !errors.Is(err, errHostileProduce) {
		t.Errorf("a million empty topics: %v, want %v", err, errHostileProduce)
	}
	old := append([]byte{0xff, 0xff}, 0, 1, 0, 0, 0, 0)
	old = binary.BigEndian.AppendUint32(old, 1)
	old = append(old, 0, 1, 'a')
	old = binary.BigEndian.AppendUint32(old, topics)
	old = append(old, make([]byte, 8*topics)...) // partition 0, no records
	if err := scanProduce(old, 7); !errors.Is(err, errHostileProduce) {
		t.Errorf("a million empty partitions: %v, want %v", err, errHostileProduce)
	}
}

func FuzzScanProduce(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0}, int16(9))
	f.Add([]byte{0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, int16(3))
	f.Fuzz(func(_ *testing.T, body []byte, version int16) {
		_ = scanProduce(body, 3+(version%11+11)%11) // ends, and does not panic
	})
}
