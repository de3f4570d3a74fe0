package controller

import (
	"fmt"
	"reflect"
	"slices"

	"barnabas/internal/metadata"
)

// Registration is what a broker says of itself when it starts.
type Registration struct {
	ID          int32
	Incarnation metadata.UUID // of this run of the process
	Listeners   []metadata.Listener
	Rack        *string
	Directories []metadata.UUID // log directories that are online
	Cordoned    []metadata.UUID // of Directories: those that take no new replicas
	Features    []metadata.FeatureRange
}

// SupportedRanges are the features that this program supports, as a broker registers them.
func SupportedRanges() []metadata.FeatureRange {
	var ranges []metadata.FeatureRange
	for _, f := range SupportedFeatures() {
		ranges = append(ranges, metadata.FeatureRange(f))
	}
	return ranges
}

type epochOrError struct {
	epoch int64
	err   error
}

// registerBroker decides the registration of a broker. Whatever ran under its id before is gone, and
// with it, perhaps, what it had not flushed: it leaves the in-sync replicas that have others, and
// where it was the last it leads again in a new epoch, so that who reads can tell the log's two lives
// apart. As in Kafka that is two epochs, one without a leader in between.
func registerBroker(v *view, r Registration) ([]metadata.Record, epochOrError) {
	if err := v.checkRegistration(r); err != nil {
		return nil, epochOrError{err: err}
	}
	next := &metadata.Broker{
		ID: r.ID, Epoch: v.image.LastBrokerEpoch() + 1, Incarnation: r.Incarnation, Listeners: r.Listeners,
		Features: r.Features, Rack: r.Rack, Directories: r.Directories, Cordoned: r.Cordoned,
	}
	if old, ok := v.image.Broker(r.ID); ok && old.Incarnation == r.Incarnation {
		same := *next
		if same.Epoch = old.Epoch; reflect.DeepEqual(&same, old) {
			return nil, epochOrError{epoch: old.Epoch} // it asks again for want of an answer
		}
	}
	records := []metadata.Record{next.Record()}
	for t := range v.image.Topics() {
		for n, p := range t.Partitions {
			if !slices.Contains(p.Replicas, r.ID) {
				continue
			}
			left, change := leave(v.image, t.ID, int32(n), p, r.ID)
			if change != nil {
				records = append(records, change)
			}
			if left.Leader == metadata.NoLeader && slices.Contains(left.ISR, r.ID) && online(next, left) {
				records = append(records, &metadata.PartitionChangeRecord{TopicId: t.ID.Bytes(), Partition: int32(n), Leader: new(r.ID)})
			}
		}
	}
	return records, epochOrError{epoch: next.Epoch}
}

func (v *view) checkRegistration(r Registration) error {
	if r.ID < 0 {
		return fmt.Errorf("%w: broker id %d", ErrInvalidRegistration, r.ID)
	}
	for i, d := range r.Directories {
		if d.Reserved() || slices.Contains(r.Directories[:i], d) {
			return fmt.Errorf("%w: broker %d: log directory id %s is reserved or there twice", ErrInvalidRegistration, r.ID, d)
		}
		for _, b := range v.image.Brokers() {
			if b.ID != r.ID && slices.Contains(b.Directories, d) {
				return fmt.Errorf("%w: log directory %s of broker %d belongs to broker %d", ErrInvalidRegistration, d, r.ID, b.ID)
			}
		}
	}
	for name, level := range v.image.Features() {
		if low, high := rangeOf(r.Features, name); level < low || level > high {
			return fmt.Errorf("%w: the cluster has feature %s at level %d, broker %d supports %d to %d", ErrInvalidRegistration, name, level, r.ID, low, high)
		}
	}
	return nil
}

// online reports whether a broker's replica of p is in a directory that it can use.
func online(b *metadata.Broker, p *metadata.Partition) bool {
	at := slices.Index(p.Replicas, b.ID)
	if at < 0 {
		return false
	}
	d := p.Directories[at]
	return d == metadata.UnassignedDirectory || len(b.Directories) == 0 || slices.Contains(b.Directories, d)
}

// leads reports whether a broker could lead p now.
func leads(image *metadata.Image, p *metadata.Partition, id int32) bool {
	b, ok := image.Broker(id)
	return ok && !b.Fenced && !b.ShuttingDown && slices.Contains(p.ISR, id) && online(b, p)
}

// leave takes a broker out of a partition's in-sync replicas and leadership, and returns the
// partition after that with the record that does it; nil if nothing changes. The last in-sync
// replica stays one, for the data is nowhere else.
func leave(image *metadata.Image, topic metadata.UUID, number int32, p *metadata.Partition, id int32) (*metadata.Partition, metadata.Record) {
	left := *p
	change := &metadata.PartitionChangeRecord{TopicId: topic.Bytes(), Partition: number}
	if slices.Contains(p.ISR, id) && len(p.ISR) > 1 {
		left.ISR = slices.DeleteFunc(slices.Clone(p.ISR), func(r int32) bool { return r == id })
		change.Isr = &metadata.Nodes{Ids: left.ISR}
	}
	if p.Leader == id {
		left.Leader = metadata.NoLeader
		for _, r := range p.Replicas {
			if r != id && leads(image, &left, r) {
				left.Leader = r
				break
			}
		}
		change.Leader = new(left.Leader)
	}
	if change.Isr == nil && change.Leader == nil {
		return p, nil
	}
	return &left, change
}

// updateDirectories decides what follows when log directories of a broker go offline, or take no
// new replicas from now on, or do so again. A directory does not come back online while the broker
// runs.
func updateDirectories(v *view, id int32, epoch int64, directories, cordoned []metadata.UUID) ([]metadata.Record, error) {
	old, err := v.registered(id, epoch)
	if err != nil {
		return nil, err
	}
	for _, d := range directories {
		if !slices.Contains(old.Directories, d) {
			return nil, fmt.Errorf("%w: broker %d did not register with log directory %s", ErrInvalidRegistration, id, d)
		}
	}
	if slices.Equal(directories, old.Directories) && slices.Equal(cordoned, old.Cordoned) {
		return nil, nil
	}
	records := []metadata.Record{&metadata.BrokerChangeRecord{
		Id: id, Epoch: epoch,
		Directories: &metadata.Directories{Ids: metadata.DirectoryBytes(directories)},
		Cordoned:    &metadata.Directories{Ids: metadata.DirectoryBytes(cordoned)},
	}}
	for t := range v.image.Topics() {
		for n, p := range t.Partitions {
			at := slices.Index(p.Replicas, id)
			if at < 0 || slices.Contains(directories, p.Directories[at]) || !slices.Contains(old.Directories, p.Directories[at]) {
				continue
			}
			if _, change := leave(v.image, t.ID, int32(n), p, id); change != nil {
				records = append(records, change)
			}
		}
	}
	return records, nil
}
