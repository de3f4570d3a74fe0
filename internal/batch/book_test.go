package batch

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy/xerial"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// byTheBook reads a batch's records as the format's description has it, strictly, slowly, and with nothing of what
// is tested: decompress all, then take field after field.
func byTheBook(b Batch) ([]Record, error) {
	p, err := inflateAll(b.Codec(), b.payload())
	if err != nil {
		return nil, err
	}
	var records []Record
	for i := range b.Count() {
		body, rest, err := cut(p)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if body == nil {
			return nil, fmt.Errorf("record %d: negative length", i)
		}
		r, err := recordByTheBook(body)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if r.OffsetDelta != i {
			return nil, fmt.Errorf("record %d: %w: %d", i, errBookDelta, r.OffsetDelta)
		}
		records, p = append(records, r), rest
	}
	if len(p) > 0 {
		return nil, fmt.Errorf("%d bytes follow the records", len(p))
	}
	return records, nil
}

var (
	errBook      = errors.New("not by the book")
	errBookDelta = errors.New("offset delta") // which Check looks at, and Records does not
)

func recordByTheBook(p []byte) (r Record, err error) {
	if len(p) == 0 {
		return r, errBook
	}
	r.Attributes, p = int8(p[0]), p[1:]
	var n int
	if r.TimestampDelta, n = binary.Varint(p); n <= 0 {
		return r, errBook
	}
	p = p[n:]
	if r.OffsetDelta, p, err = number(p); err != nil {
		return r, err
	}
	if r.Key, p, err = cut(p); err != nil {
		return r, err
	}
	if r.Value, p, err = cut(p); err != nil {
		return r, err
	}
	headers, p, err := number(p)
	if err != nil || headers < 0 {
		return r, errBook
	}
	for range headers {
		var h Header
		if h.Key, p, err = cut(p); err != nil || h.Key == nil {
			return r, errBook
		}
		if h.Value, p, err = cut(p); err != nil {
			return r, err
		}
		r.Headers = append(r.Headers, h)
	}
	if len(p) > 0 {
		return r, errBook
	}
	return r, nil
}

func number(p []byte) (int32, []byte, error) {
	v, n := binary.Varint(p)
	if n <= 0 || n > 5 || v != int64(int32(v)) {
		return 0, nil, errBook
	}
	return int32(v), p[n:], nil
}

// cut takes a length and as many bytes; of the length -1 nil.
func cut(p []byte) (field, rest []byte, err error) {
	n, p, err := number(p)
	if err != nil || n < -1 || int(n) > len(p) {
		return nil, nil, errBook
	}
	if n == -1 {
		return nil, p, nil
	}
	return p[:n:n], p[n:], nil
}

func inflateAll(c Codec, p []byte) ([]byte, error) {
	switch c {
	case None:
		return p, nil
	case Gzip:
		if len(p) > 3 && p[3]&0xe0 != 0 {
			return nil, errBook // reserved flags (RFC 1952); Java does not look at them
		}
		stream, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(stream)
	case Snappy:
		if left := p; len(p) > 16 && p[0] == 0x82 {
			for left = left[16:]; len(left) > 0; { // blocks that fill the stream, which the library does not ask for
				if len(left) < 4 || int64(binary.BigEndian.Uint32(left)) > int64(len(left)-4) {
					return nil, errBook
				}
				left = left[4+binary.BigEndian.Uint32(left):]
			}
		}
		return xerial.Decode(p)
	case Lz4:
		return io.ReadAll(lz4.NewReader(bytes.NewReader(p)))
	case Zstd:
		stream, err := zstd.NewReader(bytes.NewReader(p), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		return io.ReadAll(stream)
	}
	return nil, errBook
}
