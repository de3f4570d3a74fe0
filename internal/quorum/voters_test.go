package quorum

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/netx"
	"barnabas/internal/peer"
)

var (
	faultSeeds = flag.Uint64("seeds", 40, "how many seeds TestNothingCommittedIsLostByCrashesWipesAndCuts tries")
	firstSeed  = flag.Uint64("seed", 0, "the first of them")
)

// world is several voters on a memory network, each with a memory disk.
type world struct {
	t     *testing.T
	seed  uint64
	net   *netx.Mem
	nodes map[int32]*voter
	ids   []int32 // all nodes
	// expected are the voters that all nodes are configured with.
	expected []int32
	dice     *rand.Rand
	acked    map[int]bool // topics whose proposal was applied by who proposed it
	next     int
	// lived are the clusters in which anything was ever committed.
	lived map[string]bool
	// snapshotBytes is the quorums' option.
	snapshotBytes int64
	history       history
}

// voter is one node over all its lives.
type voter struct {
	w    *world
	id   int32
	host string // where it is in the network
	disk *disk.Mem
	life int
	// fault is asked by the disk, beside what it always does, from the next start on; failed: the test has
	// made the process fail.
	fault  func(disk.Op) error
	failed bool

	running *life // nil while it is down
}

// life is a voter's process. Its goroutine ends when it is down.
type life struct {
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	waiting string
	err     error
	q       *Quorum
	machine *recorder
	cluster string
}

func (l *life) quorum() (*Quorum, *recorder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.q, l.machine
}

func newWorld(t *testing.T, seed uint64, n int32) *world {
	w := &world{
		t: t, seed: seed, net: netx.NewMem(seed), nodes: map[int32]*voter{}, acked: map[int]bool{}, lived: map[string]bool{}, snapshotBytes: 3000,
		dice: rand.New(rand.NewPCG(seed, 77)),
	}
	w.history.entries, w.history.leaders = map[string]string{}, map[string]int32{}
	for id := int32(1); id <= n; id++ {
		w.add(id)
	}
	w.expected = slices.Clone(w.ids)
	return w
}

// add makes a node that is not running, with an empty disk.
func (w *world) add(id int32) *voter {
	w.ids = append(w.ids, id)
	w.nodes[id] = &voter{w: w, id: id, host: host(id), disk: disk.NewMem()}
	return w.nodes[id]
}

// inWorld runs f in a bubble with n voters; whoever still runs at its end is killed.
func inWorld(t *testing.T, seed uint64, n int32, f func(*world)) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed) // raft draws its election timeouts there
	faketime.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, n)
		defer func() {
			for _, id := range w.ids {
				w.nodes[id].kill()
			}
		}()
		f(w)
		w.history.check(w)
	})
}

func host(id int32) string { return fmt.Sprintf("node%d", id) }
func addr(id int32) string { return net.JoinHostPort(host(id), "9093") }

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (v *voter) start() {
	if v.running != nil {
		return
	}
	v.life++
	ctx, stop := context.WithCancel(context.Background())
	l := &life{stop: stop, done: make(chan struct{}), machine: newRecorder()}
	v.running = l
	network, fs, seed := v.w.net.Host(v.host), v.disk, v.w.seed*1000+uint64(v.id)*100+uint64(v.life)
	dice := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	fault := v.fault
	fs.SetFault(func(op disk.Op) error {
		if fault != nil {
			if err := fault(op); err != nil {
				return err
			}
		}
		if op.Kind == disk.OpSync || op.Kind == disk.OpSyncDir || op.Kind == disk.OpSyncFS {
			mu.Lock()
			d := time.Millisecond + time.Duration(dice.Int64N(int64(time.Millisecond)))
			mu.Unlock()
			time.Sleep(d)
		}
		return nil
	})
	go func() {
		defer close(l.done)
		err := l.run(ctx, v, network, fs, seed)
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
	}()
}

// run is the process: what a node does, for the quorum alone.
func (l *life) run(ctx context.Context, v *voter, network netx.Network, fs disk.FS, seed uint64) (err error) {
	logger := slog.New(slog.DiscardHandler)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	dir, err := commitlog.OpenDir(ctx, commitlog.DirOptions{FS: fs, Path: "/meta", NodeID: v.id, Logger: logger, Rand: random})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	listener, err := network.Listen(ctx, ":9093")
	if err != nil {
		return err
	}
	peers, err := peer.Open(ctx, peer.Options{
		Network: network, Listener: listener, Self: peer.Node{ID: v.id, Directory: dir.ID()}, ClusterID: dir.ClusterID(),
		Secret: []byte("secret"), Logger: logger, Random: random,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peers.Close()) }()
	for _, id := range v.w.expected {
		peers.SetAddress(id, addr(id))
	}
	formed, err := Form(ctx, FormationOptions{
		FS: fs, Dir: dir, NodeID: v.id, Voters: slices.Clone(v.w.expected), ClusterID: dir.ClusterID(), Transport: peers,
		Logger: logger, Now: time.Now, Random: random, Seed: seed,
		Waiting: func(what string) { l.mu.Lock(); l.waiting = what; l.mu.Unlock() },
	})
	if err != nil {
		return err
	}
	if !formed.Blank {
		if err := dir.SetClusterID(formed.ClusterID); err != nil {
			return err
		}
	}
	peers.SetClusterID(formed.ClusterID)
	l.machine.saw = func(c metadata.Committed) { v.w.history.applied(formed.ClusterID, v.id, c) }
	l.machine.led = func(lead metadata.Leadership) { v.w.history.led(formed.ClusterID, v.id, lead) }
	fatal := make(chan error, 1)
	o := Options{
		FS: fs, Dir: dir, Log: commitlog.DefaultConfig(), NodeID: v.id, Machine: l.machine, Logger: logger, Now: time.Now, Seed: seed,
		Transport: peers, ClusterID: formed.ClusterID, Expected: slices.Clone(v.w.expected), Blank: formed.Blank, Admission: formed.Admission,
		SnapshotBytes: v.w.snapshotBytes, Fatal: func(err error) { fatal <- err },
	}
	o.Log.Delete = false
	q, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	l.mu.Lock()
	l.q, l.cluster = q, formed.ClusterID
	l.mu.Unlock()
	select {
	case <-q.Joined():
		if err := dir.SetClusterID(formed.ClusterID); err != nil {
			return err
		}
	case <-ctx.Done():
		return nil
	case err := <-fatal:
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-fatal:
		return err
	}
}

// stop ends the process cleanly.
func (v *voter) stop() {
	if v.running == nil {
		return
	}
	v.running.stop()
	<-v.running.done
	v.check(true)
	v.running = nil
}

// check fails the test over a process that ended by itself.
func (v *voter) check(clean bool) {
	v.w.t.Helper()
	l := v.running
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil && clean && !errors.Is(l.err, context.Canceled) {
		v.w.fatalf("node %d ended: %v", v.id, l.err)
	}
	if l.machine.lastOffset() >= 0 {
		v.w.lived[l.cluster] = true
	}
}

func (r *recorder) lastOffset() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// end kills the process; its disk is what replace makes of it.
func (v *voter) end(replace func(*disk.Mem) *disk.Mem) {
	if v.running == nil {
		v.disk = replace(v.disk)
		return
	}
	select {
	case <-v.running.done:
		v.check(!v.failed) // it should have been running
	default:
	}
	v.w.net.Kill(v.host)
	v.disk = replace(v.disk)
	if q, _ := v.running.quorum(); q != nil {
		q.stop(ErrClosed) // a process that is killed hands nothing over
	}
	v.running.stop()
	<-v.running.done
	v.check(false)
	v.running = nil
}

func (v *voter) kill()             { v.end((*disk.Mem).Kill) }
func (v *voter) crash(seed uint64) { v.end(func(d *disk.Mem) *disk.Mem { return d.Crash(seed) }) }
func (v *voter) wipe()             { v.end(func(d *disk.Mem) *disk.Mem { d.Kill(); return disk.NewMem() }) }

func (w *world) startAll() {
	for _, id := range w.ids {
		w.nodes[id].start()
	}
}

// leader is the voter whose machine may propose, nil while there is none.
func (w *world) leader() *voter {
	var found *voter
	for _, id := range w.ids {
		v := w.nodes[id]
		if v.running == nil {
			continue
		}
		q, m := v.running.quorum()
		if q == nil {
			continue
		}
		if l := m.leadership(); l.Mine && (found == nil || l.Epoch > found.running.machine.leadership().Epoch) {
			found = v
		}
	}
	return found
}

func (r *recorder) leadership() metadata.Leadership {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lead
}

// eventually waits in fake time.
func (w *world) eventually(what string, within time.Duration, f func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > within {
			w.fatalf("not within %v: %s\n%s", within, what, w.story())
		}
		time.Sleep(time.Millisecond + time.Duration(w.dice.IntN(1e6)))
	}
	return time.Since(began)
}

func (w *world) story() string {
	var b strings.Builder
	for _, id := range w.ids {
		l := w.nodes[id].running
		if l == nil {
			fmt.Fprintf(&b, "node %d is down\n", id)
			continue
		}
		q, m := l.quorum()
		l.mu.Lock()
		fmt.Fprintf(&b, "node %d: waits for %q, error %v, applied %d", id, l.waiting, l.err, m.lastOffset())
		l.mu.Unlock()
		if q != nil {
			fmt.Fprintf(&b, ", status %+v", q.Status())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// propose proposes the next topic at the leader, and tells whether it was applied there in time.
func (w *world) propose(patience time.Duration) bool {
	v := w.leader()
	if v == nil {
		return false
	}
	q, m := v.running.quorum()
	topic := w.next
	id, err := q.Propose(m.leadership().Epoch, []metadata.Record{topicRecord(topic)})
	if err != nil {
		return false
	}
	w.next++
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond + time.Duration(w.dice.IntN(1e5))) {
		if _, ok := m.offsetOf(id); ok {
			w.acked[topic] = true
			return true
		}
	}
	return false
}

func (w *world) mustPropose(n int) {
	w.t.Helper()
	for range n {
		w.eventually("a proposal is committed", 30*time.Second, func() bool { return w.propose(time.Second) })
	}
}

// voters are the directories that vote, as the leader has them; nil while there is none.
func (w *world) voters() map[int32]metadata.UUID {
	v := w.leader()
	if v == nil {
		return nil
	}
	q, _ := v.running.quorum()
	all := map[int32]metadata.UUID{}
	for _, r := range q.Status().Voters {
		all[r.NodeID] = r.Directory
	}
	return all
}

// whole tells whether a node runs, votes with the disk that it has, and has applied all.
func (w *world) whole(id int32) bool {
	l := w.nodes[id].running
	if l == nil {
		return false
	}
	q, m := l.quorum()
	lead := w.leader()
	if q == nil || lead == nil {
		return false
	}
	_, leads := lead.running.quorum()
	// While the voters change, a majority of those before is needed as well, wiped disks among them.
	if lq, _ := lead.running.quorum(); lq.Status().Changing {
		return false
	}
	return w.voters()[id] == q.o.Dir.ID() && m.lastOffset() == leads.lastOffset()
}

// settle waits until all nodes are whole, and compares what they know.
func (w *world) settle() {
	w.t.Helper()
	w.eventually("all nodes are whole", 2*time.Minute, func() bool {
		for _, id := range w.ids {
			if !w.whole(id) {
				return false
			}
		}
		return len(w.voters()) == len(w.ids)
	})
	w.compare()
}

// compare looks at what all nodes know.
func (w *world) compare() {
	w.t.Helper()
	w.history.check(w)
	for _, id := range w.ids {
		l := w.nodes[id].running
		if l == nil {
			continue
		}
		_, m := l.quorum()
		image := m.loader.Image()
		for topic := range w.acked {
			if _, ok := image.Topic(fmt.Sprintf("topic-%05d", topic)); !ok {
				w.fatalf("node %d has lost acknowledged topic %d\n%s", id, topic, w.story())
			}
		}
		w.lived[l.cluster] = true
	}
	if len(w.lived) != 1 {
		w.fatalf("clusters that lived: %v", w.lived)
	}
}

func TestVotersFormOneQuorum(t *testing.T) {
	for _, n := range []int32{1, 3, 5} {
		for seed := range uint64(5) {
			inWorld(t, seed, n, func(w *world) {
				for _, i := range w.dice.Perm(int(n)) {
					time.Sleep(time.Duration(w.dice.IntN(3000)) * time.Millisecond)
					w.nodes[int32(i)+1].start()
				}
				w.mustPropose(30)
				w.settle()
			})
		}
	}
}

func TestLeaderThatDiesIsReplacedWithinASecond(t *testing.T) {
	slowest, sum := time.Duration(0), time.Duration(0)
	const seeds = 200
	for seed := range uint64(seeds) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(5)
			w.settle()
			time.Sleep(time.Second + time.Duration(seed)*7*time.Millisecond)
			dead := w.leader()
			began := time.Now()
			dead.kill()
			w.eventually("another leads", 10*time.Second, func() bool { return w.leader() != nil && w.propose(time.Second) })
			took := time.Since(began)
			slowest, sum = max(slowest, took), sum+took
			dead.start()
			w.mustPropose(3)
			w.settle()
		})
	}
	t.Logf("from the leader's end to the next commit: mean %v, slowest %v of %d", sum/seeds, slowest, seeds)
	if slowest > 450*time.Millisecond || sum/seeds > 150*time.Millisecond { // also where two stood at once
		t.Fatalf("mean %v, slowest %v", sum/seeds, slowest)
	}
}

// Followers whose connection to the leader breaks forget it within the time of a message, and so would grant
// another their vote at once, not after an election's time.
func TestBrokenConnectionForgetsTheLeader(t *testing.T) {
	for seed := range uint64(10) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(3)
			w.settle()
			dead := w.leader()
			dead.kill()
			w.eventually("nobody waits for the leader that is gone", 5*time.Millisecond, func() bool {
				for _, id := range w.ids {
					if v := w.nodes[id]; v != dead {
						q, _ := v.running.quorum()
						if q.Status().Leader == dead.id {
							return false
						}
					}
				}
				return true
			})
		})
	}
}

func TestClosingLeaderHandsOver(t *testing.T) {
	for seed := range uint64(10) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(5)
			w.settle()
			old := w.leader()
			var stopping sync.WaitGroup
			stopping.Go(func() { old.stop() })
			began := time.Now()
			for old.running != nil && w.leader() == old {
				time.Sleep(time.Millisecond)
			}
			w.eventually("another leads", 10*time.Second, func() bool { return w.leader() != nil && w.leader() != old })
			if took := time.Since(began); took > 100*time.Millisecond {
				w.fatalf("another leads %v after the leader began to stop", took)
			}
			stopping.Wait()
			w.mustPropose(1)
		})
	}
}

// A voter whose disk was wiped becomes one again under its new directory, and the old one votes no more.
func TestTrap10WipedVoterComesBackAsAnotherMember(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(20 + int(seed)*5)
			w.settle()
			before := w.voters()
			victim := w.ids[seed%3]
			w.nodes[victim].wipe()
			if seed%2 == 0 {
				w.mustPropose(50)
			}
			w.nodes[victim].start()
			w.settle()
			if w.voters()[victim] == before[victim] {
				w.fatalf("node %d votes under the directory that it has lost", victim)
			}
			w.mustPropose(5)
			// It counts again: with it and one more there is a majority.
			w.nodes[w.ids[(seed+1)%3]].kill()
			w.mustPropose(5)
		})
	}
}

// Two wiped disks of three never begin a new cluster beside the one that has everything. They say whom
// they wait for.
func TestTrap10TwoWipedVotersWait(t *testing.T) {
	for seed := range uint64(10) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(20)
			w.settle()
			survivor := w.nodes[w.ids[seed%3]]
			var others []*voter
			for _, id := range w.ids {
				if w.nodes[id] != survivor {
					others = append(others, w.nodes[id])
				}
			}
			survivor.kill()
			for _, v := range others {
				v.wipe()
				v.start()
			}
			waits := func(v *voter, words ...string) {
				w.t.Helper()
				l := v.running
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.q != nil || l.err != nil {
					w.fatalf("node %d has gone on: %v", v.id, l.err)
				}
				for _, word := range words {
					if !strings.Contains(l.waiting, word) {
						w.fatalf("node %d waits for %q, which does not say %q", v.id, l.waiting, word)
					}
				}
			}
			time.Sleep(time.Minute)
			for _, v := range others {
				waits(v, fmt.Sprintf("no answer from node %d", survivor.id))
			}
			survivor.start()
			time.Sleep(time.Minute)
			for _, v := range others {
				waits(v, "has no leader", fmt.Sprintf("held by node %d", survivor.id), "empty disk")
			}
			if w.leader() != nil {
				w.fatalf("node %d leads a cluster of which two thirds are lost", w.leader().id)
			}
		})
	}
}

// The great one: crashes with torn writes, kills, wipes, cut lines, while somebody proposes all the time.
// Never two clusters, never a lost committed entry.
func TestNothingCommittedIsLostByCrashesWipesAndCuts(t *testing.T) {
	counts := map[string]int{}
	acked := 0
	for n := range *faultSeeds {
		seed := *firstSeed + n
		inWorld(t, seed, 3, func(w *world) {
			w.dice.Shuffle(3, func(i, j int) { w.ids[i], w.ids[j] = w.ids[j], w.ids[i] })
			w.startAll()
			if seed%4 != 0 { // else faults begin while the cluster does
				w.mustPropose(3)
			}
			wiped := int32(0) // the node that has not come back whole since; at most one at a time
			for range 12 {
				for range 3 + w.dice.IntN(10) {
					w.propose(200 * time.Millisecond)
				}
				time.Sleep(time.Duration(w.dice.IntN(700)) * time.Millisecond)
				v := w.nodes[w.ids[w.dice.IntN(3)]]
				if wiped != 0 && w.whole(wiped) {
					wiped = 0
				}
				switch n := w.dice.IntN(9); n {
				case 0, 1:
					v.crash(w.dice.Uint64())
					counts["crash"]++
				case 2:
					v.kill()
					counts["kill"]++
				case 3, 4:
					// What was acknowledged may be on two disks alone: the other one must have it too.
					if len(w.acked) > 0 && (wiped != 0 || !w.othersWhole(v.id)) {
						break
					}
					if len(w.acked) == 0 && w.anyHolds() {
						break
					}
					v.wipe()
					wiped = v.id
					counts["wipe"]++
				case 5:
					w.net.Isolate(host(v.id))
					counts["isolate"]++
				case 6:
					w.net.CutOneWay(host(v.id), host(w.ids[w.dice.IntN(3)]))
					counts["one way"]++
				case 7:
					for _, id := range w.ids {
						w.nodes[id].crash(w.dice.Uint64())
					}
					counts["all"]++
				default:
					w.net.HealAll()
				}
				if w.dice.IntN(2) == 0 {
					w.net.HealAll()
				}
				if w.dice.IntN(3) > 0 {
					w.startAll()
				}
			}
			w.net.HealAll()
			w.startAll()
			w.mustPropose(3)
			w.settle()
			acked += len(w.acked)
		})
	}
	t.Logf("%d acknowledged over %d seeds; faults %v", acked, *faultSeeds, counts)
	for _, kind := range []string{"crash", "kill", "wipe", "isolate", "one way", "all"} {
		if counts[kind] == 0 {
			t.Errorf("no fault of kind %q", kind)
		}
	}
}

// othersWhole tells whether all nodes but one have everything.
func (w *world) othersWhole(id int32) bool {
	for _, other := range w.ids {
		if other != id && !w.whole(other) {
			return false
		}
	}
	return true
}

// anyHolds tells whether a quorum was opened anywhere.
func (w *world) anyHolds() bool {
	for _, id := range w.ids {
		if l := w.nodes[id].running; l != nil {
			if q, _ := l.quorum(); q != nil {
				return true
			}
		}
	}
	return false
}

// givenUp is the number of the topic that a recovery makes, for want of anything else that follows.
const givenUp = 60_000

// recover is what `barnabas cluster recover` does on a node that is down.
func (v *voter) recover(do bool) Recovered {
	v.w.t.Helper()
	ctx := v.w.t.Context()
	v.disk.SetFault(nil)
	dir, err := commitlog.OpenDir(ctx, commitlog.DirOptions{FS: v.disk, Path: "/meta", NodeID: v.id, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		v.w.fatalf("%v", err)
	}
	o := RecoverOptions{
		FS: v.disk, Dir: dir, Log: commitlog.DefaultConfig(), NodeID: v.id, ClusterID: dir.ClusterID(),
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, Do: do,
		GiveUp: func(*metadata.Image, []int32) []metadata.Record { return []metadata.Record{topicRecord(givenUp)} },
	}
	o.Log.Delete = false
	r, err := Recover(ctx, o)
	if err := errors.Join(err, dir.Close()); err != nil {
		v.w.fatalf("recover: %v", err)
	}
	return r
}

// Two disks of three are lost: nothing goes on until somebody says so, and then everything that the third
// had is there, the others join again, and there are three voters.
func TestRecoverFromALostMajority(t *testing.T) {
	for seed := range uint64(15) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(10 + int(seed)*7)
			w.settle()
			survivor := w.nodes[w.ids[seed%3]]
			for _, id := range w.ids {
				if w.nodes[id] == survivor {
					survivor.crash(seed)
				} else {
					w.nodes[id].wipe()
				}
			}
			looked := survivor.recover(false)
			if looked.Topics < len(w.acked) || len(looked.Members) != 3 {
				w.fatalf("found %+v, %d topics were acknowledged", looked, len(w.acked))
			}
			w.startAll()
			time.Sleep(20 * time.Second)
			if w.leader() != nil {
				w.fatalf("looking has changed something: node %d leads", w.leader().id)
			}
			survivor.kill()
			if done := survivor.recover(true); done.Topics != looked.Topics || done.ClusterID != looked.ClusterID {
				w.fatalf("looked %+v, did %+v", looked, done)
			}
			w.startAll()
			w.mustPropose(5)
			w.settle()
			for _, id := range w.ids {
				_, m := w.nodes[id].running.quorum()
				if _, ok := m.loader.Image().Topic(fmt.Sprintf("topic-%05d", givenUp)); !ok {
					w.fatalf("node %d does not know what followed from the recovery", id)
				}
			}
			w.nodes[w.ids[(seed+1)%3]].kill() // three voters again: one may fail
			w.mustPropose(2)
		})
	}
}
