package controller

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// Registration is what a broker says of itself when it starts.
type Registration = metadata.Registration

// SupportedRanges are the features that this program supports, as a broker registers them.
func SupportedRanges() []metadata.FeatureRange {
	var ranges []metadata.FeatureRange
	for _, f := range SupportedFeatures() {
		ranges = append(ranges, metadata.FeatureRange(f))
	}
	return ranges
}

// recordsPerBrokerEntry bounds an entry about brokers and all partitions that they take part in. It stays within
// what the quorum takes as one (7 MiB) where each record names three replicas and their directories anew.
const recordsPerBrokerEntry = 50_000

// withBrokers puts records about brokers and about their partitions together. They are one entry, brokers first, if that
// can be. Where it cannot, the partitions go first: should the rest be lost with this controller, brokers that are in
// sync no more are still taken for what they were, and the other way round ones that may lack records would
// still count as in sync (trap 5).
func withBrokers(brokers, partitions []metadata.Record) []metadata.Record {
	if len(brokers)+len(partitions) <= recordsPerBrokerEntry {
		return append(brokers, partitions...)
	}
	return append(partitions, brokers...)
}

type epochOrError struct {
	epoch int64
	err   error
}

// registerBroker decides the registration of a broker. Whatever ran under its id before is gone, and
// with it, perhaps, what it had not flushed: see Partitions.Restart.
//
// A process that was heard of within its session may be alive under the same id. It is not where the newcomer
// has one of its log directories, for a directory is locked by the process that uses it: so a broker that is
// started again after kill -9 need not wait.
func registerBroker(v *view, r Registration) ([]metadata.Record, epochOrError) {
	if err := v.checkRegistration(r); err != nil {
		return nil, epochOrError{err: err}
	}
	next := &metadata.Broker{
		ID: r.ID, Epoch: v.image.LastBrokerEpoch() + 1, Incarnation: r.Incarnation, Listeners: r.Listeners,
		Features: r.Features, Rack: r.Rack, Directories: r.Directories, Cordoned: r.Cordoned, Fenced: r.Fenced,
	}
	how := Comeback{Complete: r.Complete}
	if old, known := v.image.Broker(r.ID); known {
		again := old.Incarnation == r.Incarnation
		if again && sameRegistration(old, next) {
			return nil, epochOrError{epoch: old.Epoch} // it asks again for want of an answer
		}
		if !again && !shareDirectory(old, next) && v.alive != nil && v.alive(old) {
			return nil, epochOrError{err: fmt.Errorf("broker %d, registered in epoch %d: %w", r.ID, old.Epoch, ErrDuplicateBroker)}
		}
		how.Clean = again || r.CleanEpoch == old.Epoch
	}
	changes := v.partitions().Restart(next, how)
	return withBrokers([]metadata.Record{next.Record()}, changes), epochOrError{epoch: next.Epoch}
}

// sameRegistration reports whether a registration says what is known. What became of the broker since does not count.
func sameRegistration(old, next *metadata.Broker) bool {
	same := *next
	same.Epoch, same.Fenced, same.ShuttingDown = old.Epoch, old.Fenced, old.ShuttingDown
	return reflect.DeepEqual(&same, old)
}

func shareDirectory(a, b *metadata.Broker) bool {
	return slices.ContainsFunc(a.Directories, func(d metadata.UUID) bool { return slices.Contains(b.Directories, d) })
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
	next := *old
	next.Directories, next.Cordoned = directories, cordoned
	change := &metadata.BrokerChangeRecord{
		Id: id, Epoch: epoch,
		Directories: &metadata.Directories{Ids: metadata.DirectoryBytes(directories)},
		Cordoned:    &metadata.Directories{Ids: metadata.DirectoryBytes(cordoned)},
	}
	var lost []metadata.Record
	if !slices.Equal(directories, old.Directories) {
		lost = v.partitions().LoseDirectories(&next)
	}
	return withBrokers([]metadata.Record{change}, lost), nil
}

// fenceBrokers decides that brokers are taken for dead.
func fenceBrokers(v *view, ids []int32) []metadata.Record {
	var brokers []metadata.Record
	for _, id := range ids {
		if b, ok := v.image.Broker(id); ok && !b.Fenced {
			brokers = append(brokers, &metadata.BrokerChangeRecord{Id: id, Epoch: b.Epoch, Fenced: new(true)})
		}
	}
	if len(brokers) == 0 {
		return nil
	}
	return withBrokers(brokers, v.partitions().Fence(ids...))
}

// GiveUp decides what follows when a majority of the voters is lost for good and one goes on alone (cluster recover): no broker
// among them runs any more. All are fenced at once, the one that goes on, too, so that what was in sync when the quorum was lost
// is eligible to lead. Told one after the other, that one would come back as a replica that left the in-sync replicas while
// others were still among them, and those never come. config is the configuration of the node that goes on.
func GiveUp(image *metadata.Image, config *config.Set, brokers []int32) []metadata.Record {
	own := brokerName(int32(config.Int("node.id")))
	// A value that an older version let pass is left out; the rest holds.
	settings, _ := config.With(image.Config(metadata.BrokerResource, ""), image.Config(metadata.BrokerResource, own))
	return fenceBrokers(&view{image: image, settings: settings}, brokers)
}

// takeHeartbeat decides what follows from what a broker says of itself. ready: its metadata is new enough for it to take part.
// One thing at a time: the next heartbeat says the rest again.
func takeHeartbeat(v *view, h *metadata.Heartbeat, ready bool) ([]metadata.Record, error) {
	b, err := v.registered(h.Broker, h.Epoch)
	if err != nil {
		return nil, err
	}
	if len(h.Directories) > 0 {
		if records, err := updateDirectories(v, h.Broker, h.Epoch, h.Directories, h.Cordoned); err != nil || len(records) > 0 {
			return records, err
		}
	}
	change := &metadata.BrokerChangeRecord{Id: b.ID, Epoch: b.Epoch}
	switch {
	case h.WantFence && !b.Fenced:
		return fenceBrokers(v, []int32{b.ID}), nil
	case h.WantShutDown && !b.ShuttingDown && !b.Fenced:
		change.ShuttingDown = new(true)
		return withBrokers([]metadata.Record{change}, v.partitions().ShutDown(b.ID)), nil
	case h.WantShutDown && mayShutDown(v.partitions(), b) && !b.Fenced:
		// From then on it is away, like one that was not heard of, and may be given replicas again. It is told that it may go
		// when that is committed.
		return fenceBrokers(v, []int32{b.ID}), nil
	case b.Fenced && ready && !h.WantFence && !h.WantShutDown:
		// First it takes part, then it may lead: in this order also where that takes several entries.
		change.Fenced = new(false)
		return append([]metadata.Record{change}, v.partitions().Unfence(b.ID)...), nil
	}
	return nil, nil
}

// mayShutDown reports whether a broker that wants to stop has nothing left to hand over.
func mayShutDown(d Partitions, b *metadata.Broker) bool {
	if b.Fenced {
		return true
	}
	_, movable := d.LedBy(b.ID)
	return b.ShuttingDown && movable == 0
}

// unregisterBroker decides UnregisterBroker: the broker is gone for good. Its replicas stay assigned until they are
// reassigned, and are taken for lost. One that is alive after all registers again, as new.
func unregisterBroker(v *view, req *kmsg.UnregisterBrokerRequest) ([]metadata.Record, *kmsg.UnregisterBrokerResponse) {
	b, ok := v.image.Broker(req.BrokerID)
	if !ok {
		return nil, refuseUnregistration(req, refuse(kerr.BrokerIDNotRegistered, "broker %d is not registered", req.BrokerID))
	}
	removal := &metadata.BrokerRemovalRecord{Id: b.ID, Epoch: b.Epoch}
	return withBrokers([]metadata.Record{removal}, v.partitions().Unregister(b.ID)), refuseUnregistration(req, nil)
}

func refuseUnregistration(req *kmsg.UnregisterBrokerRequest, why *refusal) *kmsg.UnregisterBrokerResponse {
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	resp.Version = req.Version
	resp.ErrorCode, resp.ErrorMessage = why.fields()
	return resp
}

// UnregisterBroker removes a broker for good.
func (c *Controller) UnregisterBroker(ctx context.Context, req *kmsg.UnregisterBrokerRequest) (*kmsg.UnregisterBrokerResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, alterTimeout, ErrTimedOut)
	defer cancel()
	resp, err := submitEvent(ctx, c, recordsPerBrokerEntry, func(_ *shard, v *view) ([]metadata.Record, *kmsg.UnregisterBrokerResponse) {
		return unregisterBroker(v, req)
	})
	if err == nil {
		return resp, nil
	}
	why, err := wholly(err)
	if err != nil {
		return nil, err
	}
	return refuseUnregistration(req, why), nil
}

// RegisterBroker makes a broker one of the cluster and returns its epoch, which it names whenever it
// speaks to the controller.
func (c *Controller) RegisterBroker(ctx context.Context, r Registration) (epoch int64, err error) {
	answer, err := submitEvent(ctx, c, recordsPerBrokerEntry, func(s *shard, v *view) ([]metadata.Record, epochOrError) {
		records, answer := registerBroker(v, r)
		if answer.err == nil {
			s.registered(&r, answer.epoch, len(records) > 0)
		}
		return records, answer
	})
	if err != nil {
		return 0, err
	}
	return answer.epoch, answer.err
}

// UpdateDirectories says which of the log directories that a broker registered with are online, and
// which of these take no new replicas.
func (c *Controller) UpdateDirectories(ctx context.Context, broker int32, epoch int64, online, cordoned []metadata.UUID) error {
	refused, err := submitEvent(ctx, c, recordsPerBrokerEntry, func(_ *shard, v *view) ([]metadata.Record, error) {
		return updateDirectories(v, broker, epoch, online, cordoned)
	})
	if err != nil {
		return err
	}
	return refused
}

// AssignDirectories says in which of its log directories a broker, registered in epoch, keeps replicas, where the metadata says
// otherwise (AssignReplicasToDirs in Kafka). Replicas that it does not have are passed over.
func (c *Controller) AssignDirectories(ctx context.Context, broker int32, epoch int64, places []metadata.ReplicaDirectory) error {
	refused, err := submitEvent(ctx, c, recordsPerEntry, func(_ *shard, v *view) ([]metadata.Record, error) {
		if _, err := v.registered(broker, epoch); err != nil {
			return nil, err
		}
		records, _ := v.partitions().AssignDirectories(broker, places)
		return records, nil
	})
	if err != nil {
		return err
	}
	return refused
}

type isrOutcomes struct {
	all []metadata.ISROutcome
	err error
}

// AlterISR puts proposals of a broker that leads partitions to the controller. The outcomes are in the order of the
// proposals; those that are accepted are committed. After an error it is not known whether any has taken effect, or
// will.
func (c *Controller) AlterISR(ctx context.Context, broker int32, epoch int64, proposals []metadata.ISRProposal) ([]metadata.ISROutcome, error) {
	got, err := submitEvent(ctx, c, recordsPerEntry, func(_ *shard, v *view) ([]metadata.Record, isrOutcomes) {
		records, outcomes, err := v.partitions().AlterISR(broker, epoch, proposals)
		return records, isrOutcomes{outcomes, err}
	})
	if err != nil {
		return nil, err
	}
	return got.all, got.err
}
