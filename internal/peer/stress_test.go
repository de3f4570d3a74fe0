package peer

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// failing is a listener that fails a few times.
type failing struct {
	net.Listener
	left int
}

func (l *failing) Accept() (net.Conn, error) {
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// A process that has run out of descriptors for a while hears of the others again.
func TestListenerSurvivesFailedAccepts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.node(1, nil)
		w.node(2, func(o *Options) { o.Listener = &failing{o.Listener, 10} })
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
	})
}

// However many strangers connect and say nothing, a node of the cluster gets in.
func TestStrangersWhoSitThereKeepNobodyOut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, _ := w.node(1, nil), w.node(2, nil)
		for range 3 * maxHandshakes {
			w.dial("stranger", addrOf(2))
			synctest.Wait()
		}
		a.SetAddress(2, addrOf(2))
		if got, err := w.call(a, 2, kindEcho, "hello", 100*time.Millisecond); err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

// A node that is gone is given up, though the requests to it leave no room for one that asks whether it is.
func TestSilentNodeIsGivenUpWithAsManyRequestsAsThereMayBe(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, _ := w.node(1, nil), w.node(2, nil)
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		var asking sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range maxInFlight {
			asking.Go(func() {
				_, _ = a.Call(ctx, 2, kindHang, nil)
			})
		}
		synctest.Wait()
		began := time.Now()
		w.net.Cut("node1", "node2")
		asking.Wait()
		if took := time.Since(began); took > 2*pingPatience {
			t.Fatalf("given up after %v", took)
		}
		cancel()
	})
}
