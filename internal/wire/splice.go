package wire

import (
	"context"
	"errors"
	"net"
)

// SpliceBytes is the size from which memory is sent from where it lies. Below it a copy, and a share of
// one write, cost less than a write of its own.
const SpliceBytes = 64 << 10

// Splices are stretches of memory that requests refer to and do not copy.
type Splices struct {
	parts []splice
	bytes int
}

// splice goes before the byte at a place of the buffer.
type splice struct {
	at   int
	data []byte
}

// Append appends data to dst, or where it is large only remembers that it belongs there. A nil Splices
// copies everything.
func (s *Splices) Append(dst, data []byte) []byte {
	if s == nil || len(data) < SpliceBytes {
		return append(dst, data...)
	}
	s.parts = append(s.parts, splice{len(dst), data})
	s.bytes += len(data)
	return dst
}

// Bytes is how many have not been copied.
func (s *Splices) Bytes() int {
	if s == nil {
		return 0
	}
	return s.bytes
}

// Pieces appends to dst the stretches of memory that, one after the other, are buf with what was not
// copied into it.
func (s *Splices) Pieces(dst [][]byte, buf []byte) [][]byte {
	from := 0
	for _, part := range s.parts {
		if part.at > from {
			dst = append(dst, buf[from:part.at])
		}
		dst = append(dst, part.data)
		from = part.at
	}
	if from < len(buf) {
		dst = append(dst, buf[from:])
	}
	return dst
}

// cut forgets all but the first parts, which come to so many bytes.
func (s *Splices) cut(parts, bytes int) {
	clear(s.parts[parts:])
	s.parts, s.bytes = s.parts[:parts], bytes
}

// outgoing are frames in the order of the calls, on their way into one write.
type outgoing struct {
	buf       []byte
	splices   Splices
	oneWay    int        // how many will not be answered
	unwritten []*Pending // those with splices
}

// written lets go of the memory that is not ours, whether it was sent or not.
func (o *outgoing) written() {
	for _, p := range o.unwritten {
		close(p.written)
	}
}

// emptied gives the memory for further frames.
func (o *outgoing) emptied(keepBytes int) outgoing {
	o.splices.cut(0, 0)
	clear(o.unwritten)
	empty := outgoing{splices: o.splices, unwritten: o.unwritten[:0]}
	if cap(o.buf) <= keepBytes {
		empty.buf = o.buf[:0]
	}
	return empty
}

// BuffersWriter is a connection around another one, which knows how that one sends several stretches of memory
// at once: net.Buffers knows net's own connections alone, and would make a write of each.
type BuffersWriter interface {
	WriteBuffers(pieces *net.Buffers) (int64, error)
}

// StartSpliced is Start for a request with parts that are large and are not copied: encode gives them to
// Splices.Append. They must stay as they are until Wait has returned, whatever it returns. When Wait's ctx ends while
// the request is being sent the connection breaks.
func (c *Client) StartSpliced(ctx context.Context, key, version int16, encode func(dst []byte, s *Splices) []byte) (*Pending, error) {
	p := &Pending{client: c, key: key, version: version, memory: c.opts.Buffer, done: make(chan struct{})}
	if err := c.enqueue(ctx, key, version, nil, encode, p); err != nil {
		return nil, err
	}
	return p, nil
}

// errGaveUp is why a connection ends on which a request was being sent that nobody waits for any more: the rest of it
// lies in memory that is about to be used for something else.
var errGaveUp = errors.New("a request was given up while it was being sent")

// awaitWritten waits until the memory that the request refers to is no longer needed. An answer may come before the
// write of its request has returned, and a connection fail while somebody writes to it.
func (p *Pending) awaitWritten(ctx context.Context) {
	if p.written == nil {
		return
	}
	select {
	case <-p.written:
		return
	default:
	}
	select {
	case <-p.written:
	case <-ctx.Done():
		p.client.fail(errGaveUp)
		<-p.written
	}
}
