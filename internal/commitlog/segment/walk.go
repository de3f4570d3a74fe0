package segment

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"barnabas/internal/batch"
)

// BlockBytes is read at once to find an offset: one index interval with the header after it, as a rule.
const BlockBytes = 4096

// blocks are buffers for short searches. They hold bytes only, so any goroutine may take any.
var blocks = sync.Pool{New: func() any { return new([BlockBytes]byte) }}

// TakeBlock lends a buffer.
func TakeBlock() *[BlockBytes]byte { return blocks.Get().(*[BlockBytes]byte) }

// PutBlock takes it back.
func PutBlock(b *[BlockBytes]byte) { blocks.Put(b) }

// ErrFrame: the bytes at this position are not a whole batch.
var ErrFrame = errors.New("no whole batch")

// Walker goes from batch to batch by their headers. It reads no payload but what lies in the same block.
type Walker struct {
	from  io.ReaderAt
	At    int64 // of the next batch
	Limit int64 // the valid bytes end here
	buf   []byte
	bufAt int64
	have  int
}

// Walk begins at a position, and ends at limit. buf holds at least a header.
func Walk(from io.ReaderAt, at, limit int64, buf []byte) Walker {
	return Walker{from: from, At: at, Limit: limit, buf: buf}
}

// Next returns the header of the next batch (valid until the following call) and its position. io.EOF at the limit,
// errFrame where no whole batch lies before the limit.
func (w *Walker) Next() (batch.Batch, int64, error) {
	at := w.At
	if at == w.Limit {
		return nil, at, io.EOF
	}
	if w.Limit-at < batch.HeaderBytes {
		return nil, at, fmt.Errorf("%w: %d bytes are left", ErrFrame, w.Limit-at)
	}
	head, err := w.bytes(at, batch.HeaderBytes)
	if err != nil {
		return nil, at, err
	}
	size, err := batch.FrameBytes(head)
	if err != nil {
		return nil, at, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	h := batch.Batch(head)
	if at+size > w.Limit {
		return nil, at, fmt.Errorf("%w: %d bytes said, %d left", ErrFrame, size, w.Limit-at)
	}
	if h.LastOffsetDelta() < 0 || h.BaseOffset() < 0 {
		return nil, at, fmt.Errorf("%w: offset %d, last offset delta %d", ErrFrame, h.BaseOffset(), h.LastOffsetDelta())
	}
	w.At = at + size
	return h, at, nil
}

// bytes returns n bytes at a position, from the buffer or read with what follows them. n is at most the buffer's size.
func (w *Walker) bytes(at int64, n int) ([]byte, error) {
	if at < w.bufAt || at+int64(n) > w.bufAt+int64(w.have) {
		want := min(int64(len(w.buf)), w.Limit-at)
		if err := ReadFull(w.from, w.buf[:want], at); err != nil {
			w.have = 0
			return nil, err
		}
		w.bufAt, w.have = at, int(want)
	}
	return w.buf[at-w.bufAt:][:n], nil
}

// Body returns a batch with all its bytes, from the buffer when they fit into it.
func (w *Walker) Body(at, size int64) (batch.Batch, error) {
	if size <= int64(len(w.buf)) {
		b, err := w.bytes(at, int(size))
		return b[:len(b):len(b)], err
	}
	b := make(batch.Batch, size)
	return b, ReadFull(w.from, b, at)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumFrom is where the bytes begin that a batch's checksum covers: at its attributes.
const checksumFrom = 21

// Verify compares a batch's bytes with its checksum and returns the batch when it fits into the buffer, otherwise the
// header alone: a length made large by damage costs no memory. ErrCorrupt when they differ.
func (w *Walker) Verify(at, size int64) (batch.Batch, error) {
	if size <= int64(len(w.buf)) {
		b, err := w.Body(at, size)
		if err != nil {
			return nil, err
		}
		return b, b.CheckCRC()
	}
	head := make(batch.Batch, batch.HeaderBytes)
	if err := ReadFull(w.from, head, at); err != nil {
		return nil, err
	}
	sum := uint32(0)
	for pos, end := at+checksumFrom, at+size; pos < end; {
		n := min(int64(len(w.buf)), end-pos)
		w.have = 0
		if err := ReadFull(w.from, w.buf[:n], pos); err != nil {
			return nil, err
		}
		sum, pos = crc32.Update(sum, castagnoli, w.buf[:n]), pos+n
	}
	if sum != head.CRC() {
		return nil, fmt.Errorf("%w: checksum %08x, stored %08x", batch.ErrCorrupt, sum, head.CRC())
	}
	return head, nil
}
