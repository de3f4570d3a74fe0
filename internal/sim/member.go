package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"barnabas/internal/clustertest"
)

// member is in a group whose members share the partitions of one topic. It commits ever higher offsets for those that are
// its own, from where the group has got to.
type member struct {
	*guest
	group, topic string
	partitions   int32
	as           *clustertest.Member
	coordinator  int32
	next         map[int32]int64 // next offset to commit
}

const (
	memberSession = 6 * time.Second
	memberBeats   = 500 * time.Millisecond
	groupPatience = 8 * time.Second
)

func (r *Run) member(group, topic string, partitions int32, n int) *member {
	return &member{guest: r.guest(fmt.Sprintf("member-%s-%d", group, n)), group: group, topic: topic, partitions: partitions}
}

func (m *member) take(ctx context.Context) {
	defer m.close()
	for ctx.Err() == nil {
		if err := m.join(ctx); err != nil {
			m.rest(ctx, 100*time.Millisecond)
			continue
		}
		m.r.Trace(m.host, "joined generation %d", m.as.Generation)
		for ctx.Err() == nil {
			if err := m.work(ctx); err != nil {
				m.broken(m.coordinator, err)
				m.rest(ctx, 50*time.Millisecond)
				break
			}
			m.rest(ctx, memberBeats)
		}
	}
}

// join finds the coordinator and becomes a member of the group's next generation.
func (m *member) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, groupPatience)
	defer cancel()
	from := m.anyone()
	c, err := m.at(ctx, from)
	if err != nil {
		return err
	}
	asking, done := context.WithTimeout(ctx, callPatience)
	defer done()
	if m.coordinator, err = c.Coordinator(asking, m.group); err != nil {
		m.broken(from, err)
		return err
	}
	if c, err = m.at(ctx, m.coordinator); err != nil {
		return err
	}
	var work []string
	for p := range m.partitions {
		work = append(work, fmt.Sprint(p))
	}
	id := ""
	if m.as != nil {
		id = m.as.ID
	}
	m.as = c.NewMember(m.group, work...)
	m.as.ID, m.as.Session = id, memberSession
	if err := m.as.Join(ctx); err != nil {
		m.as.ID = "" // perhaps it is the id that is refused
		m.broken(m.coordinator, err)
		return err
	}
	if err := m.as.Sync(ctx); err != nil {
		m.broken(m.coordinator, err)
		return err
	}
	return m.resume(ctx)
}

// resume learns where the group has got to.
func (m *member) resume(ctx context.Context) error {
	asked := m.r.history.Now()
	found, err := m.as.Committed(ctx, m.group, m.topic)
	if err != nil {
		m.broken(m.coordinator, err)
		return err
	}
	m.next = map[int32]int64{}
	for _, w := range m.as.Assigned {
		var p int32
		if _, err := fmt.Sscan(w, &p); err != nil {
			return fmt.Errorf("part %q of the work: %w", w, err)
		}
		at, committed := found[p]
		if !committed {
			at = -1
		}
		m.r.history.Committed(asked, Committed{Place: Place{Topic: m.topic, Partition: p}, Group: m.group, Client: m.host, Node: m.coordinator, Offset: at})
		m.next[p] = at + 1
	}
	return nil
}

// work is one round of a member that has its part: a heartbeat, or a commit.
func (m *member) work(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	if len(m.next) == 0 || m.dice.IntN(3) == 0 {
		return m.as.Heartbeat(ctx)
	}
	var noted []*Commit
	for _, p := range slices.Sorted(maps.Keys(m.next)) {
		noted = append(noted, m.r.history.Commit(Commit{
			Place: Place{Topic: m.topic, Partition: p}, Group: m.group, Client: m.host, Node: m.coordinator, Offset: m.next[p],
		}))
	}
	err := m.as.CommitAs(ctx, m.topic, m.next)
	for _, c := range noted {
		if c.End(err) == Done {
			m.next[c.Partition] = c.Offset + 1 + m.dice.Int64N(5)
		}
	}
	if err == nil {
		m.r.Trace(m.host, "committed")
		m.r.met(groupCommit)
	}
	return err
}
