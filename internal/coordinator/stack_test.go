package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/coordinator/group"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
)

// broker is a Coordinator over replicas on a memory disk, with the metadata's log in the test's hand.
type broker struct {
	*Coordinator
	t       testing.TB
	disk    *disk.Mem
	manager *replica.Manager
	dir     *commitlog.Dir
	loader  *metadata.Loader
	offset  int64
	logged  *strings.Builder
}

var (
	ordersID  = metadata.UUID{200, 1}
	offsetsID = metadata.UUID{200, 2}
)

// newBroker starts a broker that leads one partition of __consumer_offsets, with topic configs KEY=VALUE.
func newBroker(t testing.TB, d *disk.Mem, lines []string, topic ...string) *broker {
	t.Helper()
	set, _, err := config.Load(config.Sources{
		File: strings.Join(append([]string{"node.id=1", "group.initial.rebalance.delay.ms=0"}, lines...), "\n"), FileName: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, disk: d, offset: -1, logged: &strings.Builder{}}
	quiet := slog.New(slog.DiscardHandler)
	incarnation := metadata.UUID{7, 7, 7}
	b.manager = replica.NewManager(replica.Options{NodeID: 1, Incarnation: incarnation, Config: set, Logger: quiet})
	b.dir, err = commitlog.OpenDir(t.Context(), commitlog.DirOptions{
		FS: d, Path: "/data", NodeID: 1, ClusterID: "c", Logger: quiet, Observer: b.manager, Rand: rand.NewChaCha8([32]byte{1}),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.manager.Use([]*commitlog.Dir{b.dir})
	b.Coordinator = New(context.Background(), Options{
		NodeID: 1, Replicas: b.manager, Config: set, Logger: slog.New(slog.NewTextHandler(b.logged, nil)), Now: time.Now, Random: rand.NewChaCha8([32]byte{2}),
	})
	b.loader = metadata.NewLoader(b.manager, b.Coordinator)
	t.Cleanup(b.close)
	b.commit(
		&metadata.TopicRecord{Name: "orders", Id: ordersID.Bytes()}, led(ordersID, 0), led(ordersID, 1), led(ordersID, 2),
		&metadata.TopicRecord{Name: OffsetsTopic, Id: offsetsID.Bytes()}, led(offsetsID, 0),
	)
	for _, kv := range append([]string{"cleanup.policy=compact"}, topic...) {
		key, value, _ := strings.Cut(kv, "=")
		b.commit(&metadata.ConfigRecord{Kind: int32(metadata.TopicResource), Name: OffsetsTopic, Key: key, Value: &value})
	}
	b.commit(&metadata.BrokerRecord{Id: 1, Epoch: 2, Incarnation: incarnation.Bytes()})
	return b
}

func (b *broker) close() {
	b.Coordinator.Close()
	if err := b.dir.Close(); err != nil && !errors.Is(err, commitlog.ErrOffline) && !errors.Is(err, disk.ErrPowerLost) {
		b.t.Error(err)
	}
}

func led(topic metadata.UUID, number int32) *metadata.PartitionRecord {
	return &metadata.PartitionRecord{
		TopicId: topic.Bytes(), Partition: number, Replicas: []int32{1}, Isr: []int32{1},
		Directories: [][]byte{metadata.UnassignedDirectory.Bytes()}, Leader: 1,
	}
}

// commit publishes records.
func (b *broker) commit(records ...metadata.Record) {
	b.t.Helper()
	b.offset++
	if err := b.loader.Apply(context.Background(), metadata.Committed{Offset: b.offset, Epoch: 1, Records: records}); err != nil {
		b.t.Fatal(err)
	}
}

// settle waits until whatever goes on in the bubble waits for something, and the partition is loaded.
func (b *broker) settle() { synctest.Wait() }

var somebody = group.Client{ID: "test", Host: "/127.0.0.1"}

// offer submits a commit of an offset for partition 0, or for the first parts of the topic.
func (b *broker) offer(groupID string, offset int64, parts int32, note string) *Call {
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = "orders"
	for n := range max(parts, 1) {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = n, offset, &note
		t.Partitions = append(t.Partitions, p)
	}
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Version, q.Group, q.Generation, q.Topics = 9, groupID, -1, append(q.Topics, t)
	return b.Submit(groupID, somebody, q, 100)
}

// outcome is the code of a commit's first partition.
func outcome(ctx context.Context, c *Call) (int16, error) {
	res, err := c.Await(ctx)
	if err != nil {
		return -1, err
	}
	return res.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode, nil
}

func (b *broker) mustCommit(groupID string, offset int64) {
	b.t.Helper()
	if code, err := outcome(b.t.Context(), b.offer(groupID, offset, 1, "")); code != 0 || err != nil {
		b.t.Fatalf("commit %d for %s: code %d, %v", offset, groupID, code, err)
	}
}

// committed is what a group has committed for partition 0, -1 for nothing.
func (b *broker) committed(groupID string) int64 {
	b.t.Helper()
	res, err := b.ask(groupID).Await(b.t.Context())
	if err != nil {
		b.t.Fatalf("fetch the offsets of %s: %v", groupID, err)
	}
	return res.(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions[0].Offset
}

// ask submits the question what a group has committed for partition 0.
func (b *broker) ask(groupID string) *Call {
	g := kmsg.NewOffsetFetchRequestGroup()
	t := kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic, t.Partitions = "orders", []int32{0}
	g.Group, g.Topics = groupID, append(g.Topics, t)
	q := kmsg.NewPtrOffsetFetchRequest()
	q.Version, q.Groups = 9, append(q.Groups, g)
	return b.Submit(groupID, somebody, q, 100)
}

// join submits a JoinGroup of a protocol that nobody parses.
func (b *broker) join(groupID, member string) *Call {
	q := kmsg.NewPtrJoinGroupRequest()
	q.Version, q.Group, q.MemberID, q.ProtocolType = 3, groupID, member, "work"
	q.SessionTimeoutMillis, q.RebalanceTimeoutMillis = 30_000, 60_000
	q.Protocols = append(q.Protocols, kmsg.JoinGroupRequestProtocol{Name: "p", Metadata: []byte{1}})
	return b.Submit(groupID, somebody, q, 100)
}

// batches are those of the partition, by their numbers of records.
func (b *broker) batches() (counts []int32, sizes []int) {
	b.t.Helper()
	p, err := b.manager.Partition(OffsetsTopic, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	at := p.Progress()
	if at.End == at.Start {
		return nil, nil
	}
	r, err := p.Log().Read(at.Start, 1<<30, at.End, true)
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := r.AppendTo(nil)
	if err = errors.Join(err, r.Close()); err != nil {
		b.t.Fatal(err)
	}
	for len(data) > 0 {
		one, rest, err := batch.Next(data)
		if err != nil {
			b.t.Fatal(err)
		}
		counts, sizes, data = append(counts, one.Count()), append(sizes, len(one)), rest
	}
	return counts, sizes
}

// stall holds every operation of one kind on the partition's log until the channel is closed.
func (b *broker) stall(kind disk.Kind) (release func()) {
	until := make(chan struct{})
	b.disk.SetFault(func(op disk.Op) error {
		if op.Kind == kind && strings.Contains(op.Path, fmt.Sprint(OffsetsTopic, "-0/")) && strings.HasSuffix(op.Path, ".log") {
			<-until
		}
		return nil
	})
	return func() { close(until) }
}

func (b *broker) the() *partition {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.mu.partitions[0]
}
