package controller

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/metadata"
)

// placement is where a new partition goes.
type placement struct {
	replicas    []int32 // the preferred leader first
	directories []metadata.UUID
}

// placer spreads the partitions of one request over brokers, racks and log directories.
type placer struct {
	image  *metadata.Image
	random *rand.Rand
	racks  []rack
	next   int           // partitions placed so far
	placed map[int32]int // replicas placed so far on each broker
}

// rack holds the brokers of one rack that take new replicas.
type rack struct{ active, fenced []int32 }

func newPlacer(image *metadata.Image, random *rand.Rand) *placer {
	p := &placer{image: image, random: random, placed: make(map[int32]int)}
	byName := make(map[string]*rack)
	for _, b := range image.Brokers() {
		if !takesReplicas(b) || b.ShuttingDown && !b.Fenced {
			continue
		}
		name := rackOf(b)
		r := byName[name]
		if r == nil {
			r = new(rack)
			byName[name] = r
		}
		if b.Fenced {
			r.fenced = append(r.fenced, b.ID)
		} else {
			r.active = append(r.active, b.ID)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		p.racks = append(p.racks, *byName[name])
	}
	random.Shuffle(len(p.racks), func(i, j int) { p.racks[i], p.racks[j] = p.racks[j], p.racks[i] })
	p.shuffle()
	return p
}

// rackOf is the rack that a broker says it is in. All that say nothing are in one.
func rackOf(b *metadata.Broker) string {
	if b.Rack == nil {
		return ""
	}
	return *b.Rack
}

// takesReplicas reports whether a broker has a log directory for new replicas (KIP-1066).
func takesReplicas(b *metadata.Broker) bool {
	return len(b.Directories) == 0 || slices.ContainsFunc(b.Directories, func(d metadata.UUID) bool { return !slices.Contains(b.Cordoned, d) })
}

// brokers counts those that take replicas, and those of them that can lead.
func (p *placer) brokers() (all, active int) {
	for _, r := range p.racks {
		all, active = all+len(r.active)+len(r.fenced), active+len(r.active)
	}
	return all, active
}

func (p *placer) shuffle() {
	for _, r := range p.racks {
		for _, brokers := range [][]int32{r.active, r.fenced} {
			p.random.Shuffle(len(brokers), func(i, j int) { brokers[i], brokers[j] = brokers[j], brokers[i] })
		}
	}
}

// check refuses a replication factor that the brokers cannot give.
func (p *placer) check(replicationFactor int) *refusal {
	all, active := p.brokers()
	switch {
	case replicationFactor > all:
		return refuse(kerr.InvalidReplicationFactor, "replication factor %d needs as many brokers; %d can take replicas", replicationFactor, all)
	case active == 0:
		return refuse(kerr.InvalidReplicationFactor, "no broker can lead a partition now: all are fenced")
	}
	return nil
}

// place puts the next partition somewhere; check has passed. Partitions go round the racks, and
// round the brokers of each rack, so that leaders and replicas are spread evenly; the replicas of
// one partition are in as many racks as there are. Once round, the order of the brokers is drawn
// anew, so that not always the same ones share partitions.
func (p *placer) place(replicationFactor int) placement {
	all, _ := p.brokers()
	if p.next > 0 && p.next%all == 0 {
		p.shuffle()
	}
	orders := make([][]int32, 0, len(p.racks))
	for i := range p.racks {
		r := p.racks[(p.next+i)%len(p.racks)]
		step := p.next / len(p.racks)
		orders = append(orders, append(rotated(r.active, step), rotated(r.fenced, step)...))
	}
	p.next++
	// The first replica leads, so it is an active broker.
	for i := range orders {
		if b, _ := p.image.Broker(orders[i][0]); !b.Fenced {
			orders = append(append(slices.Clone(orders[i:i+1]), orders[:i]...), orders[i+1:]...)
			break
		}
	}
	var where placement
	for depth := 0; len(where.replicas) < replicationFactor; depth++ {
		for _, order := range orders {
			if depth < len(order) && len(where.replicas) < replicationFactor {
				where.replicas = append(where.replicas, order[depth])
			}
		}
	}
	where.directories = p.directories(where.replicas)
	return where
}

// count has what follows go by the replicas that a topic has already.
func (p *placer) count(t *metadata.Topic) {
	for _, has := range t.Partitions {
		for _, id := range has.Replicas {
			p.placed[id]++
		}
	}
}

// another finds a broker that takes part for one more replica of a partition: in the rack that has the fewest of its replicas,
// and of those the broker where the fewest have been placed.
func (p *placer) another(replicas []int32) (broker int32, ok bool) {
	inRack := make(map[string]int)
	for _, id := range replicas {
		if b, registered := p.image.Broker(id); registered {
			inRack[rackOf(b)]++
		}
	}
	var beside, placed int
	for _, r := range p.racks {
		for _, id := range r.active {
			if slices.Contains(replicas, id) {
				continue
			}
			b, _ := p.image.Broker(id)
			n := inRack[rackOf(b)]
			if !ok || n < beside || n == beside && p.placed[id] < placed {
				broker, ok, beside, placed = id, true, n, p.placed[id]
			}
		}
	}
	return broker, ok
}

func rotated(brokers []int32, by int) []int32 {
	if len(brokers) == 0 {
		return nil
	}
	by %= len(brokers)
	return append(slices.Clone(brokers[by:]), brokers[:by]...)
}

// directories gives each replica the broker's next log directory in turn. The number of partitions
// stands in for a counter that would have to be kept: on one node it goes on where the last
// request stopped.
func (p *placer) directories(replicas []int32) []metadata.UUID {
	chosen := make([]metadata.UUID, len(replicas))
	for i, id := range replicas {
		chosen[i] = metadata.UnassignedDirectory
		b, ok := p.image.Broker(id)
		if !ok {
			continue
		}
		open := slices.DeleteFunc(slices.Clone(b.Directories), func(d metadata.UUID) bool { return slices.Contains(b.Cordoned, d) })
		if len(open) > 0 {
			slices.SortFunc(open, metadata.UUID.Compare)
			chosen[i] = open[(p.image.PartitionCount()+p.placed[id])%len(open)]
		}
		p.placed[id]++
	}
	return chosen
}

// assign checks replicas that a user chose. want is the replication factor that they must have, 0
// for any.
func (p *placer) assign(replicas []int32, want int) (placement, *refusal) {
	if len(replicas) == 0 {
		return placement{}, refuse(kerr.InvalidReplicaAssignment, "an assignment without replicas")
	}
	for i, id := range replicas {
		b, registered := p.image.Broker(id)
		switch {
		case !registered:
			return placement{}, refuse(kerr.InvalidReplicaAssignment, "broker %d is not registered", id)
		case slices.Contains(replicas[:i], id):
			return placement{}, refuse(kerr.InvalidReplicaAssignment, "broker %d is named twice for one partition", id)
		case !takesReplicas(b):
			return placement{}, refuse(kerr.InvalidReplicaAssignment, "all log directories of broker %d are cordoned", id)
		}
	}
	if want > 0 && len(replicas) != want {
		return placement{}, refuse(kerr.InvalidReplicaAssignment, "%d replicas for one partition and %d for the others", len(replicas), want)
	}
	return placement{replicas: slices.Clone(replicas), directories: p.directories(replicas)}, nil
}

// record begins a partition there. The in-sync replicas are those on brokers that are up; ok is
// false if there are none.
func (w placement) record(image *metadata.Image, topic metadata.UUID, number int32, durable bool) (r *metadata.PartitionRecord, ok bool) {
	var isr []int32
	for _, id := range w.replicas {
		if b, found := image.Broker(id); found && !b.Fenced && !b.ShuttingDown {
			isr = append(isr, id)
		}
	}
	if len(isr) == 0 {
		return nil, false
	}
	first := &metadata.Partition{Replicas: w.replicas, Directories: w.directories, ISR: isr, Leader: isr[0], Unflushed: !durable}
	return first.Record(topic, number), true
}

// automaticReplicationFactor is default.replication.factor where it is left to the cluster (-1):
// three copies, or as many as there are brokers.
func (v *view) automaticReplicationFactor(configured int) int {
	if configured > 0 {
		return configured
	}
	return cmp.Or(min(3, len(v.image.Brokers())), 1)
}
