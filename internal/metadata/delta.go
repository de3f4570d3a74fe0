package metadata

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// TopicChange is what happened to one topic. A topic that was deleted and made again under its
// name is two changes, since it is another topic.
type TopicChange struct {
	Old        *Topic  // nil: created
	New        *Topic  // nil: deleted
	Partitions []int32 // those of New that are not as they were in Old, ascending
}

// Delta is what differs between two images. It never changes.
type Delta struct {
	Old, New *Image

	Cluster     bool          // the cluster got its id
	Topics      []TopicChange // deletions first, then by name
	Configs     []Resource    // by kind and name; a deleted topic's are among them if it had any
	Brokers     []int32       // ids, registered, changed or gone; ascending
	Features    []string      // by name
	ProducerIDs bool
}

// Empty reports whether the images are equal but for their offsets.
func (d *Delta) Empty() bool {
	return !d.Cluster && !d.ProducerIDs && len(d.Topics) == 0 && len(d.Configs) == 0 && len(d.Brokers) == 0 && len(d.Features) == 0
}

// ConfigChanged reports whether a resource's own configs differ.
func (d *Delta) ConfigChanged(kind ResourceKind, name string) bool {
	_, found := slices.BinarySearchFunc(d.Configs, Resource{kind, name}, Resource.Compare)
	return found
}

// Diff compares two images whole. A Builder knows what it touched and is cheaper.
func Diff(old, next *Image) *Delta {
	all := newChanges()
	for _, image := range []*Image{old, next} {
		for t := range image.Topics() {
			all.topics[t.ID] = true
		}
		for r := range image.Configs() {
			all.configs[r] = true
		}
		for _, b := range image.Brokers() {
			all.brokers[b.ID] = true
		}
		for name := range image.Features() {
			all.features[name] = true
		}
	}
	return all.delta(old, next)
}

// changes collects what may differ.
type changes struct {
	topics   map[UUID]bool
	configs  map[Resource]bool
	brokers  map[int32]bool
	features map[string]bool
}

func newChanges() changes {
	return changes{make(map[UUID]bool), make(map[Resource]bool), make(map[int32]bool), make(map[string]bool)}
}

// delta keeps of the collected what does differ.
func (c *changes) delta(old, next *Image) *Delta {
	d := &Delta{
		Old: old, New: next,
		Cluster:     old.clusterID != next.clusterID,
		ProducerIDs: old.nextProducerID != next.nextProducerID,
	}
	for id := range c.topics {
		if change, changed := compareTopic(old, next, id); changed {
			d.Topics = append(d.Topics, change)
		}
	}
	slices.SortFunc(d.Topics, func(a, b TopicChange) int {
		return cmp.Or(a.order()-b.order(), strings.Compare(a.name(), b.name()))
	})
	for r := range c.configs {
		if !maps.Equal(old.Config(r.Kind, r.Name), next.Config(r.Kind, r.Name)) {
			d.Configs = append(d.Configs, r)
		}
	}
	slices.SortFunc(d.Configs, Resource.Compare)
	for id := range c.brokers {
		was, _ := old.Broker(id)
		is, _ := next.Broker(id)
		if was != is && !reflect.DeepEqual(was, is) {
			d.Brokers = append(d.Brokers, id)
		}
	}
	slices.Sort(d.Brokers)
	for name := range c.features {
		if old.Feature(name) != next.Feature(name) {
			d.Features = append(d.Features, name)
		}
	}
	slices.Sort(d.Features)
	return d
}

func compareTopic(old, next *Image, id UUID) (change TopicChange, changed bool) {
	was, had := old.TopicByID(id)
	is, has := next.TopicByID(id)
	if was == is {
		return TopicChange{}, false
	}
	switch {
	case !has:
		return TopicChange{Old: was}, true
	case !had:
		change = TopicChange{New: is}
		for n := range is.Partitions {
			change.Partitions = append(change.Partitions, int32(n))
		}
		return change, true
	}
	change = TopicChange{Old: was, New: is}
	for n, p := range is.Partitions {
		if n >= len(was.Partitions) || !was.Partitions[n].equal(p) {
			change.Partitions = append(change.Partitions, int32(n))
		}
	}
	return change, len(change.Partitions) > 0
}

func (p *Partition) equal(o *Partition) bool {
	return p == o || slices.Equal(p.Replicas, o.Replicas) && slices.Equal(p.Directories, o.Directories) &&
		slices.Equal(p.ISR, o.ISR) && slices.Equal(p.ELR, o.ELR) && slices.Equal(p.LastKnownELR, o.LastKnownELR) &&
		slices.Equal(p.Adding, o.Adding) && slices.Equal(p.Removing, o.Removing) &&
		p.Leader == o.Leader && p.LeaderEpoch == o.LeaderEpoch && p.PartitionEpoch == o.PartitionEpoch && p.Unflushed == o.Unflushed
}

func (c TopicChange) order() int {
	if c.New == nil {
		return 0
	}
	return 1
}

func (c TopicChange) name() string {
	if c.New == nil {
		return c.Old.Name
	}
	return c.New.Name
}
