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
	c       *client.Client
	timeout time.Duration
}

// Option sets something of an Admin.
type Option func(*Admin)

// Timeout bounds a call, its retries included, where the context given to it does not end sooner.
// Default 1 minute. Kafka: default.api.timeout.ms.
func Timeout(d time.Duration) Option { return func(a *Admin) { a.timeout = d } }

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

// try calls f until it succeeds or fails with something that trying again does not mend.
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
