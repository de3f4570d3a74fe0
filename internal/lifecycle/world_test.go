package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/controller"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/netx"
	"barnabas/internal/peer"
	"barnabas/internal/quorum"
)

// ledger stands for the quorum of all nodes: what the leader proposes is committed a little later, and reaches
// every node that lives a little after that. It elects nobody by itself.
type ledger struct {
	mu struct {
		sync.Mutex
		random  *rand.Rand
		leader  int32
		epoch   int32
		pending []metadata.Committed
		entries []metadata.Committed
		next    uint64
		members map[int32]*member
	}
}

// member is a node as the ledger knows it: what it has to be told, in order.
type member struct {
	machine quorum.Machine
	tell    chan func()
	done    chan struct{}
}

func newLedger(seed uint64) *ledger {
	l := &ledger{}
	l.mu.random, l.mu.leader, l.mu.members = rand.New(rand.NewPCG(seed, 3)), -1, map[int32]*member{}
	return l
}

// delay is from half a millisecond to three.
func (l *ledger) delay() time.Duration {
	return 500*time.Microsecond + time.Duration(l.mu.random.Int64N(int64(2500*time.Microsecond)))
}

func (m *member) run() {
	defer close(m.done)
	for f := range m.tell {
		f()
	}
}

// join brings a node up to date, and keeps it so until it leaves.
func (l *ledger) join(id int32, machine quorum.Machine) {
	m := &member{machine: machine, tell: make(chan func(), 1<<16), done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.mu.entries {
		l.later(m, e)
	}
	leadership := metadata.Leadership{Epoch: l.mu.epoch, Leader: l.mu.leader, Mine: l.mu.leader == id}
	m.tell <- func() { machine.Leadership(leadership) }
	l.mu.members[id] = m
	go m.run()
}

// leave ends what a node is told.
func (l *ledger) leave(id int32) {
	l.mu.Lock()
	m := l.mu.members[id]
	delete(l.mu.members, id)
	if l.mu.leader == id {
		l.mu.leader, l.mu.pending = -1, nil
		l.mu.epoch++
	}
	l.mu.Unlock()
	if m != nil {
		close(m.tell)
		<-m.done
	}
}

func (l *ledger) later(m *member, e metadata.Committed) {
	delay := l.delay()
	m.tell <- func() {
		time.Sleep(delay)
		if err := m.machine.Apply(e); err != nil {
			panic(err)
		}
	}
}

// elect makes a node the leader; what is not committed is lost.
func (l *ledger) elect(id int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.epoch++
	l.mu.leader, l.mu.pending = id, nil
	l.commit(metadata.Committed{Epoch: l.mu.epoch})
	for n, m := range l.mu.members {
		leadership := metadata.Leadership{Epoch: l.mu.epoch, Leader: id, Mine: n == id}
		m.tell <- func() { m.machine.Leadership(leadership) }
	}
}

func (l *ledger) commit(e metadata.Committed) {
	e.Offset = int64(len(l.mu.entries))
	l.mu.entries = append(l.mu.entries, e)
	for _, id := range []int32{1, 2, 3} {
		if m := l.mu.members[id]; m != nil {
			l.later(m, e)
		}
	}
}

// entryCount is how many entries have been committed.
func (l *ledger) entryCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.entries)
}

// since returns the entries with records from a number on.
func (l *ledger) since(n int) (entries [][]metadata.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.mu.entries[n:] {
		if len(e.Records) > 0 {
			entries = append(entries, e.Records)
		}
	}
	return entries
}

// pen is one node's way to propose.
type pen struct {
	l  *ledger
	id int32
}

func (p pen) Propose(epoch int32, records []metadata.Record) (uint64, error) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.l.mu.leader != p.id || p.l.mu.epoch != epoch {
		return 0, quorum.ErrNotLeader
	}
	p.l.mu.next++
	id := p.l.mu.next
	p.l.mu.pending = append(p.l.mu.pending, metadata.Committed{Epoch: epoch, Proposal: id, Records: records})
	time.AfterFunc(p.l.delay(), func() {
		p.l.mu.Lock()
		defer p.l.mu.Unlock()
		at := slices.IndexFunc(p.l.mu.pending, func(e metadata.Committed) bool { return e.Proposal == id })
		for _, e := range p.l.mu.pending[:at+1] {
			p.l.commit(e)
		}
		p.l.mu.pending = p.l.mu.pending[at+1:]
	})
	return id, nil
}

func (p pen) Confirm(_ context.Context, epoch int32) error {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.l.mu.leader != p.id || p.l.mu.epoch != epoch {
		return quorum.ErrNotLeader
	}
	return nil
}

// world is three nodes: everything of them but the quorum, logs and clients.
type world struct {
	t      *testing.T
	seed   uint64
	net    *netx.Mem
	ledger *ledger
	nodes  map[int32]*node
	lives  byte
	log    *recorder
}

// node is one process.
type node struct {
	w           *world
	id          int32
	disk        byte // which of its disks it runs on
	incarnation metadata.UUID
	peers       *peer.Peers
	controller  *controller.Controller
	router      *controller.Router
	broker      *Broker
	fatal       chan error
	lapsed      chan bool // what the broker told
	cancel      func()
}

func host(id int32) string { return fmt.Sprintf("node%d", id) }

// inWorld runs a story in a bubble, for some seeds.
func inWorld(t *testing.T, seeds uint64, story func(w *world)) {
	t.Helper()
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				w := &world{t: t, seed: seed, net: netx.NewMem(seed), ledger: newLedger(seed), nodes: map[int32]*node{}, log: &recorder{}}
				defer func() {
					for _, id := range []int32{1, 2, 3} {
						if w.nodes[id] != nil {
							w.kill(id)
						}
					}
				}()
				for _, id := range []int32{1, 2, 3} {
					w.build(id, 1)
				}
				w.ledger.elect(1)
				var starting sync.WaitGroup
				for _, id := range []int32{1, 2, 3} {
					starting.Go(func() { w.nodes[id].mustStart() })
				}
				starting.Wait()
				w.awaitImage("all take part", 5*time.Second, func(img *metadata.Image) bool {
					return len(img.Brokers()) == 3 && !slices.ContainsFunc(img.Brokers(), func(b *metadata.Broker) bool { return b.Fenced })
				})
				story(w)
			})
		})
	}
}

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s\n%s", w.seed, fmt.Sprintf(format, args...), w.log.text())
}

// build makes a process that is not registered yet.
func (w *world) build(id int32, disk byte) *node {
	w.t.Helper()
	w.lives++
	n := &node{w: w, id: id, disk: disk, incarnation: metadata.UUID{byte(id), w.lives, 15: 0xee}, fatal: make(chan error, 1), lapsed: make(chan bool, 100)}
	ctx := context.WithoutCancel(w.t.Context())
	network := w.net.Host(host(id))
	l, err := network.Listen(ctx, ":9093")
	if err != nil {
		w.failf("listen: %v", err)
	}
	log := slog.New(slog.NewTextHandler(w.log, nil)).With("node", id)
	seed := [32]byte{byte(w.seed), byte(id), w.lives}
	n.peers, err = peer.Open(ctx, peer.Options{
		Network: network, Listener: l, Self: peer.Node{ID: id, Directory: [16]byte{byte(id), disk}}, ClusterID: "c", Secret: []byte("a secret"),
		Loopback: func(net.Addr) bool { return false }, Logger: log, Random: rand.NewChaCha8(seed),
	})
	if err != nil {
		w.failf("open peers: %v", err)
	}
	settings, _, err := config.Load(config.Sources{File: fmt.Sprintf("node.id=%d\nbroker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=400", id), FileName: "test"})
	if err != nil {
		w.failf("settings: %v", err)
	}
	n.router = controller.NewRouter(id, n.peers, w.seed)
	dice := rand.New(rand.NewPCG(w.seed, uint64(id)<<8|uint64(w.lives)))
	n.broker = New(Options{
		Controller: n.router, Registration: n.registration, Interval: 400 * time.Millisecond, Session: 2 * time.Second,
		RegistrationPatience: 10 * time.Second, Logger: log, Fatal: func(err error) { n.fatal <- err },
		Jitter: func(d time.Duration) time.Duration { return time.Duration(dice.Int64N(int64(d))) },
		Heard:  n.peers.Heard, Lapsed: func(lapsed bool) { n.lapsed <- lapsed },
	})
	n.controller = controller.New(ctx, controller.Options{
		NodeID: id, ClusterID: "c", Config: settings, Logger: log, Publishers: []metadata.Publisher{n.router, n.broker}, Rand: rand.NewChaCha8(seed),
	})
	n.router.Use(n.controller)
	n.cancel = n.peers.Observe(func(node int32, up bool) {
		n.controller.Connection(node, up)
		n.broker.Hurry()
	})
	n.controller.Start(pen{w.ledger, id})
	for _, other := range []int32{1, 2, 3} {
		if other != id {
			n.peers.SetAddress(other, host(other)+":9093")
		}
	}
	w.ledger.join(id, machine{n})
	w.nodes[id] = n
	return n
}

// machine tells a node's controller, router and broker, as node.watched does.
type machine struct{ *node }

func (m machine) Apply(e metadata.Committed) error  { return m.controller.Apply(e) }
func (m machine) Restore(s metadata.Snapshot) error { return m.controller.Restore(s) }
func (m machine) Snapshot() metadata.Snapshot       { return m.controller.Snapshot() }
func (m machine) Leadership(l metadata.Leadership) {
	m.controller.Leadership(l)
	m.router.Leadership(l)
	m.broker.Hurry()
}
func (n *node) directory() metadata.UUID { return metadata.UUID{byte(n.id), n.disk, 15: 0xdd} }
func (n *node) registration() (r metadata.Registration) {
	return metadata.Registration{
		ID: n.id, Incarnation: n.incarnation, Directories: []metadata.UUID{n.directory()}, Features: controller.SupportedRanges(), Complete: true,
		Listeners: []metadata.Listener{{Name: "PLAINTEXT", Host: host(n.id), Port: 9092}},
	}
}

// start registers and serves.
func (n *node) start() error {
	if err := n.broker.Register(n.w.t.Context()); err != nil {
		return err
	}
	return n.broker.Serve(n.w.t.Context())
}

func (n *node) mustStart() {
	n.w.t.Helper()
	if err := n.start(); err != nil {
		n.w.t.Errorf("seed %d: start node %d: %v", n.w.seed, n.id, err)
	}
}

// kill ends a process as kill -9 does.
func (w *world) kill(id int32) {
	n := w.nodes[id]
	delete(w.nodes, id)
	w.net.Kill(host(id))
	w.ledger.leave(id)
	n.close()
}

func (n *node) close() {
	n.cancel()
	n.broker.Close()
	n.controller.Close()
	if err := n.peers.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
		n.w.t.Errorf("seed %d: close: %v", n.w.seed, err)
	}
}

// leader is the node that decides.
func (w *world) leader() *node {
	for _, n := range w.nodes {
		if n.controller.Active() {
			return n
		}
	}
	w.failf("there is no controller")
	return nil
}

// awaitImage waits until the metadata on all nodes is so, and returns how long that took.
func (w *world) awaitImage(what string, patience time.Duration, is func(*metadata.Image) bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		all := true
		for _, n := range w.nodes {
			all = all && is(n.controller.Image())
		}
		if all {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			w.failf("not within %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { time.Sleep(d) }

func fenced(id int32) func(*metadata.Image) bool {
	return func(img *metadata.Image) bool { b, ok := img.Broker(id); return ok && b.Fenced }
}

func takesPart(id int32) func(*metadata.Image) bool {
	return func(img *metadata.Image) bool {
		b, ok := img.Broker(id)
		return ok && !b.Fenced && !b.ShuttingDown
	}
}

// create makes a topic whose partitions have all three brokers, led by 1, 2 and 3 in turn.
func (w *world) create(name string, partitions int32) {
	w.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	for n := range partitions {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = n, []int32{n%3 + 1, (n+1)%3 + 1, (n+2)%3 + 1}
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	req.Topics = append(req.Topics, t)
	resp, err := w.nodes[1].router.CreateTopics(w.t.Context(), req)
	if err != nil || resp.Topics[0].ErrorCode != 0 {
		w.failf("create %s: %+v, %v", name, resp, err)
	}
}

func (w *world) image() *metadata.Image { return w.leader().controller.Image() }

func (w *world) epoch(id int32) int64 {
	b, ok := w.image().Broker(id)
	if !ok {
		w.failf("broker %d is not registered", id)
	}
	return b.Epoch
}

// recorder keeps what was logged.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, string(b))
	return len(b), nil
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines[max(0, len(r.lines)-40):], "")
}
