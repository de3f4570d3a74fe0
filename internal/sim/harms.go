package sim

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"barnabas/internal/disk"
)

// harms are the faults by kind. Each says what it has done to whom, or that it cannot be done now.
var harms = map[string]func(*nemesis) (what string, done bool){
	linkCut:        (*nemesis).cutLink,
	linkOneWay:     (*nemesis).cutOneWay,
	linkSlow:       (*nemesis).slowLink,
	nodeCutOff:     (*nemesis).cutOff,
	nodePaused:     (*nemesis).pause,
	nodeKilled:     (*nemesis).kill,
	powerCut:       (*nemesis).cutPower,
	powerCutAll:    (*nemesis).cutAllPower,
	diskFull:       (*nemesis).fillDisk,
	diskSlow:       (*nemesis).slowDisk,
	flushFailed:    (*nemesis).failFlush,
	readFailed:     (*nemesis).failReads,
	clockJumped:    (*nemesis).jumpClock,
	bitFlipped:     (*nemesis).flipBit,
	diskWiped:      (*nemesis).wipe,
	voterChanged:   (*nemesis).changeVoter,
	brokerJoined:   (*nemesis).joinBroker,
	nodeRestarted:  (*nemesis).restart,
	controllerHurt: (*nemesis).hurtController,

	powerCutSlow:     (*nemesis).cutPowerOfSlow,
	electionTorn:     (*nemesis).tearElection,
	majorityOutdated: (*nemesis).outdateMajority,
	lastLostPower:    (*nemesis).cutPowerOfLast,
	leadersInTurn:    (*nemesis).killInTurn,
	joinerHurt:       (*nemesis).hurtJoiner,
}

// link draws two nodes.
func (m *nemesis) link() (from, to int32) {
	from = int32(1 + m.dice.IntN(len(m.r.there())))
	to = int32(1 + m.dice.IntN(len(m.r.there())-1))
	if to >= from {
		to++
	}
	return from, to
}

func (m *nemesis) name(id int32) string { return m.r.node(id).Name }

func (m *nemesis) cutLink() (string, bool) {
	a, b := m.link()
	d := m.lasts()
	m.r.Net.Cut(m.name(a), m.name(b))
	m.after(d, func() { m.r.Net.Heal(m.name(a), m.name(b)) })
	return fmt.Sprintf("%d and %d for %v", a, b, d), true
}

func (m *nemesis) cutOneWay() (string, bool) {
	a, b := m.link()
	d := m.lasts()
	m.r.Net.CutOneWay(m.name(a), m.name(b))
	m.after(d, func() { m.r.Net.Heal(m.name(a), m.name(b)) })
	return fmt.Sprintf("from %d to %d for %v", a, b, d), true
}

const slowestLink = 400 * time.Millisecond

func (m *nemesis) slowLink() (string, bool) {
	a, b := m.link()
	d, latency := m.lasts(), time.Millisecond+time.Duration(m.dice.Int64N(int64(slowestLink)))
	m.slow(a, b, latency)
	both := m.dice.IntN(2) == 0
	if both {
		m.slow(b, a, latency)
	}
	m.after(d, func() {
		m.slow(a, b, 0)
		m.slow(b, a, 0)
	})
	return fmt.Sprintf("%v and more from %d to %d for %v, both ways: %v", latency, a, b, d, both), true
}

// slow sets a link's latency; 0 is a healthy one's.
func (m *nemesis) slow(from, to int32, latency time.Duration) {
	if latency == 0 {
		m.r.Net.SetLatency(m.name(from), m.name(to), 200*time.Microsecond, 300*time.Microsecond)
		delete(m.latency, [2]int32{from, to})
		return
	}
	m.r.Net.SetLatency(m.name(from), m.name(to), latency, latency)
	m.latency[[2]int32{from, to}] = true
}

func (m *nemesis) cutOff() (string, bool) {
	id := int32(1 + m.dice.IntN(len(m.r.there())))
	return m.isolate(id), true
}

func (m *nemesis) isolate(id int32) string {
	d := m.lasts()
	m.r.Net.Isolate(m.name(id))
	m.after(d, func() { m.r.Net.Rejoin(m.name(id)) })
	return fmt.Sprintf("%d for %v", id, d)
}

func (m *nemesis) pause() (string, bool) {
	id := m.victim(nil)
	if id == 0 {
		return "", false
	}
	return m.freeze(id), true
}

func (m *nemesis) freeze(id int32) string {
	d := m.lasts()
	m.busy[id] = true
	m.r.node(id).Pause()
	m.after(d, func() {
		m.r.node(id).Resume()
		delete(m.busy, id)
	})
	return fmt.Sprintf("%d for %v", id, d)
}

func (m *nemesis) kill() (string, bool) {
	id := m.victim(m.mayDie)
	if id == 0 {
		return "", false
	}
	return m.slay(id), true
}

func (m *nemesis) slay(id int32) string {
	d := m.lasts()
	m.dies(id)
	m.r.node(id).Kill()
	m.revive(id, d)
	return fmt.Sprintf("%d for %v", id, d)
}

func (m *nemesis) cutPower() (string, bool) {
	id := m.victim(m.mayDie)
	if id == 0 {
		return "", false
	}
	d := m.lasts()
	m.dies(id)
	m.lightsOut(id)
	m.revive(id, d)
	return fmt.Sprintf("%d for %v", id, d), true
}

// lightsOut cuts a node's power. Of its peers some hear that its connections are gone, as when a machine comes back at once;
// others hear nothing until it is started again.
func (m *nemesis) lightsOut(id int32) {
	if m.dice.IntN(2) == 0 {
		m.r.Net.Isolate(m.name(id))
		m.dark[id] = true
	}
	m.r.node(id).Crash(m.dice.Uint64())
}

// cutAllPower takes what is in page caches alone with it, on all replicas at once, so no world does it that relies on them.
func (m *nemesis) cutAllPower() (string, bool) {
	if m.r.plan.cached {
		return "", false
	}
	for i, n := range m.r.there() {
		id := int32(i + 1)
		if n.Broker() == nil && !n.IsStarting() {
			continue // it is down, and somebody will start it
		}
		m.lightsOut(id)
		m.revive(id, m.lasts())
	}
	return "", true
}

func (m *nemesis) fillDisk() (string, bool) {
	id := m.victim(nil)
	if id == 0 {
		return "", false
	}
	d := m.lasts()
	m.r.node(id).Disk().SetCapacity(1)
	m.full[id] = true
	m.after(d, func() {
		m.r.node(id).Disk().SetCapacity(0)
		delete(m.full, id)
	})
	return fmt.Sprintf("%d for %v", id, d), true
}

func isFlush(op disk.Op) bool {
	return op.Kind == disk.OpSync || op.Kind == disk.OpSyncDir || op.Kind == disk.OpSyncFS
}

const slowestFlush = 900 * time.Millisecond

func (m *nemesis) slowDisk() (string, bool) {
	id := m.victim(nil)
	if id == 0 {
		return "", false
	}
	d, latency := m.lasts(), time.Millisecond+time.Duration(m.dice.Int64N(int64(slowestFlush)))
	m.withRule(id, d, func(op disk.Op) error {
		if isFlush(op) {
			time.Sleep(latency)
		}
		return nil
	})
	return fmt.Sprintf("each flush of %d takes %v for %v", id, latency, d), true
}

// withRule puts a rule before a disk for a while; nobody else is at it meanwhile.
func (m *nemesis) withRule(id int32, d time.Duration, rule disk.Fault) {
	m.busy[id] = true
	m.r.node(id).Fault(rule)
	m.after(d, func() {
		m.r.node(id).Fault(nil)
		delete(m.busy, id)
	})
}

// failFlush lets one flush in one data directory fail. What it should have flushed is lost, though reads show it until the
// node dies.
func (m *nemesis) failFlush() (string, bool) {
	id := m.victim(m.mayLose)
	if id == 0 {
		return "", false
	}
	m.wounded, m.failed[id] = id, true
	dir := m.r.plan.dirs[m.dice.IntN(len(m.r.plan.dirs))]
	var fuse atomic.Int64
	fuse.Store(1 + m.dice.Int64N(30))
	m.withRule(id, m.lasts(), func(op disk.Op) error {
		if isFlush(op) && strings.HasPrefix(op.Path, dir) && fuse.Add(-1) == 0 {
			m.r.met(flushRefused)
			return syscall.EIO
		}
		return nil
	})
	return fmt.Sprintf("%d in %s", id, dir), true
}

// failReads lets reads of one partition's segments fail.
func (m *nemesis) failReads() (string, bool) {
	id := m.victim(m.mayLose)
	if id == 0 {
		return "", false
	}
	m.wounded, m.failed[id] = id, true
	t := m.r.plan.steady[m.dice.IntN(len(m.r.plan.steady))]
	part := fmt.Sprintf("/%s-%d/", t.name, m.dice.IntN(int(t.partitions)))
	d := m.lasts()
	m.withRule(id, d, func(op disk.Op) error {
		if op.Kind == disk.OpRead && strings.Contains(op.Path, part) && strings.HasSuffix(op.Path, ".log") {
			m.r.met(readRefused)
			return syscall.EIO
		}
		return nil
	})
	return fmt.Sprintf("%s on %d for %v", part, id, d), true
}

// jumpClock sets a node's wall clock, forwards or backwards, and now and then right again.
func (m *nemesis) jumpClock() (string, bool) {
	id := int32(1 + m.dice.IntN(len(m.r.there())))
	ahead := time.Duration(m.dice.Int64N(int64(2*clockJumpMost))) - clockJumpMost
	if m.dice.IntN(4) == 0 {
		ahead = 0
	}
	m.r.node(id).SetClock(ahead)
	return fmt.Sprintf("%d is ahead by %v", id, ahead), true
}

func (m *nemesis) wipe() (string, bool) {
	id := m.victim(m.mayLose)
	if id == 0 {
		return "", false
	}
	d := m.lasts()
	m.wounded = id
	m.r.node(id).Wipe()
	m.revive(id, d)
	return fmt.Sprintf("%d, back after %v", id, d), true
}

func (m *nemesis) restart() (string, bool) {
	id := m.victim(m.mayStop)
	if id == 0 {
		return "", false
	}
	return m.stop(id), true
}

func (m *nemesis) stop(id int32) string {
	d := m.lasts()
	m.busy[id] = true
	if m.full[id] {
		m.dies(id)
	}
	n := m.r.node(id)
	// Beside the others: a node takes its leave as long as it may, and the world goes on meanwhile.
	m.revive(id, d)
	if err := n.Stop(); err != nil {
		m.tell("stop %d: %v", id, err)
	}
	return fmt.Sprintf("%d, back after %v", id, d)
}

// hurtController does something to the node that leads the quorum now.
func (m *nemesis) hurtController() (string, bool) {
	p := m.quorum()
	if p == nil || m.busy[p.LeaderID] || !m.up(m.r.node(p.LeaderID)) {
		return "", false
	}
	id := p.LeaderID
	switch how := m.dice.IntN(4); {
	case how == 0 && m.mayDie(id):
		return "killed " + m.slay(id), true
	case how == 1:
		return "paused " + m.freeze(id), true
	case how == 2 && m.mayStop(id):
		return "stopped " + m.stop(id), true
	default:
		return "cut off " + m.isolate(id), true
	}
}

// joinBroker starts a node that was not there yet.
func (m *nemesis) joinBroker() (string, bool) {
	if len(m.r.there()) == len(m.r.nodes) {
		return "", false
	}
	id := m.r.joined.Add(1)
	m.begin(id)
	return fmt.Sprint(id), true
}
