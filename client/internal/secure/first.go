package secure

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"barnabas/internal/wire"
)

// Watched is a connection that remembers how what it received began, so that a failure of the first
// request can be explained.
type Watched struct {
	net.Conn

	plain bool
	begun atomic.Bool // begin is complete
	begin [watchedBytes]byte
	n     int // of begin; the reader's alone until begun
}

// watchedBytes are enough to tell TLS and HTTP from Kafka's protocol.
const watchedBytes = 5

// Watch takes over a connection, which is plain where it has no TLS.
func Watch(c net.Conn, plain bool) *Watched { return &Watched{Conn: c, plain: plain} }

// Read keeps the first bytes.
func (w *Watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if !w.begun.Load() {
		w.n += copy(w.begin[w.n:], p[:n])
		if w.n == len(w.begin) || err != nil {
			w.begun.Store(true)
		}
	}
	return n, err
}

// WriteBuffers writes at once what the connection beneath can: it is a wire.BuffersWriter.
func (w *Watched) WriteBuffers(pieces *net.Buffers) (int64, error) { return pieces.WriteTo(w.Conn) }

// The records with which TLS begins: an alert or a handshake, and the first byte of every version.
const (
	recordAlert     = 0x15
	recordHandshake = 0x16
	recordVersion   = 0x03
)

// Explain says what is likely wrong when the first request of a connection has failed with err, and marks what
// trying again does not mend. It is called once reading has ended.
func (w *Watched) Explain(err error) error {
	if !w.begun.Load() {
		return err // nothing has been waited for
	}
	begin := w.begin[:w.n]
	switch {
	case !w.plain && hungUp(err):
		return fmt.Errorf("the broker hung up after the TLS handshake; perhaps it wants a certificate of the client (ssl.keystore.location): %w", err)
	case !w.plain:
		return refusedByPeer(err)
	case len(begin) >= 2 && (begin[0] == recordAlert || begin[0] == recordHandshake) && begin[1] == recordVersion:
		return fmt.Errorf("the broker wants TLS at this port (security.protocol): %w", err)
	case len(begin) >= 4 && string(begin[:4]) == "HTTP":
		return fmt.Errorf("a web server answers at this port: %w", err)
	case len(begin) == 0 && errors.Is(err, ErrNotConnected):
		return fmt.Errorf("nothing answers the first request; perhaps no broker is at this port, or it wants TLS (security.protocol): %w", err)
	case len(begin) == 0 && hungUp(err):
		return fmt.Errorf("the broker hung up at the first request; perhaps it wants TLS at this port (security.protocol): %w", err)
	case errors.Is(err, wire.ErrMalformed):
		return fmt.Errorf("this is not Kafka's protocol: %w", err)
	}
	return err
}

// ExplainUnanswered says what is likely wrong where a broker answered which requests it knows, and
// hung up at the first other one.
func ExplainUnanswered(err error) error {
	if !hungUp(err) {
		return err
	}
	return fmt.Errorf("the broker hung up at the first request; perhaps it wants SASL at this port (security.protocol): %w", err)
}
