// Package secure decides whether a connection to a broker may be trusted and proves to the broker who
// the client is: TLS from certificates in PEM, SASL's conversation inside Kafka's requests, and what a failure of either
// means. It is for package client and its connections. It refuses to know when a connection is
// made or authenticated anew, which is package cluster's to decide, and what the mechanisms say, which is client/sasl's.
package secure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/client/sasl"
)

// ErrNotOffered says that the broker does not know a request.
var ErrNotOffered = errors.New("the broker does not support this request")

// ErrNotConnected is why an attempt to connect ends that takes too long.
var ErrNotConnected = errors.New("not connected within socket.connection.setup.timeout.ms")

// Ask sends a request on the connection that is being authenticated, in a version of at least one, and gives
// the answer.
type Ask func(ctx context.Context, req kmsg.Request, least int16) (kmsg.Response, error)

// mostRounds bounds the messages of one proof. SCRAM has two, Kerberos three.
const mostRounds = 16

// The codes that authentication decides by.
const (
	unsupportedMechanism errcode.Error = 33
	illegalSASLState     errcode.Error = 34
	authenticationFailed errcode.Error = 58
)

// The versions from which SaslAuthenticate exists and says how long the session lasts (KIP-368). With a
// SaslHandshake before leastHandshake what follows would not be requests at all.
const (
	leastHandshake    = 1
	leastAuthenticate = 0
)

// Authenticate proves to the broker at host who we are. It gives the lifetime that the broker grants, 0
// where it sets no limit. An error that nothing mends wraps errcode.ErrAuthentication.
func Authenticate(ctx context.Context, m sasl.Mechanism, host string, ask Ask) (lifetime time.Duration, err error) {
	if err := shakeHands(ctx, m.Name(), ask); err != nil {
		return 0, err
	}
	talk, message, err := m.Begin(ctx, host)
	if err != nil {
		return 0, judge(err)
	}
	for range mostRounds {
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.SASLAuthBytes = message
		resp, err := ask(ctx, req, leastAuthenticate)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", m.Name(), err)
		}
		answer := resp.(*kmsg.SASLAuthenticateResponse)
		if err := errcode.Of(answer.ErrorCode, answer.ErrorMessage); err != nil {
			return 0, fmt.Errorf("%s: %w", m.Name(), refused(err))
		}
		var done bool
		if message, done, err = talk.Next(answer.SASLAuthBytes); err != nil {
			return 0, fmt.Errorf("%w: %w: %w", errcode.ErrAuthentication, authenticationFailed, err)
		}
		if done {
			return time.Duration(max(answer.SessionLifetimeMillis, 0)) * time.Millisecond, nil
		}
	}
	return 0, fmt.Errorf("%w: %w: %s has not come to an end after %d messages", errcode.ErrAuthentication, authenticationFailed, m.Name(), mostRounds)
}

func shakeHands(ctx context.Context, mechanism string, ask Ask) error {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = mechanism
	resp, err := ask(ctx, req, leastHandshake)
	switch {
	case errors.Is(err, ErrNotOffered):
		return fmt.Errorf("%w: %w: the broker wants no SASL at this port (security.protocol): %w", errcode.ErrAuthentication, illegalSASLState, err)
	case err != nil:
		return fmt.Errorf("SaslHandshake: %w", err)
	}
	answer := resp.(*kmsg.SASLHandshakeResponse)
	err = errcode.Of(answer.ErrorCode, nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unsupportedMechanism):
		return fmt.Errorf("%w: %w: the broker takes %q, not %s (sasl.mechanism)", errcode.ErrAuthentication, err, answer.SupportedMechanisms, mechanism)
	case errors.Is(err, illegalSASLState):
		return fmt.Errorf("%w: %w: the broker wants no SASL at this port, or not now (security.protocol)", errcode.ErrAuthentication, err)
	default:
		return fmt.Errorf("SaslHandshake: %w", refused(err))
	}
}

// refused marks what a broker answered, unless it may pass by itself.
func refused(err error) error {
	if errcode.Retriable(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errcode.ErrAuthentication, err)
}

// judge tells credentials that are refused from those that cannot be had now.
func judge(err error) error {
	if errors.Is(err, sasl.ErrRefused) || errors.Is(err, sasl.ErrBroker) {
		return fmt.Errorf("%w: %w: %w", errcode.ErrAuthentication, authenticationFailed, err)
	}
	return err
}
