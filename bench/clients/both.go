package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
)

// This file has the two clients, each used as its documentation does, with the same settings.

func newSender(j job, done func(error)) (sender, error) {
	wait := linger
	if j.Kind == pacing {
		wait = 0
	}
	if j.Client == clients[0] {
		c, err := client.New(client.Brokers(strings.Split(j.Brokers, ",")...))
		if err != nil {
			return nil, err
		}
		p, err := c.NewProducer(client.WithAcks(client.AcksAll), client.Idempotence(true), client.BatchSize(batchBytes),
			client.MaxRequestSize(requestBytes), client.Linger(wait), client.BufferMemory(bufferBytes))
		return &ourSender{c, p, j.Topic, func(_ client.RecordMetadata, err error) { done(err) }}, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(j.Brokers, ",")...), kgo.DefaultProduceTopic(j.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchMaxBytes(batchBytes), kgo.BrokerMaxWriteBytes(requestBytes), kgo.ProducerLinger(wait),
		kgo.MaxBufferedBytes(bufferBytes), kgo.MaxBufferedRecords(bufferRecords),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return &theirSender{cl, func(_ *kgo.Record, err error) { done(err) }}, err
}

type ourSender struct {
	c     *client.Client
	p     *client.Producer
	topic string
	done  func(client.RecordMetadata, error)
}

func (s *ourSender) send(ctx context.Context, partition int32, value []byte) error {
	return s.p.Send(ctx, client.ProducerRecord{Topic: s.topic, Partition: client.ToPartition(partition), Value: value}, s.done)
}

func (s *ourSender) sendThen(ctx context.Context, partition int32, value []byte, done func(error)) error {
	r := client.ProducerRecord{Topic: s.topic, Partition: client.ToPartition(partition), Value: value}
	return s.p.Send(ctx, r, func(_ client.RecordMetadata, err error) { done(err) })
}

func (s *ourSender) flush(ctx context.Context) error { return s.p.Flush(ctx) }

func (s *ourSender) close(ctx context.Context) error {
	defer s.c.Close()
	return s.p.Close(ctx)
}

type theirSender struct {
	cl   *kgo.Client
	done func(*kgo.Record, error)
}

func (s *theirSender) send(ctx context.Context, partition int32, value []byte) error {
	s.cl.Produce(ctx, &kgo.Record{Partition: partition, Value: value}, s.done)
	return nil
}

func (s *theirSender) sendThen(ctx context.Context, partition int32, value []byte, done func(error)) error {
	s.cl.Produce(ctx, &kgo.Record{Partition: partition, Value: value}, func(_ *kgo.Record, err error) { done(err) })
	return nil
}

func (s *theirSender) flush(ctx context.Context) error { return s.cl.Flush(ctx) }

func (s *theirSender) close(context.Context) error {
	s.cl.Close()
	return nil
}

func newReader(ctx context.Context, j job) (reader, error) {
	if j.Client == clients[0] {
		c, err := client.New(client.Brokers(strings.Split(j.Brokers, ",")...))
		if err != nil {
			return nil, err
		}
		k, err := c.NewConsumer(client.FetchMaxBytes(fetchBytes), client.MaxPartitionFetchBytes(fetchPart), client.FetchMaxWait(fetchWait))
		if err != nil {
			return nil, err
		}
		return &ourReader{c, k}, k.AssignTopic(ctx, j.Topic, client.Earliest)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(j.Brokers, ",")...), kgo.ConsumeTopics(j.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchPart),
		kgo.FetchMaxWait(fetchWait))
	return &theirReader{cl}, err
}

type ourReader struct {
	c *client.Client
	k *client.Consumer
}

func (r *ourReader) poll(ctx context.Context) (records, bytes int, err error) {
	got, err := r.k.Poll(ctx)
	for i := range got {
		bytes += len(got[i].Value)
	}
	return len(got), bytes, err
}

func (r *ourReader) close() {
	r.k.Close()
	r.c.Close()
}

type theirReader struct{ cl *kgo.Client }

func (r *theirReader) poll(ctx context.Context) (records, bytes int, err error) {
	fetches := r.cl.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		return 0, 0, fmt.Errorf("poll: %w", err)
	}
	fetches.EachRecord(func(of *kgo.Record) {
		records++
		bytes += len(of.Value)
	})
	return records, bytes, nil
}

func (r *theirReader) close() { r.cl.Close() }

// member is a consumer in a group that polls until it is closed, which leaves.
type member interface{ close() }

func newMember(which, address string, dial func(ctx context.Context, address string) (net.Conn, error), s *share) (member, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if which != clients[0] {
		return newTheirMember(ctx, cancel, address, dial, s)
	}
	c, err := client.New(client.Brokers(address), client.Dialer(dial))
	if err != nil {
		cancel()
		return nil, err
	}
	told := func(tell func([]int32)) client.Rebalance {
		return func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
			numbers := make([]int32, len(partitions))
			for i, tp := range partitions {
				numbers[i] = tp.Partition
			}
			tell(numbers)
		}
	}
	g, err := c.NewGroupConsumer(crowdGroup, client.Assignors(client.CooperativeStickyAssignor), client.SessionTimeout(sessionTimeout),
		client.HeartbeatInterval(heartbeatEvery), client.MaxPollInterval(rebalanceTimeout), client.FetchMaxWait(idleFetchWait), client.NoAutoCommit(),
		client.OnAssigned(told(s.gained)), client.OnRevoked(told(s.lost)), client.OnLost(told(s.lost)))
	if err == nil {
		err = g.Subscribe(crowdTopic)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	m := &ourMember{c: c, g: g, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		for ctx.Err() == nil {
			_, _ = g.Poll(ctx)
		}
	}()
	return m, nil
}

type ourMember struct {
	c      *client.Client
	g      *client.GroupConsumer
	cancel context.CancelFunc
	ended  chan struct{}
}

func (m *ourMember) close() {
	m.cancel()
	<-m.ended
	_ = m.g.Close(context.Background())
	_ = m.c.Close()
}

func newTheirMember(ctx context.Context, cancel context.CancelFunc, address string, dial func(ctx context.Context, address string) (net.Conn, error), s *share) (member, error) {
	told := func(tell func([]int32)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { tell(partitions[crowdTopic]) }
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumerGroup(crowdGroup), kgo.ConsumeTopics(crowdTopic),
		kgo.Dialer(func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(heartbeatEvery),
		kgo.RebalanceTimeout(rebalanceTimeout), kgo.FetchMaxWait(idleFetchWait), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(told(s.gained)), kgo.OnPartitionsRevoked(told(s.lost)), kgo.OnPartitionsLost(told(s.lost)))
	if err != nil {
		cancel()
		return nil, err
	}
	m := &theirMember{cl: cl, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		for ctx.Err() == nil {
			cl.PollFetches(ctx)
		}
	}()
	return m, nil
}

type theirMember struct {
	cl     *kgo.Client
	cancel context.CancelFunc
	ended  chan struct{}
}

func (m *theirMember) close() {
	m.cancel()
	<-m.ended
	m.cl.Close()
}
