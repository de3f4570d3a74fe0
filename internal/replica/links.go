package replica

import (
	"context"
	"sync"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

// Peers carries messages to other brokers; the other end hands them to Manager.Serve.
type Peers interface {
	// Call sends a message and waits for its answer of n bytes or a few less, which may be put where memory(n) says.
	// Without an answer it is not known whether the message has arrived; body may still be read then, and memory called
	// and what it returned written to. After an answer all are the caller's again.
	Call(ctx context.Context, broker int32, kind Kind, body []byte, memory func(n int) []byte) ([]byte, error)
	// Post sends a message that nobody answers. It does not wait; false means that it is lost already, for there is no
	// connection or too much waits for it. body must not change any more.
	Post(broker int32, kind Kind, body []byte) bool
}

// ISRs asks the controller for other in-sync replicas.
type ISRs interface {
	// Alter puts proposals of this broker, registered in epoch, to the controller. The outcomes are in their order. After
	// an error it is not known whether the proposals have taken effect, or will.
	Alter(ctx context.Context, epoch int64, proposals []metadata.ISRProposal) ([]metadata.ISROutcome, error)
}

// Cluster connects a broker's replicas with those of others.
type Cluster struct {
	Peers Peers
	ISRs  ISRs
	// MaxLagMessages (replica.lag.max.messages): a follower that is further behind leaves the in-sync replicas; 0: however far.
	MaxLagMessages int64
	// Jitter spreads what happens again and again; it returns a duration of at least 0 and less than its argument.
	Jitter func(time.Duration) time.Duration
}

// links are this broker's fetchers, one for each leader that it follows, and the goroutine that sends what
// must not wait behind a fetch.
type links struct {
	m       *Manager
	peers   Peers
	jitter  func(time.Duration) time.Duration
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	posts   chan struct{} // holds one token: some fetcher has something to send

	mu struct { // short
		sync.Mutex
		fetchers map[int32]*fetcher
		order    []*fetcher
		closed   bool
		lanes    map[*commitlog.Dir]*lane
	}
}

func newLinks(m *Manager, c *Cluster) *links {
	l := &links{m: m, peers: c.Peers, jitter: c.Jitter, posts: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.mu.fetchers, l.mu.lanes = map[int32]*fetcher{}, map[*commitlog.Dir]*lane{}
	l.running.Go(l.post)
	return l
}

// close ends all fetchers and waits for them.
func (l *links) close() {
	l.mu.Lock()
	l.mu.closed = true
	l.mu.Unlock()
	l.cancel()
	l.running.Wait()
}

// fetcher returns the fetcher from a leader.
func (l *links) fetcher(leader int32) *fetcher {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.mu.fetchers[leader]
	if f == nil {
		f = newFetcher(l, leader)
		l.mu.fetchers[leader] = f
		l.mu.order = append(l.mu.order, f)
		if !l.mu.closed {
			l.running.Go(func() { f.run(l.ctx) })
		}
	}
	return f
}

func (l *links) signal() {
	select {
	case l.posts <- struct{}{}:
	default:
	}
}

// post sends what disks have done since the last time, and nudges leaders whose fetch should not go on waiting.
func (l *links) post() {
	for {
		select {
		case <-l.posts:
		case <-l.ctx.Done():
		}
		if l.ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		order := l.mu.order
		l.mu.Unlock()
		for _, f := range order {
			f.post()
		}
	}
}

// rest waits; false when there is nothing left to wait for.
func (l *links) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d + l.jitter(d/8+time.Microsecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
