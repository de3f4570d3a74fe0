package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"barnabas/internal/faketime"
	"barnabas/internal/wire"
)

// poller answers "poll" requests after an hour, or when they are hurried, and says which. Each holds
// 100 bytes meanwhile.
func poller(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
	req.HoldsBytes, req.AnnouncesWait = 100, true
	return func(ctx context.Context, out *wire.Out) error {
		out.Waiting()
		t := time.NewTimer(time.Hour)
		defer t.Stop()
		said := "waited"
		select {
		case <-t.C:
		case <-out.Hurried():
			said = "hurried"
		case <-ctx.Done():
			return ctx.Err()
		}
		out.Bytes([]byte(said))
		return nil
	}, false, nil
}

func send(t *testing.T, c net.Conn, ids ...int32) {
	t.Helper()
	var frames []byte
	for _, id := range ids {
		frames = append(frames, request(private, 0, id, nil)...)
	}
	if _, err := c.Write(frames); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // the network's time
}

func expectReplies(t *testing.T, c io.Reader, want ...string) {
	t.Helper()
	for _, w := range want {
		id, body, err := response(c)
		if got := fmt.Sprint(id, " ", string(body)); err != nil || got != w {
			t.Fatalf("reply %q, want %q (%v)", got, w, err)
		}
	}
}

// A reply that was to be ready and has to wait all the same holds none back that was complete before it.
func TestReadyReplyThatWaitsSaysSo(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(func(_ context.Context, _ *wire.Peer, req *wire.Request) (wire.Reply, bool, error) {
			id := req.CorrelationID
			return func(_ context.Context, out *wire.Out) error {
				if id == 2 {
					out.Waiting()
					time.Sleep(time.Hour)
				}
				out.Bytes([]byte("done"))
				return nil
			}, true, nil
		}), Limits{})
		c := r.dial()
		start := time.Now()
		send(t, c, 1, 2, 3)
		expectReplies(t, c, "1 done")
		if since := time.Since(start); since > time.Minute {
			t.Errorf("the first waited for %v", since)
		}
		expectReplies(t, c, "2 done", "3 done")
	})
}

// TestWhatRepliesHoldWhileTheyWaitIsBounded over all connections: past the limit they do not wait, nobody
// who waits is disturbed by another connection, and everything is given back.
func TestWhatRepliesHoldWhileTheyWaitIsBounded(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		r := newRig(t, 1, handlerFunc(poller), Limits{RequestMemoryBytes: 350, Stall: 24 * time.Hour, Idle: 24 * time.Hour})
		inUse := func(want int64) {
			t.Helper()
			time.Sleep(time.Second)
			if got := r.server.waiting.inUse(); got != want {
				t.Fatalf("%d bytes are held, want %d", got, want)
			}
		}
		start := time.Now()
		patient, leaving := r.dial(), r.dial()
		send(t, patient, 1, 2)
		send(t, leaving, 1)
		inUse(300)
		alone := r.dial()
		send(t, alone, 7)
		expectReplies(t, alone, "7 hurried")
		if since := time.Since(start); since > time.Minute {
			t.Errorf("the one too many waited for %v", since)
		}
		inUse(300)
		again := time.Now()
		if _, err := alone.Write(append(request(private, 0, 8, nil), request(private, 0, 9, nil)...)); err != nil {
			t.Fatal(err)
		}
		expectReplies(t, alone, "8 hurried", "9 hurried")
		if since := time.Since(again); since < hurriedPause || since > time.Minute {
			t.Errorf("who is not allowed to wait asks twice within %v", since)
		}
		_ = leaving.Close()
		inUse(200)
		send(t, alone, 10)
		inUse(300)
		// One more on the same connection: what waits there goes first, in order.
		send(t, alone, 11)
		expectReplies(t, alone, "10 hurried", "11 hurried")
		inUse(200)
		expectReplies(t, patient, "1 waited")
		inUse(100)
		expectReplies(t, patient, "2 waited")
		inUse(0)
		send(t, alone, 12)
		expectReplies(t, alone, "12 waited")
		if got := r.count("requests_hurried_total"); got != 4 {
			t.Errorf("%d hurried requests counted", got)
		}
	})
}
