package replica

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// TestHistoryDeletesNothing: while a broker replays what was, a topic that was deleted and made again
// appears and goes; the log that stands on disk under its name stays.
func TestHistoryDeletesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		b := newBroker(t, d, "/data")
		b.register(incarnation)
		b.create("orders", 2)
		b.partition("orders").append(t, 7)
		b.close()

		b = newBroker(t, d, "/data")
		b.create("orders", 1)
		b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(1).Bytes()})
		b.create("gone", 3)
		b.create("orders", 2)
		b.register(metadata.UUID{8}) // of an earlier process
		b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(3).Bytes()})
		select {
		case <-b.manager.Ready():
			t.Fatal("ready before it is registered")
		default:
		}
		if n := len(b.manager.Partitions()); n != 0 {
			t.Fatalf("history opened %d logs", n)
		}
		b.register(incarnation)
		<-b.manager.Ready()
		p := b.partition("orders")
		if at := p.Progress(); at.End != 7 || at.HighWatermark != 7 || p.TopicID() != topicID(2) {
			t.Fatalf("%+v of topic %v", at, p.TopicID())
		}
	})
}

// TestForgottenTopicsAreDeletedAtStart: a topic that was deleted, or deleted and made again, while
// the broker was down leaves nothing of the old one.
func TestForgottenTopicsAreDeletedAtStart(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		b := newBroker(t, d, "/data")
		b.register(incarnation)
		for id, name := range []string{"kept", "deleted", "again"} {
			b.create(name, byte(id+1))
			b.partition(name).append(t, 3)
		}
		b.close()

		b = newBroker(t, d, "/data")
		b.create("kept", 1)
		b.create("again", 9)
		b.register(incarnation)
		if at := b.partition("kept").Progress(); at.End != 3 {
			t.Fatalf("kept: %+v", at)
		}
		if at := b.partition("again").Progress(); at.End != 0 {
			t.Fatalf("made again: %+v", at)
		}
		if _, err := b.manager.Partition("deleted", 0); !errors.Is(err, ErrUnknownPartition) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // past file.delete.delay.ms
		synctest.Wait()
		entries, err := d.List("/data")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Dir && e.Name != "kept-0" {
				t.Errorf("%s is left", e.Name)
			}
		}
	})
}

// TestTopicMadeAgainIsAnother: deleted and made again while the broker runs, in one entry or in two.
func TestTopicMadeAgainIsAnother(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		old := b.partition("orders")
		old.append(t, 3)
		b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(1).Bytes()}, topicRecord("orders", 2), partitionRecord(2, 0, metadata.UnassignedDirectory))
		next := b.partition("orders")
		if next == old || next.TopicID() != topicID(2) || next.Progress().End != 0 {
			t.Fatalf("topic %v at %+v", next.TopicID(), next.Progress())
		}
		if _, err := old.Append(records(1), false, 0); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("the old one takes records: %v", err)
		}
		if _, err := old.Read(0, -1, 1000, true, ReadUncommitted); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("the old one is read: %v", err)
		}
		next.append(t, 1)
	})
}

// TestDiskThatHangsDoesNotHoldUpMetadata: topics on it are deleted, made again and moved away while it does not answer, and what
// lies on another directory goes on.
func TestDiskThatHangsDoesNotHoldUpMetadata(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		b := newBroker(t, d, "/one", "/two")
		b.register(incarnation)
		one, two := b.dirs[0].ID(), b.dirs[1].ID()
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, one))
		b.commit(topicRecord("sales", 2), partitionRecord(2, 0, one))
		for _, name := range []string{"orders", "sales"} {
			b.partition(name).append(t, 3)
		}
		answers := make(chan struct{})
		d.SetFault(func(op disk.Op) error {
			if strings.HasPrefix(op.Path, "/one") {
				<-answers
			}
			return nil
		})
		// In this goroutine: the test would hang.
		b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(1).Bytes()})
		b.commit(topicRecord("orders", 3), partitionRecord(3, 0, one))
		b.commit(&metadata.PartitionChangeRecord{
			TopicId: topicID(2).Bytes(), Replicas: &metadata.Nodes{Ids: []int32{2}}, Isr: &metadata.Nodes{Ids: []int32{2}}, Leader: new(int32(2)),
			Directories: &metadata.Directories{Ids: [][]byte{metadata.UnassignedDirectory.Bytes()}},
		})
		b.commit(topicRecord("other", 4), partitionRecord(4, 0, two))
		b.partition("other").append(t, 3)
		again := b.partition("orders")
		if again.TopicID() != topicID(3) || again.Progress().End != 0 {
			t.Fatalf("topic %v at %+v", again.TopicID(), again.Progress())
		}
		close(answers)
		again.append(t, 1)
		b.close()
		for name, there := range map[string]bool{"/one/orders-0": true, "/one/sales-0": false, "/two/other-0": true} {
			if _, err := d.Stat(name); (err == nil) != there {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestMissingDirectoryIsNotReplaced: a replica whose directory is not here gets no empty log in
// another one, and says that it is not available.
func TestMissingDirectoryIsNotReplaced(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		b := newBroker(t, d, "/one", "/two")
		b.register(incarnation)
		first := b.dirs[0].ID()
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, first))
		b.partition("orders").append(t, 3)
		if dir := b.partition("orders").Log().Dir(); dir != b.dirs[0] {
			t.Fatalf("in %s", dir.Path())
		}
		b.close()

		b = newBroker(t, d, "/two")
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, first))
		b.register(incarnation)
		if _, err := b.manager.Partition("orders", 0); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(1).Bytes()})
		if _, err := b.manager.Partition("orders", 0); !errors.Is(err, ErrUnknownPartition) {
			t.Fatal(err)
		}
		b.close()

		b = newBroker(t, d, "/one", "/two")
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, first))
		b.register(incarnation)
		if end := b.partition("orders").Progress().End; end != 3 {
			t.Fatalf("the log that was found again ends at %d", end)
		}
	})
}

// TestDirectoryFailsAlone: what lies in the other one goes on.
func TestDirectoryFailsAlone(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/one", "/two")
		b.register(incarnation)
		for i, name := range []string{"first", "second"} {
			b.commit(topicRecord(name, byte(i+1)), partitionRecord(byte(i+1), 0, b.dirs[i].ID()))
			b.partition(name).append(t, 1)
		}
		b.disk.SetFault(func(op disk.Op) error {
			if len(op.Path) > 4 && op.Path[:4] == "/one" {
				return failFlushes(op)
			}
			return nil
		})
		first := b.partition("first")
		a, err := first.Append(records(1), true, time.Now().UnixMilli())
		if err == nil {
			err = first.AwaitCommitted(t.Context(), a.Next, a.LeaderEpoch)
		}
		if !errors.Is(err, commitlog.ErrOffline) {
			t.Fatal(err)
		}
		for _, f := range []func() error{
			func() error { _, err := first.Append(records(1), false, time.Now().UnixMilli()); return err },
			func() error { return first.AwaitCommitted(t.Context(), a.Next, a.LeaderEpoch) },
			func() error { _, err := first.Read(0, -1, 1000, true, ReadUncommitted); return err },
			func() error { _, err := first.Read(1, -1, 1000, true, ReadUncommitted); return err },
			func() error { _, err := first.DeleteRecords(t.Context(), 1); return err },
		} {
			if err := f(); !errors.Is(err, commitlog.ErrOffline) {
				t.Errorf("in a failed directory: %v", err)
			}
		}
		b.partition("second").append(t, 1)
	})
}

// TestDynamicSettings: of the topic over those of the broker over those of all brokers, each where
// it changes; one that is not allowed does not void the others.
func TestDynamicSettings(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		log := b.partition("orders").Log()
		expect := func(ms int64) {
			t.Helper()
			if got := log.Config().RetentionMs; got != ms {
				t.Fatalf("retention.ms is %d, want %d", got, ms)
			}
		}
		expect(7 * 24 * 3600_000)
		b.commit(setting(metadata.BrokerResource, "", "log.retention.ms", "1000"))
		expect(1000)
		b.commit(setting(metadata.BrokerResource, "2", "log.retention.ms", "1"))
		expect(1000)
		b.commit(setting(metadata.BrokerResource, "1", "log.retention.ms", "2000"))
		expect(2000)
		b.commit(setting(metadata.TopicResource, "orders", "retention.ms", "3000"))
		expect(3000)
		b.commit(setting(metadata.BrokerResource, "1", "log.retention.ms", "4000"))
		expect(3000)
		b.commit(&metadata.ConfigRecord{Kind: int32(metadata.TopicResource), Name: "orders", Key: "retention.ms"})
		expect(4000)
		b.commit(setting(metadata.BrokerResource, "1", "num.io.threads", "none"))
		b.commit(setting(metadata.BrokerResource, "1", "log.retention.ms", "5000"))
		expect(5000)
		if got := b.manager.Settings().Int64("log.retention.ms"); got != 5000 {
			t.Fatalf("settings say %d", got)
		}
		b.create("later", 2)
		if got := b.partition("later").Log().Config().RetentionMs; got != 5000 {
			t.Fatalf("a topic made later keeps records for %d ms", got)
		}
	})
}

// TestReplicaMovesAway: a partition that is assigned elsewhere is deleted here.
func TestReplicaMovesAway(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		p := b.partition("orders")
		p.append(t, 1)
		b.commit(&metadata.PartitionChangeRecord{
			TopicId: topicID(1).Bytes(), Replicas: &metadata.Nodes{Ids: []int32{2}}, Isr: &metadata.Nodes{Ids: []int32{2}}, Leader: new(int32(2)),
			Directories: &metadata.Directories{Ids: [][]byte{metadata.UnassignedDirectory.Bytes()}},
		})
		if _, err := b.manager.Partition("orders", 0); !errors.Is(err, ErrUnknownPartition) {
			t.Fatal(err)
		}
		if _, err := p.LeaderEpoch(-1); !errors.Is(err, ErrNotLeader) {
			t.Fatal(err)
		}
	})
}

// TestReplicaTakenAwayMeanwhileIsDeleted: what a broker had when it went, and was assigned elsewhere while it was away, is not
// taken for its replica when that comes back to another of its directories.
func TestReplicaTakenAwayMeanwhileIsDeleted(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		b := newBroker(t, d, "/one", "/two")
		b.register(incarnation)
		one, two := b.dirs[0].ID(), b.dirs[1].ID()
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, one))
		b.partition("orders").append(t, 3)
		b.close()

		elsewhere := partitionRecord(1, 0, metadata.UnassignedDirectory)
		elsewhere.Replicas, elsewhere.Isr, elsewhere.Leader = []int32{2}, []int32{2}, 2
		b = newBroker(t, d, "/one", "/two")
		b.commit(topicRecord("orders", 1), elsewhere)
		b.register(incarnation)
		b.commit(&metadata.PartitionChangeRecord{
			TopicId: topicID(1).Bytes(), Replicas: &metadata.Nodes{Ids: []int32{1}}, Isr: &metadata.Nodes{Ids: []int32{1}}, Leader: new(int32(1)),
			Directories: &metadata.Directories{Ids: [][]byte{two.Bytes()}},
		})
		b.partition("orders").append(t, 5)
		b.close()
		if _, err := d.Stat("/one/orders-0"); err == nil {
			t.Error("what it had before is still there")
		}

		b = newBroker(t, d, "/one", "/two")
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, two))
		b.register(incarnation)
		if p := b.partition("orders"); p.Progress().End != 5 || p.Log().Dir() != b.dirs[1] {
			t.Errorf("it ends at %d in %s", p.Progress().End, p.Log().Dir().Path())
		}
	})
}

// TestOfTwoLogsTheAssignedOneCounts: where two directories have a log for one replica, since one could not be deleted, it is
// the one that the metadata names.
func TestOfTwoLogsTheAssignedOneCounts(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		newBroker(t, d, "/one", "/two").close()
		var ids []metadata.UUID
		for i, path := range []string{"/one", "/two"} {
			b := newBroker(t, d, path)
			ids = append(ids, b.dirs[0].ID())
			b.commit(topicRecord("orders", 1), partitionRecord(1, 0, ids[i]))
			b.register(incarnation)
			b.partition("orders").append(t, 3+i)
			b.close()
		}
		for i, id := range ids {
			b := newBroker(t, d, "/one", "/two")
			b.commit(topicRecord("orders", 1), partitionRecord(1, 0, id))
			b.register(incarnation)
			if end := b.partition("orders").Progress().End; end != int64(3+i) {
				t.Errorf("directory %d: the log ends at %d", i, end)
			}
			b.close()
		}
	})
}

// TestLogThatIsThereIsNotReplacedByAnEmptyOne: where the metadata names no directory, and several have a log for the replica, none
// that has nothing takes their place.
func TestLogThatIsThereIsNotReplacedByAnEmptyOne(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		newBroker(t, d, "/zero", "/one", "/two").close()
		for _, path := range []string{"/one", "/two"} {
			b := newBroker(t, d, path)
			b.commit(topicRecord("orders", 1), partitionRecord(1, 0, b.dirs[0].ID()))
			b.register(incarnation)
			b.partition("orders").append(t, 3)
			b.close()
		}
		b := newBroker(t, d, "/zero", "/one", "/two")
		b.commit(topicRecord("orders", 1), partitionRecord(1, 0, metadata.UnassignedDirectory))
		b.register(incarnation)
		if end := b.partition("orders").Progress().End; end != 3 {
			t.Errorf("the log ends at %d", end)
		}
	})
}

// TestDamagedTopicIDDeletesNothing: a log that does not say whose it is goes to the topic of its
// name, and without one stays where it is.
func TestDamagedTopicIDDeletesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		d := disk.NewMem()
		b := newBroker(t, d, "/data")
		b.register(incarnation)
		for id, name := range []string{"known", "unknown"} {
			b.create(name, byte(id+1))
			b.partition(name).append(t, 3)
		}
		b.close()
		for _, name := range []string{"known", "unknown"} {
			if err := d.FlipBit("/data/"+name+"-0/partition.metadata", 0, 3); err != nil {
				t.Fatal(err)
			}
		}

		b = newBroker(t, d, "/data")
		b.create("known", 1)
		b.register(incarnation)
		if at := b.partition("known").Progress(); at.End != 3 {
			t.Errorf("known: %+v, want its 3 records", at)
		}
		<-time.After(10 * time.Minute) // past file.delete.delay.ms
		synctest.Wait()
		if _, err := d.Stat("/data/unknown-0/00000000000000000000.log"); err != nil {
			t.Errorf("the log that nobody knows: %v", err)
		}
	})
}
