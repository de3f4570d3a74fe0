package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"barnabas/test/compat/clients/program"
)

func assignor(name string) sarama.BalanceStrategy {
	switch name {
	case "roundrobin":
		return sarama.NewBalanceStrategyRoundRobin()
	case "sticky":
		return sarama.NewBalanceStrategySticky()
	case "cooperative-sticky":
		return sarama.NewBalanceStrategyCooperativeSticky()
	}
	return sarama.NewBalanceStrategyRange()
}

// member handles the sessions of a group's member. The library calls it from one goroutine per partition.
type member struct {
	program.Membership
	ledger *program.Ledger
	held   map[int32]bool // guarded by the ledger
	admin  sarama.ClusterAdmin
}

func (client) Group(ctx context.Context, m program.Membership) error {
	c := config()
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Return.Errors = true
	c.Consumer.Group.Session.Timeout, c.Consumer.Group.Heartbeat.Interval = m.Session, m.Beat
	c.Consumer.Group.InstanceId = m.Instance
	if m.Assignor != "" {
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{assignor(m.Assignor)}
	}
	admin, err := sarama.NewClusterAdmin(m.Brokers, c)
	if err != nil {
		return err
	}
	defer admin.Close()
	group, err := sarama.NewConsumerGroup(m.Brokers, m.Group, c)
	if err != nil {
		return err
	}
	complained := make(chan struct{})
	go func() {
		defer close(complained)
		for err := range group.Errors() {
			program.Complain("group: %v", err)
		}
	}()
	handler := &member{Membership: m, ledger: program.NewLedger(m.CommitEvery), held: map[int32]bool{}, admin: admin}
	for ctx.Err() == nil {
		// It returns when the partitions are to be divided anew, and when the broker is gone.
		if err := group.Consume(ctx, []string{m.Topic}, handler); err != nil && ctx.Err() == nil {
			program.Complain("consume: %v", err)
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	err = group.Close()
	<-complained
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

func (m *member) Setup(s sarama.ConsumerGroupSession) error {
	m.ledger.Lock()
	defer m.ledger.Unlock()
	given := s.Claims()[m.Topic]
	for _, p := range given {
		m.held[p] = true
	}
	m.ledger.Assigned(given)
	return nil
}

func (m *member) Cleanup(s sarama.ConsumerGroupSession) error {
	m.ledger.Lock()
	defer m.ledger.Unlock()
	m.commit(s)
	var gone []int32
	for p := range m.held {
		gone = append(gone, p)
	}
	clear(m.held)
	m.ledger.Revoked(gone)
	return nil
}

func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	m.ledger.Lock()
	if !m.held[claim.Partition()] { // given to a session that is under way
		m.held[claim.Partition()] = true
		m.ledger.Assigned([]int32{claim.Partition()})
	}
	m.ledger.Unlock()
	for {
		select {
		case r, open := <-claim.Messages():
			if !open {
				m.released(s, claim.Partition())
				return nil
			}
			m.ledger.Lock()
			due := m.ledger.Record(r.Partition, r.Offset, r.Value)
			s.MarkMessage(r, "")
			if due {
				m.commit(s)
			}
			m.ledger.Unlock()
		case <-s.Context().Done():
			return nil
		}
	}
}

// released gives one partition up while the session goes on, as cooperative assignors ask for.
func (m *member) released(s sarama.ConsumerGroupSession, partition int32) {
	m.ledger.Lock()
	defer m.ledger.Unlock()
	if s.Context().Err() != nil {
		return // Cleanup follows
	}
	m.commit(s)
	delete(m.held, partition)
	m.ledger.Revoked([]int32{partition})
}

// commit prints what the broker holds after it, where it is what was to be committed: the library's
// own call returns nothing.
func (m *member) commit(s sarama.ConsumerGroupSession) {
	offsets := m.ledger.Uncommitted()
	if len(offsets) == 0 {
		return
	}
	s.Commit()
	var partitions []int32
	for p := range offsets {
		partitions = append(partitions, p)
	}
	slices.Sort(partitions)
	reply, err := m.admin.ListConsumerGroupOffsets(m.Group, map[string][]int32{m.Topic: partitions})
	if err == nil && !errors.Is(reply.Err, sarama.ErrNoError) {
		err = reply.Err
	}
	if err != nil {
		program.Complain("ask for what is committed: %v", err)
		m.ledger.Refused()
		return
	}
	for p, o := range offsets {
		if block := reply.GetBlock(m.Topic, p); block == nil || block.Offset != o {
			program.Complain("commit: partition %d is not at %d", p, o)
			delete(offsets, p)
		}
	}
	m.ledger.Committed(offsets)
}
