package telemetry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"barnabas/internal/batch"
)

// Payload is a snapshot as it is pushed.
type Payload struct {
	Bytes  []byte
	Codec  batch.Codec
	Points int
	Failed []batch.Codec // that could not compress it
	Less   bool          // than was asked for: the broker takes no more bytes
}

// Payload writes down what a subscription asks for, with the first of its codecs that can, or uncompressed. compress is
// Compress, and something else in tests. Where it is larger than the broker takes, compressed or not, some is left out: first
// what the KIP does not require, then what is told of each broker, and in the end all.
func (s *Snapshot) Payload(sub *Subscription, compress func(batch.Codec, []byte) ([]byte, error)) Payload {
	var p Payload
	for h := everything; ; h++ {
		text, points := s.encode(sub.Metrics, sub.Delta, h)
		p.Points, p.Less = points, h > everything
		p.Bytes, p.Codec = text, batch.None
		if len(text) <= sub.MaxBytes && points > 0 {
			p.pack(sub.Codecs, compress)
		}
		if len(text) <= sub.MaxBytes && len(p.Bytes) <= sub.MaxBytes || h == nothing {
			return p
		}
	}
}

// pack compresses with the first codec that does not fail.
func (p *Payload) pack(codecs []batch.Codec, compress func(batch.Codec, []byte) ([]byte, error)) {
	for _, c := range codecs {
		if c == batch.None {
			return
		}
		packed, err := compress(c, p.Bytes)
		if err == nil {
			p.Bytes, p.Codec = packed, c
			return
		}
		p.Failed = append(p.Failed, c)
	}
}

// Compress packs bytes as Kafka does the records of a batch.
func Compress(codec batch.Codec, plain []byte) ([]byte, error) {
	var out bytes.Buffer
	var w io.WriteCloser
	switch codec {
	case batch.None:
		return plain, nil
	case batch.Gzip:
		w = gzip.NewWriter(&out)
	case batch.Snappy:
		return xerial(plain), nil
	case batch.Lz4:
		z := lz4.NewWriter(&out)
		if err := z.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1)); err != nil {
			return nil, fmt.Errorf("compress with %s: %w", codec, err)
		}
		w = z
	case batch.Zstd:
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, fmt.Errorf("compress with %s: %w", codec, err)
		}
		w = z
	default:
		return nil, fmt.Errorf("compress with %s: %w", codec, batch.ErrUnsupportedCodec)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("compress with %s: %w", codec, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress with %s: %w", codec, err)
	}
	return out.Bytes(), nil
}

// xerialBlockBytes is how much Java's snappy library puts into a block.
const xerialBlockBytes = 32 << 10

// xerial makes what that library reads: a header with its versions, then blocks, each with its length before it.
func xerial(plain []byte) []byte {
	out := []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")
	for len(plain) > 0 {
		n := min(len(plain), xerialBlockBytes)
		packed := snappy.Encode(nil, plain[:n])
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(packed))), packed...)
		plain = plain[n:]
	}
	return out
}
