package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/xdg-go/scram"

	"barnabas/internal/wire"
)

// guard stands before a fake cluster and lets in who proves who they are, as a broker does. Its ports
// are n1:9093 and so on, where its dial leads whoever wants n1:9092.
type guard struct {
	f   *fakeCluster
	tls *tls.Config // nil: plain

	mu struct {
		sync.Mutex
		mechanism string // "": no SASL
		users     map[string]string
		token     string
		lifetime  time.Duration
		refuse    int // renewals to refuse
		attempts  int
		renewals  int
		conns     map[net.Conn]bool
		wrong     []string // what no client may do
	}
}

func newGuard(f *fakeCluster, mechanism string, tlsConfig *tls.Config) *guard {
	g := &guard{f: f, tls: tlsConfig}
	g.mu.mechanism, g.mu.users, g.mu.conns = mechanism, map[string]string{"alice": "secret"}, map[net.Conn]bool{}
	f.mu.Lock()
	f.mu.maxVersion[17], f.mu.maxVersion[36] = 1, 2
	nodes := f.mu.nodes
	f.mu.Unlock()
	for _, n := range nodes {
		l, err := f.net.Host(fmt.Sprintf("n%d", n)).Listen(f.ctx, fmt.Sprintf("n%d:9093", n))
		if err != nil {
			f.t.Fatal(err)
		}
		context.AfterFunc(f.ctx, func() { _ = l.Close() })
		f.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				f.wg.Go(func() { g.serve(n, c) })
			}
		})
	}
	return g
}

func (g *guard) client(options ...Option) *Client {
	return g.f.client(append([]Option{Dialer(g.dial)}, options...)...)
}

func (g *guard) dial(ctx context.Context, address string) (net.Conn, error) {
	return g.f.dial(ctx, strings.Replace(address, ":9092", ":9093", 1))
}

// cut breaks every connection.
func (g *guard) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.mu.conns {
		_ = c.Close()
	}
}

// guardSeen is what a guard has seen.
type guardSeen struct {
	attempts, renewals, toRefuse, dials int
	wrong                               []string
}

// seen waits until everything has come to rest. It is for tests in a bubble.
func (g *guard) seen() guardSeen {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	return guardSeen{g.mu.attempts, g.mu.renewals, g.mu.refuse, len(g.f.mu.dials), g.mu.wrong}
}

// visitor is a connection's state.
type visitor struct {
	known   bool      // proved who it is
	expires time.Time // zero: never
	proof   func(message []byte) (answer []byte, done bool, err error)
	anew    bool // the latest proof is a renewal
	began   time.Time
}

func (g *guard) serve(node int32, raw net.Conn) {
	stop := context.AfterFunc(g.f.ctx, func() { raw.Close() })
	defer stop()
	defer raw.Close()
	g.mu.Lock()
	g.mu.conns[raw] = true
	v := &visitor{known: g.mu.mechanism == ""}
	c := raw
	if g.tls != nil {
		c = tls.Server(raw, g.tls)
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.mu.conns, raw)
		g.mu.Unlock()
	}()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		if n := binary.BigEndian.Uint32(size[:]); n > 100<<20 {
			return // brokers hang up at what cannot be a request
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		reply, ok := g.handle(node, v, frame)
		if !ok {
			return
		}
		if reply != nil {
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	}
}

func (g *guard) handle(node int32, v *visitor, frame []byte) (reply []byte, ok bool) {
	head, err := wire.ParseRequest(frame)
	if err != nil {
		return nil, false
	}
	if head.Key != 17 && head.Key != 36 {
		g.mu.Lock()
		late := !v.expires.IsZero() && time.Now().After(v.expires)
		if v.proof != nil || late {
			g.mu.wrong = append(g.mu.wrong, fmt.Sprintf("key %d: in the middle of a proof %v, after the session's end %v", head.Key, v.proof != nil, late))
		}
		wrong := v.proof != nil || late || !v.known && head.Key != 18
		g.mu.Unlock()
		if wrong {
			return nil, false
		}
		return g.f.handle(node, frame)
	}
	req := kmsg.RequestForKey(head.Key)
	req.SetVersion(head.Version)
	if err := req.ReadFrom(head.Body); err != nil {
		g.f.t.Errorf("key %d: %v", head.Key, err)
		return nil, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, isHandshake := req.(*kmsg.SASLHandshakeRequest); isHandshake {
		return frameReply(head, g.shakeLocked(v, r)), true
	}
	resp := g.proveLocked(v, req.(*kmsg.SASLAuthenticateRequest))
	return frameReply(head, resp), true
}

func (g *guard) shakeLocked(v *visitor, r *kmsg.SASLHandshakeRequest) *kmsg.SASLHandshakeResponse {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.SupportedMechanisms = []string{g.mu.mechanism}
	switch {
	case g.mu.mechanism == "", v.known && v.expires.IsZero(), v.anew && time.Since(v.began) < time.Second:
		resp.ErrorCode = int16(ErrIllegalSASLState)
	case r.Mechanism != g.mu.mechanism:
		resp.ErrorCode = int16(ErrUnsupportedSASLMechanism)
	default:
		g.mu.attempts++
		v.proof, v.anew = g.prover(), v.known
		v.began = time.Now()
	}
	return resp
}

func (g *guard) proveLocked(v *visitor, r *kmsg.SASLAuthenticateRequest) *kmsg.SASLAuthenticateResponse {
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	if v.proof == nil {
		resp.ErrorCode = int16(ErrIllegalSASLState)
		return resp
	}
	answer, done, err := v.proof(r.SASLAuthBytes)
	if done && err == nil && v.anew && g.mu.refuse > 0 {
		g.mu.refuse--
		err = errors.New("no more")
	}
	if err != nil {
		v.known, v.proof = false, nil
		resp.ErrorCode, resp.ErrorMessage = int16(ErrSASLAuthenticationFailed), kmsg.StringPtr("Authentication failed: "+err.Error())
		return resp
	}
	resp.SASLAuthBytes = answer
	if done {
		if v.known = true; v.anew {
			g.mu.renewals++
		}
		v.proof = nil
		if g.mu.lifetime > 0 {
			v.expires = time.Now().Add(g.mu.lifetime)
			resp.SessionLifetimeMillis = g.mu.lifetime.Milliseconds()
		}
	}
	return resp
}

var errGuard = errors.New("invalid username or password")

// prover gives the broker's side of the mechanism.
func (g *guard) prover() func([]byte) ([]byte, bool, error) {
	switch g.mu.mechanism {
	case "PLAIN":
		return func(m []byte) ([]byte, bool, error) {
			parts := bytes.Split(m, []byte{0})
			if len(parts) != 3 || g.mu.users[string(parts[1])] != string(parts[2]) || len(parts[2]) == 0 {
				return nil, false, errGuard
			}
			return nil, true, nil
		}
	case "OAUTHBEARER":
		refused := false
		return func(m []byte) ([]byte, bool, error) {
			if refused {
				return nil, false, errors.New("{\"status\":\"invalid_token\"}")
			}
			if string(m) != "n,,\x01auth=Bearer "+g.mu.token+"\x01\x01" {
				refused = true
				return []byte(`{"status":"invalid_token"}`), false, nil
			}
			return nil, true, nil
		}
	}
	hash := scram.SHA256
	if g.mu.mechanism == "SCRAM-SHA-512" {
		hash = scram.SHA512
	}
	server, err := hash.NewServer(func(user string) (scram.StoredCredentials, error) {
		password, ok := g.mu.users[user]
		if !ok {
			return scram.StoredCredentials{}, errGuard
		}
		c, err := hash.NewClientUnprepped(user, password, "")
		if err != nil {
			return scram.StoredCredentials{}, err
		}
		return c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: 4096})
	})
	if err != nil {
		g.f.t.Error(err)
	}
	talk := server.NewConversation()
	return func(m []byte) ([]byte, bool, error) {
		answer, err := talk.Step(string(m))
		if err != nil {
			return nil, false, errGuard
		}
		return []byte(answer), talk.Done(), nil
	}
}
