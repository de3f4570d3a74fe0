package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	missedBytes      = 2 << 30
	missedRecord     = 1024
	missedPartitions = 6
)

// catchUpRow stops a node cleanly, writes two gigabytes at the others, and takes the time from starting it again until it
// is in every ISR.
func catchUpRow() row {
	return row{
		name: "cluster-catch-up", title: "three nodes: a follower two gigabytes behind, from its start until it is in every ISR", alone: true,
		variants: []string{kafka, pageCache, durable},
		metrics:  []metric{{"seconds", "time", "s"}, {"cpu", "broker CPU, all three", "s"}},
		bars: []bar{
			{durable, "seconds", kafka, false, 1, "0.5x"}, {pageCache, "seconds", kafka, false, 1, "0.5x"},
		},
		run: catchUp,
	}
}

func catchUp(ctx context.Context, l *lab, v variant, topic string) (sample, error) {
	team, remove, err := l.ownTeam(v.name)
	defer remove()
	if err != nil {
		return nil, err
	}
	if err := team.start(ctx); err != nil {
		return nil, err
	}
	if err := team.makeTopic(ctx, topic, missedPartitions, v.configs); err != nil {
		return nil, err
	}
	w := &overseer{team: team, topics: []string{topic}, partitions: missedPartitions}
	if _, err := w.since(ctx, time.Now(), teamSize, 1, 2, 3); err != nil {
		return nil, err
	}
	leader, err := w.quorumLeader(ctx)
	if err != nil {
		return nil, err
	}
	late := leader%teamSize + 1
	if err := team.members[late-1].end(syscall.SIGTERM); err != nil {
		return nil, err
	}
	if err := team.writeMissed(ctx, topic, l.scaled(missedBytes/missedRecord)); err != nil {
		return nil, err
	}
	syscall.Sync()
	cpu := team.cpuSeconds()
	start := time.Now()
	if err := team.members[late-1].launch(); err != nil {
		return nil, err
	}
	seconds, err := w.since(ctx, start, teamSize, 1, 2, 3)
	if err != nil {
		return nil, err
	}
	return sample{"seconds": seconds, "cpu": team.cpuSeconds() - cpu}, team.end(syscall.SIGTERM)
}

func (b *broker) writeMissed(ctx context.Context, topic string, records int) error {
	cl, err := b.client(append(producerOpts(topic, "none"), kgo.RecordPartitioner(kgo.UniformBytesPartitioner(1<<20, true, false, nil)))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	pool := payloads(missedRecord)
	var failed failures
	for i := range records {
		cl.Produce(ctx, &kgo.Record{Value: pool[i%len(pool)]}, func(_ *kgo.Record, err error) { failed.note(err) })
	}
	if err := errors.Join(cl.Flush(ctx), failed.err()); err != nil {
		return fmt.Errorf("write what a follower misses: %w", err)
	}
	return nil
}
