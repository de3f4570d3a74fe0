package client

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/client/internal/partitioner"
)

// What org.apache.kafka.common.utils.Utils of Apache Kafka 4.3.1 gives.
var javaMurmur2 = []struct {
	key           string // hex
	hash          int32
	of12, ofSeven int32 // partition of 12 and of 7
}{
	{"", 275646681, 9, 2},
	{"61", -1563381124, 4, 5},
	{"6162", 316155434, 2, 0},
	{"616263", 479470107, 3, 4},
	{"61626364", -1323649548, 8, 5},
	{"3231", -973932308, 0, 3},
	{"666f6f626172", -790332482, 6, 0},
	{"612d6c6974746c652d6269742d6c6f6e672d737472696e67", -985981536, 8, 1},
	{"612d6c6974746c652d6269742d6c6f6e6765722d737472696e67", -1486304829, 11, 0},
	{"6c6b6a683233346c68396669756839307932336f697568736166756a6861646f66323239706872396831396838396838", -58897971, 5, 3},
	{"00000000", 850957120, 4, 6},
	{"fffe800102", 1321408316, 8, 4},
	{"4a464b", 531569365, 1, 5},
	{"4c4158", 1527128204, 8, 0},
	{"c3a4e6bca2e5ad97", -105797602, 10, 1},
}

func TestKeyPartitionIsJavas(t *testing.T) {
	for _, c := range javaMurmur2 {
		key, err := hex.DecodeString(c.key)
		if err != nil {
			t.Fatal(err)
		}
		if h := int32(partitioner.Murmur2(key)); h != c.hash {
			t.Errorf("key %s: hash %d, Java's is %d", c.key, h, c.hash)
		}
		if p := KeyPartition(key, 12); p != c.of12 {
			t.Errorf("key %s: partition %d of 12, Java's is %d", c.key, p, c.of12)
		}
		if p := KeyPartition(key, 7); p != c.ofSeven {
			t.Errorf("key %s: partition %d of 7, Java's is %d", c.key, p, c.ofSeven)
		}
	}
}

// stillTopic is a topicView of which nothing moves.
type stillTopic struct {
	room  bool
	loads []partitioner.Load
	rng   *rand.Rand
}

func (s *stillTopic) Loads() []partitioner.Load { return s.loads }
func (s *stillTopic) Random() uint32            { return s.rng.Uint32() }
func (s *stillTopic) hasRoom(int32, int64) bool { return s.room }

func TestChoiceOfPartition(t *testing.T) {
	view := &stillTopic{room: true, rng: rand.New(rand.NewPCG(1, 1))}
	cfg := defaultProducerConfig()
	topic := newTopicPartitioner(&cfg, 0x7ffffffe) // runs over into what would be negative
	choose := func(own PartitionChoice, key []byte) int32 {
		c, err := topic.choose("t", &ProducerRecord{Partition: own, Key: key}, 5, view)
		if err != nil {
			t.Fatal(err)
		}
		return c.partition
	}
	if n := choose(ToPartition(3), []byte("21")); n != 3 {
		t.Errorf("the record's own partition is 3, chosen %d", n)
	}
	if n := choose(PartitionChoice{}, []byte{}); n != KeyPartition(nil, 5) {
		t.Errorf("an empty key is a key: chosen %d", n)
	}
	last := choose(PartitionChoice{}, nil)
	for range 3 {
		n := choose(ToPartition(-1), nil)
		if n != (last+1)%5 && n != 0 {
			t.Errorf("chosen %d after %d", n, last)
		}
		last = n
	}
	if _, err := topic.choose("t", &ProducerRecord{Partition: ToPartition(5)}, 5, view); !errors.Is(err, ErrNoSuchPartition) {
		t.Errorf("partition 5 of 5: %v", err)
	}
	topic.custom = PartitionerFunc(func(_ string, key, _ []byte, partitions int32) int32 { return int32(len(key)) % partitions })
	if n := choose(PartitionChoice{}, []byte("seven!!")); n != 2 {
		t.Errorf("the user's function: chosen %d", n)
	}
	topic.custom = PartitionerFunc(func(string, []byte, []byte, int32) int32 { return 99 })
	if _, err := topic.choose("t", &ProducerRecord{}, 5, view); !errors.Is(err, ErrNoSuchPartition) {
		t.Errorf("a function that is wrong: %v", err)
	}
}

// What the settings say reaches the choice: keys that are ignored, and each way to spread.
// A partition that the metadata does not know of may be a new one.
func TestNewPartitionsAreFoundWhenTheyAreNamed(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f)
		defer c.Close()
		defer closeProducer(t, p)
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		f.topic("t", 3)
		if m, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(2)}); err != nil || m.Partition != 2 {
			t.Errorf("to a new partition: %v, %v", m, err)
		}
		began := time.Now()
		_, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(3)})
		if took := time.Since(began); !errors.Is(err, ErrNoSuchPartition) || took > time.Second {
			t.Errorf("to one that there is not, after %v: %v", took, err)
		}
	})
}

func TestSpreadFollowsItsSetting(t *testing.T) {
	for _, spread := range []Spread{SpreadInTurn, SpreadSticky, SpreadUniformly} {
		view := &stillTopic{room: true, rng: rand.New(rand.NewPCG(2, uint64(spread)))}
		cfg := defaultProducerConfig()
		cfg.spread, cfg.ignoreKeys = spread, true
		topic := newTopicPartitioner(&cfg, 0)
		moves, last := 0, int32(-1)
		for i := range 100 {
			view.room = i%10 != 0 // for SpreadSticky: every tenth record needs another batch
			c, err := topic.choose("t", &ProducerRecord{Key: []byte("JFK")}, 7, view)
			if err != nil || !c.free {
				t.Fatalf("%v, free %v", err, c.free)
			}
			topic.appended(c, 1000, i%10 == 0, 7, view) // for SpreadUniformly: 16 KiB are a batch
			if c.partition != last {
				moves++
			}
			last = c.partition
		}
		if low, high := []int{100, 10, 3}[spread], []int{100, 11, 8}[spread]; moves < low || moves > high {
			t.Errorf("spread %d: moved %d times, expected %d to %d", spread, moves, low, high)
		}
	}
}

// The table was taken from Apache Kafka's own; franz-go's is a second opinion. It classes these
// otherwise than Java does: BROKER_NOT_AVAILABLE, CONCURRENT_TRANSACTIONS, and the two of share sessions.
func TestErrorTableIsKafkas(t *testing.T) {
	differs := map[Error]bool{8: true, 51: true, 122: true, 123: true}
	for code := ErrUnknownServerError; code <= ErrShareSessionLimitReached; code++ {
		if code == 0 {
			continue
		}
		theirs := kerr.TypedErrorForCode(code.Code())
		if theirs == nil {
			t.Errorf("%v is unknown to franz-go", code)
			continue
		}
		renamed := code == ErrNotLeaderOrFollower || code == ErrNetwork || code == ErrInvalidProducerIDMapping
		if theirs.Message != code.Name() && !renamed && code != 13 {
			t.Errorf("%d is %s here and %s with franz-go", code, code.Name(), theirs.Message)
		}
		if theirs.Retriable == code.Retriable() == differs[code] {
			t.Errorf("%v: retriable is %v here and %v with franz-go", code, code.Retriable(), theirs.Retriable)
		}
	}
	var err error = &PartitionError{TopicPartition{"t", 1}, CodeError(36, new(string))}
	if !errors.Is(err, ErrTopicAlreadyExists) || retriable(err) || CodeError(0, nil) != nil {
		t.Errorf("%v", err)
	}
	if got := Error(999).Error(); got != "UNKNOWN_CODE (999)" {
		t.Errorf("%s", got)
	}
}
