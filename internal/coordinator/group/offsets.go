package group

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	noEpoch = int32(-1)
	never   = int64(-1) // no time of expiry of its own, no time known
	none    = int64(-1) // the offset in the answer where nothing is committed
)

// committed is what a group has committed for one partition.
type committed struct {
	offset    int64
	at        int64 // Unix milliseconds
	expires   int64 // Unix milliseconds; never, unless an old client asked for a retention of its own
	metadata  string
	topicID   [16]byte // zero: not known
	partition int32
	epoch     int32 // of the leader that the client read from; noEpoch: not known
}

// ofOtherTopic reports whether c was committed for a topic of the same name that is gone: its offsets
// mean nothing in the topic with id (trap 26).
func (c *committed) ofOtherTopic(id [16]byte) bool {
	var unknown [16]byte
	return c.topicID != unknown && id != unknown && c.topicID != id
}

// topicOffsets are one group's offsets in one topic, in order of the partitions. A group usually
// commits all partitions of a topic, from 0 on, so that the place of most is their number.
type topicOffsets struct {
	name  string
	parts []committed
}

func (t *topicOffsets) find(partition int32) (int, bool) {
	if i := int(partition); i < len(t.parts) && t.parts[i].partition == partition {
		return i, true
	}
	return slices.BinarySearchFunc(t.parts, partition, func(c committed, p int32) int { return int(c.partition) - int(p) })
}

func (g *group) committed(topic string, partition int32) *committed {
	t := g.topics[topic]
	if t == nil {
		return nil
	}
	if i, ok := t.find(partition); ok {
		return &t.parts[i]
	}
	return nil
}

// setOffset puts c in place and returns what was there. topic may be a view on bytes that change later.
func (g *group) setOffset(topic string, c committed) (t *topicOffsets, before committed, had bool) {
	if t = g.topics[topic]; t == nil {
		t = &topicOffsets{name: strings.Clone(topic)}
		if g.topics == nil {
			g.topics = make(map[string]*topicOffsets)
		}
		g.topics[t.name] = t
	}
	i, had := t.find(c.partition)
	if had {
		before, t.parts[i] = t.parts[i], c
		return t, before, true
	}
	t.parts = slices.Insert(t.parts, i, c)
	return t, committed{}, false
}

func (g *group) dropOffset(topic string, partition int32) (t *topicOffsets, before committed, had bool) {
	if t = g.topics[topic]; t == nil {
		return nil, committed{}, false
	}
	i, had := t.find(partition)
	if !had {
		return t, committed{}, false
	}
	before = t.parts[i]
	t.parts = slices.Delete(t.parts, i, i+1)
	if len(t.parts) == 0 {
		delete(g.topics, t.name)
	}
	return t, before, true
}

// offsetCount is how many offsets the group has, and how many bytes the names in their keys take.
func (g *group) offsetCount() (n, nameBytes int) {
	for _, t := range g.topics {
		n += len(t.parts)
		nameBytes += len(t.parts) * (len(g.id) + len(t.name))
	}
	return n, nameBytes
}

// sortedTopics fixes an order, so that one history gives one list of records.
func (g *group) sortedTopics() []*topicOffsets {
	all := make([]*topicOffsets, 0, len(g.topics))
	for _, t := range g.topics {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *topicOffsets) int { return strings.Compare(a.name, b.name) })
	return all
}

// replayOffset is how an offset changes.
func (s *Shard) replayOffset(r Record) error {
	k, err := readOffsetKey(r.Key)
	if err != nil {
		return err
	}
	g := s.groups[k.Group]
	if r.Value == nil {
		s.supersede(k.Group, k.Topic, k.Partition)
		if g == nil {
			return nil
		}
		if t, before, had := g.dropOffset(k.Topic, k.Partition); had {
			s.note(change{group: g.id, topic: t.name, partition: k.Partition, had: true, before: before})
			s.dissolveIfBare(g)
		}
		return nil
	}
	v, err := readOffsetValue(r.Value)
	if err != nil {
		return err
	}
	if g == nil {
		// Offsets without a group are those of a consumer that assigns itself its partitions.
		g = s.create(strings.Clone(k.Group))
	}
	s.supersede(k.Group, k.Topic, k.Partition)
	t, before, had := g.setOffset(k.Topic, committedOf(k.Partition, &v))
	s.note(change{group: g.id, topic: t.name, partition: k.Partition, had: had, before: before})
	return nil
}

func committedOf(partition int32, v *kmsg.OffsetCommitValue) committed {
	return committed{
		offset: v.Offset, at: v.CommitTimestamp, expires: v.ExpireTimestamp,
		metadata: strings.Clone(v.Metadata), topicID: v.TopicID, partition: partition, epoch: v.LeaderEpoch,
	}
}
