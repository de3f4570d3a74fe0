package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

type consume struct {
	p          *terminal.Program
	t          terminal.Target
	topics     []string
	group      string
	member     membership
	from       string
	offset     int64
	partitions []int32
	count      int64
	follow     bool
	shape      string
	template   string
	separator  string
	nullMarker string
	isolation  string
	offsetSet  bool
}

const consumeHelp = `Print the records of a topic, or of several as a member of a group.

Without --follow it ends with the last record that there was when it began. Partitions take
turns: the order is kept within each, and there is none between them.

With --group it goes on where the group has committed, shares the partitions with the other members,
and commits what it has printed: every 5 seconds, when it gives a partition up, and at its end, also
by Ctrl-C. --from then says where to begin where nothing is committed.

Formats (--output):
  value      the value, one a line
  key+value  key, tab, value (--key-separator)
  json       an object a line with topic, partition, offset, timestamp, key, value and headers;
             what is not UTF-8 is in key_base64, value_base64

Templates (--format) are printed as they are, without a line's end of their own, and know
  %s %S value and its length    %k %K key and its length    %h headers
  %t topic  %p partition  %o offset  %T timestamp in ms  %d timestamp  %% a per cent sign
  \n \t \r \\ \xNN as usual; the length of null is -1`

func newConsume(p *terminal.Program) *cobra.Command {
	o := &consume{p: p}
	c := &cobra.Command{
		Use:   "consume TOPIC...",
		Short: "Print records",
		Long:  consumeHelp,
		Example: `  barnabas consume flights --count 3
  barnabas consume flights --from end --follow
  barnabas consume flights --from 2h -o json
  barnabas consume flights --partition 0 --offset -5 --format '%o %k: %s\n'
  barnabas consume flights fares --group billing --follow`,
		Args: terminal.OneOrMore("TOPIC"),
		RunE: func(c *cobra.Command, args []string) error {
			o.topics, o.offsetSet = args, c.Flags().Changed("offset")
			return o.run(c)
		},
	}
	c.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if most := 1; o.group == "" {
			return o.t.TopicNames(most)(c, args, typed)
		}
		return o.t.TopicNames(0)(c, args, typed)
	}
	flags := c.Flags()
	o.t.Register(flags, p, terminal.AdminTimeout)
	flags.StringVar(&o.from, "from", "beginning", "start at beginning, end or `TIME`: RFC 3339, Unix ms, or so long ago, as in 2h")
	flags.Int64Var(&o.offset, "offset", 0, "start at offset `N`; negative: so many before the end (of each partition)")
	flags.Int32SliceVarP(&o.partitions, "partition", "p", nil, "only these partitions `N,...` (default all)")
	flags.Int64VarP(&o.count, "count", "n", 0, "end after `N` records")
	flags.BoolVarP(&o.follow, "follow", "f", false, "go on with records as they come; Ctrl-C ends")
	flags.StringVarP(&o.shape, "output", "o", "value", "print `value, key+value or json`")
	flags.StringVar(&o.template, "format", "", "print each record by this `TEMPLATE`, as in '%k: %s\\n'")
	flags.StringVarP(&o.separator, "key-separator", "K", `\t`, "with -o key+value: `TEXT` between key and value")
	flags.StringVar(&o.nullMarker, "null-marker", "", "print null as `TEXT` (json has null)")
	o.member.register(c, o)
	flags.StringVar(&o.isolation, "isolation", "read_uncommitted", "`LEVEL`: read_committed leaves out what transactions have not committed")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"value", "key+value", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"beginning", "end", "1h", "24h"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("isolation", cobra.FixedCompletions([]string{"read_uncommitted", "read_committed"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *consume) run(c *cobra.Command) error {
	if err := o.check(c.Flags()); err != nil {
		return err
	}
	print, err := o.printer()
	if err != nil {
		return err
	}
	at, err := parsePosition(o.from, time.Now())
	if err != nil {
		return terminal.UsageError{Err: fmt.Errorf("--from: %w", err)}
	}
	if at == client.Latest && !o.follow && !o.offsetSet && o.group == "" {
		return terminal.Usagef("--from end prints nothing without --follow")
	}
	isolation, ok := map[string]client.Isolation{"read_uncommitted": client.ReadUncommitted, "read_committed": client.ReadCommitted}[o.isolation]
	if !ok {
		return terminal.Usagef("--isolation %q: read_uncommitted or read_committed", o.isolation)
	}
	ctx := c.Context()
	notes := newProgress(o.p, "", -1, false)
	cl, err := o.t.Connect(ctx, client.Logger(notes.logger()))
	if err != nil {
		return err
	}
	notes.connected.Store(true)
	r := &reader{o: o, client: cl, isolation: isolation, print: print}
	if o.group == "" {
		err = r.run(ctx, at)
	} else {
		err = (&groupReader{reader: r}).run(ctx, at)
	}
	if errors.Is(err, terminal.ErrInterrupted) && o.follow {
		err = nil // the ordinary end of --follow
	}
	return errors.Join(o.t.Explain(err), cl.Close())
}

// check refuses flags that contradict each other.
func (o *consume) check(flags *pflag.FlagSet) error {
	switch {
	case o.offsetSet && flags.Changed("from"):
		return terminal.Usagef("--from and --offset both say where to start: give one of them")
	case flags.Changed("count") && o.count < 1:
		return terminal.Usagef("--count %d: at least 1", o.count)
	case flags.Changed("format") && flags.Changed("output"):
		return terminal.Usagef("--format and --output both say what to print: give one of them")
	}
	return o.member.check(o, flags)
}

// parsePosition reads --from.
func parsePosition(s string, now time.Time) (client.Position, error) {
	switch strings.ToLower(s) {
	case "beginning", "earliest", "start":
		return client.Earliest, nil
	case "end", "latest":
		return client.Latest, nil
	}
	at, err := parseMoment(s, now)
	if err != nil {
		return client.Position{}, fmt.Errorf("%w, beginning or end", err)
	}
	return client.AtTime(at), nil
}

// leastMillis tells Unix milliseconds from seconds: the former are never so small, but in the
// first three years.
const leastMillis = 100_000_000_000

// parseMoment reads a point in time: RFC 3339, a date, Unix ms, or a duration before now. A time
// without a zone is this machine's.
func parseMoment(s string, now time.Time) (time.Time, error) {
	return parseMomentIn(s, now, time.Local)
}

// parseMomentIn is parseMoment with the zone of a time that names none.
func parseMomentIn(s string, now time.Time, zone *time.Location) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < leastMillis {
			return time.Time{}, fmt.Errorf("%q looks like seconds: write Unix time in milliseconds", s)
		}
		return time.UnixMilli(n), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, s, zone); err == nil {
			return at, nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is none of a time (2026-01-31T12:00:00Z), Unix milliseconds, so long ago (90s, 2h, 3d)", s)
}

// The consumer's settings: a person or a pipe takes what comes as fast as it comes.
const (
	consumePollRecords    = 10_000
	consumePartitionBytes = 4 << 20
	// lookAgain is how often it is checked whether the end has been reached where no record says so:
	// control records and compacted ones have offsets, and are never seen.
	lookAgain = 100 * time.Millisecond
)

// reader reads from a client and prints.
type reader struct {
	o         *consume
	client    *client.Client
	isolation client.Isolation
	print     printer

	ends     map[client.TopicPartition]int64 // without --follow: where each partition that is still read ends
	out      []byte
	printed  int64
	lastNews time.Time
	failed   error
}

func (r *reader) run(ctx context.Context, at client.Position) error {
	starts, err := r.plan(ctx, at)
	if err != nil {
		return err
	}
	if len(starts) == 0 {
		if terminal.IsTerminal(r.o.p.Err) {
			r.o.p.Note("there is nothing to read; --follow waits for records")
		}
		return nil
	}
	k, err := r.client.NewConsumer(client.MaxPollRecords(consumePollRecords), client.MaxPartitionFetchBytes(consumePartitionBytes),
		client.IsolationLevel(r.isolation), client.AutoOffsetReset(client.Earliest))
	if err != nil {
		return err
	}
	if err := k.Assign(starts); err != nil {
		return errors.Join(err, k.Close())
	}
	err = r.read(ctx, k)
	return errors.Join(err, r.flush(), r.failed, k.Close())
}

// plan finds where each partition begins and, without --follow, ends. Those that have nothing to
// read are left out.
func (r *reader) plan(ctx context.Context, at client.Position) (map[client.TopicPartition]client.Position, error) {
	ctx, cancel := r.o.t.Within(ctx)
	defer cancel()
	a := admin.New(r.client, admin.Timeout(r.o.t.Timeout))
	topic, err := terminal.PartitionsOf(ctx, a, r.o.topics[0])
	if err != nil {
		return nil, err
	}
	chosen, err := choosePartitions(topic.Name, len(topic.Partitions), r.o.partitions)
	if err != nil {
		return nil, err
	}
	topic.Partitions = slices.DeleteFunc(topic.Partitions, func(d admin.PartitionDescription) bool { return !slices.Contains(chosen, d.Partition) })
	starts := map[client.TopicPartition]client.Position{}
	if r.o.follow && !r.o.offsetSet {
		for _, n := range chosen {
			starts[client.TopicPartition{Topic: topic.Name, Partition: n}] = at
		}
		return starts, nil
	}
	lows, err := listOffsets(ctx, a, topic, admin.Earliest, r.isolation)
	if err != nil {
		return nil, err
	}
	highs, err := listOffsets(ctx, a, topic, admin.Latest, r.isolation)
	if err != nil {
		return nil, err
	}
	r.ends = map[client.TopicPartition]int64{}
	for i, high := range highs {
		tp, low := high.TopicPartition, lows[i].Offset
		start := at
		if r.o.offsetSet {
			from, err := r.startOffset(tp, low, high.Offset)
			if err != nil {
				return nil, err
			}
			start, low = client.AtOffset(from), from
		}
		if low < high.Offset || r.o.follow {
			starts[tp] = start
			r.ends[tp] = high.Offset
		}
	}
	if r.o.follow {
		r.ends = nil
	}
	return starts, nil
}

// startOffset is --offset in one partition. What lies before its first record begins with that; what lies
// behind the end is a mistake where only this partition was asked for.
func (r *reader) startOffset(tp client.TopicPartition, low, high int64) (int64, error) {
	at := r.o.offset
	if at < 0 {
		return max(high+at, low), nil
	}
	if at > high && (r.o.follow || len(r.o.partitions) == 1) {
		return 0, fmt.Errorf("partition %d ends at offset %d, before %d: %w", tp.Partition, high, at, client.ErrOffsetOutOfRange)
	}
	return min(max(at, low), high), nil
}

func (r *reader) read(ctx context.Context, k *client.Consumer) error {
	eager := r.o.follow || terminal.IsTerminal(r.o.p.Out)
	r.lastNews = time.Now()
	for {
		records, err := poll(ctx, k)
		gone, err := r.heed(err)
		if err != nil {
			return err
		}
		if gone != nil {
			delete(r.ends, gone.TopicPartition)
		}
		if done, err := r.take(records); done || err != nil {
			return err
		}
		if eager || len(r.out) >= printAtOnce {
			if err := r.flush(); err != nil {
				return err
			}
		}
		if r.reachedEnd(k, records) {
			return nil
		}
	}
}

// heed looks at what Poll has returned as its error: nothing, a partition that cannot be read on,
// or what ends the command.
func (r *reader) heed(err error) (gone *client.PartitionError, end error) {
	switch {
	case err == nil:
		r.lastNews = time.Now()
		return nil, nil
	case errors.Is(err, errLookAgain):
		if !r.o.follow && time.Since(r.lastNews) > r.o.t.Timeout {
			return nil, terminal.ErrNoAnswer
		}
		return nil, nil
	case errors.As(err, &gone):
		r.o.p.Report(fmt.Errorf("%v: %w", gone.TopicPartition, gone.Err))
		r.failed = terminal.ErrReported{Err: err}
		return gone, nil
	}
	return nil, err
}

var errLookAgain = errors.New("nothing has come for a while")

// poller is a consumer, a member of a group or not.
type poller interface {
	Poll(ctx context.Context) ([]client.Record, error)
}

func poll(ctx context.Context, k poller) ([]client.Record, error) {
	limited, cancel := context.WithTimeoutCause(ctx, lookAgain, errLookAgain)
	defer cancel()
	records, err := k.Poll(limited)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return records, err
}

// printAtOnce is how much output is gathered before it is written, unless somebody watches.
const printAtOnce = 128 << 10

// take prints records of one partition; done once --count have been.
func (r *reader) take(records []client.Record) (done bool, err error) {
	for i := range records {
		rec := &records[i]
		if r.ends != nil {
			if end, reading := r.ends[rec.TopicPartition()]; !reading || rec.Offset >= end {
				return false, nil
			}
		}
		r.out = r.print(r.out, rec)
		if len(r.out) >= 2*printAtOnce {
			if err := r.flush(); err != nil {
				return false, err
			}
		}
		if r.printed++; r.printed == r.o.count {
			return true, nil
		}
	}
	return false, nil
}

// reachedEnd takes out the partitions that have been read to their ends; true once none is left.
func (r *reader) reachedEnd(k *client.Consumer, records []client.Record) bool {
	if r.ends == nil {
		return false
	}
	look := func(tp client.TopicPartition) {
		if at, known := k.Position(tp); known && at >= r.ends[tp] {
			delete(r.ends, tp)
			k.Pause(tp)
		}
	}
	if len(records) > 0 {
		look(records[0].TopicPartition())
	} else {
		for tp := range r.ends {
			look(tp)
		}
	}
	return len(r.ends) == 0
}

func (r *reader) flush() error {
	if len(r.out) == 0 {
		return nil
	}
	err := r.o.p.Write(r.out)
	r.out = r.out[:0]
	return err
}
