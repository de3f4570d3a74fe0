package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"barnabas/internal/faketime"
	"barnabas/internal/metrics"
	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// private is a key that no Kafka API has: the handlers of these tests give it its meaning.
const private = 1000

// handlerFunc is a Handler of one function.
type handlerFunc func(ctx context.Context, peer *wire.Peer, req *wire.Request) (wire.Reply, bool, error)

func (f handlerFunc) Handle(ctx context.Context, peer *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
	return f(ctx, peer, req)
}
func (handlerFunc) Disconnected(*wire.Peer) {}

// echo answers with the request's body.
func echo(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
	body := bytes.Clone(req.Body)
	return func(_ context.Context, out *wire.Out) error { out.Bytes(body); return nil }, true, nil
}

// logLines collects what is logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// rig is a server on a network of its own.
type rig struct {
	t       *testing.T
	server  *Server
	log     *logLines
	metrics *metrics.Registry
	net     *netx.Mem
	network netx.Network // the client's side
	addr    string
}

// newRig serves on a memory network; within a bubble.
func newRig(t *testing.T, seed uint64, h Handler, limits Limits) *rig {
	m := netx.NewMem(seed)
	r := startRig(t, m.Host("broker"), Listener{Name: "PLAINTEXT", Addr: "broker:9092"}, h, limits)
	r.net, r.network = m, m.Host("client")
	return r
}

// newTCPRig serves on a port of this machine.
func newTCPRig(t *testing.T, h Handler, limits Limits) *rig {
	r := startRig(t, netx.TCP, Listener{Name: "PLAINTEXT", Addr: "127.0.0.1:0"}, h, limits)
	r.network = netx.TCP
	return r
}

func startRig(t *testing.T, n netx.Network, l Listener, h Handler, limits Limits) *rig {
	t.Helper()
	r := &rig{t: t, log: &logLines{}, metrics: metrics.New()}
	s, err := Listen(context.Background(), Options{
		Network: n, Listeners: []Listener{l}, Handler: h, Limits: limits, Metrics: r.metrics,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.server, r.addr = s, s.Addrs()[0].String()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := r.network.Dial(context.Background(), r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) client(o wire.ClientOptions) *wire.Client {
	r.t.Helper()
	c := wire.NewClient(r.dial(), o)
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) count(name string, labels ...string) int {
	v, _ := r.metrics.Value(name, labels...)
	return int(v)
}

// request is a frame as a client writes it, with its length.
func request(key, version int16, id int32, body []byte) []byte {
	b := []byte{0, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	b = append(b, 0, 4, 't', 'e', 's', 't')
	if wire.FlexibleRequest(key, version) {
		b = append(b, 0)
	}
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// response reads one response to a flexible request.
func response(r io.Reader) (id int32, body []byte, err error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, fmt.Errorf("within a response: %w", err)
	}
	if len(b) < 5 {
		return 0, nil, fmt.Errorf("response of %d bytes", len(b))
	}
	return int32(binary.BigEndian.Uint32(b)), b[5:], nil
}

// fileOf is a file range in memory.
type fileOf struct {
	data   []byte
	closed *int
}

func (f fileOf) Len() int64 { return int64(len(f.data)) }
func (f fileOf) SendTo(c net.Conn) (int64, error) {
	n, err := c.Write(f.data)
	return int64(n), err
}
func (f fileOf) AppendTo(dst []byte) ([]byte, error) { return append(dst, f.data...), nil }
func (f fileOf) Close() error                        { *f.closed++; return nil }

// moody answers a request of 8 bytes with a body made of them, in a manner drawn from them: at
// once or later, announced or not, in bytes or as a file, or never.
type moody struct {
	mu     sync.Mutex
	opened int
	closed int
}

func (m *moody) Disconnected(*wire.Peer) {}

func (m *moody) Handle(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
	if req.Key != private || len(req.Body) != 8 {
		return nil, false, fmt.Errorf("key %d with %d bytes", req.Key, len(req.Body))
	}
	number := binary.BigEndian.Uint64(req.Body)
	dice := rand.New(rand.NewPCG(number, 1))
	if number%7 == 0 {
		return nil, false, nil
	}
	var wait time.Duration
	if dice.IntN(3) == 0 {
		wait = time.Duration(dice.IntN(5000)) * time.Microsecond
	}
	req.AnnouncesWait = dice.IntN(2) == 0
	announces, ready := req.AnnouncesWait, wait == 0 && dice.IntN(4) > 0
	if announces && wait > 0 {
		ready = dice.IntN(4) == 0 // that it waits could not be foreseen
	}
	return func(ctx context.Context, out *wire.Out) error {
		if wait > 0 {
			if announces {
				out.Waiting()
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		body := moodyBody(number)
		if dice.IntN(3) == 0 {
			m.mu.Lock()
			m.opened++
			m.mu.Unlock()
			out.Append(func(b []byte) []byte { return append(b, body[:1]...) })
			out.File(moodyFile{fileOf{data: body[1:]}, m})
			return nil
		}
		out.Bytes(body)
		return nil
	}, ready, nil
}

type moodyFile struct {
	fileOf
	m *moody
}

func (f moodyFile) Close() error {
	f.m.mu.Lock()
	f.m.closed++
	f.m.mu.Unlock()
	return nil
}

func moodyBody(number uint64) []byte {
	dice := rand.New(rand.NewPCG(number, 2))
	size := 1 + dice.IntN(200)
	if dice.IntN(8) == 0 {
		size = 1 + dice.IntN(60_000)
	}
	return bytes.Repeat([]byte{byte(number)}, size)
}

// Whatever is ready when, a client gets its replies in the order of its requests.
func TestRepliesComeInTheOrderOfRequests(t *testing.T) {
	for seed := range uint64(100) {
		faketime.Test(t, func(t *testing.T) { repliesComeInOrder(t, seed) })
	}
}

func repliesComeInOrder(t *testing.T, seed uint64) {
	h := &moody{}
	dice := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, seed, h, Limits{Unanswered: 2 + dice.IntN(20)})
	c := r.dial()
	const n = 150
	go func() {
		for i := 0; i < n; {
			var burst []byte
			for range 1 + dice.IntN(20) {
				burst = append(burst, request(private, 0, int32(i), binary.BigEndian.AppendUint64(nil, seed*1000+uint64(i)))...)
				i++
				if i == n {
					break
				}
			}
			for len(burst) > 0 { // cut anywhere
				k := 1 + dice.IntN(len(burst))
				if _, err := c.Write(burst[:k]); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				burst = burst[k:]
				if dice.IntN(3) == 0 {
					time.Sleep(time.Duration(dice.IntN(2000)) * time.Microsecond)
				}
			}
		}
	}()
	for i := range uint64(n) {
		number := seed*1000 + i
		if number%7 == 0 {
			continue
		}
		id, body, err := response(c)
		if err != nil {
			t.Fatalf("seed %d: request %d: %v; log %v", seed, i, err, r.log.all())
		}
		if id != int32(i) || !bytes.Equal(body, moodyBody(number)) {
			t.Fatalf("seed %d: got the reply to %d with %d bytes, want %d", seed, id, len(body), i)
		}
	}
	r.stop()
	if h.opened != h.closed {
		t.Fatalf("seed %d: %d file ranges opened, %d closed", seed, h.opened, h.closed)
	}
}

// countedConn counts writes on a connection in memory.
type countedConn struct {
	net.Conn
	mu     sync.Mutex
	writes int
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *countedConn) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

type countingNetwork struct {
	netx.Network
	accepted chan *countedConn
}

type countingListener struct {
	net.Listener
	accepted chan *countedConn
}

func (n countingNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := n.Network.Listen(ctx, addr)
	return countingListener{l, n.accepted}, err
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	counted := &countedConn{Conn: c}
	l.accepted <- counted
	return counted, nil
}

// A burst of small requests is answered in one write, whether by the reader or by the writer.
func TestBurstLeavesInOneWrite(t *testing.T) {
	for _, announces := range []bool{false, true} {
		faketime.Test(t, func(t *testing.T) {
			m, accepted := netx.NewMem(1), make(chan *countedConn, 1)
			m.SetLatency("", "", time.Millisecond, 0)
			release := make(chan struct{})
			h := handlerFunc(func(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
				ready := req.CorrelationID != 100 // the first of the second burst waits
				req.AnnouncesWait = announces
				return func(ctx context.Context, out *wire.Out) error {
					if !ready {
						out.Waiting()
						<-release
					}
					out.Append(func(b []byte) []byte { return append(b, "twenty bytes of body"...) })
					return nil
				}, ready, nil
			})
			r := startRig(t, countingNetwork{m.Host("broker"), accepted}, Listener{Addr: "broker:9092"}, h, Limits{})
			r.network = m.Host("client")
			c := r.dial()
			burst := func(first int32) {
				var b []byte
				for i := range int32(20) {
					b = append(b, request(private, 0, first+i, []byte("body"))...)
				}
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			answered := func(first int32) {
				for i := range int32(20) {
					if id, _, err := response(c); err != nil || id != first+i {
						t.Fatalf("reply %d, error %v, want %d", id, err, first+i)
					}
				}
			}
			burst(0)
			answered(0)
			counted := <-accepted
			if n := counted.count(); n != 1 {
				t.Errorf("20 ready replies left in %d writes", n)
			}
			burst(100)
			synctest.Wait()
			time.Sleep(time.Second) // of the bubble: everything has arrived and waits
			close(release)
			answered(100)
			if n := counted.count(); n != 2 {
				t.Errorf("20 replies behind one that waited left in %d writes", n-1)
			}
		})
	}
}

// What is complete does not wait with a reply that is not, said so or not.
func TestCompleteReplyIsNotHeldByTheNext(t *testing.T) {
	for _, announces := range []bool{false, true} {
		faketime.Test(t, func(t *testing.T) {
			h := handlerFunc(func(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
				id := req.CorrelationID
				req.AnnouncesWait = announces
				return func(ctx context.Context, out *wire.Out) error {
					if announces {
						out.Waiting()
					}
					time.Sleep(time.Duration(id) * time.Second)
					return nil
				}, false, nil
			})
			r := newRig(t, 1, h, Limits{})
			c := r.dial()
			start := time.Now()
			var b []byte
			for id := range int32(4) {
				b = append(b, request(private, 0, id, nil)...)
			}
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			for id, want := range []int{0, 1, 3, 6} {
				got, _, err := response(c)
				if took := time.Since(start); err != nil || got != int32(id) || int(took/time.Second) != want {
					t.Fatalf("announces %t: reply %d after %v (%v), want %d after %d s", announces, got, took, err, id, want)
				}
			}
		})
	}
}

// KIP-219: the throttled client has its answer at once, and its next request is read later.
func TestThrottleAnswersFirstAndThenStopsReading(t *testing.T) {
	const throttle = 5 * time.Second
	for _, inReply := range []bool{false, true} {
		for _, ready := range []bool{false, true} {
			faketime.Test(t, func(t *testing.T) {
				var handled []time.Time
				h := handlerFunc(func(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
					handled = append(handled, time.Now())
					if !inReply {
						req.Throttle = throttle
					}
					return func(_ context.Context, out *wire.Out) error {
						if inReply {
							out.Throttle(throttle)
						}
						return nil
					}, ready, nil
				})
				r := newRig(t, 1, h, Limits{Idle: throttle / 2}) // being muted is not being idle
				c := r.client(wire.ClientOptions{})
				start := time.Now()
				for i := range 3 {
					if _, err := c.Call(t.Context(), private, 0, nothing); err != nil {
						t.Fatal(err)
					}
					if i == 0 && time.Since(start) > 10*time.Millisecond {
						t.Errorf("first answer took %v", time.Since(start))
					}
				}
				for i := 1; i < len(handled); i++ {
					if gap := handled[i].Sub(handled[i-1]); gap < throttle || gap > throttle+10*time.Millisecond {
						t.Errorf("inReply %t ready %t: request %d was read %v after the one before", inReply, ready, i, gap)
					}
				}
			})
		}
	}
}

func nothing(b []byte) []byte { return b }

// Whoever disconnects ends the waits of its requests, and their effects stay.
func TestDisconnectionEndsWaits(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		h := handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) {
			return func(ctx context.Context, _ *wire.Out) error { <-ctx.Done(); ended <- ctx.Err(); return ctx.Err() }, false, nil
		})
		r := newRig(t, 1, h, Limits{})
		c := r.dial()
		if _, err := c.Write(request(private, 0, 1, nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_ = c.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("wait ended with %v", err)
		}
		synctest.Wait()
		if lines := r.log.all(); len(lines) > 0 {
			t.Errorf("logged %q", lines)
		}
	})
}

// A failed request closes its connection with one line that says which and why; what was
// complete before it is still sent.
func TestHandlerErrorClosesWithOneLine(t *testing.T) {
	for _, inReply := range []bool{false, true} {
		faketime.Test(t, func(t *testing.T) {
			h := handlerFunc(func(ctx context.Context, peer *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
				if req.CorrelationID == 0 {
					return echo(ctx, peer, req)
				}
				if inReply {
					return func(context.Context, *wire.Out) error { return errors.New("broken log") }, true, nil
				}
				return nil, false, errors.New("broken log")
			})
			r := newRig(t, 1, h, Limits{})
			c := r.dial()
			if _, err := c.Write(append(request(private, 3, 0, nil), request(private, 3, 1, nil)...)); err != nil {
				t.Fatal(err)
			}
			if id, _, err := response(c); err != nil || id != 0 {
				t.Errorf("reply %d, %v", id, err)
			}
			if _, _, err := response(c); !errors.Is(err, io.EOF) {
				t.Errorf("second reply: %v, want EOF", err)
			}
			synctest.Wait()
			lines := r.log.all()
			if len(lines) != 1 {
				t.Fatalf("logged %q", lines)
			}
			for _, part := range []string{"peer=client:", "key=1000", "version=3", "broken log"} {
				if !strings.Contains(lines[0], part) {
					t.Errorf("no %q in %q", part, lines[0])
				}
			}
		})
	}
}

// Shutdown lets replies under way finish, also those that wait, and ends the rest.
func TestShutdownFinishesRepliesUnderWay(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) {
			return func(ctx context.Context, out *wire.Out) error {
				select {
				case <-time.After(2 * time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
				return nil
			}, false, nil
		})
		r := newRig(t, 1, h, Limits{})
		idle, busy := r.client(wire.ClientOptions{}), r.client(wire.ClientOptions{})
		p, err := busy.Start(t.Context(), private, 0, nothing)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.stop()
		if _, err := p.Wait(t.Context()); err != nil {
			t.Errorf("reply under way: %v", err)
		}
		<-idle.Broken()
		if _, err := r.network.Dial(t.Context(), r.addr); err == nil {
			t.Error("a connection is accepted after Shutdown")
		}
	})
}

// Shutdown resets who was told nothing yet but the versions, and nobody else: clients take the end of a stream before the first
// answer for a mistake in somebody's settings, and do not try again.
func TestShutdownResetsWhoWasToldNothing(t *testing.T) {
	check := func(t *testing.T, r *rig) {
		fresh, greeted, known := r.dial(), r.dial(), r.dial() // who is served has been accepted after the other
		for _, told := range []struct {
			conn net.Conn
			key  int16
		}{{greeted, keyAPIVersions}, {known, keyAPIVersions}, {known, private}} {
			if _, err := told.conn.Write(request(told.key, 0, 1, []byte("hello"))); err != nil {
				t.Fatal(err)
			}
			if _, _, err := response(told.conn); err != nil {
				t.Fatal(err)
			}
		}
		r.stop()
		for name, conn := range map[string]net.Conn{"told nothing": fresh, "told the versions alone": greeted} {
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("who was %s reads %d bytes, %v", name, n, err)
			}
		}
		if n, err := known.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("who was answered reads %d bytes, %v", n, err)
		}
	}
	t.Run("memory", func(t *testing.T) {
		faketime.Test(t, func(t *testing.T) { check(t, newRig(t, 1, handlerFunc(echo), Limits{})) })
	})
	t.Run("TCP", func(t *testing.T) { check(t, newTCPRig(t, handlerFunc(echo), Limits{})) })
}

func TestShutdownEndsWaitsWithItsContext(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) {
			return func(ctx context.Context, _ *wire.Out) error { <-ctx.Done(); return ctx.Err() }, false, nil
		})
		r := newRig(t, 1, h, Limits{})
		p, err := r.client(wire.ClientOptions{}).Start(t.Context(), private, 0, nothing)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown gives %v", err)
		}
		if _, err := p.Wait(t.Context()); err == nil {
			t.Error("the reply came")
		}
	})
}

// However long a reply waits, phase one of the requests behind it does not.
func TestPhaseOneGoesOnWhileAReplyWaits(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var handled []time.Duration
		start := time.Now()
		h := handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) {
			handled = append(handled, time.Since(start))
			return func(context.Context, *wire.Out) error { time.Sleep(10 * time.Minute); return nil }, false, nil
		})
		r := newRig(t, 1, h, Limits{Idle: 2 * time.Minute})
		c := r.client(wire.ClientOptions{})
		var last *wire.Pending
		for range 5 {
			var err error
			if last, err = c.Start(t.Context(), private, 0, nothing); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
		}
		if _, err := last.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, at := range handled {
			if want := time.Duration(i) * 5 * time.Minute; at < want || at > want+time.Second {
				t.Errorf("request %d was handled after %v, sent after %v", i, at, want)
			}
		}
	})
}

// goroutines counts those of the bubble. runtime.NumGoroutine counts those too that are just ending, and a
// bubble is at rest before they have ended.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte(", synctest bubble "))
}

// The second goroutine goes when there has been nothing for it to do.
func TestWriterEndsWhenIdle(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		h := handlerFunc(func(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
			return func(context.Context, *wire.Out) error { time.Sleep(time.Millisecond); return nil }, false, nil
		})
		r := newRig(t, 1, h, Limits{})
		c := r.client(wire.ClientOptions{})
		for range 3 {
			if _, err := c.Call(t.Context(), private, 0, nothing); err != nil {
				t.Fatal(err)
			}
			time.Sleep(writerIdle / 2)
			synctest.Wait()
			with := goroutines()
			time.Sleep(writerIdle)
			synctest.Wait()
			if without := goroutines(); without != with-1 {
				t.Fatalf("%d goroutines while the writer may be needed, %d later", with, without)
			}
		}
	})
}
