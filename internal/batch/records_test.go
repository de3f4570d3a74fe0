package batch

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func sameRecord(a, b *Record) bool {
	sameHeader := func(x, y Header) bool { return sameField(x.Key, y.Key) && sameField(x.Value, y.Value) }
	return a.OffsetDelta == b.OffsetDelta && a.TimestampDelta == b.TimestampDelta && sameField(a.Key, b.Key) &&
		sameField(a.Value, b.Value) && slices.EqualFunc(a.Headers, b.Headers, sameHeader)
}

func sameField(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// What was appended is what is read, in every codec, by us, by the book, and by franz-go; and Check takes it.
func TestRecordsRoundTrip(t *testing.T) {
	c := NewChecker()
	for seed := range uint64(15) {
		for codec := None; codec < codecs; codec++ {
			r := rand.New(rand.NewPCG(seed, uint64(codec)))
			maxBytes := []int{10, 200, 3000, 200_000}[r.IntN(4)]
			b, want := randomBatch(t, c, r, codec, 1+r.IntN(1+2000/maxBytes), maxBytes)
			where := fmt.Sprintf("seed %d, %s, %d records in %d bytes", seed, codec, len(want), len(b))
			var got []Record
			for record, err := range c.Records(b) {
				if err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				got = append(got, record.Clone())
			}
			book, err := byTheBook(b)
			if err != nil {
				t.Fatalf("%s: by the book: %v", where, err)
			}
			if len(got) != len(want) || len(book) != len(want) {
				t.Fatalf("%s: %d read, %d by the book", where, len(got), len(book))
			}
			for i := range want {
				if !sameRecord(&got[i], &want[i]) || !sameRecord(&book[i], &want[i]) {
					t.Fatalf("%s: record %d\n got %+v\nbook %+v\nwant %+v", where, i, got[i], book[i], want[i])
				}
			}
			franzGoReads(t, where, b, want)
			before := slices.Clone(b)
			checked, err := c.Check(b, Rules{KeepCodec: true, MaxBeforeMs: math.MaxInt64, MaxAfterMs: math.MaxInt64})
			if err != nil || !bytes.Equal(checked.Batch, before) {
				t.Fatalf("%s: Check gives %v or changed it", where, err)
			}
			wantMax, wantDelta := NoTimestamp, int32(-1)
			for i := range want {
				if ts := b.TimestampOf(&want[i]); ts > wantMax {
					wantMax, wantDelta = ts, int32(i)
				}
			}
			if checked.MaxTimestampMs != wantMax || checked.OffsetOfMaxTimestamp != wantDelta || checked.AppendTimeMs != -1 {
				t.Fatalf("%s: checked %d at %d, want %d at %d", where, checked.MaxTimestampMs, checked.OffsetOfMaxTimestamp, wantMax, wantDelta)
			}
		}
	}
}

// franzGoReads reads b as a consumer of franz-go does, through kmsg's batch and kgo's decompressors.
func franzGoReads(t *testing.T, where string, b Batch, want []Record) {
	t.Helper()
	partition, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t", KeepControlRecords: true},
		&kmsg.FetchResponseTopicPartition{RecordBatches: b}, kgo.DefaultDecompressor(), nil)
	if partition.Err != nil || len(partition.Records) != len(want) {
		t.Fatalf("%s: franz-go reads %d of %d records, error %v", where, len(partition.Records), len(want), partition.Err)
	}
	for i, got := range partition.Records {
		as := Record{
			OffsetDelta: int32(got.Offset - b.BaseOffset()), TimestampDelta: got.Timestamp.UnixMilli() - b.BaseTimestamp(),
			Key: got.Key, Value: got.Value,
		}
		for _, h := range got.Headers {
			as.Headers = append(as.Headers, Header{Key: []byte(h.Key), Value: h.Value})
		}
		if !sameRecord(&as, &want[i]) {
			t.Fatalf("%s: franz-go reads record %d as\n%+v, want\n%+v", where, i, as, want[i])
		}
	}
}

// kmsg's own encoding of a batch and its records is ours.
func TestBuilderMakesWhatKmsgMakes(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		b, records := randomBatch(t, NewChecker(), r, None, 1+r.IntN(5), 300)
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(b); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var payload []byte
		for i := range records {
			k := kmsg.NewRecord()
			k.TimestampDelta64, k.OffsetDelta = records[i].TimestampDelta, records[i].OffsetDelta
			k.Key, k.Value = records[i].Key, records[i].Value
			for _, h := range records[i].Headers {
				k.Headers = append(k.Headers, kmsg.Header{Key: string(h.Key), Value: h.Value})
			}
			k.Length = int32(len(k.AppendTo(nil)) - 1) // a length of 0 takes one byte
			payload = k.AppendTo(payload)
		}
		if !bytes.Equal(payload, b.payload()) {
			t.Fatalf("seed %d:\n got %x\nwant %x", seed, b.payload(), payload)
		}
		if !bytes.Equal(batch.AppendTo(nil), b) {
			t.Fatalf("seed %d: header %x", seed, b[:HeaderBytes])
		}
	}
}

// The forms of compressed records that clients other than Java's send.
func TestForeignCompression(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := NewChecker()
	plain, want := randomBatch(t, c, r, None, 400, 2000) // several blocks of every codec
	franzGo := func(codec kgo.CompressionCodec) []byte {
		compressor, err := kgo.DefaultCompressor(codec)
		if err != nil {
			t.Fatal(err)
		}
		packed, _ := compressor.Compress(new(bytes.Buffer), plain.payload())
		return packed
	}
	frame := func(o ...lz4.Option) []byte {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := errors.Join(w.Apply(o...), second(w.Write(plain.payload())), w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	zstdOf := func(o ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(plain.payload(), nil)
	}
	half := len(plain.payload()) / 2
	xerial := func(p []byte) []byte {
		var out bytes.Buffer
		x := new(xerialWriter)
		x.Reset(&out)
		if err := errors.Join(second(x.Write(p)), x.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	for _, k := range []struct {
		name    string
		codec   Codec
		payload []byte
	}{
		{"franz-go's gzip", Gzip, franzGo(kgo.GzipCompression())},
		{"franz-go's snappy", Snappy, franzGo(kgo.SnappyCompression())},
		{"franz-go's lz4", Lz4, franzGo(kgo.Lz4Compression())},
		{"franz-go's zstd", Zstd, franzGo(kgo.ZstdCompression())},
		{"one bare snappy block", Snappy, snappy.Encode(nil, plain.payload())},
		{"two xerial streams", Snappy, slices.Concat(xerial(plain.payload()[:half]), xerial(plain.payload()[half:]))},
		{"lz4 of 4 MiB blocks", Lz4, frame(lz4.BlockSizeOption(lz4.Block4Mb))},
		{"lz4 with every checksum", Lz4, frame(lz4.BlockSizeOption(lz4.Block256Kb), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true))},
		{"lz4 with its size", Lz4, frame(lz4.SizeOption(uint64(len(plain.payload()))))},
		{"zstd with checksum and small window", Zstd, zstdOf(zstd.WithEncoderCRC(true), zstd.WithWindowSize(1<<15))},
		{"zstd in one segment", Zstd, zstdOf(zstd.WithSingleSegment(true))},
		{"two zstd frames", Zstd, slices.Concat(zstdPart(t, plain.payload()[:half]), zstdPart(t, plain.payload()[half:]))},
	} {
		b := withPayload(plain, k.codec, k.payload)
		i := 0
		for record, err := range c.Records(b) {
			if err != nil || !sameRecord(&record, &want[i]) {
				t.Errorf("%s: record %d, error %v", k.name, i, err)
				break
			}
			i++
		}
		if _, err := c.Check(b, Rules{KeepCodec: true, MaxBeforeMs: math.MaxInt64, MaxAfterMs: math.MaxInt64}); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

func second(_ int, err error) error { return err }

func zstdPart(tb testing.TB, p []byte) []byte {
	tb.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return e.EncodeAll(p, nil)
}

// withPayload returns b with other compressed records and a good checksum.
func withPayload(b Batch, codec Codec, payload []byte) Batch {
	made := slices.Concat(b[:HeaderBytes], payload)
	made[lengthAt], made[lengthAt+1] = byte((len(made)-lengthOverhead)>>24), byte((len(made)-lengthOverhead)>>16)
	made[lengthAt+2], made[lengthAt+3] = byte((len(made)-lengthOverhead)>>8), byte(len(made)-lengthOverhead)
	made[attributesAt+1] = made[attributesAt+1]&^codecMask | byte(codec)
	made.updateCRC()
	return made
}

// What Kafka's consumers cannot read its leader refuses, and so do we.
func TestFramesThatConsumersCannotReadAreRefused(t *testing.T) {
	plain, _ := randomBatch(t, NewChecker(), rand.New(rand.NewPCG(3, 3)), None, 3, 50)
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := errors.Join(w.Apply(lz4.BlockChecksumOption(true)), second(w.Write(plain.payload())), w.Close()); err != nil {
		t.Fatal(err)
	}
	good := out.Bytes()
	descriptor := func(flags, block byte) []byte {
		p := slices.Clone(good)
		p[4], p[5] = flags, block
		p[6] = byte(xxh32(p[4:6]) >> 8)
		return p
	}
	blockChecksumAt := len(good) - 4 - 4 - 4 // content checksum, end mark, block checksum
	wrongBlock := slices.Clone(good)
	wrongBlock[blockChecksumAt] ^= 1
	var legacy bytes.Buffer
	lw := lz4.NewWriter(&legacy)
	if err := errors.Join(lw.Apply(lz4.LegacyOption(true)), second(lw.Write(plain.payload())), lw.Close()); err != nil {
		t.Fatal(err)
	}
	c := NewChecker()
	rules := Rules{KeepCodec: true, MaxBeforeMs: math.MaxInt64, MaxAfterMs: math.MaxInt64}
	if _, err := c.Check(withPayload(plain, Lz4, good), rules); err != nil {
		t.Fatalf("the good frame: %v", err)
	}
	for name, payload := range map[string][]byte{
		"blocks that depend on each other": descriptor(good[4]&^lz4Independent, good[5]),
		"a dictionary":                     descriptor(good[4]|1, good[5]),
		"another version":                  descriptor(good[4]^lz4VersionMask, good[5]),
		"a small block size":               descriptor(good[4], 0x30),
		"a wrong descriptor checksum":      slices.Concat(good[:6], []byte{good[6] + 1}, good[7:]),
		"a wrong block checksum":           wrongBlock,
		"the legacy format":                legacy.Bytes(),
		"a frame more":                     slices.Concat(good, good),
		"no end mark":                      good[:len(good)-8],
		"an end mark with the bit of an uncompressed block": func() []byte {
			p := slices.Clone(good)
			p[len(p)-5] = 0x80
			return p
		}(),
		"nothing": nil,
	} {
		if _, err := c.Check(withPayload(plain, Lz4, payload), rules); !errors.Is(err, ErrCorrupt) {
			t.Errorf("lz4 with %s: %v", name, err)
		}
	}
	// Two bytes, a copy of four, and a copy at offset 0: s2's for "as before", which snappy does not have.
	s2Only := []byte{10, 0x04, 'a', 'b', 0x01, 0x02, 0x01, 0x00}
	if p, err := snappy.Decode(nil, s2Only); err != nil || string(p) != "ababababab" {
		t.Fatalf("the test is wrong: %q, %v", p, err)
	}
	if _, err := c.Check(withPayload(plain, Snappy, s2Only), rules); !errors.Is(err, ErrCorrupt) {
		t.Errorf("snappy with an element of s2: %v", err)
	}
}

// xxHash's reference values, seed 0.
func TestXXH32(t *testing.T) {
	for text, want := range map[string]uint32{
		"": 0x02cc5d05, "a": 0x550d7456, "abc": 0x32d153ff, "Nobody inspects the spammish repetition": 0xe2293b2f,
	} {
		if got := xxh32([]byte(text)); got != want {
			t.Errorf("%q: %08x, want %08x", text, got, want)
		}
	}
}

// Readers of one Checker do not get in each other's way.
func TestCheckerServesManyAtOnce(t *testing.T) {
	c := NewChecker()
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 9))
			for i := range 60 {
				b, want := randomBatch(t, c, r, Codec(r.IntN(codecs)), 1+r.IntN(20), 500)
				rules := Rules{Codec: Codec(r.IntN(codecs)), MaxBeforeMs: math.MaxInt64, MaxAfterMs: math.MaxInt64}
				checked, err := c.Check(b, rules)
				if err != nil || checked.Batch.Codec() != rules.Codec {
					t.Errorf("goroutine %d, batch %d: %v", g, i, err)
					return
				}
				n := 0
				for record, err := range c.Records(checked.Batch) {
					if err != nil || !sameRecord(&record, &want[n]) {
						t.Errorf("goroutine %d, batch %d, record %d: %v", g, i, n, err)
						return
					}
					n++
				}
			}
		})
	}
	wg.Wait()
}

// An iterator that is left early gives its decompressor back in a state that serves the next.
func TestRecordsCanBeLeft(t *testing.T) {
	c := NewChecker()
	for codec := None; codec < codecs; codec++ {
		b, want := randomBatch(t, NewChecker(), rand.New(rand.NewPCG(5, uint64(codec))), codec, 500, 2000)
		for stop := range 5 {
			n := 0
			for record, err := range c.Records(b) {
				if err != nil || !sameRecord(&record, &want[n]) {
					t.Fatalf("%s: record %d: %v", codec, n, err)
				}
				if n++; n > stop*100 {
					break
				}
			}
		}
	}
}

func TestParseControlRefusesOthers(t *testing.T) {
	c := NewChecker()
	data := golden(t)
	short := NewBuilder(BuilderOptions{Control: true})
	short.Append(0, []byte{0, 0, 0}, []byte{0, 0, 0, 0, 0, 0}, nil)
	noValue := NewBuilder(BuilderOptions{Control: true})
	noValue.Append(0, []byte{0, 0, 0, 1}, nil, nil)
	other := NewBuilder(BuilderOptions{Control: true, Codec: Gzip})
	other.Append(0, []byte{0, 0, 0, 4}, []byte("x"), nil)
	build := func(b *Builder) Batch {
		made, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	empty := slices.Clone(build(other))
	empty[countAt+3] = 0
	for name, b := range map[string]Batch{"data": data, "a short key": build(short), "no value": build(noValue), "no record": empty[:HeaderBytes]} {
		if ctl, err := c.ParseControl(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, ctl, err)
		}
	}
	if ctl, err := c.ParseControl(build(other)); err != nil || ctl.Type != SnapshotFooter || string(ctl.Value) != "x" {
		t.Errorf("a control record of KRaft: %+v, %v", ctl, err)
	}
}

func TestBuilderIsUsedAgain(t *testing.T) {
	b := NewBuilder(BuilderOptions{Codec: Lz4})
	if _, err := b.Build(); !errors.Is(err, ErrEmpty) {
		t.Errorf("an empty batch: %v", err)
	}
	var first Batch
	for i := range 3 {
		b.Reset()
		if b.Count() != 0 || b.UncompressedSize() != HeaderBytes {
			t.Fatalf("after Reset: %d records, %d bytes", b.Count(), b.UncompressedSize())
		}
		if i == 1 {
			b.SetProducer(1, 2, 3, true)
		}
		b.Append(100, []byte("key"), bytes.Repeat([]byte("value"), 50), nil)
		made, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i == 0:
			first = made
		case i == 1 && (made.ProducerID() != 1 || made.ProducerEpoch() != 2 || made.BaseSequence() != 3 || !made.IsTransactional()):
			t.Errorf("producer %d %d %d", made.ProducerID(), made.ProducerEpoch(), made.BaseSequence())
		case i == 2 && !bytes.Equal(made, first):
			t.Errorf("the third differs from the first:\n%x\n%x", made, first)
		}
		if got := b.EstimatedSize(0.5); got != HeaderBytes+(b.UncompressedSize()-HeaderBytes)/2 {
			t.Errorf("estimated %d of %d", got, b.UncompressedSize())
		}
	}
	if _, err := func() (Batch, error) {
		b := NewBuilder(BuilderOptions{Codec: 6})
		b.Append(0, nil, nil, nil)
		return b.Build()
	}(); !errors.Is(err, ErrUnsupportedCodec) {
		t.Errorf("codec 6: %v", err)
	}
}

// A batch built in place is the same, however its header was patched when it was built before.
func TestBuiltInPlaceIsTheSame(t *testing.T) {
	for _, codec := range []Codec{None, Zstd} {
		b := NewBuilder(BuilderOptions{Codec: codec})
		if _, err := b.BuildInPlace(); !errors.Is(err, ErrEmpty) {
			t.Errorf("an empty batch: %v", err)
		}
		for i := range 4 {
			if i == 2 {
				b.Reset()
			}
			b.Append(int64(100+i), []byte("key"), bytes.Repeat([]byte("value"), 50), nil)
			want, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				made, err := b.BuildInPlace()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(made, want) {
					t.Errorf("codec %d, %d: built in place\n%x\nand apart\n%x", codec, i, made, want)
				}
				made.Assign(77, 5)
				made.SetProducer(1, 2, 3, true)
			}
		}
	}
}

// The checksum that is summed while a batch is built is the one of its bytes, wherever building was looked at in
// between, and whatever was built in the same memory before.
func TestSummedWhileBuilt(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		b := NewBuilder(BuilderOptions{})
		for range 3 {
			b.Reset()
			for range 1 + rng.IntN(60) {
				value := make([]byte, rng.IntN(3*sumBytes)>>rng.IntN(12))
				for i := range value {
					value[i] = byte(rng.Uint32())
				}
				b.Append(rng.Int64N(1000), nil, value, nil)
				if rng.IntN(4) > 0 {
					continue
				}
				b.SetProducer(rng.Int64N(9), 1, 2, rng.IntN(2) == 0)
				made, err := b.BuildInPlace()
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if err := made.CheckCRC(); err != nil {
					t.Fatalf("seed %d, %d records of %d bytes: %v", seed, b.Count(), len(made), err)
				}
				made.SetProducer(1, 2, 3, true) // as a retry does
				if err := made.CheckCRC(); err != nil {
					t.Fatalf("seed %d, patched: %v", seed, err)
				}
			}
		}
	}
}

// Sums are joined whatever their lengths.
func TestJoinedSum(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		all := make([]byte, 1+rng.IntN(1<<rng.IntN(20)))
		for i := range all {
			all[i] = byte(rng.Uint32())
		}
		cut := rng.IntN(len(all) + 1)
		front, back := crc32.Checksum(all[:cut], castagnoli), crc32.Checksum(all[cut:], castagnoli)
		if got, want := joinedSum(front, back, len(all)-cut), crc32.Checksum(all, castagnoli); got != want {
			t.Fatalf("seed %d: %d and %d bytes: %08x, expected %08x", seed, cut, len(all)-cut, got, want)
		}
	}
}
