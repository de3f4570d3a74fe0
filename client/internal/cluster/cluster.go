// Package cluster knows a Kafka cluster and reaches its brokers: a connection to each that stays
// and whose versions are negotiated, requests that are matched to their answers, and metadata that
// is refreshed by age and whenever it proves stale. It is for package client and those inside it.
// It decides when a broker may be tried again; what a request means, and whether it may be sent
// twice, is its callers' business. It knows nothing of records, producers or groups.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
	"barnabas/client/internal/secure"
	"barnabas/client/sasl"
)

// What this package refuses or cannot do; package client gives them to users under these names.
var (
	ErrClosed        = errors.New("closed")
	ErrNoBrokers     = errors.New("no broker could be reached")
	ErrUnknownBroker = errors.New("no such broker in the cluster's metadata")
	ErrUnsupported   = secure.ErrNotOffered
)

// Config says how brokers are reached. All fields but TLS, Mechanism and the last two are required.
type Config struct {
	Seeds            []string // HOST:PORT of the brokers to ask first: bootstrap.servers
	ClientID         string
	Dial             func(ctx context.Context, address string) (net.Conn, error)
	TLS              *secure.Handshaker // nil: connections are plain
	Mechanism        sasl.Mechanism     // nil: without SASL
	Logger           *slog.Logger
	Hooks            *hooks.Hooks
	MetadataMaxAge   time.Duration
	RequestTimeout   time.Duration
	SetupTimeout     time.Duration // of connecting and negotiating versions
	MaxIdle          time.Duration // after which an unused connection is closed
	RetryBackoff     Backoff
	ReconnectBackoff Backoff
	MaxResponseBytes int    // a larger one closes the connection
	Meter            Meter  // of what all share; nil: nobody counts
	TakesTelemetry   func() // told whenever a broker was connected to that asks for telemetry; may be nil
}

// CheckAddress tells what is wrong with an address that a user gave as HOST:PORT.
func CheckAddress(address string) error {
	if strings.Contains(address, ",") {
		return fmt.Errorf("%q is several: each is an argument of its own", address)
	}
	if scheme, rest, found := strings.Cut(address, "://"); found {
		return fmt.Errorf("%q is not HOST:PORT: leave %s:// away from %s; what is spoken there other options say", address, scheme, rest)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT: %w", address, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is not HOST:PORT: a port is a number from 1 to 65535", address)
	}
	return nil
}

// Cluster is a cluster as one client sees it. It is safe for concurrent use. Close it.
type Cluster struct {
	Metadata *Metadata
	Random   *Random
	links    *Links // for metadata and whatever has no links of its own

	features features

	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	open struct { // Links that are not closed
		sync.Mutex
		all map[*Links]struct{}
	}
}

// New starts a goroutine that keeps the metadata up to date once somebody has asked for some.
func New(cfg Config) *Cluster {
	c := &Cluster{cfg: cfg, log: cfg.Logger, Random: NewRandom()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.open.all = map[*Links]struct{}{}
	c.Metadata = newMetadata(c)
	c.links = NewLinks(c, cfg.Meter)
	c.wg.Go(func() { c.Metadata.run(c.ctx) })
	return c
}

// Settings are those that the cluster was made with.
func (c *Cluster) Settings() Config { return c.cfg }

// Context ends when the cluster is closed, with ErrClosed as its cause.
func (c *Cluster) Context() context.Context { return c.ctx }

// Close ends every connection, those of all Links included.
func (c *Cluster) Close() {
	c.cancel(ErrClosed)
	c.open.Lock()
	all := slices.Collect(maps.Keys(c.open.all))
	c.open.Unlock()
	for _, links := range all {
		links.Close()
	}
	c.wg.Wait()
}

// RequestAny tries the known brokers in random order, then the seeds, until one has been reached.
// Errors: ErrNoBrokers, ErrUnsupported, ErrClosed, those of Refused, ctx's.
func (c *Cluster) RequestAny(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	var failures []error
	for _, l := range c.links.Candidates() {
		resp, err := l.Request(ctx, req)
		// Who is refused by one broker is refused by all of them, and each attempt counts.
		if err == nil || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrClosed) || Refused(err) {
			return resp, err
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			return nil, errors.Join(failures...) // the last one tells of ctx, and what it was waited for
		}
	}
	if len(failures) == 0 {
		return nil, ErrClosed
	}
	return nil, fmt.Errorf("%w: %w", ErrNoBrokers, errors.Join(failures...))
}

// Link gives the shared link to a broker of the current metadata.
func (c *Cluster) Link(node int32) (*Link, error) { return c.links.Node(node) }
