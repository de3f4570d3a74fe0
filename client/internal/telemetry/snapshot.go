package telemetry

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Snapshot is what a client has counted up to a moment, to be pushed once. Where a broker takes it Meters.Taken is to be told;
// else the next one tells everything again.
type Snapshot struct {
	at     time.Time
	scopes []taken
}

// taken is a scope as of a snapshot.
type taken struct {
	scope   *scope
	labels  Labels
	member  string // group_member_id, where there is one
	began   time.Time
	members int // of groups
	owned   int // partitions, by all of them
	now     counts
	nodes   map[int32]timing
	before  counts // as of the push before
	since   time.Time
	until   time.Time
}

// Collect takes a snapshot. There is one at a time: Taken of an older one is not to come after it.
func (m *Meters) Collect(now time.Time) *Snapshot {
	m.mu.Lock()
	scopes := slices.Clone(m.scopes)
	m.mu.Unlock()
	s := &Snapshot{at: now}
	for _, each := range scopes {
		s.scopes = append(s.scopes, each.collect(now))
	}
	return s
}

func (s *scope) collect(now time.Time) taken {
	s.mu.Lock()
	for _, p := range s.counts.peaks() {
		p.hold()
	}
	for _, n := range s.nodes {
		n.longest.hold()
	}
	for _, m := range s.meters {
		m.passLocked(now)
	}
	out := taken{
		scope: s, labels: s.labels, began: s.began, now: s.counts, before: s.taken, since: s.takenAt, until: now,
		nodes: make(map[int32]timing, len(s.nodes)),
	}
	for node, n := range s.nodes {
		out.nodes[node] = *n
	}
	var members []memberState
	for _, m := range s.meters {
		if m.member != nil {
			members = append(members, m.member)
		}
	}
	s.mu.Unlock()
	for _, ask := range members { // a consumer, which may be counting here
		id, assigned := ask()
		out.members++
		out.owned += assigned
		out.member = id
	}
	if out.members > 1 {
		out.member = "" // of several none stands for all
	}
	return out
}

func (c *counts) peaks() []*peak {
	return []*peak{
		&c.throttle.longest, &c.queue.longest, &c.commit.longest, &c.rebalance.longest, &c.fetch.longest, &c.lag,
	}
}

// Taken notes that a broker has taken a snapshot: the next one tells of what comes after it.
func (m *Meters) Taken(s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := map[*scope]counts{}
	for i := range s.scopes {
		s.scopes[i].settle(s.at)
		told[s.scopes[i].scope] = s.scopes[i].now
	}
	m.forgetLocked(func(each *scope) bool {
		c, known := told[each]
		return known && each.unchangedSince(c)
	}, 0)
}

// settle notes in the scope what has been taken.
func (t *taken) settle(at time.Time) {
	s := t.scope
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken, s.takenAt = t.now, at
	for _, p := range s.counts.peaks() {
		p.drop()
	}
	for node, told := range t.nodes {
		n := s.nodes[node]
		if n.count == told.count { // nothing since: a broker that is gone is not kept for ever
			delete(s.nodes, node)
			continue
		}
		// An average is of what came since, so what has been told of is taken off.
		n.count -= told.count
		n.sum -= told.sum
		n.longest.drop()
	}
}

// unchangedSince tells whether nothing has been counted since.
func (s *scope) unchangedSince(c counts) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range c.peaks() {
		*p = peak{}
	}
	now := s.counts
	for _, p := range now.peaks() {
		*p = peak{}
	}
	return now == c
}

// A metric's type in OpenTelemetry.
type form int8

const (
	gauge form = iota
	sum        // that only goes up
)

// metric is one row of what a client can tell.
type metric struct {
	name     string // behind the kind's prefix
	form     form
	required bool // by KIP-714; the others are what a client has beside
	value    func(t *taken) (v float64, known bool)
	byNode   func(n *timing) float64 // in place of value: a value for each broker
	total    func(c *counts) float64 // in place of value: of a sum
}

// prefixes are what the names begin with. Admin's is that of Apache Kafka's admin client, of which the KIP says nothing.
var prefixes = map[Kind]string{
	Producer: "org.apache.kafka.producer.",
	Consumer: "org.apache.kafka.consumer.",
	Admin:    "org.apache.kafka.admin.client.",
}

// ofAll are the metrics of each kind, ofKind those of one. All times are in milliseconds.
var (
	ofAll = []metric{
		{name: "connection.creation.rate", required: true, value: func(t *taken) (float64, bool) {
			return float64(t.now.connections-t.before.connections) / max(t.until.Sub(t.since).Seconds(), 0.001), true
		}},
		{name: "connection.creation.total", form: sum, required: true, total: func(c *counts) float64 { return float64(c.connections) }},
		{name: "node.request.latency.avg", required: true, byNode: func(n *timing) float64 { return ms(n.sum) / float64(n.count) }},
		{name: "node.request.latency.max", required: true, byNode: func(n *timing) float64 { return ms(time.Duration(n.longest.held)) }},
	}
	ofKind = map[Kind][]metric{
		Producer: slices.Concat(
			times("produce.throttle.time", func(c *counts) *timing { return &c.throttle }),
			times("record.queue.time", func(c *counts) *timing { return &c.queue }),
			[]metric{
				{name: "record.send.total", form: sum, total: func(c *counts) float64 { return float64(c.sent) }},
				{name: "record.error.total", form: sum, total: func(c *counts) float64 { return float64(c.failed) }},
				{name: "record.retry.total", form: sum, total: func(c *counts) float64 { return float64(c.resent) }},
			}),
		Consumer: slices.Concat(
			[]metric{{name: "poll.idle.ratio.avg", required: true, value: idleRatio}},
			times("coordinator.commit.latency", func(c *counts) *timing { return &c.commit }),
			[]metric{{name: "coordinator.assigned.partitions", required: true, value: func(t *taken) (float64, bool) {
				return float64(t.owned), t.members > 0
			}}},
			times("coordinator.rebalance.latency", func(c *counts) *timing { return &c.rebalance }),
			[]metric{{name: "coordinator.rebalance.latency.total", form: sum, required: true, total: func(c *counts) float64 { return ms(c.rebalance.sum) }}},
			times("fetch.manager.fetch.latency", func(c *counts) *timing { return &c.fetch }),
			[]metric{
				{name: "fetch.manager.records.consumed.total", form: sum, total: func(c *counts) float64 { return float64(c.read) }},
				{name: "fetch.manager.bytes.consumed.total", form: sum, total: func(c *counts) float64 { return float64(c.readBytes) }},
				{name: "fetch.manager.records.lag.max", value: func(t *taken) (float64, bool) { return float64(t.now.lag.held), t.now.lag.heldKnown }},
			}),
	}
)

// times are the two metrics of how long something took since the push before.
func times(name string, of func(c *counts) *timing) []metric {
	return []metric{
		{name: name + ".avg", required: true, value: func(t *taken) (float64, bool) {
			now, before := of(&t.now), of(&t.before)
			n := now.count - before.count
			return ms(now.sum-before.sum) / float64(max(n, 1)), n > 0
		}},
		{name: name + ".max", required: true, value: func(t *taken) (float64, bool) {
			longest := of(&t.now).longest
			return ms(time.Duration(longest.held)), longest.heldKnown
		}},
	}
}

// idleRatio is how much of the time since the push before the program has waited in Poll.
func idleRatio(t *taken) (float64, bool) {
	in, out := t.now.polling-t.before.polling, t.now.betweenPolls-t.before.betweenPolls
	return float64(in) / float64(max(in+out, 1)), in+out > 0
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Wanted are prefixes of names of metrics. An empty one, and *, which Apache Kafka says, stand for all.
type Wanted []string

func (w Wanted) has(name string) bool {
	return slices.ContainsFunc(w, func(prefix string) bool { return prefix == "*" || strings.HasPrefix(name, prefix) })
}

// sortedNodes gives a snapshot the same text each time.
func sortedNodes(nodes map[int32]timing) []int32 { return slices.Sorted(maps.Keys(nodes)) }
