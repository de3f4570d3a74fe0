package clustertest

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// TestOffsetsOfAnEarlyGroupOutliveTheFirstDisk: a group commits while a cluster is one node. Once two more have joined the topic
// of offsets has three in-sync replicas, without a word from anybody and without a commit refused on the way, so that the
// first disk can be lost with nothing committed.
func TestOffsetsOfAnEarlyGroupOutliveTheFirstDisk(t *testing.T) {
	for seed := range Seeds(4) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3, quick...)
			voters := nodes[1].Setting("controller.quorum.voters")
			first := nodes[0]
			first.Set("controller.quorum.voters")
			first.MustStart()
			c := w.MustDial("client", first)
			w.mustCreate(c, "orders", 2)
			w.mustMeet(c, "readers")
			w.mustCommit(c, "readers", "orders", map[int32]int64{0: 7, 1: 9})
			if err := first.Stop(); err != nil {
				w.Fatalf("stop: %v", err)
			}
			first.Set("controller.quorum.voters=" + voters)
			w.StartAll(nodes...)
			c = w.MustDial("client", first)
			w.committed(c, "readers", "orders")
			next := int64(10)
			w.Eventually("three replicas of the topic of offsets are in sync", 20*time.Second, func() bool {
				w.mustCommit(c, "readers", "orders", map[int32]int64{1: next})
				next++
				topic, _ := first.Broker().Image().Topic("__consumer_offsets")
				for _, p := range topic.Partitions {
					if p.Leader != 1 || len(p.ISR) != 3 || len(p.Adding) > 0 {
						return false
					}
				}
				return true
			})
			w.Eventually("three nodes vote", 10*time.Second, func() bool { return len(w.quorum(c).CurrentVoters) == 3 })
			first.Wipe()
			asks := w.MustDial("asks", nodes[1])
			var at int32
			w.Eventually("another node coordinates", 10*time.Second, func() bool {
				at = w.coordinatorOf(asks, "readers")
				return at != 1
			})
			want := map[int32]int64{0: 7, 1: next - 1}
			if got := w.committed(w.MustDial("reads", nodes[at-1]), "readers", "orders"); !maps.Equal(got, want) {
				w.Fatalf("committed is %v, was %v", got, want)
			}
			first.MustStart()
			w.whole(nodes, 20*time.Second, "__consumer_offsets")
			for n := range int32(4) {
				p := w.partition(first, "__consumer_offsets", n)
				if !slices.Equal(slices.Sorted(slices.Values(p.Replicas)), []int32{1, 2, 3}) {
					w.Fatalf("partition %d: %+v", n, p)
				}
			}
		})
	}
}

// TestMoreReplicasDoNotStopWrites: a partition that gets more replicas takes writes as before until these have caught up, also where
// the number of in-sync replicas that is asked for is left to their number, which asks for two of three.
func TestMoreReplicasDoNotStopWrites(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		w.StartAll(nodes...)
		for range 2 {
			n := w.Broker(nodes)
			n.MustStart()
			nodes = append(nodes, n)
		}
		c := w.MustDial("admin", nodes[0])
		if err := c.PlaceTopic(w.Context(), "orders", 1, 1); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		nodes[3].Kill()
		nodes[4].Kill()
		one := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		one.Replicas = []int32{1, 4, 5}
		topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		topic.Topic, topic.Partitions = "orders", append(topic.Partitions, one)
		q := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		q.TimeoutMillis, q.Topics = timeoutMillis, append(q.Topics, topic)
		res, err := Call[*kmsg.AlterPartitionAssignmentsResponse](w.Context(), c, q)
		if err != nil || res.ErrorCode != 0 || res.Topics[0].Partitions[0].ErrorCode != 0 {
			w.Fatalf("%+v, %v", res, err)
		}
		w.mustProduce(c, "orders", 0, "meanwhile")
		for _, n := range nodes[3:] {
			n.MustStart()
		}
		w.whole(nodes, 20*time.Second, "orders")
		nodes[3].Kill()
		nodes[4].Kill()
		w.Eventually("the others are missed", 10*time.Second, func() bool {
			return len(w.partition(nodes[0], "orders", 0).ISR) == 1
		})
		if _, err := c.Produce(w.Context(), -1, "orders", 0, Batch(now(), batch.None, "alone")); !errors.Is(err, kerr.NotEnoughReplicas) {
			w.Fatalf("of three replicas one is left, and a write was answered %v", err)
		}
	})
}
