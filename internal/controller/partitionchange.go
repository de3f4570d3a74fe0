package controller

import (
	"slices"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/planted"
)

// Partitions decides what becomes of partitions: who leads, who is in sync, who may lead when nobody is. It
// is a look at one image and changes nothing; its methods return the records that do.
//
// A broker that is fenced leaves the in-sync replicas only where one stays that takes part and has been heard of. Others may be
// as dead as it is, after a power cut of all, and then nothing can have been acknowledged without it: as long as the metadata has it
// among the in-sync replicas no leader, whatever it knows, moves its high watermark without it, so it has every committed record
// however long the others are silent. It leaves when one of them is heard of after all. Where nobody is left
// that takes part, all who were in sync are eligible to lead.
//
// Three sets of replicas have every committed record: the in-sync replicas (ISR); while those are fewer than
// min.insync.replicas, the ones that were when the number fell (the eligible leader replicas, ELR, of KIP-966: the
// high watermark does not move below min.insync.replicas, so they miss nothing); and nobody else. Leaders
// come from these, in this order. When both are empty the last known leader may come back, which is the
// replica that lost least; anybody else only where the topic says so (unclean.leader.election.enable).
type Partitions struct {
	Image    *metadata.Image
	Settings *config.Set // the controller's, with what the metadata adds

	// Heard reports whether the process that a broker was registered by has been heard of by this controller; nil: all have.
	Heard func(*metadata.Broker) bool

	// instead stands for brokers whose registrations are changed by the same decision; nil for one that it removes.
	instead map[int32]*metadata.Broker
	// defaults are the rules of a topic that sets nothing itself; found when first needed.
	defaults *topicRules
}

// DecidePartitions looks at an image.
func DecidePartitions(image *metadata.Image, settings *config.Set) Partitions {
	return Partitions{Image: image, Settings: settings, defaults: new(topicRules)}
}

func (v *view) partitions() Partitions {
	d := DecidePartitions(v.image, v.settings)
	d.Heard = v.heard
	return d
}

// with looks at brokers as if they were registered so.
func (d Partitions) with(brokers ...*metadata.Broker) Partitions {
	d.instead = map[int32]*metadata.Broker{}
	for _, b := range brokers {
		d.instead[b.ID] = b
	}
	return d
}

func (d Partitions) broker(id int32) (*metadata.Broker, bool) {
	if b, changed := d.instead[id]; changed {
		return b, b != nil
	}
	return d.Image.Broker(id)
}

// active reports whether a broker takes part: it is registered, not fenced, and not on its way out.
func (d Partitions) active(id int32) bool {
	b, ok := d.broker(id)
	return ok && !b.Fenced && !b.ShuttingDown
}

// revision is one partition on its way from what it is to what it shall be.
type revision struct {
	d      Partitions
	topic  *metadata.Topic
	number int32
	old    *metadata.Partition
	next   metadata.Partition

	topicRules

	lost  []int32 // replicas that no longer have every committed record
	again bool    // a new leader epoch, even for the same leader
}

// topicRules are the settings of a topic that decisions depend on.
type topicRules struct {
	known      bool
	configured int  // min.insync.replicas
	durable    bool // records count once they are on disk
	unclean    bool // the topic prefers losing records to waiting for them
}

func (d Partitions) rules(t *metadata.Topic) topicRules {
	own := d.Image.Config(metadata.TopicResource, t.Name)
	if own == nil && d.defaults.known {
		return *d.defaults
	}
	s := d.Settings.Topic(own)
	rules := topicRules{true, s.Int("min.insync.replicas"), s.Bool("flush.before.ack"), s.Bool("unclean.leader.election.enable")}
	if own == nil {
		*d.defaults = rules
	}
	return rules
}

func (d Partitions) revise(t *metadata.Topic, number int32) *revision {
	return d.reviseBy(d.rules(t), t, number)
}

func (d Partitions) reviseBy(rules topicRules, t *metadata.Topic, number int32) *revision {
	p := t.Partitions[number]
	return &revision{d: d, topic: t, number: number, old: p, next: *p, topicRules: rules}
}

// leave takes brokers out of the in-sync replicas.
func (r *revision) leave(ids ...int32) { r.next.ISR = without(r.next.ISR, ids...) }

func without(ids []int32, gone ...int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return slices.Contains(gone, id) })
}

// complete lists the replicas that have every committed record, in the order of the replicas.
func (r *revision) complete() []int32 {
	return slices.DeleteFunc(slices.Clone(r.next.Replicas), func(id int32) bool {
		was := slices.Contains(r.old.ISR, id) || slices.Contains(r.old.ELR, id) && !planted.IgnoreELR || slices.Contains(r.next.ISR, id)
		return !was || slices.Contains(r.lost, id)
	})
}

// acceptable reports whether a replica can lead: its broker takes part and has its directory.
func (r *revision) acceptable(id int32) bool {
	b, ok := r.d.broker(id)
	return ok && r.d.active(id) && online(b, &r.next)
}

// lives reports whether a replica's broker is not fenced, has its directory, and has been heard of.
func (r *revision) lives(id int32) bool {
	b, ok := r.d.broker(id)
	return ok && !b.Fenced && online(b, &r.next) && (r.d.Heard == nil || r.d.Heard(b))
}

// stands reports whether a replica can lead, and its broker has been heard of.
func (r *revision) stands(id int32) bool { return r.acceptable(id) && r.lives(id) }

// dismiss takes those out of the in-sync replicas whose brokers are fenced, if one of the others lives, or none is left.
func (r *revision) dismiss() {
	stay := slices.DeleteFunc(slices.Clone(r.next.ISR), func(id int32) bool {
		b, ok := r.d.broker(id)
		return !ok || b.Fenced
	})
	if len(stay) < len(r.next.ISR) && (len(stay) == 0 || slices.ContainsFunc(stay, r.lives)) {
		r.next.ISR = stay
	}
}

// elect sees to it that the partition has a leader, if any replica may be: the one that it has, if that will do, or if it is on its way
// out and nobody else has everything, and otherwise the first that will in the order of the replicas, of those that have been heard of if any has.
func (r *revision) elect() {
	leader := r.next.Leader
	if slices.Contains(r.next.ISR, leader) && r.acceptable(leader) || r.leadFirst(r.inSync()) || r.leadFirst(r.complete()) {
		return
	}
	if b, ok := r.d.broker(leader); ok && slices.Contains(r.next.ISR, leader) && !b.Fenced && online(b, &r.next) {
		return
	}
	if !r.leadFirst(r.lastKnown()) && !r.leadFirst(r.anybody()) {
		r.next.Leader = metadata.NoLeader
	}
}

// leadFirst makes the first of the candidates the leader that will do, if one does.
func (r *revision) leadFirst(candidates []int32) bool {
	at := slices.IndexFunc(candidates, r.stands)
	if at < 0 {
		at = slices.IndexFunc(candidates, r.acceptable)
	}
	if at >= 0 {
		r.lead(candidates[at])
	}
	return at >= 0
}

// lead makes a replica the leader. One that was not in sync is, from now on, the only one that is.
func (r *revision) lead(id int32) {
	if !slices.Contains(r.complete(), id) {
		// What it does not have is given up, so those who have it have too much.
		r.lost = slices.Clone(r.next.Replicas)
	}
	if !slices.Contains(r.next.ISR, id) {
		r.next.ISR = []int32{id}
	}
	r.next.Leader = id
}

// inSync lists the in-sync replicas in the order of the replicas: the preferred leader first.
func (r *revision) inSync() []int32 {
	return slices.DeleteFunc(slices.Clone(r.next.Replicas), func(id int32) bool { return !slices.Contains(r.next.ISR, id) })
}

// lastKnown is who led last, once nobody is left that has everything.
func (r *revision) lastKnown() []int32 {
	if len(r.complete()) > 0 {
		return nil
	}
	if r.old.Leader != metadata.NoLeader {
		return []int32{r.old.Leader}
	}
	return r.old.LastKnownELR
}

func (r *revision) anybody() []int32 {
	if !r.unclean {
		return nil
	}
	return r.next.Replicas
}

// settle works out the eligible leader replicas.
func (r *revision) settle() {
	r.next.ELR, r.next.LastKnownELR = nil, nil
	if len(r.next.ISR) >= r.next.MinISR(r.configured) {
		return
	}
	r.next.ELR = without(r.complete(), r.next.ISR...)
	if len(r.next.ISR) > 0 {
		return
	}
	r.next.LastKnownELR = r.old.LastKnownELR
	if r.old.Leader != metadata.NoLeader {
		r.next.LastKnownELR = []int32{r.old.Leader}
	}
}

// record returns what makes the partition what it shall be, nil if it is.
func (r *revision) record() *metadata.PartitionChangeRecord {
	r.dismiss()
	r.settle()
	change := &metadata.PartitionChangeRecord{TopicId: r.topic.ID.Bytes(), Partition: r.number}
	changed := false
	for _, f := range []struct {
		old, next []int32
		field     **metadata.Nodes
	}{
		{r.old.Replicas, r.next.Replicas, &change.Replicas},
		{r.old.ISR, r.next.ISR, &change.Isr},
		{r.old.ELR, r.next.ELR, &change.Elr},
		{r.old.LastKnownELR, r.next.LastKnownELR, &change.LastKnownElr},
		{r.old.Adding, r.next.Adding, &change.Adding},
		{r.old.Removing, r.next.Removing, &change.Removing},
	} {
		if !slices.Equal(f.old, f.next) {
			*f.field, changed = &metadata.Nodes{Ids: f.next}, true
		}
	}
	if !slices.Equal(r.old.Directories, r.next.Directories) || change.Replicas != nil {
		change.Replicas = &metadata.Nodes{Ids: r.next.Replicas}
		change.Directories, changed = &metadata.Directories{Ids: metadata.DirectoryBytes(r.next.Directories)}, true
	}
	if r.again && r.next.Leader != metadata.NoLeader || r.next.Leader != r.old.Leader {
		change.Leader, changed = new(r.next.Leader), true
	}
	if r.next.Unflushed != r.old.Unflushed {
		change.Unflushed, changed = new(r.next.Unflushed), true
	}
	if !changed {
		return nil
	}
	return change
}

// every revises each partition that has a replica on one of the brokers, and returns the changes.
func (d Partitions) every(ids []int32, revise func(r *revision) bool) []metadata.Record {
	var records []metadata.Record
	for t := range d.Image.Topics() {
		var rules topicRules
		for n, p := range t.Partitions {
			if !slices.ContainsFunc(p.Replicas, func(id int32) bool { return slices.Contains(ids, id) }) {
				continue
			}
			if !rules.known {
				rules = d.rules(t)
			}
			r := d.reviseBy(rules, t, int32(n))
			if !revise(r) {
				continue
			}
			if change := r.record(); change != nil {
				records = append(records, change)
			}
		}
	}
	return records
}
