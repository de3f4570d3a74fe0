package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"barnabas/test/compat/clients/program"
)

func balancers(name string) []kafka.GroupBalancer {
	switch name {
	case "range":
		return []kafka.GroupBalancer{kafka.RangeGroupBalancer{}}
	case "roundrobin":
		return []kafka.GroupBalancer{kafka.RoundRobinGroupBalancer{}}
	}
	return nil // the library's default
}

// Group uses the library's generations: its reader of groups tells nobody which partitions it has.
func (client) Group(ctx context.Context, m program.Membership) error {
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: m.Group, Brokers: m.Brokers, Topics: []string{m.Topic}, GroupBalancers: balancers(m.Assignor), StartOffset: kafka.FirstOffset,
		SessionTimeout: m.Session, HeartbeatInterval: m.Beat, JoinGroupBackoff: 500 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	ledger := program.NewLedger(m.CommitEvery)
	var generations sync.WaitGroup
	for {
		generation, err := group.Next(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			program.Complain("join: %v", err)
			continue
		}
		generations.Add(1)
		read(generation, m, ledger, &generations)
	}
	err = group.Close() // ends the generation, which commits, and leaves
	generations.Wait()
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// read starts a reader for each partition of a generation. When the generation ends the last of
// them commits; the library joins the next one only when all have returned.
func read(g *kafka.Generation, m program.Membership, ledger *program.Ledger, done *sync.WaitGroup) {
	given := g.Assignments[m.Topic]
	var partitions []int32
	for _, a := range given {
		partitions = append(partitions, int32(a.ID))
	}
	ledger.Lock()
	ledger.Assigned(partitions)
	ledger.Unlock()
	var readers sync.WaitGroup
	for _, a := range given {
		readers.Add(1)
		g.Start(func(ctx context.Context) {
			defer readers.Done()
			readPartition(ctx, g, m, a, ledger)
		})
	}
	g.Start(func(ctx context.Context) {
		defer done.Done()
		<-ctx.Done()
		readers.Wait()
		ledger.Lock()
		defer ledger.Unlock()
		commit(g, m.Topic, ledger)
		ledger.Revoked(partitions)
	})
}

func readPartition(ctx context.Context, g *kafka.Generation, m program.Membership, a kafka.PartitionAssignment, ledger *program.Ledger) {
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: m.Brokers, Topic: m.Topic, Partition: a.ID, MaxWait: 500 * time.Millisecond})
	defer reader.Close()
	if err := reader.SetOffset(a.Offset); err != nil {
		program.Complain("partition %d: %v", a.ID, err)
	}
	for {
		r, err := reader.ReadMessage(ctx)
		switch {
		case errors.Is(err, kafka.ErrGenerationEnded):
			return
		case err != nil:
			program.Complain("partition %d: %v", a.ID, err)
			continue
		}
		ledger.Lock()
		if ctx.Err() == nil && ledger.Record(int32(r.Partition), r.Offset, r.Value) {
			commit(g, m.Topic, ledger)
		}
		ledger.Unlock()
	}
}

func commit(g *kafka.Generation, topic string, ledger *program.Ledger) {
	offsets := ledger.Uncommitted()
	if len(offsets) == 0 {
		return
	}
	positions := map[int]int64{}
	for p, o := range offsets {
		positions[int(p)] = o
	}
	if err := g.CommitOffsets(map[string]map[int]int64{topic: positions}); err != nil {
		program.Complain("commit: %v", err)
		ledger.Refused()
		return
	}
	ledger.Committed(offsets)
}
