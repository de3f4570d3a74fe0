// Package reassign plans on which brokers partitions are to live: it reads and writes the JSON of Kafka's
// kafka-reassign-partitions, and spreads topics over brokers.
//
// It decides alone from what it is given; asking the cluster and changing it is its caller's business.
package reassign

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"barnabas/client"
)

// Plan says on which brokers each partition is to live. The first is to lead.
type Plan map[client.TopicPartition][]int32

// file is Kafka's format of a plan, version 1.
type file struct {
	Version    int             `json:"version"`
	Partitions []filePartition `json:"partitions"`
}

type filePartition struct {
	Topic     string   `json:"topic"`
	Partition *int32   `json:"partition"`
	Replicas  []int32  `json:"replicas"`
	LogDirs   []string `json:"log_dirs,omitempty"`
}

// anyDir leaves the data directory to the broker.
const anyDir = "any"

// Parse reads a plan. What Kafka's tool refuses in a file is refused here: an unknown version, partitions or brokers that
// are named twice, and lists of brokers that are empty. dirs says that it chooses data directories, too, as the files do
// that Kafka's tool writes for a way back: a Plan leaves them to the brokers.
func Parse(text []byte) (plan Plan, dirs bool, err error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, false, fmt.Errorf("not a reassignment in Kafka's JSON: %w", err)
	}
	if f.Version != 1 {
		return nil, false, fmt.Errorf("version %d of the reassignment's JSON is not known, only 1", f.Version)
	}
	if len(f.Partitions) == 0 {
		return nil, false, errors.New("the reassignment names no partitions")
	}
	plan = Plan{}
	for _, p := range f.Partitions {
		if p.Topic == "" || p.Partition == nil || *p.Partition < 0 {
			return nil, false, errors.New("a partition without its topic or number")
		}
		tp := client.TopicPartition{Topic: p.Topic, Partition: *p.Partition}
		if _, twice := plan[tp]; twice {
			return nil, false, fmt.Errorf("%s-%d is there twice", tp.Topic, tp.Partition)
		}
		if err := checkBrokers(p.Replicas); err != nil {
			return nil, false, fmt.Errorf("%s-%d: %w", tp.Topic, tp.Partition, err)
		}
		dirs = dirs || slices.ContainsFunc(p.LogDirs, func(d string) bool { return d != anyDir })
		plan[tp] = p.Replicas
	}
	return plan, dirs, nil
}

func checkBrokers(ids []int32) error {
	if len(ids) == 0 {
		return errors.New("no brokers")
	}
	for i, id := range ids {
		if id < 0 || slices.Contains(ids[:i], id) {
			return fmt.Errorf("broker %d is negative or there twice", id)
		}
	}
	return nil
}

// Partitions are those of the plan, sorted.
func (p Plan) Partitions() []client.TopicPartition {
	return slices.SortedFunc(maps.Keys(p), func(a, b client.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// MarshalJSON writes the plan in Kafka's format, sorted by partition.
func (p Plan) MarshalJSON() ([]byte, error) {
	f := file{Version: 1, Partitions: []filePartition{}}
	for _, tp := range p.Partitions() {
		f.Partitions = append(f.Partitions, filePartition{Topic: tp.Topic, Partition: &tp.Partition, Replicas: p[tp]})
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("write a reassignment: %w", err)
	}
	return text, nil
}

// Broker is one that partitions may be put on.
type Broker struct {
	Node int32
	Rack string
}

// Spread puts partitions on brokers so that each has about as many replicas, and about as often the first one, and so that
// the replicas of a partition are in different racks as far as there are enough. What can stay stays. now is where they
// are; factor is how many replicas each gets, 0 for as many as it has.
func Spread(now Plan, factor int, brokers []Broker) (Plan, error) {
	if len(brokers) == 0 {
		return nil, errors.New("no brokers")
	}
	s := &spreading{brokers: slices.Clone(brokers), replicas: map[int32]int{}, firsts: map[int32]int{}, rack: map[int32]string{}}
	slices.SortFunc(s.brokers, func(a, b Broker) int { return cmp.Compare(a.Node, b.Node) })
	for i, b := range s.brokers {
		if i > 0 && s.brokers[i-1].Node == b.Node {
			return nil, fmt.Errorf("broker %d is there twice", b.Node)
		}
		s.rack[b.Node] = b.Rack
	}
	order := now.Partitions()
	plan := Plan{}
	for _, tp := range order {
		n := cmp.Or(factor, len(now[tp]))
		if n > len(s.brokers) {
			return nil, fmt.Errorf("%s-%d is to have %d replicas, more than there are brokers (%d)", tp.Topic, tp.Partition, n, len(s.brokers))
		}
		plan[tp] = s.keep(now[tp], n)
	}
	for _, tp := range order {
		plan[tp] = s.fill(plan[tp], cmp.Or(factor, len(now[tp])))
	}
	s.level(plan, order)
	for _, tp := range order {
		s.lead(plan[tp])
	}
	return plan, nil
}

// spreading is the state of a Spread.
type spreading struct {
	brokers  []Broker // by number
	rack     map[int32]string
	replicas map[int32]int // that a broker has in the plan
	firsts   map[int32]int // and of them those that come first
}

// keep keeps the replicas that are where they may be.
func (s *spreading) keep(had []int32, factor int) (kept []int32) {
	for _, id := range had {
		if _, allowed := s.rack[id]; allowed && len(kept) < factor {
			kept = append(kept, id)
			s.replicas[id]++
		}
	}
	return kept
}

// fill adds the replicas that are missing: in racks that have none of them first, on the broker with the fewest.
func (s *spreading) fill(has []int32, factor int) []int32 {
	for len(has) < factor {
		best := slices.MinFunc(s.brokers, func(a, b Broker) int {
			return cmp.Or(
				cmp.Compare(boolAsInt(slices.Contains(has, a.Node)), boolAsInt(slices.Contains(has, b.Node))),
				cmp.Compare(s.sharing(has, a), s.sharing(has, b)),
				cmp.Compare(s.replicas[a.Node], s.replicas[b.Node]),
				cmp.Compare(a.Node, b.Node),
			)
		})
		has = append(has, best.Node)
		s.replicas[best.Node]++
	}
	return has
}

// level moves replicas from the broker with the most to the one with the fewest until they differ by one at most, or until
// only moves are left that would bring more replicas of a partition into one rack.
func (s *spreading) level(plan Plan, order []client.TopicPartition) {
	for s.levelOnce(plan, order) { // each turn makes the sum of the squares smaller
	}
}

func (s *spreading) levelOnce(plan Plan, order []client.TopicPartition) bool {
	byLoad := slices.SortedStableFunc(slices.Values(s.brokers), func(a, b Broker) int { return cmp.Compare(s.replicas[a.Node], s.replicas[b.Node]) })
	for _, from := range slices.Backward(byLoad) {
		for _, to := range byLoad {
			if s.replicas[from.Node]-s.replicas[to.Node] < 2 {
				break
			}
			for _, tp := range order {
				i := slices.Index(plan[tp], from.Node)
				if i < 0 || slices.Contains(plan[tp], to.Node) {
					continue
				}
				others := slices.Delete(slices.Clone(plan[tp]), i, i+1)
				if s.sharing(others, to) > s.sharing(others, from) {
					continue
				}
				plan[tp][i] = to.Node
				s.replicas[from.Node]--
				s.replicas[to.Node]++
				return true
			}
		}
	}
	return false
}

// sharing counts the replicas in a broker's rack.
func (s *spreading) sharing(has []int32, b Broker) (n int) {
	if b.Rack == "" {
		return 0
	}
	for _, id := range has {
		n += boolAsInt(s.rack[id] == b.Rack)
	}
	return n
}

// lead puts the replica first whose broker leads least; the one that is first already where that makes no difference.
func (s *spreading) lead(replicas []int32) {
	best := 0
	for i, id := range replicas {
		if s.firsts[id] < s.firsts[replicas[best]] {
			best = i
		}
	}
	first := replicas[best]
	copy(replicas[1:best+1], replicas[:best])
	replicas[0] = first
	s.firsts[first]++
}

func boolAsInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
