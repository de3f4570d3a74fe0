package metadata

import (
	"fmt"
	"slices"
)

func (b *Builder) replayTopic(r *TopicRecord) error {
	id, err := uuidFrom(r.Id)
	if err != nil {
		return fmt.Errorf("topic %q: %w", r.Name, err)
	}
	if r.Name == "" || id.IsZero() {
		return fmt.Errorf("%w: topic %q with id %s", ErrMalformed, r.Name, id)
	}
	if old, ok := b.next.Topic(r.Name); ok {
		return fmt.Errorf("%w: topic %q exists already, with id %s", ErrMalformed, r.Name, old.ID)
	}
	if old, ok := b.next.TopicByID(id); ok {
		return fmt.Errorf("%w: topic id %s belongs to %q already", ErrMalformed, id, old.Name)
	}
	b.setTopic(&Topic{Name: r.Name, ID: id})
	return nil
}

// setTopic puts a topic of the builder's own into the image.
func (b *Builder) setTopic(t *Topic) {
	b.next.topicsByName.ReplaceOrInsert(t)
	b.next.topicsByID.ReplaceOrInsert(t)
	if b.ownTopics == nil {
		b.ownTopics = make(map[UUID]bool)
	}
	b.ownTopics[t.ID] = true
	b.changed.topics[t.ID] = true
}

// ownTopic finds a topic, as a copy that may be changed: it is copied once per builder, so an
// entry that adds many partitions does not copy them again for each.
func (b *Builder) ownTopic(idBytes []byte) (*Topic, error) {
	id, err := uuidFrom(idBytes)
	if err != nil {
		return nil, fmt.Errorf("topic id: %w", err)
	}
	t, ok := b.next.TopicByID(id)
	if !ok {
		return nil, fmt.Errorf("%w: no topic has id %s", ErrMalformed, id)
	}
	if !b.ownTopics[id] {
		t = &Topic{Name: t.Name, ID: t.ID, Partitions: slices.Clone(t.Partitions)}
		b.setTopic(t)
	}
	return t, nil
}

func (b *Builder) replayPartition(r *PartitionRecord) error {
	t, err := b.ownTopic(r.TopicId)
	if err != nil {
		return err
	}
	directories, err := uuidsFrom(r.Directories)
	if err != nil {
		return fmt.Errorf("partition %s-%d: %w", t.Name, r.Partition, err)
	}
	p := &Partition{
		Replicas:       r.Replicas,
		Directories:    directories,
		ISR:            r.Isr,
		ELR:            r.Elr,
		LastKnownELR:   r.LastKnownElr,
		Adding:         r.Adding,
		Removing:       r.Removing,
		Leader:         r.Leader,
		LeaderEpoch:    r.LeaderEpoch,
		PartitionEpoch: r.PartitionEpoch,
		Unflushed:      r.Unflushed,
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("partition %s-%d: %w", t.Name, r.Partition, err)
	}
	switch n := int(r.Partition); {
	case n == len(t.Partitions):
		t.Partitions = append(t.Partitions, p)
		b.next.partitions++
	case n >= 0 && n < len(t.Partitions):
		t.Partitions[n] = p
	default:
		return fmt.Errorf("%w: partition %s-%d follows %d partitions", ErrMalformed, t.Name, r.Partition, len(t.Partitions))
	}
	return nil
}

// check tells what cannot be true of any partition.
func (p *Partition) check() error {
	switch {
	case len(p.Replicas) == 0:
		return fmt.Errorf("%w: it has no replicas", ErrMalformed)
	case len(p.Directories) != len(p.Replicas):
		return fmt.Errorf("%w: %d directories for %d replicas", ErrMalformed, len(p.Directories), len(p.Replicas))
	case p.Leader != NoLeader && !slices.Contains(p.Replicas, p.Leader):
		return fmt.Errorf("%w: leader %d is none of the replicas %v", ErrMalformed, p.Leader, p.Replicas)
	}
	return nil
}

func (b *Builder) replayPartitionChange(r *PartitionChangeRecord) error {
	t, err := b.ownTopic(r.TopicId)
	if err != nil {
		return err
	}
	if r.Partition < 0 || int(r.Partition) >= len(t.Partitions) {
		return fmt.Errorf("%w: topic %s has no partition %d", ErrMalformed, t.Name, r.Partition)
	}
	p := *t.Partitions[r.Partition]
	for _, change := range []struct {
		to    *Nodes
		field *[]int32
	}{
		{r.Replicas, &p.Replicas},
		{r.Isr, &p.ISR},
		{r.Elr, &p.ELR},
		{r.LastKnownElr, &p.LastKnownELR},
		{r.Adding, &p.Adding},
		{r.Removing, &p.Removing},
	} {
		if change.to != nil {
			*change.field = change.to.Ids
		}
	}
	if r.Directories != nil {
		if p.Directories, err = uuidsFrom(r.Directories.Ids); err != nil {
			return fmt.Errorf("partition %s-%d: %w", t.Name, r.Partition, err)
		}
	}
	if r.Leader != nil {
		p.Leader = *r.Leader
		p.LeaderEpoch++
	}
	if r.Unflushed != nil {
		p.Unflushed = *r.Unflushed
	}
	p.PartitionEpoch++
	if err := p.check(); err != nil {
		return fmt.Errorf("partition %s-%d: %w", t.Name, r.Partition, err)
	}
	t.Partitions[r.Partition] = &p
	return nil
}

func (b *Builder) replayTopicRemoval(r *TopicRemovalRecord) error {
	id, err := uuidFrom(r.TopicId)
	if err != nil {
		return fmt.Errorf("topic id: %w", err)
	}
	t, ok := b.next.topicsByID.Delete(&Topic{ID: id})
	if !ok {
		return fmt.Errorf("%w: no topic has id %s", ErrMalformed, id)
	}
	b.next.topicsByName.Delete(t)
	b.next.partitions -= len(t.Partitions)
	b.removeConfigs(Resource{TopicResource, t.Name})
	delete(b.ownTopics, id)
	b.changed.topics[id] = true
	return nil
}
