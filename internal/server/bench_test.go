package server

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"barnabas/internal/wire"
)

// fixed answers every request with the same bytes, without allocating itself.
func fixed(ready bool) Handler {
	body := []byte("twenty bytes of body")
	encode := func(b []byte) []byte { return append(b, body...) }
	reply := func(_ context.Context, out *wire.Out) error { out.Append(encode); return nil }
	return handlerFunc(func(context.Context, *wire.Peer, *wire.Request) (wire.Reply, bool, error) { return reply, ready, nil })
}

// roundTrip sends frames and reads as many answers of a known size.
func roundTrip(tb testing.TB, c net.Conn, frames, answers []byte) {
	if _, err := c.Write(frames); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(c, answers); err != nil {
		tb.Fatal(err)
	}
}

const answerBytes = 4 + 4 + 1 + 20

// The server itself allocates nothing for a request, whoever completes its reply.
func TestRequestsDoNotAllocate(t *testing.T) {
	for _, ready := range []bool{true, false} {
		for _, body := range []int{100, 100_000} {
			r := newTCPRig(t, fixed(ready), Limits{})
			c := r.dial()
			frame, answer := request(keyProduce, 9, 1, make([]byte, body)), make([]byte, answerBytes)
			roundTrip(t, c, frame, answer)
			// Pools may be emptied under way, so not quite none.
			if n := testing.AllocsPerRun(500, func() { roundTrip(t, c, frame, answer) }); n > 1 && !poolsForget {
				t.Errorf("ready %t, %d bytes: %v allocations per request", ready, body, n)
			}
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, c := range []struct {
		name  string
		ready bool
		depth int
		bytes int
	}{
		{"ready", true, 1, 200},
		{"ready/burst=5", true, 5, 200},
		{"ready/bytes=16384", true, 1, 16 << 10},
		{"ready/bytes=1MiB", true, 1, 1 << 20},
		{"waits", false, 1, 200},
		{"waits/burst=5", false, 5, 200},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := Listen(b.Context(), Options{
				Network: tcpOnly{}, Listeners: []Listener{{Addr: "127.0.0.1:0"}}, Handler: fixed(c.ready),
			})
			if err != nil {
				b.Fatal(err)
			}
			conn, err := net.Dial("tcp", s.Addrs()[0].String())
			if err != nil {
				b.Fatal(err)
			}
			var frames []byte
			for i := range c.depth {
				frames = append(frames, request(keyProduce, 9, int32(i), make([]byte, c.bytes))...)
			}
			answers := make([]byte, c.depth*answerBytes)
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, conn, frames, answers)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*c.depth), "us/req")
			_ = conn.Close()
			if err := s.Shutdown(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

type tcpOnly struct{}

func (tcpOnly) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var l net.ListenConfig
	return l.Listen(ctx, "tcp", addr)
}

// BenchmarkIdleConnection measures what an idle connection holds after it has been used: its
// goroutine's stack, its own structure, and no buffer. The client's side is in the same process
// and is counted with it.
func BenchmarkIdleConnection(b *testing.B) {
	const connections = 1000
	for _, ready := range []bool{true, false} {
		name := map[bool]string{true: "ready", false: "waited"}[ready]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := Listen(b.Context(), Options{
					Network: tcpOnly{}, Listeners: []Listener{{Addr: "127.0.0.1:0"}}, Handler: fixed(ready),
				})
				if err != nil {
					b.Fatal(err)
				}
				before := resources()
				conns := make([]net.Conn, connections)
				frame, answer := request(keyProduce, 9, 1, make([]byte, 40_000)), make([]byte, answerBytes)
				for i := range conns {
					if conns[i], err = net.Dial("tcp", s.Addrs()[0].String()); err != nil {
						b.Fatal(err)
					}
					roundTrip(b, conns[i], frame, answer)
				}
				after := resources()
				b.ReportMetric(float64(after.heap-before.heap)/connections, "heapB/conn")
				b.ReportMetric(float64(after.goroutines-before.goroutines)/connections, "goroutines/conn")
				for _, c := range conns {
					_ = c.Close()
				}
				if err := s.Shutdown(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The head of a request must hold the key, which limits depend on.
func TestHeadReachesTheKey(t *testing.T) {
	frame := request(keyProduce, 9, 1, nil)
	if key, version := wire.PeekRequest(frame[wire.LengthBytes:headBytes]); key != keyProduce || version != 9 {
		t.Errorf("key %d, version %d", key, version)
	}
	if size := binary.BigEndian.Uint32(frame); size < wire.MinRequestBytes {
		t.Errorf("%d bytes", size)
	}
}
