package sasl

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// Bounds of the work that a broker may ask for. Kafka itself takes from 4,096 to 16,384 iterations;
// more than the most would let whoever answers keep our processor busy.
const (
	leastIterations = 4096
	mostIterations  = 1 << 20
)

// ScramSHA256 is SCRAM-SHA-256: the password does not leave the client, and the broker proves that it knows
// its hash. Kafka: sasl.mechanism=SCRAM-SHA-256, and ScramLoginModule in sasl.jaas.config.
func ScramSHA256(user, password string) Mechanism { return ScramSHA256From(fixed(user, password)) }

// ScramSHA512 is SCRAM-SHA-512, see ScramSHA256.
func ScramSHA512(user, password string) Mechanism { return ScramSHA512From(fixed(user, password)) }

// ScramSHA256From is ScramSHA256 with a login that may change.
func ScramSHA256From(login LoginFunc) Mechanism {
	return salted{"SCRAM-SHA-256", scram.SHA256, login}
}

// ScramSHA512From is ScramSHA512 with a login that may change.
func ScramSHA512From(login LoginFunc) Mechanism {
	return salted{"SCRAM-SHA-512", scram.SHA512, login}
}

type salted struct {
	name  string
	hash  scram.HashGeneratorFcn
	login LoginFunc
}

func (s salted) Name() string { return s.name }

// Begin starts the exchange of RFC 5802. Kafka hashes passwords as they are, without the RFC's SASLprep, and so do we.
func (s salted) Begin(ctx context.Context, _ string) (Exchange, []byte, error) {
	l, err := s.login(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if l.User == "" || l.Password == "" {
		return nil, nil, fmt.Errorf("%s: user and password must not be empty: %w", s.name, ErrRefused)
	}
	client, err := s.hash.NewClientUnprepped(l.User, l.Password, "")
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", s.name, ErrRefused, err)
	}
	talk := client.WithMinIterations(leastIterations).NewConversation()
	first, err := talk.Step("")
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return &scramExchange{name: s.name, talk: talk}, []byte(first), nil
}

type scramExchange struct {
	name  string
	talk  *scram.ClientConversation
	final bool // the proof is sent, the broker's is due
}

func (e *scramExchange) Next(challenge []byte) ([]byte, bool, error) {
	if !e.final {
		if err := checkIterations(string(challenge)); err != nil {
			return nil, false, fmt.Errorf("%s: %w: %w", e.name, ErrBroker, err)
		}
	}
	response, err := e.talk.Step(string(challenge))
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("%s: %w: %w", e.name, ErrBroker, err)
	case !e.final:
		e.final = true
		return []byte(response), false, nil
	case !e.talk.Valid():
		return nil, false, fmt.Errorf("%s: %w", e.name, ErrBroker)
	}
	return nil, true, nil
}

// checkIterations refuses what would take too long, before it is begun. What cannot be read here is the
// library's to refuse.
func checkIterations(first string) error {
	for field := range strings.SplitSeq(first, ",") {
		text, ok := strings.CutPrefix(field, "i=")
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(text); err == nil && n > mostIterations {
			return fmt.Errorf("it asks for %d iterations, at most %d are done", n, mostIterations)
		}
	}
	return nil
}
