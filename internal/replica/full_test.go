package replica

import (
	"fmt"
	"testing"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

// TestFullDiskIsNotFedAllTheTime: a follower whose disk is full has its leaders send little that it cannot take, however
// many partitions wait; it takes everything by itself once there is room, and what does not need any goes on meanwhile.
func TestFullDiskIsNotFedAllTheTime(t *testing.T) {
	var topics []worldTopic
	const partitions, size = 20, 100_000
	for i := range partitions {
		topics = append(topics, worldTopic{name: fmt.Sprint("t", i), id: byte(i + 1), numbers: 1, on: []int32{1, 3}, configs: map[string]string{"min.insync.replicas": "1"}})
	}
	for seed := range uint64(3) {
		inWorld(t, 40+seed, topics, func(t *testing.T, w *world) {
			for _, topic := range topics {
				w.awaitLeader(topic.name, 1).append(t, 1)
			}
			w.await("all in sync", w.whole)
			<-time.After(2 * time.Second)
			w.nodes[2].disk.SetCapacity(1)
			for _, topic := range topics {
				writeLarge(t, w.on(1, topic.name), 1, size)
			}
			before := w.carried.Load()
			<-time.After(2 * time.Minute)
			// Each partition once, and then one of them from time to time.
			if got := w.carried.Load() - before; got > (partitions+12)*size {
				t.Errorf("seed %d: %d bytes have been sent to a full disk, %d wait", w.seed, got, partitions*size)
			}
			for _, topic := range topics {
				if at := w.on(3, topic.name).Progress(); at.End != 1 {
					t.Fatalf("seed %d: %s: %+v on a full disk", w.seed, topic.name, at)
				}
			}
			if seed == 1 { // another takes the turn of those that go
				for _, topic := range topics[:partitions-1] {
					w.commit(&metadata.TopicRemovalRecord{TopicId: topicID(topic.id).Bytes()})
				}
				<-time.After(time.Minute)
			}
			w.nodes[2].disk.SetCapacity(0)
			at := time.Now()
			w.await("all in sync", w.whole)
			if took := time.Since(at); took > lastRoom+5*time.Second {
				t.Errorf("seed %d: in sync %v after there was room", w.seed, took)
			}
		})
	}
}

// TestFullDiskIsNotTriedWithWhatCannotBeCopied: a partition that its leader cannot read shows nobody whether there is room, so
// another one's turn comes.
func TestFullDiskIsNotTriedWithWhatCannotBeCopied(t *testing.T) {
	topics := []worldTopic{{name: "broken", id: 1, numbers: 1, on: []int32{1, 3}}, {name: "whole", id: 2, numbers: 1, on: []int32{1, 3}}}
	inWorld(t, 45, topics, func(t *testing.T, w *world) {
		w.awaitLeader("broken", 1).append(t, 1)
		w.awaitLeader("whole", 1).append(t, 1)
		now := time.Now()
		f := newFetcher(w.nodes[2].manager().links, 1) // one that does not run
		broken, whole := &pull{p: w.on(3, "broken"), slot: 1}, &pull{p: w.on(3, "whole"), slot: 2}
		f.noRoom(broken, now, commitlog.ErrNoSpace)
		f.noRoom(whole, now, commitlog.ErrNoSpace)
		if broken.waits || !whole.waits {
			t.Fatalf("%+v, %+v: the first is asked for, the second waits", broken, whole)
		}
		for f.collect(now); !broken.queued; f.collect(now) {
			now = now.Add(time.Second)
		}
		f.unqueue(broken) // it is asked for
		f.apply(broken, &part{slot: 1, code: answerFailed}, now)
		if whole.waits || !whole.queued {
			t.Errorf("%+v waits for %+v, which its leader cannot read", whole, broken)
		}
	})
}

// TestFullDiskIsTriedWithWhatIsNotThrottled: where a throttle of nothing at all holds back the partition that would show whether
// there is room, here or at its leader's, another one shows it.
func TestFullDiskIsTriedWithWhatIsNotThrottled(t *testing.T) {
	for _, side := range []string{"leader", "follower"} {
		for seed, order := range [][]string{{"held", "free"}, {"free", "held"}} {
			t.Run(side+" "+order[0], func(t *testing.T) {
				topics := []worldTopic{
					{name: order[0], id: 1, numbers: 1, on: []int32{1, 2, 3}, configs: map[string]string{"min.insync.replicas": "1"}},
					{name: order[1], id: 2, numbers: 1, on: []int32{1, 2, 3}, configs: map[string]string{"min.insync.replicas": "1"}},
				}
				inWorld(t, 46+uint64(seed), topics, func(t *testing.T, w *world) {
					for _, topic := range topics {
						w.awaitLeader(topic.name, 1).append(t, 1)
					}
					w.await("all in sync", w.whole)
					<-time.After(2 * time.Second)
					w.nodes[2].disk.SetCapacity(1)
					for _, topic := range topics {
						writeLarge(t, w.on(1, topic.name), 1, 100_000)
						<-time.After(100 * time.Millisecond)
					}
					w.await("it to leave", func() bool {
						return len(w.on(1, "held").InSync()) == 2 && len(w.on(1, "free").InSync()) == 2
					})
					w.set(metadata.TopicResource, "held", side+".replication.throttled.replicas", "*")
					w.set(metadata.BrokerResource, "", side+".replication.throttled.rate", "0")
					<-time.After(2 * lastRoom)
					w.nodes[2].disk.SetCapacity(0)
					at := time.Now()
					w.await("what is not throttled", func() bool { return len(w.on(1, "free").InSync()) == 3 })
					if took := time.Since(at); took > lastRoom+triedFor+5*time.Second {
						t.Errorf("it took %v", took)
					}
					if n := len(w.on(1, "held").InSync()); n == 3 {
						t.Error("the throttle holds nothing")
					}
					w.set(metadata.BrokerResource, "", side+".replication.throttled.rate", "1000000")
					w.await("all", w.whole)
				})
			})
		}
	}
}
