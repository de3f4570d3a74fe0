package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/reset"
	"barnabas/internal/cli/terminal"
)

// resetGroup is what group reset shows, of the group and then of each partition.
type resetGroup struct {
	Group    string        `json:"group"`
	Executed bool          `json:"executed"`
	Offsets  []resetOffset `json:"offsets"`
}

type resetOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Old       *int64 `json:"old_offset"` // null: nothing was committed
	New       int64  `json:"new_offset"`
	Asked     *int64 `json:"requested_offset,omitempty"` // where that lay outside the log
	Error     string `json:"error,omitempty"`
}

// resetting is group reset with what was typed.
type resetting struct {
	p         *terminal.Program
	group     string
	scopes    []reset.Scope
	allTopics bool
	target    reset.Target
	file      []client.TopicPartition // the partitions of --from-file
	dryRun    bool
	execute   bool
	export    bool
	out       terminal.Format
}

const groupResetHelp = `Change where a group goes on reading. The group must not have members.

Without --execute nothing is changed: on a terminal the plan is shown and you are asked, elsewhere it is
only shown. --dry-run shows it and never asks. --execute carries it out without asking. (Kafka's tool has the
same flags; it never asks.)

Offsets outside a partition's log become its beginning or its end, with a warning. --shift-by and --to-current
start from what is committed. A time without a zone is UTC, as in Kafka's tool.

--export prints the plan as lines of topic,partition,offset, which --from-file reads: with --to-current --dry-run
a copy of what is committed now.`

func newGroupReset(p *terminal.Program, t *terminal.Target) *cobra.Command {
	r := &resetting{p: p}
	var topics []string
	c := &cobra.Command{
		Use:   "reset GROUP (--topic TOPIC[:PARTITION,...] | --all-topics | --from-file FILE) --to-...",
		Short: "Change where a group goes on reading",
		Long:  groupResetHelp,
		Example: `  barnabas group reset billing --topic orders --to-earliest --dry-run
  barnabas group reset billing --topic orders:0,3 --to-datetime 2026-01-31T12:00:00Z --execute
  barnabas group reset billing --all-topics --shift-by -100 --execute
  barnabas group reset billing --all-topics --to-current --export --dry-run > billing.csv
  barnabas group reset billing --from-file billing.csv --execute`,
		Args: terminal.Exactly("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			r.group = args[0]
			if err := r.read(c.Flags(), topics); err != nil {
				return err
			}
			return t.Admin(c.Context(), r.run)
		},
		ValidArgsFunction: t.GroupNames(1),
	}
	flags := c.Flags()
	flags.StringArrayVar(&topics, "topic", nil, "`TOPIC`, or TOPIC:0,1 for some of its partitions; repeatable")
	flags.BoolVar(&r.allTopics, "all-topics", false, "all partitions that the group has committed in")
	flags.String("to-datetime", "", "the first record that is not older than `TIME`: RFC 3339, Unix ms, or so long ago, as in 2h")
	flags.String("by-duration", "", "the first record that is at most `SPAN` old, as in 2h, 3d or PT2H30M")
	flags.Bool("to-earliest", false, "the first record that there is")
	flags.Bool("to-latest", false, "the end")
	flags.Bool("to-current", false, "what is committed; the end where nothing is")
	flags.Int64("to-offset", 0, "this offset `N`")
	flags.Int64("shift-by", 0, "`N` records on from what is committed; negative: back")
	flags.String("from-file", "", "what `FILE` says in lines of topic,partition,offset; - is standard input")
	flags.BoolVar(&r.dryRun, "dry-run", false, "show what would be done")
	flags.BoolVar(&r.execute, "execute", false, "do it, without asking")
	flags.BoolVar(&r.export, "export", false, "print lines of topic,partition,offset")
	_ = c.RegisterFlagCompletionFunc("topic", t.TopicNames(0))
	_ = c.MarkFlagFilename("from-file", "csv")
	terminal.RegisterFormat(c, flags, &r.out)
	return c
}

// targetFlags are the flags of which one says where the offsets are to go.
var targetFlags = []string{"to-datetime", "by-duration", "to-earliest", "to-latest", "to-current", "to-offset", "shift-by", "from-file"}

// read makes sense of the flags, before anybody is asked.
func (r *resetting) read(flags *pflag.FlagSet, topics []string) error {
	var given []string
	for _, name := range targetFlags {
		if f := flags.Lookup(name); f.Changed && f.Value.String() != "false" {
			given = append(given, name)
		}
	}
	fromFile := slices.Contains(given, "from-file")
	switch {
	case len(given) == 0:
		return terminal.Usagef("where to? give one of --%s", strings.Join(targetFlags, ", --"))
	case len(given) > 1:
		return terminal.Usagef("--%s and --%s both say where to: give one of them", given[0], given[1])
	case r.dryRun && r.execute:
		return terminal.Usagef("--dry-run and --execute contradict each other")
	case r.export && r.out == terminal.FormatJSON:
		return terminal.Usagef("--export and -o json both say what to print: give one of them")
	case fromFile && (len(topics) > 0 || r.allTopics):
		return terminal.Usagef("--from-file names the partitions itself: give neither --topic nor --all-topics with it")
	case !fromFile && len(topics) == 0 && !r.allTopics:
		return terminal.Usagef("of which topics? give --topic TOPIC, --topic TOPIC:0,1 or --all-topics")
	case len(topics) > 0 && r.allTopics:
		return terminal.Usagef("--topic and --all-topics both say which topics: give one of them")
	}
	var err error
	if r.scopes, err = parseScopes(topics); err != nil {
		return err
	}
	return r.readTarget(given[0], flags.Lookup(given[0]).Value.String(), time.Now())
}

func (r *resetting) readTarget(flag, value string, now time.Time) error {
	var number int64
	if flag == "to-offset" || flag == "shift-by" {
		if _, err := fmt.Sscan(value, &number); err != nil { // pflag has taken it as a number
			return terminal.UsageError{Err: fmt.Errorf("--%s: %w", flag, err)}
		}
	}
	switch flag {
	case "to-earliest":
		r.target = reset.Earliest
	case "to-latest":
		r.target = reset.Latest
	case "to-current":
		r.target = reset.Current
	case "to-offset":
		if number < 0 {
			return terminal.Usagef("--to-offset %d: an offset is 0 or more; --shift-by goes back", number)
		}
		r.target = reset.Offset(number)
	case "shift-by":
		r.target = reset.ShiftBy(number)
	case "to-datetime":
		at, err := parseMomentIn(value, now, time.UTC)
		if err != nil {
			return terminal.UsageError{Err: fmt.Errorf("--to-datetime: %w", err)}
		}
		r.target = reset.Time(at)
	case "by-duration":
		span, err := reset.Duration(value)
		if err != nil {
			return terminal.UsageError{Err: fmt.Errorf("--by-duration: %w", err)}
		}
		r.target = reset.Time(now.Add(-span))
	case "from-file":
		return r.readFile(value)
	}
	return nil
}

func (r *resetting) readFile(name string) error {
	in := r.p.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("--from-file: %w", err)
		}
		defer f.Close()
		in = f
	}
	offsets, err := reset.File(in, r.group)
	if err != nil {
		return terminal.UsageError{Err: fmt.Errorf("--from-file %s: %w", name, err)}
	}
	r.target, r.file = reset.Each(offsets), slices.Collect(maps.Keys(offsets))
	return nil
}

func (r *resetting) run(ctx context.Context, a *admin.Admin) error {
	found, err := a.DescribeGroups(ctx, r.group)
	if err != nil {
		return err
	}
	group, isNew := found[0], false
	switch {
	case errors.Is(group.Err, client.ErrGroupIDNotFound) && !r.allTopics:
		isNew = true // Kafka's tool makes a group by resetting it, too
	case group.Err != nil:
		return unknownGroup(ctx, a, r.group, fmt.Errorf("describe group %s: %w", r.group, group.Err))
	case group.State != admin.GroupEmpty && r.execute:
		return busyGroup(group)
	}
	plan, err := r.plan(ctx, a)
	if err != nil {
		return err
	}
	if isNew {
		r.p.Note("there is no group %s yet: this makes it", r.group)
	}
	if len(plan) == 0 {
		r.p.Note("group %s has committed nothing: there is nothing to reset", r.group)
		return r.show(plan, nil, false)
	}
	execute := r.execute
	if !execute {
		if execute, err = r.rehearse(group, plan); err != nil || !execute {
			return err
		}
	}
	return r.commit(ctx, a, plan)
}

// rehearse shows the plan, and on a terminal asks whether it is to be carried out.
func (r *resetting) rehearse(group admin.GroupDescription, plan []reset.Change) (execute bool, err error) {
	if err := r.show(plan, nil, false); err != nil {
		return false, err
	}
	busy := group.Err == nil && group.State != admin.GroupEmpty
	switch {
	case busy:
		err := busyGroup(group)
		var h terminal.Hinted
		errors.As(err, &h)
		r.p.Note("warning: this cannot be carried out now: %s\n  %s", terminal.Said(err), strings.ReplaceAll(h.Hint, "\n", "\n  "))
		return false, nil
	case r.dryRun:
		return false, nil
	case !terminal.IsTerminal(r.p.In) || !terminal.IsTerminal(r.p.Err) || r.out == terminal.FormatJSON || r.export:
		r.p.Note("nothing has been changed; --execute does it")
		return false, nil
	}
	fmt.Fprintf(r.p.Err, "Reset %s of group %s? [y/N] ", terminal.Plural(len(plan), "offset"), r.group)
	if !agrees(r.p.In) {
		r.p.Note("nothing has been changed")
		return false, nil
	}
	return true, nil
}

// agrees reads the answer to a question: y or yes.
func agrees(in io.Reader) bool {
	line, err := bufio.NewReader(io.LimitReader(in, 1<<10)).ReadString('\n')
	if err != nil {
		return false
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}

// plan asks for the facts and makes the plan of them.
func (r *resetting) plan(ctx context.Context, a *admin.Admin) ([]reset.Change, error) {
	committed, err := committedBy(ctx, a, r.group)
	if err != nil {
		return nil, err
	}
	partitions, err := r.partitions(ctx, a, committed)
	if err != nil || len(partitions) == 0 {
		return nil, err
	}
	facts := reset.Facts{Committed: committed}
	if facts.Start, err = offsetsAt(ctx, a, partitions, admin.Earliest); err != nil {
		return nil, err
	}
	if facts.End, err = offsetsAt(ctx, a, partitions, admin.Latest); err != nil {
		return nil, err
	}
	if at, ok := r.target.Moment(); ok {
		if facts.AtTime, err = offsetsAt(ctx, a, partitions, admin.AtTime(at)); err != nil {
			return nil, err
		}
	}
	plan, err := reset.Plan(r.target, partitions, facts)
	if errors.Is(err, reset.ErrNothingCommitted) {
		return nil, terminal.Hinted{Err: err, Hint: "--to-earliest, --to-latest or --to-offset set a first offset"}
	}
	if err != nil {
		return nil, err
	}
	for _, c := range plan {
		switch {
		case !c.Clamped():
		case c.Asked < c.New:
			r.p.Note("warning: %v: %d lies before the log's beginning, so it becomes %d", c.TopicPartition, c.Asked, c.New)
		default:
			r.p.Note("warning: %v: %d lies past the log's end, so it becomes %d", c.TopicPartition, c.Asked, c.New)
		}
	}
	return plan, nil
}

// partitions gives those that are meant; each of them exists.
func (r *resetting) partitions(ctx context.Context, a *admin.Admin, committed map[client.TopicPartition]int64) ([]client.TopicPartition, error) {
	scopes := r.scopes
	switch {
	case r.allTopics:
		return slices.Collect(maps.Keys(committed)), nil
	case r.file != nil:
		for _, tp := range r.file {
			scopes = append(scopes, reset.Scope{Topic: tp.Topic, Partitions: []int32{tp.Partition}})
		}
	}
	topics := map[string]admin.TopicDescription{}
	chosen := map[client.TopicPartition]bool{}
	for _, s := range scopes {
		topic, known := topics[s.Topic]
		if !known {
			var err error
			if topic, err = terminal.PartitionsOf(ctx, a, s.Topic); err != nil {
				return nil, err
			}
			topics[s.Topic] = topic
		}
		numbers, err := choosePartitions(s.Topic, len(topic.Partitions), s.Partitions)
		if err != nil {
			return nil, err
		}
		for _, n := range numbers {
			chosen[client.TopicPartition{Topic: s.Topic, Partition: n}] = true
		}
	}
	return slices.Collect(maps.Keys(chosen)), nil
}

// offsetsAt finds an offset in each partition; -1 where there is no such record.
func offsetsAt(ctx context.Context, a *admin.Admin, partitions []client.TopicPartition, spec admin.OffsetSpec) (map[client.TopicPartition]int64, error) {
	specs := map[client.TopicPartition]admin.OffsetSpec{}
	for _, tp := range partitions {
		specs[tp] = spec
	}
	found, err := a.ListOffsets(ctx, specs, client.ReadUncommitted)
	if err != nil {
		return nil, err
	}
	out := map[client.TopicPartition]int64{}
	for _, o := range found {
		if o.Err != nil {
			return nil, fmt.Errorf("offsets of %v: %w", o.TopicPartition, o.Err)
		}
		out[o.TopicPartition] = o.Offset
	}
	return out, nil
}

// commit carries the plan out.
func (r *resetting) commit(ctx context.Context, a *admin.Admin, plan []reset.Change) error {
	offsets := map[client.TopicPartition]client.OffsetAndMetadata{}
	for _, c := range plan {
		offsets[c.TopicPartition] = client.OffsetAndMetadata{Offset: c.New}
	}
	results, err := a.AlterGroupOffsets(ctx, r.group, offsets)
	if err != nil {
		return err
	}
	errs := map[client.TopicPartition]error{}
	var failed []terminal.FailedItem
	for _, res := range results {
		if res.Err != nil {
			errs[res.TopicPartition] = res.Err
			failed = append(failed, terminal.FailedItem{What: "reset " + res.TopicPartition.String(), Err: res.Err})
		}
	}
	if err := r.show(plan, errs, true); err != nil {
		return err
	}
	failed = sameFailure(failed, "reset group "+r.group)
	for i, f := range failed {
		failed[i].Err = explainBusy(ctx, a, r.group, f.Err)
	}
	return r.p.EachFailed(failed)
}

// show prints the plan, or what has become of it: what failed is left out of tables.
func (r *resetting) show(plan []reset.Change, errs map[client.TopicPartition]error, executed bool) error {
	shown := resetGroup{Group: r.group, Executed: executed, Offsets: []resetOffset{}}
	var lines strings.Builder
	t := terminal.NewTable("TOPIC", "PARTITION", "COMMITTED", "NEW")
	for _, c := range plan {
		o := resetOffset{Topic: c.TopicPartition.Topic, Partition: c.TopicPartition.Partition, New: c.New}
		if c.Old >= 0 {
			o.Old = &c.Old
		}
		if c.Clamped() {
			o.Asked = &c.Asked
		}
		if err := errs[c.TopicPartition]; err != nil {
			o.Error = terminal.Said(err)
		} else {
			t.Add(o.Topic, o.Partition, terminal.Optional(o.Old), o.New)
			fmt.Fprintf(&lines, "%q,%d,%d\n", o.Topic, o.Partition, o.New)
		}
		shown.Offsets = append(shown.Offsets, o)
	}
	if r.export {
		return r.p.Write([]byte(lines.String()))
	}
	return r.p.Show(r.out, shown, func() error {
		if len(t.Rows) == 0 {
			return nil
		}
		return r.p.ShowTable(t, "")
	})
}
