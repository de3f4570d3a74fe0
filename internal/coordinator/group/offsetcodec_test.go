package group

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func randomCommitted(dice *rand.Rand) committed {
	c := committed{
		offset: dice.Int64(), at: dice.Int64(), expires: never, partition: dice.Int32(), epoch: dice.Int32N(100) - 1,
		metadata: strings.Repeat("m", []int{0, 1, 63, 126, 127, 128, 4096, math.MaxInt16 + 1}[dice.IntN(8)]),
	}
	if dice.IntN(2) == 0 {
		binary.BigEndian.PutUint64(c.topicID[8:], dice.Uint64())
	}
	if dice.IntN(4) == 0 {
		c.expires = dice.Int64()
	}
	return c
}

func kmsgValue(c *committed) kmsg.OffsetCommitValue {
	v := kmsg.OffsetCommitValue{
		Version: offsetValueVersion, Offset: c.offset, LeaderEpoch: c.epoch, Metadata: c.metadata,
		CommitTimestamp: c.at, ExpireTimestamp: c.expires, TopicID: c.topicID,
	}
	if c.expires != never {
		v.Version = offsetValueWithExpiry
	}
	return v
}

// A committed offset is written byte for byte as kmsg writes it, and what is read of it is what kmsg reads, also where
// bytes are missing, changed or left over.
func TestOffsetsAreEncodedAsKmsgDoes(t *testing.T) {
	for seed := range uint64(2000) {
		dice := rand.New(rand.NewPCG(seed, 1))
		c := randomCommitted(dice)
		want := kmsgValue(&c)
		value := appendOffsetValue(nil, &c)
		if judge := want.AppendTo(nil); !bytes.Equal(value, judge) {
			t.Fatalf("seed %d: written as\n%x, kmsg writes\n%x", seed, value, judge)
		}
		var w writer
		w.forget(strings.Repeat("g", dice.IntN(300)), strings.Repeat("t", dice.IntN(249)), c.partition)
		for _, damage := range []func([]byte) []byte{
			func(b []byte) []byte { return b },
			func(b []byte) []byte { return b[:dice.IntN(len(b))] },
			func(b []byte) []byte { return append(bytes.Clone(b), 0) },
			func(b []byte) []byte { b = bytes.Clone(b); b[dice.IntN(len(b))] ^= 1 << dice.IntN(8); return b },
		} {
			b := damage(value)
			if v, ok := viewOffsetValue(b); ok {
				var judge kmsg.OffsetCommitValue
				err := judge.ReadFrom(b)
				judge.ExpireTimestamp = never
				if err != nil || !reflect.DeepEqual(judge, v) {
					t.Fatalf("seed %d: %x is read as %+v, kmsg says %+v, %v", seed, b, v, judge, err)
				}
			}
			b = damage(w.records[0].Key)
			if k, ok := viewOffsetKey(b); ok {
				var judge kmsg.OffsetCommitKey
				if err := judge.ReadFrom(b); err != nil || judge != k {
					t.Fatalf("seed %d: %x is read as %+v, kmsg says %+v, %v", seed, b, k, judge, err)
				}
			}
		}
		if c.expires == never && c.metadata == "" {
			long := append(append(bytes.Clone(value[:14]), 0x81, 0x80, 0x80, 0x80, 0x80, 0), value[15:]...)
			if v, ok := viewOffsetValue(long); ok {
				t.Fatalf("seed %d: a length of six bytes is read: %+v", seed, v)
			}
		}
		if _, ok := viewOffsetValue(value); ok != (c.expires == never) {
			t.Fatalf("seed %d: an ordinary value is left to kmsg: %x", seed, value)
		}
		if _, ok := viewOffsetKey(w.records[0].Key); !ok {
			t.Fatalf("seed %d: an ordinary key is left to kmsg: %x", seed, w.records[0].Key)
		}
	}
}
