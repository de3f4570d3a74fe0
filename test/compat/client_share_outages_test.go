//go:build compat && longer

package compat

// Share groups whose brokers are killed. They take minutes, and run with make compat.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"barnabas/client"
	"barnabas/client/share"
	"barnabas/test/compat/rig"
)

// A broker that is killed with -9 takes its sessions with it: what was held comes again, nothing is left out,
// and what was acknowledged does not come again.
func TestShareConsumerBrokerIsKilled(t *testing.T) {
	t.Log("runs on Apache Kafka 4.3.1, one node")
	broker := rig.StartKafka(t, shareSettings...)
	addr, topic := broker.Addr, uniqueTopic("killed")
	group := newShareGroup(t, addr)
	createTopic(t, addr, topic, 2)
	produceValues(t, addr, topic, 300, 20)
	q := newSharer(t, addr, group, topic, share.Explicit(), share.MaxPollRecords(20), share.RecordLimit())
	accepted := map[client.TopicPartition]map[int64]bool{}
	polls, done := 0, 0
	for done < 300 {
		records := pollShare(t, q)
		if polls++; polls == 5 {
			broker.Kill()
			broker.Restart()
		}
		for i := range records {
			r := &records[i]
			if accepted[r.TopicPartition()][r.Offset] {
				t.Errorf("%v offset %d was accepted and comes again", r.TopicPartition(), r.Offset)
			}
			if err := q.Acknowledge(share.Accept, r); err != nil && !errors.Is(err, share.ErrLost) {
				t.Error(err)
			}
		}
		results, err := q.Commit(within(t, patience))
		if err != nil && !errors.Is(err, share.ErrLost) {
			t.Errorf("poll %d: %v", polls, err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Logf("poll %d: %d of %v: %v", polls, len(r.Offsets), r.TopicPartition, r.Err)
				continue
			}
			if accepted[r.TopicPartition] == nil {
				accepted[r.TopicPartition] = map[int64]bool{}
			}
			for _, o := range r.Offsets {
				accepted[r.TopicPartition][o] = true
				done++
			}
		}
	}
	shareDone(t, addr, group, topic)
}

// Leaders change while records are held: three nodes of Apache Kafka, each of which is killed once. A system
// without share groups says so.
func TestShareConsumerLeadersChange(t *testing.T) {
	t.Log("runs on", rig.System())
	c := rig.StartCluster(t, 3, shareSettings...)
	addr := c.Addresses()
	topic := uniqueTopic("leaders")
	if rig.System() != "kafka" {
		withoutShareGroups(t, addr, topic)
		return
	}
	group := newShareGroup(t, addr)
	if _, err := admin(t, addr).CreateTopic(within(t, patience), 6, 3, nil, topic); err != nil {
		t.Fatal(err)
	}
	into := newReading()
	stopWriting := produceSlowly(t, addr, topic)
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	var members sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for m := range 2 {
		q := newSharer(t, addr, group, topic, share.OnAcknowledged(func(results []share.Result) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range results {
				if r.Err == nil {
					accepted += len(r.Offsets)
				}
			}
		}))
		members.Go(func() {
			for {
				records, err := q.Poll(reading)
				if reading.Err() != nil {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range records {
					into.add(fmt.Sprint(m), r.Partition, r.Offset)
				}
			}
		})
	}
	for id := 1; id <= 3; id++ {
		before, _ := into.total()
		rig.Eventually(t, patience, "records are read", func() bool { now, _ := into.total(); return now > before+50 })
		c.Node(id).Kill()
		before, _ = into.total()
		rig.Eventually(t, patience, fmt.Sprintf("records are read without node %d", id), func() bool { now, _ := into.total(); return now > before+50 })
		c.Restart(id)
	}
	want := stopWriting()
	allRead(t, into, want)
	shareDone(t, addr, group, topic) // though not every answer that said so has arrived
	stop()
	members.Wait()
	_, again := into.total()
	t.Logf("%d records, %d of them more than once, %d acknowledgements taken", want, again, accepted)
}
