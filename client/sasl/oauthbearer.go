package sasl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Token is what OAUTHBEARER shows the broker.
type Token struct {
	// Value is the token as it goes over the wire, for instance a JWT in its compact form.
	Value string
	// Extensions are further pairs for the broker, which has to know them: names are letters, values
	// printable (RFC 7628). Kafka: extension_* in sasl.jaas.config.
	Extensions map[string]string
}

// TokenFunc gives the token to show now. It is asked for every connection, and again when the session
// that the broker granted for a token nears its end: then it should give one that lasts longer. An
// error is tried again unless it wraps ErrRefused.
type TokenFunc func(ctx context.Context) (Token, error)

// OAuthBearer is OAUTHBEARER (RFC 7628). Package sasl/oidc has a TokenFunc for OIDC client credentials.
// Kafka: sasl.mechanism=OAUTHBEARER, and what sasl.login.callback.handler.class does.
func OAuthBearer(token TokenFunc) Mechanism { return bearer{token} }

type bearer struct{ token TokenFunc }

func (bearer) Name() string { return "OAUTHBEARER" }

func (b bearer) Begin(ctx context.Context, _ string) (Exchange, []byte, error) {
	t, err := b.token(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("OAUTHBEARER: get a token: %w", err)
	}
	first, err := t.message()
	if err != nil {
		return nil, nil, fmt.Errorf("OAUTHBEARER: %w: %w", ErrRefused, err)
	}
	return &bearerExchange{}, first, nil
}

// separator stands between the fields of a message.
const separator = "\x01"

// message is the client's first and only message that says anything.
func (t Token) message() ([]byte, error) {
	if t.Value == "" || strings.ContainsFunc(t.Value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the token is empty, or has characters that no token has")
	}
	var b strings.Builder
	b.WriteString("n,," + separator + "auth=Bearer " + t.Value + separator)
	for _, name := range slices.Sorted(maps.Keys(t.Extensions)) {
		value := t.Extensions[name]
		if name == "auth" || name == "" || strings.ContainsFunc(name, notLetter) {
			return nil, fmt.Errorf("the extension %q is not of letters, or is not free", name)
		}
		if value == "" || strings.ContainsFunc(value, notText) {
			return nil, fmt.Errorf("the value of the extension %q has characters that it may not have", name)
		}
		b.WriteString(name + "=" + value + separator)
	}
	b.WriteString(separator)
	return []byte(b.String()), nil
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }

func notText(r rune) bool {
	return (r < ' ' || r > '~') && r != '\t' && r != '\r' && r != '\n'
}

// bearerExchange waits for the verdict.
type bearerExchange struct {
	refusal string // what the broker said against the token
}

// mostRefusal bounds what is kept of a refusal.
const mostRefusal = 1 << 10

// Next: nothing to say means that the token is taken. Otherwise the broker says why it is not, and wants to be
// answered before it ends the exchange with its error code.
func (e *bearerExchange) Next(challenge []byte) ([]byte, bool, error) {
	switch {
	case e.refusal != "":
		return nil, false, fmt.Errorf("OAUTHBEARER: %w: %s", ErrRefused, e.refusal)
	case len(challenge) == 0:
		return nil, true, nil
	}
	e.refusal = strings.ToValidUTF8(string(challenge[:min(len(challenge), mostRefusal)]), "?")
	return []byte(separator), false, nil
}
