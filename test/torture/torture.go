// Package torture writes, copies and reads with the Go client while its caller harms brokers or connections, and afterwards
// counts what went wrong: records lost, doubled, reordered, or seen where later something else stands. Tests
// call it. It knows neither who the brokers are nor what is done to them.
//
// At work are idempotent producers; a reader of partitions that reads along; where brokers have transactions a
// program that copies the topic exactly once; and for each protocol of groups that is asked for a group of two
// members, one of which leaves and comes back again and again.
package torture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
)

const (
	deliveryTimeout = 2 * time.Minute        // a record that takes longer has failed
	requestTimeout  = 5 * time.Second        // a connection that has gone silent is noticed then
	pace            = time.Millisecond       // between two records of one writer
	buffered        = 64 << 10               // bytes of a writer that wait for acknowledgement
	transactionFor  = time.Minute            // longer than a broker is away: what a dead copier leaves open its successor aborts
	askAgain        = 100 * time.Millisecond // for what is not there yet
	sessionTimeout  = 6 * time.Second        // the least that brokers allow by default
	memberStays     = 3 * time.Second        // the second member of a group, each time
)

// Options say what is at work, where and for how long.
type Options struct {
	Brokers    []string
	Client     []client.Option // further ones of every client, for instance a Dialer
	Topic      string          // is made; its copy is called TOPIC-copy
	Partitions int32
	Replicas   int16
	MinInSync  int
	Writers    int
	Lasts      time.Duration     // of writing, at least
	Until      <-chan struct{}   // writing goes on until it is closed; may be nil
	Heal       func()            // is called when writing is over, and ends the harm; may be nil
	Settle     time.Duration     // for readers to arrive at the end after that
	Copy       bool              // needs transactions
	Groups     []client.Protocol // a group for each
	Seed       uint64
	Logger     *slog.Logger // of the clients; nil: none
}

// place is where a record stands.
type place struct {
	partition int32
	offset    int64
}

// id names a record: a writer's n-th. A record says which writer of which run wrote it.
type id struct {
	writer int
	n      int64
}

func value(seed uint64, what id) []byte {
	return fmt.Appendf(nil, "%d %d %d %s", seed, what.writer, what.n, strings.Repeat(".", 60))
}

func readValue(v []byte) (seed uint64, what id) {
	var dots string
	if _, err := fmt.Sscanf(string(v), "%d %d %d %s", &seed, &what.writer, &what.n, &dots); err != nil {
		return 0, id{-1, -1}
	}
	return seed, what
}

// claim is an acknowledged record and where it was said to stand; offset -1 where that was not said.
type claim struct {
	id
	at place
}

// run is a torture under way.
type run struct {
	o     Options
	c     *client.Client
	admin *admin.Admin

	over      chan struct{} // closed once writing is over
	attempted atomic.Int64
	mu        struct {
		sync.Mutex
		claims      []claim
		failures    []error
		acked       map[int32]time.Time // the latest, by partition
		gap         time.Duration
		slowest     int32
		copies      int // transactions that were committed
		copierLives int
		copierSaid  []string
	}
}

// Run is one torture, from making the topic to the counts. An error says that it did not come to an end.
func Run(ctx context.Context, o Options) (*Counts, error) {
	r := &run{o: o, over: make(chan struct{})}
	r.mu.acked = map[int32]time.Time{}
	var err error
	if r.c, err = r.client(); err != nil {
		return nil, err
	}
	defer r.c.Close()
	r.admin = admin.New(r.c)
	if err := r.makeTopics(ctx); err != nil {
		return nil, err
	}
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	along := newReader(o.Seed)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stopReading()
	readers.Go(func() { r.read(reading, along, client.ReadUncommitted, o.Topic) })
	groups := r.groups(reading, &readers)
	copied := make(chan error, 1)
	copying, stopCopying := context.WithCancel(ctx)
	defer stopCopying()
	if o.Copy {
		readers.Go(func() { copied <- r.copyAll(copying) })
		defer stopCopying()
	}
	if err := r.write(ctx); err != nil {
		return nil, err
	}
	close(r.over)
	if o.Heal != nil {
		o.Heal()
	}
	return r.settle(ctx, along, groups, copied)
}

// client makes a client of its own for each at work, so that each has connections of its own.
func (r *run) client() (*client.Client, error) {
	options := []client.Option{
		client.Brokers(r.o.Brokers...), client.RequestTimeout(requestTimeout), client.RetryBackoff(20*time.Millisecond, time.Second),
		client.ReconnectBackoff(20*time.Millisecond, time.Second),
	}
	if r.o.Logger != nil {
		options = append(options, client.Logger(r.o.Logger))
	}
	return client.New(append(options, r.o.Client...)...)
}

func (r *run) copyTopic() string { return r.o.Topic + "-copy" }

func (r *run) makeTopics(ctx context.Context) error {
	for _, name := range []string{r.o.Topic, r.copyTopic()} {
		err := eventually(ctx, func() error {
			_, err := r.admin.CreateTopic(ctx, admin.NewTopic{
				Name: name, Partitions: r.o.Partitions, ReplicationFactor: r.o.Replicas,
				Configs: map[string]string{"min.insync.replicas": fmt.Sprint(r.o.MinInSync)},
			})
			if errors.Is(err, client.ErrTopicAlreadyExists) { // by an attempt whose answer was lost
				err = nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		if _, err := r.ends(ctx, name, client.ReadUncommitted); err != nil {
			return err
		}
	}
	return nil
}

// eventually calls f until it succeeds.
func eventually(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// ends asks until every partition has a leader that answers.
func (r *run) ends(ctx context.Context, topic string, isolation client.Isolation) (ends map[int32]int64, err error) {
	specs := map[client.TopicPartition]admin.OffsetSpec{}
	for p := range r.o.Partitions {
		specs[client.TopicPartition{Topic: topic, Partition: p}] = admin.Latest
	}
	err = eventually(ctx, func() error {
		listed, err := r.admin.ListOffsets(ctx, specs, isolation)
		if err != nil {
			return fmt.Errorf("the ends of %s: %w", topic, err)
		}
		ends = map[int32]int64{}
		for _, l := range listed {
			if l.Err != nil {
				return fmt.Errorf("the end of %v: %w", l.TopicPartition, l.Err)
			}
			ends[l.TopicPartition.Partition] = l.Offset
		}
		return nil
	})
	return ends, err
}

// write has all writers write until their time is over, and waits until each record is acknowledged or given up.
func (r *run) write(ctx context.Context) error {
	var writing sync.WaitGroup
	failed := make(chan error, r.o.Writers)
	until := time.Now().Add(r.o.Lasts)
	for w := range r.o.Writers {
		writing.Go(func() { failed <- r.writer(ctx, w, until) })
	}
	writing.Wait()
	close(failed)
	var all []error
	for err := range failed {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// goesOn tells whether the harm is not over yet.
func (r *run) goesOn() bool {
	if r.o.Until == nil {
		return false
	}
	select {
	case <-r.o.Until:
		return false
	default:
		return true
	}
}

func (r *run) writer(ctx context.Context, w int, until time.Time) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	defer c.Close()
	codecs := []client.Codec{client.NoCompression, client.Gzip, client.Snappy, client.Lz4, client.Zstd}
	p, err := c.NewProducer(client.DeliveryTimeout(deliveryTimeout), client.MaxBlock(deliveryTimeout), client.Linger(0),
		client.BufferMemory(buffered), client.BatchSize(4000), client.MaxRequestSize(buffered), client.Compression(codecs[w%len(codecs)]))
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(ctx) }()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := int64(0); time.Now().Before(until) || r.goesOn(); n++ {
		what, to := id{w, n}, int32(n%int64(r.o.Partitions))
		r.attempted.Add(1)
		out := client.ProducerRecord{Topic: r.o.Topic, Partition: client.ToPartition(to), Value: value(r.o.Seed, what)}
		if err := p.Send(ctx, out, func(m client.RecordMetadata, err error) { r.answered(what, place{to, m.Offset}, err) }); err != nil {
			r.answered(what, place{to, -1}, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := p.Flush(ctx); err != nil {
		return fmt.Errorf("writer %d: %w", w, err)
	}
	return nil
}

func (r *run) answered(what id, at place, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.mu.failures = append(r.mu.failures, err)
		return
	}
	r.mu.claims = append(r.mu.claims, claim{what, at})
	if before, known := r.mu.acked[at.partition]; known {
		r.gapLocked(at.partition, now.Sub(before))
	}
	r.mu.acked[at.partition] = now
}

func (r *run) gapLocked(partition int32, gap time.Duration) {
	if gap > r.mu.gap {
		r.mu.gap, r.mu.slowest = gap, partition
	}
}

// settle waits until everybody has arrived at the end, reads all once more, and counts.
func (r *run) settle(ctx context.Context, along *reader, groups []*group, copied <-chan error) (*Counts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.o.Settle, fmt.Errorf("not settled within %v", r.o.Settle))
	defer cancel()
	positions := along.positions()
	ends, err := r.ends(ctx, r.o.Topic, client.ReadUncommitted)
	if err != nil {
		return nil, err
	}
	final := newReader(r.o.Seed)
	if err := r.readTo(ctx, final, client.ReadUncommitted, r.o.Topic, ends); err != nil {
		return nil, fmt.Errorf("the final read: %w", err)
	}
	if err := eventually(ctx, func() error { return along.missing(ends) }); err != nil {
		return nil, fmt.Errorf("the reader along the way: %w", err)
	}
	for _, g := range groups {
		if err := eventually(ctx, func() error { return g.missing(ends) }); err != nil {
			return nil, fmt.Errorf("the group by the protocol %s: %w", g.protocol, err)
		}
	}
	counts := r.count(along, final, positions, ends)
	for _, g := range groups {
		g.count(final, counts)
	}
	if !r.o.Copy {
		return counts, nil
	}
	select {
	case err := <-copied:
		if err != nil {
			return nil, fmt.Errorf("copying: %w\n%s", err, r.said())
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("copying: %w\n%s", context.Cause(ctx), r.said())
	}
	return counts, r.countCopies(ctx, final, ends, counts)
}

func (r *run) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.mu.copierSaid
	return strings.Join(said[max(0, len(said)-30):], "\n")
}

func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.copierSaid = append(r.mu.copierSaid, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// Counts are what a torture has seen.
type Counts struct {
	Acknowledged, Attempted int64
	ReadAlong               int64
	ByGroups                map[client.Protocol]int64 // records that members read, some of them again
	Handovers               map[client.Protocol]int64 // partitions that members were given
	Copied                  int64
	Transactions            int // committed
	CopierLives             int
	LongestGap              time.Duration // in which one partition acknowledged nothing
	GapAt                   int32
	FirstFailure            error

	wrong map[string]int64
}

// The sins, in the order in which they are told.
var sins = []string{
	"failed",             // given up by the producer
	"lost",               // acknowledged, and not where it was said to be
	"duplicated",         // at two places
	"reordered",          // a writer's later record before an earlier one in one partition
	"phantom",            // read, and in the end something else stands there
	"skipped", "rewound", // by a reader of partitions, from one record to the next
	"ahead",                                          // a reader was past the end
	"refused",                                        // Poll told of a truncation or of a position out of range
	"group missed", "group phantom", "group skipped", // a member went on behind what it was to read, or read what is not there
	"copy lost", "copy duplicated", "copy reordered", "copied too early", // copies of what was not, or not yet, there
}

// Wrongs are the sins that were committed; none is what a client promises.
func (c *Counts) Wrongs() (all []string) {
	for _, sin := range sins {
		if n := c.wrong[sin]; n > 0 {
			all = append(all, fmt.Sprintf("%d records %s", n, sin))
		}
	}
	if len(all) > 0 && c.FirstFailure != nil {
		all = append(all, fmt.Sprintf("the first failure: %v", c.FirstFailure))
	}
	return all
}

// String is all counts in a line.
func (c *Counts) String() string {
	parts := []string{fmt.Sprintf("%d of %d records acknowledged, %d read along", c.Acknowledged, c.Attempted, c.ReadAlong)}
	for _, protocol := range slices.Sorted(maps.Keys(c.ByGroups)) {
		parts = append(parts, fmt.Sprintf("%d read by the %s group over %d handovers", c.ByGroups[protocol], protocol, c.Handovers[protocol]))
	}
	if c.Transactions > 0 {
		parts = append(parts, fmt.Sprintf("%d copied in %d transactions of %d copiers", c.Copied, c.Transactions, c.CopierLives))
	}
	parts = append(parts, fmt.Sprintf("longest gap %v at partition %d", c.LongestGap.Round(time.Millisecond), c.GapAt))
	for _, sin := range sins {
		parts = append(parts, fmt.Sprintf("%s %d", sin, c.wrong[sin]))
	}
	return strings.Join(parts, ", ")
}

func (r *run) count(along, final *reader, positions, ends map[int32]int64) *Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &Counts{
		Acknowledged: int64(len(r.mu.claims)), Attempted: r.attempted.Load(), ReadAlong: int64(len(along.seen)), LongestGap: r.mu.gap, GapAt: r.mu.slowest,
		Transactions: r.mu.copies, CopierLives: r.mu.copierLives,
		ByGroups: map[client.Protocol]int64{}, Handovers: map[client.Protocol]int64{}, wrong: map[string]int64{},
	}
	if c.wrong["failed"] = int64(len(r.mu.failures)); len(r.mu.failures) > 0 {
		c.FirstFailure = r.mu.failures[0]
	}
	where, latest := map[id]place{}, map[place]int64{} // latest: of a writer, in a partition
	for _, at := range sorted(final.seen) {
		what := final.seen[at]
		if _, twice := where[what]; twice {
			c.wrong["duplicated"]++
		}
		where[what] = at
		lane := place{at.partition, int64(what.writer)}
		if before, known := latest[lane]; known && what.n < before {
			c.wrong["reordered"]++
		}
		latest[lane] = what.n
	}
	for _, claimed := range r.mu.claims {
		if at, there := where[claimed.id]; !there || claimed.at.offset >= 0 && final.seen[claimed.at] != claimed.id || at.partition != claimed.at.partition {
			c.wrong["lost"]++
		}
	}
	for at, what := range along.seen {
		if got, there := final.seen[at]; at.offset < ends[at.partition] && (!there || got != what) {
			c.wrong["phantom"]++
		}
	}
	for p, next := range positions {
		if next > ends[p] {
			c.wrong["ahead"]++
		}
	}
	for _, k := range []*reader{along, final} {
		c.wrong["phantom"] += k.changed
		c.wrong["skipped"] += k.skipped
		c.wrong["rewound"] += k.rewound
		if c.wrong["refused"] += int64(len(k.refusals)); len(k.refusals) > 0 && c.FirstFailure == nil {
			c.FirstFailure = k.refusals[0]
		}
	}
	return c
}

func sorted(seen map[place]id) []place {
	return slices.SortedFunc(maps.Keys(seen), func(a, b place) int {
		if a.partition != b.partition {
			return int(a.partition - b.partition)
		}
		return int(a.offset - b.offset)
	})
}

// jitter gives a time between none and twice d, so that nothing keeps in step.
func jitter(rng *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(2 * d)))
}
