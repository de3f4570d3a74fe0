package sasl

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Login is a name and a password.
type Login struct {
	User     string
	Password string
}

// LoginFunc gives the login to use now: for passwords that are changed while the program runs, as
// read from a file. An error is tried again unless it wraps ErrRefused.
type LoginFunc func(ctx context.Context) (Login, error)

func fixed(user, password string) LoginFunc {
	return func(context.Context) (Login, error) { return Login{user, password}, nil }
}

// Plain is PLAIN: the password itself goes to the broker, so it is for connections with TLS.
// Kafka: sasl.mechanism=PLAIN, and PlainLoginModule in sasl.jaas.config.
func Plain(user, password string) Mechanism { return PlainFrom(fixed(user, password)) }

// PlainFrom is Plain with a login that may change.
func PlainFrom(login LoginFunc) Mechanism { return plain{login} }

type plain struct{ login LoginFunc }

func (plain) Name() string { return "PLAIN" }

// Begin says all that there is to say (RFC 4616). The name to act for is left out: brokers take the user's.
func (p plain) Begin(ctx context.Context, _ string) (Exchange, []byte, error) {
	l, err := p.login(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("PLAIN: %w", err)
	}
	if l.User == "" || l.Password == "" {
		return nil, nil, fmt.Errorf("PLAIN: user and password must not be empty: %w", ErrRefused)
	}
	if strings.ContainsRune(l.User+l.Password, 0) {
		return nil, nil, fmt.Errorf("PLAIN: user and password must not contain a zero byte: %w", ErrRefused)
	}
	return said{}, []byte("\x00" + l.User + "\x00" + l.Password), nil
}

// said is the exchange of who has said everything at once.
type said struct{}

func (said) Next(challenge []byte) ([]byte, bool, error) {
	if len(challenge) > 0 {
		return nil, false, fmt.Errorf("%w: %w", errTalkative, ErrBroker)
	}
	return nil, true, nil
}

var errTalkative = errors.New("the broker goes on talking although everything is said")
