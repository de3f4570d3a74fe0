package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Certificates configure TLS, anew for each connection, so that they may change. Both ends must show a
// certificate; VerifyConnection of what they return says whom to believe.
type Certificates interface {
	Listener() *tls.Config
	Dialler(host string) *tls.Config
}

const (
	// exporter names what binds the proof of the secret to the TLS connection that it is made on
	// (RFC 8446, 7.5): without it somebody between two nodes could pass it on.
	exporter      = "EXPERIMENTAL barnabas peer proof"
	exporterBytes = 32
	// lingerTime is how long a connection that is refused is read from, so that the other end reads why:
	// closed at once, with something unread, it may be told of a reset and nothing else.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// secured is a connection under TLS. It is closed without TLS's own goodbye, which may have to wait for a
// peer that takes nothing; frames have their length, so that nothing can be cut off unseen.
type secured struct {
	*tls.Conn
	raw net.Conn
}

// Close implements net.Conn.
func (c secured) Close() error { return c.raw.Close() }

// channel is what the two ends of one connection know and nobody else; nil without TLS.
type channel []byte

func (o *Options) open() bool { return len(o.Secret) > 0 || o.Certificates != nil }

// secure puts TLS around a connection, where this node has certificates.
func (o *Options) secure(raw net.Conn, host string, dials bool, deadline time.Time) (net.Conn, channel, error) {
	if o.Certificates == nil {
		return raw, nil, nil
	}
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	var conn *tls.Conn
	if dials {
		conn = tls.Client(raw, believing(o.Certificates.Dialler(host)))
	} else {
		conn = tls.Server(raw, believing(o.Certificates.Listener()))
	}
	if err := conn.HandshakeContext(context.Background()); err != nil { // the deadline ends it
		return nil, nil, o.explain(raw, dials, err)
	}
	state := conn.ConnectionState()
	bound, err := state.ExportKeyingMaterial(exporter, nil, exporterBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: bind the proof to the connection: %w", ErrTLS, err)
	}
	return secured{conn, raw}, bound, nil
}

// believing marks what is refused for its certificate.
func believing(c *tls.Config) *tls.Config {
	verify := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verify(state); err != nil {
			return fmt.Errorf("%w: %w", ErrUntrusted, err)
		}
		return nil
	}
	return c
}

// explain says in whose power it is to mend a failed handshake of TLS.
func (o *Options) explain(raw net.Conn, dials bool, err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, ErrUntrusted):
	case errors.As(err, &header) && dials:
		return fmt.Errorf("%w: it does not answer in TLS, and this node's listener.security.protocol.map says SSL", ErrOneSided)
	case errors.As(err, &header) && header.RecordHeader[0] == 0 && string(header.RecordHeader[2:]) == magic[:3]:
		// A node that has no certificates reads this as the answer to its introduction.
		_ = writeFrame(raw, []byte{refusedClear}) // the refusal below says more than that it could not be told
		return fmt.Errorf("%w: it speaks in the clear, and this node's listener.security.protocol.map says SSL", ErrOneSided)
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return fmt.Errorf("%w: it has shown none", ErrUntrusted)
	default:
		return ofTLS(err)
	}
	return err
}

// ofTLS gives an error of a TLS connection that is being made its meaning.
func ofTLS(err error) error {
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return fmt.Errorf("%w: its log says why (%w)", ErrDistrusted, err)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: %w; do ssl.enabled.protocols and ssl.cipher.suites of both have something in common?", ErrTLS, err)
	case errors.As(err, &timeout), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case strings.HasPrefix(err.Error(), "tls: "):
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return err
}

// speaksTLS tells from the first two bytes of a handshake whether they are TLS's: a record with a handshake
// in it, of a version that all use for the first.
func speaksTLS(head [2]byte) bool { return head[0] == 0x16 && head[1] == 0x03 }

// sendOff ends a connection that is refused, so that the other end can read what it was told.
func sendOff(raw net.Conn, deadline time.Time) {
	if end := time.Now().Add(lingerTime); end.Before(deadline) {
		deadline = end
	}
	if half, ok := raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil && raw.SetReadDeadline(deadline) == nil {
		_, _ = io.CopyN(io.Discard, raw, lingerBytes) // until the other end closes, too
	}
	_ = raw.Close()
}
