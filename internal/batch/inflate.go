package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

func newInflater(c Codec) inflater {
	switch c {
	case Gzip:
		return new(gzipInflater)
	case Snappy:
		return new(snappyInflater)
	case Lz4:
		return new(lz4Inflater)
	case Zstd:
		return new(zstdInflater)
	}
	return nil
}

func undecodable(c Codec, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, c, err)
}

// readMore is more for a stream that decides itself how far it decompresses.
func readMore(r io.Reader, c Codec, dst []byte) ([]byte, error) {
	dst = grow(dst, pieceBytes)
	for {
		n, err := r.Read(dst[len(dst):cap(dst)])
		switch {
		case n > 0:
			return dst[:len(dst)+n], nil // an error comes again
		case err == io.EOF:
			return dst, io.EOF
		case err != nil:
			return dst, undecodable(c, err)
		}
	}
}

type gzipInflater struct {
	src    bytes.Reader
	stream gzip.Reader
}

func (g *gzipInflater) begin(src []byte) error {
	g.src.Reset(src)
	if err := g.stream.Reset(&g.src); err != nil {
		return undecodable(Gzip, err)
	}
	return nil
}

func (g *gzipInflater) more(dst []byte, _ int64) ([]byte, error) {
	return readMore(&g.stream, Gzip, dst)
}

func (g *gzipInflater) end() { g.src.Reset(nil) }

// snappyInflater reads both forms that Kafka knows: the framing of Java's xerial library, and, from librdkafka
// and Go clients, one bare snappy block.
type snappyInflater struct {
	left   []byte
	framed bool
	done   bool // the bare block has been decompressed
}

const (
	xerialMagic       = "\x82SNAPPY\x00"
	xerialHeaderBytes = len(xerialMagic) + 8 // two versions follow, which no reader acts on
	// maxSnappyRatio bounds what a snappy element can become: at best 3 bytes stand for 64.
	maxSnappyRatio = 22
)

func (s *snappyInflater) begin(src []byte) error {
	framed := len(src) >= xerialHeaderBytes && string(src[:len(xerialMagic)]) == xerialMagic
	*s = snappyInflater{left: src, framed: framed}
	return nil
}

func (s *snappyInflater) end() { *s = snappyInflater{} }

func (s *snappyInflater) more(dst []byte, room int64) ([]byte, error) {
	if !s.framed {
		if s.done {
			return dst, io.EOF
		}
		s.done = true
		return s.block(dst, s.left, room)
	}
	for {
		// A stream may begin anew, since xerial streams can be concatenated.
		for len(s.left) >= xerialHeaderBytes && string(s.left[:len(xerialMagic)]) == xerialMagic {
			s.left = s.left[xerialHeaderBytes:]
		}
		if len(s.left) == 0 {
			return dst, io.EOF
		}
		if len(s.left) < 4 {
			return dst, undecodable(Snappy, io.ErrUnexpectedEOF)
		}
		size := int64(int32(binary.BigEndian.Uint32(s.left)))
		s.left = s.left[4:]
		if size < 0 || size > int64(len(s.left)) {
			return dst, undecodable(Snappy, fmt.Errorf("block of %d bytes where %d are left", size, len(s.left)))
		}
		block := s.left[:size]
		s.left = s.left[size:]
		had := len(dst)
		dst, err := s.block(dst, block, room)
		if err != nil || len(dst) > had {
			return dst, err
		}
	}
}

func (s *snappyInflater) block(dst, block []byte, room int64) ([]byte, error) {
	size, err := snappy.DecodedLen(block)
	if err != nil {
		return dst, undecodable(Snappy, err)
	}
	if int64(size) > room {
		return dst, ErrInflates
	}
	if size > maxSnappyRatio*len(block) {
		return dst, undecodable(Snappy, fmt.Errorf("block of %d bytes claims to hold %d", len(block), size))
	}
	dst = grow(dst, size)
	// Strict, because the plain decoder also takes s2's extension, which Kafka's consumers do not.
	out, err := snappy.DecodeStrict(dst[len(dst):cap(dst)], block)
	if err != nil {
		return dst, undecodable(Snappy, err)
	}
	return dst[:len(dst)+len(out)], nil
}

// zstdInflater decompresses a stream. Its decoder allocates the window that a frame claims to need, so a frame
// that claims more than zstdWindowBytes is read as if it claimed no more: that is enough unless it really refers
// further back, which only records of more than zstdWindowBytes together can, compressed at level 20 or above.
type zstdInflater struct {
	src     zstdSource
	decoder *zstd.Decoder
}

// zstdWindowBytes is the window that RFC 8878 asks every decoder to support at least.
const zstdWindowBytes = 8 << 20

func (z *zstdInflater) begin(src []byte) error {
	if z.decoder == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindowBytes), zstd.WithDecoderMaxMemory(zstdWindowBytes))
		if err != nil {
			return fmt.Errorf("make a zstd decoder: %w", err)
		}
		z.decoder = decoder
	}
	if err := z.src.begin(src); err != nil {
		return undecodable(Zstd, err)
	}
	if err := z.decoder.Reset(&z.src); err != nil {
		return undecodable(Zstd, err)
	}
	return nil
}

func (z *zstdInflater) more(dst []byte, _ int64) ([]byte, error) {
	return readMore(z.decoder, Zstd, dst)
}

func (z *zstdInflater) end() {
	_ = z.decoder.Reset(nil) // lets go of the source; an open decoder does not refuse that
	z.src = zstdSource{}
}

// zstdSource reads a header made anew, where the frame's own claims too large a window, then the rest.
type zstdSource struct {
	header     [zstd.HeaderMaxSize]byte
	headerLeft []byte
	rest       []byte
}

const (
	zstdMagicBytes    = 4
	zstdSingleSegment = 0x20 // the flag that the window is the content's size, and has no byte of its own
	zstdWindow8MiB    = 13 << 3
)

func (z *zstdSource) begin(src []byte) error {
	z.headerLeft, z.rest = nil, src
	var header zstd.Header
	if err := header.Decode(src); err != nil {
		return err
	}
	window := header.WindowSize
	if header.SingleSegment {
		window = header.FrameContentSize
	}
	if header.Skippable || window <= zstdWindowBytes {
		return nil
	}
	own := src[:header.HeaderSize]
	made := append(z.header[:0], own[:zstdMagicBytes+1]...)
	made[zstdMagicBytes] &^= zstdSingleSegment
	made = append(made, zstdWindow8MiB)
	fields := own[zstdMagicBytes+1:]
	if !header.SingleSegment {
		fields = fields[1:]
	}
	z.headerLeft, z.rest = append(made, fields...), src[header.HeaderSize:]
	return nil
}

func (z *zstdSource) Read(p []byte) (int, error) {
	from := &z.headerLeft
	if len(*from) == 0 {
		from = &z.rest
	}
	if len(*from) == 0 {
		return 0, io.EOF
	}
	n := copy(p, *from)
	*from = (*from)[n:]
	return n, nil
}
