package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// usualSeeds is how many worlds a crash test tries; BARNABAS_TEST_SEEDS changes it.
const usualSeeds = 100

// crashWorld is a broker under load whose lives end badly, and what its users have been promised.
type crashWorld struct {
	*World
	node    *Node
	ctx     context.Context // of the users
	users   sync.WaitGroup
	dice    *rand.Rand
	books   []*book
	topics  *topicBook
	settled time.Duration // pause between a user's requests
}

func newCrashWorld(w *World, settings ...string) *crashWorld {
	c := &crashWorld{World: w, dice: w.Dice("fate"), settled: 12 * time.Millisecond}
	c.node = w.Node("broker", append([]string{
		"log.flush.offset.checkpoint.interval.ms=700", "log.flush.start.offset.checkpoint.interval.ms=900",
		"log.initial.task.delay.ms=300", "log.retention.check.interval.ms=1000", "log.idle.close.ms=800",
		"metadata.log.max.record.bytes.between.snapshots=3000", "internal.metadata.log.segment.bytes=4096",
		"log.segment.delete.delay.ms=500",
	}, settings...)...)
	return c
}

// connect dials the broker until it answers or the users go home.
func (c *crashWorld) connect(who string, r *rand.Rand) *Client {
	for c.ctx.Err() == nil {
		dialling, cancel := context.WithTimeout(c.ctx, 2*time.Second)
		client, err := c.Dial(dialling, who, c.node)
		cancel()
		if err == nil {
			return client
		}
		Jitter(r, 20*time.Millisecond)
	}
	return nil
}

// prepare makes the topics: of each kind two partitions, and a book for each.
func (c *crashWorld) prepare() {
	client := c.MustDial("setup", c.node)
	segment := fmt.Sprint(1500 + c.dice.IntN(12_000))
	for _, topic := range []struct{ name, durable string }{{"durable", "true"}, {"cached", "false"}} {
		if _, err := client.CreateTopic(c.Context(), topic.name, 2, "internal.segment.bytes", segment,
			"flush.before.ack", topic.durable, "index.interval.bytes", "500"); err != nil {
			c.Fatalf("create %s: %v", topic.name, err)
		}
		for p := range int32(2) {
			c.books = append(c.books, newBook(topic.name, p, topic.durable == "true"))
		}
	}
	c.topics = newTopicBook()
	if err := client.Close(); err != nil {
		c.Fatalf("close: %v", err)
	}
}

// open lets the users in; the function that it returns sends them home and waits.
func (c *crashWorld) open() (closeDoors func()) {
	ctx, cancel := context.WithCancel(c.Context())
	c.ctx = ctx
	for i, b := range c.books {
		c.users.Go(func() { c.read(fmt.Sprint("reader-", i), b) })
		if !b.durable {
			c.users.Go(func() { c.produceOnce(fmt.Sprint("careless-", i), b) })
			continue
		}
		for j := range 2 {
			c.users.Go(func() { c.produce(fmt.Sprintf("producer-%d-%d", i, j), b) })
		}
	}
	c.users.Go(func() { c.administrate("admin") })
	return func() {
		cancel()
		c.users.Wait()
	}
}

// endLife ends the broker's life in a way that the seed chooses.
func (c *crashWorld) endLife() {
	seed := c.dice.Uint64()
	switch c.dice.IntN(5) {
	case 0:
		if err := c.node.Stop(); err != nil {
			c.Errorf("stop: %v", err)
		}
	case 1, 2:
		c.node.Kill()
	default:
		c.crash(seed)
	}
}

// crash cuts the power; what only the page cache had is no promise any more.
func (c *crashWorld) crash(seed uint64) {
	c.node.Crash(seed)
	for _, b := range c.books {
		if !b.durable {
			b.forgive()
		}
	}
}

// suffer puts one trouble on the disk that passes.
func (c *crashWorld) suffer() {
	switch c.dice.IntN(4) {
	case 0: // the disk stalls
		var once atomic.Bool
		stall := time.Duration(c.dice.Int64N(int64(2 * time.Second)))
		c.node.Fault(func(op disk.Op) error {
			if (op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS) && !once.Swap(true) {
				time.Sleep(stall)
			}
			return nil
		})
	case 1: // it is full for a while
		c.node.Disk().SetCapacity(1)
		Jitter(c.dice, 300*time.Millisecond)
		c.node.Disk().SetCapacity(0)
	case 2: // some writes are cut short for want of space
		left := atomic.Int64{}
		left.Store(int64(1 + c.dice.IntN(3)))
		cut := c.dice.IntN(200)
		c.node.Fault(func(op disk.Op) error {
			if op.Kind == disk.OpWrite && op.Len > int64(cut) && left.Add(-1) >= 0 {
				return disk.Short{N: cut, Err: syscall.ENOSPC}
			}
			return nil
		})
	}
	Jitter(c.dice, time.Duration(50+c.dice.IntN(800))*time.Millisecond)
	c.node.Fault(nil)
}

// check reads everything and compares it with what was promised.
func (c *crashWorld) check() {
	client := c.MustDial("checker", c.node)
	for _, b := range c.books {
		all, err := client.ReadAll(c.Context(), b.topic, b.partition, 0)
		if err != nil {
			c.Fatalf("%v\n%s", err, c.node.Log())
		}
		if wrong := b.compare(all); wrong != "" {
			c.Fatalf("%s-%d: %s", b.topic, b.partition, wrong)
		}
	}
	c.topics.check(c, client)
	for line := range strings.Lines(c.node.Log()) {
		// What was not flushed may span segments, and is cut with all of them.
		if strings.Contains(line, "level=ERROR") && !strings.Contains(line, "later segments go with what was cut") {
			c.Fatalf("an error is logged: %s", line)
		}
	}
}

func runCrashWorld(t *testing.T, seed uint64) (hash uint64) {
	return Run(t, seed, func(w *World) {
		var settings []string
		if seed%3 == 0 {
			settings = []string{"log.dirs=/data,/more"}
		}
		c := newCrashWorld(w, settings...)
		c.node.MustStart()
		c.prepare()
		closeDoors := c.open()
		for range 4 {
			for range 1 + c.dice.IntN(2) {
				c.suffer()
			}
			if err := c.node.Broker().Failure(); err != nil {
				c.Errorf("the node has failed: %v", err)
				break
			}
			c.endLife()
			Jitter(c.dice, 50*time.Millisecond)
			c.node.MustStart()
		}
		time.Sleep(200 * time.Millisecond)
		closeDoors()
		if !t.Failed() {
			c.check()
		}
	})
}

func TestAcknowledgedOutlivesPowerCutsKillsAndFullDisks(t *testing.T) {
	for seed := range Seeds(usualSeeds) {
		if runCrashWorld(t, seed); t.Failed() {
			return
		}
	}
}

// One processor, no collector: the same seed is the same world. Where the machine is busy that holds for some runs only: a
// goroutine that has not come off its processor for ten milliseconds of real time has to go behind the others, whether it ran or
// the machine did. How many that befalls is the machine's business; chance in the code has all of them differ.
func TestSeedReplays(t *testing.T) {
	most := 40
	if UnderRace { // whose scheduler is random
		most = 1
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for seed := uint64(7000); seed < 7003; seed++ {
		hashes := map[uint64]int{}
		alike := 0
		for runs := 0; runs < most && alike < 3; runs++ {
			runtime.GC()
			hash := runCrashWorld(t, seed)
			hashes[hash]++
			alike = max(alike, hashes[hash])
		}
		if alike < 3 && !UnderRace {
			t.Errorf("seed %d: of %d runs no three are alike: %x", seed, most, hashes)
		}
	}
}

// book is what is known of one partition's records.
type book struct {
	topic     string
	partition int32
	durable   bool
	mu        sync.Mutex
	sent      map[string]int   // how many records each producer has sent at least once
	acked     map[int64]string // promised, by offset
	seen      map[int64]string // read by somebody
	era       int              // counts the power cuts that took promises with them
}

func newBook(topic string, partition int32, durable bool) *book {
	return &book{topic: topic, partition: partition, durable: durable, sent: map[string]int{}, acked: map[int64]string{}, seen: map[int64]string{}}
}

func (b *book) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.acked)
	clear(b.seen)
	b.era++
}

// now is the era of what is asked from now on. Answers of an earlier one may still be on their way
// when it ends.
func (b *book) now() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.era
}

func (b *book) sending(who string, upTo int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent[who] = max(b.sent[who], upTo)
}

// promise notes what was acknowledged; what is returned is a contradiction.
func (b *book) promise(era int, first int64, values []string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if era != b.era {
		return ""
	}
	for i, v := range values {
		at := first + int64(i)
		if was, ok := b.acked[at]; ok && was != v {
			return fmt.Sprintf("offset %d was acknowledged for %q and then for %q", at, was, v)
		}
		if was, ok := b.seen[at]; ok && was != v {
			return fmt.Sprintf("offset %d was read as %q and then acknowledged for %q", at, was, v)
		}
		b.acked[at] = v
	}
	return ""
}

func (b *book) read(era int, records []Record) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if era != b.era {
		return ""
	}
	for _, r := range records {
		if was, ok := b.seen[r.Offset]; ok && was != r.Value {
			return fmt.Sprintf("offset %d was read as %q and then as %q", r.Offset, was, r.Value)
		}
		if was, ok := b.acked[r.Offset]; ok && was != r.Value {
			return fmt.Sprintf("offset %d was acknowledged for %q and then read as %q", r.Offset, was, r.Value)
		}
		b.seen[r.Offset] = r.Value
	}
	return ""
}

// compare judges the whole content of the partition.
func (b *book) compare(all []Record) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := map[string]int{}
	for i, r := range all {
		if r.Offset != int64(i) {
			return fmt.Sprintf("record %d has offset %d", i, r.Offset)
		}
		who, serial := parseValue(r.Value)
		switch {
		case serial >= b.sent[who]:
			return fmt.Sprintf("offset %d holds %q, which nobody sent", r.Offset, r.Value)
		case serial < next[who]:
			return fmt.Sprintf("offset %d holds %q, after or again beside %d", r.Offset, r.Value, next[who]-1)
		case b.durable && serial > next[who]:
			return fmt.Sprintf("offset %d holds %q, but %d is missing", r.Offset, r.Value, next[who])
		}
		next[who] = serial + 1
	}
	for _, promised := range []map[int64]string{b.acked, b.seen} {
		for at, v := range promised {
			if at >= int64(len(all)) || all[at].Value != v {
				return fmt.Sprintf("%q at offset %d was promised; the partition has %d records", v, at, len(all))
			}
		}
	}
	return ""
}

func valueOf(who string, serial int) string {
	return fmt.Sprintf("%s/%06d/%s", who, serial, strings.Repeat("x", serial*37%150))
}

func parseValue(v string) (who string, serial int) {
	parts := strings.SplitN(v, "/", 3)
	if len(parts) < 3 {
		return v, 1 << 30
	}
	if _, err := fmt.Sscanf(parts[1], "%d", &serial); err != nil {
		return v, 1 << 30
	}
	return parts[0], serial
}

// chunk is one batch of a producer.
type chunk struct {
	first  int
	values []string
}

// produce is an idempotent producer that repeats until it is answered.
func (c *crashWorld) produce(who string, b *book) {
	r := c.Dice(who)
	p := &idempotent{c: c, who: who, b: b, r: r, window: 1 + r.IntN(4)}
	for c.ctx.Err() == nil && !p.over {
		client := c.connect(who, r)
		if client == nil {
			return
		}
		for p.id == 0 && c.ctx.Err() == nil {
			if id, err := client.ProducerID(c.ctx); err == nil {
				p.id = id + 1 // 0 is none
			} else {
				break
			}
		}
		if p.id > 0 {
			p.run(client)
		}
		_ = client.Close() // it may have broken
		Jitter(r, 20*time.Millisecond)
	}
}

type idempotent struct {
	c       *crashWorld
	who     string
	b       *book
	r       *rand.Rand
	id      int64 // plus 1
	window  int
	serial  int
	open    []chunk // sent at least once, not acknowledged
	started bool    // something was acknowledged
	refused int     // in a row
	over    bool    // what came back was no answer for a producer
}

func (p *idempotent) run(client *Client) {
	for p.c.ctx.Err() == nil {
		// The first is sent alone: who sends the second while the first may still be refused (a full
		// disk), has it taken as the first, since a producer that is not known may begin anywhere.
		for len(p.open) == 0 || p.started && len(p.open) < p.window {
			next := chunk{first: p.serial}
			for range 1 + p.r.IntN(4) {
				next.values = append(next.values, valueOf(p.who, p.serial))
				p.serial++
			}
			p.open = append(p.open, next)
		}
		if !p.sendAll(client) {
			return
		}
		Jitter(p.r, p.c.settled)
	}
}

// codec is any of them in few worlds, since making compressors is most of the work.
func (p *idempotent) codec() batch.Codec {
	if p.c.Seed%16 == 1 {
		return batch.Codec(p.id % 5)
	}
	return batch.None
}

// sendAll sends every open batch and takes the answers; false when the connection is no good.
func (p *idempotent) sendAll(client *Client) bool {
	ctx, cancel := context.WithTimeout(p.c.ctx, 10*time.Second)
	defer cancel()
	var pending []*Pending
	for _, o := range p.open {
		p.b.sending(p.who, o.first+len(o.values))
		data := Batch(time.Now().UnixMilli(), p.codec(), o.values...)
		data.SetProducer(p.id-1, 0, int32(o.first), false)
		q, err := Start(ctx, client, ProduceRequest(-1, p.b.topic, p.b.partition, data))
		if err != nil {
			return false
		}
		pending = append(pending, q)
	}
	for i, q := range pending {
		res, err := Wait[*kmsg.ProduceResponse](ctx, q)
		if err != nil {
			return false
		}
		got, err := Produced(res)
		if err != nil {
			return p.refusedAs(err, i)
		}
		p.refused, p.started = 0, true
		done := p.open[0]
		p.open = p.open[1:]
		p.c.Trace(p.who, "acknowledged %d at %d", done.first, got.BaseOffset)
		if wrong := p.b.promise(0, got.BaseOffset, done.values); wrong != "" {
			p.c.Errorf("%s-%d: %s", p.b.topic, p.b.partition, wrong)
			return false
		}
	}
	return true
}

// maxRefusals is how often a producer is refused in a row before it is an error: a disk stays full for a second.
const maxRefusals = 500

func (p *idempotent) refusedAs(err error, at int) bool {
	passing := errors.Is(err, kerr.KafkaStorageError) || errors.Is(err, kerr.NotLeaderForPartition) ||
		errors.Is(err, kerr.RequestTimedOut) || errors.Is(err, kerr.UnknownTopicOrPartition)
	if p.refused++; !passing || p.refused > maxRefusals {
		p.over = true
		p.c.Errorf("%s: batch %d of those open is refused: %v", p.who, at, err)
	}
	Jitter(p.r, 20*time.Millisecond)
	return false // the answers to the others are given up with the connection
}

// produceOnce sends without repeating: what is not answered may be there or not.
func (c *crashWorld) produceOnce(who string, b *book) {
	r, serial := c.Dice(who), 0
	for c.ctx.Err() == nil {
		client := c.connect(who, r)
		for client != nil && c.ctx.Err() == nil {
			var values []string
			for range 1 + r.IntN(4) {
				values = append(values, valueOf(who, serial))
				serial++
			}
			b.sending(who, serial)
			era := b.now()
			at, err := client.Produce(c.ctx, int16(1-2*r.IntN(2)), b.topic, b.partition, Batch(time.Now().UnixMilli(), batch.None, values...))
			if err != nil && !errors.Is(err, kerr.KafkaStorageError) {
				break
			}
			if err == nil {
				c.Trace(who, "acknowledged at %d", at)
				if wrong := b.promise(era, at, values); wrong != "" {
					c.Errorf("%s-%d: %s", b.topic, b.partition, wrong)
				}
			}
			Jitter(r, c.settled)
		}
		if client != nil {
			_ = client.Close() // it may have broken
		}
	}
}

// read follows a partition, again and again from somewhere before the end.
func (c *crashWorld) read(who string, b *book) {
	r := c.Dice(who)
	at := int64(0)
	for c.ctx.Err() == nil {
		client := c.connect(who, r)
		if client == nil {
			return
		}
		watermark := int64(-1)
		for c.ctx.Err() == nil {
			era := b.now()
			got, err := client.Fetch(c.ctx, b.topic, b.partition, at, FetchOptions{MaxBytes: int32(200 + r.IntN(5000)), MinBytes: 1, MaxWaitMillis: 400})
			if err != nil {
				break
			}
			if got.HighWatermark < watermark {
				c.Errorf("%s-%d: the watermark went from %d to %d", b.topic, b.partition, watermark, got.HighWatermark)
				return
			}
			watermark = got.HighWatermark
			records, next, err := Records(got.RecordBatches, at)
			if err != nil || len(records) > 0 && records[0].Offset != at || next > watermark {
				c.Errorf("%s-%d: read from %d to %d below %d: %v", b.topic, b.partition, at, next, watermark, err)
				return
			}
			if wrong := b.read(era, records); wrong != "" {
				c.Errorf("%s-%d: %s", b.topic, b.partition, wrong)
				return
			}
			c.Trace(who, "read %d to %d of %d", at, next, watermark)
			at = next
			Jitter(r, c.settled)
		}
		_ = client.Close() // it may have broken
		at = r.Int64N(at + 1)
		Jitter(r, 20*time.Millisecond)
	}
}

// topicBook is what is known of the topics that come and go.
type topicBook struct {
	mu    sync.Mutex
	known map[string]*topicState
}

// topicState is what a topic may be, after an answer that may not have come.
type topicState struct {
	exists, gone bool       // what is possible
	ids          [][16]byte // of the incarnations; the last is the one that exists, if it was acknowledged
	retention    []string   // possible values of retention.ms
	record       string     // acknowledged in this incarnation
}

func newTopicBook() *topicBook { return &topicBook{known: map[string]*topicState{}} }

// administrate creates, changes and deletes topics of a few names, over and over.
func (c *crashWorld) administrate(who string) {
	r := c.Dice(who)
	for round := 0; c.ctx.Err() == nil; {
		client := c.connect(who, r)
		for client != nil && c.ctx.Err() == nil {
			name := fmt.Sprint("topic-", r.IntN(4))
			if err := c.changeTopic(client, r, name, round); err != nil {
				break
			}
			round++
			Jitter(r, 3*c.settled)
		}
		if client != nil {
			_ = client.Close() // it may have broken
		}
		Jitter(r, 20*time.Millisecond)
	}
}

// changeTopic does one thing to a topic. An error is one of the connection: then the outcome is open.
func (c *crashWorld) changeTopic(client *Client, r *rand.Rand, name string, round int) error {
	c.topics.mu.Lock()
	s := c.topics.known[name]
	if s == nil {
		s = &topicState{gone: true}
		c.topics.known[name] = s
	}
	c.topics.mu.Unlock()
	tag := fmt.Sprint(100_000 + round)
	switch {
	case s.exists && s.gone: // not known: ask
		return s.resolve(c, client, name)
	case s.gone:
		s.exists, s.retention, s.record = true, []string{tag}, ""
		id, err := client.CreateTopic(c.ctx, name, 1+r.IntN(3), "retention.ms", tag)
		if err == nil {
			s.gone = false
			s.ids = append(s.ids, id)
			c.Trace("admin", "created %s", name)
		}
		return c.refusal(name, "create", s, err)
	case r.IntN(3) == 0:
		s.gone = true
		err := client.DeleteTopic(c.ctx, name)
		if err == nil {
			s.exists = false
			c.Trace("admin", "deleted %s", name)
		}
		return c.refusal(name, "delete", s, err)
	case r.IntN(2) == 0:
		s.retention = append(s.retention, tag)
		err := client.Alter(c.ctx, kmsg.ConfigResourceTypeTopic, name, "retention.ms", &tag)
		if err == nil {
			s.retention = []string{tag}
		}
		return c.refusal(name, "alter", s, err)
	default:
		_, err := client.Produce(c.ctx, -1, name, 0, Batch(time.Now().UnixMilli(), batch.None, name+"/"+tag))
		if err == nil {
			s.record = name + "/" + tag
		}
		return c.refusal(name, "produce to", s, err)
	}
}

// refusal tells an answer that changes nothing from none at all.
func (c *crashWorld) refusal(name, what string, s *topicState, err error) error {
	var refused *kerr.Error
	if err == nil || !errors.As(err, &refused) {
		return err
	}
	switch refused {
	case kerr.KafkaStorageError, kerr.NotController, kerr.RequestTimedOut, kerr.NotLeaderForPartition:
		return nil // it may have happened all the same, and is asked about next
	}
	c.Errorf("%s %s: %v", what, name, err)
	return nil
}

// resolve finds out what became of a change whose answer was lost.
func (s *topicState) resolve(c *crashWorld, client *Client, name string) error {
	found, err := client.Topic(c.ctx, name)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		s.exists = false
	case err == nil:
		s.gone = false
		if !slices.Contains(s.ids, found.TopicID) {
			s.ids = append(s.ids, found.TopicID)
		}
	default:
		return err
	}
	return nil
}

func (b *topicBook) check(c *crashWorld, client *Client) {
	for name, s := range b.known {
		found, err := client.Topic(c.Context(), name)
		there := err == nil
		if !there && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			c.Fatalf("metadata of %s: %v", name, err)
		}
		if there && !s.exists || !there && !s.gone {
			c.Fatalf("%s: there is %v, may exist %v, may be gone %v", name, there, s.exists, s.gone)
		}
		if !there || s.gone {
			continue
		}
		if last := s.ids[len(s.ids)-1]; found.TopicID != last {
			c.Fatalf("%s: id %x, acknowledged was %x", name, found.TopicID, last)
		}
		value, _, err := client.Describe(c.Context(), kmsg.ConfigResourceTypeTopic, name, "retention.ms")
		if err != nil || !slices.Contains(s.retention, value) {
			c.Fatalf("%s: retention.ms %s (%v), want one of %v", name, value, err, s.retention)
		}
		records, err := client.ReadAll(c.Context(), name, 0, 0)
		if err != nil {
			c.Fatalf("read %s: %v", name, err)
		}
		if s.record != "" && !slices.ContainsFunc(records, func(r Record) bool { return r.Value == s.record }) {
			c.Fatalf("%s: %q was acknowledged and is not there", name, s.record)
		}
	}
}
