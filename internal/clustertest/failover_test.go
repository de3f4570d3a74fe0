package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// journal is what one idempotent producer has had acknowledged in one partition. It writes numbers in ascending order, one
// batch at a time, and repeats a batch until it has an answer: so every acknowledged number must be in the partition
// exactly once, at the offset that was told, and all in order.
type journal struct {
	w         *World
	nodes     []*Node
	topic     string
	partition int32
	dice      *rand.Rand
	producer  int64

	next    int           // number
	acked   map[int]int64 // number: offset
	longest time.Duration // between two answers

	conns  map[int32]*Client
	leader int32
}

func (w *World) newJournal(nodes []*Node, topic string, partition int32, producer int64) *journal {
	return &journal{
		w: w, nodes: nodes, topic: topic, partition: partition, producer: producer, acked: map[int]int64{}, conns: map[int32]*Client{},
		dice: w.Dice(fmt.Sprint("producer ", topic, partition)),
	}
}

func (j *journal) host() string { return fmt.Sprint("client", j.partition) }

// write goes on until done is closed, and then until its last batch has an answer.
func (j *journal) write(ctx context.Context, done <-chan struct{}) {
	defer j.close()
	for {
		select {
		case <-done:
			return
		default:
		}
		first, n := j.next, 1+j.dice.IntN(3)
		j.next += n
		b := batch.NewBuilder(batch.BuilderOptions{})
		for i := range n {
			b.Append(time.Now().UnixMilli(), nil, []byte(strconv.Itoa(first+i)), nil)
		}
		b.SetProducer(j.producer, 0, int32(first), false)
		made, err := b.Build()
		if err != nil {
			panic(fmt.Sprintf("BUG: build a batch: %v", err))
		}
		began := time.Now()
		offset, ok := j.insist(ctx, made)
		if !ok {
			return
		}
		j.longest = max(j.longest, time.Since(began))
		for i := range n {
			j.acked[first+i] = offset + int64(i)
		}
		if j.dice.IntN(4) == 0 {
			Jitter(j.dice, 20*time.Millisecond)
		}
	}
}

// insistence is how long a producer tries; longer than anything that a world has happen to it lasts.
const insistence = 5 * time.Minute

// insist sends a batch until it is acknowledged. It gives up with the world, or when nobody has taken it for long.
func (j *journal) insist(ctx context.Context, b batch.Batch) (offset int64, ok bool) {
	for began := time.Now(); ctx.Err() == nil; {
		offset, err := j.try(ctx, b)
		switch {
		case err == nil:
			return offset, true
		case time.Since(began) > insistence:
			j.w.Errorf("%s-%d: batch at %d: not taken within %v, at last by %d: %v", j.topic, j.partition, b.BaseSequence(), insistence, j.leader, err)
			return 0, false
		case errors.Is(err, kerr.OutOfOrderSequenceNumber), errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.DuplicateSequenceNumber):
			j.w.Errorf("%s-%d: batch at %d: what was known of the producer is lost: %v", j.topic, j.partition, b.BaseSequence(), err)
			return 0, false
		}
		j.leader = -1
		Jitter(j.dice, 20*time.Millisecond)
	}
	return 0, false
}

func (j *journal) try(ctx context.Context, b batch.Batch) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if j.leader < 1 {
		at := int32(1 + j.dice.IntN(len(j.nodes)))
		c, err := j.conn(ctx, at)
		if err != nil {
			return 0, err
		}
		topic, err := c.Topic(ctx, j.topic)
		if err != nil {
			j.drop(at)
			return 0, err
		}
		for _, p := range topic.Partitions {
			if p.Partition == j.partition {
				j.leader = p.Leader
			}
		}
		if j.leader < 1 {
			return 0, kerr.LeaderNotAvailable
		}
	}
	to := j.leader
	c, err := j.conn(ctx, to)
	if err != nil {
		return 0, err
	}
	offset, err := c.Produce(ctx, -1, j.topic, j.partition, b)
	var refused *kerr.Error
	if err != nil && !errors.As(err, &refused) {
		j.drop(to)
	}
	return offset, err
}

func (j *journal) conn(ctx context.Context, to int32) (*Client, error) {
	if c := j.conns[to]; c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	c, err := j.w.Dial(ctx, j.host(), j.nodes[to-1])
	if err == nil {
		j.conns[to] = c
	}
	return c, err
}

func (j *journal) drop(to int32) {
	if c := j.conns[to]; c != nil {
		_ = c.Close() // it has failed already
		delete(j.conns, to)
	}
}

func (j *journal) close() {
	for to := range j.conns {
		j.drop(to)
	}
}

// check compares what a node serves of the partition, as its leader, with what was acknowledged.
func (j *journal) check(c *Client) {
	w := j.w
	w.T.Helper()
	got, err := c.ReadAll(w.Context(), j.topic, j.partition, 0)
	if err != nil {
		w.Fatalf("read %s-%d: %v", j.topic, j.partition, err)
	}
	at, last := map[int]int64{}, -1
	for _, r := range got {
		n, err := strconv.Atoi(r.Value)
		if err != nil || n <= last {
			w.Fatalf("%s-%d has %q at %d, after %d", j.topic, j.partition, r.Value, r.Offset, last)
		}
		at[n], last = r.Offset, n
	}
	for n, offset := range j.acked {
		if found, ok := at[n]; !ok || found != offset {
			w.Fatalf("%s-%d: %d was acknowledged at %d, found: %v at %d", j.topic, j.partition, n, offset, ok, found)
		}
	}
}

// startWriting has a producer write to each partition of a topic, until end is called, which returns what they know.
func (w *World) startWriting(nodes []*Node, topic string, partitions int32) (end func() []*journal) {
	done := make(chan struct{})
	var journals []*journal
	var writing sync.WaitGroup
	for p := range partitions {
		j := w.newJournal(nodes, topic, p, int64(1000+p))
		journals = append(journals, j)
		writing.Go(func() { j.write(w.Context(), done) })
	}
	return func() []*journal {
		close(done)
		writing.Wait()
		return journals
	}
}

// wroteOn checks what was written, and that nobody waited for a second.
func (w *World) wroteOn(c *Client, nodes []*Node, journals []*journal) {
	w.T.Helper()
	for _, j := range journals {
		j.check(w.MustDial("reader", nodes[w.leaderOf(c, j.topic, j.partition)-1]))
		if len(j.acked) < 50 || j.longest > time.Second {
			w.Fatalf("partition %d: %d acknowledged, the longest took %v\n%s", j.partition, len(j.acked), j.longest, w.logs(nodes))
		}
	}
}

// whole waits until every partition of the topics has all its replicas in sync, and all nodes know it.
func (w *World) whole(nodes []*Node, within time.Duration, topics ...string) {
	w.T.Helper()
	story := ""
	defer func() {
		if w.T.Failed() {
			w.T.Log(story)
		}
	}()
	w.Eventually("all replicas are in sync", within, func() bool {
		story = ""
		for _, name := range topics {
			agreed := ""
			for _, n := range nodes {
				topic, known := n.Broker().Image().Topic(name)
				if !known {
					story += fmt.Sprintf("%s is not known to %s\n", name, n.Name)
					continue
				}
				epochs := ""
				for i, p := range topic.Partitions {
					epochs += fmt.Sprint(p.Leader, p.LeaderEpoch, p.PartitionEpoch, " ")
					if p.Leader < 0 || len(p.ISR) != len(p.Replicas) {
						story += fmt.Sprintf("%s: %s-%d: leader %d epoch %d replicas %v in sync %v\n", n.Name, name, i, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR)
					}
				}
				if agreed == "" {
					agreed = epochs
				} else if agreed != epochs {
					story += fmt.Sprintf("%s has %s, another %s of %s\n", n.Name, epochs, agreed, name)
				}
			}
		}
		if story != "" {
			time.Sleep(50 * time.Millisecond)
		}
		return story == ""
	})
}

func (w *World) leaderOf(c *Client, topic string, partition int32) int32 {
	w.T.Helper()
	found, err := c.Topic(w.Context(), topic)
	if err != nil {
		w.Fatalf("%s: %v", topic, err)
	}
	at := slices.IndexFunc(found.Partitions, func(p kmsg.MetadataResponseTopicPartition) bool { return p.Partition == partition })
	return found.Partitions[at].Leader
}

// logs is what the nodes have logged, for a test that fails.
func (w *World) logs(nodes []*Node) string {
	var all strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&all, "--- %s\n%s", n.Name, n.Log())
	}
	return all.String()
}

func TestCopiedPartitionsOutliveTheirLeader(t *testing.T) {
	threeNodes(t, 6, func(w *World, nodes []*Node) {
		c := w.MustDial("admin", nodes[0])
		if _, err := c.CreateTopic(w.Context(), "orders", 3, "min.insync.replicas", "2"); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		end := w.startWriting(nodes, "orders", 3)
		time.Sleep(300 * time.Millisecond)
		victim := nodes[1+w.Seed%2] // not the one that is asked
		victim.Kill()
		time.Sleep(2 * time.Second)
		victim.MustStart()
		w.whole(nodes, 20*time.Second, "orders")
		w.wroteOn(c, nodes, end())
	})
}

// nemesis harms one node at a time, and waits until it is whole again before it goes on to the next.
type nemesis struct {
	w     *World
	nodes []*Node
	dice  *rand.Rand
	told  []string

	durable bool // what is acknowledged is on disk
}

// strike does one harm to one node, and undoes it after a while.
func (m *nemesis) strike(round int) {
	victim := m.nodes[m.dice.IntN(len(m.nodes))]
	lasts := time.Duration(m.dice.Int64N(int64(4 * time.Second)))
	how := m.dice.IntN(8)
	if how == 7 && !m.durable {
		how = 1 // what is in page caches alone is gone with them
	}
	names := [...]string{"killed", "power cut", "stopped", "disk lost", "cut off", "cut off one way", "killed twice", "and all others power cut"}
	m.told = append(m.told, fmt.Sprintf("%v: %s %s for %v", time.Since(m.w.began), victim.Name, names[how], lasts))
	m.w.Trace("nemesis", "%s %s", names[how], victim.Name)
	restart := true
	switch how {
	case 0:
		victim.Kill()
	case 1:
		victim.Crash(m.w.Seed*100 + uint64(round))
	case 2:
		if err := victim.Stop(); err != nil {
			m.w.Fatalf("stop %s: %v", victim.Name, err)
		}
	case 3:
		victim.Wipe()
	case 4:
		restart = false
		m.w.Net.Isolate(victim.Name)
		time.Sleep(lasts)
		m.w.Net.Rejoin(victim.Name)
	case 5:
		restart = false
		other := m.nodes[m.dice.IntN(len(m.nodes))]
		if other != victim {
			m.w.Net.CutOneWay(victim.Name, other.Name)
			time.Sleep(lasts)
			m.w.Net.Heal(victim.Name, other.Name)
		}
	case 6:
		victim.Kill()
		time.Sleep(lasts)
		victim.MustStart()
		time.Sleep(time.Duration(m.dice.Int64N(int64(300 * time.Millisecond))))
		victim.Kill()
	case 7:
		restart = false
		for i, n := range m.nodes {
			n.Crash(m.w.Seed*100 + uint64(round*10+i))
		}
		time.Sleep(lasts)
		m.w.StartAll(m.nodes...)
	}
	if restart {
		time.Sleep(lasts)
		victim.MustStart()
	}
}

// TestNothingAcknowledgedIsLostWhileNodesFail has producers write to copied partitions while one node after the other is
// killed, stopped, cut off, loses its power or its disk.
func TestNothingAcknowledgedIsLostWhileNodesFail(t *testing.T) {
	threeNodes(t, 12, func(w *World, nodes []*Node) {
		m := &nemesis{w: w, nodes: nodes, dice: w.Dice("nemesis")}
		defer func() {
			if w.T.Failed() {
				w.T.Log(strings.Join(m.told, "\n"), "\n", w.logs(nodes))
			}
		}()
		c := w.MustDial("admin", nodes[0])
		m.durable = w.Dice("test").IntN(4) > 0
		configs := []string{"min.insync.replicas", "2", "flush.before.ack", fmt.Sprint(m.durable), "segment.bytes", "1048576"}
		if _, err := c.CreateTopic(w.Context(), "orders", 3, configs...); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 10*time.Second, "orders")
		end := w.startWriting(nodes, "orders", 3)
		for round := range 6 {
			time.Sleep(time.Duration(m.dice.Int64N(int64(time.Second))))
			m.strike(round)
			c = w.MustDial("admin", nodes[m.dice.IntN(3)])
			w.whole(nodes, 60*time.Second, "orders")
		}
		journals := end()
		w.whole(nodes, 30*time.Second, "orders")
		for _, j := range journals {
			j.check(w.MustDial("reader", nodes[w.leaderOf(c, "orders", j.partition)-1]))
			if len(j.acked) < 100 {
				w.Fatalf("partition %d: only %d acknowledged", j.partition, len(j.acked))
			}
		}
	})
}

// TestHealthyClusterAcknowledgesAtOnce: nothing on the way of a record waits for a timer.
func TestHealthyClusterAcknowledgesAtOnce(t *testing.T) {
	threeNodes(t, 2, func(w *World, nodes []*Node) {
		c := w.MustDial("admin", nodes[0])
		if _, err := c.CreateTopic(w.Context(), "orders", 6, "min.insync.replicas", "2"); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		end := w.startWriting(nodes, "orders", 6)
		time.Sleep(20 * time.Second)
		for _, j := range end() {
			if j.longest > 60*time.Millisecond {
				w.Errorf("partition %d: %d acknowledged, the longest took %v", j.partition, len(j.acked), j.longest)
			}
		}
	})
}
