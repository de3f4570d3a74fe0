package client

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/inside"
	"barnabas/client/internal/membership"
	"barnabas/client/internal/telemetry/push"
)

// Client is what producers, consumers and admin clients of one cluster share: what is known of the
// cluster, how to reach it, and one connection to each broker for everything that is not records.
// It is safe for concurrent use. Close it last.
type Client struct {
	cfg     config
	log     *slog.Logger
	cluster *cluster.Cluster
	meta    *cluster.Metadata
	random  *cluster.Random
	ctx     context.Context // ends with Close
	pusher  *push.Pusher    // nil without enable.metrics.push
}

// New makes a client. It does not wait for a broker, and fails only on a wrong option; a cluster
// that cannot be reached shows in the first call that needs it. Ping asks at once.
func New(options ...Option) (*Client, error) {
	cfg := defaultConfig()
	for _, o := range options {
		if err := o(&cfg); err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
	}
	shared, pusher := push.NewCluster(cfg.Config, cfg.metricsPush)
	return &Client{
		cfg: cfg, log: cfg.Logger, cluster: shared, meta: shared.Metadata, random: shared.Random, ctx: shared.Context(), pusher: pusher,
	}, nil
}

// Close ends every connection of the client. Producers and consumers are to be closed before: what
// they still try fails with ErrClosed. Where brokers want metrics (see MetricsPush) they get the last ones first, for
// which Close waits 2 seconds at most.
func (c *Client) Close() error {
	c.pusher.Close()
	c.cluster.Close()
	return nil
}

// Ping returns nil as soon as some broker has answered, which proves address and protocol.
func (c *Client) Ping(ctx context.Context) error {
	if _, err := c.meta.Ask(ctx, nil, false); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// ClientInstanceID gives the id that a broker made for this client, under which its metrics are pushed (KIP-714). It waits
// for one, connecting where nothing else has yet. Kafka: clientInstanceId.
//
// Errors: ErrMetricsPushOff, ErrUnsupported where the brokers take no metrics, ErrNoBrokers, ErrClosed, ctx's.
func (c *Client) ClientInstanceID(ctx context.Context) (UUID, error) {
	id, err := c.pusher.InstanceID(ctx)
	if err != nil {
		return UUID{}, fmt.Errorf("client instance id: %w", err)
	}
	return id, nil
}

// Target is the broker that a Request is for.
type Target struct {
	kind targetKind
	node int32
}

type targetKind int8

const (
	anyBroker targetKind = iota
	oneBroker
	controllerBroker
)

// AnyBroker is whichever broker can be reached.
var AnyBroker = Target{kind: anyBroker}

// Controller is the broker that the metadata names as the controller. With KRaft every broker
// passes on what is the controller's business.
var Controller = Target{kind: controllerBroker}

// ToBroker is the broker with that node id.
func ToBroker(node int32) Target { return Target{kind: oneBroker, node: node} }

// Request sends one request of Kafka's protocol and returns the answer, for what this package and
// client/admin have no call of their own. The version is the newest that the broker, kmsg and this
// client know. Error codes inside the answer are the caller's to look at. Nothing is tried again,
// except that AnyBroker goes on to the next broker while none has answered: one that did not may have done what it was
// asked to all the same.
//
// Errors: ErrNoBrokers, ErrUnknownBroker, ErrUnsupported, ErrNetwork, ErrClosed, ctx's.
func (c *Client) Request(ctx context.Context, to Target, req kmsg.Request) (kmsg.Response, error) {
	name := kmsg.NameForKey(req.Key())
	if to.kind == anyBroker {
		resp, err := c.cluster.RequestAny(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("%s to any broker: %w", name, err)
		}
		return resp, nil
	}
	l, err := c.target(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	resp, err := l.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return resp, nil
}

// target gives the link to one broker, asking for metadata where it is not known.
func (c *Client) target(ctx context.Context, to Target) (*cluster.Link, error) {
	known := func(s *cluster.Snapshot) (int32, bool) {
		node := to.node
		if to.kind == controllerBroker {
			node = s.Controller
		}
		_, ok := s.Brokers[node]
		return node, ok
	}
	node, ok := known(c.meta.Snapshot())
	if !ok {
		s, err := c.meta.Renew(ctx)
		if err != nil {
			return nil, fmt.Errorf("find the broker: %w", err)
		}
		node, ok = known(s)
	}
	switch {
	case ok:
		return c.cluster.Link(node)
	case to.kind == controllerBroker:
		return nil, fmt.Errorf("no broker is the controller: %w", ErrBrokerNotAvailable)
	default:
		return nil, fmt.Errorf("broker %d: %w", node, ErrUnknownBroker)
	}
}

// tellRead tells the hooks what was fetched of a partition.
func (k *Consumer) tellRead(a *fetched, records int) {
	told := k.c.cfg.Hooks.Read
	if told == nil && k.meter == nil {
		return
	}
	k.mu.Lock()
	bytes, lag, wanted := k.mu.ahead.Brought(a)
	k.mu.Unlock()
	if !wanted {
		return
	}
	k.meter.Read(records, bytes, lag)
	if told != nil {
		told(hooks.Read{Partition: hooks.Partition{Topic: a.Topic, Number: a.Partition}, Records: records, Bytes: bytes, Lag: lag})
	}
}

// tellRebalanced tells the hooks what a rebalance has done.
func (g *GroupConsumer) tellRebalanced(call membership.Call, began time.Time) {
	over := call.Kind == membership.Assigned || g.cfg.protocol == ConsumerProtocol
	g.k.meter.Rebalanced(began, time.Now(), over)
	told := g.c.cfg.Hooks.Rebalanced
	if told == nil {
		return
	}
	r := hooks.Rebalanced{Group: g.group, What: hooks.Change(call.Kind.String()), Took: time.Since(began)}
	for _, tp := range call.Partitions {
		r.Partitions = append(r.Partitions, hooks.Partition{Topic: tp.Topic, Number: tp.Partition})
	}
	told(r)
}

// tellCommitted tells the hooks of an attempt to commit.
func (g *GroupConsumer) tellCommitted(partitions int, began time.Time, err error) {
	g.k.meter.Committed(time.Since(began))
	if told := g.c.cfg.Hooks.Committed; told != nil {
		told(hooks.Committed{Group: g.group, Partitions: partitions, Took: time.Since(began), Err: err})
	}
}

// Inside is for the packages of this module below client, which make their requests themselves: nobody else can have a Pass.
func (c *Client) Inside(inside.Pass) *cluster.Cluster { return c.cluster }

// RefreshMetadata asks for the cluster's metadata now, for whoever has found it stale otherwise
// than through this package.
func (c *Client) RefreshMetadata(ctx context.Context) error {
	if _, err := c.meta.Renew(ctx); err != nil {
		return fmt.Errorf("refresh metadata: %w", err)
	}
	return nil
}
