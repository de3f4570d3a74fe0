package metadata

import (
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"
)

// Records walks records that make an image equal to i when they are replayed into the empty one.
func (i *Image) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, part := range []func(func(Record) bool) bool{
			i.clusterRecords, i.brokerRecords, i.topicRecords, i.configRecords,
		} {
			if !part(yield) {
				return
			}
		}
	}
}

func (i *Image) clusterRecords(yield func(Record) bool) bool {
	if i.clusterID != "" || i.lastBrokerEpoch != 0 {
		if !yield(&ClusterRecord{Id: i.clusterID, LastBrokerEpoch: i.lastBrokerEpoch}) {
			return false
		}
	}
	for name, level := range i.Features() {
		if !yield(&FeatureRecord{Name: name, Level: int32(level)}) {
			return false
		}
	}
	return i.nextProducerID == 0 || yield(&ProducerIDsRecord{Broker: -1, BrokerEpoch: -1, Next: i.nextProducerID})
}

func (i *Image) brokerRecords(yield func(Record) bool) bool {
	for _, b := range i.brokers {
		if !yield(b.Record()) {
			return false
		}
	}
	return true
}

// Record returns the record that registers b as it is.
func (b *Broker) Record() *BrokerRecord {
	r := &BrokerRecord{
		Id: b.ID, Epoch: b.Epoch, Incarnation: b.Incarnation.Bytes(), Rack: b.Rack,
		Directories: DirectoryBytes(b.Directories), Cordoned: DirectoryBytes(b.Cordoned), Fenced: b.Fenced, ShuttingDown: b.ShuttingDown,
	}
	for _, l := range b.Listeners {
		r.Listeners = append(r.Listeners, &BrokerRecord_Listener{
			Name: l.Name, Host: l.Host, Port: uint32(l.Port), SecurityProtocol: l.SecurityProtocol,
		})
	}
	for _, f := range b.Features {
		r.Features = append(r.Features, &BrokerRecord_Feature{Name: f.Name, Min: int32(f.Min), Max: int32(f.Max)})
	}
	return r
}

func (i *Image) topicRecords(yield func(Record) bool) bool {
	for t := range i.Topics() {
		if !yield(&TopicRecord{Name: t.Name, Id: t.ID.Bytes()}) {
			return false
		}
		for n, p := range t.Partitions {
			if !yield(p.Record(t.ID, int32(n))) {
				return false
			}
		}
	}
	return true
}

// Record returns the record that sets partition number of a topic to p.
func (p *Partition) Record(topic UUID, number int32) *PartitionRecord {
	return &PartitionRecord{
		TopicId: topic.Bytes(), Partition: number,
		Replicas: p.Replicas, Directories: DirectoryBytes(p.Directories),
		Isr: p.ISR, Elr: p.ELR, LastKnownElr: p.LastKnownELR, Adding: p.Adding, Removing: p.Removing,
		Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, Unflushed: p.Unflushed,
	}
}

func (i *Image) configRecords(yield func(Record) bool) bool {
	for resource, values := range i.Configs() {
		for _, key := range sortedKeys(values) {
			if !yield(&ConfigRecord{Kind: int32(resource.Kind), Name: resource.Name, Key: key, Value: proto.String(values[key])}) {
				return false
			}
		}
	}
	return true
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
