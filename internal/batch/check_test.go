package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

var anyTime = Rules{NowMs: 1_700_000_000_000, KeepCodec: true, MaxBeforeMs: math.MaxInt64, MaxAfterMs: math.MaxInt64}

// Any codec becomes any other: same records, good checksum, and what the rules say of timestamps.
func TestRecompression(t *testing.T) {
	c := NewChecker()
	for seed := range uint64(2) {
		for from := None; from < codecs; from++ {
			for to := None; to < codecs; to++ {
				r := rand.New(rand.NewPCG(seed, uint64(from)<<8|uint64(to)))
				b, want := randomBatch(t, c, r, from, 1+r.IntN(30), 1+r.IntN(8000))
				b.SetProducer(1, 2, 3, true)
				before := slices.Clone(b)
				rules := anyTime
				rules.KeepCodec, rules.Codec, rules.TimestampType = false, to, TimestampType(r.IntN(2))
				rules.Levels = Levels{Gzip: r.IntN(10), Lz4: r.IntN(18), Zstd: r.IntN(23)}
				where := fmt.Sprintf("seed %d, %s to %s, %s", seed, from, to, rules.TimestampType)
				checked, err := c.Check(b, rules)
				if err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				if from != to && !bytes.Equal(b, before) {
					t.Errorf("%s: the original changed", where)
				}
				got := checked.Batch
				if err := got.CheckCRC(); err != nil || got.Codec() != to || got.TimestampType() != rules.TimestampType ||
					got.ProducerID() != 1 || !got.IsTransactional() || checked.Records != int32(len(want)) {
					t.Fatalf("%s: %x, error %v", where, got[:HeaderBytes], err)
				}
				if rules.TimestampType == LogAppendTime && (checked.AppendTimeMs != rules.NowMs || got.MaxTimestamp() != rules.NowMs ||
					checked.MaxTimestampMs != rules.NowMs || checked.OffsetOfMaxTimestamp != got.LastOffsetDelta()) {
					t.Fatalf("%s: %+v", where, checked)
				}
				records, err := byTheBook(got)
				if err != nil || !slices.EqualFunc(records, want, func(a, b Record) bool { return sameRecord(&a, &b) }) {
					t.Fatalf("%s: error %v\n got %v\nwant %v", where, err, records, want)
				}
			}
		}
	}
}

// max.message.bytes counts again after recompression.
func TestRecompressedBatchCanBeTooLarge(t *testing.T) {
	c := NewChecker()
	b := benchBatch(t, Gzip, 100, 100)
	rules := anyTime
	rules.KeepCodec, rules.Codec = false, None
	checked, err := c.Check(b, rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		bytes int
		want  error
	}{{len(checked.Batch), nil}, {len(checked.Batch) - 1, ErrTooLarge}, {len(b), ErrTooLarge}, {len(b) - 1, ErrTooLarge}} {
		rules.MaxBytes = k.bytes
		if _, err := c.Check(b, rules); !errors.Is(err, k.want) {
			t.Errorf("%d bytes: %v", k.bytes, err)
		}
	}
	// A fault in the records is told rather than that the result is too large.
	rules.MaxBytes, rules.RequireKeys = len(b), true
	if _, err := c.Check(b, rules); !isInvalid(err, false) {
		t.Errorf("without keys and too large: %v", err)
	}
}

func TestRefusalNamesBoundedlyManyRecords(t *testing.T) {
	c := NewChecker()
	b := benchBatch(t, Lz4, 3*maxRecordErrors, 1)
	rules := anyTime
	rules.RequireKeys = true
	_, err := c.Check(b, rules)
	var refusal *InvalidRecordsError
	if !errors.As(err, &refusal) || len(refusal.Records) != maxRecordErrors || refusal.Timestamp {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(refusal.Error(), fmt.Sprint(3*maxRecordErrors)) {
		t.Errorf("%v does not count all", err)
	}
	// One bad timestamp makes it a matter of timestamps.
	rules.MaxAfterMs, rules.RequireKeys = 3*maxRecordErrors-2, false
	if _, err = c.Check(b, rules); !errors.As(err, &refusal) || !refusal.Timestamp || len(refusal.Records) != 1 ||
		refusal.Records[0].Index != 3*maxRecordErrors-1 {
		t.Errorf("%v", err)
	}
}

// bomb is one record of the given size, of zeros, compressed as small as it gets.
func bomb(tb testing.TB, codec Codec, valueBytes int) Batch {
	tb.Helper()
	head := NewBuilder(BuilderOptions{})
	head.Append(0, nil, []byte{}, nil)
	plain, err := head.Build()
	if err != nil {
		tb.Fatal(err)
	}
	var record []byte
	length := binary.AppendVarint(nil, int64(valueBytes))
	record = binary.AppendVarint(record, int64(1+1+1+1+len(length)+valueBytes+1))
	record = append(append(record, 0, 0, 0, 1), length...)
	zeros := make([]byte, valueBytes+1) // the last is the count of headers
	var out bytes.Buffer
	switch codec {
	case Snappy:
		return withPayload(plain, Snappy, snappy.Encode(nil, append(record, zeros...)))
	case Gzip:
		w := gzip.NewWriter(&out)
		err = errors.Join(second(w.Write(record)), second(w.Write(zeros)), w.Close())
	case Lz4:
		w := lz4.NewWriter(&out)
		err = errors.Join(w.Apply(lz4.ChecksumOption(false)), second(w.Write(record)), second(w.Write(zeros)), w.Close())
	case Zstd:
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(&out, zstd.WithWindowSize(8<<20)); err == nil {
			err = errors.Join(second(w.Write(record)), second(w.Write(zeros)), w.Close())
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return withPayload(plain, codec, out.Bytes())
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A few bytes that become many are passed over piece by piece, and are refused once they exceed the bound. Snappy
// is the exception: without its framing it is one block, of at most 22 times its compressed size.
func TestBombsCostWorkNotMemory(t *testing.T) {
	const valueBytes = 96 << 20
	for _, k := range []struct {
		codec  Codec
		budget uint64
	}{{Gzip, 8 << 20}, {Lz4, 12 << 20}, {Zstd, 24 << 20}} {
		b := bomb(t, k.codec, valueBytes)
		c := NewChecker()
		rules := anyTime
		used := allocated(func() {
			if _, err := c.Check(b, rules); err != nil {
				t.Errorf("%s: %v", k.codec, err)
			}
		})
		if used > k.budget {
			t.Errorf("%s: %d bytes that become %d cost %d bytes of memory, budget %d", k.codec, len(b), valueBytes, used, k.budget)
		}
		rules.MaxDecompressedBytes = 16 << 20
		if _, err := c.Check(b, rules); !errors.Is(err, ErrInflates) || !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", k.codec, err)
		}
		rules = anyTime
		rules.KeepCodec, rules.Codec, rules.MaxBytes = false, None, 1<<20
		used = allocated(func() {
			if _, err := c.Check(b, rules); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: %v", k.codec, err)
			}
		})
		if used > k.budget {
			t.Errorf("%s: refusing to decompress it cost %d bytes of memory", k.codec, used)
		}
	}
	rules := anyTime
	rules.MaxDecompressedBytes = 1 << 20
	block := bomb(t, Snappy, 64<<20)
	if used := allocated(func() {
		if _, err := NewChecker().Check(block, rules); !errors.Is(err, ErrInflates) {
			t.Errorf("snappy: %v", err)
		}
	}); used > 1<<20 {
		t.Errorf("snappy: refusing to decompress it cost %d bytes of memory", used)
	}
}

// A large batch does not leave a large buffer behind.
func TestLargeBuffersAreNotKept(t *testing.T) {
	c := NewChecker()
	for _, codec := range []Codec{Gzip, Snappy, Lz4, Zstd} {
		for _, err := range c.Records(bomb(t, codec, 3*maxKeptWindowBytes)) {
			if err != nil {
				break // how far it gets does not matter
			}
		}
		s, err := c.borrow(codec)
		if err != nil || cap(s.window.own) > maxKeptWindowBytes {
			t.Errorf("%s: %d bytes kept, error %v", codec, cap(s.window.own), err)
		}
		k, err := c.borrowCompressor(codec, Levels{})
		if err != nil {
			t.Fatal(err)
		}
		k.begin(math.MaxInt32)
		k.out.buf = make([]byte, 2*maxKeptWindowBytes)
		c.giveBackCompressor(k)
		if cap(k.out.buf) > maxKeptWindowBytes {
			t.Errorf("%s: a compressor keeps %d bytes", codec, cap(k.out.buf))
		}
	}
}

// Sizes that are only claimed are not believed.
func TestClaimsCostNothing(t *testing.T) {
	plain, _ := randomBatch(t, NewChecker(), rand.New(rand.NewPCG(8, 8)), None, 1, 30)
	withCount := func(b Batch, count int32) Batch {
		b = slices.Clone(b)
		binary.BigEndian.PutUint32(b[countAt:], uint32(count))
		binary.BigEndian.PutUint32(b[lastOffsetDeltaAt:], uint32(count-1))
		b.updateCRC()
		return b
	}
	zstdClaim := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0} // one segment of 2^40 bytes, an empty block
	for name, b := range map[string]Batch{
		"two thousand million records":     withCount(plain, math.MaxInt32),
		"as many, compressed":              withCount(bomb(t, Zstd, 100), math.MaxInt32),
		"a snappy block of 4 GiB":          withPayload(plain, Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0}),
		"a snappy block of 512 MiB":        withPayload(plain, Snappy, []byte{0x80, 0x80, 0x80, 0x80, 0x02, 0, 0}),
		"an lz4 frame of 4 MiB blocks":     withPayload(plain, Lz4, lz4Claim()),
		"a zstd segment of 2^40 bytes":     withPayload(plain, Zstd, zstdClaim),
		"a record of 2 GiB":                withPayload(plain, None, []byte{0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0}),
		"two thousand million headers":     withPayload(plain, None, []byte{0x16, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0}),
		"a value of 2 GiB":                 withPayload(plain, None, []byte{0x14, 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0}),
		"a snappy frame block of 2 GiB":    withPayload(plain, Snappy, []byte(xerialMagic+"\x00\x00\x00\x01\x00\x00\x00\x01\x7f\xff\xff\xff")),
		"a snappy frame block of -1 bytes": withPayload(plain, Snappy, []byte(xerialMagic+"\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff")),
	} {
		c := NewChecker()
		used := allocated(func() {
			if _, err := c.Check(b, anyTime); err == nil {
				t.Errorf("%s: accepted", name)
			}
			for _, err := range c.Records(b) {
				if err != nil {
					break
				}
			}
		})
		budget := uint64(1 << 20)
		if b.Codec() == Zstd {
			budget += 2 * zstdWindowBytes // a pool promises nothing: Check and Records may each have needed a decoder
		}
		if used > budget {
			t.Errorf("%s: %d bytes of memory for %d bytes", name, used, len(b))
		}
	}
}

func lz4Claim() []byte {
	p := []byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0, 0xff, 0xff, 0x3f, 0}
	p[6] = byte(xxh32(p[4:6]) >> 8)
	return p
}

// Frames may claim a larger window than a decoder should allocate: zstd's highest levels do for any content.
func TestZstdWindowLargerThanItsDecoder(t *testing.T) {
	c := NewChecker()
	for _, k := range []struct {
		name       string
		valueBytes int
		options    []zstd.EOption
	}{
		{"small content", 1000, []zstd.EOption{zstd.WithSingleSegment(false), zstd.WithWindowSize(128 << 20)}},
		{"content larger than the decoder's window", 9 << 20, []zstd.EOption{zstd.WithWindowSize(128 << 20)}},
		{"a single segment of it", 9 << 20, []zstd.EOption{zstd.WithWindowSize(128 << 20), zstd.WithSingleSegment(true)}},
	} {
		r := rand.New(rand.NewPCG(1, 1))
		value := make([]byte, k.valueBytes)
		for i := 0; i+8 <= len(value); i += 8 {
			binary.LittleEndian.PutUint64(value[i:], r.Uint64()&0x0303030303030303|0x6060606060606060)
		}
		builder := NewBuilder(BuilderOptions{})
		builder.Append(0, nil, value, nil)
		plain, err := builder.Build()
		if err != nil {
			t.Fatal(err)
		}
		var packed bytes.Buffer
		e, err := zstd.NewWriter(&packed, append(k.options, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(k.name, "segment") {
			packed.Write(e.EncodeAll(plain.payload(), nil))
		} else if err := errors.Join(second(e.Write(plain.payload())), e.Close()); err != nil {
			t.Fatal(err)
		}
		var header zstd.Header
		if err := header.Decode(packed.Bytes()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: window %d, content %d, single segment %t", k.name, header.WindowSize, header.FrameContentSize, header.SingleSegment)
		b := withPayload(plain, Zstd, packed.Bytes())
		if _, err := c.Check(b, anyTime); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		for record, err := range c.Records(b) {
			if err != nil || !bytes.Equal(record.Value, value) {
				t.Errorf("%s: %v", k.name, err)
			}
		}
	}
}

// Damaged batches under a good checksum: never a panic, and accepted only if they are good by the book.
func TestMutatedBatches(t *testing.T) {
	c := NewChecker()
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 7))
		b, _ := randomBatch(t, c, r, Codec(r.IntN(codecs)), 1+r.IntN(5), 60)
		for range 1 + r.IntN(3) {
			at := attributesAt + r.IntN(len(b)-attributesAt)
			switch r.IntN(4) {
			case 0:
				b[at] = byte(r.Uint32())
			case 1:
				b[at] ^= 1 << r.IntN(8)
			case 2:
				b = slices.Delete(b, at, min(len(b), at+1+r.IntN(3)))
			case 3:
				b = slices.Insert(b, at, byte(r.Uint32()))
			}
		}
		if _, err := c.Check(slices.Clone(b), anyTime); err == nil && b.CheckCRC() != nil {
			t.Fatalf("seed %d: accepted with a wrong checksum: %x", seed, b)
		}
		if len(b) >= HeaderBytes {
			holdToTheBook(t, fmt.Sprintf("seed %d", seed), c, withPayload(b, b.Codec(), b.payload()))
		}
	}
}

// A record that is too large to be held whole is taken apart as strictly as any other.
func TestLargeRecordsAreHeldToTheBook(t *testing.T) {
	plain, _ := randomBatch(t, NewChecker(), rand.New(rand.NewPCG(8, 8)), None, 1, 30)
	large := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	number := func(v int64) string { return string(binary.AppendVarint(nil, v)) }
	field := func(p string) string { return number(int64(len(p))) + p }
	value := field(string(large))
	const start, null = "\x00\x00\x00", "\x01" // attributes and deltas
	c := NewChecker()
	for name, k := range map[string]struct {
		body   string
		length int // beyond the body's own
		good   bool
	}{
		"value":                      {start + null + value + number(0), 0, true},
		"key":                        {start + value + null + number(0), 0, true},
		"header value":               {start + null + null + number(1) + field("h") + value, 0, true},
		"header key":                 {start + null + null + number(2) + value + null + field("") + field(""), 0, true},
		"length too small":           {start + null + value + number(0), -1, false},
		"length too large":           {start + null + value + number(0), 1, false},
		"a byte more":                {start + null + value + number(0) + "\x00", 0, false},
		"key length -2":              {start + number(-2) + value + number(0), 0, false},
		"value length -2":            {start + value + number(-2) + number(0), 0, false},
		"value past the record":      {start + null + number(int64(len(large)+2)) + string(large) + number(0), 0, false},
		"headers negative":           {start + null + value + number(-1), 0, false},
		"headers missing":            {start + null + value + number(2) + field("h") + null, 0, false},
		"header key null":            {start + null + value + number(1) + null + null, 0, false},
		"header value length -2":     {start + null + value + number(1) + field("h") + number(-2), 0, false},
		"offset delta of six bytes":  {"\x00\x00\x80\x80\x80\x80\x80\x00" + null + value + number(0), 0, false},
		"offset delta beyond int32":  {"\x00\x00" + number(1<<33) + null + value + number(0), 0, false},
		"timestamp of eleven bytes":  {"\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x00" + null + value + number(0), 0, false},
		"timestamp beyond 64 bits":   {"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00" + null + value + number(0), 0, false},
		"value length beyond int32":  {start + null + number(1<<33) + string(large) + number(0), 0, false},
		"a second record in the way": {start + null + number(int64(len(large)+10)) + string(large) + number(0), 0, false},
	} {
		payload := []byte(number(int64(len(k.body)+k.length)) + k.body)
		b := plain
		if strings.Contains(name, "second") {
			payload = append(payload, number(int64(len(k.body)))+strings.Replace(k.body, start, "\x00\x00\x02", 1)...)
			b = slices.Clone(plain)
			b[lastOffsetDeltaAt+3], b[countAt+3] = 1, 2
		}
		for codec := None; codec < codecs; codec++ {
			out, err := newCompressor(codec, Levels{}.speed(codec))
			if err != nil {
				t.Fatal(err)
			}
			out.begin(math.MaxInt32)
			if _, err := out.Write(payload); err != nil {
				t.Fatal(err)
			}
			packed, err := out.finish()
			if err != nil {
				t.Fatal(err)
			}
			b := withPayload(b, codec, packed)
			holdToTheBook(t, fmt.Sprintf("%s, %s", name, codec), c, b)
			if _, err := c.Check(b, anyTime); k.good != (err == nil) || err != nil && !isInvalid(err, false) {
				t.Errorf("%s, %s: %v", name, codec, err)
			}
		}
	}
}

func TestVarintIsTheStandardLibrarys(t *testing.T) {
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 4))
		p := make([]byte, r.IntN(13))
		for i := range p {
			p[i] = byte(r.Uint32()) | byte(r.IntN(3)/2)<<7
		}
		want, n := binary.Varint(p)
		got, at := varint(p, 0)
		if n <= 0 && at <= len(p) || n > 0 && (got != want || at != n) {
			t.Fatalf("seed %d: %x is %d in %d bytes, want %d in %d", seed, p, got, at, want, n)
		}
		fits := n > 0 && n <= maxVarint32Bytes && want == int64(int32(want))
		got32, at := varint32(p, 0)
		if !fits && at <= len(p) || fits && (int64(got32) != want || at != n) {
			t.Fatalf("seed %d: %x is %d in %d bytes of 32 bits, want %d in %d", seed, p, got32, at, want, n)
		}
		if n > 0 && varintBytes(want) != len(binary.AppendVarint(nil, want)) {
			t.Fatalf("seed %d: %d takes %d bytes", seed, want, varintBytes(want))
		}
	}
}

// scan's short way is not taken for what it cannot read.
func TestScanFallsBack(t *testing.T) {
	// No prefix of anything makes it look past the end.
	for _, fill := range []byte{0, 1, 2, 0x7f, 0x80, 0x81, 0xff} {
		for n := range 40 {
			for lead := range n + 1 {
				p := slices.Concat(bytes.Repeat([]byte{8}, lead), bytes.Repeat([]byte{fill}, n-lead))
				short, size := scan(p[:n:n])
				any, wantSize := scanAny(p[:n:n])
				if short != any || size != wantSize {
					t.Fatalf("%x: %+v in %d bytes, should be %+v in %d", p, short, size, any, wantSize)
				}
			}
		}
	}
	// A length of three bytes, of which the first two alone happen to fit what follows.
	const field = 4100
	fieldLength := binary.AppendVarint(nil, field)
	body := slices.Concat([]byte{0, 0, 0}, fieldLength, make([]byte, field), fieldLength, make([]byte, field), []byte{0})
	u := uint(2 * len(body))
	p := slices.Concat([]byte{byte(u) | 0x80, byte(u >> 7)}, body)
	if got, at := short(p, 0); got != u || at != 2 || u < 1<<14 {
		t.Fatalf("the test is wrong: %d, %d", got, at)
	}
	short, size := scan(p)
	any, wantSize := scanAny(p)
	if short != any || size != wantSize {
		t.Fatalf("%+v in %d bytes, should be %+v in %d", short, size, any, wantSize)
	}
}

// holdToTheBook checks a batch whose checksum is good and compares what comes of it with byTheBook.
func holdToTheBook(t *testing.T, where string, c *Checker, b Batch) {
	t.Helper()
	var read []Record
	var readErr error
	for record, err := range c.Records(b) {
		if err != nil {
			readErr = err
			break
		}
		read = append(read, record.Clone())
	}
	checked, err := c.Check(slices.Clone(b), anyTime)
	if err != nil && readErr != nil {
		return
	}
	book, bookErr := byTheBook(b)
	if err == nil {
		if readErr != nil || bookErr != nil || int(checked.Records) != len(book) || checked.Batch.CheckCRC() != nil {
			t.Fatalf("%s: accepted; read with %v, by the book %v: %x", where, readErr, bookErr, b)
		}
	}
	if readErr == nil && bookErr != nil && !errors.Is(bookErr, errBookDelta) {
		t.Fatalf("%s: read without an error, by the book %v: %x", where, bookErr, b)
	}
	if bookErr == nil && readErr == nil && !slices.EqualFunc(read, book, func(a, b Record) bool { return sameRecord(&a, &b) }) {
		t.Fatalf("%s: read\n%v\nby the book\n%v\n%x", where, read, book, b)
	}
}
