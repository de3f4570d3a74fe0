package clustertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// sequenced is a batch of one record of an idempotent producer.
func sequenced(w *World, producer int64, sequence int32, value string) batch.Batch {
	w.T.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	b.Append(time.Now().UnixMilli(), nil, []byte(value), nil)
	b.SetProducer(producer, 0, sequence, false)
	made, err := b.Build()
	if err != nil {
		w.Fatalf("build a batch: %v", err)
	}
	return made
}

// cutOff cuts all lines between a node and the others; clients reach it. mend ends that.
func (w *World) cutOff(n *Node, nodes []*Node) (mend func()) {
	each := func(f func(a, b string)) {
		for _, other := range nodes {
			if other != n {
				f(n.Name, other.Name)
			}
		}
	}
	each(w.Net.Cut)
	return func() { each(w.Net.Heal) }
}

// TestCutOffLeaderSendsItsClientsAway: a leader that no other node answers any more has its clients look for another one once its
// session is over, those that wait too; what they then repeat is there once; and it goes on with what no other can lead.
func TestCutOffLeaderSendsItsClientsAway(t *testing.T) {
	threeNodes(t, 9, func(w *World, nodes []*Node) {
		defer func() {
			if w.T.Failed() {
				w.T.Log(w.logs(nodes))
			}
		}()
		c := w.MustDial("admin", nodes[0])
		old, id := nodes[w.Seed%3], int32(1+w.Seed%3) // the controller is any of the three
		others := []int32{1 + id%3, 1 + (id+1)%3}
		for name, replicas := range map[string][]int32{"orders": {id, others[0], others[1]}, "alone": {id}} {
			if err := c.PlaceTopic(w.Context(), name, 1, replicas...); err != nil {
				w.Fatalf("%v", err)
			}
		}
		w.whole(nodes, 5*time.Second, "orders", "alone")
		at := w.MustDial("client", old)
		if _, err := at.Produce(w.Context(), -1, "orders", 0, sequenced(w, 1000, 0, "before")); err != nil {
			w.Fatalf("%v", err)
		}
		time.Sleep(time.Duration(w.Dice("test").Int64N(int64(time.Second))))

		began := time.Now()
		mend := w.cutOff(old, nodes)
		again := sequenced(w, 1000, 1, "while cut off")
		var waiting sync.WaitGroup
		sentAway := func(who string, f func(*Client) error) {
			own := w.MustDial(who, old)
			waiting.Go(func() {
				err := f(own)
				if took := time.Since(began); !errors.Is(err, kerr.NotLeaderForPartition) || took > 2200*time.Millisecond {
					w.Errorf("the %s was answered %v after %v", who, err, took)
				}
			})
		}
		sentAway("producer", func(c *Client) error {
			_, err := c.Produce(w.Context(), -1, "orders", 0, again)
			return err
		})
		sentAway("consumer", func(c *Client) error {
			_, err := c.Fetch(w.Context(), "orders", 0, 1, FetchOptions{MaxWaitMillis: timeoutMillis, MinBytes: 1})
			return err
		})
		waiting.Wait()
		w.checkCutOff(at)

		fresh := w.MustDial("client", nodes[others[0]-1])
		w.Eventually("another leads", 5*time.Second, func() bool { return w.leaderOf(fresh, "orders", 0) != id })
		leader := w.MustDial("client", nodes[w.leaderOf(fresh, "orders", 0)-1])
		if _, err := leader.Produce(w.Context(), -1, "orders", 0, again); err != nil {
			w.Fatalf("what was sent again: %v", err)
		}
		mend()
		w.whole(nodes, 20*time.Second, "orders")
		leader = w.MustDial("client", nodes[w.leaderOf(fresh, "orders", 0)-1])
		got, err := leader.ReadAll(w.Context(), "orders", 0, 0)
		if err != nil || len(got) != 2 || got[0].Value != "before" || got[1].Value != "while cut off" {
			w.Fatalf("read %v: %v", got, err)
		}
	})
}

// checkCutOff looks what a node that is cut off answers at once.
func (w *World) checkCutOff(c *Client) {
	w.T.Helper()
	for _, acks := range []int16{1, -1} {
		began := time.Now()
		res, err := Call[*kmsg.ProduceResponse](w.Context(), c, ProduceRequest(acks, "orders", 0, Batch(1, batch.None, "late")))
		if err != nil {
			w.Fatalf("%v", err)
		}
		p, err := Produced(res)
		if took := time.Since(began); !errors.Is(err, kerr.NotLeaderForPartition) || took > 50*time.Millisecond || p.CurrentLeader.LeaderID != -1 {
			w.Fatalf("acks=%d: %v after %v, to %d", acks, err, took, p.CurrentLeader.LeaderID)
		}
		if _, err := c.Produce(w.Context(), acks, "alone", 0, Batch(1, batch.None, "on")); err != nil {
			w.Fatalf("acks=%d, of a partition that nobody else has: %v", acks, err)
		}
	}
	if got, err := c.Fetch(w.Context(), "orders", 0, 0, FetchOptions{}); err != nil || len(got.RecordBatches) == 0 {
		w.Fatalf("what is committed: %d bytes, %v", len(got.RecordBatches), err)
	}
	// A consumer that is told of an offset out of range begins anew, at the first record perhaps, while another leader has what it asks for.
	if _, err := c.Fetch(w.Context(), "orders", 0, 1000, FetchOptions{}); !errors.Is(err, kerr.NotLeaderForPartition) {
		w.Fatalf("beyond the end: %v", err)
	}
}

// TestLeaderThatWasReplacedDeniesNothing: a leader that has not heard yet that there is another is asked for what only the other
// has. It may not say that there is no such thing, for whoever is told so begins anew; whole clusters say so at once.
func TestLeaderThatWasReplacedDeniesNothing(t *testing.T) {
	threeNodes(t, 24, func(w *World, nodes []*Node) {
		c := w.MustDial("admin", nodes[0])
		controller := w.leader(c, nodes)
		old := controller
		if w.Seed%2 == 0 { // the two cases differ in who could answer too soon
			old = without(nodes, controller)[w.Seed/2%2]
		}
		rest := without(nodes, old)
		id := int32(1 + slices.Index(nodes, old))
		if err := c.PlaceTopic(w.Context(), "orders", 1, id, 1+id%3, 1+(id+1)%3); err != nil {
			w.Fatalf("%v", err)
		}
		if err := c.PlaceTopic(w.Context(), "spread", 4, id, 1+id%3, 1+(id+1)%3); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders", "spread")
		at, fresh := w.MustDial("client", old), w.MustDial("client", rest[0])
		for n := range int32(4) {
			if _, err := at.Produce(w.Context(), -1, "spread", n, Batch(1, batch.None, "some")); err != nil {
				w.Fatalf("%v", err)
			}
		}
		if _, err := at.Produce(w.Context(), -1, "orders", 0, Batch(1, batch.None, "before")); err != nil {
			w.Fatalf("%v", err)
		}
		for _, wait := range []int32{0, timeoutMillis} {
			began := time.Now()
			_, err := at.Fetch(w.Context(), "orders", 0, 3, FetchOptions{MaxWaitMillis: wait})
			if took := time.Since(began); !errors.Is(err, kerr.OffsetOutOfRange) || took > 60*time.Millisecond {
				w.Fatalf("beyond the end, of a leader that is none the less: %v after %v", err, took)
			}
		}
		w.checkBeyondBesideOthers(at)
		if code, found, end := w.epochEnd(at, 1000); code != 0 || found != -1 || end != -1 {
			w.Fatalf("an epoch that nobody has heard of: code %d, epoch %d, end %d", code, found, end)
		}

		mend := w.cutOff(old, nodes)
		w.Eventually("another leads", 5*time.Second, func() bool { return w.leaderOf(fresh, "orders", 0) != id })
		topic, err := fresh.Topic(w.Context(), "orders")
		if err != nil {
			w.Fatalf("%v", err)
		}
		leader := w.MustDial("client", nodes[topic.Partitions[0].Leader-1])
		for range 2 {
			if _, err := leader.Produce(w.Context(), -1, "orders", 0, Batch(1, batch.None, "after")); err != nil {
				w.Fatalf("%v", err)
			}
		}
		for range 3 {
			if _, err := at.Fetch(w.Context(), "orders", 0, 3, FetchOptions{}); !errors.Is(err, kerr.NotLeaderForPartition) {
				w.Fatalf("beyond the end: %v", err)
			}
			if code, found, _ := w.epochEnd(at, topic.Partitions[0].LeaderEpoch); code != kerr.NotLeaderForPartition.Code {
				w.Fatalf("an epoch of another leader: code %d, epoch %d", code, found)
			}
		}
		mend()
		w.whole(nodes, 20*time.Second, "orders")
	})
}

// checkBeyondBesideOthers asks one time for partitions that are beyond the end and for some that are not: everyone is answered, in
// the order of the request, however little room there is.
func (w *World) checkBeyondBesideOthers(c *Client) {
	w.T.Helper()
	const beyond, whole = 77, 0
	for _, from := range [][]int64{{beyond, whole}, {whole, beyond}, {beyond, whole, beyond, whole}} {
		for _, room := range []int32{1, 1 << 20} {
			q := kmsg.NewPtrFetchRequest()
			q.MaxBytes, q.MinBytes, q.MaxWaitMillis, q.SessionEpoch = room, 1, timeoutMillis, -1
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic = "spread"
			for n, offset := range from {
				p := kmsg.NewFetchRequestTopicPartition()
				p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = int32(n), offset, 1<<20, -1
				topic.Partitions = append(topic.Partitions, p)
			}
			q.Topics = append(q.Topics, topic)
			began := time.Now()
			res, err := Call[*kmsg.FetchResponse](w.Context(), c, q)
			if err != nil || res.ErrorCode != 0 || len(res.Topics) != 1 || len(res.Topics[0].Partitions) != len(from) || time.Since(began) > 60*time.Millisecond {
				w.Fatalf("%v with room for %d: %+v, %v after %v", from, room, res, err, time.Since(began))
			}
			read := 0
			for n, p := range res.Topics[0].Partitions {
				read += min(len(p.RecordBatches), 1)
				if want := from[n] == beyond; (p.ErrorCode == kerr.OffsetOutOfRange.Code) != want || p.ErrorCode != 0 && len(p.RecordBatches) > 0 {
					w.Fatalf("%v with room for %d: partition %d: code %d, %d bytes", from, room, n, p.ErrorCode, len(p.RecordBatches))
				}
			}
			if read == 0 {
				w.Fatalf("%v with room for %d: nothing was read", from, room)
			}
		}
	}
}

// epochEnd asks a node where an epoch of orders ends.
func (w *World) epochEnd(c *Client, epoch int32) (code int16, found int32, end int64) {
	w.T.Helper()
	q := kmsg.NewPtrOffsetForLeaderEpochRequest()
	q.ReplicaID = -1
	part := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	part.LeaderEpoch = epoch
	q.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{part}}}
	res, err := Call[*kmsg.OffsetForLeaderEpochResponse](w.Context(), c, q)
	if err != nil {
		w.Fatalf("%v", err)
	}
	got := res.Topics[0].Partitions[0]
	return got.ErrorCode, got.LeaderEpoch, got.EndOffset
}

// TestCutOffCoordinatorSendsItsMembersAway: so do the coordinators of groups.
func TestCutOffCoordinatorSendsItsMembersAway(t *testing.T) {
	for seed := range Seeds(4) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3, "offsets.topic.num.partitions=1")
			w.StartAll(nodes...)
			c := w.MustDial("admin", nodes[0])
			if _, err := c.CreateTopic(w.Context(), "orders", 1); err != nil {
				w.Fatalf("%v", err)
			}
			id, err := c.Coordinator(w.Context(), "g")
			if err != nil {
				w.Fatalf("%v", err)
			}
			w.whole(nodes, 5*time.Second, "orders", "__consumer_offsets")
			old := nodes[id-1]
			at := w.MustDial("client", old)
			if err := at.Commit(w.Context(), "g", "orders", map[int32]int64{0: 5}); err != nil {
				w.Fatalf("%v", err)
			}
			first, second := at.NewMember("g2"), w.MustDial("second", old).NewMember("g2")
			w.form(first)
			var waits *Pending // for the first to join again, which it does not
			for waits == nil {
				if waits, err = second.StartJoin(w.Context()); err != nil {
					w.Fatalf("%v", err)
				}
				if second.ID == "" { // it is given one at first
					_, waits = second.Joined(w.Context(), waits), nil
				}
			}
			began := time.Now()
			defer w.cutOff(old, nodes)()
			if err := second.Joined(w.Context(), waits); !errors.Is(err, kerr.NotCoordinator) || time.Since(began) > 2200*time.Millisecond {
				w.Fatalf("a member that waits for the others was answered %v after %v", err, time.Since(began))
			}
			for _, from := range []string{"a wait", "at once"} {
				if err := at.Commit(w.Context(), "g", "orders", map[int32]int64{0: 7}); !errors.Is(err, kerr.NotCoordinator) {
					w.Fatalf("a commit with %s: %v", from, err)
				}
				if took := time.Since(began); took > 2200*time.Millisecond {
					w.Fatalf("answered after %v", took)
				}
			}
			if _, err := at.Committed(w.Context(), "g", "orders"); !errors.Is(err, kerr.NotCoordinator) {
				w.Fatalf("what is committed: %v", err)
			}
			if err := at.NewMember("g").Heartbeat(w.Context()); !errors.Is(err, kerr.NotCoordinator) {
				w.Fatalf("a heartbeat: %v", err)
			}
		})
	}
}

// TestLeadersGoOnWithoutAController: who hears another broker leads on, however long nobody decides.
func TestLeadersGoOnWithoutAController(t *testing.T) {
	threeNodes(t, 4, func(w *World, nodes []*Node) {
		for range 2 {
			n := w.Broker(nodes)
			n.MustStart()
			nodes = append(nodes, n)
		}
		c := w.MustDial("admin", nodes[3])
		if err := c.PlaceTopic(w.Context(), "orders", 2, 4, 5); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		for _, n := range nodes[:3] {
			n.Kill()
		}
		for second := range 8 {
			for _, acks := range []int16{1, -1} {
				began := time.Now()
				_, err := c.Produce(w.Context(), acks, "orders", 0, Batch(1, batch.None, "on"))
				if took := time.Since(began); err != nil || took > 60*time.Millisecond {
					w.Fatalf("after %d seconds, acks=%d: %v after %v", second, acks, err, took)
				}
			}
			time.Sleep(time.Second)
		}
		w.StartAll(nodes[:3]...)
	})
}

// TestControllerFailoverStopsNoLeader: while another controller is elected, leaders that lose no replica answer as ever.
func TestControllerFailoverStopsNoLeader(t *testing.T) {
	threeNodes(t, 6, func(w *World, nodes []*Node) {
		c := w.MustDial("admin", nodes[0])
		controller := int32(1 + slices.Index(nodes, w.leader(c, nodes)))
		first, second := 1+controller%3, 1+(controller+1)%3
		if err := c.PlaceTopic(w.Context(), "orders", 1, first, second); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		at := w.MustDial("client", nodes[first-1])
		if w.Seed%2 == 0 {
			nodes[controller-1].Kill()
		} else {
			w.Net.Isolate(nodes[controller-1].Name)
		}
		for began := time.Now(); time.Since(began) < 5*time.Second; {
			sent := time.Now()
			_, err := at.Produce(w.Context(), -1, "orders", 0, Batch(1, batch.None, "on"))
			if took := time.Since(sent); err != nil || took > 60*time.Millisecond {
				w.Fatalf("%v after %v", err, took)
			}
			time.Sleep(7 * time.Millisecond)
		}
	})
}

// TestLeaderGoesOnWhenItIsHeardAgain: who was cut off, and was nobody's loss, leads on with all it had once the others are there.
func TestLeaderGoesOnWhenItIsHeardAgain(t *testing.T) {
	threeNodes(t, 4, func(w *World, nodes []*Node) {
		c := w.MustDial("admin", nodes[0])
		if err := c.PlaceTopic(w.Context(), "orders", 1, 1, 2, 3); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		want := 0
		produce := func() error {
			_, err := c.Produce(w.Context(), -1, "orders", 0, sequenced(w, 1000, int32(want), fmt.Sprint(want)))
			if err == nil {
				want++
			}
			return err
		}
		if err := produce(); err != nil {
			w.Fatalf("%v", err)
		}
		nodes[1].Kill()
		nodes[2].Kill()
		time.Sleep(3 * time.Second)
		if err := produce(); !errors.Is(err, kerr.NotLeaderForPartition) {
			w.Fatalf("alone: %v", err)
		}
		w.StartAll(nodes[1:]...)
		w.whole(nodes, 20*time.Second, "orders")
		c = w.MustDial("admin", nodes[w.leaderOf(c, "orders", 0)-1])
		w.Eventually("the leader goes on", time.Second, func() bool { return produce() == nil })
		got, err := c.ReadAll(w.Context(), "orders", 0, 0)
		if err != nil || len(got) != 2 || got[0].Value != "0" || got[1].Value != "1" {
			w.Fatalf("read %v: %v", got, err)
		}
	})
}

// TestSingleNodeIsNeverCutOff: there is nobody to be cut off from.
func TestSingleNodeIsNeverCutOff(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(1)
		w.StartAll(nodes...)
		c := w.MustDial("client", nodes[0])
		if _, err := c.CreateTopic(w.Context(), "orders", 1); err != nil {
			w.Fatalf("%v", err)
		}
		for second := range 10 {
			time.Sleep(time.Second)
			for _, acks := range []int16{1, -1} {
				if _, err := c.Produce(w.Context(), acks, "orders", 0, Batch(1, batch.None, "on")); err != nil {
					w.Fatalf("after %d seconds, acks=%d: %v", second, acks, err)
				}
			}
		}
	})
}
