package batch

import (
	"errors"
	"io"
	"slices"
)

// inflater decompresses the records of one batch, piece by piece.
type inflater interface {
	// begin points the inflater at compressed records, which must stay as they are until the next begin.
	begin(src []byte) error
	// more appends what comes next to dst and returns it; io.EOF, with nothing appended, where all has been
	// said. It grows dst in proportion to compressed bytes that are there, never to what they claim to become, and
	// by a piece or a compressed block. Where a block alone exceeds room it may return ErrInflates at once.
	more(dst []byte, room int64) ([]byte, error)
	// end lets go of the records.
	end()
}

var (
	// errShort means that the records end before the batch's count is reached, or inside a record.
	errShort = errors.New("records end early")
	// errMalformed means that a record's fields do not fill the length that it has.
	errMalformed = errors.New("malformed record")
)

const (
	// pieceBytes is how much is decompressed at a time where the codec lets us choose.
	pieceBytes = 64 << 10
	// maxKeptWindowBytes bounds the buffer that a window keeps between batches: room for an LZ4 block of the
	// largest kind (4 MiB, the default of Go's clients) behind the rest of a record. A larger one, which only a
	// larger record needs, is left to the garbage collector.
	maxKeptWindowBytes = 8 << 20
)

// window is a batch's records as they pass by: buf[at:] is at hand, more can be decompressed behind it.
// Without an inflater buf is all there is.
type window struct {
	buf      []byte
	at       int
	inflater inflater
	left     int64     // how much more may be decompressed
	tee      io.Writer // gets all that is decompressed; nil: nobody
	own      []byte    // the buffer kept between batches
}

// begin points the window at a batch's records. limit bounds what they may decompress to.
func (w *window) begin(payload []byte, inf inflater, limit int64, tee io.Writer) error {
	if inf == nil {
		*w = window{buf: payload, own: w.own}
		return nil
	}
	*w = window{buf: w.own[:0], inflater: inf, left: limit, tee: tee, own: w.own}
	return inf.begin(payload)
}

// end lets go of the batch, keeping a buffer of reasonable size.
func (w *window) end() {
	own := w.own
	if w.inflater != nil {
		w.inflater.end()
		if cap(w.buf) <= maxKeptWindowBytes {
			own = w.buf[:0]
		}
	}
	*w = window{own: own}
}

// more makes more bytes available behind buf[at:], which may move. errShort: there are no more.
func (w *window) more() error {
	if w.inflater == nil {
		return errShort
	}
	if w.at > 0 {
		kept := copy(w.buf, w.buf[w.at:])
		w.buf, w.at = w.buf[:kept], 0
	}
	had := len(w.buf)
	buf, err := w.inflater.more(w.buf, w.left)
	w.buf = buf
	switch {
	case errors.Is(err, io.EOF):
		return errShort
	case err != nil:
		return err
	}
	w.left -= int64(len(buf) - had)
	if w.left < 0 {
		return ErrInflates
	}
	if w.tee != nil {
		if _, err := w.tee.Write(buf[had:]); err != nil {
			return err
		}
	}
	return nil
}

// atEnd says whether nothing is left.
func (w *window) atEnd() (bool, error) {
	if w.at < len(w.buf) {
		return false, nil
	}
	switch err := w.more(); {
	case err == nil:
		return false, nil
	case errors.Is(err, errShort):
		return true, nil
	default:
		return false, err
	}
}

func (w *window) varint() (int64, error) { return take(w, varint, maxVarintBytes) }

func (w *window) varint32() (int32, error) { return take(w, varint32, maxVarint32Bytes) }

// take reads a varint of at most so many bytes, getting more of them where needed.
func take[T int32 | int64](w *window, read func(p []byte, at int) (T, int), most int) (T, error) {
	for {
		v, at := read(w.buf, w.at)
		if at <= len(w.buf) {
			w.at = at
			return v, nil
		}
		if len(w.buf)-w.at >= most {
			return 0, errMalformed
		}
		if err := w.more(); err != nil {
			return 0, err
		}
	}
}

// discard passes over n bytes without ever holding more than a piece of them.
func (w *window) discard(n int64) error {
	for {
		if at := int64(len(w.buf) - w.at); n <= at {
			w.at += int(n)
			return nil
		} else {
			w.at, n = len(w.buf), n-at
		}
		if err := w.more(); err != nil {
			return err
		}
	}
}

// consumed counts the bytes of the stream up to the window's place, from an arbitrary but fixed origin.
func (w *window) consumed() int64 { return int64(w.at-len(w.buf)) - w.left }

// grow makes room for n more bytes behind dst, at least doubling, so that a large record costs few copies.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	return slices.Grow(dst, max(n, len(dst)))
}
