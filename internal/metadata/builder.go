package metadata

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Builder derives one image from another by replaying records. It belongs to one goroutine and is
// used up by Build, or by the first error of Replay.
type Builder struct {
	base *Image
	next *Image

	ownTopics  map[UUID]bool // topics in next that are copies of this builder's own
	ownConfigs map[Resource]bool
	ownBrokers bool
	changed    changes
}

// Derive begins an image that follows i. It may be called from several goroutines.
func (i *Image) Derive() *Builder {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &Builder{
		base: i,
		next: &Image{
			offset:          i.offset,
			epoch:           i.epoch,
			clusterID:       i.clusterID,
			lastBrokerEpoch: i.lastBrokerEpoch,
			nextProducerID:  i.nextProducerID,
			partitions:      i.partitions,
			brokers:         i.brokers,
			features:        i.features,
			topicsByName:    i.topicsByName.Clone(),
			topicsByID:      i.topicsByID.Clone(),
			configs:         i.configs.Clone(),
		},
		changed: newChanges(),
	}
}

// Build ends the derivation: the new image, which now ends with the entry at offset, and what
// differs from the one that the builder began with.
func (b *Builder) Build(offset int64, epoch int32) (*Image, *Delta) {
	next := b.next
	next.offset, next.epoch = offset, epoch
	return next, b.changed.delta(b.base, next)
}

// With derives the image that follows i after one entry of the log.
func (i *Image) With(offset int64, epoch int32, records []Record) (*Image, *Delta, error) {
	b, err := i.replayed(offset, records)
	if err != nil {
		return nil, nil, err
	}
	next, d := b.Build(offset, epoch)
	return next, d, nil
}

// After is With for whom nobody waits who has to know what differs, which costs as much again.
func (i *Image) After(offset int64, epoch int32, records []Record) (*Image, error) {
	b, err := i.replayed(offset, records)
	if err != nil {
		return nil, err
	}
	b.next.offset, b.next.epoch = offset, epoch
	return b.next, nil
}

func (i *Image) replayed(offset int64, records []Record) (*Builder, error) {
	b := i.Derive()
	for n, r := range records {
		if err := b.Replay(r); err != nil {
			return nil, fmt.Errorf("replay record %d of the entry at offset %d: %w", n, offset, err)
		}
	}
	return b, nil
}

// Replay applies one record. An error means that the record does not fit the image (it wraps
// ErrMalformed): log and image are not of one history.
func (b *Builder) Replay(r Record) error {
	switch r := r.(type) {
	case *ClusterRecord:
		return b.replayCluster(r)
	case *FeatureRecord:
		return b.replayFeature(r)
	case *BrokerRecord:
		return b.replayBroker(r)
	case *BrokerChangeRecord:
		return b.replayBrokerChange(r)
	case *BrokerRemovalRecord:
		return b.replayBrokerRemoval(r)
	case *TopicRecord:
		return b.replayTopic(r)
	case *PartitionRecord:
		return b.replayPartition(r)
	case *PartitionChangeRecord:
		return b.replayPartitionChange(r)
	case *TopicRemovalRecord:
		return b.replayTopicRemoval(r)
	case *ConfigRecord:
		return b.replayConfig(r)
	case *ProducerIDsRecord:
		return b.replayProducerIDs(r)
	case *NoOpRecord:
		return nil
	}
	return fmt.Errorf("%w: a record of type %T", ErrMalformed, r)
}

func (b *Builder) replayCluster(r *ClusterRecord) error {
	if b.next.clusterID != "" && r.Id != b.next.clusterID {
		return fmt.Errorf("%w: cluster %q becomes %q", ErrMalformed, b.next.clusterID, r.Id)
	}
	b.next.clusterID = r.Id
	b.next.lastBrokerEpoch = max(b.next.lastBrokerEpoch, r.LastBrokerEpoch)
	return nil
}

func (b *Builder) replayFeature(r *FeatureRecord) error {
	if r.Level < 0 || r.Level > math.MaxInt16 {
		return fmt.Errorf("%w: level %d of feature %s", ErrMalformed, r.Level, r.Name)
	}
	features := maps.Clone(b.next.features)
	if features == nil {
		features = make(map[string]int16)
	}
	if r.Level == 0 {
		delete(features, r.Name)
	} else {
		features[r.Name] = int16(r.Level)
	}
	b.next.features = features
	b.changed.features[r.Name] = true
	return nil
}

func (b *Builder) replayBroker(r *BrokerRecord) error {
	if r.Epoch <= b.next.lastBrokerEpoch && !b.restoring() {
		return fmt.Errorf("%w: broker %d registers with epoch %d after %d was given out", ErrMalformed, r.Id, r.Epoch, b.next.lastBrokerEpoch)
	}
	broker, err := brokerFrom(r)
	if err != nil {
		return fmt.Errorf("broker %d: %w", r.Id, err)
	}
	b.next.lastBrokerEpoch = max(b.next.lastBrokerEpoch, r.Epoch)
	b.setBroker(broker)
	return nil
}

// restoring reports whether the builder began with nothing: a snapshot names the highest broker
// epoch before the brokers, which are in the order of their ids.
func (b *Builder) restoring() bool { return b.base.offset < 0 }

func brokerFrom(r *BrokerRecord) (*Broker, error) {
	incarnation, err := uuidFrom(r.Incarnation)
	if err != nil {
		return nil, err
	}
	directories, err := uuidsFrom(r.Directories)
	if err != nil {
		return nil, err
	}
	cordoned, err := uuidsFrom(r.Cordoned)
	if err != nil {
		return nil, err
	}
	broker := &Broker{
		ID: r.Id, Epoch: r.Epoch, Incarnation: incarnation, Rack: r.Rack,
		Directories: directories, Cordoned: cordoned, Fenced: r.Fenced, ShuttingDown: r.ShuttingDown,
	}
	for _, l := range r.Listeners {
		if l.Port > math.MaxUint16 {
			return nil, fmt.Errorf("%w: port %d of listener %s", ErrMalformed, l.Port, l.Name)
		}
		broker.Listeners = append(broker.Listeners, Listener{l.Name, l.Host, uint16(l.Port), l.SecurityProtocol})
	}
	for _, f := range r.Features {
		if f.Min < 0 || f.Max < f.Min || f.Max > math.MaxInt16 {
			return nil, fmt.Errorf("%w: levels %d to %d of feature %s", ErrMalformed, f.Min, f.Max, f.Name)
		}
		broker.Features = append(broker.Features, FeatureRange{f.Name, int16(f.Min), int16(f.Max)})
	}
	return broker, nil
}

// setBroker puts broker into an own copy of the list.
func (b *Builder) setBroker(broker *Broker) {
	b.cloneBrokers()
	if at, found := b.next.findBroker(broker.ID); found {
		b.next.brokers[at] = broker
	} else {
		b.next.brokers = slices.Insert(b.next.brokers, at, broker)
	}
	b.changed.brokers[broker.ID] = true
}

func (b *Builder) cloneBrokers() {
	if !b.ownBrokers {
		b.next.brokers, b.ownBrokers = slices.Clone(b.next.brokers), true
	}
}

// registration finds the registration that a record means.
func (b *Builder) registration(id int32, epoch int64) (*Broker, error) {
	broker, ok := b.next.Broker(id)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: broker %d is not registered", ErrMalformed, id)
	case broker.Epoch != epoch:
		return nil, fmt.Errorf("%w: broker %d is registered with epoch %d, not %d", ErrMalformed, id, broker.Epoch, epoch)
	}
	return broker, nil
}

func (b *Builder) replayBrokerChange(r *BrokerChangeRecord) error {
	old, err := b.registration(r.Id, r.Epoch)
	if err != nil {
		return err
	}
	broker := *old
	if r.Fenced != nil {
		broker.Fenced = *r.Fenced
	}
	if r.ShuttingDown != nil {
		broker.ShuttingDown = *r.ShuttingDown
	}
	if r.Directories != nil {
		if broker.Directories, err = uuidsFrom(r.Directories.Ids); err != nil {
			return fmt.Errorf("directories of broker %d: %w", r.Id, err)
		}
	}
	if r.Cordoned != nil {
		if broker.Cordoned, err = uuidsFrom(r.Cordoned.Ids); err != nil {
			return fmt.Errorf("cordoned directories of broker %d: %w", r.Id, err)
		}
	}
	b.setBroker(&broker)
	return nil
}

func (b *Builder) replayBrokerRemoval(r *BrokerRemovalRecord) error {
	if _, err := b.registration(r.Id, r.Epoch); err != nil {
		return err
	}
	b.cloneBrokers()
	at, _ := b.next.findBroker(r.Id)
	b.next.brokers = slices.Delete(b.next.brokers, at, at+1)
	b.changed.brokers[r.Id] = true
	return nil
}

func (b *Builder) replayConfig(r *ConfigRecord) error {
	if r.Kind < 0 || r.Kind > math.MaxInt8 {
		return fmt.Errorf("%w: a config of kind %d", ErrMalformed, r.Kind)
	}
	resource := Resource{ResourceKind(r.Kind), r.Name}
	b.changed.configs[resource] = true
	values := b.next.Config(resource.Kind, resource.Name)
	if !b.ownConfigs[resource] {
		if values = maps.Clone(values); values == nil {
			values = make(map[string]string)
		}
		if b.ownConfigs == nil {
			b.ownConfigs = make(map[Resource]bool)
		}
		b.ownConfigs[resource] = true
		b.next.configs.ReplaceOrInsert(&configEntry{resource, values})
	}
	if r.Value != nil {
		values[r.Key] = *r.Value
		return nil
	}
	if delete(values, r.Key); len(values) == 0 {
		b.removeConfigs(resource)
	}
	return nil
}

func (b *Builder) removeConfigs(resource Resource) {
	if _, had := b.next.configs.Delete(&configEntry{resource: resource}); had {
		b.changed.configs[resource] = true
	}
	delete(b.ownConfigs, resource)
}

func (b *Builder) replayProducerIDs(r *ProducerIDsRecord) error {
	if r.Next < b.next.nextProducerID {
		return fmt.Errorf("%w: the next producer id falls from %d to %d", ErrMalformed, b.next.nextProducerID, r.Next)
	}
	b.next.nextProducerID = r.Next
	return nil
}
