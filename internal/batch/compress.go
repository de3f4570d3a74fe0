package batch

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// speeds is how many compressors a codec may have: gzip's and lz4's levels, none of them 0, and lz4's fast one.
const speeds = 10

// speed returns which of a codec's compressors a level means: what distinguishes them, not the level itself.
func (l Levels) speed(c Codec) int {
	switch c {
	case Gzip:
		if l.Gzip <= 0 {
			return 6
		}
		return min(l.Gzip, gzip.BestCompression)
	case Lz4:
		if l.Lz4 <= 0 || l.Lz4 == 9 {
			return 0
		}
		return min(l.Lz4, speeds-1)
	case Zstd:
		if l.Zstd == 0 {
			return int(zstd.SpeedDefault)
		}
		return int(zstd.EncoderLevelFromZstd(l.Zstd))
	}
	return 0
}

// deflater is a stream that compresses.
type deflater interface {
	io.WriteCloser
	Reset(io.Writer)
}

// compressor compresses the records of one batch at a time into a buffer of its own.
type compressor struct {
	codec  Codec
	speed  int
	stream deflater // nil: None
	out    sink
}

// zstdEncoderWindowBytes suits batches, which rarely are larger, and is what consumers have to allocate in turn.
const zstdEncoderWindowBytes = 1 << 20

func newCompressor(c Codec, speed int) (*compressor, error) {
	k := &compressor{codec: c, speed: speed}
	var err error
	switch c {
	case None:
	case Gzip:
		k.stream, err = gzip.NewWriterLevel(nil, speed)
	case Snappy:
		k.stream = new(xerialWriter)
	case Lz4:
		w := lz4.NewWriter(nil)
		// What Java's writer makes, and all that its reader takes.
		err = w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1),
			lz4.CompressionLevelOption(lz4Speed(speed)))
		k.stream = w
	case Zstd:
		k.stream, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(zstdEncoderWindowBytes), zstd.WithEncoderLevel(zstd.EncoderLevel(speed)))
	default:
		return nil, fmt.Errorf("%w: %s", ErrUnsupportedCodec, c)
	}
	if err != nil {
		return nil, fmt.Errorf("make a %s compressor: %w", c, err)
	}
	return k, nil
}

func lz4Speed(speed int) lz4.CompressionLevel {
	if speed == 0 {
		return lz4.Fast
	}
	return lz4.Level1 << (speed - 1)
}

// borrowCompressor returns a compressor; giveBackCompressor it.
func (c *Checker) borrowCompressor(codec Codec, l Levels) (*compressor, error) {
	speed := l.speed(codec)
	if codec.Known() {
		if k, _ := c.compressors[codec][speed].Get().(*compressor); k != nil {
			return k, nil
		}
	}
	return newCompressor(codec, speed)
}

func (c *Checker) giveBackCompressor(k *compressor) {
	if cap(k.out.buf) > maxKeptWindowBytes {
		k.out.buf = nil
	}
	c.compressors[k.codec][k.speed].Put(k)
}

// begin starts a batch whose compressed records may have limit bytes.
func (k *compressor) begin(limit int64) {
	k.out = sink{buf: k.out.buf[:0], limit: limit}
	if k.stream != nil {
		k.stream.Reset(&k.out)
	}
}

// Write adds uncompressed records.
func (k *compressor) Write(p []byte) (int, error) {
	if k.stream == nil {
		return k.out.Write(p)
	}
	n, err := k.stream.Write(p)
	if err != nil {
		err = fmt.Errorf("compress with %s: %w", k.codec, err)
	}
	return n, err
}

// finish returns the compressed records, which are valid until the next begin, or ErrTooLarge.
func (k *compressor) finish() ([]byte, error) {
	if k.stream != nil {
		if err := k.stream.Close(); err != nil {
			return nil, fmt.Errorf("compress with %s: %w", k.codec, err)
		}
	}
	if k.out.over {
		return nil, fmt.Errorf("%w: with %s its records exceed %d bytes", ErrTooLarge, k.codec, k.out.limit)
	}
	return k.out.buf, nil
}

// sink collects up to limit bytes. Past them it forgets everything and only knows that it was too much.
type sink struct {
	buf   []byte
	limit int64
	over  bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.over || int64(len(s.buf))+int64(len(p)) > s.limit {
		s.over, s.buf = true, s.buf[:0]
	} else {
		s.buf = append(s.buf, p...)
	}
	return len(p), nil
}

// xerialBlockBytes is how much Java's snappy stream puts into a block.
const xerialBlockBytes = 32 << 10

// xerialWriter makes what Java's snappy library makes: a header with two versions, both 1, then blocks, each with
// its length before it.
type xerialWriter struct {
	to     io.Writer
	begun  bool
	block  []byte // not yet compressed
	packed []byte
}

func (x *xerialWriter) Reset(to io.Writer) {
	x.to, x.begun, x.block = to, false, x.block[:0]
}

func (x *xerialWriter) Write(p []byte) (int, error) {
	if x.block == nil {
		x.block = make([]byte, 0, xerialBlockBytes)
	}
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), xerialBlockBytes-len(x.block))
		x.block, p = append(x.block, p[:n]...), p[n:]
		if len(x.block) == xerialBlockBytes {
			if err := x.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (x *xerialWriter) Close() error {
	if len(x.block) == 0 && x.begun {
		return nil
	}
	return x.flush()
}

func (x *xerialWriter) flush() error {
	out := x.packed[:0]
	if !x.begun {
		x.begun = true
		out = append(out, xerialMagic+"\x00\x00\x00\x01\x00\x00\x00\x01"...)
	}
	if len(x.block) > 0 {
		lengthAt := len(out)
		out = append(out, 0, 0, 0, 0)
		out = grow(out, snappy.MaxEncodedLen(len(x.block)))
		packed := snappy.Encode(out[len(out):cap(out)], x.block)
		binary.BigEndian.PutUint32(out[lengthAt:], uint32(len(packed)))
		out = out[:len(out)+len(packed)]
	}
	x.packed, x.block = out, x.block[:0]
	_, err := x.to.Write(out)
	return err
}
