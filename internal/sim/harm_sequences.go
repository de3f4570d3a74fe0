package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"barnabas/internal/disk"
)

// Faults that come in an order. Each is a sequence that single faults drawn at random hit too, but seldom: the same things
// fail, one after the other, at the moments at which systems of this kind have lost records. They keep inside of what
// the cluster promises, as all faults here do.
const (
	powerCutSlow     = "power cut of all with slow disks"
	electionTorn     = "voter restarted in elections"
	majorityOutdated = "one behind, one wiped, one killed"
	lastLostPower    = "power cut of the last in sync"
	leadersInTurn    = "leaders killed in turn"
	joinerHurt       = "joining replica robbed"
)

// oftenOneOf: of so many faults one is the sequence that a world has often.
const oftenOneOf = 4

// fitting are the sequences that a world can have.
func (p *plan) fitting() []string {
	if p.cached {
		return []string{electionTorn, lastLostPower, joinerHurt}
	}
	fit := []string{powerCutSlow, electionTorn, majorityOutdated, leadersInTurn}
	if len(p.dirs) > 1 {
		fit = append(fit, joinerHurt)
	}
	return fit
}

// between draws a time.
func (m *nemesis) between(least, most time.Duration) time.Duration {
	return least + time.Duration(m.dice.Int64N(int64(most-least)))
}

// free reports whether a node runs, and nobody is at it.
func (m *nemesis) free(ids ...int32) bool {
	for _, id := range ids {
		if m.busy[id] || !m.up(m.r.node(id)) {
			return false
		}
	}
	return true
}

// cutPowerOfSlow makes the flushes of some disks slow, and cuts the power of all nodes while they are.
func (m *nemesis) cutPowerOfSlow() (string, bool) {
	if m.r.plan.cached {
		return "", false
	}
	slow := m.victim(nil)
	if slow == 0 {
		return "", false
	}
	latency, d := m.between(50*time.Millisecond, slowestFlush), m.between(300*time.Millisecond, 2*time.Second)
	m.busy[slow] = true
	m.r.node(slow).Fault(func(op disk.Op) error {
		if isFlush(op) {
			time.Sleep(latency)
		}
		return nil
	})
	m.after(d, func() {
		delete(m.busy, slow)
		m.cutAllPower()
		m.r.node(slow).Fault(nil)
	})
	return fmt.Sprintf("each flush of %d takes %v, and the power goes after %v", slow, latency, d), true
}

// tearElection parts two voters, and kills the third, which leads and whom both need, over and over. Once it is back it makes
// one of the others the leader, and is killed again before it has heard of that; then the other one stands too.
func (m *nemesis) tearElection() (string, bool) {
	p := m.quorum()
	if p == nil || m.r.plan.voters != 3 || p.LeaderID > 3 || !m.free(p.LeaderID) || !m.mayDie(p.LeaderID) {
		return "", false
	}
	t := &torn{voter: p.LeaderID, others: [2]int32{p.LeaderID%3 + 1, (p.LeaderID+1)%3 + 1}, epoch: p.LeaderEpoch, left: 2 + m.dice.IntN(2)}
	t.latency = m.between(40*time.Millisecond, 70*time.Millisecond)
	m.r.Net.Cut(m.name(t.others[0]), m.name(t.others[1]))
	for _, o := range t.others {
		m.slow(o, t.voter, t.latency)
	}
	m.dies(t.voter)
	m.r.node(t.voter).Kill()
	m.busy[t.voter] = true
	m.elect(t, m.between(5*time.Millisecond, 400*time.Millisecond))
	return fmt.Sprintf("%d in %d elections, %v away from the others, who are apart", t.voter, t.left, t.latency), true
}

// torn is such a sequence under way.
type torn struct {
	voter  int32 // who is killed
	others [2]int32
	epoch  int32 // the newest of the quorum that was heard of
	left   int   // elections

	latency time.Duration // from the others to the voter
}

// elect starts the voter, and kills it as soon as another leads.
func (m *nemesis) elect(t *torn, after time.Duration) {
	const looks, every = 500, 2 * time.Millisecond
	var look func(left int)
	look = func(left int) {
		for _, o := range t.others {
			if epoch, leads := m.leads(o); leads && epoch > t.epoch {
				t.epoch = epoch
				m.killOnce(t, o)
				return
			}
		}
		if left > 0 {
			m.after(every, func() { look(left - 1) })
		}
	}
	m.after(after, func() {
		m.begin(t.voter)
		m.busy[t.voter] = true
		look(looks)
	})
}

// killOnce kills the voter, which is back at once, and nearer to the one that does not lead; after a while the next election comes.
func (m *nemesis) killOnce(t *torn, leader int32) {
	const lives, away = 1500 * time.Millisecond, 1100 * time.Millisecond
	m.tell("%s: %d leads in epoch %d", electionTorn, leader, t.epoch)
	m.r.node(t.voter).Kill()
	for _, o := range t.others {
		if o != leader {
			m.slow(o, t.voter, 0)
		}
	}
	m.after(m.between(5*time.Millisecond, 30*time.Millisecond), func() {
		m.begin(t.voter)
		m.busy[t.voter] = true
	})
	m.after(lives, func() {
		if t.left--; t.left == 0 {
			delete(m.busy, t.voter)
			return
		}
		m.r.node(t.voter).Kill()
		for _, o := range t.others {
			m.slow(o, t.voter, t.latency)
		}
		m.elect(t, away)
	})
}

// leads reports whether a node says at once that it leads the quorum.
func (m *nemesis) leads(id int32) (epoch int32, leads bool) {
	const patience = 5 * time.Millisecond
	if !m.up(m.r.node(id)) {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(m.r.Context(), patience)
	defer cancel()
	p := m.askQuorum(ctx, id)
	if p == nil {
		return 0, false
	}
	return p.LeaderEpoch, p.LeaderID == id
}

// outdateMajority leaves one voter behind, wipes another and kills the third, the only one left that has everything. The first
// two are back before it.
func (m *nemesis) outdateMajority() (string, bool) {
	p := m.quorum()
	if p == nil || m.r.plan.cached || m.wounded != 0 || m.r.plan.voters != 3 || m.r.joined.Load() != 3 || !m.free(1, 2, 3) || !m.mayLose(1) {
		return "", false
	}
	has := p.LeaderID
	behind, wiped := has%3+1, (has+1)%3+1
	if m.dice.IntN(2) == 0 {
		behind, wiped = wiped, behind
	}
	m.wounded = wiped
	for id := int32(1); id <= 3; id++ {
		m.busy[id] = true
	}
	away, gone := m.between(time.Second, 4*time.Second), m.between(3*time.Second, 7*time.Second)
	m.r.Net.Isolate(m.name(behind))
	m.after(away, func() {
		m.r.node(wiped).Wipe()
		m.r.node(has).Kill()
		m.r.Net.Rejoin(m.name(behind))
		delete(m.busy, behind)
		m.revive(wiped, m.between(10*time.Millisecond, 300*time.Millisecond))
		m.revive(has, gone)
	})
	return fmt.Sprintf("%d cut off for %v, then %d wiped and %d killed for %v", behind, away, wiped, has, gone), true
}

// cutPowerOfLast has a follower leave, in peace or cut off, until its leader is alone in sync, and then cuts the leader's power,
// of a topic that is not flushed: the follower has all that was acknowledged, and the leader, when it is back, has not.
func (m *nemesis) cutPowerOfLast() (string, bool) {
	leader, other := m.pair()
	if leader == 0 || m.wounded != 0 || m.full[other] || !m.free(leader, other) {
		return "", false
	}
	m.wounded = leader
	m.busy[leader], m.busy[other] = true, true
	crash := func() {
		m.r.node(leader).Crash(m.dice.Uint64())
		m.revive(leader, m.between(10*time.Millisecond, 400*time.Millisecond))
	}
	if m.dice.IntN(2) == 0 {
		away := m.between(2050*time.Millisecond, 3*time.Second)
		m.r.Net.Isolate(m.name(other))
		m.after(away, func() {
			m.r.Net.Rejoin(m.name(other))
			delete(m.busy, other)
			crash()
		})
		return fmt.Sprintf("%d cut off for %v, then %d", other, away, leader), true
	}
	m.amidst(func() {
		m.tell("%s: %d stops", lastLostPower, other)
		if err := m.r.node(other).Stop(); err != nil {
			m.tell("stop %d: %v", other, err)
		}
		m.revive(other, m.between(10*time.Millisecond, time.Second))
		crash()
	})
	return fmt.Sprintf("%d stopped, then %d", other, leader), true
}

// pair draws who leads and who follows a partition of two replicas; 0 where there is none.
func (m *nemesis) pair() (leader, other int32) {
	at := slices.IndexFunc(m.r.plan.steady, func(t steadyTopic) bool { return t.replicas == 2 })
	if at < 0 {
		return 0, 0
	}
	t := m.r.plan.steady[at]
	number := m.dice.Int32N(t.partitions)
	for _, n := range m.r.there() {
		if !m.up(n) {
			continue
		}
		topic, ok := n.Broker().Image().Topic(t.name)
		if !ok || int(number) >= len(topic.Partitions) {
			continue
		}
		p := topic.Partitions[number]
		if i := slices.Index(p.Replicas, p.Leader); i >= 0 && len(p.Replicas) == 2 && len(p.ISR) == 2 {
			return p.Leader, p.Replicas[1-i]
		}
	}
	return 0, 0
}

// killInTurn parts two nodes and kills the third, which comes back at once; whoever leads in its place dies next, and the one
// that is left has never heard of that leader.
func (m *nemesis) killInTurn() (string, bool) {
	if m.r.plan.cached || m.r.joined.Load() != 3 || !m.free(1, 2, 3) {
		return "", false
	}
	first := int32(1 + m.dice.IntN(3))
	next, last := first%3+1, (first+1)%3+1
	if m.dice.IntN(2) == 0 {
		next, last = last, next
	}
	m.busy[first], m.busy[next] = true, true
	m.r.Net.Cut(m.name(next), m.name(last))
	lives, gone := m.between(150*time.Millisecond, 1200*time.Millisecond), m.between(2*time.Second, 5*time.Second)
	m.amidst(func() {
		m.r.node(first).Kill()
		m.after(m.between(5*time.Millisecond, 80*time.Millisecond), func() { m.begin(first) })
		m.after(lives, func() {
			m.r.node(next).Kill()
			m.revive(next, gone)
		})
	})
	return fmt.Sprintf("%d and %d apart, %d killed and back, %d killed %v later for %v", next, last, first, next, lives, gone), true
}

// amidst does something while records are being acknowledged, or after a while in any case.
func (m *nemesis) amidst(do func()) {
	const looks, every = 2000, 700 * time.Microsecond
	before := m.r.history.Answers()
	var look func(left int)
	look = func(left int) {
		if now := m.r.history.Answers(); left == 0 || now > before {
			do()
			return
		}
		m.after(every, func() { look(left - 1) })
	}
	m.after(every, func() { look(looks) })
}

// hurtJoiner lets a replica come back, and takes from it what it has when its leader has just asked the controller to take it in,
// over a slow link. The replica is back before the question arrives, and cannot reach its leader, which dies next.
func (m *nemesis) hurtJoiner() (string, bool) {
	p := m.quorum()
	if p == nil || !m.r.plan.cached && len(m.r.plan.dirs) < 2 || m.wounded != 0 || m.r.plan.voters != 3 || p.LeaderID > 3 || !m.free(1, 2, 3) {
		return "", false
	}
	controller := p.LeaderID
	leader, joiner := controller%3+1, (controller+1)%3+1
	if m.dice.IntN(2) == 0 {
		leader, joiner = joiner, leader
	}
	m.wounded = joiner
	m.busy[leader], m.busy[joiner] = true, true
	latency := m.between(250*time.Millisecond, 700*time.Millisecond)
	m.r.node(joiner).Kill()
	m.after(m.between(time.Second, 3*time.Second), func() {
		m.slow(leader, controller, latency)
		m.begin(joiner)
		m.busy[joiner] = true
		m.after(m.between(150*time.Millisecond, 700*time.Millisecond), func() {
			m.robJoiner(joiner)
			m.r.Net.Cut(m.name(leader), m.name(joiner))
			m.revive(joiner, m.between(5*time.Millisecond, 50*time.Millisecond))
			m.after(m.between(latency, 3*latency), func() {
				m.r.node(leader).Kill()
				m.revive(leader, m.between(2*time.Second, 5*time.Second))
			})
		})
	})
	return fmt.Sprintf("%d, whose leader %d is far from the controller %d by %v and then killed", joiner, leader, controller, latency), true
}

// robJoiner ends a node and takes all but its first data directory, where its vote is, or else what it has not flushed.
func (m *nemesis) robJoiner(id int32) {
	n := m.r.node(id)
	if len(m.r.plan.dirs) < 2 {
		n.Crash(m.dice.Uint64())
		return
	}
	n.Kill()
	n.Disk().SetFault(nil)
	for _, dir := range m.r.plan.dirs[1:] {
		if err := empty(n.Disk(), dir); err != nil {
			m.r.Fatalf("empty %s of %s: %v", dir, n.Name, err)
		}
	}
}

// empty removes all that is in a directory.
func empty(fsys disk.FS, dir string) error {
	found, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, e := range found {
		name := dir + "/" + e.Name
		if e.Dir {
			if err := empty(fsys, name); err != nil {
				return err
			}
		}
		if err := fsys.Remove(name); err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}
