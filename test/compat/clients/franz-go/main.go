// The program for franz-go: see ../README.md for what it has to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/test/compat/clients/program"
)

func main() { program.Main(client{}) }

type client struct{}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

var acks = map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}

var assignors = map[string]kgo.GroupBalancer{
	"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(),
	"sticky": kgo.StickyBalancer(), "cooperative-sticky": kgo.CooperativeStickyBalancer(),
}

func (client) About() program.About {
	return program.About{
		Client: "franz-go", Version: program.ModuleVersion("github.com/twmb/franz-go"), Language: "Go",
		Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"}, Acks: []string{"0", "1", "all"},
		Idempotent: true, Static: true, Commits: true, Listener: true,
		Assignors: []string{"range", "roundrobin", "sticky", "cooperative-sticky"}, Notes: []string{},
	}
}

func (client) Produce(ctx context.Context, p program.Production) error {
	opts := []kgo.Opt{
		kgo.SeedBrokers(p.Brokers...), kgo.DefaultProduceTopic(p.Topic), kgo.ProducerBatchCompression(codecs[p.Codec]),
		kgo.RequiredAcks(acks[p.Acks]), kgo.RecordDeliveryTimeout(program.Patience), kgo.RecordRetries(1000),
	}
	if !p.Idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	failures := make(chan error, p.Past-p.First)
	for i := p.First; i < p.Past; i++ {
		cl.Produce(ctx, &kgo.Record{
			Key: []byte(program.Key(i)), Value: []byte(program.Value(i, p.Size)),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(program.Header(i))}},
		}, func(r *kgo.Record, err error) {
			switch {
			case err != nil:
				failures <- fmt.Errorf("record %d: %w", i, err)
			case p.Acks == "0":
				program.Acked(i, r.Partition, -1)
			default:
				program.Acked(i, r.Partition, r.Offset)
			}
		})
		if p.Pace > 0 {
			time.Sleep(p.Pace)
		}
	}
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

func (client) Consume(ctx context.Context, r program.Reading) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.Brokers...), kgo.ConsumeTopics(r.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for read := 0; read < r.Count; {
		fetches := cl.PollRecords(ctx, r.Count-read)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("after %d records: %w", read, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			read++
			program.Consumed(rec.Partition, rec.Offset, rec.Key, rec.Value, header(rec))
		})
	}
	return nil
}

func header(r *kgo.Record) []byte {
	for _, h := range r.Headers {
		if h.Key == "n" {
			return h.Value
		}
	}
	return nil
}

func (client) Group(ctx context.Context, m program.Membership) error {
	ledger := program.NewLedger(m.CommitEvery)
	revoked := func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
		ledger.Lock()
		defer ledger.Unlock()
		ledger.Revoked(gone[m.Topic])
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(m.Brokers...), kgo.ConsumerGroup(m.Group), kgo.ConsumeTopics(m.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(m.Session), kgo.HeartbeatInterval(m.Beat),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) {
			ledger.Lock()
			defer ledger.Unlock()
			ledger.Assigned(given[m.Topic])
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, gone map[string][]int32) {
			commit(cl, m.Topic, ledger)
			revoked(ctx, cl, gone)
		}),
		kgo.OnPartitionsLost(revoked),
	}
	if m.Instance != "" {
		opts = append(opts, kgo.InstanceID(m.Instance))
	}
	if m.Assignor != "" {
		opts = append(opts, kgo.Balancers(assignors[m.Assignor]))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		fetches := cl.PollRecords(ctx, 100)
		fetches.EachError(func(_ string, p int32, err error) {
			if !errors.Is(err, context.Canceled) {
				program.Complain("partition %d: %v", p, err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			ledger.Lock()
			due := ledger.Record(r.Partition, r.Offset, r.Value)
			ledger.Unlock()
			if due {
				commit(cl, m.Topic, ledger)
			}
		})
		cl.AllowRebalance()
	}
	commit(cl, m.Topic, ledger)
	leave, cancel := context.WithTimeout(context.Background(), program.Patience)
	defer cancel()
	if err := cl.LeaveGroupContext(leave); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	cl.CloseAllowingRebalance()
	return nil
}

func commit(cl *kgo.Client, topic string, ledger *program.Ledger) {
	ledger.Lock()
	defer ledger.Unlock()
	offsets := ledger.Uncommitted()
	if len(offsets) == 0 {
		return
	}
	heads := map[int32]kgo.EpochOffset{}
	for p, o := range offsets {
		heads[p] = kgo.EpochOffset{Epoch: -1, Offset: o}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var refused error
	cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: heads},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, reply *kmsg.OffsetCommitResponse, err error) {
			refused = refusal(reply, err)
		})
	if refused != nil {
		program.Complain("commit: %v", refused)
		ledger.Refused()
		return
	}
	ledger.Committed(offsets)
}

func refusal(reply *kmsg.OffsetCommitResponse, err error) error {
	if err != nil {
		return err
	}
	for _, t := range reply.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}
