package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"sync"
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
	// keepBytes is the largest buffer that a Pool keeps.
	keepBytes = 256 << 10
	// keepParts bounds the list of parts that a Pool keeps.
	keepParts = 1 << 10
)

// Pool lends Outs their memory. An Out has some only while bytes wait to be sent, so idle
// connections hold none. The zero value is ready, and safe for concurrent use.
type Pool struct{ stores sync.Pool }

// Out collects replies and sends them: one append buffer, and between its bytes the file ranges
// and foreign bytes that are not copied. It belongs to one connection and is used by one goroutine
// at a time. The zero value is ready.
//
// The connection frames replies with Begin and End (or Discard), and sends them with Flush; a
// Reply uses Append, Bytes, File, Waiting and Throttle.
type Out struct {
	// Pool is where memory comes from and where it returns once everything is sent; nil allocates.
	Pool *Pool

	*store // nil while nothing is written

	open     bool // between Begin and End
	headed   bool // and the header of that reply is in the buffer, at mark
	flexible bool
	id       int32
	mark     mark
	err      error // the first failure within the open reply

	throttle time.Duration
	send     func(*Out) error
	hurried  <-chan struct{}
}

type store struct {
	buf      []byte
	parts    []part
	inserted int64    // bytes of all parts
	vector   [][]byte // reused by Flush
}

// part is something sent after the first at bytes of the buffer.
type part struct {
	at    int
	size  int64
	file  FileRange // or
	bytes []byte
}

// mark is a position in a store: between the parts, and between the bytes.
type mark struct {
	buf, parts int
	inserted   int64
}

// Append lets f append to the body: it gets the buffer and returns it, longer.
func (o *Out) Append(f func(dst []byte) []byte) {
	o.attach()
	o.buf = f(o.buf)
}

// Bytes adds b to the body. Large ones are not copied: b must not change until it has been sent.
func (o *Out) Bytes(b []byte) {
	o.attach()
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
	o.attach()
	n := r.Len()
	if n > inlineBytes {
		o.parts = append(o.parts, part{at: len(o.buf), size: n, file: r})
		o.inserted += n
		return
	}
	buf, err := appendFile(o.buf, part{size: n, file: r})
	if err == nil {
		o.buf = buf
	} else if o.err == nil {
		o.err = err
	}
}

// Waiting is called by a Reply that is about to block: the replies before its own are sent now.
// Where that fails the connection is closed, which ends the Reply's context.
func (o *Out) Waiting() {
	if o.send == nil || !o.Complete() {
		return
	}
	if err := o.send(o); err != nil && o.err == nil {
		o.err = err
	}
}

// Throttle asks the server to read nothing from this connection for d once the reply is sent
// (KIP-219). Of several the longest counts.
func (o *Out) Throttle(d time.Duration) { o.throttle = max(o.throttle, d) }

// TakeThrottle gives what the replies since the last call asked for.
func (o *Out) TakeThrottle() time.Duration {
	d := o.throttle
	o.throttle = 0
	return d
}

// Hurried is closed when a Reply shall not wait for more than it has: what it holds is needed for
// others. Nil where nobody will say so.
func (o *Out) Hurried() <-chan struct{} { return o.hurried }

// HurryOn sets what Hurried returns.
func (o *Out) HurryOn(hurried <-chan struct{}) { o.hurried = hurried }

// OnWaiting sets what Waiting calls to send the complete replies.
func (o *Out) OnWaiting(send func(*Out) error) { o.send = send }

// Begin opens a reply. Its length and header take memory only once the body does.
func (o *Out) Begin(correlationID int32, flexible bool) {
	o.open, o.headed, o.err = true, false, nil
	o.id, o.flexible = correlationID, flexible
}

// End completes the open reply and gives its size on the wire. On an error (a file range that
// could not be read, a failed send while waiting, a reply too large for the protocol) the reply
// is discarded.
func (o *Out) End() (int64, error) {
	o.attach()
	size := int64(len(o.buf)-o.mark.buf) + o.inserted - o.mark.inserted
	err := o.err
	if err == nil && size-LengthBytes > math.MaxInt32 {
		err = fmt.Errorf("reply of %d bytes: %w", size, ErrMalformed)
	}
	if err != nil {
		o.Discard()
		return 0, err
	}
	binary.BigEndian.PutUint32(o.buf[o.mark.buf:], uint32(size-LengthBytes))
	o.open, o.headed = false, false
	return size, nil
}

// Discard forgets the open reply and closes its file ranges.
func (o *Out) Discard() {
	if o.open && o.headed {
		closeFiles(o.parts[o.mark.parts:])
		o.parts = slices.Delete(o.parts, o.mark.parts, len(o.parts))
		o.buf, o.inserted = o.buf[:o.mark.buf], o.mark.inserted
	}
	o.open, o.headed, o.err = false, false, nil
	o.detachIfEmpty()
}

// Size is the number of bytes of complete replies that wait to be sent, file ranges included.
func (o *Out) Size() int64 {
	end := o.complete()
	return int64(end.buf) + end.inserted
}

// Complete tells whether at least one complete reply waits to be sent.
func (o *Out) Complete() bool {
	end := o.complete()
	return end.buf > 0 || end.parts > 0
}

// Flush sends every complete reply to c, in as few writes as the file ranges between them allow,
// and forgets them, sent or not: after an error c cannot be used any more. Deadlines are the
// caller's.
func (o *Out) Flush(c net.Conn) error {
	if o.store == nil {
		return nil
	}
	end := o.complete()
	err := o.write(c, o.buf[:end.buf], o.parts[:end.parts])
	o.parts = slices.Delete(o.parts, 0, end.parts)
	o.buf = o.buf[:copy(o.buf, o.buf[end.buf:])]
	o.inserted -= end.inserted
	for i := range o.parts {
		o.parts[i].at -= end.buf
	}
	o.mark = mark{}
	o.detachIfEmpty()
	return err
}

// Take gives the complete replies, and what was written outside Begin and End, as bytes instead
// of sending them: for callers in the same process.
func (o *Out) Take(dst []byte) ([]byte, error) {
	defer o.Reset()
	if o.store == nil {
		return dst, nil
	}
	from, end := 0, o.complete()
	for i, p := range o.parts[:end.parts] {
		dst = append(dst, o.buf[from:p.at]...)
		from = p.at
		if p.file == nil {
			dst = append(dst, p.bytes...)
			continue
		}
		o.parts[i].file = nil // Reset must not close it again
		var err error
		if dst, err = appendFile(dst, p); err != nil {
			return nil, err
		}
	}
	return append(dst, o.buf[from:end.buf]...), nil
}

// Reset gives up everything that was not sent, and the memory.
func (o *Out) Reset() {
	if o.store != nil {
		closeFiles(o.parts)
		o.parts = slices.Delete(o.parts, 0, len(o.parts))
		o.buf, o.inserted = o.buf[:0], 0
	}
	o.open, o.headed, o.err, o.throttle = false, false, nil, 0
	o.detachIfEmpty()
}

// attach makes sure that there is memory to write to, and that an open reply has its header.
func (o *Out) attach() {
	if o.store == nil && o.Pool != nil {
		o.store, _ = o.Pool.stores.Get().(*store)
	}
	if o.store == nil {
		o.store = &store{}
	}
	if !o.open || o.headed {
		return
	}
	o.headed = true
	o.mark = mark{buf: len(o.buf), parts: len(o.parts), inserted: o.inserted}
	o.buf = append(o.buf, 0, 0, 0, 0) // the length, known at the end
	o.buf = binary.BigEndian.AppendUint32(o.buf, uint32(o.id))
	if o.flexible {
		o.buf = append(o.buf, 0) // no tagged fields
	}
}

func (o *Out) detachIfEmpty() {
	s := o.store
	if s == nil || len(s.buf) > 0 || len(s.parts) > 0 {
		return
	}
	o.store = nil
	if o.Pool == nil || cap(s.buf) > keepBytes || cap(s.parts) > keepParts || cap(s.vector) > keepParts {
		return
	}
	o.Pool.stores.Put(s)
}

// complete is where the complete replies end.
func (o *Out) complete() mark {
	switch {
	case o.store == nil:
		return mark{}
	case o.open && o.headed:
		return o.mark
	}
	return mark{buf: len(o.buf), parts: len(o.parts), inserted: o.inserted}
}

// write sends buf with the parts between and closes every file among them.
func (s *store) write(c net.Conn, buf []byte, parts []part) error {
	if len(parts) == 0 {
		if len(buf) == 0 {
			return nil
		}
		_, err := c.Write(buf)
		return err
	}
	from := 0
	for i, p := range parts {
		if p.at > from {
			s.vector = append(s.vector, buf[from:p.at])
			from = p.at
		}
		if p.file == nil {
			s.vector = append(s.vector, p.bytes)
			continue
		}
		err := s.writeVector(c)
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
		s.vector = append(s.vector, buf[from:])
	}
	return s.writeVector(c)
}

// writeVector writes and forgets the collected pieces, by writev where c can.
func (s *store) writeVector(c net.Conn) error {
	v := s.vector
	defer func() {
		clear(v) // no piece is kept from the garbage collector
		s.vector = v[:0]
	}()
	switch len(v) {
	case 0:
		return nil
	case 1:
		_, err := c.Write(v[0])
		return err
	}
	buffers := net.Buffers(v)
	_, err := buffers.WriteTo(c)
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

// appendFile reads a range into memory and closes it.
func appendFile(dst []byte, p part) ([]byte, error) {
	before := len(dst)
	dst, err := p.file.AppendTo(dst)
	if err == nil && int64(len(dst)-before) != p.size {
		err = io.ErrUnexpectedEOF
	}
	if closeErr := p.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("read %d bytes of a file into a reply: %w", p.size, err)
	}
	return dst, nil
}

func closeFiles(parts []part) {
	for _, p := range parts {
		if p.file != nil {
			// Nothing was written to it; there is nobody to tell.
			_ = p.file.Close()
		}
	}
}
