package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
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

const (
	kindEcho Kind = 5
	kindNote Kind = 6
	kindHang Kind = 7
	kindCopy Kind = firstDataKind
)

// world is some nodes on a memory network.
type world struct {
	t    *testing.T
	net  *netx.Mem
	seed uint64
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, net: netx.NewMem(seed), seed: seed}
}

func addrOf(id int32) string { return fmt.Sprintf("node%d:9093", id) }

// node opens one that answers kindEcho and kindHang; change may be nil.
func (w *world) node(id int32, change func(*Options)) *Peers {
	w.t.Helper()
	host := w.net.Host(fmt.Sprintf("node%d", id))
	l, err := host.Listen(w.t.Context(), ":9093")
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	random := rand.NewChaCha8([32]byte{byte(w.seed), byte(id)})
	o := Options{
		Network: host, Listener: l, Self: Node{ID: id, Directory: [16]byte{byte(id)}}, ClusterID: "one", Secret: []byte("a secret"),
		Loopback: func(net.Addr) bool { return false }, Logger: slog.New(slog.DiscardHandler), Random: random,
	}
	if change != nil {
		change(&o)
	}
	p, err := Open(w.t.Context(), o)
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	w.t.Cleanup(func() { _ = p.Close() })
	p.Handle(kindEcho, Answer(func(_ context.Context, from Node, body []byte) ([]byte, error) {
		if string(body) == "fail" {
			return nil, errors.New("as you wish")
		}
		return fmt.Appendf(nil, "%d:%s", from.ID, body), nil
	}))
	p.Handle(kindHang, Answer(func(ctx context.Context, _ Node, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	return p
}

func (w *world) call(p *Peers, to int32, kind Kind, body string, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	got, err := p.Call(ctx, to, kind, []byte(body))
	return string(got), err
}

func (w *world) mustEcho(p *Peers, from, to int32) {
	w.t.Helper()
	got, err := w.call(p, to, kindEcho, "hello", 10*time.Second)
	if want := fmt.Sprintf("%d:hello", from); err != nil || got != want {
		w.t.Fatalf("seed %d: node %d answered %q, %v; want %q", w.seed, to, got, err, want)
	}
}

func bubble(t *testing.T, f func(*testing.T, *world)) {
	t.Helper()
	faketime.Test(t, func(t *testing.T) { f(t, newWorld(t, 1)) })
}

func TestRequestsAreAnsweredAndErrorsCarried(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		a.SetAddress(2, addrOf(2))
		b.SetAddress(1, addrOf(1))
		w.mustEcho(a, 1, 2)
		w.mustEcho(b, 2, 1)
		var remote *RemoteError
		if _, err := w.call(a, 2, kindEcho, "fail", time.Second); !errors.As(err, &remote) || remote.Message != "as you wish" {
			t.Fatalf("a handler's error arrives as %v", err)
		}
		if _, err := w.call(a, 2, 9, "", time.Second); !errors.Is(err, ErrUnserved) {
			t.Fatalf("a kind that nobody answers: %v", err)
		}
		if _, err := w.call(a, 7, kindEcho, "", time.Second); !errors.Is(err, ErrUnknownNode) {
			t.Fatalf("a node without an address: %v", err)
		}
	})
}

// One answer that takes for ever, and many that come out of order, on one connection.
func TestAnswersComeInAnyOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		b.Handle(kindNote, Answer(func(ctx context.Context, _ Node, body []byte) ([]byte, error) {
			select {
			case <-time.After(time.Duration(100-int(body[0])) * time.Millisecond):
			case <-ctx.Done():
			}
			return body, nil
		}))
		a.SetAddress(2, addrOf(2))
		hang, stop := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		calls.Go(func() { _, _ = a.Call(hang, 2, kindHang, nil) })
		for i := range byte(100) {
			calls.Go(func() {
				got, err := a.Call(t.Context(), 2, kindNote, []byte{i})
				if err != nil || !bytes.Equal(got, []byte{i}) {
					t.Errorf("call %d: %v, %v", i, got, err)
				}
			})
		}
		w.mustEcho(a, 1, 2)
		time.Sleep(time.Second)
		stop()
		calls.Wait()
	})
}

func TestMessagesArriveInTheOrderInWhichTheyWerePosted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		var got []byte
		b.Handle(kindNote, Receive(func(_ Node, body []byte) error {
			got = append(got, body...)
			return nil
		}))
		a.SetAddress(2, addrOf(2))
		if a.Post(2, kindNote, []byte{1}) {
			t.Fatal("a message was taken without a connection")
		}
		w.mustEcho(a, 1, 2)
		var want []byte
		for i := range byte(200) {
			if want = append(want, i); !a.Post(2, kindNote, []byte{i}) {
				t.Fatalf("message %d was not taken", i)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !bytes.Equal(got, want) {
			t.Fatalf("received %v", got)
		}
	})
}

func TestWhoDoesNotBelongIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		dialler, listener func(*Options)
		want              error
		says              []string
	}{
		"another secret":  {func(o *Options) { o.Secret = []byte("guess") }, nil, ErrWrongSecret, nil},
		"no secret":       {nil, func(o *Options) { o.Secret = nil }, ErrWrongSecret, nil},
		"another cluster": {func(o *Options) { o.ClusterID = "two" }, nil, ErrWrongCluster, []string{"node 1 to two, node 2 to one"}},
		"another node":    {nil, func(o *Options) { o.Self.ID = 3 }, ErrWrongNode, []string{"node 3, and node 2 is looked for there", "controller.quorum.voters"}},
		"a remote dialler without a secret": {
			func(o *Options) { o.Secret, o.Loopback = nil, func(net.Addr) bool { return true } },
			func(o *Options) { o.Secret = nil }, ErrNotLoopback, nil,
		},
		"a remote listener without a secret": {func(o *Options) { o.Secret = nil }, func(o *Options) { o.Secret = nil }, ErrNotLoopback, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.node(1, c.dialler), w.node(2, c.listener)
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
				for _, words := range c.says {
					if !strings.Contains(err.Error(), words) {
						t.Errorf("%v does not say %q", err, words)
					}
				}
			})
		})
	}
}

func TestWithoutASecretThisMachineIsServed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		open := func(o *Options) { o.Secret, o.Loopback = nil, func(net.Addr) bool { return true } }
		a := w.node(1, open)
		w.node(2, open)
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
	})
	for addr, want := range map[string]bool{"127.0.0.1:5": true, "[::1]:5": true, "10.0.0.1:5": false, "host:5": false, "": false} {
		if got := isLoopback(textAddr(addr)); got != want {
			t.Errorf("%s is loopback: %v", addr, got)
		}
	}
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

// tape records what its connection's user writes.
type tape struct {
	net.Conn
	wrote bytes.Buffer
}

func (r *tape) Write(b []byte) (int, error) {
	r.wrote.Write(b)
	return r.Conn.Write(b)
}

func (w *world) dial(from, to string) net.Conn {
	w.t.Helper()
	c, err := w.net.Host(from).Dial(w.t.Context(), to)
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// introduce makes a connection to node 2 and shakes hands as node 1.
func (w *world) introduce() *tape {
	w.t.Helper()
	c := &tape{Conn: w.dial("node1", addrOf(2))}
	self := introduction{node: Node{ID: 1}, wants: 2, cluster: "one"}
	if _, err := greet(c, nil, []byte("a secret"), self, time.Now().Add(time.Minute)); err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	return c
}

func TestAHandshakeCannotBePlayedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.node(2, nil)
		overheard := w.introduce().wrote.Bytes()
		c := w.dial("node1", addrOf(2))
		if _, err := c.Write(overheard); err != nil {
			t.Fatal(err)
		}
		if _, err := readFrame(c); err != nil {
			t.Fatalf("no challenge: %v", err)
		}
		verdict, err := readFrame(c)
		if err != nil || !bytes.Equal(verdict, []byte{refusedSecret}) {
			t.Fatalf("verdict on a handshake played again: %v, %v", verdict, err)
		}
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && n > 0 {
			t.Fatalf("the connection stays: %d, %v", n, err)
		}
	})
}

// The listener's proof cannot serve as the dialler's: a stranger who lets the node prove itself to him
// does not get in with that.
func TestAProofCannotBeSentBack(t *testing.T) {
	hello, challenge := []byte("hello"), []byte("challenge")
	if bytes.Equal(prove([]byte("s"), nil, dialler, hello, challenge), prove([]byte("s"), nil, listener, hello, challenge)) {
		t.Fatal("both ends prove themselves with the same bytes")
	}
	if bytes.Equal(prove([]byte("s"), nil, dialler, []byte("ab"), []byte("c")), prove([]byte("s"), nil, dialler, []byte("a"), []byte("bc"))) {
		t.Fatal("the proof does not say where the introduction ends")
	}
}

// closed reads until the other end closes the connection.
func (w *world) closed(c net.Conn, within time.Duration) {
	w.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "deadline") {
		w.t.Fatalf("seed %d: the connection is still open after %v", w.seed, within)
	}
}

func TestHostileFramesEndTheirConnectionAlone(t *testing.T) {
	frame := func(key, version uint16, size uint32) []byte {
		return []byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), byte(key >> 8), byte(key), byte(version >> 8), byte(version), 0, 0, 0, 1, 0xff, 0xff, 0}
	}
	for name, b := range map[string][]byte{
		"too long":              frame(KindKey, 0, maxFrameBytes+1),
		"negative":              frame(KindKey, 0, 1<<31),
		"too short":             {0, 0, 0, 1, 0},
		"a request of Kafka's":  frame(3, 9, 11),
		"no such kind":          frame(KindKey+uint16(endOfKinds), 0, 11),
		"a later version":       frame(KindKey, 2, 11),
		"begun and left there":  frame(KindKey+uint16(kindEcho), 0, 1<<20),
		"nothing said any more": {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, _ := w.node(3, nil), w.node(2, nil)
				a.SetAddress(2, addrOf(2))
				c := w.introduce()
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
				w.mustEcho(a, 3, 2)
				w.closed(c, 2*time.Minute)
			})
		})
	}
}

func TestStrangersAreClosedInTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.node(2, nil)
		for _, b := range [][]byte{{}, {0xff, 0xff}, {0, 3, 1, 2, 3}, []byte("GET / HTTP/1.1\r\n\r\n"), {0, 200, 1}} {
			c := w.dial("stranger", addrOf(2))
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			w.closed(c, handshakeTimeout+time.Second)
		}
	})
}

// A node that takes nothing does not keep the others from being spoken to, nor what is posted to it from
// being bounded.
func TestSlowPeerDoesNotStallOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, _ := w.node(1, nil), w.node(2, nil), w.node(3, nil)
		release := make(chan struct{})
		b.Handle(kindNote, Receive(func(Node, []byte) error { <-release; return nil }))
		a.SetAddress(2, addrOf(2))
		a.SetAddress(3, addrOf(3))
		w.mustEcho(a, 1, 2)
		big := make([]byte, 1<<20)
		taken := 0
		for a.Post(2, kindNote, big) {
			if taken++; taken > 2*maxPostedBytes/len(big) {
				t.Fatal("what is posted to a node that takes nothing has no bound")
			}
		}
		w.mustEcho(a, 1, 3)
		close(release)
	})
}

func TestBrokenConnectionIsToldAtOnceAndMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		type event struct {
			node int32
			up   bool
			at   time.Time
		}
		events := make(chan event, 16)
		a.Observe(func(node int32, up bool) { events <- event{node, up, time.Now()} })
		a.SetAddress(2, addrOf(2))
		if e := <-events; e.node != 2 || !e.up {
			t.Fatalf("first %+v", e)
		}
		w.mustEcho(a, 1, 2)
		killed := time.Now()
		w.net.Kill("node2")
		_ = b.Close()
		if e := <-events; e.up || e.at.Sub(killed) > 10*time.Millisecond {
			t.Fatalf("told %+v, %v after the end", e, e.at.Sub(killed))
		}
		time.Sleep(10 * time.Second) // the pauses have grown
		w.node(2, nil)
		if e := <-events; !e.up {
			t.Fatalf("then %+v", e)
		}
		w.mustEcho(a, 1, 2)
	})
}

func TestNodeThatComesBackIsConnectedToAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		w.net.Kill("node2")
		_ = b.Close()
		time.Sleep(time.Minute)
		b = w.node(2, nil)
		b.SetAddress(1, addrOf(1))
		back := time.Now()
		w.mustEcho(a, 1, 2)
		if took := time.Since(back); took > 100*time.Millisecond {
			t.Fatalf("connected %v after it came back", took)
		}
	})
}

// A link that is cut shows nothing at either end: only that no answer comes.
func TestSilentNodeIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, _ := w.node(1, nil), w.node(2, nil)
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		w.net.Cut("node1", "node2")
		began := time.Now()
		if _, err := w.call(a, 2, kindHang, "", time.Minute); err == nil || time.Since(began) > pingPatience+3*pingInterval {
			t.Fatalf("a call over a cut link fails after %v: %v", time.Since(began), err)
		}
		time.Sleep(30 * time.Second)
		w.net.Heal("node1", "node2")
		began = time.Now()
		w.mustEcho(a, 1, 2)
		if took := time.Since(began); took > 2*longestPause+dialTimeout {
			t.Fatalf("connected %v after the cut was healed", took)
		}
	})
}

func TestWithoutAClusterOnlyEarlyMessagesAreTaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.node(1, func(o *Options) { o.ClusterID = "" })
		b := w.node(2, func(o *Options) { o.ClusterID = "" })
		b.HandleEarly(kindNote, Answer(func(context.Context, Node, []byte) ([]byte, error) { return []byte("early"), nil }))
		a.SetAddress(2, addrOf(2))
		early := func() {
			t.Helper()
			if got, err := w.call(a, 2, kindNote, "", 5*time.Second); err != nil || got != "early" {
				t.Fatalf("%q, %v", got, err)
			}
		}
		refused := func() {
			t.Helper()
			if _, err := w.call(a, 2, kindEcho, "x", 5*time.Second); !errors.Is(err, ErrNotFormed) {
				t.Fatalf("before there is a cluster: %v", err)
			}
		}
		early()
		refused()
		b.SetClusterID("one")
		time.Sleep(time.Second)
		early()
		refused()
		a.SetClusterID("one")
		time.Sleep(time.Second)
		early()
		w.mustEcho(a, 1, 2)
	})
}

func TestDataHasAConnectionOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		release, stands := make(chan struct{}), make(chan struct{})
		b.Handle(kindCopy, Receive(func(Node, []byte) error { close(stands); <-release; return nil }))
		b.Handle(kindCopy+1, Answer(func(context.Context, Node, []byte) ([]byte, error) { return nil, nil }))
		a.SetAddress(2, addrOf(2))
		if _, err := w.call(a, 2, kindCopy+1, "", time.Second); err != nil {
			t.Fatal(err)
		}
		if !a.Post(2, kindCopy, nil) {
			t.Fatal("not taken")
		}
		<-stands
		w.mustEcho(a, 1, 2) // although the reader of the data connection stands
		close(release)
	})
}

// A file's bytes travel in an answer as they do to clients.
func TestAnswersMayHoldFileRanges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		b.Handle(kindCopy, func(context.Context, Node, []byte) (wire.Reply, bool, error) {
			return func(_ context.Context, out *wire.Out) error {
				out.Append(func(dst []byte) []byte { return append(dst, "head "...) })
				out.Bytes(bytes.Repeat([]byte{7}, 100_000))
				return nil
			}, true, nil
		})
		a.SetAddress(2, addrOf(2))
		got, err := w.call(a, 2, kindCopy, "", time.Second)
		if err != nil || len(got) != 100_005 || !strings.HasPrefix(got, "head \x07") {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
}

// TestLargestBatchesAreAnswered: what followers copy comes in whole batches, and one may be larger than any other frame.
func TestLargestBatchesAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		large := bytes.Repeat([]byte{7}, maxFrameBytes+1)
		answer := func(context.Context, Node, []byte) (wire.Reply, bool, error) {
			return func(_ context.Context, out *wire.Out) error {
				out.Bytes(large)
				return nil
			}, true, nil
		}
		b.Handle(kindCopy, answer)
		b.Handle(kindNote, answer)
		a.SetAddress(2, addrOf(2))
		if got, err := w.call(a, 2, kindCopy, "", time.Minute); err != nil || len(got) != len(large) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if got, err := w.call(a, 2, kindNote, "", time.Minute); err == nil {
			t.Errorf("%d bytes that are no data", len(got))
		}
	})
}

func TestOverRealConnections(t *testing.T) {
	open := func(id int32) *Peers {
		l, err := netx.TCP.Listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(t.Context(), Options{
			Network: netx.TCP, Listener: l, Self: Node{ID: id}, ClusterID: "one",
			Logger: slog.New(slog.DiscardHandler), Random: rand.NewChaCha8([32]byte{byte(id)}),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	a, b := open(1), open(2)
	b.Handle(kindEcho, Answer(func(_ context.Context, from Node, body []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%d:%s", from.ID, body), nil
	}))
	a.SetAddress(2, b.o.Listener.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := a.Call(ctx, 2, kindEcho, []byte("x"))
	if err != nil || string(got) != "1:x" {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestLargeFramesWaitForMemory: while as many bytes are handled as may be, further large frames are not read, small ones are, and
// one that is larger than all that was allowed goes through alone.
func TestLargeFramesWaitForMemory(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		served := w.node(1, func(o *Options) { o.FrameMemory = 1 })
		var at, most atomic.Int64
		release := make(chan struct{})
		served.Handle(kindNote, Receive(func(_ Node, body []byte) error { // on the reader, so it holds the frame
			if len(body) > keepFrameBytes {
				most.Store(max(most.Load(), at.Add(1)))
				<-release
				at.Add(-1)
			}
			return nil
		}))
		var asking sync.WaitGroup
		for id := range int32(3) {
			p := w.node(2+id, nil)
			p.SetAddress(1, addrOf(1))
			w.mustEcho(p, 2+id, 1)
			asking.Go(func() {
				if !p.Post(1, kindNote, make([]byte, maxPostedBytes-100)) {
					t.Error("it is not sent")
				}
			})
		}
		asking.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		small := w.node(9, nil)
		small.SetAddress(1, addrOf(1))
		w.mustEcho(small, 9, 1)
		for range 3 {
			release <- struct{}{}
		}
		synctest.Wait()
		if most.Load() != 1 || at.Load() != 0 {
			t.Fatalf("%d large frames were handled at a time, %d are left", most.Load(), at.Load())
		}
	})
}
