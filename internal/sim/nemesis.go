package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
)

// nemesis harms the cluster in rounds: some faults at a time, which may overlap, and then all is healed, and has to become
// whole. It keeps inside of what the cluster promises: in one round one node at most loses what it had (it is wounded), since
// nothing acknowledged is lost while one in-sync replica lives. All of it runs in the world's first goroutine.
type nemesis struct {
	*guest
	wounded   int32             // who may have lost records in this round; 0: nobody
	busy      map[int32]bool    // whose disk or process somebody is at already
	flipped   map[int32]bool    // whose disk has a bit flipped
	failed    map[int32]bool    // whose disk has failed
	full      map[int32]bool    // whose disk has no room
	dark      map[int32]bool    // whose peers have not heard that its power was cut
	events    []event           // of this round, in no order
	asking    sync.WaitGroup    // changes of the voters under way
	unsettled time.Time         // until then a voter may be taken out
	latency   map[[2]int32]bool // links that are slow
	rounds    int
	story     []string
}

type event struct {
	at time.Time
	do func()
}

// Faults that nemesis does, each with a counter.
const (
	linkCut        = "link cut"
	linkOneWay     = "link cut one way"
	linkSlow       = "link slow"
	nodeCutOff     = "node cut off"
	nodePaused     = "node paused"
	nodeKilled     = "node killed"
	powerCut       = "power cut"
	powerCutAll    = "power cut of all"
	diskFull       = "disk full"
	diskSlow       = "disk slow"
	flushFailed    = "flush failed"
	readFailed     = "read failed"
	clockJumped    = "clock jumped"
	bitFlipped     = "bit flipped"
	diskWiped      = "disk wiped"
	voterChanged   = "voter taken out and in"
	brokerJoined   = "broker joined"
	nodeRestarted  = "node restarted"
	controllerHurt = "controller moved"
)

// allKinds are all of them.
var allKinds = []string{
	linkCut, linkOneWay, linkSlow, nodeCutOff, nodePaused, nodeKilled, powerCut, powerCutAll, diskFull, diskSlow, flushFailed, readFailed,
	clockJumped, bitFlipped, diskWiped, voterChanged, brokerJoined, nodeRestarted, controllerHurt,
	powerCutSlow, electionTorn, majorityOutdated, lastLostPower, leadersInTurn, joinerHurt,
}

// What else is counted.
const (
	damagedRead  = "fetch brought a damaged batch"
	followerRead = "fetch from a follower"
	groupCommit  = "group commit"
	topicChange  = "topic change"
	healedItself = "flipped bit healed by the cluster"
	diskReplaced = "disk replaced"

	replicasMoved   = "replicas reassigned"
	leaderPreferred = "preferred leader asked for"

	// What the faults have come to: one that nobody comes across harms nobody.
	flushRefused = "flush that failed"
	readRefused  = "read that failed"
	voterRemoved = "vote taken away"
	voterAdded   = "vote given back"
)

// otherCounts are all of these.
var otherCounts = []string{
	damagedRead, followerRead, groupCommit, topicChange, healedItself, diskReplaced, replicasMoved, leaderPreferred,
	flushRefused, readRefused, voterRemoved, voterAdded,
}

// seldom are those that come a few times in a hundred worlds only.
var seldom = []string{healedItself}

const (
	mostFaults     = 3 // of a round
	shortestFault  = 150 * time.Millisecond
	doublings      = 5 // of the shortest, at most
	roundSpread    = 1500 * time.Millisecond
	clockJumpMost  = 45 * time.Minute // a broker refuses records that are an hour ahead of it
	wholeLookEvery = 40 * time.Millisecond
	mostStarts     = 2 // of a node without any trouble: the first may have begun when there was some
)

func (r *Run) newNemesis() *nemesis {
	return &nemesis{
		guest: r.guest("nemesis"), busy: map[int32]bool{}, flipped: map[int32]bool{}, full: map[int32]bool{}, dark: map[int32]bool{}, failed: map[int32]bool{},
		latency: map[[2]int32]bool{},
	}
}

// lasts draws how long a fault does.
func (m *nemesis) lasts() time.Duration {
	return time.Duration(float64(shortestFault) * math.Pow(2, doublings*m.dice.Float64()))
}

// after adds to the round what is done then.
func (m *nemesis) after(d time.Duration, do func()) {
	m.events = append(m.events, event{time.Now().Add(d), do})
}

// round harms, heals and waits.
func (m *nemesis) round() {
	m.rounds++
	m.wounded = 0
	clear(m.busy)
	for range 1 + m.dice.IntN(mostFaults) {
		m.after(time.Duration(m.dice.Int64N(int64(roundSpread))), m.harm)
	}
	for len(m.events) > 0 {
		first := 0
		for i, e := range m.events {
			if e.at.Before(m.events[first].at) {
				first = i
			}
		}
		e := m.events[first]
		m.events = slices.Delete(m.events, first, first+1)
		time.Sleep(time.Until(e.at))
		e.do()
	}
	m.heal()
	m.whole("after a round")
}

// harm does one fault of a kind that the world has, if one is possible now.
func (m *nemesis) harm() {
	for range 20 {
		kind := m.r.plan.kinds[m.dice.IntN(len(m.r.plan.kinds))]
		if m.dice.IntN(oftenOneOf) == 0 {
			kind = m.r.plan.often
		}
		what, done := harms[kind](m)
		if !done {
			continue
		}
		m.r.met(kind)
		m.tell("%s: %s", kind, what)
		return
	}
}

func (m *nemesis) tell(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	m.r.Trace("nemesis", "%s", line)
	m.story = append(m.story, fmt.Sprintf("%v %s", time.Since(m.r.began), line))
}

// up reports whether a node runs. One whose start has failed is not, and can be started again.
func (m *nemesis) up(n *clustertest.Node) bool {
	if n.Broker() == nil && !n.IsStarting() {
		if err := n.Started(); err != nil {
			m.tell("start %s: %v", n.Name, err)
		}
	}
	return n.Broker() != nil
}

// victim draws a node that runs and that nobody is at, 0 where there is none.
func (m *nemesis) victim(fit func(id int32) bool) int32 {
	var fits []int32
	for i, n := range m.r.there() {
		if id := int32(i + 1); m.up(n) && !m.busy[id] && (fit == nil || fit(id)) {
			fits = append(fits, id)
		}
	}
	if len(fits) == 0 {
		return 0
	}
	return fits[m.dice.IntN(len(fits))]
}

// mayWound reports whether a node may lose what it has.
func (m *nemesis) mayWound(id int32) bool { return m.wounded == 0 || m.wounded == id }

// mayLose is mayWound for a disk with a vote on it: of the voters, too, one at a time may forget.
func (m *nemesis) mayLose(id int32) bool { return m.mayWound(id) && time.Now().After(m.unsettled) }

// mayDie reports whether a node may end without a word. It keeps what is on its disk, but who has died so cannot say
// whether that is all, where records are acknowledged before they are flushed.
func (m *nemesis) mayDie(id int32) bool { return !m.r.plan.cached || m.mayWound(id) }

// mayStop reports whether a node may stop in peace. Where there is no room for the mark of a clean stop, nobody knows of
// that afterwards, and it is as if it had died.
func (m *nemesis) mayStop(id int32) bool { return !m.full[id] || m.mayDie(id) }

// dies notes it.
func (m *nemesis) dies(id int32) {
	if m.r.plan.cached {
		m.wounded = id
	}
}

// revive starts a node again after a while; heal waits until it serves.
func (m *nemesis) revive(id int32, after time.Duration) {
	m.busy[id] = true
	m.after(after, func() { m.begin(id) })
}

func (m *nemesis) begin(id int32) {
	n := m.r.node(id)
	if m.up(n) || n.IsStarting() {
		return
	}
	if m.dark[id] {
		delete(m.dark, id)
		m.r.Net.Rejoin(n.Name)
	}
	if _, err := n.Begin(m.r.Context()); err != nil {
		m.r.Fatalf("start %s: %v", n.Name, err)
	}
	delete(m.busy, id)
}

// heal ends all faults, replaces disks that are no good any more, and starts whoever is down.
func (m *nemesis) heal() {
	m.r.Net.HealAll()
	for link := range m.latency {
		m.slow(link[0], link[1], 0)
	}
	for i, n := range m.r.there() {
		n.Resume()
		n.Fault(nil)
		n.Disk().SetCapacity(0)
		delete(m.full, int32(i+1))
		m.settle(int32(i+1), n)
	}
	m.asking.Wait()
	for i := range m.r.there() {
		m.repair(int32(i + 1))
	}
}

// settle waits until a node that is starting has started, or begins a start.
func (m *nemesis) settle(id int32, n *clustertest.Node) {
	for attempt := 0; !m.up(n); attempt++ {
		if attempt > mostStarts {
			m.r.Fatalf("%s does not start", n.Name)
		}
		if attempt > 0 && m.failed[id] { // a disk that has failed is not used again without an operator's word
			delete(m.failed, id)
			m.replace(id, n)
			return
		}
		m.begin(id)
		if !m.startedWithin(n, healPatience) {
			m.r.Fatalf("%s has not started within %v", n.Name, healPatience)
		}
	}
}

func (m *nemesis) startedWithin(n *clustertest.Node, patience time.Duration) bool {
	for until := time.Now().Add(patience); n.IsStarting(); {
		if time.Now().After(until) {
			return false
		}
		clustertest.Jitter(m.dice, wholeLookEvery)
	}
	return true
}

// repair replaces what is no good any more of a node's disk.
func (m *nemesis) repair(id int32) {
	n := m.r.node(id)
	if m.flipped[id] {
		delete(m.flipped, id)
		if m.unreadable(n) == "" {
			m.r.met(healedItself)
		} else {
			m.replace(id, n)
		}
	}
	if m.failed[id] {
		delete(m.failed, id)
		switch {
		case n.Broker().Failure() != nil || m.anyMarked(n):
			m.replace(id, n)
		case m.leftOut(id): // it could not be read when the node was started, and can be now
			n.Kill()
			m.settle(id, n)
		}
	}
	if err := n.Broker().Failure(); err != nil {
		m.failedBy(n, err)
	}
}

// leftOut reports whether a node goes without one of its data directories.
func (m *nemesis) leftOut(id int32) bool {
	for _, n := range m.r.there() {
		if b, known := n.Broker().Image().Broker(id); known && len(b.Directories) < len(m.r.plan.dirs) {
			return true
		}
	}
	return false
}

// replace gives a node a new disk.
func (m *nemesis) replace(id int32, n *clustertest.Node) {
	m.tell("disk of %s is replaced", n.Name)
	m.r.met(diskReplaced)
	n.Wipe()
	m.settle(id, n)
}

// whole waits until every replica of the topics that stay is in sync, every node knows it, and the voters are who they should be.
func (m *nemesis) whole(when string) {
	until := time.Now().Add(healPatience)
	for {
		wrong := m.wrong()
		if wrong == "" {
			return
		}
		m.giveVotes()
		if time.Now().After(until) {
			m.r.Fatalf("%s the cluster is not well within %v: %s", when, healPatience, wrong)
		}
		clustertest.Jitter(m.dice, wholeLookEvery)
	}
}

// wrong says what is not as it should be when there is no trouble.
func (m *nemesis) wrong() string {
	for _, topic := range append([]string{"__consumer_offsets"}, names(m.r.plan.steady)...) {
		agreed := ""
		for _, n := range m.r.there() {
			if err := n.Broker().Failure(); err != nil {
				m.failedBy(n, err)
			}
			t, known := n.Broker().Image().Topic(topic)
			if !known {
				if topic == "__consumer_offsets" {
					continue // nobody has asked for a coordinator yet
				}
				return fmt.Sprintf("%s does not know %s", n.Name, topic)
			}
			epochs := ""
			for i, p := range t.Partitions {
				if p.Leader < 1 || len(p.ISR) < len(p.Replicas) || len(p.Adding)+len(p.Removing) > 0 {
					return fmt.Sprintf("%s: %s-%d: %+v", n.Name, topic, i, *p)
				}
				epochs += fmt.Sprint(p.Leader, p.LeaderEpoch, p.PartitionEpoch, " ")
			}
			if agreed != "" && agreed != epochs {
				return fmt.Sprintf("of %s %s knows %s, another %s", topic, n.Name, epochs, agreed)
			}
			agreed = epochs
		}
	}
	return m.wrongVoters()
}

// abreast waits until every node has heard of all changes of metadata that any of them has heard of by now: where a link was slow
// a moment ago, what was sent over it may still be under way.
func (m *nemesis) abreast() {
	newest := int64(0)
	for _, n := range m.r.there() {
		newest = max(newest, n.Broker().Image().Offset())
	}
	until := time.Now().Add(healPatience)
	for _, n := range m.r.there() {
		for n.Broker().Image().Offset() < newest {
			if time.Now().After(until) {
				m.r.Fatalf("%s has heard of the metadata up to %d, another up to %d", n.Name, n.Broker().Image().Offset(), newest)
			}
			clustertest.Jitter(m.dice, wholeLookEvery)
		}
	}
}

func names(topics []steadyTopic) (all []string) {
	for _, t := range topics {
		all = append(all, t.name)
	}
	return all
}

// logs is what the nodes have logged, and what was done to them.
func (m *nemesis) logs() string {
	all := ""
	for _, line := range m.story {
		all += line + "\n"
	}
	for _, n := range m.r.nodes {
		all += "--- " + n.Name + "\n" + n.Log()
	}
	return all
}

// nodesAgree is the name of what nodes find wrong themselves: what the quorum has committed contradicts what they have.
const nodesAgree = "nodes agree on metadata"

// failedBy ends a world in which a node has failed by itself.
func (m *nemesis) failedBy(n *clustertest.Node, err error) {
	if errors.Is(err, metadata.ErrMalformed) || errors.Is(err, quorum.ErrDamaged) {
		m.r.complain(nodesAgree, "%s: %v", n.Name, err)
	}
	m.r.Fatalf("%s has failed: %v", n.Name, err)
}

// quorum asks whoever answers first for the voters and who leads them; nil while nobody knows.
func (m *nemesis) quorum() *kmsg.DescribeQuorumResponseTopicPartition {
	for i, n := range m.r.there() {
		if !m.up(n) {
			continue
		}
		if p := m.quorumBy(int32(i + 1)); p != nil {
			return p
		}
	}
	return nil
}

const quorumPatience = 600 * time.Millisecond

func (m *nemesis) quorumBy(id int32) *kmsg.DescribeQuorumResponseTopicPartition {
	ctx, cancel := context.WithTimeout(m.r.Context(), quorumPatience)
	defer cancel()
	return m.askQuorum(ctx, id)
}

func (m *nemesis) askQuorum(ctx context.Context, id int32) *kmsg.DescribeQuorumResponseTopicPartition {
	c, err := m.at(ctx, id)
	if err != nil {
		return nil
	}
	q := kmsg.NewPtrDescribeQuorumRequest()
	q.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	res, err := clustertest.Call[*kmsg.DescribeQuorumResponse](ctx, c, q)
	if err != nil {
		m.broken(id, err)
		return nil
	}
	if p := &res.Topics[0].Partitions[0]; p.ErrorCode == 0 && p.LeaderID > 0 {
		return p
	}
	return nil
}
