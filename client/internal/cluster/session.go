package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/client/internal/secure"
)

// session is the time for which a broker takes a connection's SASL authentication for valid (KIP-368).
// When most of it has passed the next request waits until who we are has been proved anew. Meanwhile
// nothing else may be sent, for the broker would read it as a part of the proof (trap 29); what was sent before
// is answered before, in its turn.
type session struct {
	conn  *Connection
	set   *Links
	host  string
	until atomic.Int64 // Unix ns until which some unanswered request may wait for its answer

	mu struct { // never held while asking or waiting
		sync.Mutex
		sending int       // requests that are being sent
		due     time.Time // when to begin anew; zero: never
		renewal *renewal  // under way
		renewed time.Time // end of the latest one
	}
}

// renewal is an authentication of a connection that has been authenticated before.
type renewal struct {
	quiet chan struct{} // closed once nothing is being sent any more
	done  chan struct{}
	err   error
}

// The share of a session after which it is renewed lies between these two, drawn anew each time: the
// connections that were made together do not come back together.
const (
	earliestRenewal = 0.85
	latestRenewal   = 0.95
)

// leastBetweenRenewals is how soon after one renewal a broker takes the next. A session may be as short
// as that where a token is near its end.
const leastBetweenRenewals = time.Second

// authenticate proves who we are on a connection that sends nothing else.
func (s *session) authenticate(ctx context.Context) error {
	var began time.Time // the broker counts the session from the last request on, or from later
	ask := func(ctx context.Context, req kmsg.Request, least int16) (kmsg.Response, error) {
		if version, err := s.conn.versions.choose(req, -1); err == nil && version < least {
			return nil, fmt.Errorf("%w: %s at version %d", ErrUnsupported, kmsg.NameForKey(req.Key()), least)
		}
		began = time.Now()
		call, err := s.conn.start(ctx, req, -1)
		if err != nil {
			return nil, err
		}
		return call.Wait(ctx)
	}
	lifetime, err := secure.Authenticate(ctx, s.set.c.cfg.Mechanism, s.host, ask)
	if err != nil {
		return err
	}
	share := earliestRenewal + (latestRenewal-earliestRenewal)*s.set.c.Random.Float()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.due = time.Time{}
	if lifetime > 0 {
		s.mu.due = began.Add(time.Duration(share * float64(lifetime)))
	}
	return nil
}

// enter admits a request, once a renewal that is due or under way has ended. leave is to be called
// when the request has been sent.
func (s *session) enter(ctx context.Context) error {
	for {
		s.mu.Lock()
		r := s.mu.renewal
		if r == nil && !s.mu.due.IsZero() && !time.Now().Before(s.mu.due) && s.conn.wire.Err() == nil {
			r = s.beginLocked()
		}
		if r == nil {
			s.mu.sending++
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for the authentication: %w", context.Cause(ctx))
		}
	}
}

func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.sending--; s.mu.sending == 0 && s.mu.renewal != nil {
		close(s.mu.renewal.quiet)
	}
}

// beginLocked starts a renewal.
func (s *session) beginLocked() *renewal {
	r := &renewal{quiet: make(chan struct{}), done: make(chan struct{})}
	s.mu.renewal = r
	if s.mu.sending == 0 {
		close(r.quiet)
	}
	if !s.set.goRun(func() { s.renew(r) }) {
		r.err = ErrClosed
		close(r.done)
	}
	return r
}

// renew authenticates anew. Where that fails the connection ends, and whether the credentials are
// refused is for the next one to find out: it may be that only this session could not be gone on with.
func (s *session) renew(r *renewal) {
	err := s.tryRenew(r)
	if err != nil {
		_ = s.conn.wire.Close()
		if s.set.ctx.Err() == nil {
			s.set.c.log.Warn("connection could not be authenticated anew", "broker", s.conn.name, "error", err)
		}
		r.err = fmt.Errorf("%w: authenticate anew: %s", errcode.Network, err.Error())
	}
	s.mu.Lock()
	s.mu.renewal, s.mu.renewed = nil, time.Now()
	s.mu.Unlock()
	close(r.done)
}

func (s *session) tryRenew(r *renewal) error {
	select {
	case <-r.quiet:
	case <-s.conn.wire.Broken():
		return s.conn.wire.Err()
	case <-s.set.ctx.Done():
		return context.Cause(s.set.ctx)
	}
	s.mu.Lock()
	soonest := s.mu.renewed.Add(leastBetweenRenewals)
	s.mu.Unlock()
	if err := Sleep(s.set.ctx, time.Until(soonest)); err != nil {
		return err
	}
	// The broker answers what came before first, which may wait on purpose.
	limit := time.Until(time.Unix(0, s.until.Load()))
	ctx, cancel := context.WithTimeoutCause(s.set.ctx, max(limit, 0)+s.conn.timeout, errRequestTimeout)
	defer cancel()
	return s.authenticate(ctx)
}

// waits remembers until when an answer may take.
func (s *session) waits(until time.Time) {
	ns := until.UnixNano()
	for {
		known := s.until.Load()
		if known >= ns || s.until.CompareAndSwap(known, ns) {
			return
		}
	}
}

// hostOf gives the host of HOST:PORT.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// Refused tells whether an error says that client and broker do not believe each other, which
// trying again does not mend.
func Refused(err error) bool { return errors.Is(err, errcode.ErrAuthentication) }
