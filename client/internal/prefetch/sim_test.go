package prefetch

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

// item is a record of the tests.
type item struct {
	offset int64
	epoch  int32
}

func spotOfItem(i *item) Spot { return Spot{i.offset, i.epoch} }

// world is a store, a fetcher for each node and the brokers, in pretended time. Answers are late, lost
// and wrong, leaders move, replicas lag, the program pauses and seeks. One seed is one history.
// Everybody acts only when a signal says so, so that a signal that is missing shows as a standstill.
type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	now    time.Time
	s      *Store[item]
	parts  map[TopicPartition]*part
	nodes  map[int32]*node
	news   bool // Take may find something
	stale  bool // metadata is wanted
	calm   bool
	paused map[TopicPartition]bool
}

// part is a partition as its brokers have it, and what was read of it.
type part struct {
	log     []batch.Batch
	end     int64
	leader  int32
	epoch   int32
	has     map[int32]int64 // by node: the end of what it has
	known   Leader          // as the metadata has it
	read    int64           // offset that Take must give next
	maximum int             // bytes that one answer holds
}

// node is a fetcher, and what is on its way to it.
type node struct {
	id      int32
	awake   bool
	again   time.Time
	work    *Work[item] // in flight
	answer  func()
	due     time.Time
	waiting []Fetched[item] // to be decoded
}

var (
	start = time.Unix(1_000_000, 0)
	id    = [16]byte{1}
)

func newWorld(t *testing.T, seed uint64, partitions int) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: start, parts: map[TopicPartition]*part{},
		nodes: map[int32]*node{}, paused: map[TopicPartition]bool{},
	}
	w.s = New(Config{
		MaxBytes: 500 + w.rng.IntN(2000), MaxPartitionBytes: 100 + w.rng.IntN(1000), MaxPollRecords: 1 + w.rng.IntN(20),
		Reset: Reset{To: Earliest}, ReplicaLease: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
		Backoff: func(failures int) time.Duration { return min(time.Duration(failures)*50*time.Millisecond, time.Second) },
	}, spotOfItem)
	for n := range int32(partitions) {
		tp := TopicPartition{"t", n}
		w.parts[tp] = &part{leader: n % 3, epoch: 1, has: map[int32]int64{}, known: Leader{id, n % 3, 1}, maximum: 100 + w.rng.IntN(400)}
		w.s.Add(tp, [16]byte{}, Start{Kind: Earliest})
	}
	w.route()
	return w
}

// partitions are in order, so that a seed replays.
func (w *world) partitions() []TopicPartition {
	var all []TopicPartition
	for n := range int32(len(w.parts)) {
		all = append(all, TopicPartition{"t", n})
	}
	return all
}

// heed does what the signals say.
func (w *world) heed() {
	got := w.s.Signals()
	if got.Sources {
		for _, id := range w.s.Sources() {
			if w.nodes[id] == nil {
				w.nodes[id] = &node{id: id, awake: true}
			}
		}
	}
	if got.Fetchers {
		for _, n := range w.nodes {
			n.awake = true
		}
	}
	w.news = w.news || got.Poll
	w.stale = w.stale || got.Metadata
}

func (w *world) route() {
	w.s.Route(func(tp TopicPartition) (Leader, bool) { return w.parts[tp].known, w.parts[tp].known.Node >= 0 },
		func(int32) bool { return true })
	w.heed()
}

func (w *world) write(p *part) {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for range 1 + w.rng.IntN(5) {
		b.Append(0, nil, []byte("value"), nil)
	}
	built, err := b.Build()
	if err != nil {
		w.t.Fatal(err)
	}
	built.Assign(p.end, p.epoch)
	p.log = append(p.log, built)
	p.end = built.NextOffset()
	p.has[p.leader] = p.end
}

// turn lets a fetcher take a step; false where it sleeps.
func (w *world) turn(n *node) bool {
	switch {
	case n.work != nil && w.now.Before(n.due):
		return false
	case n.work != nil:
		n.work = nil
		n.answer()
		w.heed()
		n.awake = true
		return true
	case !n.awake && (n.again.IsZero() || w.now.Before(n.again)):
		return false
	}
	n.awake = false
	work := w.s.Claim(w.now, n.id)
	w.heed()
	n.again = work.Again
	if work.Empty() {
		if len(n.waiting) > 0 {
			w.decode(n)
			n.awake = true
		}
		return true
	}
	n.work, n.due = &work, w.now.Add(time.Duration(1+w.rng.IntN(40))*time.Millisecond)
	if len(work.Fetch) == 0 || w.rng.IntN(2) == 0 {
		w.decode(n) // what came before may be decoded at any time until the next answer is there
	}
	n.answer = w.ask(n, work)
	return true
}

func (w *world) decode(n *node) {
	for i := range n.waiting {
		f := &n.waiting[i]
		var records []item
		for _, b := range f.Batches {
			for o := max(b.BaseOffset(), f.From); o < b.NextOffset(); o++ {
				records = append(records, item{o, b.LeaderEpoch()})
			}
		}
		w.s.Decoded(f, records, nil)
	}
	n.waiting = nil
	w.heed()
}

// ask is what the broker does with a request now; its answer arrives later.
func (w *world) ask(n *node, work Work[item]) func() {
	if !w.calm && w.rng.IntN(12) == 0 {
		return func() { w.decode(n); w.s.Release(w.now, slices.Concat(work.Resolve, work.Confirm, work.Fetch)...) }
	}
	var then []func()
	for _, c := range slices.Concat(work.Resolve, work.Confirm) {
		p := w.parts[c.TopicPartition]
		err := w.refusal(p, n, &c)
		at := Spot{0, -1} // the earliest
		if c.Start.Kind == Known {
			at = Spot{-1, -1}
			for _, b := range p.log {
				if b.LeaderEpoch() <= c.ReadEpoch {
					at = Spot{b.NextOffset(), b.LeaderEpoch()}
				}
			}
			then = append(then, func() { w.s.Confirmed(w.now, &c, at, err) })
		} else {
			then = append(then, func() { w.s.Resolved(w.now, &c, at, err) })
		}
	}
	for _, c := range work.Fetch {
		then = append(then, w.fetch(n, c))
	}
	return func() {
		w.decode(n) // before the answer, as fetchers do
		for _, do := range then {
			do()
		}
	}
}

func (w *world) refusal(p *part, n *node, c *Claim[item]) error {
	switch {
	case !w.calm && w.rng.IntN(15) == 0:
		return []error{errcode.UnknownServerError, errcode.KafkaStorageError, errcode.ReplicaNotAvailable}[w.rng.IntN(3)]
	case c.LeaderEpoch < p.epoch:
		return errcode.FencedLeaderEpoch
	case n.id != p.leader:
		return errcode.NotLeaderOrFollower
	}
	return nil
}

func (w *world) fetch(n *node, c Claim[item]) func() {
	p := w.parts[c.TopicPartition]
	answer := kmsg.NewFetchResponseTopicPartition()
	end := p.end
	err := w.refusal(p, n, &c)
	nearest := (p.leader + 1) % 3
	switch {
	case err != nil && n.id == nearest && c.LeaderEpoch == p.epoch: // a replica may be read from
		err, end = nil, p.has[n.id]
		if c.Offset > end {
			err = errcode.OffsetOutOfRange
		}
	case err == nil && w.seed%2 == 1 && p.has[nearest] >= c.Offset:
		answer.PreferredReadReplica = nearest
		return func() { w.s.Fetched(w.now, n.id, &c, &answer) }
	}
	if err != nil {
		return func() { w.s.Refused(w.now, &c, err, false) }
	}
	for _, b := range p.log {
		if b.NextOffset() > c.Offset && b.NextOffset() <= end && len(answer.RecordBatches) < p.maximum {
			answer.RecordBatches = append(answer.RecordBatches, b...)
		}
	}
	answer.HighWatermark = end
	return func() {
		if got, some := w.s.Fetched(w.now, n.id, &c, &answer); some {
			n.waiting = append(n.waiting, got)
		}
	}
}

// take is a Poll.
func (w *world) take() {
	tp, records, err := w.s.Take()
	w.heed()
	if err != nil {
		w.t.Fatalf("seed %d: %v: %v", w.seed, tp, err)
	}
	if records == nil {
		w.news = false
		return
	}
	if w.paused[tp] {
		w.t.Fatalf("seed %d: %v is paused and gives %v", w.seed, tp, records)
	}
	for _, r := range records {
		if r.offset != w.parts[tp].read {
			w.t.Fatalf("seed %d, %v: %v gives offset %d instead of %d", w.seed, w.now.Sub(start), tp, r.offset, w.parts[tp].read)
		}
		w.parts[tp].read++
	}
	if spot, ok := w.s.Spot(tp); !ok || spot.Offset != w.parts[tp].read {
		w.t.Fatalf("seed %d: %v stands at %v, read %d", w.seed, tp, spot, w.parts[tp].read)
	}
}

// step is a few milliseconds.
func (w *world) step() {
	for id := range int32(3) {
		for n := w.nodes[id]; n != nil && w.turn(n); {
		}
	}
	for _, tp := range w.partitions() {
		p := w.parts[tp]
		for n := range int32(3) {
			if w.rng.IntN(3) == 0 {
				p.has[n] = p.end // replicas catch up
			}
		}
	}
	if w.stale && w.rng.IntN(4) == 0 {
		w.stale = false
		for _, tp := range w.partitions() {
			w.parts[tp].known = Leader{id, w.parts[tp].leader, w.parts[tp].epoch}
		}
		w.route()
	}
	if w.news && w.rng.IntN(2) == 0 {
		w.take()
	}
	w.now = w.now.Add(time.Duration(1+w.rng.IntN(10)) * time.Millisecond)
}

// happen is something that others do.
func (w *world) happen() {
	tp := TopicPartition{"t", int32(w.rng.IntN(len(w.parts)))}
	p := w.parts[tp]
	switch w.rng.IntN(40) {
	case 0:
		p.leader, p.epoch = int32(w.rng.IntN(3)), p.epoch+1
		p.has[p.leader] = p.end
	case 1, 2:
		w.paused[tp] = !w.paused[tp]
		w.s.SetPaused(tp, w.paused[tp])
		w.heed()
	case 3:
		if spot, ok := w.s.Spot(tp); ok {
			p.read = w.rng.Int64N(spot.Offset + 1)
			w.s.Seek(tp, Start{Kind: Offset, Number: p.read})
			w.heed()
			w.route()
		}
	case 4, 5, 6, 7, 8, 9, 10:
		w.write(p)
	}
}

// Whatever happens to requests, wherever leaders move and whichever replica is read: each partition's
// records are taken once, in order, to the end, and nothing counts as waiting then.
func TestRecordsAreTakenOnceAndInOrder(t *testing.T) {
	for seed := range uint64(150) {
		w := newWorld(t, seed, 1+int(seed%6))
		for range 1500 {
			w.happen()
			w.step()
		}
		w.calm = true
		for _, tp := range w.partitions() {
			w.paused[tp] = false
			w.s.SetPaused(tp, false)
		}
		w.heed()
		behind := func() (list []string) {
			for _, tp := range w.partitions() {
				if p := w.parts[tp]; p.read < p.end {
					list = append(list, fmt.Sprintf("%v: %d of %d, %+v", tp, p.read, p.end, *w.s.cursors[tp]))
				}
			}
			return list
		}
		for range 20_000 {
			w.step()
			if len(behind()) == 0 {
				break
			}
		}
		if list := behind(); len(list) > 0 {
			t.Fatalf("seed %d: a standstill: %v", seed, list)
		}
		if w.s.Pending() != 0 {
			t.Fatalf("seed %d: %d bytes count as waiting", seed, w.s.Pending())
		}
	}
}
