package netx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	defaultLatency = 200 * time.Microsecond // one way, plus the jitter
	defaultJitter  = 300 * time.Microsecond
	// tieBreak is added to every jitter, also to none: what happens at one instant happens in an
	// order that no seed replays.
	tieBreak = time.Microsecond
	// windowBytes may be written and not yet read; then the writer waits.
	windowBytes = 256 << 10
	// backlog connections wait for Accept; further ones are not answered until there is room.
	backlog = 128
	// retransmitMax is how long after a cut has healed what was lost in it may still be missing.
	retransmitMax = time.Second
	// After silentFor without an answer either end gives up, as keep-alive does on TCP.
	silentFor = keepAliveIdle + keepAliveCount*keepAliveInterval

	firstListenPort = 20_000 // for port 0
	firstDialPort   = 32_768
)

// ErrKilled is what a Network answers whose host was killed. The host's next life is the Network
// that Mem.Host returns then.
var ErrKilled = errors.New("host was killed")

// Mem is a network in memory: hosts with names, buffered connections that behave as TCP's do
// towards their users, with a latency of its own for each byte's way, and faults at the caller's
// word. Every connection draws from dice named after its hosts and its number between them, so
// that a seed replays whatever else is going on. Meant for a testing/synctest bubble (make it
// inside), but it keeps real time as well. No goroutines of its own.
type Mem struct {
	seed uint64

	mu        sync.Mutex // held for copying only; taken before a connection's, never after
	latency   map[way]delay
	listeners map[string]*memListener // by address
	ends      []*memConn              // of connections that have an open end, in order of their names
	cut       map[way]bool
	isolated  map[string]bool
	paused    map[string]bool
	lives     map[string]int // how often a host was killed
	dials     map[string]int // how many between two hosts so far
	ports     map[string]int // the next to give for port 0, by host
}

// way is one direction between two hosts; the empty one stands for all.
type way struct{ from, to string }

type delay struct{ latency, jitter time.Duration }

// NewMem returns a network without faults on which a byte travels for 200 to 500 µs.
func NewMem(seed uint64) *Mem {
	return &Mem{
		seed:      seed,
		latency:   map[way]delay{{}: {defaultLatency, defaultJitter}},
		listeners: map[string]*memListener{},
		cut:       map[way]bool{},
		isolated:  map[string]bool{},
		paused:    map[string]bool{},
		lives:     map[string]int{},
		dials:     map[string]int{},
		ports:     map[string]int{},
	}
}

// Host returns the network as the host of that name sees it. An empty host, "localhost",
// "127.0.0.1" and "0.0.0.0" mean itself. The Network dies with Kill.
func (m *Mem) Host(name string) Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memHost{m: m, name: name, life: m.lives[name]}
}

// SetLatency lets bytes from one host to another travel for latency plus up to jitter from now
// on; two empty names stand for all that have no latency of their own.
func (m *Mem) SetLatency(from, to string, latency, jitter time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latency[way{from, to}] = delay{latency, jitter}
	for _, c := range m.ends {
		c.pair.mu.Lock()
		c.out.delay = m.delayOf(c.way())
		c.pair.mu.Unlock()
	}
}

func (m *Mem) delayOf(w way) delay {
	if d, ok := m.latency[w]; ok {
		return d
	}
	return m.latency[way{}]
}

// Cut stops everything between two hosts. Connections stay, and deliver later what was written, if
// the cut heals before the ends lose patience (syscall.ETIMEDOUT after two minutes).
func (m *Mem) Cut(a, b string) {
	m.faults(func() { m.cut[way{a, b}], m.cut[way{b, a}] = true, true })
}

// CutOneWay stops what goes from one host to another. What goes the other way arrives, but is
// not acknowledged: a window later the writer waits. Nothing connects either way.
func (m *Mem) CutOneWay(from, to string) { m.faults(func() { m.cut[way{from, to}] = true }) }

// Heal ends what Cut and CutOneWay did between two hosts. What was lost is sent again within a
// second.
func (m *Mem) Heal(a, b string) {
	m.faults(func() {
		delete(m.cut, way{a, b})
		delete(m.cut, way{b, a})
	})
}

// Isolate cuts a host off from all others until Rejoin, whatever is cut besides.
func (m *Mem) Isolate(host string) { m.faults(func() { m.isolated[host] = true }) }

// Rejoin ends an Isolate.
func (m *Mem) Rejoin(host string) { m.faults(func() { delete(m.isolated, host) }) }

// HealAll ends every Cut, CutOneWay and Isolate.
func (m *Mem) HealAll() {
	m.faults(func() {
		clear(m.cut)
		clear(m.isolated)
	})
}

// Pause lets the process on a host stand still, as SIGSTOP does: whatever it asks of the network does not return, and no
// deadline passes for it, until Resume. Its kernel goes on, takes connections and fills its buffers.
func (m *Mem) Pause(host string) { m.setPaused(host, true) }

// Resume ends a Pause; so does Kill.
func (m *Mem) Resume(host string) { m.setPaused(host, false) }

func (m *Mem) setPaused(host string, paused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if paused {
		m.paused[host] = true
	} else {
		delete(m.paused, host)
	}
	for _, l := range m.listeners {
		if l.host == host {
			l.arrived.wake()
		}
	}
	for _, c := range m.ends {
		if c.host == host {
			c.pair.mu.Lock()
			c.paused = paused
			c.readable.wake()
			c.writable.wake()
			c.pair.mu.Unlock()
		}
	}
}

// faults makes a change to what is cut and lets all connections know.
func (m *Mem) faults(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	now := time.Now()
	for _, c := range m.ends {
		c.pair.mu.Lock()
		c.out.setCut(m.isCut(c.way()), now)
		c.pair.mu.Unlock()
	}
}

func (m *Mem) isCut(w way) bool {
	return w.from != w.to && (m.cut[w] || m.isolated[w.from] || m.isolated[w.to])
}

// Reset breaks every connection between two hosts, at both ends within a microsecond
// (syscall.ECONNRESET).
func (m *Mem) Reset(a, b string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, c := range m.ends {
		if w := c.way(); w == (way{a, b}) || w == (way{b, a}) {
			c.pair.mu.Lock()
			c.fail(now.Add(time.Duration(c.in.dice.Int64N(int64(tieBreak)))), syscall.ECONNRESET)
			c.pair.mu.Unlock()
		}
	}
}

// Kill ends the process on a host: its listeners, connections and Networks are closed, and its
// peers' connections reset as soon as they can hear of it. Isolate it first, and Rejoin when it
// is back, for a host that lost power: then its peers hear nothing until they ask.
func (m *Mem) Kill(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lives[host]++
	delete(m.paused, host)
	var gone []*memListener
	for _, l := range m.listeners {
		if l.host == host {
			gone = append(gone, l)
		}
	}
	slices.SortFunc(gone, func(a, b *memListener) int { return cmp.Compare(a.addr, b.addr) })
	for _, l := range gone {
		l.shut()
	}
	now := time.Now()
	for _, c := range slices.Clone(m.ends) {
		if c.host == host {
			c.pair.mu.Lock()
			c.abort(now)
			c.pair.mu.Unlock()
			m.forget(c)
		}
	}
}

// forget drops a connection whose ends are both closed. The lock is held.
func (m *Mem) forget(c *memConn) {
	c.pair.mu.Lock()
	over := c.closed && c.peer.closed
	c.pair.mu.Unlock()
	if over {
		m.ends = slices.DeleteFunc(m.ends, func(e *memConn) bool { return e == c || e == c.peer })
	}
}

type memHost struct {
	m    *Mem
	name string
	life int
}

// alive is asked with the lock held.
func (h *memHost) alive() error {
	if h.m.lives[h.name] != h.life {
		return ErrKilled
	}
	return nil
}

func (h *memHost) resolve(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65_535 {
		return "", 0, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	switch host {
	case "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::":
		host = h.name
	}
	return host, port, nil
}

func join(host string, port int) memAddr { return memAddr(net.JoinHostPort(host, strconv.Itoa(port))) }

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

// Listen implements Network.
func (h *memHost) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := h.listen(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: memAddr(addr), Err: err}
	}
	return l, nil
}

func (h *memHost) listen(ctx context.Context, addr string) (*memListener, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	host, port, err := h.resolve(addr)
	if err != nil {
		return nil, err
	}
	if host != h.name {
		return nil, syscall.EADDRNOTAVAIL
	}
	m := h.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := h.alive(); err != nil {
		return nil, err
	}
	for port == 0 {
		next := firstListenPort + m.ports[host]%(firstDialPort-firstListenPort)
		m.ports[host]++
		if m.listeners[string(join(host, next))] == nil {
			port = next
		}
	}
	l := &memListener{m: m, host: host, addr: join(host, port)}
	if m.listeners[string(l.addr)] != nil {
		return nil, syscall.EADDRINUSE
	}
	m.listeners[string(l.addr)] = l
	return l, nil
}

type memListener struct {
	m    *Mem
	host string
	addr memAddr

	// Guarded by the network's lock.
	waiting []*memConn
	closed  bool
	arrived signal
}

func (l *memListener) Addr() net.Addr { return l.addr }

func (l *memListener) Accept() (net.Conn, error) {
	for {
		c, arrived, err := l.next()
		if err != nil {
			return nil, &net.OpError{Op: "accept", Net: "mem", Addr: l.addr, Err: err}
		}
		if c != nil {
			return c, nil
		}
		<-arrived
	}
}

func (l *memListener) next() (*memConn, <-chan struct{}, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil, net.ErrClosed
	case len(l.waiting) == 0 || l.m.paused[l.host]:
		return nil, l.arrived.wait(), nil
	}
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	return c, nil, nil
}

func (l *memListener) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "mem", Addr: l.addr, Err: net.ErrClosed}
	}
	l.shut()
	return nil
}

// shut resets what nobody accepted. The network's lock is held.
func (l *memListener) shut() {
	l.closed = true
	delete(l.m.listeners, string(l.addr))
	now := time.Now()
	for _, c := range l.waiting {
		c.pair.mu.Lock()
		c.abort(now)
		c.pair.mu.Unlock()
		l.m.forget(c)
	}
	l.waiting = nil
	l.arrived.wake()
}

// Dial implements Network. A port where nobody listens refuses (syscall.ECONNREFUSED) after a
// round trip. Where nothing comes through, and on a host that is paused, it tries again after 1, 2, 4 ... seconds and gives up
// (syscall.ETIMEDOUT) after two minutes.
func (h *memHost) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := h.dial(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: memAddr(addr), Err: err}
	}
	return c, nil
}

func (h *memHost) dial(ctx context.Context, addr string) (*memConn, error) {
	host, port, err := h.resolve(addr)
	if err != nil {
		return nil, err
	}
	d := h.m.newDialling(h, host, join(host, port))
	for backoff := time.Second; backoff <= 64*time.Second; backoff *= 2 {
		if err := sleep(ctx, d.there.travel()); err != nil {
			return nil, err
		}
		answer := d.back.travel() // drawn now: once connected, the dice are the streams'
		c, err := d.attempt()
		if errors.Is(err, errNoAnswer) {
			if err := sleep(ctx, backoff+answer); err != nil {
				return nil, err
			}
			continue
		}
		if waited := sleep(ctx, answer); waited != nil {
			if c != nil {
				err = errors.Join(waited, c.Close())
			} else {
				err = waited
			}
		}
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, syscall.ETIMEDOUT
}

// errNoAnswer says that a packet was lost, or that the listener's backlog is full.
var errNoAnswer = errors.New("no answer")

// dialling is a connection that is to be. Its streams' dice are named by who dials whom for the
// how-manieth time, so that the order of other dials at the same instant does not matter.
type dialling struct {
	h           *memHost
	host        string // to
	addr        memAddr
	name        string
	there, back *stream
}

func (m *Mem) newDialling(h *memHost, host string, addr memAddr) *dialling {
	m.mu.Lock()
	defer m.mu.Unlock()
	between := h.name + ">" + string(addr)
	m.dials[between]++
	d := &dialling{h: h, host: host, addr: addr, name: fmt.Sprintf("%s#%06d", between, m.dials[between])}
	d.there = newStream(m.seed, d.name+">", m.delayOf(way{h.name, host}))
	d.back = newStream(m.seed, d.name+"<", m.delayOf(way{host, h.name}))
	return d
}

func (d *dialling) attempt() (*memConn, error) {
	m := d.h.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := d.h.alive(); err != nil {
		return nil, err
	}
	if m.isCut(way{d.h.name, d.host}) || m.isCut(way{d.host, d.h.name}) || m.paused[d.h.name] {
		return nil, errNoAnswer
	}
	l := m.listeners[string(d.addr)]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	if len(l.waiting) >= backlog {
		return nil, errNoAnswer
	}
	port := firstDialPort + int(hash(d.name)%(65_536-firstDialPort)) // a name for logs, not a resource
	near := connect(m, d, join(d.h.name, port))
	for _, c := range []*memConn{near, near.peer} {
		c.paused = m.paused[c.host]
		at, _ := slices.BinarySearchFunc(m.ends, c, func(a, b *memConn) int { return cmp.Compare(a.name, b.name) })
		m.ends = slices.Insert(m.ends, at, c)
	}
	l.waiting = append(l.waiting, near.peer)
	l.arrived.wake()
	return near, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newDice(seed uint64, name string) *rand.Rand { return rand.New(rand.NewPCG(seed, hash(name))) }

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

// signal wakes everybody who waits. It makes a channel only for those who do.
type signal struct{ ch chan struct{} }

func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) wake() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
