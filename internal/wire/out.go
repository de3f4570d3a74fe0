package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"time"
)

// FileRange is a stretch of a file within a reply.
type FileRange interface {
	// Len is how many bytes will be sent, fixed once the range is handed to Out.
	Len() int64
	// SendTo writes all Len bytes to c, without copying them through the process where it can.
	SendTo(c net.Conn) (int64, error)
	// AppendTo appends all Len bytes to dst.
	AppendTo(dst []byte) ([]byte, error)
	// Close releases the range. Out calls it exactly once.
	Close() error
}

const (
	// inlineBytes is the size up to which a file range or foreign bytes are copied into the
	// buffer: one read and a share of one write cost less than a write and a sendfile each.
	inlineBytes = 8 << 10
	// keepBytes is the largest buffer that an Out keeps when it is emptied.
	keepBytes = 256 << 10
	// keepParts bounds the list of parts that an Out keeps when it is emptied.
	keepParts = 1 << 10
)

// Out collects replies and sends them: one append buffer, and between its bytes the file ranges
// and foreign bytes that are not copied. It belongs to one connection at a time and is used by
// one goroutine at a time. The zero value is ready.
//
// The connection frames replies with Begin and End (or Discard), and sends them with Flush; a
// Reply uses Append, Bytes, File, Waiting and Throttle.
type Out struct {
	buf      []byte
	parts    []part
	inserted int64 // bytes of all parts
	open     mark  // where the reply being written begins
	err      error // the first failure within the reply being written

	throttle time.Duration
	send     func(*Out) error
	vector   [][]byte // reused by Flush
}

// part is something sent after the first at bytes of the buffer.
type part struct {
	at    int
	size  int64
	file  FileRange // or
	bytes []byte
}

type mark struct {
	open       bool
	buf, parts int
	inserted   int64
}

// Append lets f append to the body: it gets the buffer and returns it, longer.
func (o *Out) Append(f func(dst []byte) []byte) { o.buf = f(o.buf) }

// Bytes adds b to the body. Large ones are not copied: b must not change until it has been sent.
func (o *Out) Bytes(b []byte) {
	if len(b) <= inlineBytes {
		o.buf = append(o.buf, b...)
		return
	}
	o.parts = append(o.parts, part{at: len(o.buf), size: int64(len(b)), bytes: b})
	o.inserted += int64(len(b))
}

// File adds a file range to the body. Its Close is called once it is sent or given up, which may
// be at once: small ranges are copied. A range that cannot be read fails the reply.
func (o *Out) File(r FileRange) {
	n := r.Len()
	if n > inlineBytes {
		o.parts = append(o.parts, part{at: len(o.buf), size: n, file: r})
		o.inserted += n
		return
	}
	before := len(o.buf)
	buf, err := r.AppendTo(o.buf)
	if err == nil && int64(len(buf)-before) != n {
		err = fmt.Errorf("file range of %d bytes gave %d", n, len(buf)-before)
	}
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("read a file range into a reply: %w", err)
	}
	if err == nil {
		o.buf = buf
	}
}

// Waiting is called by a Reply that is about to block: the replies before its own are sent now.
// Errors come back from the connection, not here.
func (o *Out) Waiting() {
	if o.send == nil || !o.Complete() {
		return
	}
	if err := o.send(o); err != nil && o.err == nil {
		o.err = err
	}
}

// Throttle asks the server to read nothing from this connection for d once the reply is sent. Of
// several the longest counts.
func (o *Out) Throttle(d time.Duration) { o.throttle = max(o.throttle, d) }

// TakeThrottle gives what the replies since the last call asked for.
func (o *Out) TakeThrottle() time.Duration {
	d := o.throttle
	o.throttle = 0
	return d
}

// OnWaiting sets what Waiting calls to send the complete replies.
func (o *Out) OnWaiting(send func(*Out) error) { o.send = send }

// Begin starts a reply: room for its length, and its header.
func (o *Out) Begin(correlationID int32, flexible bool) {
	o.open = mark{open: true, buf: len(o.buf), parts: len(o.parts), inserted: o.inserted}
	o.err = nil
	o.buf = append(o.buf, 0, 0, 0, 0)
	o.buf = binary.BigEndian.AppendUint32(o.buf, uint32(correlationID))
	if flexible {
		o.buf = append(o.buf, 0)
	}
}

// End completes the reply and gives its size on the wire. On an error (a file range that could
// not be read, a failed send while waiting, a reply too large for the protocol) the reply is
// discarded.
func (o *Out) End() (int64, error) {
	size := int64(len(o.buf)-o.open.buf) + o.inserted - o.open.inserted
	err := o.err
	if err == nil && size-LengthBytes > math.MaxInt32 {
		err = fmt.Errorf("reply of %d bytes: %w", size, ErrMalformed)
	}
	if err != nil {
		o.Discard()
		return 0, err
	}
	binary.BigEndian.PutUint32(o.buf[o.open.buf:], uint32(size-LengthBytes))
	o.open = mark{}
	return size, nil
}

// Discard forgets the reply being written and closes its file ranges.
func (o *Out) Discard() {
	if !o.open.open {
		return
	}
	closeFiles(o.parts[o.open.parts:])
	o.parts = slices.Delete(o.parts, o.open.parts, len(o.parts))
	o.buf, o.inserted = o.buf[:o.open.buf], o.open.inserted
	o.open, o.err = mark{}, nil
}

// Size is the number of bytes waiting to be sent, file ranges included.
func (o *Out) Size() int64 { return int64(len(o.buf)) + o.inserted }

// Complete tells whether at least one complete reply waits to be sent.
func (o *Out) Complete() bool {
	if o.open.open {
		return o.open.buf > 0 || o.open.parts > 0
	}
	return len(o.buf) > 0 || len(o.parts) > 0
}

// CompleteSize is Size without the reply being written.
func (o *Out) CompleteSize() int64 {
	if o.open.open {
		return int64(o.open.buf) + o.open.inserted
	}
	return o.Size()
}

// Flush sends every complete reply to c, in as few writes as there are file ranges between them,
// and forgets them, sent or not: after an error c cannot be used any more. Deadlines are the
// caller's.
func (o *Out) Flush(c net.Conn) error {
	end, parts := len(o.buf), o.parts
	if o.open.open {
		end, parts = o.open.buf, o.parts[:o.open.parts]
	}
	err := o.write(c, o.buf[:end], parts)
	for _, p := range parts {
		o.inserted -= p.size
	}
	o.parts = slices.Delete(o.parts, 0, len(parts))
	o.buf = o.buf[:copy(o.buf, o.buf[end:])]
	for i := range o.parts {
		o.parts[i].at -= end
	}
	if o.open.open {
		o.open = mark{open: true}
	}
	return err
}

// Reset gives up everything that was not sent and keeps memory for the next use, if not much.
func (o *Out) Reset() {
	closeFiles(o.parts)
	clear(o.parts)
	buf, parts, vector := o.buf[:0], o.parts[:0], o.vector
	if cap(buf) > keepBytes {
		buf = nil
	}
	if cap(parts) > keepParts || cap(vector) > keepParts {
		parts, vector = nil, nil
	}
	*o = Out{buf: buf, parts: parts, vector: vector}
}

func (o *Out) write(c net.Conn, buf []byte, parts []part) error {
	if len(parts) == 0 {
		if len(buf) == 0 {
			return nil
		}
		_, err := c.Write(buf)
		return err
	}
	v, from := o.vector[:0], 0
	defer func() { clear(v); o.vector = v[:0] }()
	for i, p := range parts {
		if p.at > from {
			v = append(v, buf[from:p.at])
			from = p.at
		}
		if p.file == nil {
			v = append(v, p.bytes)
			continue
		}
		err := writeAll(c, v)
		v = v[:0]
		if err == nil {
			err = sendFile(c, p)
		}
		if closeErr := p.file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			closeFiles(parts[i+1:])
			return err
		}
	}
	if from < len(buf) {
		v = append(v, buf[from:])
	}
	return writeAll(c, v)
}

// writeAll writes the pieces in order, by writev where c can.
func writeAll(c net.Conn, pieces [][]byte) error {
	switch len(pieces) {
	case 0:
		return nil
	case 1:
		_, err := c.Write(pieces[0])
		return err
	}
	v := net.Buffers(pieces)
	_, err := v.WriteTo(c)
	return err
}

func sendFile(c net.Conn, p part) error {
	n, err := p.file.SendTo(c)
	if err == nil && n != p.size {
		// The length in front of the reply has promised more.
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("send %d bytes of a file, %d sent: %w", p.size, n, err)
	}
	return nil
}

func closeFiles(parts []part) {
	for _, p := range parts {
		if p.file != nil {
			// Nothing was written to it; there is nobody to tell.
			_ = p.file.Close()
		}
	}
}
