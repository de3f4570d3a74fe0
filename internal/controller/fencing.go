package controller

import (
	"slices"

	"barnabas/internal/metadata"
)

// What happens to partitions when a broker comes, goes, or is not heard of. The records about the broker
// itself are the caller's; those returned here follow them in the same entry.

// Fence decides what follows when brokers are fenced: they leave every in-sync replica set and lead nothing
// (KIP-841), unless nobody who stays has been heard of: see Partitions. Where they were the last in-sync replicas the partition has
// no leader until one that has everything returns. Several at once change each partition once.
func (d Partitions) Fence(ids ...int32) []metadata.Record {
	var brokers []*metadata.Broker
	for _, id := range ids {
		if b, ok := d.Image.Broker(id); ok {
			fenced := *b
			fenced.Fenced = true
			brokers = append(brokers, &fenced)
		}
	}
	return d.with(brokers...).every(ids, func(r *revision) bool {
		r.elect()
		return true
	})
}

// FirstHeard decides what follows when a broker is heard of for the first time by this controller: those who are fenced need not be
// waited for any more where it is in sync.
func (d Partitions) FirstHeard(id int32) []metadata.Record {
	fenced := func(b *metadata.Broker) bool { return b.Fenced }
	if b, ok := d.broker(id); !ok || b.Fenced || !slices.ContainsFunc(d.Image.Brokers(), fenced) {
		return nil
	}
	heard := d.Heard
	d.Heard = func(b *metadata.Broker) bool { return b.ID == id || heard == nil || heard(b) }
	return d.every([]int32{id}, func(r *revision) bool {
		r.elect()
		return true
	})
}

// Unfence decides what follows when a broker is unfenced: it leads what nobody leads and it may.
func (d Partitions) Unfence(id int32) []metadata.Record {
	if b, ok := d.Image.Broker(id); ok {
		back := *b
		back.Fenced = false
		d = d.with(&back)
	}
	return d.leadOrphans(id)
}

func (d Partitions) leadOrphans(id int32) []metadata.Record {
	return d.every([]int32{id}, func(r *revision) bool {
		if r.old.Leader != metadata.NoLeader {
			return false
		}
		r.elect()
		return true
	})
}

// ShutDown decides what follows when a broker announces that it stops: everything that others can lead they
// lead now, while it still runs, and it leaves the in-sync replicas that have others. What only it can
// lead it leads until it is gone.
func (d Partitions) ShutDown(id int32) []metadata.Record {
	if b, ok := d.Image.Broker(id); ok {
		leaving := *b
		leaving.ShuttingDown = true
		d = d.with(&leaving)
	}
	return d.every([]int32{id}, func(r *revision) bool {
		r.leave(id)
		r.elect()
		return r.next.Leader != metadata.NoLeader && slices.Contains(r.complete(), r.next.Leader)
	})
}

// LedBy counts the partitions that a broker leads, and those of them that another could lead now. A broker
// that shuts down may go once the second is zero.
func (d Partitions) LedBy(id int32) (led, movable int) {
	for t := range d.Image.Topics() {
		for n, p := range t.Partitions {
			if p.Leader != id {
				continue
			}
			led++
			r := d.revise(t, int32(n))
			if slices.ContainsFunc(without(r.complete(), id), r.acceptable) {
				movable++
			}
		}
	}
	return led, movable
}

// Comeback is how a broker registers again.
type Comeback struct {
	// Clean: its process ended in peace under the registration before, so that its disks have all that it had.
	Clean bool
	// Complete: every log directory that it is configured with is online. What is in none of them is gone.
	Complete bool
}

// Restart decides what follows when a broker registers, as next: whatever ran under its id before is over. It
// leaves the in-sync replicas, so that those who live need not wait for it; if none of them has been heard of, and it has what it
// had, it leaves them as one that is fenced does: see Partitions. Of what it had:
//
//   - In a durable topic, once its leader has said that it is so (Partition.Unflushed), an in-sync replica has every committed
//     record on its disk, so it stays in sync, or eligible to lead; elsewhere only after a clean end, for a crash may have taken records that it had said to have (KIP-966).
//     There everything waits for a replica whose process may not have ended: nobody else is known to have all.
//   - What was in a log directory that is gone is lost. If another replica has it, this one begins anew in
//     a directory that is there; if not, the partition waits for the directory, or for the operator.
//
// If next is not fenced it leads at once what it may.
func (d Partitions) Restart(next *metadata.Broker, how Comeback) []metadata.Record {
	old, known := d.Image.Broker(next.ID)
	anew := known && !shareDirectory(old, next) // nothing of what it had is there
	d = d.with(next)
	placed := 0
	return d.every([]int32{next.ID}, func(r *revision) bool {
		r.again = r.old.Leader == next.ID
		at := slices.Index(r.next.Replicas, next.ID)
		if !how.Clean && (!r.durable || r.old.Unflushed) || anew && r.next.Directories[at] == metadata.UnassignedDirectory {
			r.lost = []int32{next.ID}
		}
		isOnline := online(next, &r.next)
		if how.Complete && !isOnline && r.replaceDirectory(next, placed) {
			placed++
		}
		if !next.Fenced || !isOnline || slices.Contains(r.lost, next.ID) {
			r.leave(next.ID)
		}
		r.elect()
		return true
	})
}

// replaceDirectory moves the broker's replica, whose directory is gone, to one that it has.
func (r *revision) replaceDirectory(b *metadata.Broker, placed int) bool {
	others := without(r.complete(), b.ID)
	if len(others) == 0 && !slices.ContainsFunc(r.old.LastKnownELR, func(id int32) bool { return id != b.ID }) {
		return false
	}
	open := slices.DeleteFunc(slices.Clone(b.Directories), func(id metadata.UUID) bool { return slices.Contains(b.Cordoned, id) })
	if len(open) == 0 {
		return false
	}
	slices.SortFunc(open, metadata.UUID.Compare)
	r.next.Directories = slices.Clone(r.next.Directories)
	r.next.Directories[slices.Index(r.next.Replicas, b.ID)] = open[placed%len(open)]
	r.lost = append(r.lost, b.ID)
	return true
}

// LoseDirectories decides what follows when log directories of a broker have failed while it runs: the replicas
// in them leave the in-sync replicas and lead nothing. next is the registration with what is left.
func (d Partitions) LoseDirectories(next *metadata.Broker) []metadata.Record {
	d = d.with(next)
	return d.every([]int32{next.ID}, func(r *revision) bool {
		if online(next, r.old) {
			return false
		}
		r.leave(next.ID)
		r.elect()
		return true
	})
}

// AssignDirectories decides what follows when a broker says where it keeps replicas. What lies in none of its log directories
// that are online leaves the in-sync replicas and leads nothing; what comes to lie in one may lead what nobody leads. It counts
// the places of replicas that the broker does not have, which change nothing.
func (d Partitions) AssignDirectories(id int32, places []metadata.ReplicaDirectory) (records []metadata.Record, strangers int) {
	b, registered := d.broker(id)
	seen := map[partitionKey]bool{}
	for _, place := range places {
		topic, ok := d.Image.TopicByID(place.Topic)
		if !ok || !registered || place.Partition < 0 || int(place.Partition) >= len(topic.Partitions) {
			strangers++
			continue
		}
		r := d.revise(topic, place.Partition)
		at := slices.Index(r.old.Replicas, id)
		if at < 0 {
			strangers++
			continue
		}
		key := partitionKey{place.Topic, place.Partition}
		if seen[key] || r.old.Directories[at] == place.Directory {
			continue
		}
		seen[key] = true
		r.next.Directories = slices.Clone(r.old.Directories)
		r.next.Directories[at] = place.Directory
		if !online(b, &r.next) {
			r.leave(id)
		}
		r.elect()
		if change := r.record(); change != nil {
			records = append(records, change)
		}
	}
	return records, strangers
}

// Unregister decides what follows when a broker is removed for good.
func (d Partitions) Unregister(id int32) []metadata.Record {
	d.instead = map[int32]*metadata.Broker{id: nil}
	return d.every([]int32{id}, func(r *revision) bool {
		r.leave(id)
		r.lost = []int32{id}
		r.elect()
		return true
	})
}
