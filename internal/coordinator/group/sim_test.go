package group

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// size says how large a simulated world is.
type size struct {
	groups, members int           // members in all
	chaos           time.Duration // how long things go wrong, before it is quiet
}

// world is one coordinator, its log, and clients that reach it over a network that delays, doubles and
// loses what it carries. It runs on one goroutine, by a queue of what happens when.
type world struct {
	t      testing.TB
	seed   uint64
	rnd    *rand.Rand
	now    time.Time
	queue  happenings
	number int
	trace  interface {
		Write(b []byte) (int, error)
		Sum64() uint64
	}
	topics image

	shard       *Shard // nil while the coordinator is down or loading
	life        int    // of the coordinator
	log         []Record
	committed   int    // records of log that a failover keeps
	shadow      *Shard // has replayed the log and nothing else
	batch       []Record
	held        []Reply
	gathering   bool
	uncommitted []appended
	ticking     time.Time
	next        Token
	awaiting    map[Token]func(kmsg.Response)

	clients []*client
	quiet   bool
	steps   int
	claims  map[claim]string // who owns a partition in a generation
	stats   struct{ synced, failovers, refused, restarted, fenced, left, killed, commits int }
}

type claim struct {
	group      string
	generation int32
	topic      string
	partition  int32
}

type happening struct {
	at     time.Time
	number int
	do     func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].number < h[j].number
	}
	return h[i].at.Before(h[j].at)
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = happening{}
	*h = (*h)[:last]
	return x
}

func (w *world) after(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.queue, happening{w.now.Add(d), w.number, do})
}

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rnd.Int64N(int64(b-a)))
}

func (w *world) chance(perMille int) bool { return w.rnd.IntN(1000) < perMille }

// fault is chance while things go wrong.
func (w *world) fault(perMille int) bool { return !w.quiet && w.chance(perMille) }

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, step %d, %v: %s", w.seed, w.steps, w.now.Sub(began), fmt.Sprintf(format, args...))
}

func (w *world) note(format string, args ...any) {
	fmt.Fprintf(w.trace, "%d ", w.now.UnixNano())
	fmt.Fprintf(w.trace, format, args...)
}

// --- the coordinator

func (w *world) config() Config {
	c := Defaults()
	c.OffsetsRetention, c.OffsetsRetentionCheckInterval = 2*time.Minute, 30*time.Second
	return c
}

// load starts the coordinator with what is in the log.
func (w *world) load() {
	s := w.replay(w.log, New(w.config(), rand.NewPCG(w.seed, uint64(w.life))))
	s.Loaded(w.now)
	w.shard, w.committed, w.ticking = s, len(w.log), time.Time{}
	w.shadow = w.replay(w.log, New(w.config(), rand.NewPCG(0, 0)))
	w.schedule()
	if wrong := unsound(s); wrong != "" {
		w.failf("after a load: %s", wrong)
	}
}

func (w *world) replay(records []Record, s *Shard) *Shard {
	for _, r := range records {
		if err := s.Replay(r, w.now); err != nil {
			w.failf("replay: %v", err)
		}
	}
	return s
}

// failover ends the coordinator: sometimes it still answers who waits, and what was not committed may
// be lost.
func (w *world) failover() {
	if w.shard == nil {
		return
	}
	w.stats.failovers++
	w.note("failover")
	if w.chance(500) {
		for _, r := range w.shard.Unload(kerr.NotCoordinator.Code) {
			w.reply(r.Token, r.Response)
		}
	}
	w.life++
	w.shard, w.batch, w.held, w.gathering, w.uncommitted = nil, nil, nil, false, nil
	clear(w.awaiting)
	w.log = w.log[:w.committed+w.rnd.IntN(len(w.log)-w.committed+1)]
	w.after(w.between(10*time.Millisecond, 3*time.Second), w.load)
}

// arrive is a request that has reached the coordinator.
func (w *world) arrive(req kmsg.Request, from Client, answer func(kmsg.Response)) {
	if w.shard == nil {
		answer(refusal(req, kerr.NotCoordinator.Code))
		return
	}
	w.next++
	w.awaiting[w.next] = answer
	switch req.(type) {
	case *kmsg.JoinGroupRequest, *kmsg.SyncGroupRequest:
		decoded, scribble := overTheWire(w.t, req)
		e := w.shard.Handle(w.now, w.next, from, w.topics, decoded)
		scribble()
		w.effects(e)
	default:
		w.effects(w.shard.Handle(w.now, w.next, from, w.topics, req))
	}
	if w.fault(10) {
		w.shard.Forget(w.now, w.next)
		delete(w.awaiting, w.next)
	}
}

func (w *world) effects(e Effects) {
	for _, r := range e.Records {
		if err := w.shard.Replay(r, w.now); err != nil {
			w.failf("replay its own record: %v", err)
		}
	}
	w.batch = append(w.batch, keep(w.shard, e)...)
	for _, r := range e.Replies {
		if r.Committed {
			w.held = append(w.held, r)
		} else {
			w.reply(r.Token, r.Response)
		}
	}
	if len(w.batch)+len(w.held) > 0 && !w.gathering {
		w.gathering = true
		life := w.life
		w.after(w.between(0, 5*time.Millisecond), func() {
			if w.life == life {
				w.append()
			}
		})
	}
	w.schedule()
}

// append ends a batch: refused, or in the log and, a little later, committed.
func (w *world) append() {
	w.gathering = false
	batch, held := w.batch, w.held
	w.batch, w.held = nil, nil
	if w.fault(20) {
		w.stats.refused++
		w.note("refused %d", len(batch))
		w.effects(w.shard.Failed(w.now, kerr.NotEnoughReplicas.Code))
		if len(w.batch) == 0 {
			w.agrees("after a refused append")
		}
		return
	}
	for _, r := range batch {
		w.note("%x=%x", r.Key, r.Value)
	}
	w.log = append(w.log, batch...)
	w.replay(batch, w.shadow)
	w.shard.Appended()
	if len(w.batch) == 0 && w.chance(20) {
		w.agrees("after an append")
	}
	w.uncommitted = append(w.uncommitted, appended{len(w.log), held})
	end, life := len(w.log), w.life
	w.after(w.between(0, 20*time.Millisecond), func() {
		if w.life == life {
			w.commit(end)
		}
	})
}

// appended is a batch in the log and who waits until it is committed.
type appended struct {
	end  int
	held []Reply
}

// commit moves the high watermark.
func (w *world) commit(end int) {
	for len(w.uncommitted) > 0 && w.uncommitted[0].end <= end {
		first := w.uncommitted[0]
		w.uncommitted = w.uncommitted[1:]
		for _, r := range w.log[w.committed:first.end] {
			if kind, _ := kindOf(r.Key); kind == groupKeyV2 && r.Value == nil {
				k, _ := readGroupKey(r.Key)
				maps.DeleteFunc(w.claims, func(c claim, _ string) bool { return c.group == k.Group }) // a new group begins at 1
			}
		}
		w.committed = first.end
		for _, r := range first.held {
			w.reply(r.Token, r.Response)
		}
	}
}

func (w *world) reply(t Token, r kmsg.Response) {
	answer := w.awaiting[t]
	if answer == nil {
		return // forgotten
	}
	delete(w.awaiting, t)
	answer(r)
}

// schedule makes sure that Tick is called when it is due.
func (w *world) schedule() {
	due, ok := w.shard.Deadline()
	if !ok || (!w.ticking.IsZero() && !due.Before(w.ticking)) {
		return
	}
	w.ticking = due
	life := w.life
	w.after(max(due.Sub(w.now), 0)+w.between(0, 2*time.Millisecond), func() {
		if w.life != life || w.ticking != due {
			return
		}
		w.ticking = time.Time{}
		w.effects(w.shard.Tick(w.now, w.topics))
	})
}

func (w *world) agrees(what string) {
	if !same(w.shadow, w.shard) {
		w.failf("%s: the log says -, the shard +:\n%s", what, cmp.Diff(durable(w.shadow), durable(w.shard)))
	}
}

// refusal answers a request that no shard has seen.
func refusal(req kmsg.Request, code int16) kmsg.Response {
	switch req := req.(type) {
	case *kmsg.HeartbeatRequest:
		r := req.ResponseKind().(*kmsg.HeartbeatResponse)
		r.ErrorCode = code
		return r
	case *kmsg.OffsetCommitRequest:
		r := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, t := range req.Topics {
			out := kmsg.OffsetCommitResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				out.Partitions = append(out.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			r.Topics = append(r.Topics, out)
		}
		return r
	}
	return Reply{Response: req.ResponseKind()}.Refused(code).Response
}

// administer is somebody who looks, deletes, and hears of deleted topics; every request is answered.
func (w *world) administer(groups int) {
	w.after(w.between(200*time.Millisecond, 2*time.Second), func() { w.administer(groups) })
	if w.shard == nil {
		return
	}
	group := fmt.Sprintf("g%d", w.rnd.IntN(groups))
	var req kmsg.Request
	switch w.rnd.IntN(6) {
	case 0:
		r := kmsg.NewPtrDescribeGroupsRequest()
		r.Version, r.Groups = 6, []string{group}
		req = r
	case 1:
		r := kmsg.NewPtrListGroupsRequest()
		r.Version = 5
		req = r
	case 2:
		r := kmsg.NewPtrDeleteGroupsRequest()
		r.Version, r.Groups = 2, []string{group}
		req = r
	case 3:
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Version, r.Groups = 9, []kmsg.OffsetFetchRequestGroup{{Group: group}}
		req = r
	case 4:
		req = committing(group, "", -1, "flights", 0, 1)
	default:
		if w.fault(100) {
			id, _, _ := w.topics.Topic("airports")
			w.effects(w.shard.TopicsDeleted(w.now, []string{"airports"}, [][16]byte{id}))
		}
		return
	}
	answered, life := false, w.life
	w.arrive(req, Client{ID: "admin"}, func(kmsg.Response) { answered = true })
	number := w.next
	w.after(time.Second, func() {
		if _, waits := w.awaiting[number]; waits && !answered && w.life == life {
			w.failf("%T is not answered", req)
		}
	})
}

// --- what must hold

// step runs what comes next and looks at everything that can have changed.
func (w *world) step() {
	h := heap.Pop(&w.queue).(happening)
	w.now = h.at
	w.steps++
	h.do()
	if w.shard == nil {
		return
	}
	if w.steps%5000 == 0 { // each step's own group has been looked at
		if wrong := unsound(w.shard); wrong != "" {
			w.failf("%s", wrong)
		}
	}
}

// look checks the group that an event was about.
func (w *world) look(group string) {
	if w.shard == nil {
		return
	}
	if g := w.shard.groups[group]; g != nil {
		if wrong := g.unsound(w.shard); wrong != "" {
			w.failf("group %s (%v): %s", group, g.state, wrong)
		}
	}
}

// owns notes what a member is told to own when its SyncGroup is answered, and that nobody else was in
// that generation.
func (w *world) owns(req *kmsg.SyncGroupRequest, assignment []byte) {
	who := req.MemberID
	if req.InstanceID != nil {
		who = "instance " + *req.InstanceID // may be given a new member id in the middle of a generation
	}
	for _, at := range w.partitions(assignment) {
		k := claim{req.Group, req.Generation, at.topic, at.partition}
		if other, taken := w.claims[k]; taken && other != who {
			w.failf("%s %d of group %s belongs to %s and to %s in generation %d", at.topic, at.partition, req.Group, other, who, req.Generation)
		}
		w.claims[k] = who
	}
}

// partitions reads what assignment writes.
func (w *world) partitions(assignment []byte) (all []partitionOf) {
	for _, at := range strings.FieldsFunc(string(assignment), func(r rune) bool { return r == ',' }) {
		topic, p, _ := strings.Cut(at, ":")
		n, err := strconv.Atoi(p)
		if err != nil {
			w.failf("somebody is assigned %q", assignment)
		}
		all = append(all, partitionOf{topic, int32(n)})
	}
	return all
}

// generationsGrow checks the log: a group's generation never falls, and one that has been assigned is
// never assigned again, but for a static member's new id.
func (w *world) generationsGrow() {
	type seen struct {
		generation int32
		assigned   string
	}
	last := make(map[string]seen)
	for _, r := range w.log {
		if kind, _ := kindOf(r.Key); kind != groupKeyV2 {
			continue
		}
		k, _ := readGroupKey(r.Key)
		if r.Value == nil {
			delete(last, k.Group)
			continue
		}
		v, err := readGroupValue(r.Value)
		if err != nil {
			w.failf("%v", err)
		}
		assigned := ""
		for _, m := range v.Members {
			assigned += fmt.Sprintf("%s ", m.Assignment)
		}
		was := last[k.Group]
		if v.Generation < was.generation || (v.Generation == was.generation && was.assigned != "" && was.assigned != assigned) {
			w.failf("group %s goes from generation %d (%s) to %d (%s)", k.Group, was.generation, was.assigned, v.Generation, assigned)
		}
		last[k.Group] = seen{v.Generation, assigned}
	}
}

// settled checks that after a quiet time every member that lives has its share and nothing else is left.
func (w *world) settled() {
	alive := make(map[string]int)
	owned := make(map[partitionOf]map[string]int)
	for _, c := range w.clients {
		if c.gone {
			continue
		}
		alive[c.group]++
		g := w.shard.groups[c.group]
		if g == nil || g.state != Stable || c.phase != assigned || g.members[c.id] == nil || c.generation != g.generation {
			state := Dead
			if g != nil {
				state = g.state
			}
			w.failf("client %d of group %s (%v) is lost: %+v", c.n, c.group, state, *c)
		}
		for _, at := range c.owned {
			if owned[at] == nil {
				owned[at] = make(map[string]int)
			}
			owned[at][c.group]++
		}
	}
	for id, g := range w.shard.groups {
		if g.size() != alive[id] || len(g.pending) != 0 {
			w.failf("group %s (%v) has %d members and %d pending, of whom %d live", id, g.state, g.size(), len(g.pending), alive[id])
		}
		if g.state != Stable && g.state != Empty {
			w.failf("group %s is still %v", id, g.state)
		}
		for topic := range g.subscribed {
			_, n, _ := w.topics.Topic(topic)
			for p := range n {
				if got := owned[partitionOf{topic, p}][id]; got != 1 {
					w.failf("%s %d has %d owners in group %s", topic, p, got, id)
				}
			}
		}
	}
	if len(w.shard.waiting) != 0 {
		w.failf("%d requests still wait", len(w.shard.waiting))
	}
}

// run is one history from its seed; its hash tells it from others.
func (z size) run(t testing.TB, seed uint64) *world {
	w := &world{
		t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 77)), now: began, trace: fnv.New64a(),
		topics: image{}, awaiting: make(map[Token]func(kmsg.Response)), claims: make(map[claim]string),
	}
	for i, name := range simTopics {
		w.topics.add(name, byte(i+1), int32(3+5*i))
	}
	w.load()
	for n := range z.members {
		c := &client{world: w, n: n, group: fmt.Sprintf("g%d", n%z.groups)}
		if n/z.groups%3 == 2 {
			c.instance = fmt.Sprintf("i%d", n)
		}
		c.topics = c.choose()
		w.clients = append(w.clients, c)
		w.after(w.between(0, z.chaos/4), c.start)
	}
	for d := w.between(0, 20*time.Second); d < z.chaos; d += w.between(5*time.Second, 40*time.Second) {
		w.after(d, w.failover)
	}
	w.after(time.Second, func() { w.administer(z.groups) })
	for w.now.Before(began.Add(z.chaos)) {
		w.step()
	}
	w.quiet = true
	for end := w.now.Add(2 * time.Minute); w.now.Before(end) || w.shard == nil; {
		w.step()
	}
	w.generationsGrow()
	for len(w.batch)+len(w.held) > 0 {
		w.step()
	}
	w.agrees("in the end")
	w.settled()
	return w
}

func TestSimulatedGroups(t *testing.T) {
	for seed := range seeds(t, 12) {
		w := size{groups: 8, members: 64, chaos: 3 * time.Minute}.run(t, seed)
		if testing.Verbose() {
			t.Logf("seed %d: %d steps, hash %x, %+v", seed, w.steps, w.trace.Sum64(), w.stats)
		}
	}
}

func TestSimulatedGroupsThousandsOfMembers(t *testing.T) {
	for seed := range seeds(t, 1) {
		z := size{groups: 200, members: 3000, chaos: time.Minute}
		if underRace {
			z = size{groups: 40, members: 300, chaos: time.Minute}
		}
		w := z.run(t, seed)
		t.Logf("seed %d: %d steps, hash %x, %+v", seed, w.steps, w.trace.Sum64(), w.stats)
	}
}

func TestSimulationReplaysFromItsSeed(t *testing.T) {
	z := size{groups: 4, members: 24, chaos: 2 * time.Minute}
	first, second, other := z.run(t, 5), z.run(t, 5), z.run(t, 6)
	if a, b := first.trace.Sum64(), second.trace.Sum64(); a != b || first.steps != second.steps {
		t.Errorf("seed 5 gives %x in %d steps, and %x in %d", a, first.steps, b, second.steps)
	}
	if first.trace.Sum64() == other.trace.Sum64() {
		t.Error("two seeds give one history")
	}
}

var simTopics = []string{"flights", "airports", "airlines"}

func sortedCopy(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}
