// Package admin asks and changes what a cluster has: topics, offsets, configurations, brokers. It
// is the typed form of Kafka's Admin API over the connections of a client.Client.
//
//	a := admin.New(c)
//	created, err := a.CreateTopics(ctx, []admin.NewTopic{{Name: "orders", Partitions: 12}})
//
// Calls that take several items answer for each: an item's Err is what became of it alone, and the
// error beside the items says that the call as a whole got no answer. It decides which broker a
// request goes to and what is tried again; the rest is the broker's word, unchanged. It refuses to
// know records (package client) and to keep anything between calls.
package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// Admin makes admin calls. It is safe for concurrent use, holds nothing that needs closing, and
// lives as long as its Client.
type Admin struct {
	c          *client.Client
	timeout    time.Duration
	authorized bool // descriptions are to tell what the caller may do
}

// Option sets something of an Admin.
type Option func(*Admin)

// Timeout bounds a call, its retries included, where the context given to it does not end sooner.
// Default 1 minute. Kafka: default.api.timeout.ms.
func Timeout(d time.Duration) Option { return func(a *Admin) { a.timeout = d } }

// AuthorizedOperations lets DescribeCluster, DescribeTopics and the descriptions of groups tell what
// the caller may do with what they describe (KIP-430). Default: they do not.
func AuthorizedOperations() Option { return func(a *Admin) { a.authorized = true } }

// New makes an Admin over a client.
func New(c *client.Client, options ...Option) *Admin {
	a := &Admin{c: c, timeout: time.Minute}
	for _, o := range options {
		o(a)
	}
	return a
}

// The waits before a request is tried again (retry.backoff.ms, retry.backoff.max.ms).
const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = time.Second
)

// errTimeout is why a call ended that ran out of its own time.
var errTimeout = errors.New("no success within default.api.timeout.ms")

// try calls f until it succeeds or fails with something that trying again does not mend. Before an
// attempt that may have to go to another broker the metadata is asked for anew.
func (a *Admin) try(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, errTimeout)
	defer cancel()
	for wait := firstBackoff; ; wait = min(2*wait, mostBackoff) {
		err := f(ctx)
		if err == nil || !again(err) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if errors.Is(err, client.ErrNotController) || errors.Is(err, client.ErrNetwork) {
			_ = a.c.RefreshMetadata(ctx) // where it cannot be had, the attempt that follows tells why
		}
	}
}

// again tells whether a failed call may be made again: Kafka's retriable codes, which a broken
// connection is one of. A cluster of which no address answers is not tried for a minute: whoever
// calls is told at once.
func again(err error) bool {
	var code client.Error
	return errors.As(err, &code) && code.Retriable() && !errors.Is(err, client.ErrNoBrokers)
}

// ask sends a request to a broker and gives the answer as what it is.
func ask[Response kmsg.Response](ctx context.Context, a *Admin, to client.Target, req kmsg.Request) (Response, error) {
	var answer Response
	resp, err := a.c.Request(ctx, to, req)
	if err != nil {
		return answer, err
	}
	answer, ok := resp.(Response)
	if !ok {
		return answer, fmt.Errorf("%s: a %T came as the answer", kmsg.NameForKey(req.Key()), resp)
	}
	return answer, nil
}

// askController sends a request to the broker that the metadata names as the controller. With KRaft
// every broker passes on what is the controller's business, so any other is asked where that one is
// not reached; without KRaft it answers NOT_CONTROLLER, and try finds the new one.
func askController[Response kmsg.Response](ctx context.Context, a *Admin, req kmsg.Request) (Response, error) {
	answer, err := ask[Response](ctx, a, client.Controller, req)
	if ctx.Err() == nil && (errors.Is(err, client.ErrNetwork) || errors.Is(err, client.ErrBrokerNotAvailable) || errors.Is(err, client.ErrUnknownBroker)) {
		return ask[Response](ctx, a, client.AnyBroker, req)
	}
	return answer, err
}

// tooOld says that a broker took a request without a part of it that its version has no place for.
func tooOld(resp kmsg.Response, least int16, part string) error {
	return fmt.Errorf("%s version %d has no %s, which version %d brought: %w",
		kmsg.NameForKey(resp.Key()), resp.GetVersion(), part, least, client.ErrUnsupported)
}

// millis is the time that a broker may take, from what is left of ctx.
func millis(ctx context.Context) int32 {
	left := 30 * time.Second // request.timeout.ms
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	return int32(max(left.Milliseconds(), 1))
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
