package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/certs"
	"barnabas/internal/certs/certtest"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
)

// heard is what a node logs.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

func settingsOf(a *certtest.Authority, n certtest.Node) config.TLS {
	key, chain := a.Issue(n)
	return config.TLS{
		Key: key, Chain: chain, Trusted: a.PEM(), CheckHost: true,
		MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, MaxDialVersion: tls.VersionTLS13,
	}
}

// with gives a node certificates and takes its secret away.
func with(t *testing.T, settings config.TLS) func(*Options) {
	return func(o *Options) {
		store, err := certs.Open(certs.Options{FS: disk.NewMem(), Settings: settings, Now: time.Now, Logger: o.Logger})
		if err != nil {
			t.Fatal(err)
		}
		o.Certificates, o.Secret = store, nil
	}
}

func all(changes ...func(*Options)) func(*Options) {
	return func(o *Options) {
		for _, c := range changes {
			c(o)
		}
	}
}

func logTo(h *heard) func(*Options) {
	return func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(h, nil)) }
}

func secret(s string) func(*Options) { return func(o *Options) { o.Secret = []byte(s) } }

func TestNodesWithCertificatesNeedNoSecret(t *testing.T) {
	for name, changes := range map[string][]func(*Options){"certificates": nil, "and a secret": {secret("of both")}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				ca := certtest.NewAuthority("ca")
				a := w.node(1, all(append([]func(*Options){with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node1"}}))}, changes...)...))
				b := w.node(2, all(append([]func(*Options){with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node2"}}))}, changes...)...))
				a.SetAddress(2, addrOf(2))
				b.SetAddress(1, addrOf(1))
				w.mustEcho(a, 1, 2)
				w.mustEcho(b, 2, 1)
			})
		})
	}
}

// Each of the two ends of a connection that fails says what is wrong, one in full, the other that the first knows.
func TestWhoIsNotTrustedIsRefused(t *testing.T) {
	ca, other := certtest.NewAuthority("ours"), certtest.NewAuthority("theirs")
	node1, node2 := certtest.Node{Hosts: []string{"node1"}}, certtest.Node{Hosts: []string{"node2"}}
	old := func(n certtest.Node) certtest.Node {
		n.NotAfter = time.Date(2000, 1, 1, 0, 0, 30, 0, time.UTC) // half a minute after a bubble begins
		return n
	}
	edited := func(s config.TLS, edit func(*config.TLS)) config.TLS { edit(&s); return s }
	only := func(version uint16) func(*config.TLS) {
		return func(s *config.TLS) { s.MinVersion, s.MaxVersion, s.MaxDialVersion = version, version, version }
	}
	strange := settingsOf(other, node1)
	strange.Trusted += ca.PEM() // believes, and is not believed
	strange2 := settingsOf(other, node2)
	strange2.Trusted += ca.PEM()
	for name, c := range map[string]struct {
		dialler, listener func(*Options)
		want              error
		says, logs        string
	}{
		"dialler of another authority": {
			with(t, strange), with(t, settingsOf(ca, node2)), ErrDistrusted, "does not trust this node's certificate",
			`no such authority is in the truststore ssl.truststore.certificates`,
		},
		"listener of another authority": {
			with(t, settingsOf(ca, node1)), with(t, strange2), ErrUntrusted, `it was issued by \"CN=theirs\"`, "bad certificate",
		},
		"listener for another host": {
			with(t, settingsOf(ca, node1)), with(t, settingsOf(ca, node1)), ErrUntrusted, "it is for node1 and not for node2", "bad certificate",
		},
		"listener that has expired": {
			with(t, settingsOf(ca, node1)), with(t, settingsOf(ca, old(node2))), ErrUntrusted, "it has expired at 2000-01-01T00:00:30Z", "bad certificate",
		},
		"dialler that has expired": {
			with(t, settingsOf(ca, old(node1))), with(t, settingsOf(ca, node2)), ErrDistrusted, "its log says why", "it has expired at",
		},
		"dialler in the clear": {
			nil, with(t, settingsOf(ca, node2)), ErrOneSided, "refused: ", "it speaks in the clear",
		},
		"listener in the clear": {
			with(t, settingsOf(ca, node1)), nil, ErrOneSided, "it does not answer in TLS", "it begins with TLS",
		},
		"no version in common": {
			with(t, edited(settingsOf(ca, node1), only(tls.VersionTLS12))), with(t, edited(settingsOf(ca, node2), only(tls.VersionTLS13))), ErrTLS,
			"ssl.enabled.protocols", "unsupported versions",
		},
		"another secret": {
			all(with(t, settingsOf(ca, node1)), secret("one")), all(with(t, settingsOf(ca, node2)), secret("two")), ErrWrongSecret,
			"cluster.secret.file", "cluster.secret.file",
		},
		"a secret at one end": {
			all(with(t, settingsOf(ca, node1)), secret("one")), with(t, settingsOf(ca, node2)), ErrWrongSecret, "cluster.secret.file", "cluster.secret.file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var heardA, heardB heard
				open := func(*Options) {}
				if c.dialler == nil {
					c.dialler = open
				}
				if c.listener == nil {
					c.listener = open
				}
				a, b := w.node(1, all(logTo(&heardA), c.dialler)), w.node(2, all(logTo(&heardB), c.listener))
				time.Sleep(time.Minute)
				called := false
				b.HandleEarly(kindEcho, Answer(func(context.Context, Node, []byte) ([]byte, error) {
					called = true
					return nil, nil
				}))
				a.SetAddress(2, addrOf(2))
				_, err := w.call(a, 2, kindEcho, "x", 5*time.Second)
				if !errors.Is(err, c.want) || called {
					t.Fatalf("called %v, error %v, want %v", called, err, c.want)
				}
				if !strings.Contains(heardA.String(), c.says) {
					t.Errorf("the dialler logs %s, want %s", heardA.String(), c.says)
				}
				if !strings.Contains(heardB.String(), c.logs) {
					t.Errorf("the listener logs %s, want %s", heardB.String(), c.logs)
				}
				for _, h := range []*heard{&heardA, &heardB} {
					if n := strings.Count(h.String(), "level=WARN") - strings.Count(h.String(), "expires soon"); n != 1 {
						t.Errorf("%d warnings: %s", n, h.String())
					}
				}
			})
		})
	}
}

// Who is refused can read why, although he has said more than was looked at: he is not told of a reset alone.
func TestARefusalIsReadToItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.node(1, nil)
		w.node(2, with(t, settingsOf(certtest.NewAuthority("ca"), certtest.Node{Hosts: []string{"node2"}})))
		hello := (&introduction{node: Node{ID: 3}, wants: 2}).encode()
		for addr, said := range map[string][]byte{
			addrOf(2): append([]byte{0, byte(len(hello))}, hello...), addrOf(1): {0x16, 3, 1, 2, 0, 1},
		} {
			c := w.dial("node3", addr)
			for _, part := range [][]byte{said, make([]byte, 3000)} {
				if _, err := c.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if told, err := io.ReadAll(c); err != nil || len(told) == 0 || !bytes.Contains(told, []byte{refusedClear}) {
				t.Errorf("%s: told %x, %v", addr, told, err)
			}
			_ = c.Close()
		}
	})
}

// Without a certificate nobody gets as far as to be read: what he would have said is not looked at.
func TestWithoutACertificateNothingIsDecoded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := certtest.NewAuthority("ca")
		var log heard
		w.node(2, all(logTo(&log), with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node2"}}))))
		raw := w.dial("stranger", addrOf(2))
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		self := introduction{node: Node{ID: 1}, wants: 2, cluster: "one"}
		if with, err := greet(conn, nil, nil, self, time.Now().Add(time.Minute)); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Fatalf("a stranger is answered %v, %v", with, err)
		}
		time.Sleep(2 * lingerTime)
		synctest.Wait()
		if !strings.Contains(log.String(), "it has shown none") {
			t.Fatalf("the node logs %s", log.String())
		}
	})
}

// A proof of the secret is worth nothing on another connection: a node in the middle, whom both believe, cannot
// pass it on.
func TestAProofIsBoundToItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := certtest.NewAuthority("ca")
		w.node(2, all(with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node2"}})), secret("the secret")))
		middle := Options{Logger: slog.New(slog.DiscardHandler)}
		with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node1"}}))(&middle)
		deadline := time.Now().Add(time.Minute)
		conn, on, err := middle.secure(w.dial("node1", addrOf(2)), "node2", true, deadline)
		if err != nil || len(on) != exporterBytes {
			t.Fatalf("%v, %x", err, on)
		}
		on[0]++ // as it would be on the connection that the honest node has made
		self := introduction{node: Node{ID: 1}, wants: 2, cluster: "one"}
		if _, err := greet(conn, on, []byte("the secret"), self, deadline); !errors.Is(err, ErrWrongSecret) {
			t.Fatalf("a proof of another connection: %v", err)
		}
	})
}

// Whatever comes in place of TLS, or inside of it, the node serves its peers as before.
func TestHostileBytesUnderTLSHarmNobody(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, func(t *testing.T, w *world) {
			random := rand.New(rand.NewPCG(seed, 1))
			ca := certtest.NewAuthority("ca")
			a := w.node(1, with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node1"}})))
			w.node(2, with(t, settingsOf(ca, certtest.Node{Hosts: []string{"node2"}})))
			var hello bytes.Buffer
			_ = tls.Client(&recorder{out: &hello}, &tls.Config{InsecureSkipVerify: true}).Handshake()
			for range 30 {
				said := make([]byte, random.IntN(3000))
				for i := range said {
					said[i] = byte(random.Uint32())
				}
				switch random.IntN(4) {
				case 0: // a greeting of TLS with a few bytes changed
					said = bytes.Clone(hello.Bytes())
					for range 1 + random.IntN(4) {
						said[random.IntN(len(said))] = byte(random.Uint32())
					}
				case 1: // the head of one, and then anything
					said = append([]byte{0x16, 3, 1, byte(random.Uint32()), byte(random.Uint32())}, said...)
				case 2: // and nothing after its first part
					said = bytes.Clone(hello.Bytes()[:random.IntN(hello.Len())])
				}
				c := w.dial("stranger", addrOf(2))
				_, _ = c.Write(said)
				if random.IntN(2) == 0 {
					_ = c.Close()
				}
			}
			a.SetAddress(2, addrOf(2))
			w.mustEcho(a, 1, 2)
		})
	}
}

// recorder keeps what is written and has nothing to read.
type recorder struct {
	net.Conn
	out *bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) { return r.out.Write(b) }
func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorder) Close() error                { return nil }

// The same over real sockets, where a refusal that is followed by a reset would not be read.
func TestRefusalsAreReadOverTCP(t *testing.T) {
	ca, other := certtest.NewAuthority("ours"), certtest.NewAuthority("theirs")
	strange := settingsOf(other, certtest.Node{Hosts: []string{"127.0.0.1"}})
	strange.Trusted += ca.PEM()
	local := certtest.Node{Hosts: []string{"127.0.0.1"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for name, c := range map[string]struct {
		dialler func(*Options)
		want    error
	}{"stranger": {with(t, strange), ErrDistrusted}, "in the clear": {func(*Options) {}, ErrOneSided}, "friend": {with(t, settingsOf(ca, local)), nil}} {
		t.Run(name, func(t *testing.T) {
			open := func(id int32, change func(*Options)) (*Peers, string) {
				l, err := netx.TCP.Listen(t.Context(), "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				o := Options{Network: netx.TCP, Listener: l, Self: Node{ID: id}, ClusterID: "one", Logger: slog.New(slog.DiscardHandler), Random: rand.NewChaCha8([32]byte{byte(id)})}
				change(&o)
				p, err := Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = p.Close() })
				p.Handle(kindEcho, Answer(func(_ context.Context, _ Node, body []byte) ([]byte, error) { return body, nil }))
				return p, l.Addr().String()
			}
			_, addr := open(2, with(t, settingsOf(ca, local)))
			a, _ := open(1, c.dialler)
			a.SetAddress(2, addr)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			for c.want != nil && !errors.Is(a.Trouble(2), c.want) && ctx.Err() == nil {
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				_, _ = a.Call(short, 2, kindEcho, []byte("x"))
				cancel()
			}
			if c.want == nil {
				if got, err := a.Call(ctx, 2, kindEcho, bytes.Repeat([]byte("x"), 1<<20)); err != nil || len(got) != 1<<20 {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
			} else if err := a.Trouble(2); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}
