// Package sasl holds the ways in which a client proves to a broker who it is: Kafka's
// security.protocol SASL_PLAINTEXT and SASL_SSL. One of them is given to client.SASL:
//
//	c, err := client.New(client.Brokers("broker:9093"), client.TLS(nil), client.SASL(sasl.ScramSHA512("alice", password)))
//
// PLAIN and SCRAM take a name and a password, OAUTHBEARER a function that gives tokens; package
// sasl/oidc has one that asks an identity provider. GSSAPI (Kerberos) is in a module of its own, sasl/gssapi.
// A Mechanism of the user's own is one that implements two methods.
//
// It decides what is said to prove an identity, and whether the broker has proved its own where the
// mechanism asks for that. It refuses to know connections, Kafka's requests and when the proof is due: package
// client carries the messages, and repeats the proof before the broker's session ends (KIP-368).
package sasl

import (
	"context"
	"errors"
)

// Mechanism is a way to prove who the client is. Begin is called for each connection and whenever
// one has to be authenticated anew, by several goroutines at once.
type Mechanism interface {
	// Name is what brokers call it: sasl.mechanism.
	Name() string
	// Begin starts the proof to a broker of that host name, and gives what is said first.
	Begin(ctx context.Context, host string) (Exchange, []byte, error)
}

// Exchange is a proof under way.
type Exchange interface {
	// Next takes in what the broker said last, and gives what is said to that. done says that the
	// broker has nothing more to say and has proved what it had to; response is not sent then.
	Next(challenge []byte) (response []byte, done bool, err error)
}

var (
	// ErrRefused marks an error that trying again does not mend: a token function wraps it where an
	// identity provider has refused the client. Whatever else Begin returns is tried again, as a
	// broker that cannot be reached is.
	ErrRefused = errors.New("the credentials are refused")

	// ErrBroker says that the broker did not prove that it knows the password, or says what the mechanism has no
	// meaning for. It may be someone else who answers there.
	ErrBroker = errors.New("the broker has not proved itself")
)
