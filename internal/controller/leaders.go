package controller

import (
	"fmt"
	"slices"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// PreferLeaders gives partitions back to the replicas that should lead them, the first of each: where of the
// partitions that a broker should lead more than percentage in a hundred are led by others
// (leader.imbalance.per.broker.percentage), and at most limit changes at once. more says that there were others.
func (d Partitions) PreferLeaders(percentage, limit int) (records []metadata.Record, more bool) {
	should, strays := map[int32]int{}, map[int32]int{}
	for t := range d.Image.Topics() {
		for _, p := range t.Partitions {
			should[p.Replicas[0]]++
			if p.Leader != p.Replicas[0] {
				strays[p.Replicas[0]]++
			}
		}
	}
	for t := range d.Image.Topics() {
		for n, p := range t.Partitions {
			preferred := p.Replicas[0]
			if p.Leader == preferred || strays[preferred]*100 <= should[preferred]*percentage {
				continue
			}
			change := d.prefer(t, int32(n))
			if change == nil {
				continue
			}
			if len(records) == limit {
				return records, true
			}
			records = append(records, change)
		}
	}
	return records, false
}

// prefer makes the preferred replica of a partition its leader; nil where it is, or cannot be.
func (d Partitions) prefer(t *metadata.Topic, number int32) metadata.Record {
	r := d.revise(t, number)
	preferred := r.old.Replicas[0]
	if r.old.Leader == preferred || !slices.Contains(r.old.ISR, preferred) || !r.acceptable(preferred) {
		return nil
	}
	r.next.Leader = preferred
	return asRecord(r.record())
}

// electNow gives a partition without a leader one, an unclean one if the caller says so; nil where that is not
// possible, or not needed.
func (d Partitions) electNow(t *metadata.Topic, number int32, unclean bool) metadata.Record {
	r := d.revise(t, number)
	if r.old.Leader != metadata.NoLeader {
		return nil
	}
	r.unclean = r.unclean || unclean
	r.elect()
	if r.next.Leader == metadata.NoLeader {
		return nil
	}
	return asRecord(r.record())
}

// leadAnyhow gives leaders to partitions that have none where their topics would rather lose records than wait
// (unclean.leader.election.enable), at most limit of them: to a replica that is there, or to one that begins anew because its
// log directory is none of its broker's any more. As long as a directory that the broker is configured with cannot be used
// the records may be in that one. begun are the partitions that begin anew; more says that there were others.
func (v *view) leadAnyhow(limit int) (records []metadata.Record, begun []string, more bool) {
	d := v.partitions()
	placer := newPlacer(v.image, v.random)
	for t := range v.image.Topics() {
		for n, p := range t.Partitions {
			if p.Leader != metadata.NoLeader {
				continue
			}
			if !d.rules(t).unclean {
				break
			}
			change := d.electNow(t, int32(n), false)
			anew := change == nil
			if anew {
				change = v.beginAnew(d, t, int32(n), placer)
			}
			if change == nil {
				continue
			}
			if len(records) == limit {
				return records, begun, true
			}
			if anew {
				begun = append(begun, fmt.Sprintf("%s-%d", t.Name, n))
			}
			records = append(records, change)
		}
	}
	return records, begun, false
}

// beginAnew makes a replica that has lost all it had the leader, empty, in a directory that its broker has; nil where there
// is none for that.
func (v *view) beginAnew(d Partitions, t *metadata.Topic, number int32, placer *placer) metadata.Record {
	r := d.revise(t, number)
	for at, id := range r.old.Replicas {
		b, ok := d.broker(id)
		if !ok || !d.active(id) || online(b, r.old) || v.complete == nil || !v.complete(b) {
			continue
		}
		directory := placer.directories([]int32{id})[0]
		if directory == metadata.UnassignedDirectory {
			continue // all that the broker has are cordoned
		}
		r.next.Directories = slices.Clone(r.old.Directories)
		r.next.Directories[at] = directory
		r.next.ISR = nil // it has lost what made it one
		r.lost = r.old.Replicas
		r.lead(id)
		return asRecord(r.record())
	}
	return nil
}

// asRecord keeps a nil record from becoming an interface that is not nil.
func asRecord(r *metadata.PartitionChangeRecord) metadata.Record {
	if r == nil {
		return nil
	}
	return r
}

// MinISRLowered clears what no longer holds when fewer in-sync replicas are asked for: the high watermark of the
// topic's partitions may move from now on without those that were eligible to lead. before and after are
// the numbers in force for a partition. The records go into the entry that changes the setting.
func MinISRLowered(t *metadata.Topic, before, after func(*metadata.Partition) int) (records []metadata.Record) {
	for n, p := range t.Partitions {
		if len(p.ELR)+len(p.LastKnownELR) == 0 || len(p.ISR) == 0 || after(p) >= before(p) {
			continue
		}
		if len(p.ISR) < after(p) {
			continue // the watermark stays where it is
		}
		records = append(records, &metadata.PartitionChangeRecord{
			TopicId: t.ID.Bytes(), Partition: int32(n), Elr: &metadata.Nodes{}, LastKnownElr: &metadata.Nodes{},
		})
	}
	return records
}

// minISRLowered is MinISRLowered for every topic that a change of a resource's configs touches.
func (v *view) minISRLowered(resource metadata.Resource, old, next map[string]string) (records []metadata.Record) {
	const key = "min.insync.replicas"
	if old[key] == next[key] {
		return nil
	}
	in := func(s *config.Topic) func(*metadata.Partition) int {
		configured := s.Int(key)
		return func(p *metadata.Partition) int { return p.MinISR(configured) }
	}
	if resource.Kind == metadata.TopicResource {
		topic, ok := v.image.Topic(resource.Name)
		if !ok {
			return nil
		}
		return MinISRLowered(topic, in(v.settings.Topic(old)), in(v.settings.Topic(next)))
	}
	// What a broker sets for itself is looked at as if all did: clearing too much costs a choice, too little records.
	before, _ := v.settings.With(old, nil)
	after, _ := v.settings.With(next, nil)
	for t := range v.image.Topics() {
		own := v.image.Config(metadata.TopicResource, t.Name)
		records = append(records, MinISRLowered(t, in(before.Topic(own)), in(after.Topic(own)))...)
	}
	return records
}
