// Package wire is the framing of Kafka's protocol for either end of a connection: length
// prefixes, request and response headers, correlation ids, and the order of bytes on the socket.
//
// It decides which header version belongs to a (key, version), what a well-formed frame is, and
// how replies and requests are laid out and written. A listener uses ParseRequest and Out; whoever
// calls a broker uses Client. What a body means is not known here: bodies are bytes, encoded and
// decoded by the callers, and no message type is imported.
//
// The frame is a 4-byte big-endian length followed by header and body, as described in Kafka's
// protocol guide; flexible headers are KIP-482's.
package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// ErrMalformed says that bytes cannot be a frame of the protocol. The connection that sent them
// cannot be used any further, since nobody knows where its next frame begins.
var ErrMalformed = errors.New("malformed frame")

const (
	// LengthBytes is the size of the length in front of every frame.
	LengthBytes = 4
	// MinRequestBytes is the smallest request frame: key, version, correlation id and a null
	// client id.
	MinRequestBytes = 2 + 2 + 4 + 2
	// HeadBytes is how much of a frame, after its length, PeekRequest needs.
	HeadBytes = 2 + 2
)

// Header is the header of a request, whichever version it had on the wire.
type Header struct {
	Key, Version  int16
	CorrelationID int32
	// ClientID is what the client calls itself; any bytes, not necessarily UTF-8. It is empty
	// where ClientIDNull is set.
	ClientID     string
	ClientIDNull bool
}

// Request is one request as it arrived. Body lies in the frame that was parsed and is valid as
// long as that is; a server's handler may use it until Handle returns.
type Request struct {
	Header
	Body []byte
	// Bytes is the size of the whole frame without its length prefix.
	Bytes int
	// ReceivedAt is when the last byte of the frame had been read.
	ReceivedAt time.Time

	// The rest is set by the handler during phase one, for the server.

	// AnnouncesWait promises that the Reply calls Out.Waiting before it blocks. Replies before it
	// then leave together with it where it need not block after all; without the promise the
	// server sends them before it runs a Reply that was not ready.
	AnnouncesWait bool
	// HoldsBytes is about how much memory the Reply holds until it has run, where that can be much
	// and a Reply that waits can be told to hurry (Out.Hurried). What cannot be granted is answered
	// without waiting.
	HoldsBytes int64
	// Throttle is how long the server stops reading from this connection once the request has
	// been dealt with (KIP-219: the answer is not delayed). A Reply that learns of a throttle
	// only while it is written uses Out.Throttle.
	Throttle time.Duration
}

// Reply completes a request that has already taken effect. It may wait, for as long as ctx lives
// (ctx ends with the connection), and then writes the body of the response, which may be empty;
// header and length are the server's. An error closes the connection. Where the connection ends
// first a Reply is not called at all, so it must hold nothing that has to be released.
type Reply func(ctx context.Context, out *Out) error

// Peer is the other end of a connection as long as it lasts. The server fills it; the handler may
// set the client software's fields during phase one (KIP-511), and a Reply only reads.
type Peer struct {
	// ID is unique among the connections of one server, in order of their arrival, from 1.
	ID            uint64
	Remote, Local net.Addr
	// Listener is the name of the listener that accepted the connection.
	Listener string
	// Authenticated says that the peer has proven who it is, on listeners that ask for it.
	Authenticated bool
	// SoftwareName and SoftwareVersion come from an ApiVersions request.
	SoftwareName, SoftwareVersion string
}

// PeekRequest gives key and version of a frame whose first HeadBytes have arrived.
func PeekRequest(frame []byte) (key, version int16) {
	return int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
}

// ParseRequest parses the header of a request frame (without its length prefix). It knows every
// key from 0 on except 4 to 7, which brokers without ZooKeeper do not have: those and negative
// keys are ErrMalformed. A key or version that nobody implements is not: its header is parsed as
// a flexible one, and whoever handles requests refuses it by name.
func ParseRequest(frame []byte) (Request, error) {
	var r Request
	err := ParseRequestInto(&r, frame)
	return r, err
}

// ParseRequestInto is ParseRequest for a Request that is used again and again: a client id equal
// to the one that r held before is not allocated anew. Every other field is overwritten.
func ParseRequestInto(r *Request, frame []byte) error {
	known := r.ClientID
	*r = Request{Bytes: len(frame)}
	if len(frame) < MinRequestBytes {
		return fmt.Errorf("request of %d bytes: %w", len(frame), ErrMalformed)
	}
	r.Key, r.Version = PeekRequest(frame)
	r.CorrelationID = int32(binary.BigEndian.Uint32(frame[4:]))
	if r.Key < 0 || r.Version < 0 || removed(r.Key) {
		return fmt.Errorf("request with key %d, version %d: %w", r.Key, r.Version, ErrMalformed)
	}
	n := int(int16(binary.BigEndian.Uint16(frame[8:])))
	rest := frame[MinRequestBytes:]
	switch {
	case n == -1:
		r.ClientIDNull = true
	case n < -1 || n > len(rest):
		return fmt.Errorf("client id of %d bytes, %d left, in a request with key %d, version %d: %w",
			n, len(rest), r.Key, r.Version, ErrMalformed)
	default:
		if string(rest[:n]) != known { // compares without allocating
			known = string(rest[:n])
		}
		r.ClientID, rest = known, rest[n:]
	}
	if FlexibleRequest(r.Key, r.Version) {
		var err error
		if rest, err = skipTags(rest); err != nil {
			return fmt.Errorf("header of a request with key %d, version %d: %w", r.Key, r.Version, err)
		}
	}
	r.Body = rest
	return nil
}

// skipTags walks over a section of tagged fields (KIP-482): none is defined for any header.
func skipTags(b []byte) ([]byte, error) {
	count, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, fmt.Errorf("number of tagged fields: %w", ErrMalformed)
	}
	b = b[n:]
	for range count {
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("tag: %w", ErrMalformed)
		}
		b = b[n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, fmt.Errorf("size of a tagged field: %w", ErrMalformed)
		}
		b = b[n+int(size):]
	}
	return b, nil
}

// appendRequestHeader appends the header of a request, v1 or v2 by (key, version).
func appendRequestHeader(dst []byte, h Header) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Key))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Version))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.CorrelationID))
	if h.ClientIDNull {
		dst = append(dst, 0xff, 0xff)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(h.ClientID)))
		dst = append(dst, h.ClientID...)
	}
	if FlexibleRequest(h.Key, h.Version) {
		dst = append(dst, 0)
	}
	return dst
}

// slowestBytesPerSecond is the rate below which a transfer counts as stalled.
const slowestBytesPerSecond = 32 << 10

// Patience is how long the transfer of a number of bytes may take: the time that a peer may stand
// still, and a second for every 32 KiB. Deadlines made from it end a peer that holds memory
// without moving it, and leave one on a thin line alone.
func Patience(stall time.Duration, bytes int64) time.Duration {
	return stall + time.Duration(bytes/slowestBytesPerSecond)*time.Second
}
