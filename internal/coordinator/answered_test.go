package coordinator

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/disk"
)

// TestRefusedAppendLeavesEarlierAnswersAlone: a read that was answered is not touched any more when an append of the same
// round is refused after it.
func TestRefusedAppendLeavesEarlierAnswersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
