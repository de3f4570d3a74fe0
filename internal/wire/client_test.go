package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"barnabas/internal/faketime"
	"barnabas/internal/netx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const private = 1000

// pair connects a client's end with a broker's on a memory network.
func pair(t *testing.T, seed uint64) (client, broker net.Conn) {
	t.Helper()
	m := netx.NewMem(seed)
	l, err := m.Host("broker").Listen(t.Context(), "broker:1")
	if err != nil {
		t.Fatal(err)
	}
	client, err = m.Host("client").Dial(t.Context(), "broker:1")
	if err != nil {
		t.Fatal(err)
	}
	broker, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = client.Close(), broker.Close(), l.Close() })
	return client, broker
}

func readFrame(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// answer writes the response to a request: its header, and a body.
func answer(w net.Conn, h Header, body []byte) error {
	o := &Out{}
	o.Begin(h.CorrelationID, FlexibleResponse(h.Key, h.Version))
	o.Bytes(body)
	if _, err := o.End(); err != nil {
		return err
	}
	return o.Flush(w)
}

// Requests of many callers leave in the order of the calls, and everyone gets the answer to the
// own one, in whatever order the answers come.
func TestClientMatchesAnswers(t *testing.T) {
	for seed := range uint64(50) {
		faketime.Test(t, func(t *testing.T) { clientMatchesAnswers(t, seed) })
	}
}

func clientMatchesAnswers(t *testing.T, seed uint64) {
	dice := rand.New(rand.NewPCG(seed, 0))
	conn, broker := pair(t, seed)
	c := NewClient(conn, ClientOptions{ClientID: "test", MaxInFlight: 1 + dice.IntN(20)})
	defer c.Close()
	const callers, each = 5, 20
	most := 0
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		next := map[byte]byte{} // by caller
		var held []Request
		for range callers * each {
			frame, err := readFrame(broker)
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
				return
			}
			r, err := ParseRequest(frame)
			if err != nil || r.ClientID != "test" || r.Body[1] != next[r.Body[0]] {
				t.Errorf("seed %d: %+v, %v; want number %d", seed, r, err, next[r.Body[0]])
				return
			}
			next[r.Body[0]]++
			held = append(held, r)
			most = max(most, len(held))
			for len(held) > 0 && (dice.IntN(2) == 0 || c.InFlight() == cap(c.slots)) {
				i := dice.IntN(len(held))
				if err := answer(broker, held[i].Header, held[i].Body); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				held = append(held[:i], held[i+1:]...)
			}
		}
		for _, r := range held {
			if err := answer(broker, r.Header, r.Body); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	})
	var calling sync.WaitGroup
	for caller := range byte(callers) {
		calling.Go(func() {
			var pending []*Pending
			for i := range byte(each) {
				key, version := int16(0), int16(8+i%2) // with and without a flexible header
				p, err := c.Start(t.Context(), key, version, func(b []byte) []byte { return append(b, caller, i) })
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				pending = append(pending, p)
			}
			for i, p := range pending {
				body, err := p.Wait(t.Context())
				if err != nil || !bytes.Equal(body, []byte{caller, byte(i)}) {
					t.Errorf("seed %d: caller %d request %d: %v, %v", seed, caller, i, body, err)
				}
			}
		})
	}
	calling.Wait()
	if most > cap(c.slots) {
		t.Errorf("seed %d: %d requests in flight, limit %d", seed, most, cap(c.slots))
	}
}

// When the connection breaks, everything pending and everything later fails with the cause.
func TestBrokenConnectionFailsAllPending(t *testing.T) {
	causes := map[string]func(c *Client, broker net.Conn) error{
		"peer closes": func(_ *Client, b net.Conn) error { _ = b.Close(); return io.EOF },
		"truncated": func(_ *Client, b net.Conn) error {
			_, _ = b.Write([]byte{0, 0, 1, 0, 0, 0, 0, 0, 9})
			_ = b.Close()
			return io.ErrUnexpectedEOF
		},
		"unasked":       func(_ *Client, b net.Conn) error { _, _ = b.Write([]byte{0, 0, 0, 4, 0, 0, 7, 7}); return ErrMalformed },
		"negative size": func(_ *Client, b net.Conn) error { _, _ = b.Write(bytes.Repeat([]byte{0xff}, 8)); return ErrMalformed },
		"too large": func(_ *Client, b net.Conn) error {
			_, _ = b.Write([]byte{0, 0, 16, 0, 0, 0, 0, 0})
			return ErrMalformed
		},
		"bad header": func(_ *Client, b net.Conn) error { _, _ = b.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0}); return ErrMalformed },
		"closed":     func(c *Client, _ net.Conn) error { _ = c.Close(); return ErrClosed },
	}
	for name, cause := range causes {
		faketime.Test(t, func(t *testing.T) {
			conn, broker := pair(t, 1)
			c := NewClient(conn, ClientOptions{MaxInFlight: 5, MaxResponseBytes: 1000})
			defer c.Close()
			var pending []*Pending
			for range 5 {
				p, err := c.Start(t.Context(), private, 0, func(b []byte) []byte { return b })
				if err != nil {
					t.Fatal(err)
				}
				pending = append(pending, p)
			}
			blocked := make(chan error, 1)
			go func() { // past the limit in flight
				_, err := c.Start(t.Context(), private, 0, func(b []byte) []byte { return b })
				blocked <- err
			}()
			for range pending { // a close with bytes unread would be a reset
				if _, err := readFrame(broker); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			want := cause(c, broker)
			for i, p := range pending {
				if _, err := p.Wait(t.Context()); !errors.Is(err, want) {
					t.Errorf("%s: request %d: %v", name, i, err)
				}
			}
			if err := <-blocked; !errors.Is(err, want) {
				t.Errorf("%s: the one that waited: %v", name, err)
			}
			if _, err := c.Start(t.Context(), private, 0, func(b []byte) []byte { return b }); !errors.Is(err, want) {
				t.Errorf("%s: a later one: %v", name, err)
			}
			<-c.Broken()
			if !errors.Is(c.Err(), want) {
				t.Errorf("%s: Err gives %v", name, c.Err())
			}
		})
	}
}

// Whoever gives up waiting leaves the connection as it was.
func TestAbandonedRequestDisturbsNobody(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		conn, broker := pair(t, 1)
		c := NewClient(conn, ClientOptions{MaxInFlight: 1})
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Call(ctx, private, 0, func(b []byte) []byte { return b }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gave up with %v", err)
		}
		// It still takes its place in flight, until the answer comes.
		if _, err := c.Start(ctx, private, 0, func(b []byte) []byte { return b }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the next is started: %v", err)
		}
		go func() {
			for range 2 {
				frame, err := readFrame(broker)
				if err != nil {
					t.Error(err)
					return
				}
				r, _ := ParseRequest(frame)
				if err := answer(broker, r.Header, []byte("late")); err != nil {
					t.Error(err)
				}
			}
		}()
		if body, err := c.Call(t.Context(), private, 0, func(b []byte) []byte { return b }); err != nil || string(body) != "late" {
			t.Errorf("%q, %v", body, err)
		}
	})
}

// Requests without an answer take a place only until they are written.
func TestUnansweredRequestsDoNotPileUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		conn, broker := pair(t, 1)
		c := NewClient(conn, ClientOptions{MaxInFlight: 2})
		defer c.Close()
		got := make(chan int, 1)
		go func() {
			n := 0
			for ; n < 100; n++ {
				if _, err := readFrame(broker); err != nil {
					break
				}
			}
			got <- n
		}()
		for range 100 {
			if err := c.Send(t.Context(), 0, 9, func(b []byte) []byte { return append(b, make([]byte, 10_000)...) }); err != nil {
				t.Fatal(err)
			}
		}
		if n := <-got; n != 100 {
			t.Errorf("%d of 100 arrived", n)
		}
	})
}

// A peer that takes nothing breaks the connection.
func TestPeerThatTakesNothingBreaksTheConnection(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		conn, _ := pair(t, 1)
		c := NewClient(conn, ClientOptions{WriteStall: 10 * time.Second})
		defer c.Close()
		start := time.Now()
		p, err := c.Start(t.Context(), 0, 9, func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(t.Context()); err == nil {
			t.Error("answered")
		}
		if took := time.Since(start); took < 10*time.Second || took > time.Minute {
			t.Errorf("broken after %v", took)
		}
	})
}

func TestEncoderMayFailNobodyElse(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		conn, _ := pair(t, 1)
		c := NewClient(conn, ClientOptions{ClientID: string(make([]byte, 40_000))})
		defer c.Close()
		if _, err := c.Start(t.Context(), private, 0, func(b []byte) []byte { return b }); !errors.Is(err, ErrMalformed) {
			t.Errorf("a client id of 40,000 bytes: %v", err)
		}
		if len(c.slots) != 0 {
			t.Error("the refused request keeps its place")
		}
	})
}

// A response goes where the caller says; one that was given up still comes there, and to nobody else.
func TestResponsesGoIntoTheCallersMemory(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		conn, broker := pair(t, 1)
		c := NewClient(conn, ClientOptions{})
		defer c.Close()
		body := func(dst []byte) []byte { return dst }
		given, kept := make([]byte, 100), make([]byte, 100)
		into := func(b []byte) func(int) []byte { return func(n int) []byte { return b[:n] } }
		impatient, giveUp := context.WithCancel(t.Context())
		abandoned := make(chan error, 1)
		go func() {
			_, err := c.CallInto(impatient, private, 0, body, into(given))
			abandoned <- err
		}()
		synctest.Wait()
		giveUp()
		if err := <-abandoned; !errors.Is(err, context.Canceled) {
			t.Fatalf("given up: %v", err)
		}
		answered := make(chan []byte, 1)
		go func() {
			b, err := c.CallInto(t.Context(), private, 0, body, into(kept))
			if err != nil {
				t.Error(err)
			}
			answered <- b
		}()
		for _, text := range []string{"first", "second"} {
			frame, err := readFrame(broker)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ParseRequest(frame)
			if err != nil {
				t.Fatal(err)
			}
			if err := answer(broker, r.Header, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		b := <-answered
		if string(b) != "second" || !bytes.Contains(kept, []byte("second")) {
			t.Fatalf("answered %q, the memory holds %q", b, kept)
		}
		if !bytes.Contains(given, []byte("first")) || bytes.Contains(kept, []byte("first")) {
			t.Fatalf("the abandoned answer: %q in its memory, %q in that of the next", given, kept)
		}
	})
}
