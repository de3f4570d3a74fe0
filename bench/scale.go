package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	topicPartitions = 1000             // of each topic: a request of Apache Kafka's may make no more than 10,000 records of metadata
	settleFor       = 15 * time.Second // before memory and idleness are looked at
	idleFor         = 10 * time.Second
	lookEvery       = 50 * time.Millisecond // at the state of all partitions
	allWithin       = 10 * time.Minute
)

// scaleRow is a cluster with many partitions: made, written to once each, left alone, a node killed, revived, and stopped.
// Apache Kafka is measured with 3,000: there a round of it takes five minutes already, and that is what ours with 10,000 may
// be held against.
func scaleRow(partitions int, variants ...string) row {
	r := row{
		name: fmt.Sprintf("cluster-%d", partitions), title: fmt.Sprintf("three nodes, %d partitions of three copies", partitions),
		variants: variants, alone: true,
		metrics: []metric{
			{"created", "created, led and in sync", "s"},
			{"written", "created, a record in each acknowledged by all", "s"},
			{"memory", "memory of the largest node, idle", "MiB"},
			{"idle", "three nodes idle: CPU", "s/s"},
			{"led", "a node killed: all led again", "s"},
			{"back", "it is started: in every ISR again", "s"},
			{"controller", "the quorum's leader killed: all led again", "s"},
			{"elections", "elections before that: nodes taken for dead", ""},
			{"stopped", "a node stopped cleanly", "s"},
		},
		bars: []bar{
			{durable, "memory", "", false, 365, "192 MiB"}, // half of what Apache Kafka took with 3,000
			{durable, "led", "", false, 5, "1 s"},
			{durable, "controller", "", false, 5, "1 s"},
		},
		run: func(ctx context.Context, l *lab, v variant, _ string) (sample, error) {
			return scale(ctx, l, v.name, partitions)
		},
	}
	if slices.Contains(variants, kafka) {
		r.bars = append(r.bars,
			bar{durable, "created", kafka, false, 1, "0.5x"}, bar{durable, "written", kafka, false, 1, "0.5x"},
			bar{durable, "memory", kafka, false, 0.5, ""})
	}
	return r
}

// ownTeam makes a cluster on a fresh directory that is removed afterwards.
func (l *lab) ownTeam(name string) (team *broker, remove func(), err error) {
	dir := l.fresh(name + "-team")
	team, err = newTeam(l.o, name, dir)
	return team, func() {
		if team != nil {
			_ = team.end(syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	}, err
}

func scale(ctx context.Context, l *lab, name string, partitions int) (sample, error) {
	if name != kafka {
		name = "ours"
	}
	team, remove, err := l.ownTeam(name)
	defer remove()
	if err != nil {
		return nil, err
	}
	if err := team.start(ctx); err != nil {
		return nil, err
	}
	var topics []string
	for i := range partitions / topicPartitions {
		topics = append(topics, fmt.Sprintf("many-%d", i))
	}
	s, w := sample{}, &overseer{team: team, topics: topics, partitions: topicPartitions}
	steps := []func(context.Context, *overseer, sample) error{createMany, writeMany, leaveAlone, killOne, killController, stopOne}
	for _, step := range steps {
		if err := step(ctx, w, s); err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "  %s %v\n", name, s)
	}
	return s, nil
}

func createMany(ctx context.Context, w *overseer, s sample) error {
	cl, err := w.team.client(kgo.RequestTimeoutOverhead(time.Minute))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm, two := kadm.NewClient(cl), "2"
	adm.SetTimeoutMillis(60_000)
	start := time.Now()
	for _, topic := range w.topics {
		for {
			made, err := adm.CreateTopics(ctx, topicPartitions, teamSize, map[string]*string{"min.insync.replicas": &two}, topic)
			if err != nil {
				return fmt.Errorf("create %s: %w", topic, err)
			}
			err = made[topic].Err
			if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
				break
			}
			if !errors.Is(err, kerr.InvalidReplicationFactor) { // a node is not known yet
				return fmt.Errorf("create %s: %w: %s", topic, err, made[topic].ErrMessage)
			}
			start = time.Now()
		}
	}
	s["made"] = time.Since(start).Seconds()
	s["created"], err = w.since(ctx, start, teamSize, 1, 2, 3)
	w.start = start
	return err
}

// writeMany has a record acknowledged in each partition.
func writeMany(ctx context.Context, w *overseer, s sample) error {
	cl, err := w.team.client(append(producerOpts("", "none"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var failed failures
	for p := range int32(topicPartitions) {
		for _, topic := range w.topics {
			cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: p, Value: make([]byte, 124)}, func(_ *kgo.Record, err error) { failed.note(err) })
		}
	}
	if err := errors.Join(cl.Flush(ctx), failed.err()); err != nil {
		return err
	}
	s["written"] = time.Since(w.start).Seconds()
	return nil
}

func leaveAlone(ctx context.Context, w *overseer, s sample) error {
	if err := pause(ctx, settleFor); err != nil {
		return err
	}
	for _, m := range w.team.members {
		s["memory"] = max(s["memory"], m.residentMiB())
	}
	if _, err := w.since(ctx, time.Now(), teamSize, 1, 2, 3); err != nil {
		return err
	}
	s["elections"] = float64(w.elections) // a node was taken for dead while all was made and written
	before := w.team.cpuSeconds()
	if err := pause(ctx, idleFor); err != nil {
		return err
	}
	s["idle"] = (w.team.cpuSeconds() - before) / idleFor.Seconds()
	return nil
}

func killOne(ctx context.Context, w *overseer, s sample) error {
	leader, err := w.quorumLeader(ctx)
	if err != nil {
		return err
	}
	victim := leader%teamSize + 1
	if s["led"], err = w.kill(ctx, victim); err != nil {
		return err
	}
	s["back"], err = w.revive(ctx, victim)
	return err
}

func killController(ctx context.Context, w *overseer, s sample) error {
	leader, err := w.quorumLeader(ctx)
	if err != nil {
		return err
	}
	if s["controller"], err = w.kill(ctx, leader); err != nil {
		return err
	}
	_, err = w.revive(ctx, leader)
	return err
}

func stopOne(_ context.Context, w *overseer, s sample) error {
	start := time.Now()
	err := w.team.members[0].end(syscall.SIGTERM)
	s["stopped"] = time.Since(start).Seconds()
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// overseer looks at the state of every partition of a cluster.
type overseer struct {
	team       *broker
	topics     []string
	partitions int       // of each
	start      time.Time // of the creation
	elections  int32     // that all partitions have seen after their first, as of the last look
}

func (w *overseer) kill(ctx context.Context, id int) (seconds float64, err error) {
	start := time.Now()
	if err := w.team.members[id-1].end(syscall.SIGKILL); err != nil {
		return 0, err
	}
	var others []int
	for other := range teamSize {
		if other+1 != id {
			others = append(others, other+1)
		}
	}
	return w.since(ctx, start, 1, others...)
}

func (w *overseer) revive(ctx context.Context, id int) (seconds float64, err error) {
	start := time.Now()
	if err := w.team.members[id-1].start(ctx); err != nil {
		return 0, err
	}
	return w.since(ctx, start, teamSize, 1, 2, 3)
}

// since waits until every partition is led by one of these nodes, so many replicas are in sync as each of the nodes
// sees it, and the leader answers for it.
func (w *overseer) since(ctx context.Context, start time.Time, inSync int, nodes ...int) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, allWithin)
	defer cancel()
	for {
		why := w.look(ctx, inSync, nodes)
		if why == nil {
			return time.Since(start).Seconds(), nil
		}
		if err := pause(ctx, lookEvery); err != nil {
			return 0, errors.Join(err, why)
		}
	}
}

func (w *overseer) look(ctx context.Context, inSync int, nodes []int) error {
	leads := map[int32]map[string][]int32{}
	elections := int32(0)
	for _, node := range nodes {
		asked := kmsg.NewPtrMetadataRequest()
		asked.Version = 9
		for _, topic := range w.topics {
			asked.Topics = append(asked.Topics, kmsg.MetadataRequestTopic{Topic: &topic})
		}
		answer, err := askOnce[*kmsg.MetadataResponse](ctx, w.team.members[node-1].addr, asked)
		if err != nil {
			return err
		}
		for _, t := range answer.Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil || len(t.Partitions) != w.partitions {
				return fmt.Errorf("node %d: %s has %d partitions: %w", node, *t.Topic, len(t.Partitions), err)
			}
			for _, p := range t.Partitions {
				if !slices.Contains(nodes, int(p.Leader)) || len(p.ISR) < inSync {
					return fmt.Errorf("node %d: %s-%d is led by %d, in sync are %v", node, *t.Topic, p.Partition, p.Leader, p.ISR)
				}
				if node == nodes[0] {
					elections += p.LeaderEpoch
					if leads[p.Leader] == nil {
						leads[p.Leader] = map[string][]int32{}
					}
					leads[p.Leader][*t.Topic] = append(leads[p.Leader][*t.Topic], p.Partition)
				}
			}
		}
	}
	for leader, partitions := range leads {
		if err := w.answers(ctx, leader, partitions); err != nil {
			return err
		}
	}
	w.elections = elections
	return nil
}

// answers asks a leader for the ends of what it leads.
func (w *overseer) answers(ctx context.Context, leader int32, partitions map[string][]int32) error {
	asked := kmsg.NewPtrListOffsetsRequest()
	asked.Version, asked.ReplicaID = 6, -1
	for name, numbers := range partitions {
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = name
		for _, number := range numbers {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp, p.CurrentLeaderEpoch = number, -1, -1
			topic.Partitions = append(topic.Partitions, p)
		}
		asked.Topics = append(asked.Topics, topic)
	}
	answer, err := askOnce[*kmsg.ListOffsetsResponse](ctx, w.team.members[leader-1].addr, asked)
	if err != nil {
		return err
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("%s-%d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}

// quorumLeader is the node that leads the metadata's quorum.
func (w *overseer) quorumLeader(ctx context.Context) (int, error) {
	cl, err := w.team.client()
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	asked := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	asked.Topics = append(asked.Topics, topic)
	answer, err := asked.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("describe the quorum: %w", kerr.ErrorForCode(answer.ErrorCode))
	}
	return int(answer.Topics[0].Partitions[0].LeaderID), nil
}

// askOnce asks one node on a connection of its own: no client's patience or memory comes in between.
func askOnce[R kmsg.Response](ctx context.Context, addr string, req kmsg.Request) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := dialWire(ctx, addr)
	if err != nil {
		var none R
		return none, err
	}
	defer c.close()
	return ask[R](ctx, c, req)
}
