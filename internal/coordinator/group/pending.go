package group

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Offsets that a transaction has sent and whose end is not known yet. They do not count, but a reader
// who asks for stable offsets is told to come again (KIP-447, trap 25).

type partitionOf struct {
	topic     string
	partition int32
}

// unstable is what open transactions would commit for one partition, oldest first.
type unstable struct{ offers []offer }

type offer struct {
	producer   int64
	value      committed
	superseded bool // a later commit stands: this one's transaction still has to end, but changes nothing
}

func (s *Shard) isUnstable(group, topic string, partition int32) bool {
	return s.pending[group][partitionOf{topic, partition}] != nil
}

// replayTransactional applies an offset record that belongs to a transaction of producer.
func (s *Shard) replayTransactional(producer int64, r Record) error {
	k, err := readOffsetKey(r.Key)
	if err != nil {
		return err
	}
	if r.Value == nil {
		return malformed("read an offset of a transaction", errShort)
	}
	v, err := readOffsetValue(r.Value)
	if err != nil {
		return err
	}
	if s.pending == nil {
		s.pending = make(map[string]map[partitionOf]*unstable)
	}
	of := s.pending[k.Group]
	if of == nil {
		of = make(map[partitionOf]*unstable)
		s.pending[strings.Clone(k.Group)] = of
	}
	u := of[partitionOf{k.Topic, k.Partition}]
	if u == nil {
		u = new(unstable)
		of[partitionOf{strings.Clone(k.Topic), k.Partition}] = u
	}
	u.drop(producer) // its own earlier one
	u.offers = append(u.offers, offer{producer: producer, value: committedOf(k.Partition, &v)})
	return nil
}

// endTransaction applies or forgets what producer has sent. Of two commits for a partition the later
// record counts, whichever transaction ends first.
func (s *Shard) endTransaction(producer int64, commit bool) {
	for id, of := range s.pending {
		for at, u := range of {
			i := u.of(producer)
			if i < 0 {
				continue
			}
			if o := u.offers[i]; commit && !o.superseded {
				for j := range u.offers[:i] {
					u.offers[j].superseded = true
				}
				s.groupFor(id).setOffset(at.topic, o.value)
			}
			u.drop(producer)
			if len(u.offers) == 0 {
				delete(of, at)
			}
		}
		if len(of) == 0 {
			delete(s.pending, id)
		}
	}
}

// supersede notes that a plain commit or a tombstone came after what is pending.
func (s *Shard) supersede(group, topic string, partition int32) {
	if len(s.pending) == 0 {
		return
	}
	if u := s.pending[group][partitionOf{topic, partition}]; u != nil {
		for i := range u.offers {
			u.offers[i].superseded = true
		}
	}
}

func (u *unstable) of(producer int64) int {
	for i := range u.offers {
		if u.offers[i].producer == producer {
			return i
		}
	}
	return -1
}

func (u *unstable) drop(producer int64) {
	if i := u.of(producer); i >= 0 {
		u.offers = append(u.offers[:i], u.offers[i+1:]...)
	}
}

// String is for failures of tests.
func (u *unstable) String() string { return fmt.Sprint(u.offers) }

// pendingOnly are the partitions for which the group has pending offsets and no committed one, in order.
func (s *Shard) pendingOnly(g *group) (only []partitionOf) {
	for at := range s.pending[g.id] {
		if g.committed(at.topic, at.partition) == nil {
			only = append(only, at)
		}
	}
	slices.SortFunc(only, func(a, b partitionOf) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	return only
}
