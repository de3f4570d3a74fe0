package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// TestRefusedAppendLeavesEarlierAnswersAlone: a read that was answered is not touched any more when an append of the same
// round is refused after it.
func TestRefusedAppendLeavesEarlierAnswersAlone(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		b.mustCommit("g", 1)
		until := make(chan struct{})
		writes := 0
		b.disk.SetFault(func(op disk.Op) error {
			if op.Kind != disk.OpWrite || !strings.Contains(op.Path, fmt.Sprint(OffsetsTopic, "-0/")) || !strings.HasSuffix(op.Path, ".log") {
				return nil
			}
			if writes++; writes == 1 {
				<-until // the read and the next commit come in one round
				return nil
			}
			return syscall.ENOSPC
		})
		first := b.offer("g", 2, 1, "")
		b.settle()
		asked := kmsg.NewOffsetFetchRequestGroup()
		asked.Group = "g"
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.Partitions = "orders", []int32{0}
		asked.Topics = append(asked.Topics, topic)
		q := kmsg.NewPtrOffsetFetchRequest()
		q.Version, q.Groups = 9, append(q.Groups, asked)
		fetch := b.Submit("g", somebody, q, 100)
		second := b.offer("g", 3, 1, "")
		close(until)
		b.settle()
		if code, err := outcome(t.Context(), first); code != 0 || err != nil {
			t.Fatalf("the first commit: %d, %v", code, err)
		}
		if code, err := outcome(t.Context(), second); code == 0 && err == nil {
			t.Fatal("the second commit was not refused")
		}
		read := fetch.answer.Response.(*kmsg.OffsetFetchResponse).Groups[0]
		if len(read.Topics) != 1 || read.ErrorCode != 0 || read.Topics[0].Partitions[0].Offset != 2 {
			t.Fatalf("the answered read became %+v", read)
		}
	})
}

// TestFailedLoadIsTriedAgain: what kept a partition from being read passes, and its groups are there again without anybody
// else having led it.
func TestFailedLoadIsTriedAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		b.mustCommit("g", 7)
		failures := 0
		b.disk.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpRead && strings.Contains(op.Path, fmt.Sprint(OffsetsTopic, "-0/")) && failures < 3 {
				failures++
				return syscall.EMFILE
			}
			return nil
		})
		again := led(offsetsID, 0)
		again.LeaderEpoch = 1
		b.commit(again)
		b.settle()
		if code, err := outcome(t.Context(), b.offer("g", 8, 1, "")); !errors.Is(err, ErrLoading) {
			t.Fatalf("while the log cannot be read: %d, %v", code, err)
		}
		time.Sleep(10 * mostLoadPause)
		if got := b.committed("g"); failures != 3 || got != 7 {
			t.Fatalf("after %d failures: offset %d", failures, got)
		}
	})
}

// TestHousekeepingStopsAfterARefusal: what it wants to write goes into several batches. When one is refused, the others, which
// were decided on the ground of it, are not written either; the next check decides anew.
func TestHousekeepingStopsAfterARefusal(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), []string{"offsets.retention.minutes=1", "offsets.retention.check.interval.ms=100000"}, "max.message.bytes=600")
		b.settle()
		const groups = 40
		for n := range groups {
			b.mustCommit(fmt.Sprint("g", n), 1)
		}
		left := func() (n int) {
			for g := range groups {
				if b.committed(fmt.Sprint("g", g)) >= 0 {
					n++
				}
			}
			return n
		}
		var writes atomic.Int64
		b.disk.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpWrite && strings.Contains(op.Path, fmt.Sprint(OffsetsTopic, "-0/")) && strings.HasSuffix(op.Path, ".log") {
				if writes.Add(1) == 2 {
					return syscall.ENOSPC
				}
			}
			return nil
		})
		time.Sleep(110 * time.Second)
		b.settle()
		if n := left(); writes.Load() != 2 || n == 0 || n == groups {
			t.Fatalf("%d writes, of which the second was refused; of %d offsets %d are left", writes.Load(), groups, n)
		}
		time.Sleep(100 * time.Second)
		b.settle()
		if n := left(); n != 0 {
			t.Fatalf("%d offsets are left after the next check", n)
		}
		again := led(offsetsID, 0)
		again.LeaderEpoch = 1
		b.commit(again)
		b.settle()
		if n := left(); n != 0 {
			t.Fatalf("%d offsets are back when the log is read again", n)
		}
	})
}

// TestPartitionThatIsNotThereIsLookedForAgain: a replica that could not be opened is, later, without a change of the topic's
// metadata that the coordinator is told of; and who never is costs a look a minute.
func TestPartitionThatIsNotThereIsLookedForAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		missing := led(offsetsID, 1)
		missing.Directories = [][]byte{metadata.UUID{99}.Bytes()}
		b.commit(missing)
		time.Sleep(10 * time.Minute)
		b.settle()
		if n := strings.Count(b.logged.String(), "it is looked for again"); n < 10 || n > 20 || slices.Contains(b.Led(), 1) {
			t.Fatalf("looked for %d times in ten minutes; led are %v", n, b.Led())
		}
		opened := metadata.NewLoader(b.manager) // it alone is told
		if err := opened.Apply(t.Context(), metadata.Committed{Offset: 0, Epoch: 1, Records: []metadata.Record{
			&metadata.TopicRecord{Name: OffsetsTopic, Id: offsetsID.Bytes()}, led(offsetsID, 0), led(offsetsID, 1),
		}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(mostLoadPause)
		b.settle()
		call := b.SubmitTo(1, somebody, kmsg.NewPtrHeartbeatRequest(), 1)
		if _, err := call.Await(t.Context()); err != nil {
			t.Fatalf("its groups: %v", err)
		}
		before := b.logged.Len()
		time.Sleep(10 * mostLoadPause)
		b.settle()
		if b.logged.Len() != before {
			t.Fatalf("it is looked for although it is there: %s", b.logged.String()[before:])
		}
		b.commit(&metadata.PartitionRecord{TopicId: offsetsID.Bytes(), Partition: 2, Replicas: []int32{1}, Isr: []int32{1}, Directories: missing.Directories, Leader: 1})
		b.settle() // closing ends the search
	})
}
