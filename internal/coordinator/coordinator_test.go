package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
)

// What comes while a batch is being written shares the next one, whichever groups it is of; nobody is answered before
// its batch is on disk.
func TestRequestsShareABatch(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		b.mustCommit("g", 1)
		release := b.stall(disk.OpWrite)
		first := b.offer("g", 2, 1, "")
		b.settle()
		var rest []*Call
		for n := range 100 {
			rest = append(rest, b.offer(fmt.Sprint("g", n%10), int64(n), 3, ""))
		}
		b.settle()
		for _, c := range append(rest, first) {
			if c.Ready() {
				t.Fatal("answered before it was written")
			}
		}
		flush := b.stall(disk.OpSync) // before anything goes on
		release()
		b.settle()
		for _, c := range rest {
			if c.Ready() {
				t.Fatal("answered before it was on disk")
			}
		}
		flush()
		for _, c := range append(rest, first) {
			if code, err := outcome(t.Context(), c); code != 0 || err != nil {
				t.Fatalf("code %d, %v", code, err)
			}
		}
		if counts, _ := b.batches(); fmt.Sprint(counts) != "[1 1 300]" {
			t.Fatalf("batches of %v records", counts)
		}
	})
}

// No batch is larger than the topic takes, the records of one request stay together, and a request whose records never
// fit is refused by itself: whoever came with it is not.
func TestBatchesFitTheTopic(t *testing.T) {
	for seed := range uint64(20) {
		faketime.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 1))
			b := newBroker(t, disk.NewMem(), nil, "max.message.bytes=2000")
			b.settle()
			b.mustCommit("huge", 1)
			release := b.stall(disk.OpWrite)
			b.offer("g", 1, 1, "")
			b.settle()
			calls, parts := map[*Call]bool{}, 0
			for n := range 60 {
				huge := dice.IntN(10) == 0
				note := strings.Repeat("x", dice.IntN(300))
				id := fmt.Sprint("g", n)
				if huge {
					id, note = "huge", strings.Repeat("x", 800)
				}
				calls[b.offer(id, int64(n), 3, note)] = huge
				if !huge {
					parts++
				}
			}
			release()
			for c, huge := range calls {
				code, err := outcome(t.Context(), c)
				if err != nil || huge != (code == kerr.UnknownServerError.Code) || !huge && code != 0 {
					t.Fatalf("seed %d: too large: %v, code %d, %v", seed, huge, code, err)
				}
			}
			counts, sizes := b.batches()
			records := int32(0)
			for i, n := range counts {
				if records += n; sizes[i] > 2000 || i > 1 && n%3 != 0 { // nothing but whole requests
					t.Fatalf("seed %d: a batch of %d records in %d bytes", seed, n, sizes[i])
				}
			}
			if records != int32(2+3*parts) || b.committed("huge") != 1 {
				t.Fatalf("seed %d: %d records, of %d commits; what did not fit left %d", seed, records, parts, b.committed("huge"))
			}
		})
	}
}

// More requests than are let in are refused at once; the others are answered.
func TestBusyIsRefused(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		b.mustCommit("g", 1)
		release := b.stall(disk.OpWrite)
		calls := []*Call{b.offer("g", 2, 1, "")}
		b.settle()
		for n := range maxQueuedEvents + 10 {
			calls = append(calls, b.offer("g", int64(n), 1, ""))
		}
		release()
		busy := 0
		for i, c := range calls {
			switch code, err := outcome(t.Context(), c); {
			case errors.Is(err, ErrBusy) && i > maxQueuedEvents:
				busy++
			case code != 0 || err != nil:
				t.Fatalf("request %d: code %d, %v", i, code, err)
			}
		}
		if busy != 10 || b.queued.Load() != 0 {
			t.Fatalf("%d were refused, %d bytes are left", busy, b.queued.Load())
		}
		release = b.stall(disk.OpWrite)
		b.offer("g", 3, 1, "")
		b.settle()
		q := kmsg.NewPtrHeartbeatRequest()
		large := b.Submit("g", somebody, q, maxQueuedBytes)
		if _, err := b.Submit("g", somebody, kmsg.NewPtrHeartbeatRequest(), 1).Await(t.Context()); !errors.Is(err, ErrBusy) {
			t.Fatalf("past the limit in bytes: %v", err)
		}
		release()
		if _, err := large.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Leadership that goes takes the waits with it, and what was not written; who leads again, in another epoch, reads the
// log again and knows what was acknowledged. Nothing is appended in the name of an epoch that is over.
func TestLostLeadershipLetsGo(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		b.mustCommit("g", 1)
		old := b.the()
		if _, err := b.join("team", "").Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		joining := b.join("team", "")
		flush := b.stall(disk.OpSync)
		committing := b.offer("g", 2, 1, "")
		b.settle()
		b.commit(&metadata.PartitionChangeRecord{TopicId: offsetsID.Bytes(), Leader: new(int32(-1))})
		if _, err := joining.Await(t.Context()); err != nil {
			t.Fatalf("join: %v", err)
		} else if code := joining.answer.Response.(*kmsg.JoinGroupResponse).ErrorCode; code != kerr.NotCoordinator.Code {
			t.Fatalf("join: code %d", code)
		}
		if code, err := outcome(t.Context(), committing); code != kerr.NotCoordinator.Code {
			t.Fatalf("commit: code %d, %v", code, err)
		}
		if _, err := b.offer("g", 3, 1, "").Await(t.Context()); !errors.Is(err, ErrNotCoordinator) {
			t.Fatalf("without a leader: %v", err)
		}
		flush()
		b.commit(&metadata.PartitionChangeRecord{TopicId: offsetsID.Bytes(), Leader: new(int32(1))})
		b.settle()
		if got := b.committed("g"); got != 2 {
			t.Fatalf("%d is committed, and 2 was written", got)
		}
		if _, err := old.replica.AppendOwn(oneRecord(t), old.epoch, time.Now().UnixMilli()); !errors.Is(err, replica.ErrNotLeader) {
			t.Fatalf("append in epoch %d: %v", old.epoch, err)
		}
		b.mustCommit("g", 4)
	})
}

// Who has lost its leadership tells nobody that nothing is committed either, for the next coordinator may have let somebody commit
// before the answer went out.
func TestWhoLostItsLeadershipDoesNotSayNothing(t *testing.T) {
	for name, before := range map[string]func(b *broker){
		"log is empty":   func(*broker) {},
		"log is another": func(b *broker) { b.mustCommit("other", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				b := newBroker(t, disk.NewMem(), nil)
				b.settle()
				before(b)
				asking := b.ask("g")
				b.settle()
				b.commit(&metadata.PartitionChangeRecord{TopicId: offsetsID.Bytes(), Leader: new(int32(-1))})
				res, err := asking.Await(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if g := res.(*kmsg.OffsetFetchResponse).Groups[0]; g.ErrorCode != kerr.NotCoordinator.Code {
					t.Fatalf("told code %d, %v", g.ErrorCode, g.Topics)
				}
			})
		})
	}
}

func oneRecord(t *testing.T) batch.Batch {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	b.Append(time.Now().UnixMilli(), []byte{0, 9, 'x'}, []byte("value"), nil)
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// Nobody who waits any more is kept in mind.
func TestWhoGoesIsForgotten(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), []string{"group.initial.rebalance.delay.ms=100000"})
		b.settle()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		c := b.join("team", "")
		go func() {
			_, err := c.Await(ctx)
			done <- err
		}()
		b.settle()
		if n := len(b.the().calls); n != 1 {
			t.Fatalf("%d calls", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		b.settle()
		if n := len(b.the().calls); n != 0 {
			t.Fatalf("%d calls", n)
		}
	})
}

// goroutines counts those of the bubble. runtime.NumGoroutine counts those too that are just ending, and a
// bubble is at rest before they have ended.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte(", synctest bubble "))
}

// A partition that has nothing to do costs a goroutine, and no buffer.
func TestIdlePartitionCostsOneGoroutine(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		before := goroutines()
		const more = 49
		for n := range int32(more) {
			b.commit(led(offsetsID, n+1))
		}
		b.settle()
		if n := goroutines() - before; n != more {
			t.Fatalf("%d goroutines for %d partitions", n, more)
		}
		for n := range 100 {
			b.mustCommit(fmt.Sprint("g", n), 1)
		}
		b.settle()
		for _, p := range b.led() {
			if p.builder != nil || len(p.calls) > 0 || cap(p.events) > maxKeptEvents {
				t.Fatalf("%v keeps a builder (%v), %d calls, %d events", p, p.builder != nil, len(p.calls), cap(p.events))
			}
		}
	})
}

// Records that are not understood, or of groups that are not kept here, keep nobody from loading the rest.
func TestForeignRecordsAreLeftOut(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), nil)
		b.settle()
		b.mustCommit("g", 1)
		p := b.the()
		made := batch.NewBuilder(batch.BuilderOptions{Codec: batch.Zstd})
		for _, key := range [][]byte{{}, {0}, {0, 3, 0, 1, 'g'}, {0, 99}, {0, 1, 0, 200}, {0, 2, 0, 1, 'x'}} {
			made.Append(time.Now().UnixMilli(), key, []byte{0, 77}, nil)
		}
		built, err := made.Build()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.replica.AppendOwn(built, p.epoch, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
		b.commit(&metadata.PartitionChangeRecord{TopicId: offsetsID.Bytes(), Leader: new(int32(1))})
		b.settle()
		if got := b.committed("g"); got != 1 {
			t.Fatalf("%d is committed", got)
		}
		if !strings.Contains(b.logged.String(), "records=6") {
			t.Fatalf("nobody is told of the records left out:\n%s", b.logged)
		}
	})
}

// What follows from an event may wait for others for group.coordinator.append.linger.ms.
func TestLingerGathers(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), []string{"group.coordinator.append.linger.ms=50"})
		b.settle()
		began := time.Now()
		var calls []*Call
		for n := range 5 {
			calls = append(calls, b.offer(fmt.Sprint("g", n), 1, 1, ""))
			time.Sleep(5 * time.Millisecond)
		}
		for _, c := range calls {
			if code, err := outcome(t.Context(), c); code != 0 || err != nil {
				t.Fatalf("code %d, %v", code, err)
			}
		}
		if took := time.Since(began); took < 50*time.Millisecond || took > 60*time.Millisecond {
			t.Fatalf("after %v", took)
		}
		if counts, _ := b.batches(); fmt.Sprint(counts) != "[5]" {
			t.Fatalf("batches of %v records", counts)
		}
	})
}
