package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/faketime"
	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

// expectClosed reads until the server closes, and tells when that was.
func expectClosed(t *testing.T, c net.Conn) time.Time {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		var op *net.OpError
		if !errors.As(err, &op) || op.Timeout() {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	return time.Now()
}

func expectOneLine(t *testing.T, r *rig, parts ...string) {
	t.Helper()
	synctest.Wait()
	lines := r.log.all()
	if len(lines) != 1 {
		t.Errorf("%d lines in the log, want 1: %q", len(lines), lines)
		return
	}
	for _, part := range parts {
		if !strings.Contains(lines[0], part) {
			t.Errorf("no %q in %q", part, lines[0])
		}
	}
}

func TestFrameTooLargeIsRefusedByItsName(t *testing.T) {
	for _, c := range []struct {
		limit         string
		key           int16
		bytes         int
		authenticates bool
		refused       bool
	}{
		{"", keyProduce, 2 << 20, false, false},
		{"socket.request.max.bytes", keyProduce, 2<<20 + 1, false, true},
		{"", private, 1 << 20, false, false},
		{"queued.max.request.bytes/64", private, 1<<20 + 1, false, true},
		{"", keyProduce, 512 << 10, true, false},
		{"sasl.server.max.receive.size", keyProduce, 512<<10 + 1, true, true},
	} {
		faketime.Test(t, func(t *testing.T) {
			m := netx.NewMem(1)
			r := startRig(t, m.Host("broker"), Listener{Addr: "broker:1", Authenticates: c.authenticates}, handlerFunc(echo),
				Limits{FrameBytes: 2 << 20, RequestMemoryBytes: 64 << 20})
			r.network = m.Host("client")
			conn := r.dial()
			// Zero-length requests of the right size: the echoed body tells that all arrived.
			frame := request(c.key, 9, 1, make([]byte, c.bytes-(len(request(c.key, 9, 1, nil))-4)))
			go func() { _, _ = conn.Write(frame) }() // may be cut short
			if !c.refused {
				if id, _, err := response(conn); err != nil || id != 1 {
					t.Errorf("%+v: reply %d, %v", c, id, err)
				}
				return
			}
			expectClosed(t, conn)
			expectOneLine(t, r, c.limit)
		})
	}
}

// Past the limit of unanswered requests a connection is not read, and goes on when answers do.
func TestUnansweredRequestsAreBounded(t *testing.T) {
	for _, limit := range []int{2, 3, 64} {
		faketime.Test(t, func(t *testing.T) {
			var handled, most, answered atomic.Int64
			h := handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) {
				n := handled.Add(1) - answered.Load()
				most.Store(max(most.Load(), n))
				return func(context.Context, *wire.Out) error {
					time.Sleep(time.Millisecond)
					answered.Add(1)
					return nil
				}, false, nil
			})
			r := newRig(t, 1, h, Limits{Unanswered: limit})
			c := r.dial()
			go func() {
				for i := range int32(1000) {
					if _, err := c.Write(request(private, 0, i, nil)); err != nil {
						t.Error(err)
						return
					}
				}
			}()
			for i := range int32(1000) {
				if id, _, err := response(c); err != nil || id != i {
					t.Fatalf("reply %d, %v, want %d", id, err, i)
				}
			}
			if got := most.Load(); got != int64(limit) {
				t.Errorf("up to %d requests unanswered, limit %d", got, limit)
			}
		})
	}
}

func TestConnectionsPerIPAreBounded(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(echo), Limits{ConnectionsPerIP: 2, ConnectionsPerIPOverrides: map[string]int{"bulk": 3}})
		for host, most := range map[string]int{"one": 2, "two": 2, "bulk": 3} {
			r.network = r.net.Host(host)
			var open []*wire.Client
			for range most {
				c := r.client(wire.ClientOptions{})
				if _, err := c.Call(t.Context(), private, 0, nothing); err != nil {
					t.Errorf("%s: %v", host, err)
				}
				open = append(open, c)
			}
			expectClosed(t, r.dial())
			_ = open[0].Close()
			time.Sleep(time.Second)
			if _, err := r.client(wire.ClientOptions{}).Call(t.Context(), private, 0, nothing); err != nil {
				t.Errorf("%s: after one has gone: %v", host, err)
			}
		}
		if n := r.count("connections_refused_total", "max.connections.per.ip"); n != 3 {
			t.Errorf("%d refused are counted, want 3", n)
		}
	})
}

func TestConnectionsPastTheLimitWait(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(echo), Limits{Connections: 3})
		var open []*wire.Client
		for range 3 {
			open = append(open, r.client(wire.ClientOptions{}))
		}
		fourth := r.client(wire.ClientOptions{})
		p, err := fourth.Start(t.Context(), private, 0, nothing)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		select {
		case <-p.Done():
			t.Error("the fourth connection is served")
		default:
		}
		_ = open[1].Close()
		if _, err := p.Wait(t.Context()); err != nil {
			t.Errorf("after one has gone: %v", err)
		}
	})
}

func TestConnectionRateIsBounded(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(echo), Limits{ConnectionsPerSecond: 10})
		time.Sleep(time.Minute)
		start := time.Now()
		for range 40 { // ten at once, thirty at ten a second
			if _, err := r.client(wire.ClientOptions{}).Call(t.Context(), private, 0, nothing); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 2900*time.Millisecond || took > 3200*time.Millisecond {
			t.Errorf("40 connections in %v", took)
		}
	})
}

// A connection is idle when it has neither requests nor answers to come, and not before.
func TestIdleConnectionIsClosed(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		const idle = time.Minute
		h := handlerFunc(func(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
			wait := time.Duration(binary.BigEndian.Uint64(req.Body))
			return func(context.Context, *wire.Out) error { time.Sleep(wait); return nil }, wait == 0, nil
		})
		r := newRig(t, 1, h, Limits{Idle: idle})
		c := r.dial()
		var last time.Time
		for i, wait := range []time.Duration{0, 0, 3 * idle, 0} {
			time.Sleep(idle - time.Second)
			if _, err := c.Write(request(private, 0, int32(i), binary.BigEndian.AppendUint64(nil, uint64(wait)))); err != nil {
				t.Fatal(err)
			}
			if _, _, err := response(c); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			last = time.Now()
		}
		if quiet := expectClosed(t, c).Sub(last); quiet < idle-time.Second || quiet > idle+time.Second {
			t.Errorf("closed %v after the last answer, want %v", quiet, idle)
		}
		if lines := r.log.all(); len(lines) > 0 {
			t.Errorf("logged %q", lines)
		}
	})
}

// A peer that begins a request and does not go on loses its connection, wherever it stops.
func TestPeerThatStandsStillIsClosed(t *testing.T) {
	frame := request(keyProduce, 9, 1, make([]byte, 100_000))
	for _, sent := range []int{1, 3, 4, 7, 8, 9, 20, 5000, 70_000, len(frame) - 1} {
		faketime.Test(t, func(t *testing.T) {
			r := newRig(t, 1, handlerFunc(echo), Limits{Stall: 10 * time.Second})
			c := r.dial()
			start := time.Now()
			if _, err := c.Write(frame[:sent]); err != nil {
				t.Fatal(err)
			}
			// 100,000 bytes grant three seconds more, and a part that came in a chunk another term.
			if took := expectClosed(t, c).Sub(start); took < 9*time.Second || took > 24*time.Second {
				t.Errorf("%d bytes sent: closed after %v", sent, took)
			}
			expectOneLine(t, r, "stands still")
		})
	}
}

// Dripping a request does not buy more time than standing still.
func TestDrippingPeerIsClosed(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(echo), Limits{Stall: 10 * time.Second})
		c := r.dial()
		start := time.Now()
		var dripping sync.WaitGroup
		defer dripping.Wait()
		dripping.Go(func() {
			for _, b := range request(keyProduce, 9, 1, make([]byte, 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(3 * time.Second)
			}
		})
		if took := expectClosed(t, c).Sub(start); took > 13*time.Second {
			t.Errorf("closed after %v", took)
		}
		expectOneLine(t, r, "stands still")
	})
}

// A truncated frame is worth a line, the end between two frames is not.
func TestTruncatedFrameClosesWithOneLine(t *testing.T) {
	frame := request(keyProduce, 9, 1, make([]byte, 50_000))
	for _, sent := range []int{0, 1, 4, 7, 8, 100, 40_000, len(frame) - 1, len(frame)} {
		faketime.Test(t, func(t *testing.T) {
			r := newRig(t, 1, handlerFunc(echo), Limits{})
			c := r.dial()
			if _, err := c.Write(frame[:sent]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			_ = c.Close()
			time.Sleep(time.Second)
			if sent == 0 || sent == len(frame) {
				if lines := r.log.all(); len(lines) != 0 {
					t.Errorf("%d bytes sent: %q", sent, lines)
				}
				return
			}
			expectOneLine(t, r, "have arrived")
		})
	}
}

// A client that sends and does not read is slowed down by TCP, holds a bounded number of
// requests, and is closed when it never reads.
func TestSlowReaderIsBoundedAndClosed(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var handled atomic.Int64
		h := handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) {
			handled.Add(1)
			return func(_ context.Context, out *wire.Out) error { out.Bytes(make([]byte, 10_000)); return nil }, true, nil
		})
		r := newRig(t, 1, h, Limits{Stall: 10 * time.Second})
		other := r.client(wire.ClientOptions{})
		c := r.dial()
		start := time.Now()
		var took time.Duration
		for i := range int32(100_000) {
			if _, err := c.Write(request(private, 0, i, make([]byte, 100))); err != nil {
				took = time.Since(start)
				break
			}
			if i%100 == 0 {
				if _, err := other.Call(t.Context(), private, 0, nothing); err != nil {
					t.Fatalf("another client: %v", err)
				}
			}
		}
		// The window of the network is 256 KiB either way.
		if n := handled.Load(); n > 5000 {
			t.Errorf("%d requests of a client that does not read were handled", n)
		}
		if took == 0 || took > 40*time.Second {
			t.Errorf("closed after %v", took)
		}
		expectOneLine(t, r, "send", "replies")
	})
}

// Requests past the memory budget wait, and replies to what was accepted go out meanwhile.
func TestMemoryBudgetDelaysRequestsAndNotReplies(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := handlerFunc(func(ctx context.Context, p *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
			if string(req.Body) == "hold" {
				<-release // phase one holds the memory for decoding
			}
			return echo(ctx, p, req)
		})
		// A request of 15 bytes reserves 64 times that: one fits, two do not.
		r := newRig(t, 1, h, Limits{RequestMemoryBytes: 1500})
		holder := r.client(wire.ClientOptions{})
		if _, err := holder.Start(t.Context(), private, 0, func(b []byte) []byte { return append(b, "hold"...) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)

		c := r.dial()
		// Produce needs no memory for decoding and is answered although the next one waits.
		if _, err := c.Write(append(request(keyProduce, 9, 1, nil), request(private, 0, 2, nil)...)); err != nil {
			t.Fatal(err)
		}
		if id, _, err := response(c); err != nil || id != 1 {
			t.Fatalf("reply %d, %v", id, err)
		}
		time.Sleep(time.Minute)
		if got := r.count("request_memory_waits_total"); got != 1 {
			t.Errorf("%d waits for memory counted", got)
		}
		close(release)
		if id, _, err := response(c); err != nil || id != 2 {
			t.Errorf("reply %d, %v", id, err)
		}
	})
}

// A large frame waits for memory before it is allocated.
func TestFrameMemoryIsTakenBeforeItIsAllocated(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(echo), Limits{RequestMemoryBytes: 1 << 20, Stall: time.Minute})
		frame := request(keyProduce, 9, 1, make([]byte, 600<<10))
		slow, waiting := r.dial(), r.dial()
		if _, err := slow.Write(frame[:1000]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		go func() { _, _ = waiting.Write(frame) }() // more than the window: ends when it is read
		time.Sleep(time.Second)
		if n, _ := r.metrics.Value("request_memory_bytes", "arriving"); int(n) != len(frame)-4 {
			t.Errorf("%v bytes taken, want those of one frame, %d", n, len(frame)-4)
		}
		_ = slow.Close()
		if id, _, err := response(waiting); err != nil || id != 1 {
			t.Errorf("reply %d, %v", id, err)
		}
		if n, _ := r.metrics.Value("request_memory_bytes", "arriving"); n != 0 {
			t.Errorf("%v bytes still taken", n)
		}
	})
}

func TestBudgetServesInOrderAndLosesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b, stop := newBudget(100), make(chan struct{})
		var mu sync.Mutex
		var order []int64
		var all sync.WaitGroup
		if !b.try(60) {
			t.Fatal("60 of 100 refused")
		}
		for _, n := range []int64{50, 40, 1000, 1} { // the second would fit, but has to wait its turn
			all.Go(func() {
				if b.take(t.Context(), stop, n) {
					mu.Lock()
					order = append(order, n)
					mu.Unlock()
					time.Sleep(time.Second)
					b.give(n)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if b.take(ctx, stop, 1) {
			t.Error("one more is granted past those who wait")
		}
		if b.try(1) {
			t.Error("one is granted past those who wait")
		}
		b.give(60)
		all.Wait()
		if b.inUse() != 0 || len(order) != 4 || order[2] != 1000 || order[3] != 1 {
			t.Errorf("order %v, %d in use", order, b.inUse())
		}
	})
}

// Large frames' memory grows as they arrive, and they arrive whole, also in memory that others had before.
func TestLargeFrameArrivesWhole(t *testing.T) {
	r := newTCPRig(t, handlerFunc(echo), Limits{})
	c := r.client(wire.ClientOptions{})
	for _, size := range []int{largestMade - 100, largestMade, largestMade + 1, 2*largestMade + 1, 30_000_000, largestMade + 2, 2*largestMade + 3, largestPooled + 1} {
		sent := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, byte(size)}, size/7+1)[:size]
		got, err := c.Call(t.Context(), keyProduce, 9, func(b []byte) []byte { return append(b, sent...) })
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
}

// Whoever gives up and is granted before it has left the line has nothing, and nothing is lost.
func TestBudgetSurvivesGivingUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b, stop := newBudget(1), make(chan struct{})
		if !b.try(1) {
			t.Fatal("1 of 1 refused")
		}
		ctx, cancel := context.WithCancel(t.Context())
		took := make(chan bool, 1)
		go func() { took <- b.take(ctx, stop, 1) }()
		synctest.Wait()
		b.mu.Lock()
		cancel()
		b.mu.used--
		b.grant()
		b.mu.Unlock()
		if <-took || b.inUse() != 0 {
			t.Errorf("%d of 1 in use", b.inUse())
		}
	})
}

func TestTLSListener(t *testing.T) {
	cert := selfSigned(t)
	r := startRig(t, netx.TCP, Listener{Name: "SSL", Addr: "127.0.0.1:0", TLS: &tls.Config{Certificates: []tls.Certificate{cert}}},
		handlerFunc(echo), Limits{})
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{RootCAs: pool, ServerName: "broker"})
	if err != nil {
		t.Fatal(err)
	}
	c := wire.NewClient(conn, wire.ClientOptions{})
	defer func() { _ = c.Close() }() // the server may have ended it
	for _, size := range []int{0, 10, 100_000} {
		body, err := c.Call(t.Context(), private, 0, func(b []byte) []byte { return append(b, make([]byte, size)...) })
		if err != nil || len(body) != size {
			t.Errorf("%d bytes: got %d, %v", size, len(body), err)
		}
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"broker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestConnectionLimitsChangeWhileRunning(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(echo), Limits{})
		served := func(p *wire.Pending) bool {
			time.Sleep(time.Minute)
			select {
			case <-p.Done():
				return true
			default:
				return false
			}
		}
		start := func() (*wire.Client, *wire.Pending) {
			c := r.client(wire.ClientOptions{})
			p, err := c.Start(t.Context(), private, 0, nothing)
			if err != nil {
				t.Fatal(err)
			}
			return c, p
		}
		limits := ConnectionLimits{Total: unlimited, PerIP: unlimited, PerSecond: unlimited}
		set := func(change func(l *ConnectionLimits)) {
			l := limits
			change(&l)
			r.server.SetConnectionLimits(l)
		}
		first, p := start()
		_, q := start()
		if !served(p) || !served(q) {
			t.Fatal("not served without limits")
		}
		set(func(l *ConnectionLimits) { l.Total = 2 })
		if _, p = start(); served(p) {
			t.Error("a third connection is served with max.connections 2")
		}
		set(func(l *ConnectionLimits) { l.Total = 3 })
		if !served(p) {
			t.Error("not served after the limit was raised")
		}
		set(func(l *ConnectionLimits) { l.Total = 0 })
		_ = first.Close()
		if _, p = start(); served(p) {
			t.Error("served with max.connections 0")
		}
		set(func(l *ConnectionLimits) { l.PerSecond = 0 })
		if !served(p) { // its pace had been granted
			t.Error("not served although it waited for its slot alone")
		}
		if _, p = start(); served(p) {
			t.Error("served with max.connection.creation.rate 0")
		}
		set(func(l *ConnectionLimits) { l.PerSecond = 1 })
		if !served(p) {
			t.Error("not served after the rate was raised")
		}
		set(func(l *ConnectionLimits) { l.PerIP = 0 })
		expectClosed(t, r.dial())
	})
}
