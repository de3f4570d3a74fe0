package batch

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// goldenHex is one record, key k, value v, of an idempotent transactional producer: the layout, written out.
const goldenHex = "0000000000000005" + // base offset
	"0000003a" + // length of what follows
	"00000007" + "02" + // leader epoch, magic
	"4e14a32e" + // CRC-32C of what follows
	"0010" + "00000000" + // attributes, last offset delta
	"0000018bcfe56800" + "0000018bcfe56800" + // base and max timestamp
	"0000000000001267" + "0003" + "00000009" + // producer id, epoch, sequence
	"00000001" + // count
	"10" + "00" + "00" + "00" + "026b" + "0276" + "00" // length, attributes, deltas, key, value, headers

func golden(tb testing.TB) Batch {
	tb.Helper()
	b, err := hex.DecodeString(goldenHex)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestLayout(t *testing.T) {
	b := golden(t)
	if err := b.CheckCRC(); err != nil {
		t.Fatal(err)
	}
	type fields struct {
		base, last, next, size             int64
		epoch                              int32
		magic                              int8
		crc                                uint32
		attributes                         int16
		codec                              Codec
		timestampType                      TimestampType
		transactional, control             bool
		baseTimestamp, maxTimestamp        int64
		producerID                         int64
		producerEpoch                      int16
		baseSequence, lastSequence, counts int32
	}
	got := fields{
		b.BaseOffset(), b.LastOffset(), b.NextOffset(), b.Size(), b.LeaderEpoch(), b.Magic(), b.CRC(), b.Attributes(), b.Codec(),
		b.TimestampType(), b.IsTransactional(), b.IsControl(), b.BaseTimestamp(), b.MaxTimestamp(), b.ProducerID(), b.ProducerEpoch(),
		b.BaseSequence(), b.LastSequence(), b.Count(),
	}
	want := fields{5, 5, 6, 70, 7, 2, 0x4e14a32e, 16, None, CreateTime, true, false, 1_700_000_000_000, 1_700_000_000_000, 4711, 3, 9, 9, 1}
	if got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	builder := NewBuilder(BuilderOptions{BaseOffset: 5, LeaderEpoch: 7})
	builder.SetProducer(4711, 3, 9, true)
	builder.Append(1_700_000_000_000, []byte("k"), []byte("v"), nil)
	made, err := builder.Build()
	if err != nil || !bytes.Equal(made, b) {
		t.Errorf("built, error %v:\n got %x\nwant %x", err, made, b)
	}
	if _, marked := b.DeleteHorizon(); marked {
		t.Error("a delete horizon where there is none")
	}
	b[attributesAt+1] |= deleteHorizonFlag
	if ms, marked := b.DeleteHorizon(); !marked || ms != 1_700_000_000_000 {
		t.Errorf("delete horizon %d, %t", ms, marked)
	}
}

func TestNextFrames(t *testing.T) {
	b := golden(t)
	two := slices.Concat(b, b, b[:30])
	first, rest, err := Next(two)
	if err != nil || !bytes.Equal(first, b) || cap(first) != len(b) {
		t.Fatalf("first: %x (capacity %d), error %v", first, cap(first), err)
	}
	second, rest, err := Next(rest)
	if err != nil || !bytes.Equal(second, b) {
		t.Fatalf("second: %x, error %v", second, err)
	}
	if _, left, err := Next(rest); !errors.Is(err, ErrIncomplete) || len(left) != 30 {
		t.Fatalf("the rest: %d bytes left, error %v", len(left), err)
	}
	for n := range len(b) {
		if _, _, err := Next(b[:n]); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, m := range []byte{0, 1, 3, 255} {
		bad := slices.Clone(b)
		bad[magicAt] = m
		want := ErrCorrupt
		if m < 2 {
			want = ErrMagic
		}
		if _, _, err := Next(bad); !errors.Is(err, want) {
			t.Errorf("magic %d: %v", m, err)
		}
	}
	for _, length := range []int32{0, -1, 48, math.MinInt32} {
		bad := slices.Clone(b)
		binary.BigEndian.PutUint32(bad[lengthAt:], uint32(length))
		if _, _, err := Next(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("length %d: %v", length, err)
		}
	}
	huge := slices.Clone(b)
	binary.BigEndian.PutUint32(huge[lengthAt:], math.MaxInt32)
	if _, _, err := Next(huge); !errors.Is(err, ErrIncomplete) {
		t.Errorf("the largest length: %v", err)
	}
}

func TestAssignKeepsTheChecksum(t *testing.T) {
	whole := golden(t)
	rapid.Check(t, func(t *rapid.T) {
		b := slices.Clone(whole)
		base, epoch := rapid.Int64().Draw(t, "base"), rapid.Int32().Draw(t, "epoch")
		b.Assign(base, epoch)
		if err := b.CheckCRC(); err != nil || b.BaseOffset() != base || b.LeaderEpoch() != epoch {
			t.Fatalf("base %d, epoch %d, error %v", b.BaseOffset(), b.LeaderEpoch(), err)
		}
	})
}

func TestPatchesRenewTheChecksum(t *testing.T) {
	whole := golden(t)
	rapid.Check(t, func(t *rapid.T) {
		b := slices.Clone(whole)
		ms := rapid.Int64().Draw(t, "ms")
		b.SetLogAppendTime(ms)
		if err := b.CheckCRC(); err != nil || b.TimestampType() != LogAppendTime || b.MaxTimestamp() != ms {
			t.Fatalf("SetLogAppendTime: %s %d, error %v", b.TimestampType(), b.MaxTimestamp(), err)
		}
		b.SetMaxTimestamp(ms)
		if err := b.CheckCRC(); err != nil || b.TimestampType() != CreateTime || b.MaxTimestamp() != ms {
			t.Fatalf("SetMaxTimestamp: %s %d, error %v", b.TimestampType(), b.MaxTimestamp(), err)
		}
		id, epoch, sequence := rapid.Int64().Draw(t, "id"), rapid.Int16().Draw(t, "epoch"), rapid.Int32().Draw(t, "sequence")
		transactional := rapid.Bool().Draw(t, "transactional")
		b.SetProducer(id, epoch, sequence, transactional)
		if err := b.CheckCRC(); err != nil || b.ProducerID() != id || b.ProducerEpoch() != epoch || b.BaseSequence() != sequence ||
			b.IsTransactional() != transactional {
			t.Fatalf("SetProducer: %d %d %d %t, error %v", b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.IsTransactional(), err)
		}
	})
}

// Every single flipped bit that the checksum covers is noticed, by CheckCRC and by Check; so is a cut or longer batch.
func TestDamageIsNoticed(t *testing.T) {
	b := golden(t)
	b.Assign(0, NoLeaderEpoch)
	c := NewChecker()
	rules := Rules{KeepCodec: true, MaxBeforeMs: math.MaxInt64, MaxAfterMs: math.MaxInt64}
	for bit := crcAt * 8; bit < len(b)*8; bit++ {
		bad := slices.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := bad.CheckCRC(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: CheckCRC gives %v", bit, err)
		}
		if _, err := c.Check(bad, rules); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: Check gives %v", bit, err)
		}
	}
	for n := range len(b) {
		if err := b[:n].CheckCRC(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := c.Check(b[:n], rules); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: Check gives %v", n, err)
		}
	}
	if err := append(slices.Clone(b), 0).CheckCRC(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	longer := slices.Clone(b)
	longer[lengthAt+3]++ // not covered by the checksum
	if err := longer.CheckCRC(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a length of one more: %v", err)
	}
}

func TestSequenceWrapsToZero(t *testing.T) {
	for _, k := range []struct{ sequence, n, want int32 }{
		{0, 0, 0},
		{5, 3, 8},
		{math.MaxInt32, 1, 0},
		{math.MaxInt32 - 1, 1, math.MaxInt32},
		{math.MaxInt32 - 1, 5, 3},
		{math.MaxInt32, math.MaxInt32, math.MaxInt32 - 1},
	} {
		if got := AddSequence(k.sequence, k.n); got != k.want {
			t.Errorf("%d + %d = %d, want %d", k.sequence, k.n, got, k.want)
		}
	}
	b := golden(t)
	b.SetProducer(1, 1, math.MaxInt32, false)
	binary.BigEndian.PutUint32(b[lastOffsetDeltaAt:], 2)
	if got := b.LastSequence(); got != 1 {
		t.Errorf("last sequence %d, want 1", got)
	}
	b.SetProducer(NoProducerID, NoProducerEpoch, NoSequence, false)
	if got := b.LastSequence(); got != NoSequence {
		t.Errorf("last sequence %d without one", got)
	}
}

func TestNames(t *testing.T) {
	for c := None; c < codecs; c++ {
		for _, name := range []string{c.String(), strings.ToUpper(c.String())} {
			if got, err := ParseCodec(name); err != nil || got != c {
				t.Errorf("%s: %s, %v", name, got, err)
			}
		}
	}
	if c, err := ParseCodec("uncompressed"); err != nil || c != None {
		t.Errorf("uncompressed: %s, %v", c, err)
	}
	for _, name := range []string{"", "producer", "lzo", "codec 5"} {
		if _, err := ParseCodec(name); !errors.Is(err, ErrUnsupportedCodec) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, want := range []TimestampType{CreateTime, LogAppendTime} {
		if got, err := ParseTimestampType(want.String()); err != nil || got != want {
			t.Errorf("%s: %s, %v", want, got, err)
		}
	}
	if _, err := ParseTimestampType("createtime"); err == nil {
		t.Error("createtime is taken")
	}
}

// randomRecord draws a record of any shape, nulls, empty fields and repeated header keys among them.
func randomRecord(r *rand.Rand, maxBytes int) (timestamp int64, key, value []byte, headers []Header) {
	field := func() []byte {
		switch r.IntN(6) {
		case 0:
			return nil
		case 1:
			return []byte{}
		}
		p := make([]byte, r.IntN(maxBytes))
		for i := range p {
			p[i] = "abcd"[r.IntN(4)]
		}
		return p
	}
	for range max(0, r.IntN(6)-2) {
		headers = append(headers, Header{Key: append([]byte{}, field()...), Value: field()})
	}
	timestamp = NoTimestamp
	if r.IntN(10) > 0 {
		timestamp = 1_700_000_000_000 + r.Int64N(100_000) - 50_000
	}
	return timestamp, field(), field(), headers
}

// randomBatch builds a batch and returns with it what it was built from.
func randomBatch(tb testing.TB, c *Checker, r *rand.Rand, codec Codec, records, maxBytes int) (Batch, []Record) {
	tb.Helper()
	builder := NewBuilder(BuilderOptions{Codec: codec, Checker: c, Levels: Levels{Gzip: r.IntN(10), Lz4: r.IntN(18), Zstd: r.IntN(23)}})
	var all []Record
	base := int64(0)
	for i := range records {
		timestamp, key, value, headers := randomRecord(r, maxBytes)
		if i == 0 {
			base = timestamp
		}
		builder.Append(timestamp, key, value, headers)
		all = append(all, Record{OffsetDelta: int32(i), TimestampDelta: timestamp - base, Key: key, Value: value, Headers: headers})
	}
	b, err := builder.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b, all
}

// A batch that is as large as was expected, and not larger, has memory for so much and not for twice as much.
func TestBuilderEndsAtTheExpectedSize(t *testing.T) {
	const expected = 16 << 10
	for valueBytes := range 300 {
		b := NewBuilder(BuilderOptions{ExpectedBytes: expected})
		value := make([]byte, valueBytes)
		for b.SizeWith(0, nil, value, nil) <= expected {
			b.Append(0, nil, value, nil)
		}
		for rest := valueBytes; rest > 0; rest-- { // the last one fills it
			if b.SizeWith(0, nil, value[:rest], nil) <= expected {
				b.Append(0, nil, value[:rest], nil)
				break
			}
		}
		if b.Capacity() != expected {
			t.Errorf("values of %d bytes: %d bytes for a batch of %d", valueBytes, b.Capacity(), b.UncompressedSize())
		}
	}
}
