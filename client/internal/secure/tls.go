package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"barnabas/client/internal/errcode"
)

// Handshaker makes connections trusted ones. The zero value, and nil, leave them plain.
type Handshaker struct {
	// Config gives what goes for the next connection. It is not changed.
	Config func() (*tls.Config, error)
}

// Handshake makes a plain connection to the broker at host a trusted one. Where it fails nc is closed.
func (h *Handshaker) Handshake(ctx context.Context, nc net.Conn, host string) (net.Conn, error) {
	if h == nil || h.Config == nil {
		return nc, nil
	}
	cfg, err := h.Config()
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	c := tls.Client(nc, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, explainHandshake(ctx, err)
	}
	return c, nil
}

// explainHandshake says what a failed handshake means.
func explainHandshake(ctx context.Context, err error) error {
	var record tls.RecordHeaderError
	var host x509.HostnameError
	var unverified *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("TLS handshake: %w", context.Cause(ctx))
	case errors.As(err, &record):
		return fmt.Errorf("TLS handshake: the answer is not TLS, so there is probably none at this port (security.protocol): %w", err)
	case hungUp(err):
		return fmt.Errorf("TLS handshake: the broker hung up; perhaps there is no TLS at this port (security.protocol): %w", err)
	case errors.As(err, &host):
		return fmt.Errorf("%w: the broker's certificate is another host's (ssl.endpoint.identification.algorithm): %w", errcode.ErrAuthentication, err)
	case errors.As(err, &unverified):
		return fmt.Errorf("%w: the broker's certificate is not to be trusted (ssl.truststore.location): %w", errcode.ErrAuthentication, err)
	default:
		return refusedByPeer(fmt.Errorf("TLS handshake: %w", err))
	}
}

// windowsReset is what Windows calls a connection that the other end has reset (WSAECONNRESET).
const windowsReset = syscall.Errno(10054)

// hungUp tells whether the other end has closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, windowsReset)
}

// internalAlert is the one alert that says nothing about us.
const internalAlert = "tls: internal error"

// refusedByPeer marks the alerts with which a broker turns a client away: its certificate is missing or not
// trusted, or the two have no version or cipher in common. With TLS 1.3 such an alert comes after the
// client's half of the handshake has ended well, as the answer to the first request.
func refusedByPeer(err error) error {
	var alert *net.OpError
	if !errors.As(err, &alert) || alert.Op != "remote error" || alert.Err == nil || alert.Err.Error() == internalAlert {
		return err
	}
	return fmt.Errorf("%w: the broker does not accept the client's certificate or its versions of TLS (ssl.keystore.location): %w", errcode.ErrAuthentication, alert)
}
