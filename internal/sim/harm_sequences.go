package sim

import (
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
	joinerHurt       = "power cut of a joining replica"
)

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

// tearElection parts two voters, and kills the third, whom both need, over and over: it dies soon after it has voted, before it
// has heard of the leader that it made.
func (m *nemesis) tearElection() (string, bool) {
	id := m.victim(func(id int32) bool { return int(id) <= m.r.plan.voters && m.mayDie(id) })
	if id == 0 || m.r.plan.voters != 3 {
		return "", false
	}
	x, y := id%3+1, (id+1)%3+1
	if m.dice.IntN(2) == 0 {
		x, y = y, x
	}
	latency, lives := m.between(30*time.Millisecond, 150*time.Millisecond), 2+m.dice.IntN(3)
	m.r.Net.Cut(m.name(x), m.name(y))
	m.slow(x, id, latency)
	m.flap(id, lives)
	return fmt.Sprintf("%d and %d are apart, %d dies %d times, hears of %d late by %v", x, y, id, lives, x, latency), true
}

// flap kills a node so many times, each time after a life as long as an election.
func (m *nemesis) flap(id int32, times int) {
	m.dies(id)
	m.r.node(id).Kill()
	m.busy[id] = true
	m.after(m.between(5*time.Millisecond, 60*time.Millisecond), func() {
		m.begin(id)
		m.busy[id] = true
		m.after(m.between(300*time.Millisecond, 1200*time.Millisecond), func() {
			if times > 1 {
				m.flap(id, times-1)
				return
			}
			delete(m.busy, id)
		})
	})
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
	if leader == 0 || m.wounded != 0 || !m.free(leader, other) {
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
		if i := slices.Index(p.Replicas, p.Leader); i >= 0 && len(p.ISR) == 2 {
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

// hurtJoiner lets a replica come back, and cuts its power when its leader has just asked the controller to take it in, over a
// slow link. The replica is back before the question arrives, without what it had not flushed, and cannot reach its leader,
// which dies next.
func (m *nemesis) hurtJoiner() (string, bool) {
	p := m.quorum()
	if p == nil || !m.r.plan.cached || m.wounded != 0 || m.r.plan.voters != 3 || p.LeaderID > 3 || !m.free(1, 2, 3) {
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
			m.r.node(joiner).Crash(m.dice.Uint64())
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
