package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/client/internal/secure"
	"barnabas/internal/wire"
)

// MaxInFlight bounds the unanswered requests on one connection. The next request waits.
const MaxInFlight = 64

// Links are the long-lived connections of one component (the client itself, a producer, a
// consumer), one to each broker that it has needed. A broker answers the requests of a connection
// in their order, so a fetch that waits for data would hold up whatever shares its connection:
// hence a set for each component.
type Links struct {
	c      *Cluster
	ctx    context.Context // ends with close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // connecting goroutines, the sweeper
	meter  Meter          // nil: nobody counts

	// KeepBytes is how large the buffers for requests are that each connection keeps, 0 for wire's own limit. It is
	// set before the first link is made.
	KeepBytes int

	mu struct { // never held while connecting or sending
		sync.Mutex
		closed bool
		byNode map[int32]*Link
		bySeed map[string]*Link
		sweeps bool
	}
}

// NewLinks makes links of one component, whose meter may be nil.
func NewLinks(c *Cluster, meter Meter) *Links {
	ls := &Links{c: c, meter: meter}
	ls.ctx, ls.cancel = context.WithCancelCause(c.ctx)
	ls.mu.byNode = map[int32]*Link{}
	ls.mu.bySeed = map[string]*Link{}
	c.open.Lock()
	c.open.all[ls] = struct{}{}
	c.open.Unlock()
	return ls
}

// Node gives the link to a broker of the current metadata. A broker that has moved to another
// address gets a new link, and the old one ends.
func (ls *Links) Node(id int32) (*Link, error) {
	b, ok := ls.c.Metadata.Snapshot().Brokers[id]
	if !ok {
		return nil, fmt.Errorf("broker %d: %w", id, ErrUnknownBroker)
	}
	ls.mu.Lock()
	if ls.mu.closed {
		ls.mu.Unlock()
		return nil, ErrClosed
	}
	old := ls.mu.byNode[id]
	if old != nil && old.address == b.Address {
		ls.mu.Unlock()
		return old, nil
	}
	l := &Link{set: ls, node: id, name: fmt.Sprintf("broker %d at %s", id, b.Address), address: b.Address}
	ls.mu.byNode[id] = l
	ls.sweepLocked()
	ls.mu.Unlock()
	if old != nil {
		old.close()
	}
	return l, nil
}

// Candidates gives a link to every known broker, in random order, and then to every address that
// the client was given. Those whose latest attempt to connect has failed come last: one attempt at a host that is gone
// takes as long as SetupTimeout.
func (ls *Links) Candidates() []*Link {
	var well, failing []*Link
	for _, l := range ls.all() {
		if l.fails() {
			failing = append(failing, l)
		} else {
			well = append(well, l)
		}
	}
	return append(well, failing...)
}

func (ls *Links) all() []*Link {
	var out []*Link
	Brokers := ls.c.Metadata.Snapshot().Brokers
	ids := slices.Sorted(maps.Keys(Brokers))
	for _, i := range ls.c.Random.perm(len(ids)) {
		if l, err := ls.Node(ids[i]); err == nil {
			out = append(out, l)
		}
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.mu.closed {
		return nil
	}
	seeds := ls.c.cfg.Seeds
	for _, i := range ls.c.Random.perm(len(seeds)) {
		l := ls.mu.bySeed[seeds[i]]
		if l == nil {
			l = &Link{set: ls, node: -1, name: seeds[i], address: seeds[i]}
			ls.mu.bySeed[seeds[i]] = l
			ls.sweepLocked()
		}
		out = append(out, l)
	}
	return out
}

// fails tells whether the latest attempt to connect has failed. The lock of the set must not be held: Connect takes it
// under the link's.
func (l *Link) fails() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.failures > 0
}

// Close ends all connections and waits for what runs on their behalf.
func (ls *Links) Close() {
	ls.mu.Lock()
	ls.mu.closed = true
	all := slices.Collect(maps.Values(ls.mu.byNode))
	all = slices.AppendSeq(all, maps.Values(ls.mu.bySeed))
	ls.mu.Unlock()
	ls.cancel(ErrClosed)
	ls.wg.Wait()
	for _, l := range all {
		l.close()
	}
	ls.c.open.Lock()
	delete(ls.c.open.all, ls)
	ls.c.open.Unlock()
}

// sweepLocked starts the goroutine that closes idle connections, with the first link.
func (ls *Links) sweepLocked() {
	if ls.mu.sweeps {
		return
	}
	ls.mu.sweeps = true
	ls.wg.Go(func() {
		for Sleep(ls.ctx, ls.c.cfg.MaxIdle/4) == nil {
			ls.mu.Lock()
			all := slices.Collect(maps.Values(ls.mu.byNode))
			all = slices.AppendSeq(all, maps.Values(ls.mu.bySeed))
			ls.mu.Unlock()
			for _, l := range all {
				l.closeIdle(time.Now().Add(-ls.c.cfg.MaxIdle))
			}
		}
	})
}

// Link is a broker as one component reaches it: at most one connection, made when it is first
// needed and again when it has broken, no sooner than reconnect.backoff.ms allows.
type Link struct {
	set     *Links
	node    int32  // -1 where unknown
	name    string // for errors and logs
	address string

	mu struct { // never held while connecting or sending
		sync.Mutex
		closed   bool
		conn     *Connection
		dialling *dialling
		failures int   // in a row
		refused  error // of the latest attempt, where trying again does not mend it
		notUntil time.Time
		lastUse  time.Time
	}
}

// Connection is an established connection whose versions are known.
type Connection struct {
	link     *Link
	name     string
	wire     *wire.Client
	versions apiVersions
	timeout  time.Duration // request.timeout.ms
	session  *session      // nil without SASL
	answered atomic.Bool   // some request after those of the start
}

// dialling is an attempt to connect that several callers may wait for.
type dialling struct {
	done chan struct{}
	conn *Connection
	err  error
}

// Connect gives the connection, making it where there is none. Callers that come while one is
// being made wait for the same attempt, each as long as its own ctx allows. One that client or broker has refused
// to the other is an error at once, see Refused, and no further attempt within reconnect.backoff.ms.
func (l *Link) Connect(ctx context.Context) (*Connection, error) {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", l.name, ErrClosed)
	}
	l.mu.lastUse = time.Now()
	if conn := l.mu.conn; conn != nil && conn.wire.Err() == nil {
		l.mu.Unlock()
		return conn, nil
	}
	broken := l.mu.conn
	l.mu.conn = nil
	d := l.mu.dialling
	if refused := l.mu.refused; refused != nil && d == nil && time.Now().Before(l.mu.notUntil) {
		l.mu.Unlock()
		return nil, refused // an attempt is for nothing, and may cost the user the account
	}
	if d == nil {
		d = &dialling{done: make(chan struct{})}
		l.mu.dialling = d
		wait := time.Until(l.mu.notUntil)
		if !l.set.goRun(func() { l.dial(d, wait, broken) }) {
			l.mu.dialling = nil
			l.mu.Unlock()
			return nil, fmt.Errorf("%s: %w", l.name, ErrClosed)
		}
	}
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to %s: %w", l.name, context.Cause(ctx))
	}
}

func (ls *Links) goRun(f func()) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.mu.closed {
		return false
	}
	ls.wg.Go(f)
	return true
}

// dial makes one attempt, after the wait that earlier failures earned.
func (l *Link) dial(d *dialling, wait time.Duration, broken *Connection) {
	if broken != nil {
		broken.wire.Close() // waits for its reader, so that a link never owns two
	}
	err := Sleep(l.set.ctx, wait)
	var conn *Connection
	if err == nil {
		began := time.Now()
		conn, err = l.establish()
		l.tellConnected(conn, began, err)
	}
	cfg := &l.set.c.cfg
	l.mu.Lock()
	l.mu.refused = nil
	switch {
	case err == nil && l.mu.closed:
		err = ErrClosed
	case err == nil:
		l.mu.conn, l.mu.failures = conn, 0
		// A broker that accepts and hangs up at once must not be connected to in a tight loop.
		l.mu.notUntil = time.Now().Add(cfg.ReconnectBackoff.After(1, l.set.c.Random))
	default:
		l.mu.failures++
		l.mu.notUntil = time.Now().Add(cfg.ReconnectBackoff.After(l.mu.failures, l.set.c.Random))
		if Refused(err) {
			l.mu.refused = fmt.Errorf("connect to %s: %w", l.name, err)
		}
	}
	failures := l.mu.failures
	l.mu.dialling = nil
	l.mu.Unlock()
	if err != nil && conn != nil {
		conn.wire.Close()
		conn = nil
	}
	switch {
	case err == nil:
		d.conn = conn
		conn.tellMeter()
	case errors.Is(err, ErrClosed) || errors.Is(err, ErrUnsupported) || Refused(err):
		d.err = fmt.Errorf("connect to %s: %w", l.name, err)
	default:
		d.err = fmt.Errorf("connect to %s: %w: %w", l.name, errcode.Network, err)
		if failures == 1 {
			l.set.c.log.Warn("broker cannot be reached", "broker", l.name, "error", err)
		}
	}
	close(d.done)
}

// establish connects, negotiates versions, and proves who we are where that is asked for.
func (l *Link) establish() (*Connection, error) {
	c := l.set.c
	ctx, cancel := context.WithTimeoutCause(l.set.ctx, c.cfg.SetupTimeout, secure.ErrNotConnected)
	defer cancel()
	nc, err := c.cfg.Dial(ctx, l.address)
	if err != nil {
		return nil, err
	}
	host := hostOf(l.address)
	if nc, err = c.cfg.TLS.Handshake(ctx, nc, host); err != nil {
		return nil, err
	}
	watched := secure.Watch(nc, c.cfg.TLS == nil)
	conn := &Connection{
		link:     l,
		name:     l.name,
		timeout:  c.cfg.RequestTimeout,
		versions: minimalVersions,
		wire: wire.NewClient(watched, wire.ClientOptions{
			ClientID: c.cfg.ClientID, MaxInFlight: MaxInFlight, MaxResponseBytes: c.cfg.MaxResponseBytes,
			WriteStall: c.cfg.RequestTimeout, KeepBytes: l.set.KeepBytes,
		}),
	}
	versions, err := conn.negotiate(ctx, &c.features)
	if err != nil {
		_ = conn.wire.Close()
		return nil, watched.Explain(err)
	}
	conn.versions = versions
	if c.cfg.Mechanism == nil {
		return conn, nil
	}
	conn.session = &session{conn: conn, set: l.set, host: host}
	if err := conn.session.authenticate(ctx); err != nil {
		_ = conn.wire.Close()
		return nil, err
	}
	return conn, nil
}

// negotiate asks which requests the broker speaks (KIP-35). A broker that does not know our
// version of the question answers version 0, with the versions of the question itself.
func (conn *Connection) negotiate(ctx context.Context, known *features) (apiVersions, error) {
	limit := int16(-1)
	for range 2 {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = softwareName, softwareVersion
		resp, err := conn.Ask(ctx, req, limit)
		if err != nil {
			return apiVersions{}, err
		}
		answer := resp.(*kmsg.ApiVersionsResponse)
		v := apiVersions{ranges: make(map[int16]versionRange, len(answer.ApiKeys))}
		for _, k := range answer.ApiKeys {
			v.ranges[k.ApiKey] = versionRange{k.MinVersion, k.MaxVersion}
		}
		if answer.ErrorCode == int16(errcode.UnsupportedVersion) && limit < 0 {
			limit = v.ranges[req.Key()].most // 0 where it did not say
			continue
		}
		if err := errcode.Of(answer.ErrorCode, nil); err != nil {
			return apiVersions{}, fmt.Errorf("ApiVersions: %w", err)
		}
		known.take(answer)
		return v, nil
	}
	return apiVersions{}, fmt.Errorf("ApiVersions: %w", ErrUnsupported)
}

// close ends the link for good.
func (l *Link) close() {
	l.mu.Lock()
	l.mu.closed = true
	conn := l.mu.conn
	l.mu.conn = nil
	l.mu.Unlock()
	if conn != nil {
		conn.wire.Close()
	}
}

// closeIdle ends the connection, not the link, where it has not been used since.
func (l *Link) closeIdle(since time.Time) {
	l.mu.Lock()
	conn := l.mu.conn
	idle := conn != nil && l.mu.lastUse.Before(since) && conn.wire.InFlight() == 0
	if idle {
		l.mu.conn = nil
	}
	l.mu.Unlock()
	if idle {
		conn.wire.Close()
	}
}

// Request connects where needed, sends, and waits for the answer.
func (l *Link) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	conn, err := l.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Ask(ctx, req, -1)
}

// RequestWithin is Request with a time limit of its own in place of request.timeout.ms: some
// requests wait on purpose.
func (l *Link) RequestWithin(ctx context.Context, req kmsg.Request, limit time.Duration) (kmsg.Response, error) {
	conn, err := l.Connect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := conn.Start(ctx, req, -1)
	if err != nil {
		return nil, err
	}
	p.Extra = limit - conn.timeout
	return p.Wait(ctx)
}

// Call is a request on its way.
type Call struct {
	conn    *Connection
	pending *wire.Pending
	resp    kmsg.Response
	watched *watched  // nil where nobody wants to know
	sent    time.Time // zero where nobody wants to know how long it takes
	// extra is how long the broker may wait on purpose before it answers (a fetch's long poll).
	Extra time.Duration
}

func (conn *Connection) Ask(ctx context.Context, req kmsg.Request, limit int16) (kmsg.Response, error) {
	p, err := conn.Start(ctx, req, limit)
	if err != nil {
		return nil, err
	}
	return p.Wait(ctx)
}

// Version gives the version at which Start would send a request.
func (conn *Connection) Version(req kmsg.Request, limit int16) (int16, error) {
	return conn.versions.choose(req, limit)
}

// Start sends a request at the newest version, at most limit. Requests leave in the order of the calls.
func (conn *Connection) Start(ctx context.Context, req kmsg.Request, limit int16) (*Call, error) {
	if s := conn.session; s != nil {
		if err := s.enter(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", conn.name, err)
		}
		defer s.leave()
	}
	return conn.start(ctx, req, limit)
}

func (conn *Connection) start(ctx context.Context, req kmsg.Request, limit int16) (*Call, error) {
	version, err := conn.versions.choose(req, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conn.name, err)
	}
	req.SetVersion(version)
	w := conn.watch(req, version)
	p, err := conn.hand(ctx, req, version, w)
	if err != nil {
		return nil, conn.failure(ctx, err)
	}
	w.tellSent(false)
	resp := req.ResponseKind()
	resp.SetVersion(version)
	return &Call{conn: conn, pending: p, resp: resp, watched: w, sent: conn.link.set.now()}, nil
}

// errRequestTimeout is why a request ended that a broker left unanswered.
var errRequestTimeout = errors.New("no answer within request.timeout.ms")

// Wait gives the answer. A broker that does not answer in time costs it the connection: answers
// come in order, so those behind would not come either.
func (p *Call) Wait(ctx context.Context) (resp kmsg.Response, err error) {
	defer func() { p.watched.tellAnswered(resp, err) }()
	limited, cancel := context.WithTimeoutCause(ctx, p.conn.timeout+p.Extra, errRequestTimeout)
	defer cancel()
	if s := p.conn.session; s != nil {
		s.waits(time.Now().Add(p.conn.timeout + p.Extra))
	}
	body, err := p.pending.Wait(limited)
	p.watched.arrived(body)
	if errors.Is(err, errRequestTimeout) {
		p.conn.wire.Close()
	}
	if err != nil {
		return nil, p.conn.failure(ctx, err)
	}
	if err := Decode(p.resp, body); err != nil {
		p.conn.wire.Close()
		return nil, fmt.Errorf("%s: %w: %w", p.conn.name, errcode.Network, err)
	}
	if !p.conn.answered.Load() && p.resp.Key() != apiVersionsKey {
		p.conn.answered.Store(true)
	}
	p.measure()
	return p.resp, nil
}

// failure names the broker, and marks whatever is not the caller's own ctx as trouble of the
// network, which may be tried again.
func (conn *Connection) failure(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", conn.name, err)
	case errors.Is(err, wire.ErrMalformed):
		return fmt.Errorf("%s does not answer with Kafka's protocol: %w: %w", conn.name, errcode.Network, err)
	case conn.session == nil && !conn.answered.Load() && len(conn.versions.ranges) > len(minimalVersions.ranges):
		err = secure.ExplainUnanswered(err)
	}
	return fmt.Errorf("%s: %w: %w", conn.name, errcode.Network, err)
}

// Decode reads a response's body. Answers to Produce and Fetch alias it, strings included, and are
// not kept; all others are copies.
func Decode(resp kmsg.Response, body []byte) error {
	// A broker that does not know our version of ApiVersions answers it in version 0.
	if resp.Key() == apiVersionsKey && len(body) >= 2 && int16(binary.BigEndian.Uint16(body)) == int16(errcode.UnsupportedVersion) {
		resp.SetVersion(0)
	}
	if err := checkShape(resp.Key(), resp.GetVersion(), body); err != nil {
		return err
	}
	read := resp.ReadFrom
	if u, ok := resp.(kmsg.UnsafeReadFrom); ok && resp.Key() <= 1 {
		read = u.UnsafeReadFrom
	}
	if err := read(body); err != nil {
		return fmt.Errorf("%s response, version %d: %w", kmsg.NameForKey(resp.Key()), resp.GetVersion(), err)
	}
	return nil
}

// Send sends a request that the broker does not answer.
func (conn *Connection) Send(ctx context.Context, req kmsg.Request, limit int16) error {
	if s := conn.session; s != nil {
		if err := s.enter(ctx); err != nil {
			return fmt.Errorf("%s: %w", conn.name, err)
		}
		defer s.leave()
	}
	version, err := conn.versions.choose(req, limit)
	if err != nil {
		return fmt.Errorf("%s: %w", conn.name, err)
	}
	req.SetVersion(version)
	w := conn.watch(req, version)
	if err := conn.wire.Send(ctx, req.Key(), version, w.counting(req.AppendTo)); err != nil {
		return conn.failure(ctx, err)
	}
	w.tellSent(true)
	return nil
}
