package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/faketime"
)

// told remembers what an observer was told.
type told struct {
	mu   sync.Mutex
	said []string
}

func (o *told) tell(node int32, up bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = append(o.said, fmt.Sprintf("%d:%v", node, up))
}

func (o *told) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.said)
}

// Every observer is told, whatever another one does, and one that came late is told of what stands.
func TestEveryObserverIsToldAndNoneHoldsUpAnother(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		stuck := make(chan struct{})
		defer close(stuck)
		a.Observe(func(int32, bool) { <-stuck })
		var first, late, gone told
		a.Observe(first.tell)
		cancel := a.Observe(gone.tell)
		cancel()
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		a.Observe(late.tell)
		w.net.Kill("node2")
		_ = b.Close()
		time.Sleep(10 * time.Millisecond)
		for name, o := range map[string]*told{"the first": &first, "the late one": &late} {
			if got := o.all(); !slices.Equal(got, []string{"2:true", "2:false"}) {
				t.Errorf("%s was told %v", name, got)
			}
		}
		w.node(2, nil)
		w.mustEcho(a, 1, 2)
		if got := gone.all(); len(got) > 0 {
			t.Errorf("one that had cancelled was told %v", got)
		}
		if got := first.all(); !slices.Equal(got, []string{"2:true", "2:false", "2:true"}) {
			t.Errorf("the first was told %v", got)
		}
	})
}

// What waits for an observer is bounded by the number of nodes, and an end is never left out.
func TestSlowObserverMissesNoEnd(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.node(1, nil)
		defer func() { _ = a.Close() }()
		release, stands := make(chan struct{}), make(chan struct{})
		var o told
		first := true
		a.Observe(func(node int32, up bool) {
			if first {
				first = false
				close(stands)
				<-release
			}
			o.tell(node, up)
		})
		l := &link{p: a, to: 7}
		a.observed(l, true)
		<-stands
		for range 1000 {
			a.observed(l, false)
			a.observed(l, true)
		}
		a.mu.Lock()
		waits := a.mu.observers[0]
		a.mu.Unlock()
		waits.mu.Lock()
		if n := len(waits.mu.news); n > 2 {
			t.Errorf("%d changes of one node wait", n)
		}
		waits.mu.Unlock()
		close(release)
		synctest.Wait()
		if got := o.all(); !slices.Equal(got, []string{"7:true", "7:false", "7:true"}) {
			t.Errorf("told %v", got)
		}
	})
}

// TestForgottenNodeIsLeftAlone: nobody dials it any more, who waits for it or asks for it is told at once, observers hear
// that it is away, and it can become known again.
func TestForgottenNodeIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1, nil), w.node(2, nil)
		heard := &told{}
		defer a.Observe(heard.tell)()
		b.Handle(kindCopy, Answer(func(context.Context, Node, []byte) ([]byte, error) { return nil, nil }))
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		if _, err := w.call(a, 2, kindCopy, "", time.Second); err != nil {
			t.Fatal(err)
		}
		a.Forget(2)
		if _, err := w.call(a, 2, kindEcho, "", time.Minute); !errors.Is(err, ErrUnknownNode) || a.Connected(2) || a.Post(2, kindNote, nil) {
			t.Fatalf("asked a node that is forgotten: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		b.mu.Lock()
		left := len(b.mu.inbound)
		b.mu.Unlock()
		if left > 0 {
			t.Fatalf("%d connections are left", left)
		}
		w.net.Kill("node2")
		a.SetAddress(2, addrOf(2)) // and now it does not answer
		waits := make(chan error, 1)
		go func() {
			_, err := w.call(a, 2, kindEcho, "", time.Hour)
			waits <- err
		}()
		time.Sleep(time.Minute)
		a.Forget(2)
		if err := <-waits; !errors.Is(err, ErrUnknownNode) {
			t.Fatalf("who waited was told %v", err)
		}
		w.node(2, nil)
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		synctest.Wait()
		if got := heard.all(); !slices.Equal(got, []string{"2:true", "2:false", "2:true"}) {
			t.Fatalf("heard %v", got)
		}
	})
}

// TestHeardStopsWithTheAnswers: nodes that can be reached are heard every 1.1 seconds at least, those that cannot are not.
func TestHeardStopsWithTheAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.node(1, nil)
		w.node(2, nil)
		if !a.Heard().IsZero() {
			t.Fatalf("heard at %v", a.Heard())
		}
		a.SetAddress(2, addrOf(2))
		w.mustEcho(a, 1, 2)
		for range 500 {
			time.Sleep(10 * time.Millisecond)
			if ago := time.Since(a.Heard()); ago > 1200*time.Millisecond {
				t.Fatalf("heard %v ago", ago)
			}
		}
		w.net.Cut("node1", "node2")
		cut := time.Now()
		time.Sleep(10 * time.Second)
		if heard := a.Heard(); heard.After(cut) || cut.Sub(heard) > 1200*time.Millisecond {
			t.Fatalf("cut at %v, heard at %v", cut, heard)
		}
	})
}
