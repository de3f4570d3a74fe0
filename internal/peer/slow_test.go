package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

// thin is a network on which what arrives at who dials comes slowly.
type thin struct {
	netx.Network
	bytesPerSecond *atomic.Int64 // 0: nothing arrives any more
}

func (n thin) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &thinConn{Conn: c, rate: n.bytesPerSecond, closed: make(chan struct{})}, nil
}

type thinConn struct {
	net.Conn
	rate   *atomic.Int64
	closed chan struct{}
	once   atomic.Bool
}

func (c *thinConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), 16<<10)])
	for left := n; left > 0; {
		rate := c.rate.Load()
		step := time.Second // until it is looked at again
		if rate > 0 {
			step = min(step, time.Duration(float64(left)/float64(rate)*float64(time.Second))+1)
		}
		select {
		case <-time.After(step):
		case <-c.closed:
			return 0, net.ErrClosed
		}
		left -= int(float64(rate) * step.Seconds())
		if rate > 0 && step < time.Second {
			left = 0
		}
	}
	return n, err
}

func (c *thinConn) Close() error {
	if !c.once.Swap(true) {
		close(c.closed)
	}
	return c.Conn.Close()
}

// slowPair is two nodes of which the first hears the second over a line of so many bytes a second. The second answers kindCopy
// with so many bytes.
func slowPair(w *world, answer int) (a, b *Peers, rate *atomic.Int64) {
	rate = &atomic.Int64{}
	rate.Store(10 << 20)
	a = w.node(1, func(o *Options) { o.Network = thin{o.Network, rate} })
	b = w.node(2, nil)
	b.Handle(kindCopy, func(context.Context, Node, []byte) (wire.Reply, bool, error) {
		return func(_ context.Context, out *wire.Out) error {
			out.Bytes(make([]byte, answer))
			return nil
		}, true, nil
	})
	b.Handle(kindCopy+1, Answer(func(context.Context, Node, []byte) ([]byte, error) { return []byte("small"), nil }))
	a.SetAddress(2, addrOf(2))
	return a, b, rate
}

// TestLargeAnswerComesOverAThinLine: an answer that takes a minute arrives, for the other end is there as long as its bytes
// come; and what is sent to that end meanwhile does not wait for it.
func TestLargeAnswerComesOverAThinLine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const size, rate = 12 << 20, 200_000
		a, b, line := slowPair(w, size)
		var notes []time.Time
		b.Handle(kindCopy+2, Receive(func(Node, []byte) error { notes = append(notes, time.Now()); return nil }))
		w.mustEcho(a, 1, 2)
		if _, err := w.call(a, 2, kindCopy+1, "", time.Second); err != nil { // the data connection is there
			t.Fatal(err)
		}
		line.Store(rate)
		done := make(chan error, 1)
		began := time.Now()
		go func() {
			got, err := w.call(a, 2, kindCopy, "", 5*time.Minute)
			if err == nil && len(got) != size {
				err = io.ErrUnexpectedEOF
			}
			done <- err
		}()
		var posted []time.Time
		for range 30 {
			<-time.After(time.Second)
			posted = append(posted, time.Now())
			if !a.Post(2, kindCopy+2, nil) {
				t.Fatal("the connection has gone")
			}
		}
		if err := <-done; err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		if took, due := time.Since(began), time.Duration(float64(size)/rate*float64(time.Second)); took < due || took > due+due/10 {
			t.Errorf("it took %v", took)
		}
		if len(notes) != len(posted) {
			t.Fatalf("%d of %d notes have come", len(notes), len(posted))
		}
		for i := range notes {
			if took := notes[i].Sub(posted[i]); took > 100*time.Millisecond {
				t.Errorf("a note took %v", took)
			}
		}
		if _, err := w.call(a, 2, kindCopy+1, "", time.Second); err != nil {
			t.Error(err)
		}
	})
}

// TestAnswerThatStopsIsGivenUp: a line on which nothing comes any more, in the middle of an answer, is given up as soon as one
// that was silent before; and one on which hardly anything comes after the time that its bytes have bought.
func TestAnswerThatStopsIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		rate        int64
		least, most time.Duration
	}{
		{0, pingPatience - time.Second, pingPatience + 3*time.Second},
		{10 << 10, pingPatience, 3 * time.Minute}, // it had bought two
	} {
		bubble(t, func(t *testing.T, w *world) {
			a, _, line := slowPair(w, 50<<20)
			w.mustEcho(a, 1, 2)
			line.Store(200_000)
			done := make(chan error, 1)
			go func() {
				_, err := w.call(a, 2, kindCopy, "", time.Hour)
				done <- err
			}()
			<-time.After(20 * time.Second)
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatal(err)
			default:
			}
			line.Store(c.rate)
			began := time.Now()
			err := <-done
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if took := time.Since(began); took < c.least || took > c.most {
				t.Errorf("at %d bytes per second it was given up after %v", c.rate, took)
			}
		})
	}
}

// TestSignsOfLifeAreNotAnswered: they come while an answer is under way, and one more would only stand behind it.
func TestSignsOfLifeAreNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.node(2, nil)
		c := w.introduce()
		client := wire.NewClient(c.Conn, wire.ClientOptions{})
		defer client.Close()
		for range 3 {
			if err := client.Send(t.Context(), KindKey+int16(kindPing), oneWay, func(dst []byte) []byte { return dst }); err != nil {
				t.Fatal(err)
			}
		}
		answer, err := client.Call(t.Context(), KindKey+int16(kindEcho), 0, func(dst []byte) []byte { return append(dst, "hello"...) })
		if err != nil || !bytes.HasSuffix(answer, []byte("1:hello")) {
			t.Fatal(answer, err)
		}
	})
}
