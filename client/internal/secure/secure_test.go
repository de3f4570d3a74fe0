package secure

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/client/sasl"
	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

// talker says so many things before it is content.
type talker struct{ rounds int }

func (t *talker) Name() string { return "TALK" }

func (t *talker) Begin(context.Context, string) (sasl.Exchange, []byte, error) {
	return t, []byte("hello"), nil
}

func (t *talker) Next([]byte) ([]byte, bool, error) {
	t.rounds--
	return []byte("and"), t.rounds <= 0, nil
}

// broker answers the handshake with one code and each message with another.
func broker(handshake, authenticate errcode.Error, lifetimeMs int64) (ask Ask, messages *int) {
	messages = new(int)
	return func(_ context.Context, req kmsg.Request, least int16) (kmsg.Response, error) {
		switch req.(type) {
		case *kmsg.SASLHandshakeRequest:
			if least != 1 {
				return nil, errors.New("a handshake of version 0 is followed by what is no request")
			}
			resp := kmsg.NewPtrSASLHandshakeResponse()
			resp.ErrorCode, resp.SupportedMechanisms = int16(handshake), []string{"OTHER"}
			return resp, nil
		default:
			*messages++
			resp := kmsg.NewPtrSASLAuthenticateResponse()
			resp.ErrorCode, resp.SessionLifetimeMillis = int16(authenticate), lifetimeMs
			if authenticate != 0 {
				resp.ErrorMessage = kmsg.StringPtr("the broker's words")
			}
			return resp, nil
		}
	}, messages
}

func TestProof(t *testing.T) {
	const invalidRequest, timedOut errcode.Error = 42, 7
	for name, c := range map[string]struct {
		handshake, authenticate errcode.Error
		rounds                  int
		lifetimeMs              int64
		refused                 bool
		text                    string // "": it goes well
	}{
		"one message":            {rounds: 1},
		"many":                   {rounds: mostRounds, lifetimeMs: 5000},
		"endless":                {rounds: mostRounds + 1, refused: true, text: "has not come to an end"},
		"negative lifetime":      {rounds: 1, lifetimeMs: -5},
		"mechanism":              {handshake: unsupportedMechanism, refused: true, text: "OTHER"},
		"no SASL":                {handshake: illegalSASLState, refused: true, text: "security.protocol"},
		"handshake, for now":     {handshake: timedOut, text: "REQUEST_TIMED_OUT"},
		"wrong":                  {authenticate: authenticationFailed, refused: true, text: "the broker's words"},
		"wrong in other ways":    {authenticate: invalidRequest, refused: true, text: "the broker's words"},
		"wrong for now":          {authenticate: timedOut, text: "the broker's words"},
		"handshake, other codes": {handshake: invalidRequest, refused: true, text: "INVALID_REQUEST"},
	} {
		ask, messages := broker(c.handshake, c.authenticate, c.lifetimeMs)
		lifetime, err := Authenticate(t.Context(), &talker{rounds: c.rounds}, "host", ask)
		if (err == nil) != (c.text == "") || errors.Is(err, errcode.ErrAuthentication) != c.refused || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if c.refused && errcode.Retriable(err) {
			t.Errorf("%s: retriable: %v", name, err)
		}
		if *messages > mostRounds || err == nil && (*messages != c.rounds || lifetime != time.Duration(max(c.lifetimeMs, 0))*time.Millisecond) {
			t.Errorf("%s: %d messages, lifetime %v", name, *messages, lifetime)
		}
	}
}

// What whoever answers at the port begins with tells what is likely wrong.
func TestBeginnings(t *testing.T) {
	for name, c := range map[string]struct {
		begin string
		plain bool
		err   error
		want  string
	}{
		"TLS alert":       {"\x15\x03\x03\x00\x02\x02\x46", true, io.ErrUnexpectedEOF, "wants TLS at this port"},
		"TLS handshake":   {"\x16\x03\x01\x00\x02\x02\x46", true, wire.ErrMalformed, "wants TLS at this port"},
		"a web server":    {"HTTP/1.1 400 Bad Request\r\n", true, wire.ErrMalformed, "web server"},
		"something else":  {"220 mail ready", true, wire.ErrMalformed, "not Kafka's protocol"},
		"nothing":         {"", true, io.EOF, "perhaps it wants TLS"},
		"nothing, by TLS": {"", false, io.EOF, "certificate of the client"},
		"too little":      {"\x00", true, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF.Error()},
	} {
		m := netx.NewMem(1)
		l, err := m.Host("broker").Listen(t.Context(), "broker:1")
		if err != nil {
			t.Fatal(err)
		}
		there, err := m.Host("client").Dial(t.Context(), "broker:1")
		if err != nil {
			t.Fatal(err)
		}
		here, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(here, c.begin); err != nil {
			t.Fatal(err)
		}
		here.Close()
		w := Watch(there, c.plain)
		if got, err := io.ReadAll(w); string(got) != c.begin || err != nil {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		if err := w.Explain(c.err); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		there.Close()
		_ = l.Close()
	}
}

// One byte after the other is the same as all at once.
func TestBeginningsInPieces(t *testing.T) {
	w := Watch(&pieces{text: "HTTP/1.1"}, true)
	if _, err := io.ReadAll(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Explain(wire.ErrMalformed); !strings.Contains(err.Error(), "web server") {
		t.Error(err)
	}
}

type pieces struct {
	net.Conn
	text string
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	b[0], p.text = p.text[0], p.text[1:]
	return 1, nil
}
