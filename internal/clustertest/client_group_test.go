package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barnabas/client"
)

const (
	workedPartitions = 4
	workPlaces       = 2
	workEvery        = 5 * time.Millisecond // between two records
	memberLivesMost  = 9 * time.Second
	memberSession    = 6 * time.Second
)

// work is a producer and a group on our own client, and what they were told.
type work struct {
	w     *World
	nodes []*Node
	log   *logLines

	mu      sync.Mutex
	commits [workedPartitions]committing
	resumed int // times that a partition was gone on with
}

// committing is where a partition may be gone on with: at what was acknowledged last, or at what was tried since.
type committing struct {
	acknowledged int64
	tried        map[int64]bool
}

func (c *committing) may(offset int64) bool { return offset == c.acknowledged || c.tried[offset] }

// connect makes a client of a host of the world.
func (k *work) connect(host string) *client.Client {
	var addresses []string
	for _, n := range k.nodes {
		addresses = append(addresses, net.JoinHostPort(n.Name, Port))
	}
	c, err := client.New(client.Brokers(addresses...), client.Dialer(k.w.Net.Host(host).Dial), client.RequestTimeout(2*time.Second),
		client.ConnectionSetupTimeout(time.Second), client.Logger(slog.New(slog.NewTextHandler(k.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", host)))
	if err != nil {
		panic(fmt.Sprintf("BUG: %v", err)) // of the settings alone
	}
	return c
}

func (k *work) produce(ctx context.Context) {
	c := k.connect("producer")
	defer c.Close()
	p, err := c.NewProducer()
	if err != nil {
		k.w.Errorf("make a producer: %v", err)
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		r := client.ProducerRecord{Topic: "worked", Partition: client.ToPartition(int32(n % workedPartitions)), Value: fmt.Append(nil, n)}
		// Not ctx: what is begun is to be finished.
		err := p.Send(context.WithoutCancel(ctx), r, func(_ client.RecordMetadata, err error) {
			if err != nil {
				k.w.Errorf("record %d was given up: %v", n, err)
			}
		})
		if err != nil {
			k.w.Errorf("send %d: %v", n, err)
			break
		}
		time.Sleep(workEvery)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := p.Close(closing); err != nil {
		k.w.Errorf("close the producer: %v", err)
	}
}

// consume is one place in the group, which one member after another takes.
func (k *work) consume(ctx context.Context, place int) {
	dice := k.w.Dice(fmt.Sprint("place", place))
	for n := 0; ctx.Err() == nil; n++ {
		lives := memberLivesMost/4 + time.Duration(dice.Int64N(int64(memberLivesMost*3/4)))
		k.member(ctx, fmt.Sprintf("member%d-%d", place, n), lives, dice)
	}
}

// member polls for a while, and commits now and then. One in four is gone without a word.
func (k *work) member(ctx context.Context, name string, lives time.Duration, dice *rand.Rand) {
	c := k.connect(name)
	defer c.Close()
	next := map[int32]int64{} // of partitions that this member has read from
	forget := func(_ context.Context, _ *client.GroupConsumer, gone []client.TopicPartition) {
		for _, tp := range gone {
			delete(next, tp.Partition)
		}
	}
	g, err := c.NewGroupConsumer("workers", client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest), client.SessionTimeout(memberSession),
		client.HeartbeatInterval(500*time.Millisecond), client.OnAssigned(forget), client.OnRevoked(forget), client.OnLost(forget))
	if err == nil {
		err = g.Subscribe("worked")
	}
	if err != nil {
		k.w.Errorf("%s: %v", name, err)
		return
	}
	life, end := context.WithTimeout(ctx, lives)
	defer end()
	for life.Err() == nil {
		records, err := g.Poll(life)
		if err != nil && life.Err() == nil {
			k.w.Errorf("%s: poll: %v", name, err)
			return
		}
		if len(records) > 0 {
			k.took(name, records, next)
		}
		if dice.IntN(4) == 0 {
			k.commit(life, g, next)
		}
	}
	if dice.IntN(4) == 0 {
		return
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := g.Close(leaving); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		k.w.Errorf("%s could not take its leave: %v", name, err)
	}
}

// took checks where a member begins with a partition, and that it skips nothing from there on.
func (k *work) took(name string, records []client.Record, next map[int32]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range records {
		r := &records[i]
		at, going := next[r.Partition]
		c := &k.commits[r.Partition]
		switch {
		case !going && !c.may(r.Offset):
			k.w.Errorf("%s goes on with partition %d at %d; committed is %d, tried %v", name, r.Partition, r.Offset, c.acknowledged, slices.Sorted(maps.Keys(c.tried)))
		case !going:
			k.resumed++
		case r.Offset != at:
			k.w.Errorf("%s read %d of partition %d after %d", name, r.Offset, r.Partition, at-1)
		}
		next[r.Partition] = r.Offset + 1
	}
}

// commit commits all that a member has read.
func (k *work) commit(ctx context.Context, g *client.GroupConsumer, next map[int32]int64) {
	offsets := map[client.TopicPartition]client.OffsetAndMetadata{}
	k.mu.Lock()
	for p, offset := range next {
		offsets[client.TopicPartition{Topic: "worked", Partition: p}] = client.OffsetAndMetadata{Offset: offset}
		k.commits[p].tried[offset] = true
	}
	k.mu.Unlock()
	if len(offsets) == 0 || g.CommitOffsets(ctx, offsets) != nil {
		return // refused, or it is not known whether
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for tp, o := range offsets {
		c := &k.commits[tp.Partition]
		c.acknowledged = max(c.acknowledged, o.Offset)
		maps.DeleteFunc(c.tried, func(tried int64, _ bool) bool { return tried <= c.acknowledged })
	}
}

// hinder keeps one node from the others for a while, or from everything: what clients can still ask is what goes wrong then.
func (m *nemesis) hinder() {
	victim := m.nodes[m.dice.IntN(len(m.nodes))]
	lasts := time.Duration(m.dice.Int64N(int64(6 * time.Second)))
	names := [...]string{"paused", "cut off from the others", "slow", "slow, and killed then"}
	how := m.dice.IntN(len(names))
	m.told = append(m.told, fmt.Sprintf("%v: %s %s for %v", time.Since(m.w.began), victim.Name, names[how], lasts))
	m.w.Trace("nemesis", "%s %s", names[how], victim.Name)
	others := without(m.nodes, victim)
	slow := func(latency, jitter time.Duration) {
		for _, o := range others {
			m.w.Net.SetLatency(victim.Name, o.Name, latency, jitter)
		}
	}
	switch how {
	case 0:
		victim.Pause()
		time.Sleep(lasts)
		victim.Resume()
	case 1:
		for _, o := range others {
			m.w.Net.Cut(victim.Name, o.Name)
		}
		time.Sleep(lasts)
		for _, o := range others {
			m.w.Net.Heal(victim.Name, o.Name)
		}
	case 2:
		slow(30*time.Millisecond, 150*time.Millisecond)
		time.Sleep(lasts)
		slow(0, 0)
	case 3:
		slow(100*time.Millisecond, 100*time.Millisecond)
		time.Sleep(time.Second)
		victim.Kill()
		time.Sleep(lasts)
		slow(0, 0)
		victim.MustStart()
	}
}

// TestGroupsOfOurClientGoOnWhereTheyCommittedWhileNodesFail: members come and go, some without a word, while one node after the other
// is killed, stopped, cut off, loses its power or its disk. Whoever takes a partition over begins where the group has committed.
func TestGroupsOfOurClientGoOnWhereTheyCommittedWhileNodesFail(t *testing.T) {
	threeNodes(t, 12, func(w *World, nodes []*Node) {
		k := &work{w: w, nodes: nodes, log: &logLines{}}
		for p := range k.commits {
			k.commits[p].tried = map[int64]bool{}
		}
		m := &nemesis{w: w, nodes: nodes, dice: w.Dice("nemesis"), durable: true}
		defer func() {
			if w.T.Failed() {
				w.T.Log(strings.Join(m.told, "\n"), "\n", w.logs(nodes), "\n--- clients\n", k.log.text())
			}
		}()
		c := w.MustDial("admin", nodes[0])
		if _, err := c.CreateTopic(w.Context(), "worked", workedPartitions, "min.insync.replicas", "2"); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 10*time.Second, "worked")
		ctx, stop := context.WithCancel(w.Context())
		var working sync.WaitGroup
		working.Go(func() { k.produce(ctx) })
		for place := range workPlaces {
			working.Go(func() { k.consume(ctx, place) })
		}
		time.Sleep(2 * time.Second)
		for round := range 8 {
			time.Sleep(time.Duration(m.dice.Int64N(int64(2 * time.Second))))
			if m.dice.IntN(2) == 0 {
				m.strike(round)
			} else {
				m.hinder()
			}
			w.whole(nodes, 60*time.Second, "worked", "__consumer_offsets")
			w.Eventually("all vote", 60*time.Second, func() bool { return w.allVote(nodes) }) // two lost disks at a time are a lost majority
		}
		w.Eventually("partitions are gone on with often enough", 2*time.Minute, func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.resumed >= 20
		})
		stop()
		working.Wait()
	})
}
