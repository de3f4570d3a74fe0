package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/controller"
	"barnabas/internal/coordinator"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// Controller is what api asks of the cluster's controller. Every call is answered once its records
// are committed and part of the local image. An error means that there was no answer (no leader,
// shutting down); refusals come as codes inside the responses.
type Controller interface {
	CreateTopics(context.Context, *kmsg.CreateTopicsRequest) (*kmsg.CreateTopicsResponse, error)
	DeleteTopics(context.Context, *kmsg.DeleteTopicsRequest) (*kmsg.DeleteTopicsResponse, error)
	CreatePartitions(context.Context, *kmsg.CreatePartitionsRequest) (*kmsg.CreatePartitionsResponse, error)
	AlterConfigs(context.Context, *kmsg.AlterConfigsRequest) (*kmsg.AlterConfigsResponse, error)
	IncrementalAlterConfigs(context.Context, *kmsg.IncrementalAlterConfigsRequest) (*kmsg.IncrementalAlterConfigsResponse, error)
	UpdateFeatures(context.Context, *kmsg.UpdateFeaturesRequest) (*kmsg.UpdateFeaturesResponse, error)
	ElectLeaders(context.Context, *kmsg.ElectLeadersRequest) (*kmsg.ElectLeadersResponse, error)
	AlterPartitionReassignments(context.Context, *kmsg.AlterPartitionAssignmentsRequest) (*kmsg.AlterPartitionAssignmentsResponse, error)
	ListPartitionReassignments(context.Context, *kmsg.ListPartitionReassignmentsRequest) (*kmsg.ListPartitionReassignmentsResponse, error)
	UnregisterBroker(context.Context, *kmsg.UnregisterBrokerRequest) (*kmsg.UnregisterBrokerResponse, error)
	// Sync returns when the images here, and the replicas by them, are as new as the call.
	Sync(ctx context.Context) error
	// AutoCreateTopics makes topics with their defaults because somebody uses them.
	AutoCreateTopics(ctx context.Context, names []string) (*kmsg.CreateTopicsResponse, error)
	// AllocateProducerIDs hands a broker, registered in epoch, a block of producer ids that nobody has.
	AllocateProducerIDs(ctx context.Context, broker int32, epoch int64) (controller.ProducerIDs, error)
}

// Quorum is what api asks of the metadata quorum.
type Quorum interface {
	// LeaderStatus is the leader's view, or this node's own, without a leader, where none answers in time.
	LeaderStatus(ctx context.Context) quorum.Status
	// ChangeVoters returns once the change is committed.
	ChangeVoters(ctx context.Context, c quorum.VoterChange) error
}

// Images gives the newest committed metadata.
type Images interface{ Image() *metadata.Image }

// Options is what a Handler is made of. All fields are required unless they say otherwise.
type Options struct {
	NodeID      int32
	Images      Images
	Replicas    *replica.Manager
	Controller  Controller
	Quorum      Quorum
	Coordinator *coordinator.Coordinator
	Config      func() *config.Set // the broker's values as they are now, dynamic ones included
	Logger      *slog.Logger
	Now         func() time.Time
	Rand        *rand.Rand // draws fetch session ids; used under a lock
	// FetchSessionBytes bounds what all fetch sessions hold together; 0, the default, is LeastFetchSessionBytes.
	FetchSessionBytes int64
}

// Handler answers requests. Its methods are safe for concurrent use.
type Handler struct {
	o             Options
	log           *slog.Logger
	sessions      *sessions
	confirmations confirmations
	ids           *controller.ProducerIDAllocator
	// served is what ApiVersions lists.
	served []kmsg.ApiVersionsResponseApiKey
}

// New returns a Handler.
func New(o Options) *Handler {
	h := &Handler{
		o: o, log: o.Logger, served: servedKeys(),
		sessions: newSessions(o.Config().Int("max.incremental.fetch.session.cache.slots"), max(o.FetchSessionBytes, LeastFetchSessionBytes), o.Rand),
	}
	h.ids = controller.NewProducerIDAllocator(h.allocateProducerIDs)
	return h
}

// call is one request under way.
type call struct {
	h    *Handler
	peer *wire.Peer
	req  *wire.Request
	now  time.Time
}

func (c *call) nowMs() int64 { return c.now.UnixMilli() }

// errUnsupportedVersion closes the connection, as Kafka does: a response at a version that the
// client does not speak could not be read by it. ApiVersions alone answers (versions.go).
var errUnsupportedVersion = errors.New("unsupported api key or version")

// Handle runs phase one of a request in the connection's reader: what must happen in the order of
// the requests. ready says that the reply will not wait. A nil Reply means that nothing is sent
// (acks=0). An error closes the connection. req.Body is only used until Handle returns.
func (h *Handler) Handle(ctx context.Context, peer *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
	r := routeOf(req.Key)
	c := &call{h: h, peer: peer, req: req, now: h.o.Now()}
	if r == nil || req.Version < max(r.min, r.servedMin) || req.Version > r.max {
		if req.Key == kmsg.ApiVersions.Int16() {
			return c.apiVersionsUnsupported()
		}
		return nil, false, fmt.Errorf("api key %d version %d: %w", req.Key, req.Version, errUnsupportedVersion)
	}
	return r.handle(ctx, c)
}

// Disconnected is told when a connection has ended. Its fetch sessions outlive it (KIP-227), as long as nobody else wants
// their room.
func (h *Handler) Disconnected(peer *wire.Peer) { h.sessions.abandon(peer.ID) }

// route is one row of the table of versions.
type route struct {
	key      kmsg.Key
	min, max int16 // as ApiVersions lists them
	// servedMin is the lowest version that is answered, where ApiVersions has to name a lower one.
	servedMin int16
	handle    func(ctx context.Context, c *call) (wire.Reply, bool, error)
}

// decoded reads the request's body into q, which copies the strings that it keeps: bodies go back to
// their pool when phase one ends. Fields of bytes are views on the body; see owned.
func decoded[Q kmsg.Request](c *call, q Q) (Q, error) {
	if err := checkShape(c.req.Key, c.req.Version, c.req.Body); err != nil {
		return q, err
	}
	q.SetVersion(c.req.Version)
	if err := withoutPanic(func() error { return q.ReadFrom(c.req.Body) }); err != nil {
		return q, fmt.Errorf("decode %s version %d: %w", kmsg.NameForKey(c.req.Key), c.req.Version, err)
	}
	return q, nil
}

// errDecoderPanic closes the connection of a request that kmsg's decoder failed over.
var errDecoderPanic = errors.New("the decoder panicked")

// withoutPanic runs a decoder that is not ours and turns its panic into an error. None is known, but
// one would let a stranger's bytes end the process. It is for decoding alone, which changes nothing
// but the request: after a panic in an append nobody could say what state the log is in.
func withoutPanic(decode func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDecoderPanic, r)
		}
	}()
	return decode()
}

// message is a kmsg struct that is also T's pointer.
type message[T any] interface {
	*T
	kmsg.Request
}

// answered makes a route's handler of a function that answers from memory: the answer is worked
// out when it is its turn to be sent, so that it sees the effects of the requests before it.
func answered[T any, Q message[T]](f func(c *call, q Q) kmsg.Response) func(context.Context, *call) (wire.Reply, bool, error) {
	return handled(true, func(_ context.Context, c *call, q Q) (kmsg.Response, error) { return f(c, q), nil })
}

// waiting makes a route's handler of a function that may wait, for the controller or the disk.
func waiting[T any, Q message[T]](f func(ctx context.Context, c *call, q Q) (kmsg.Response, error)) func(context.Context, *call) (wire.Reply, bool, error) {
	return handled(false, f)
}

func handled[T any, Q message[T]](ready bool, f func(ctx context.Context, c *call, q Q) (kmsg.Response, error)) func(context.Context, *call) (wire.Reply, bool, error) {
	return func(_ context.Context, c *call) (wire.Reply, bool, error) {
		q, err := decoded(c, Q(new(T)))
		if err != nil {
			return nil, false, err
		}
		version := c.req.Version
		c.req = nil // its memory is not ours any more once phase one has ended
		return func(ctx context.Context, out *wire.Out) error {
			res, err := f(ctx, c, q)
			if err != nil {
				return err
			}
			res.SetVersion(version)
			out.Append(res.AppendTo)
			return nil
		}, ready, nil
	}
}
