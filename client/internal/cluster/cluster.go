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
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What this package refuses or cannot do; package client gives them to users under these names.
var (
	ErrClosed        = errors.New("closed")
	ErrNoBrokers     = errors.New("no broker could be reached")
	ErrUnknownBroker = errors.New("no such broker in the cluster's metadata")
	ErrUnsupported   = errors.New("the broker does not support this request")
)

// Config says how brokers are reached. All fields are required.
type Config struct {
	Seeds            []string // HOST:PORT of the brokers to ask first: bootstrap.servers
	ClientID         string
	Dial             func(ctx context.Context, address string) (net.Conn, error)
	Logger           *slog.Logger
	MetadataMaxAge   time.Duration
	RequestTimeout   time.Duration
	SetupTimeout     time.Duration // of connecting and negotiating versions
	MaxIdle          time.Duration // after which an unused connection is closed
	RetryBackoff     Backoff
	ReconnectBackoff Backoff
	MaxResponseBytes int // a larger one closes the connection
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
}

// New starts a goroutine that keeps the metadata up to date once somebody has asked for some.
func New(cfg Config) *Cluster {
	c := &Cluster{cfg: cfg, log: cfg.Logger, Random: NewRandom()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.Metadata = newMetadata(c)
	c.links = NewLinks(c)
	c.wg.Go(func() { c.Metadata.run(c.ctx) })
	return c
}

// Context ends when the cluster is closed, with ErrClosed as its cause.
func (c *Cluster) Context() context.Context { return c.ctx }

// Close ends every connection, those of all Links included.
func (c *Cluster) Close() {
	c.cancel(ErrClosed)
	c.links.Close()
	c.wg.Wait()
}

// RequestAny tries the known brokers in random order, then the seeds, until one has been reached.
// Errors: ErrNoBrokers, ErrUnsupported, ErrClosed, ctx's.
func (c *Cluster) RequestAny(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	var failures []error
	for _, l := range c.links.Candidates() {
		resp, err := l.Request(ctx, req)
		if err == nil || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrClosed) {
			return resp, err
		}
		if ctx.Err() != nil {
			return nil, errors.Join(append(failures, context.Cause(ctx))...)
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoBrokers, errors.Join(failures...))
}

// Link gives the shared link to a broker of the current metadata.
func (c *Cluster) Link(node int32) (*Link, error) { return c.links.Node(node) }
