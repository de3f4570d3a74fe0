package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/controller"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// world is three brokers in a bubble, with memory disks and memory links, under a controller that never fails and
// takes the real decisions. What is drawn comes from the seed; each actor has dice of its own.
type world struct {
	t        testing.TB
	seed     uint64
	settings *config.Set
	dice     *rand.Rand // of the one who makes trouble
	log      *slog.Logger
	end      chan struct{}
	running  sync.WaitGroup
	nodes    []*node
	counts   map[string]int
	garble   atomic.Int32 // so many answers with records arrive with a bit flipped
	carried  atomic.Int64 // bytes of answers that arrived
	fetches  atomic.Int64 // that were sent
	check    *checker
	late     atomic.Bool  // fetches linger now and then
	rate     atomic.Int64 // bytes a second that an answer comes with; 0: at once

	mu struct {
		sync.Mutex
		image   *metadata.Image
		entries []metadata.Committed
		heard   map[int32]time.Time
		cut     map[[2]int32]bool // messages from the first to the second are lost; 0 is the controller
		last    map[[2]int32]time.Time
		delays  map[[2]int32]*rand.Rand
	}
}

// node is a broker's machine. Its disk outlives the process.
type node struct {
	w    *world
	id   int32
	dice *rand.Rand
	disk *disk.Mem
	slow time.Duration // of a flush, beyond the usual
	hung atomic.Bool   // the disk does not write, and fails neither

	mu struct {
		sync.Mutex
		up    bool
		lives int
		process
	}
}

// process is one life of a broker.
type process struct {
	manager *Manager
	loader  *metadata.Loader
	dir     *commitlog.Dir
	ctx     context.Context
	cancel  context.CancelFunc
	running *sync.WaitGroup
	clean   bool // the life before ended in peace
}

const (
	controllerID   = 0
	brokers        = 3
	sessionTimeout = 500 * time.Millisecond
	// breakAfter is how long it takes until an end of a connection notices that the other is cut off.
	breakAfter = 300 * time.Millisecond
)

type worldTopic struct {
	name    string
	id      byte
	configs map[string]string
	numbers int
	on      []int32 // the replicas of every partition; nil: all brokers, each leading some
}

func newWorld(t testing.TB, seed uint64, topics []worldTopic, lines ...string) *world {
	set, _, err := config.Load(config.Sources{
		File: strings.Join(append([]string{"node.id=1", "replica.lag.time.max.ms=1500"}, lines...), "\n"), FileName: "world",
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, seed: seed, settings: set, dice: rand.New(rand.NewPCG(seed, 1)), log: quiet, end: make(chan struct{}), counts: map[string]int{}}
	if os.Getenv("WORLD_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.mu.image = metadata.Empty()
	w.mu.heard = map[int32]time.Time{}
	w.mu.cut, w.mu.last, w.mu.delays = map[[2]int32]bool{}, map[[2]int32]time.Time{}, map[[2]int32]*rand.Rand{}
	for a := int32(0); a <= brokers; a++ {
		for b := int32(0); b <= brokers; b++ {
			w.mu.delays[[2]int32{a, b}] = rand.New(rand.NewPCG(seed, uint64(100+a*10+b)))
		}
	}
	for id := int32(1); id <= brokers; id++ {
		n := &node{w: w, id: id, dice: rand.New(rand.NewPCG(seed, uint64(10+id))), disk: disk.NewMem()}
		w.nodes = append(w.nodes, n)
		n.disk.SetFault(n.fault)
		n.start()
	}
	w.running.Go(w.control)
	w.await("registration", func() bool { return w.unfenced() == brokers })
	for _, topic := range topics {
		w.create(topic)
	}
	w.check = newChecker(w)
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("seed %d: "+format, append([]any{w.seed}, args...)...)
}

// create spreads a topic's partitions over all brokers.
func (w *world) create(topic worldTopic) {
	id := topicID(topic.id)
	records := []metadata.Record{&metadata.TopicRecord{Name: topic.name, Id: id.Bytes()}}
	for k, v := range topic.configs {
		records = append(records, setting(metadata.TopicResource, topic.name, k, v))
	}
	for n := range topic.numbers {
		p := &metadata.Partition{}
		on := topic.on
		for i := 0; topic.on == nil && i < brokers; i++ {
			on = append(on, int32((n+i)%brokers+1))
		}
		for _, b := range on {
			p.Replicas = append(p.Replicas, b)
			p.Directories = append(p.Directories, w.nodes[b-1].mu.dir.ID())
		}
		p.ISR, p.Leader = p.Replicas, p.Replicas[0]
		records = append(records, p.Record(id, int32(n)))
	}
	w.commit(records...)
}

// commit makes records the next entry of the metadata.
func (w *world) commit(records ...metadata.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commitLocked(records...)
}

func (w *world) commitLocked(records ...metadata.Record) {
	next, _, err := w.mu.image.With(w.mu.image.Offset()+1, 1, records)
	if err != nil {
		w.fail("the controller contradicts itself: %v", err)
		return
	}
	w.mu.image = next
	w.mu.entries = append(w.mu.entries, metadata.Committed{Offset: next.Offset(), Epoch: 1, Records: records})
}

func (w *world) decideLocked() controller.Partitions {
	return controller.DecidePartitions(w.mu.image, w.settings)
}

// control fences who is not heard of, and takes back who is.
func (w *world) control() {
	for w.sleep(40 * time.Millisecond) {
		w.mu.Lock()
		for _, b := range w.mu.image.Brokers() {
			silent := time.Since(w.mu.heard[b.ID]) > sessionTimeout
			switch {
			case !b.Fenced && silent:
				change := &metadata.BrokerChangeRecord{Id: b.ID, Epoch: b.Epoch, Fenced: new(true)}
				w.commitLocked(append([]metadata.Record{change}, w.decideLocked().Fence(b.ID)...)...)
			case b.Fenced && !silent:
				change := &metadata.BrokerChangeRecord{Id: b.ID, Epoch: b.Epoch, Fenced: new(false)}
				w.commitLocked(append([]metadata.Record{change}, w.decideLocked().Unfence(b.ID)...)...)
			}
		}
		w.mu.Unlock()
	}
}

func (w *world) unfenced() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.mu.image.Brokers() {
		if !b.Fenced {
			n++
		}
	}
	return n
}

func (w *world) image() *metadata.Image {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.image
}

// whole: every partition has all its replicas in sync, and is led.
func (w *world) whole() bool {
	for t := range w.image().Topics() {
		for _, p := range t.Partitions {
			if len(p.ISR) < len(p.Replicas) || p.Leader == metadata.NoLeader {
				return false
			}
		}
	}
	return w.unfenced() == brokers
}

// sleep waits; false once the world ends.
func (w *world) sleep(d time.Duration) bool {
	select {
	case <-time.After(d + time.Duration(w.seed%97)):
		return true
	case <-w.end:
		return false
	}
}

func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	for range 600 {
		if done() {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	for t := range w.image().Topics() {
		for n, p := range t.Partitions {
			w.t.Logf("%s-%d: %+v", t.Name, n, *p)
		}
	}
	w.t.Fatalf("seed %d: waited a minute for %s", w.seed, what)
}

// close ends everything.
func (w *world) close() {
	close(w.end)
	for _, n := range w.nodes {
		n.stop(func(d *disk.Mem) *disk.Mem { return d })
	}
	w.running.Wait()
}

// fault makes a disk as slow as a disk is, and sometimes slower.
func (n *node) fault(op disk.Op) error {
	if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
		n.mu.Lock()
		d := time.Millisecond + time.Duration(n.dice.IntN(1_000_000)) + n.slow
		n.mu.Unlock()
		time.Sleep(d)
	}
	for op.Kind != disk.OpRead && n.hung.Load() {
		time.Sleep(37*time.Millisecond + time.Duration(n.id))
	}
	return nil
}

// start begins a life.
func (n *node) start() {
	n.mu.Lock()
	n.mu.lives++
	life, clean := n.mu.lives, n.mu.clean
	n.mu.Unlock()
	incarnation := metadata.UUID{byte(n.id), byte(life), 7}
	p := process{running: &sync.WaitGroup{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	ends := &nodeEnds{n: n, ctx: p.ctx}
	jitter := rand.New(rand.NewPCG(n.w.seed, uint64(1000*int(n.id)+life)))
	var jitterMu sync.Mutex
	p.manager = NewManager(Options{
		NodeID: n.id, Incarnation: incarnation, Config: n.w.settings, Logger: n.w.log.With("node", n.id),
		Cluster: &Cluster{Peers: ends, ISRs: ends, Jitter: func(d time.Duration) time.Duration {
			jitterMu.Lock()
			defer jitterMu.Unlock()
			return time.Duration(jitter.Int64N(max(int64(d), 1)))
		}},
	})
	dir, err := commitlog.OpenDir(p.ctx, commitlog.DirOptions{
		FS: n.disk, Path: "/data", NodeID: n.id, ClusterID: "w", Logger: n.w.log.With("node", n.id), Observer: p.manager, Rand: chance(n.w.seed*10 + uint64(n.id)),
	})
	if err != nil {
		n.w.t.Fatalf("seed %d: node %d does not start: %v", n.w.seed, n.id, err)
	}
	p.dir = dir
	p.manager.Use([]*commitlog.Dir{dir})
	p.loader = metadata.NewLoader(p.manager)
	n.mu.Lock()
	n.mu.up, n.mu.process = true, p
	n.mu.Unlock()
	p.running.Go(func() { n.live(p, incarnation, controller.Comeback{Clean: clean, Complete: true}) })
}

// live registers, sends heartbeats and reads the metadata.
func (n *node) live(p process, incarnation metadata.UUID, how controller.Comeback) {
	registered := false
	for p.ctx.Err() == nil {
		n.w.mu.Lock()
		if !registered && !n.w.mu.cut[[2]int32{n.id, controllerID}] {
			registered = true
			b := &metadata.Broker{
				ID: n.id, Epoch: n.w.mu.image.LastBrokerEpoch() + 1, Incarnation: incarnation, Fenced: true,
				Directories: []metadata.UUID{p.dir.ID()},
			}
			n.w.commitLocked(append([]metadata.Record{b.Record()}, n.w.decideLocked().Restart(b, how)...)...)
		}
		var entries []metadata.Committed
		if at := p.loader.Image().Offset() + 1; !n.w.mu.cut[[2]int32{controllerID, n.id}] {
			entries = slices.Clone(n.w.mu.entries[at:])
		}
		up := registered && len(entries) == 0 // who is not up to date stays fenced
		if up && !n.w.mu.cut[[2]int32{n.id, controllerID}] && !n.w.mu.cut[[2]int32{controllerID, n.id}] {
			n.w.mu.heard[n.id] = time.Now()
		}
		n.w.mu.Unlock()
		for _, e := range entries {
			if err := p.loader.Apply(p.ctx, e); err != nil {
				n.w.fail("node %d: %v", n.id, err)
			}
		}
		n.mu.Lock()
		d := time.Duration(1+n.dice.IntN(25)) * time.Millisecond
		n.mu.Unlock()
		select {
		case <-time.After(d + time.Duration(n.id)*time.Microsecond):
		case <-p.ctx.Done():
		}
	}
}

// stop ends a life; after says what becomes of the disk.
func (n *node) stop(after func(*disk.Mem) *disk.Mem) {
	n.mu.Lock()
	up, p := n.mu.up, n.mu.process
	n.mu.up = false
	n.mu.Unlock()
	if !up {
		return
	}
	p.cancel()
	n.disk = after(n.disk)
	p.running.Wait()
	p.manager.Close()
	if err := p.dir.Close(); err != nil && n.mu.clean {
		n.w.fail("node %d: %v", n.id, err)
	}
}

// shutDown is the clean end.
func (n *node) shutDown() {
	n.w.mu.Lock()
	if b, ok := n.w.mu.image.Broker(n.id); ok && !b.Fenced {
		change := &metadata.BrokerChangeRecord{Id: b.ID, Epoch: b.Epoch, ShuttingDown: new(true)}
		n.w.commitLocked(append([]metadata.Record{change}, n.w.decideLocked().ShutDown(n.id)...)...)
	}
	n.w.mu.Unlock()
	<-time.After(200 * time.Millisecond)
	n.mu.Lock()
	n.mu.clean = true
	n.mu.Unlock()
	n.stop(func(d *disk.Mem) *disk.Mem { return d })
}

// end is any other.
func (n *node) end(after func(*disk.Mem) *disk.Mem) {
	n.mu.Lock()
	n.mu.clean = false
	n.mu.Unlock()
	n.stop(after)
}

func (n *node) manager() *Manager {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.mu.up {
		return nil
	}
	return n.mu.manager
}

// nodeEnds is one life's ends of all connections.
type nodeEnds struct {
	n   *node
	ctx context.Context
}

// travel delivers something after the link's delay, in the order of sending; false: it is lost.
func (w *world) travel(ctx context.Context, from, to int32) bool {
	key := [2]int32{from, to}
	w.mu.Lock()
	at := time.Now().Add(200*time.Microsecond + time.Duration(w.mu.delays[key].IntN(800_000)))
	if last := w.mu.last[key]; !at.After(last) {
		at = last.Add(1)
	}
	w.mu.last[key] = at
	lost := w.mu.cut[key]
	w.mu.Unlock()
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !lost && !w.mu.cut[key]
}

var errBroken = errors.New("connection broken")

func (e *nodeEnds) broken(ctx context.Context) error {
	select {
	case <-time.After(breakAfter):
		return errBroken
	case <-ctx.Done():
		return ctx.Err()
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

func (e *nodeEnds) Call(ctx context.Context, to int32, kind Kind, body []byte, memory func(n int) []byte) ([]byte, error) {
	w := e.n.w
	body = slices.Clone(body)
	if kind == KindFetch {
		w.fetches.Add(1)
	}
	if late, lingers := e.lingers(); lingers { // at the other end of a connection that has broken, unread
		w.running.Go(func() {
			if m := w.nodes[to-1].manager(); w.sleep(late) && m != nil && m == w.nodes[to-1].manager() {
				w.deliverLate(m, e.n.id, kind, body)
			}
		})
		return nil, e.broken(ctx)
	}
	if !w.travel(ctx, e.n.id, to) {
		return nil, e.broken(ctx)
	}
	target := w.nodes[to-1]
	target.mu.Lock()
	up, p := target.mu.up, target.mu.process
	target.mu.Unlock()
	if !up {
		return nil, e.broken(ctx)
	}
	reply, _, err := p.manager.Serve(e.n.id, kind, body)
	if err != nil {
		w.fail("node %d does not understand node %d: %v", to, e.n.id, err)
		return nil, err
	}
	// The connection lasts as long as both ends, and while it is cut in neither direction.
	connection, end := context.WithCancel(p.ctx)
	defer end()
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var out wire.Out
	if err := reply(connection, &out); err != nil {
		return nil, e.broken(ctx)
	}
	answer, err := out.Take(nil)
	if err != nil {
		return nil, e.broken(ctx)
	}
	if !w.travel(ctx, to, e.n.id) {
		return nil, e.broken(ctx)
	}
	w.carried.Add(int64(len(answer)))
	if len(answer) > 120 && w.garble.Add(-1) >= 0 {
		answer[len(answer)-5] ^= 4
	}
	into := memory(len(answer))
	if rate := w.rate.Load(); rate > 0 {
		select {
		case <-time.After(time.Duration(len(answer)) * time.Second / time.Duration(rate)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return append(into[:0], answer...), nil // as over a connection: the next answer overwrites it
}

// lingers draws whether something arrives long after its sender has given up.
func (e *nodeEnds) lingers() (late time.Duration, lingers bool) {
	if !e.n.w.late.Load() {
		return 0, false
	}
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	return time.Duration(e.n.dice.IntN(2500)) * time.Millisecond, e.n.dice.IntN(200) == 0
}

// deliverLate hands over a request whose connection is no more.
func (w *world) deliverLate(m *Manager, from int32, kind Kind, body []byte) {
	reply, _, err := m.Serve(from, kind, body)
	if err != nil {
		w.fail("a late message of node %d is not understood: %v", from, err)
		return
	}
	over, end := context.WithCancel(context.Background())
	end()
	var out wire.Out
	if reply(over, &out) == nil {
		_, _ = out.Take(nil)
	}
}

func (e *nodeEnds) Post(to int32, kind Kind, body []byte) bool {
	w := e.n.w
	w.running.Go(func() {
		if !w.travel(e.ctx, e.n.id, to) {
			return
		}
		if m := w.nodes[to-1].manager(); m != nil {
			if _, _, err := m.Serve(e.n.id, kind, body); err != nil {
				w.fail("node %d does not understand node %d: %v", to, e.n.id, err)
			}
		}
	})
	return true
}

func (e *nodeEnds) Alter(ctx context.Context, epoch int64, proposals []metadata.ISRProposal) ([]metadata.ISROutcome, error) {
	w := e.n.w
	proposals = slices.Clone(proposals)
	e.n.mu.Lock()
	lingers, late := e.n.dice.IntN(5) == 0, time.Duration(e.n.dice.IntN(2500))*time.Millisecond
	e.n.mu.Unlock()
	if lingers { // somewhere on its way, while the sender has given up already
		w.running.Go(func() {
			if w.sleep(late) {
				_, _ = w.alter(e.n.id, epoch, proposals)
			}
		})
		return nil, e.broken(ctx)
	}
	if !w.travel(ctx, e.n.id, controllerID) {
		return nil, e.broken(ctx)
	}
	outcomes, err := w.alter(e.n.id, epoch, proposals)
	if err != nil {
		return nil, err
	}
	if !w.travel(ctx, controllerID, e.n.id) {
		return nil, e.broken(ctx)
	}
	return outcomes, nil
}

func (w *world) alter(broker int32, epoch int64, proposals []metadata.ISRProposal) ([]metadata.ISROutcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	records, outcomes, err := w.decideLocked().AlterISR(broker, epoch, proposals)
	if err == nil && len(records) > 0 {
		w.commitLocked(records...)
	}
	return outcomes, err
}

// trouble lets bad things happen for some time. gated faults wait until all is well, for they may take what
// nobody else has.
func (w *world) trouble(span time.Duration, powerCutsAnyTime bool) {
	until := time.Now().Add(span)
	for time.Now().Before(until) {
		<-time.After(time.Duration(50+w.dice.IntN(500))*time.Millisecond + time.Duration(w.dice.IntN(1000)))
		n := w.nodes[w.dice.IntN(brokers)]
		hold := time.Duration(w.dice.IntN(1500)) * time.Millisecond
		what := w.dice.IntN(12)
		if w.dice.IntN(3) == 0 {
			w.troubleStorage(n, hold)
			continue
		}
		seed := w.dice.Uint64()
		other := w.nodes[w.dice.IntN(brokers)]
		kill := func(d *disk.Mem) *disk.Mem { return d.Kill() }
		switch {
		case what == 0 && w.whole():
			w.did("wiped disk")
			n.end(func(d *disk.Mem) *disk.Mem {
				d.Kill()
				fresh := disk.NewMem()
				fresh.SetFault(n.fault)
				return fresh
			})
			w.revive(n, hold)
		case what <= 2 && (powerCutsAnyTime || w.whole()):
			w.did("power cut")
			n.end(func(d *disk.Mem) *disk.Mem { return d.Crash(seed) })
			w.revive(n, hold)
		case what == 3 || what >= 10 && !powerCutsAnyTime:
			w.did("kill")
			n.end(kill)
			w.revive(n, hold)
		case what == 4:
			w.did("restart")
			n.shutDown()
			w.revive(n, hold/4)
		case what == 5:
			w.did("two killed")
			n.end(kill)
			<-time.After(hold / 3)
			if other != n {
				other.end(kill)
			}
			if w.dice.IntN(2) == 0 {
				n, other = other, n
			}
			w.revive(n, hold)
			w.revive(other, hold/2)
		case what >= 10 && powerCutsAnyTime:
			w.did("power cut of all")
			for i, n := range w.nodes {
				n.end(func(d *disk.Mem) *disk.Mem { return d.Crash(seed + uint64(i)) })
			}
			for _, i := range w.dice.Perm(brokers) {
				w.revive(w.nodes[i], hold/3)
			}
		case what == 6:
			w.did("slow disk")
			n.mu.Lock()
			n.slow = time.Duration(w.dice.IntN(700)) * time.Millisecond
			n.mu.Unlock()
			<-time.After(hold)
			n.mu.Lock()
			n.slow = 0
			n.mu.Unlock()
		case what == 7:
			w.did("one-way cut")
			key := [2]int32{n.id, other.id}
			w.setCut(true, key)
			<-time.After(hold)
			w.setCut(false, key)
		case what == 8:
			w.did("cut off from the controller")
			keys := [][2]int32{{n.id, controllerID}, {controllerID, n.id}}
			w.setCut(true, keys...)
			<-time.After(hold)
			w.setCut(false, keys...)
		default:
			w.did("isolated")
			var keys [][2]int32
			for id := int32(0); id <= brokers; id++ {
				keys = append(keys, [2]int32{n.id, id}, [2]int32{id, n.id})
			}
			w.setCut(true, keys...)
			<-time.After(hold)
			w.setCut(false, keys...)
		}
	}
}

// troubleStorage lets a disk be full, or stand still, or what comes from others be garbled.
func (w *world) troubleStorage(n *node, hold time.Duration) {
	switch w.dice.IntN(6) {
	case 0, 1:
		w.did("full disk")
		n.disk.SetCapacity(1)
		<-time.After(hold)
		n.disk.SetCapacity(0)
	case 2, 3:
		w.did("hung disk")
		n.hung.Store(true)
		<-time.After(hold)
		n.hung.Store(false)
	case 4:
		w.did("full disk of one that is killed")
		n.disk.SetCapacity(1)
		<-time.After(hold / 2)
		n.end(func(d *disk.Mem) *disk.Mem { return d.Kill() })
		n.disk.SetCapacity(0)
		w.revive(n, hold/4)
	default:
		w.did("garbled answers")
		w.garble.Store(10)
	}
}

func (w *world) did(what string) { w.counts[what]++ }

func (w *world) setCut(cut bool, keys ...[2]int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range keys {
		w.mu.cut[k] = cut
	}
}

func (w *world) revive(n *node, after time.Duration) {
	<-time.After(after)
	if n.manager() == nil {
		n.start()
	}
}

// inWorld runs f in a bubble with a world of its own.
func inWorld(t *testing.T, seed uint64, topics []worldTopic, f func(t *testing.T, w *world)) {
	inWorldWith(t, seed, topics, nil, f)
}

// inWorldWith is inWorld where all brokers have settings of the test's choice.
func inWorldWith(t *testing.T, seed uint64, topics []worldTopic, settings []string, f func(t *testing.T, w *world)) {
	faketime.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, topics, settings...)
		defer w.close()
		f(t, w)
	})
}

var _ io.Reader = chance(0)

func (w *world) String() string { return fmt.Sprintf("seed %d: %v", w.seed, w.counts) }
