package replica

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// broker is a Manager on memory disks, with the metadata's log in the test's hand.
type broker struct {
	t       testing.TB
	disk    *disk.Mem
	manager *Manager
	dirs    []*commitlog.Dir
	loader  *metadata.Loader
	offset  int64
	epoch   int64
}

var (
	incarnation = metadata.UUID{7, 7, 7}
	quiet       = slog.New(slog.DiscardHandler)
)

func settings(t testing.TB, lines ...string) *config.Set {
	t.Helper()
	set, _, err := config.Load(config.Sources{File: strings.Join(append([]string{"node.id=1"}, lines...), "\n"), FileName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// newBroker starts a broker on the directories of a disk. It is not registered yet.
func newBroker(t testing.TB, d *disk.Mem, paths ...string) *broker {
	t.Helper()
	b := &broker{t: t, disk: d, offset: -1, epoch: 1}
	b.manager = NewManager(Options{NodeID: 1, Incarnation: incarnation, Config: settings(t), Logger: quiet})
	for i, path := range paths {
		dir, err := commitlog.OpenDir(context.Background(), commitlog.DirOptions{
			FS: d, Path: path, NodeID: 1, ClusterID: "c", Logger: quiet, Observer: b.manager, Rand: chance(uint64(i)),
		})
		if err != nil {
			t.Fatal(err)
		}
		b.dirs = append(b.dirs, dir)
	}
	b.manager.Use(b.dirs)
	b.loader = metadata.NewLoader(b.manager)
	t.Cleanup(b.close)
	return b
}

func chance(seed uint64) io.Reader { return rand.NewChaCha8([32]byte{byte(seed), 42}) }

func (b *broker) close() {
	for _, d := range b.dirs {
		if err := d.Close(); err != nil && !errors.Is(err, commitlog.ErrOffline) {
			b.t.Error(err)
		}
	}
	b.dirs = nil
}

// commit publishes records.
func (b *broker) commit(records ...metadata.Record) {
	b.t.Helper()
	b.offset++
	if err := b.loader.Apply(context.Background(), metadata.Committed{Offset: b.offset, Epoch: 1, Records: records}); err != nil {
		b.t.Fatal(err)
	}
}

// register makes the running process the registered one.
func (b *broker) register(incarnation metadata.UUID) {
	b.t.Helper()
	b.epoch++
	b.commit(&metadata.BrokerRecord{Id: 1, Epoch: b.epoch, Incarnation: incarnation.Bytes()})
}

func topicRecord(name string, id byte) *metadata.TopicRecord {
	return &metadata.TopicRecord{Name: name, Id: topicID(id).Bytes()}
}

func topicID(id byte) metadata.UUID { return metadata.UUID{200, id} }

// partitionRecord is a partition that this broker leads alone.
func partitionRecord(id byte, number int32, dir metadata.UUID) *metadata.PartitionRecord {
	return &metadata.PartitionRecord{
		TopicId: topicID(id).Bytes(), Partition: number, Replicas: []int32{1}, Isr: []int32{1},
		Directories: [][]byte{dir.Bytes()}, Leader: 1,
	}
}

// create makes a topic of one partition in any directory.
func (b *broker) create(name string, id byte) {
	b.t.Helper()
	b.commit(topicRecord(name, id), partitionRecord(id, 0, metadata.UnassignedDirectory))
}

func (b *broker) partition(name string) *Partition {
	b.t.Helper()
	p, err := b.manager.Partition(name, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func records(n int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for range n {
		b.Append(time.Now().UnixMilli(), []byte("key"), []byte("value"), nil)
	}
	built, err := b.Build()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return built
}

// append writes n records and waits until they are committed.
func (p *Partition) append(t testing.TB, n int) commitlog.Appended {
	t.Helper()
	a, err := p.Append(records(n), true, time.Now().UnixMilli())
	if err == nil {
		err = p.AwaitCommitted(context.Background(), a.Next, a.LeaderEpoch)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// send writes one record, and has waiters wait until it is committed: each sends how that ended.
func (p *Partition) send(t testing.TB, waiters int) <-chan error {
	t.Helper()
	a, err := p.Append(records(1), true, time.Now().UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, waiters)
	for range waiters {
		go func() { done <- p.AwaitCommitted(t.Context(), a.Next, a.LeaderEpoch) }()
	}
	return done
}

// stallFlushes holds every flush until the channel is closed.
func stallFlushes(until chan struct{}) disk.Fault {
	return func(op disk.Op) error {
		if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
			<-until
		}
		return nil
	}
}

func failFlushes(op disk.Op) error {
	if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
		return errors.New("input/output error")
	}
	return nil
}
