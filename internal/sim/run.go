package sim

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
)

// What a run must have had, or it proves nothing and fails.
const (
	leastTime         = 60 * time.Second // of the world
	mostTime          = 4 * leastTime    // one in which too little happens for so long has failed
	leastAcknowledged = 5_000            // records
	leastFaults       = 8
	leastKinds        = 4
)

// healPatience is how long a cluster without any trouble may take until everything is in sync and answers.
const healPatience = 90 * time.Second

// Run is one world: a cluster, its guests, and whoever harms it.
type Run struct {
	*clustertest.World
	plan    plan
	nodes   []*clustertest.Node // by id, from 1 on; the last ones may not have joined yet
	joined  atomic.Int32        // of nodes
	history *History
	began   time.Time
	nemesis *nemesis // once it is at work

	tally struct { // short
		sync.Mutex
		counts     map[string]int
		complaints []Violation
	}
}

// plan is what a seed makes of a world before anything happens in it.
type plan struct {
	steady []steadyTopic
	voters int
	late   int  // brokers without a vote that join later
	cached bool // some topic is not flushed before it is acknowledged: who dies without a word may have lost records
	dirs   []string
	kinds  []string // of faults
	often  string   // the one among them that comes often, a sequence
}

// steadyTopic is there from the beginning to the end.
type steadyTopic struct {
	name       string
	partitions int32
	acks       int16
	configs    []string
	replicas   int16 // 0: as many as by default
}

func newPlan(r *rand.Rand) plan {
	p := plan{voters: 3, dirs: []string{"/data"}, cached: r.IntN(3) == 0}
	segment := func() string { return fmt.Sprint(3000 + r.IntN(30_000)) }
	p.steady = append(p.steady, steadyTopic{name: "orders", partitions: 3, acks: -1, configs: []string{"internal.segment.bytes", segment()}})
	if p.cached {
		p.steady = append(p.steady,
			steadyTopic{name: "clicks", partitions: 2, acks: -1, configs: []string{"internal.segment.bytes", segment(), "flush.before.ack", "false"}},
			steadyTopic{name: "pairs", partitions: 2, acks: -1, configs: []string{"internal.segment.bytes", segment(), "flush.before.ack", "false"}, replicas: 2})
	} else {
		p.steady = append(p.steady, steadyTopic{name: "ledger", partitions: 2, acks: -1, configs: []string{"internal.segment.bytes", segment()}})
	}
	p.steady = append(p.steady, steadyTopic{name: "hasty", partitions: 1, acks: 1, configs: []string{"internal.segment.bytes", segment()}})
	if r.IntN(2) == 0 {
		p.dirs = append(p.dirs, "/more")
	}
	if r.IntN(4) == 0 {
		p.late = 1
	}
	// Each world has some kinds of faults only, so that those that are there meet more often.
	for _, k := range allKinds {
		if r.IntN(2) == 0 || k == brokerJoined && p.late > 0 {
			p.kinds = append(p.kinds, k)
		}
	}
	for len(p.kinds) < leastKinds+2 {
		if k := allKinds[r.IntN(len(allKinds))]; !slices.Contains(p.kinds, k) {
			p.kinds = append(p.kinds, k)
		}
	}
	fit := p.fitting()
	p.often = fit[r.IntN(len(fit))]
	if !slices.Contains(p.kinds, p.often) {
		p.kinds = append(p.kinds, p.often)
	}
	return p
}

func (p plan) String() string {
	return fmt.Sprintf("%d voters and %d late, directories %v, page cache %v, faults: %s", p.voters, p.late, p.dirs, p.cached, strings.Join(p.kinds, ", "))
}

// newRun builds a world's cluster. It does not start it.
func newRun(w *clustertest.World) *Run {
	r := &Run{World: w, plan: newPlan(w.Dice("plan")), history: NewHistory(), began: time.Now()}
	r.tally.counts = map[string]int{}
	dice := w.Dice("settings")
	settings := []string{
		"log.dirs=" + strings.Join(r.plan.dirs, ","), "offsets.topic.num.partitions=2", "group.initial.rebalance.delay.ms=0", "min.insync.replicas=2",
		"replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector",
		fmt.Sprint("replica.lag.time.max.ms=", 1500+dice.IntN(4000)), fmt.Sprint("leader.imbalance.check.interval.seconds=", 3+dice.IntN(8)),
		"log.flush.offset.checkpoint.interval.ms=3700", "log.flush.start.offset.checkpoint.interval.ms=4900",
		"log.initial.task.delay.ms=1300", "log.retention.check.interval.ms=7000", "log.idle.close.ms=2800",
		"metadata.log.max.record.bytes.between.snapshots=6000", "internal.metadata.log.segment.bytes=8192", "log.segment.delete.delay.ms=500",
	}
	r.nodes = w.Cluster(r.plan.voters, settings...)
	r.joined.Store(int32(r.plan.voters))
	for range r.plan.late {
		r.nodes = append(r.nodes, w.Broker(r.nodes[:r.plan.voters], settings...))
	}
	for i, n := range r.nodes {
		n.Set("broker.rack=" + rackOf(int32(i+1)))
	}
	return r
}

func rackOf(node int32) string { return fmt.Sprint("rack", node) }

func (r *Run) node(id int32) *clustertest.Node {
	if id < 1 || int(id) > len(r.nodes) {
		return nil
	}
	return r.nodes[id-1]
}

// there are the nodes that have joined.
func (r *Run) there() []*clustertest.Node { return r.nodes[:r.joined.Load()] }

// met counts something that has happened.
func (r *Run) met(what string) {
	r.tally.Lock()
	defer r.tally.Unlock()
	r.tally.counts[what]++
}

// complain notes what a guest must never be told.
func (r *Run) complain(checker, format string, args ...any) {
	r.tally.Lock()
	defer r.tally.Unlock()
	r.tally.complaints = append(r.tally.complaints, Violation{checker, fmt.Sprintf(format, args...)})
}

// Complaints are those of the guests.
func (r *Run) Complaints() []Violation {
	r.tally.Lock()
	defer r.tally.Unlock()
	return slices.Clone(r.tally.complaints)
}

// Counts is how often what has happened.
func (r *Run) Counts() map[string]int {
	r.tally.Lock()
	defer r.tally.Unlock()
	return maps.Clone(r.tally.counts)
}

// faults counts those of one world, and their kinds.
func (r *Run) faults() (all, kinds int) {
	counts := r.Counts()
	for _, k := range allKinds {
		if counts[k] > 0 {
			all, kinds = all+counts[k], kinds+1
		}
	}
	return all, kinds
}

// live is the whole life of a world, up to where all is well again and everything has been read.
func (r *Run) live() {
	r.StartAll(r.there()...)
	r.prepare()
	world, end := context.WithCancel(r.Context())
	defer end()
	visit, leave := context.WithCancel(world)
	defer leave()
	var writers, others sync.WaitGroup
	r.admit(world, visit, &writers, &others)
	m := r.newNemesis()
	r.nemesis = m
	defer m.close()
	for {
		m.round()
		if lived := time.Since(r.began); lived >= leastTime && r.tooLittle(lived) == "" || lived >= mostTime {
			break
		}
		m.rest(world, 300*time.Millisecond)
	}
	leave()
	others.Wait()
	if !within(&writers, healPatience) {
		r.Fatalf("producers have no answer from a cluster that is well")
	}
	m.whole("in the end")
	m.abreast()
	r.readAll()
	r.history.Finish()
}

// within waits for a group, but not for ever.
func within(g *sync.WaitGroup, patience time.Duration) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Wait()
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// tooLittle says what a world has not had that lived for so long; without it it proves nothing.
func (r *Run) tooLittle(lived time.Duration) string {
	all, kinds := r.faults()
	acked := r.history.Acknowledged()
	if acked < leastAcknowledged || lived < leastTime || all < leastFaults || kinds < leastKinds {
		return fmt.Sprintf("too little has happened: %d records acknowledged in %v, %d faults of %d kinds", acked, lived, all, kinds)
	}
	return ""
}

// prepare makes the topics that stay.
func (r *Run) prepare() {
	c, err := r.Dial(r.Context(), "prepare", r.nodes[0])
	if err != nil {
		r.Fatalf("dial: %v", err)
	}
	defer func() { _ = c.Close() }() // all has been answered
	for _, t := range r.plan.steady {
		if err := t.create(r.Context(), c); err != nil {
			r.Fatalf("create %s: %v", t.name, err)
		}
	}
}

// admit lets the guests in. Producers stay until they have all answers.
func (r *Run) admit(world, visit context.Context, writers, others *sync.WaitGroup) {
	dice := r.Dice("guests")
	for _, t := range r.plan.steady {
		for p := range t.partitions {
			place := Place{Topic: t.name, Partition: p}
			writers.Go(func() { r.producer(place, t.acks).produce(world, visit) })
			rack := ""
			if dice.IntN(2) == 0 {
				rack = rackOf(int32(1 + dice.IntN(len(r.nodes))))
			}
			others.Go(func() { r.consumer(place, rack).consume(visit) })
		}
	}
	for i := range 3 {
		group := fmt.Sprint("group-", i%2)
		others.Go(func() { r.member(group, "orders", 3, i).take(visit) })
	}
	for i := range 2 {
		others.Go(func() { r.admin(i).administrate(visit) })
	}
}

// readAll reads what there is, once all is well and nobody writes.
func (r *Run) readAll() {
	g := r.guest("reader")
	defer g.close()
	checker := batch.NewChecker()
	for _, t := range r.plan.steady {
		for p := range t.partitions {
			if err := r.readPlace(g, checker, Place{Topic: t.name, Partition: p}); err != nil {
				r.Fatalf("read %s-%d in the end: %v", t.name, p, err)
			}
		}
	}
	for group := range 2 {
		err := r.readGroup(g, fmt.Sprint("group-", group))
		for tries := 0; err != nil && tries < mostMoves; tries++ { // their coordinator may move too
			g.rest(r.Context(), 20*time.Millisecond)
			err = r.readGroup(g, fmt.Sprint("group-", group))
		}
		if err != nil {
			r.Fatalf("read what group %d has committed: %v", group, err)
		}
	}
	a := r.admin(9)
	defer a.close()
	for id := range r.joined.Load() {
		c, err := a.at(r.Context(), id+1)
		for name := range changingNames {
			if err == nil {
				err = a.look(r.Context(), c, id+1, fmt.Sprint("changing-", name), true)
			}
		}
		if err != nil {
			r.Fatalf("ask node %d for topics in the end: %v", id+1, err)
		}
	}
}

// readPlace reads all of a partition from its leader, and then from every other replica: each has all that was acknowledged.
func (r *Run) readPlace(g *guest, checker *batch.Checker, place Place) error {
	leader, end, err := r.readReplica(g, checker, place, 0, 0)
	if err != nil {
		return err
	}
	topic, known := r.node(leader).Broker().Image().Topic(place.Topic)
	if !known {
		return fmt.Errorf("node %d leads, and knows no such topic", leader)
	}
	for _, id := range topic.Partitions[place.Partition].Replicas {
		if id == leader {
			continue
		}
		if _, _, err := r.readReplica(g, checker, place, id, end); err != nil {
			return fmt.Errorf("replica %d: %w", id, err)
		}
	}
	return nil
}

// readReplica reads all that a replica has of a partition, at least up to an offset; 0 is whoever leads. It notes that once it has
// it: where leaders move in the middle it begins anew. It returns where the replica is, and the end.
func (r *Run) readReplica(g *guest, checker *batch.Checker, place Place, replica int32, atLeast int64) (node int32, end int64, err error) {
	for tries := 0; tries < mostMoves; tries++ {
		if node, end, err = r.readThrough(g, checker, place, replica, atLeast); err == nil {
			return node, end, nil
		}
		// Leaders go back to where they belong in a cluster that is well, too, and followers hear a little later of what is committed.
		delete(g.leads, place)
		g.rest(r.Context(), 20*time.Millisecond)
	}
	return 0, 0, err
}

func (r *Run) readThrough(g *guest, checker *batch.Checker, place Place, replica int32, atLeast int64) (node int32, end int64, err error) {
	leader, err := g.leader(r.Context(), place)
	if err != nil {
		return 0, 0, err
	}
	if node = replica; node == 0 {
		node = leader.node
	}
	var asked []Span
	var reads []Read
	for from := int64(0); ; {
		asked = append(asked, r.history.Now())
		got, err := g.fetch(r.Context(), node, question{place: place, epoch: leader.epoch, from: from, most: 1 << 20})
		if err != nil {
			return 0, 0, fmt.Errorf("fetch from %d: %w", from, err)
		}
		records, next, err := decode(checker, got.RecordBatches, from)
		if err != nil {
			return 0, 0, err
		}
		reads = append(reads, Read{
			Place: place, Reader: g.host, Node: node, Follower: node != leader.node, LeaderEpoch: leader.epoch, From: from, Records: records,
			Watermark: got.HighWatermark, LogStart: got.LogStartOffset, Final: true,
		})
		if next >= got.HighWatermark && next >= atLeast {
			break
		}
		if next == from {
			return 0, 0, fmt.Errorf("nothing at %d, the watermark is %d, and there should be records up to %d", from, got.HighWatermark, atLeast)
		}
		from = next
	}
	for i := range reads {
		r.history.Read(asked[i], reads[i])
	}
	return node, reads[len(reads)-1].Watermark, nil
}

// mostMoves is how often the leader of one partition may move while it is read in the end.
const mostMoves = 50

func (r *Run) readGroup(g *guest, group string) error {
	c, err := g.at(r.Context(), 1)
	if err != nil {
		return err
	}
	coordinator, err := c.Coordinator(r.Context(), group)
	if err != nil {
		return err
	}
	if c, err = g.at(r.Context(), coordinator); err != nil {
		return err
	}
	asked := r.history.Now()
	found, err := c.Committed(r.Context(), group, "orders")
	if err != nil {
		return err
	}
	for p := range int32(3) {
		at, committed := found[p]
		if !committed {
			at = -1
		}
		r.history.Committed(asked, Committed{Place: Place{Topic: "orders", Partition: p}, Group: group, Client: g.host, Node: coordinator, Offset: at, Final: true})
	}
	return nil
}

// story is what was done to the cluster, and what its nodes have logged.
func (r *Run) story() string {
	if r.nemesis == nil {
		return ""
	}
	return r.nemesis.logs()
}
