package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"barnabas/client/hooks"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/errcode"
	"barnabas/client/internal/secure"
	"barnabas/client/sasl"
	"barnabas/internal/netx"
)

// Option sets something of a Client. Each names the Kafka setting that it stands for.
type Option func(*config) error

type config struct {
	cluster.Config
	metadataMaxIdle   time.Duration
	allowAutoCreation bool
	metricsPush       bool
}

// defaultMaxResponseBytes bounds one response of a broker. A larger one closes the connection,
// since the length field of a stream that is not Kafka's reads as any number.
const defaultMaxResponseBytes = 256 << 20

func defaultConfig() config {
	return config{
		Config: cluster.Config{
			Seeds:            []string{"127.0.0.1:9092"},
			ClientID:         "barnabas-client",
			Dial:             netx.TCP.Dial,
			Logger:           slog.New(slog.DiscardHandler),
			Hooks:            &hooks.Hooks{},
			MetadataMaxAge:   5 * time.Minute,
			RequestTimeout:   30 * time.Second,
			SetupTimeout:     10 * time.Second,
			MaxIdle:          9 * time.Minute,
			RetryBackoff:     cluster.Backoff{First: 100 * time.Millisecond, Most: time.Second},
			ReconnectBackoff: cluster.Backoff{First: 50 * time.Millisecond, Most: time.Second},
			MaxResponseBytes: defaultMaxResponseBytes,
		},
		metadataMaxIdle:   5 * time.Minute,
		allowAutoCreation: true,
		metricsPush:       true,
	}
}

// Brokers names the brokers to ask first, as HOST:PORT. One that answers is enough: it tells of all
// others. Default 127.0.0.1:9092. Kafka: bootstrap.servers.
func Brokers(addresses ...string) Option {
	return func(c *config) error {
		if len(addresses) == 0 {
			return errors.New("bootstrap.servers: at least one HOST:PORT is needed")
		}
		for _, a := range addresses {
			if err := cluster.CheckAddress(a); err != nil {
				return fmt.Errorf("bootstrap.servers: %w", err)
			}
		}
		c.Seeds = append([]string(nil), addresses...)
		return nil
	}
}

// ID is the name that brokers log and meter this client by. Default "barnabas-client".
// Kafka: client.id.
func ID(id string) Option {
	return func(c *config) error { c.ClientID = id; return nil }
}

// Logger receives what an operator may want to know: connections lost, metadata that cannot be
// had, records given up. Default: nothing is logged.
func Logger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("the logger is nil")
		}
		c.Logger = l
		return nil
	}
}

// Hooks are told what the client does, for metrics and traces: see package hooks, and the packages
// below it for ready-made ones. Given several times, all are told. Default: none, which costs nothing.
func Hooks(h hooks.Hooks) Option {
	return func(c *config) error { *c.Hooks = hooks.Join(*c.Hooks, h); return nil }
}

// Dialer replaces the way to reach a broker's HOST:PORT, which is TCP: for proxies, for programs
// that run client and broker in one process, and for tests.
func Dialer(dial func(ctx context.Context, address string) (net.Conn, error)) Option {
	return func(c *config) error {
		if dial == nil {
			return errors.New("the dialer is nil")
		}
		c.Dial = dial
		return nil
	}
}

// MetadataMaxAge is after how long the metadata is asked for anew although nothing proved it
// stale. Default 5 minutes. Kafka: metadata.max.age.ms.
func MetadataMaxAge(d time.Duration) Option {
	return duration("metadata.max.age.ms", d, time.Millisecond, func(c *config) *time.Duration { return &c.MetadataMaxAge })
}

// MetadataMaxIdle is how long a topic that is no longer produced to stays in the metadata that is
// asked for. Default 5 minutes, at least 5 seconds. Kafka: metadata.max.idle.ms.
func MetadataMaxIdle(d time.Duration) Option {
	return duration("metadata.max.idle.ms", d, 5*time.Second, func(c *config) *time.Duration { return &c.metadataMaxIdle })
}

// RequestTimeout is how long a broker may take to answer. After it the connection is closed and
// the request is tried again where that is safe. Default 30 seconds. Kafka: request.timeout.ms.
func RequestTimeout(d time.Duration) Option {
	return duration("request.timeout.ms", d, time.Millisecond, func(c *config) *time.Duration { return &c.RequestTimeout })
}

// ConnectionSetupTimeout bounds connecting, including the negotiation of versions. Default
// 10 seconds. Kafka: socket.connection.setup.timeout.ms.
func ConnectionSetupTimeout(d time.Duration) Option {
	return duration("socket.connection.setup.timeout.ms", d, time.Millisecond,
		func(c *config) *time.Duration { return &c.SetupTimeout })
}

// ConnectionsMaxIdle is after how long an unused connection is closed. Default 9 minutes; less
// than the brokers' 10, so that it is never closed under a request. Kafka: connections.max.idle.ms.
func ConnectionsMaxIdle(d time.Duration) Option {
	return duration("connections.max.idle.ms", d, time.Second, func(c *config) *time.Duration { return &c.MaxIdle })
}

// RetryBackoff is how long to wait before a failed request is tried again: first, then doubled up
// to most, each time longer or shorter by up to a fifth. Default 100 ms and 1 s.
// Kafka: retry.backoff.ms and retry.backoff.max.ms.
func RetryBackoff(first, most time.Duration) Option {
	return func(c *config) error { return setBackoff("retry.backoff.ms", &c.RetryBackoff, first, most) }
}

// ReconnectBackoff is how long to wait before a broker that could not be reached is tried again:
// first, then doubled up to most, each time longer or shorter by up to a fifth. Default 50 ms and
// 1 s. Kafka: reconnect.backoff.ms and reconnect.backoff.max.ms.
func ReconnectBackoff(first, most time.Duration) Option {
	return func(c *config) error {
		return setBackoff("reconnect.backoff.ms", &c.ReconnectBackoff, first, most)
	}
}

// AllowAutoTopicCreation says whether a topic that is produced to and does not exist may be
// created, where the brokers allow that too (auto.create.topics.enable). Default true, as in
// Kafka's producer. Consumers and admin calls never create a topic.
// Kafka: allow.auto.create.topics.
func AllowAutoTopicCreation(allow bool) Option {
	return func(c *config) error { c.allowAutoCreation = allow; return nil }
}

// MetricsPush says whether brokers that ask for the client's metrics get them (KIP-714). Default true, which costs next to
// nothing as long as none asks. Kafka: enable.metrics.push.
func MetricsPush(on bool) Option {
	return func(c *config) error { c.metricsPush = on; return nil }
}

// ErrAuthentication is in every error that says that client and broker do not believe each other, whatever the way:
// a wrong password or token, a certificate that one of them does not trust, a mechanism that the broker does not take.
// It is not tried again, and reaches whoever needs the broker; with SASL one of ErrSASLAuthenticationFailed,
// ErrUnsupportedSASLMechanism and ErrIllegalSASLState is found beside it. A later call tries anew, no sooner than
// ReconnectBackoff says. Kafka: AuthenticationException.
var ErrAuthentication = errcode.ErrAuthentication

// TLS makes connections with TLS: security.protocol SSL, or SASL_SSL together with SASL. The configuration is
// copied; nil stands for an empty one, with which the authorities of the operating system vouch for brokers. Unless it
// says otherwise a broker's certificate must be for the host of its address
// (ssl.endpoint.identification.algorithm=https), and the version at least TLS 1.2 (ssl.enabled.protocols).
// Default: connections are plain.
func TLS(settings *tls.Config) Option {
	return func(c *config) error {
		own := &tls.Config{MinVersion: tls.VersionTLS12}
		if settings != nil {
			own = settings.Clone()
		}
		c.TLS = &secure.Handshaker{Config: func() (*tls.Config, error) { return own, nil }}
		return nil
	}
}

// PEM names certificates and keys for TLSWith, as Kafka's ssl.truststore.* and ssl.keystore.* do with the type PEM. Java's
// own stores (JKS, PKCS12) are to be exported to PEM before.
type PEM = secure.PEM

// TLSWith is TLS with certificates and keys from files or texts in PEM. They are read at once, which is when what is
// wrong with them is told; files that have changed are read again for the next connection.
func TLSWith(p PEM) Option {
	return func(c *config) error {
		h, err := p.Handshaker()
		if err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		c.TLS = h
		return nil
	}
}

// SASL has every connection prove who the client is, for instance with sasl.ScramSHA512: security.protocol
// SASL_PLAINTEXT, or SASL_SSL together with TLS. A broker that limits how long that counts
// (connections.max.reauth.ms, or the lifetime of a token) has it repeated on the living connection in time (KIP-368). Default: none.
// Kafka: sasl.mechanism and sasl.jaas.config.
func SASL(m sasl.Mechanism) Option {
	return func(c *config) error {
		if m == nil {
			return errors.New("sasl.mechanism: the mechanism is nil")
		}
		c.Mechanism = m
		return nil
	}
}

func duration(key string, d, least time.Duration, field func(*config) *time.Duration) Option {
	return func(c *config) error {
		if d < least || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("%s: %v is not between %v and %v", key, d, least, math.MaxInt32*time.Millisecond)
		}
		*field(c) = d
		return nil
	}
}

func setBackoff(key string, b *cluster.Backoff, first, most time.Duration) error {
	if first <= 0 || most < first {
		return fmt.Errorf("%s: the first wait (%v) must be above 0 and at most the longest (%v)", key, first, most)
	}
	*b = cluster.Backoff{First: first, Most: most}
	return nil
}
