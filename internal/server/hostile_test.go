package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// decoding is a handler that decodes whatever Kafka knows and answers with an empty response.
func decoding(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
	q := kmsg.RequestForKey(req.Key)
	if q == nil || req.Version > q.MaxVersion() {
		return nil, false, fmt.Errorf("unsupported key %d version %d", req.Key, req.Version)
	}
	q.SetVersion(req.Version)
	if err := q.ReadFrom(req.Body); err != nil {
		return nil, false, fmt.Errorf("decode: %w", err)
	}
	res := q.ResponseKind()
	res.SetVersion(req.Version)
	return func(_ context.Context, out *wire.Out) error { out.Append(res.AppendTo); return nil }, req.CorrelationID%3 != 0, nil
}

// valid is a well-formed request of some kind and version.
func valid(dice *rand.Rand, id int32) []byte {
	for {
		q := kmsg.RequestForKey(int16(dice.IntN(kmsg.MaxKey + 1)))
		if q.Key() >= 4 && q.Key() <= 7 {
			continue
		}
		q.SetVersion(int16(dice.IntN(int(q.MaxVersion()) + 1)))
		return request(q.Key(), q.GetVersion(), id, q.AppendTo(nil))
	}
}

// hostile is a stream of bytes that no client should send, of every kind that came to mind.
func hostile(dice *rand.Rand) []byte {
	frame := valid(dice, int32(dice.Uint32()))
	switch dice.IntN(8) {
	case 0: // cut off
		return frame[:dice.IntN(len(frame))]
	case 1: // mutated
		for range 1 + dice.IntN(4) {
			frame[4+dice.IntN(len(frame)-4)] = byte(dice.Uint32())
		}
	case 2: // of another length than it says
		binary.BigEndian.PutUint32(frame, dice.Uint32())
	case 3: // noise in a frame
		for i := range frame[4:] {
			frame[4+i] = byte(dice.Uint32())
		}
	case 4: // noise
		for range dice.IntN(2000) {
			frame = append(frame, byte(dice.Uint32()))
		}
	case 5: // oversized, negative, tiny
		frame = binary.BigEndian.AppendUint32(nil, []uint32{0, 1, 9, 1<<31 - 1, 1 << 31, 1<<32 - 1, 200 << 20}[dice.IntN(7)])
		frame = append(frame, make([]byte, dice.IntN(100))...)
	case 6: // a list that claims to be as long as the frame
		q := kmsg.NewPtrMetadataRequest()
		q.SetVersion(9)
		body := binary.AppendUvarint(nil, uint64(dice.IntN(1<<16)))
		frame = request(q.Key(), 9, 1, append(body, make([]byte, dice.IntN(1<<16))...))
	default: // another protocol, or many frames with a bad one in the middle
		if dice.IntN(2) == 0 {
			return []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}
		var burst []byte
		for range dice.IntN(20) {
			burst = append(burst, valid(dice, int32(dice.Uint32()))...)
		}
		return append(append(burst, 0, 0, 0, 3, 1, 2, 3), frame...)
	}
	return frame
}

// Ten thousand malformed, truncated, oversized, random and mutated frames harm nobody else: a
// client works on meanwhile, every broken connection leaves one line, and no goroutine, memory or
// slot is left behind.
func TestHostileFramesHarmNobody(t *testing.T) {
	frames := 10_000
	if testing.Short() {
		frames = 1000
	}
	const attackers = 8
	r := newTCPRig(t, handlerFunc(decoding), Limits{})
	honest := r.client(wire.ClientOptions{ClientID: "honest"})
	work := func() {
		q := kmsg.NewPtrMetadataRequest()
		q.SetVersion(12)
		body, err := honest.Call(t.Context(), q.Key(), 12, q.AppendTo)
		if err == nil {
			err = q.ResponseKind().ReadFrom(body)
		}
		if err != nil {
			t.Errorf("the honest client: %v", err)
		}
	}
	work()
	before := resources()

	var attack sync.WaitGroup
	for seed := range uint64(attackers) {
		attack.Go(func() {
			dice := rand.New(rand.NewPCG(seed, 0))
			for range frames / attackers {
				if err := sendHostile(r, hostile(dice)); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { attack.Wait(); close(done) }()
	for served := 0; ; served++ {
		work()
		select {
		case <-done:
			if served < 100 {
				t.Errorf("the honest client was served only %d times", served)
			}
			waitUntil(t, "only the honest connection is left", func() bool { return r.server.slots.inUse() == 1 })
			// A connection gives its slot back before it is told of, and its goroutine ends last.
			waitUntil(t, "no goroutine is left behind", func() bool { return runtime.NumGoroutine() <= before.goroutines })
			work()
			if after := resources(); after.heap > before.heap+8<<20 {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if a, d := r.server.arriving.inUse(), r.server.decoding.inUse(); a != 0 || d != 0 {
				t.Errorf("%d and %d bytes of request memory are not given back", a, d)
			}
			lines := r.log.all()
			if n := r.count("connections_broken_total"); n != len(lines) || n < frames/2 {
				t.Errorf("%d connections broken, %d lines in the log", n, len(lines))
			}
			if i := slices.IndexFunc(lines, func(l string) bool { return !strings.Contains(l, "connection closed") }); i >= 0 {
				t.Errorf("logged %q", lines[i])
			}
			return
		default:
		}
	}
}

// sendHostile sends bytes, ends the sending side, and reads to the end: the server must end it.
func sendHostile(r *rig, b []byte) error {
	c, err := r.network.Dial(context.Background(), r.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return ignoreGone(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return ignoreGone(err)
	}
	_, err = io.Copy(io.Discard, c)
	return ignoreGone(err)
}

// ignoreGone passes only a deadline: the server may end a connection in any manner but not leave
// it open.
func ignoreGone(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Timeout() {
		return fmt.Errorf("the connection stays open: %w", err)
	}
	return nil
}

type held struct {
	goroutines int
	heap       uint64
}

// resources are what is held once the garbage has gone.
func resources() held {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a pool kept from the first one
	runtime.ReadMemStats(&m)
	return held{goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc}
}

// waitUntil gives the scheduler time for something that must come, without a moment when it has to.
func waitUntil(t *testing.T, what string, is func() bool) {
	t.Helper()
	const patience = 2 * time.Minute
	for end := time.Now().Add(patience); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s", patience, what)
		}
	}
}

// bytesConn is a connection that has received bytes, and then its end.
type bytesConn struct {
	in  bytes.Reader
	out bytes.Buffer
}

func (c *bytesConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *bytesConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// noNetwork has listeners that accept nothing.
type noNetwork struct{}

func (noNetwork) Listen(context.Context, string) (net.Listener, error) {
	return nil, errors.New("no network")
}

// Whatever bytes a connection receives: it ends, its replies are well-formed and in the order of
// a prefix of the requests, and all memory is given back.
func FuzzConnection(f *testing.F) {
	for seed := range uint64(40) {
		dice := rand.New(rand.NewPCG(seed, 9))
		f.Add(hostile(dice))
		f.Add(append(valid(dice, 1), valid(dice, 2)...))
	}
	f.Add(request(18, 99, 7, nil))
	f.Fuzz(func(t *testing.T, stream []byte) {
		s, err := Listen(context.Background(), Options{Network: noNetwork{}, Limits: Limits{RequestMemoryBytes: 1 << 20, FrameBytes: 1 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		var asked []int32
		s.handler = handlerFunc(func(ctx context.Context, p *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
			reply, ready, err := decoding(ctx, p, req)
			if err == nil {
				asked = append(asked, req.CorrelationID)
			}
			return reply, ready, err
		})
		conn := &bytesConn{}
		conn.in.Reset(stream)
		if !s.slots.take(context.Background(), nil, 1) {
			t.Fatal("no slot")
		}
		s.admit(conn, &Listener{})
		s.running.Wait()
		for i := 0; conn.out.Len() > 0; i++ {
			b := conn.out.Next(4)
			b = conn.out.Next(int(binary.BigEndian.Uint32(b)))
			if i >= len(asked) || int32(binary.BigEndian.Uint32(b)) != asked[i] {
				t.Fatalf("reply %d is to none of %v in their order: % x", i, asked, b)
			}
		}
		if a, d, c := s.arriving.inUse(), s.decoding.inUse(), s.slots.inUse(); a != 0 || d != 0 || c != 0 {
			t.Fatalf("%d bytes of frames, %d of decoding, %d connections are still held", a, d, c)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}
