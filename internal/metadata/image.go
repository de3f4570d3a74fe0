package metadata

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/btree"

	"barnabas/internal/config"
)

// NoLeader stands where a partition has no leader.
const NoLeader int32 = -1

// Topic is a topic in an image. Nobody changes it.
type Topic struct {
	Name       string
	ID         UUID
	Partitions []*Partition // the index is the partition's number
}

// Partition is a partition in an image. Nobody changes it: a partition that is the same pointer
// in two images has not changed between them.
type Partition struct {
	Replicas     []int32 // broker ids, the preferred leader first
	Directories  []UUID  // log directory of each replica, in the order of Replicas
	ISR          []int32 // in-sync replicas
	ELR          []int32 // eligible leader replicas (KIP-966)
	LastKnownELR []int32
	Adding       []int32 // replicas that a reassignment adds
	Removing     []int32 // and those that it will remove

	Leader         int32 // broker id, or NoLeader
	LeaderEpoch    int32 // raised whenever a leader is chosen
	PartitionEpoch int32 // raised at every change

	// Unflushed: what is committed may not be on the disks of the replicas that have it, so that a crash may take it from them.
	// False is a promise: the leader counts with disks before it is made, and as long as it stands.
	Unflushed bool
}

// ReplicationFactor is the number of replicas of the first partition, which is what Kafka calls a
// topic's replication factor.
func (t *Topic) ReplicationFactor() int {
	if len(t.Partitions) == 0 {
		return 0
	}
	return len(t.Partitions[0].Replicas)
}

// EffectiveMinISR is the number of in-sync replicas that a write with acks=all really waits for:
// Kafka lowers min.insync.replicas silently to the number of replicas that there are, so that a
// topic of one replica is no safer for a setting of two. lowered says so, for those who warn.
// A configured number below one leaves it to the replicas: config.MinInSync.
func EffectiveMinISR(configured, replicationFactor int) (effective int, lowered bool) {
	if configured < 1 {
		configured = config.MinInSync(replicationFactor)
	}
	return min(configured, replicationFactor), configured > replicationFactor
}

// MinISR is EffectiveMinISR for a partition as it is. Left to the replicas, it goes by those that were there before a reassignment
// under way, if it is given more: otherwise a partition that gets two more replicas would take no write until one of them has
// caught up.
func (p *Partition) MinISR(configured int) int {
	replicas := len(p.Replicas)
	if configured < 1 {
		replicas -= len(p.Adding)
	}
	least, _ := EffectiveMinISR(configured, replicas)
	return max(least, 1)
}

// Listener is an address under which clients or brokers reach a broker.
type Listener struct {
	Name             string
	Host             string
	Port             uint16
	SecurityProtocol int32 // Kafka's numbers: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL
}

// FeatureRange is the range of levels of a feature that a broker supports.
type FeatureRange struct {
	Name     string
	Min, Max int16
}

// Broker is a registered broker. Nobody changes it.
type Broker struct {
	ID           int32
	Epoch        int64 // of this registration; a later one of any broker has a higher one
	Incarnation  UUID  // of the process that registered
	Listeners    []Listener
	Features     []FeatureRange
	Rack         *string
	Directories  []UUID // log directories that are online
	Cordoned     []UUID // of Directories: those that take no new replicas (KIP-1066)
	Fenced       bool   // leads nothing, and is not in any ISR beside somebody who does or could
	ShuttingDown bool
}

// ResourceKind says what a config belongs to, in Kafka's numbers.
type ResourceKind int8

// The kinds of resources that have configs.
const (
	TopicResource         ResourceKind = 2
	BrokerResource        ResourceKind = 4 // Name "" is the default of all brokers
	ClientMetricsResource ResourceKind = 16
	GroupResource         ResourceKind = 32
)

// Resource names what a config belongs to.
type Resource struct {
	Kind ResourceKind
	Name string
}

// Compare orders resources by kind, then by name.
func (r Resource) Compare(o Resource) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), strings.Compare(r.Name, o.Name))
}

// Image is the cluster's metadata after some record of the log. It never changes and is safe for
// concurrent use; what its methods return is not changed by the caller either. The next image
// shares with it all that stays the same, so deriving one costs what changes and not what there is.
type Image struct {
	offset          int64
	epoch           int32
	clusterID       string
	lastBrokerEpoch int64
	nextProducerID  int64
	partitions      int
	brokers         []*Broker // by id
	features        map[string]int16

	// mu guards Clone of the trees, which touches the tree that is cloned; reading needs no lock.
	mu           sync.Mutex
	topicsByName *btree.BTreeG[*Topic]
	topicsByID   *btree.BTreeG[*Topic]
	configs      *btree.BTreeG[*configEntry]
}

// configEntry holds the configs that a resource sets itself; never empty.
type configEntry struct {
	resource Resource
	values   map[string]string
}

// treeDegree sets the trees' nodes to at most 31 items, a copy of which costs some 250 bytes.
const treeDegree = 16

// Empty is the image of a log without records.
func Empty() *Image {
	return &Image{
		offset: -1,
		topicsByName: btree.NewG(treeDegree, func(a, b *Topic) bool {
			return a.Name < b.Name
		}),
		topicsByID: btree.NewG(treeDegree, func(a, b *Topic) bool {
			return a.ID.Compare(b.ID) < 0
		}),
		configs: btree.NewG(treeDegree, func(a, b *configEntry) bool {
			return a.resource.Compare(b.resource) < 0
		}),
	}
}

// Offset is that of the last entry which the image includes, -1 for the empty one.
func (i *Image) Offset() int64 { return i.offset }

// Epoch is the leader's epoch that the last entry was written in.
func (i *Image) Epoch() int32 { return i.epoch }

// ClusterID is empty until the cluster has been formed.
func (i *Image) ClusterID() string { return i.clusterID }

// Topic finds a topic by name.
func (i *Image) Topic(name string) (*Topic, bool) { return i.topicsByName.Get(&Topic{Name: name}) }

// TopicByID finds a topic by id.
func (i *Image) TopicByID(id UUID) (*Topic, bool) { return i.topicsByID.Get(&Topic{ID: id}) }

// Partition finds a partition of a topic by name and number.
func (i *Image) Partition(topic string, partition int32) (*Partition, bool) {
	t, ok := i.Topic(topic)
	if !ok || partition < 0 || int(partition) >= len(t.Partitions) {
		return nil, false
	}
	return t.Partitions[partition], true
}

// Topics walks all topics by name.
func (i *Image) Topics() iter.Seq[*Topic] { return i.TopicsFrom("") }

// TopicsFrom walks the topics whose names are not lower than name, by name.
func (i *Image) TopicsFrom(name string) iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		i.topicsByName.AscendGreaterOrEqual(&Topic{Name: name}, yield)
	}
}

// TopicCount is the number of topics.
func (i *Image) TopicCount() int { return i.topicsByName.Len() }

// PartitionCount is the number of partitions of all topics.
func (i *Image) PartitionCount() int { return i.partitions }

// Config returns the keys that a resource sets itself, nil if none.
func (i *Image) Config(kind ResourceKind, name string) map[string]string {
	if c, ok := i.configs.Get(&configEntry{resource: Resource{kind, name}}); ok {
		return c.values
	}
	return nil
}

// Configs walks all resources that set keys themselves, by kind and name.
func (i *Image) Configs() iter.Seq2[Resource, map[string]string] {
	return func(yield func(Resource, map[string]string) bool) {
		i.configs.Ascend(func(c *configEntry) bool { return yield(c.resource, c.values) })
	}
}

// Brokers returns the registered brokers by id.
func (i *Image) Brokers() []*Broker { return i.brokers }

// Broker finds a registered broker.
func (i *Image) Broker(id int32) (*Broker, bool) {
	at, found := i.findBroker(id)
	if !found {
		return nil, false
	}
	return i.brokers[at], true
}

func (i *Image) findBroker(id int32) (int, bool) {
	return slices.BinarySearchFunc(i.brokers, id, func(b *Broker, id int32) int { return cmp.Compare(b.ID, id) })
}

// LastBrokerEpoch is the highest broker epoch ever given out.
func (i *Image) LastBrokerEpoch() int64 { return i.lastBrokerEpoch }

// Feature is the finalised level of a feature, 0 if it is off.
func (i *Image) Feature(name string) int16 { return i.features[name] }

// Features walks the features that are on, with their finalised levels, by name.
func (i *Image) Features() iter.Seq2[string, int16] {
	return func(yield func(string, int16) bool) {
		for _, name := range slices.Sorted(maps.Keys(i.features)) {
			if !yield(name, i.features[name]) {
				return
			}
		}
	}
}

// NextProducerID is the first producer id that belongs to no block yet.
func (i *Image) NextProducerID() int64 { return i.nextProducerID }
