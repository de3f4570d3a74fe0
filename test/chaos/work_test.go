//go:build chaos

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	ours "barnabas/client"
	"barnabas/test/compat/rig"
)

const (
	workTopic      = "worked"
	workPartitions = 4
	workMembers    = 2
	workEvery      = 4 * time.Millisecond // between two records
	memberLivesMax = 21 * time.Second

	noteworthySilence = 2 * time.Second
)

// work is a producer and a consumer group on our own client, and what they were told.
type work struct {
	t       *testing.T
	cluster *cluster
	stop    context.CancelFunc // of the producer
	leave   context.CancelFunc // of the group
	sending sync.WaitGroup
	reading sync.WaitGroup

	mu           sync.Mutex
	acknowledged map[int32]map[int64]string // by partition and offset
	unplaced     map[string]bool            // acknowledged without an offset
	latestSent   map[int32]time.Time        // when a partition's record was last acknowledged
	delivered    map[int32]map[int64]string
	commits      map[int32]*committed
	members      int
	resumed      int // times that a partition was gone on with
	committing   int // commits that were acknowledged

	// The group is silent for longer than a session where a member that is gone without a word is waited for while its
	// coordinator fails: the next one gives every member a whole session (TestADeadMemberHasAWholeSessionAtEachCoordinator).
	latest       time.Time     // when the group was last given a record
	silence      time.Duration // the longest time that it was given none
	silenceEnded time.Time
}

// committed is what may be the committed offset of a partition: what was acknowledged last, or what was
// tried since.
type committed struct {
	acknowledged int64
	tried        map[int64]bool
}

func (c *committed) may(offset int64) bool { return offset == c.acknowledged || c.tried[offset] }

// workBegins makes a topic of its own and starts to work on it.
func workBegins(t *testing.T, c *cluster, seed uint64) *work {
	t.Helper()
	w := &work{
		t: t, cluster: c, acknowledged: map[int32]map[int64]string{}, unplaced: map[string]bool{}, latestSent: map[int32]time.Time{},
		delivered: map[int32]map[int64]string{}, commits: map[int32]*committed{},
	}
	for p := range int32(workPartitions) {
		w.acknowledged[p], w.delivered[p] = map[int64]string{}, map[int64]string{}
		w.commits[p] = &committed{tried: map[int64]bool{}}
	}
	two := "2"
	rig.Eventually(t, patience, "topic "+workTopic+" is made", func() bool {
		_, err := admin(t, c.addresses()).CreateTopic(within(t, 10*time.Second), workPartitions, 3, map[string]*string{"min.insync.replicas": &two}, workTopic)
		return err == nil || errors.Is(err, kerr.TopicAlreadyExists) // the answer to the attempt before was lost
	})
	c.awaitTopic(workTopic)
	sending, stop := context.WithCancel(t.Context())
	reading, leave := context.WithCancel(t.Context())
	w.stop, w.leave = stop, leave
	w.sending.Go(func() { w.send(sending) })
	for m := range workMembers {
		w.reading.Go(func() { w.consume(reading, rand.New(rand.NewPCG(seed, uint64(m)))) })
	}
	t.Cleanup(func() {
		stop()
		leave()
		w.sending.Wait()
		w.reading.Wait()
	})
	return w
}

// connect makes a client that does not wait for long for a node that does not answer. What it has to say
// stands beside what was done to the cluster.
func (w *work) connect(name string) (*ours.Client, error) {
	log := slog.New(slog.NewTextHandler(noteWriter{w.cluster, name}, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime}))
	return ours.New(ours.Brokers(strings.Split(w.cluster.addresses(), ",")...), ours.RequestTimeout(2*time.Second),
		ours.ConnectionSetupTimeout(time.Second), ours.Logger(log))
}

// noteWriter notes the lines of a log under a name.
type noteWriter struct {
	cluster *cluster
	name    string
}

func (n noteWriter) Write(line []byte) (int, error) {
	n.cluster.note("%s: %s", n.name, bytes.TrimSpace(line))
	return len(line), nil
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// send writes numbers, in order for each partition.
func (w *work) send(ctx context.Context) {
	c, err := w.connect("the producer")
	if err != nil {
		w.cluster.wrong("make a client: %v", err)
		return
	}
	defer c.Close()
	p, err := c.NewProducer()
	if err != nil {
		w.cluster.wrong("make a producer: %v", err)
		return
	}
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		value := strconv.Itoa(n)
		r := ours.ProducerRecord{Topic: workTopic, Partition: ours.ToPartition(int32(n % workPartitions)), Value: []byte(value)}
		// Not ctx: what is begun is to be finished.
		if err := p.Send(context.Background(), r, func(m ours.RecordMetadata, err error) { w.sent(value, m, err) }); err != nil {
			w.cluster.wrong("send %s: %v", value, err)
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	flush, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := p.Close(flush); err != nil {
		w.cluster.wrong("close the producer: %v", err)
	}
}

func (w *work) sent(value string, m ours.RecordMetadata, err error) {
	if err != nil {
		w.cluster.wrong("record %s was given up: %v", value, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if silence := now.Sub(w.latestSent[m.Partition]); !w.latestSent[m.Partition].IsZero() && silence > noteworthySilence {
		w.cluster.note("the producer was acknowledged nothing in partition %d for %.1f s", m.Partition, silence.Seconds())
	}
	w.latestSent[m.Partition] = now
	if m.Offset < 0 {
		w.unplaced[value] = true
		return
	}
	w.acknowledged[m.Partition][m.Offset] = value
}

// consume is one place in the group, which one member after another takes: some leave, some are gone
// without a word.
func (w *work) consume(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		lives := memberLivesMax/3 + time.Duration(rng.Int64N(int64(memberLivesMax*2/3)))
		if err := w.member(ctx, lives, rng.IntN(4) > 0, rng); err != nil {
			w.cluster.wrong("a member of the group: %v", err)
			return
		}
	}
}

// member polls for a while, and commits now and then.
func (w *work) member(ctx context.Context, lives time.Duration, leaves bool, rng *rand.Rand) error {
	w.mu.Lock()
	w.members++
	name := fmt.Sprintf("member %d of the group", w.members)
	w.mu.Unlock()
	c, err := w.connect(name)
	if err != nil {
		return err
	}
	defer c.Close()
	next := map[int32]int64{} // of partitions that this member has read from; only used inside Poll and around it
	forget := func(_ context.Context, _ *ours.GroupConsumer, gone []ours.TopicPartition) {
		for _, tp := range gone {
			delete(next, tp.Partition)
		}
	}
	g, err := c.NewGroupConsumer("workers", ours.NoAutoCommit(), ours.AutoOffsetReset(ours.Earliest), ours.SessionTimeout(6*time.Second),
		ours.HeartbeatInterval(500*time.Millisecond), ours.OnAssigned(forget), ours.OnRevoked(forget), ours.OnLost(forget))
	if err != nil {
		return err
	}
	if err := g.Subscribe(workTopic); err != nil {
		return err
	}
	w.cluster.note("%s comes", name)
	defer w.cluster.note("%s has gone, with a word: %v", name, leaves)
	life, cancel := context.WithTimeout(ctx, lives)
	defer cancel()
	for life.Err() == nil {
		records, err := g.Poll(life)
		switch {
		case life.Err() != nil:
		case err != nil:
			return err
		}
		if len(records) > 0 {
			w.took(name, records, next)
		}
		if rng.IntN(4) == 0 {
			w.commit(life, g, next)
		}
	}
	if !leaves {
		return nil // its connections break, and its session ends
	}
	leaving, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.Close(leaving); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.t.Logf("a member could not take its leave: %v", err)
	}
	return nil
}

// took checks where a member begins with a partition, that it skips nothing from there on, and that a
// place always has the same record.
func (w *work) took(name string, records []ours.Record, next map[int32]int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if silence := now.Sub(w.latest); !w.latest.IsZero() && silence > noteworthySilence {
		w.cluster.note("nobody was given a record for %.1f s", silence.Seconds())
	}
	if !w.latest.IsZero() && now.Sub(w.latest) > w.silence {
		w.silence, w.silenceEnded = now.Sub(w.latest), now
	}
	w.latest = now
	for _, r := range records {
		at, going := next[r.Partition]
		switch {
		case !going && !w.commits[r.Partition].may(r.Offset):
			w.cluster.wrong("%s goes on with partition %d at %d; committed is %d, tried %v", name, r.Partition, r.Offset,
				w.commits[r.Partition].acknowledged, slices.Sorted(maps.Keys(w.commits[r.Partition].tried)))
		case !going:
			w.resumed++
		case r.Offset != at:
			w.cluster.wrong("partition %d: %s read %d after %d", r.Partition, name, r.Offset, at-1)
		}
		next[r.Partition] = r.Offset + 1
		value := string(r.Value)
		if before, again := w.delivered[r.Partition][r.Offset]; again && before != value {
			w.cluster.wrong("partition %d, offset %d: %s, and before that %s", r.Partition, r.Offset, value, before)
		}
		w.delivered[r.Partition][r.Offset] = value
	}
}

// commit commits all that this member has read.
func (w *work) commit(ctx context.Context, g *ours.GroupConsumer, next map[int32]int64) {
	offsets := map[ours.TopicPartition]ours.OffsetAndMetadata{}
	w.mu.Lock()
	for p, offset := range next {
		offsets[ours.TopicPartition{Topic: workTopic, Partition: p}] = ours.OffsetAndMetadata{Offset: offset}
		w.commits[p].tried[offset] = true
	}
	w.mu.Unlock()
	if len(offsets) == 0 || g.CommitOffsets(ctx, offsets) != nil {
		return // refused, or it is not known whether
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.committing++
	for tp, o := range offsets {
		c := w.commits[tp.Partition]
		c.acknowledged = max(c.acknowledged, o.Offset)
		maps.DeleteFunc(c.tried, func(tried int64, _ bool) bool { return tried <= c.acknowledged })
	}
}

// verdict ends the work: the group reads to the end, and all that was acknowledged was delivered, once
// and in order.
func (w *work) verdict() {
	w.t.Helper()
	w.stop()
	w.sending.Wait()
	ends, err := admin(w.t, w.cluster.addresses()).ListEndOffsets(within(w.t, patience), workTopic)
	if err != nil || ends.Error() != nil {
		w.t.Fatalf("ends of %s: %v %v", workTopic, err, ends.Error())
	}
	rig.Eventually(w.t, patience, "the group has read all", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for p, end := range ends[workTopic] {
			if int64(len(w.delivered[p])) < end.Offset {
				return false
			}
		}
		return true
	})
	w.leave()
	w.reading.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for p, places := range w.acknowledged {
		total += len(places)
		for offset, value := range places {
			if got := w.delivered[p][offset]; got != value {
				w.t.Fatalf("partition %d, offset %d: %s was acknowledged, %q is there", p, offset, value, got)
			}
		}
	}
	for p, places := range w.delivered {
		latest := -1
		for _, offset := range slices.Sorted(maps.Keys(places)) {
			n, err := strconv.Atoi(places[offset])
			if err != nil || n <= latest {
				w.t.Fatalf("partition %d, offset %d: %q stands after %d", p, offset, places[offset], latest)
			}
			latest = n
			delete(w.unplaced, places[offset])
		}
	}
	if len(w.unplaced) > 0 {
		w.cluster.wrong("acknowledged without a place, and nowhere: %v", w.unplaced)
	}
	if total < 100 || w.resumed < 2*workPartitions || w.committing < 10 {
		w.cluster.wrong("that proves little: %d records, %d times gone on, %d commits", total, w.resumed, w.committing)
	}
	w.t.Logf("%d records acknowledged; %d members, partitions gone on with %d times, %d commits; nobody was given a record for %v until %s",
		total, w.members, w.resumed, w.committing, w.silence, w.silenceEnded.UTC().Format("15:04:05.000"))
}
