package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// membership is what consume is told of how to be a member of a group.
type membership struct {
	instanceID string
	assignors  []string
	commit     string
}

// What --commit knows beside a span of time.
const (
	commitAuto = "auto"
	commitNone = "none"
)

func (m *membership) register(c *cobra.Command, o *consume) {
	flags := c.Flags()
	flags.StringVarP(&o.group, "group", "g", "", "read as a member of this `GROUP`")
	flags.StringVar(&m.instanceID, "instance-id", "", "with --group: be the static member `ID`, whose partitions wait for it (group.instance.id)")
	flags.StringSliceVar(&m.assignors, "assignor", nil, "with --group: `NAMES` of range, roundrobin, sticky, cooperative-sticky; the preferred first")
	flags.StringVar(&m.commit, "commit", commitAuto, "with --group: commit what has been printed `auto` (every 5s), none, or so often, as in 500ms")
	_ = c.RegisterFlagCompletionFunc("group", o.t.GroupNames(0))
	_ = c.RegisterFlagCompletionFunc("assignor", cobra.FixedCompletions(assignorNames, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("commit", cobra.FixedCompletions([]string{commitAuto, commitNone, "1s"}, cobra.ShellCompDirectiveNoFileComp))
}

var assignorNames = []string{
	string(client.RangeAssignor), string(client.RoundRobinAssignor), string(client.StickyAssignor), string(client.CooperativeStickyAssignor),
}

func (m *membership) check(o *consume, flags *pflag.FlagSet) error {
	if o.group == "" {
		for _, name := range []string{"group", "instance-id", "assignor", "commit"} {
			if flags.Changed(name) {
				return terminal.Usagef("--%s needs --group GROUP", name)
			}
		}
		if len(o.topics) > 1 {
			return terminal.Usagef("%q is one argument too many: several topics are read with --group", o.topics[1])
		}
		return nil
	}
	for _, name := range []string{"offset", "partition"} {
		if flags.Changed(name) {
			return terminal.Usagef("--%s and --group: the group says what is read; 'barnabas group reset' changes where it goes on", name)
		}
	}
	_, err := m.options()
	return err
}

func (m *membership) options() ([]client.GroupOption, error) {
	var out []client.GroupOption
	switch m.commit {
	case commitAuto:
	case commitNone:
		out = append(out, client.NoAutoCommit())
	default:
		every, err := time.ParseDuration(m.commit)
		if err != nil || every <= 0 {
			return nil, terminal.Usagef("--commit %q: auto, none, or a span of time, as in 500ms", m.commit)
		}
		out = append(out, client.AutoCommit(every))
	}
	if m.instanceID != "" {
		out = append(out, client.InstanceID(m.instanceID))
	}
	names, err := oneOf("--assignor", m.assignors, assignorNames)
	if err != nil {
		return nil, err
	}
	var assignors []client.Assignor
	for _, name := range names {
		assignors = append(assignors, client.Assignor(name))
	}
	if len(assignors) > 0 {
		out = append(out, client.Assignors(assignors...))
	}
	return out, nil
}

// groupReader is a reader that is a member of a group. What a Poll has returned is written before
// the next one, which may commit it.
type groupReader struct {
	*reader
	joined  bool      // all rebalances so far have ended with an assignment
	idle    time.Time // since when nothing is assigned; zero: something is
	unheard map[client.TopicPartition]bool
}

// idlePatience is how long a member without partitions waits for some, where it would have ended
// had it read them: in a cooperative rebalance they come in a second round.
const idlePatience = 5 * time.Second

func (r *groupReader) run(ctx context.Context, at client.Position) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	options, err := r.o.member.options()
	if err != nil {
		return err
	}
	options = append(options, client.MaxPollRecords(consumePollRecords), client.MaxPartitionFetchBytes(consumePartitionBytes),
		client.IsolationLevel(r.isolation), r.beginAt(at),
		client.OnRevoked(func(context.Context, *client.GroupConsumer, []client.TopicPartition) { r.joined = false }),
		client.OnAssigned(func(ctx context.Context, g *client.GroupConsumer, added []client.TopicPartition) {
			r.joined = true
			r.assigned(ctx, g, at, added)
		}))
	g, err := r.client.NewGroupConsumer(r.o.group, options...)
	if err != nil {
		return err
	}
	if err := g.Subscribe(r.o.topics...); err != nil {
		return errors.Join(err, g.Close(ctx))
	}
	// Whoever closes the pipe has had enough. The member then leaves like any other: had the
	// process ended by the signal, its partitions would stay unread until its session timed out.
	signal.Ignore(syscall.SIGPIPE)
	err = r.follow(ctx, g)
	if errors.Is(err, syscall.EPIPE) {
		err = nil
	}
	// ctx may have ended: that is what most members leave for.
	leaving, cancel := r.o.t.Within(context.WithoutCancel(ctx))
	defer cancel()
	return errors.Join(r.advise(err), r.failed, g.Close(leaving))
}

// look makes sure that the topics exist, and without --follow finds where they end.
func (r *groupReader) look(ctx context.Context) error {
	ctx, cancel := r.o.t.Within(ctx)
	defer cancel()
	a := admin.New(r.client, admin.Timeout(r.o.t.Timeout))
	if !r.o.follow {
		r.ends = map[client.TopicPartition]int64{}
	}
	for _, name := range r.o.topics {
		topic, err := terminal.PartitionsOf(ctx, a, name)
		if err != nil {
			return err
		}
		if r.o.follow {
			continue
		}
		ends, err := listOffsets(ctx, a, topic, admin.Latest, r.isolation)
		if err != nil {
			return err
		}
		for _, end := range ends {
			r.ends[end.TopicPartition] = end.Offset
		}
	}
	return nil
}

// beginAt is where a partition is begun that the group has committed nothing of. A time is the
// business of assigned.
func (r *groupReader) beginAt(at client.Position) client.ConsumerOption {
	if at == client.Latest {
		return client.AutoOffsetReset(client.Latest)
	}
	return client.AutoOffsetReset(client.Earliest)
}

// assigned lets partitions begin at a time that the group has committed nothing of.
func (r *groupReader) assigned(ctx context.Context, g *client.GroupConsumer, at client.Position, added []client.TopicPartition) {
	if terminal.IsTerminal(r.o.p.Err) {
		r.o.p.Note("group %s: %s assigned", r.o.group, terminal.Plural(len(g.Assignment()), "partition"))
	}
	if at == client.Earliest || at == client.Latest || len(added) == 0 {
		return
	}
	committed, err := g.Committed(ctx, added...)
	for _, tp := range added {
		if _, has := committed[tp]; has || err != nil {
			continue
		}
		err = g.Seek(tp, at)
	}
	if err != nil {
		r.failed = fmt.Errorf("begin at --from %s: %w", r.o.from, err)
	}
}

func (r *groupReader) follow(ctx context.Context, g *client.GroupConsumer) error {
	r.lastNews, r.unheard = time.Now(), map[client.TopicPartition]bool{}
	for {
		records, err := poll(ctx, g)
		gone, err := r.heed(err)
		switch {
		case err != nil:
			return err
		case gone != nil:
			r.unheard[gone.TopicPartition] = true
		case r.failed != nil:
			return nil //nolint:nilerr // it is told when the member has left
		}
		if done, err := r.take(g, records); done || err != nil {
			return err
		}
		if r.finished(g) {
			return nil
		}
	}
}

// take prints records of one partition, and goes back to the first that is not wanted, or could not
// be written: the group's other members, or the next run, get it. Done once --count have been printed.
func (r *groupReader) take(g *client.GroupConsumer, records []client.Record) (done bool, err error) {
	if len(records) == 0 {
		return false, nil
	}
	tp, wanted := records[0].TopicPartition(), len(records)
	if r.ends != nil {
		if at := slices.IndexFunc(records, func(rec client.Record) bool { return rec.Offset >= r.ends[tp] }); at >= 0 {
			wanted = at
			g.Pause(tp)
		}
	}
	if left := r.o.count - r.printed; r.o.count > 0 && left <= int64(wanted) {
		wanted, done = int(left), true
	}
	for i := range records[:wanted] {
		r.out = r.print(r.out, &records[i])
		r.printed++
	}
	if err := r.flush(); err != nil {
		return false, errors.Join(err, g.Seek(tp, client.AtOffset(records[0].Offset)))
	}
	if wanted < len(records) {
		return done, g.Seek(tp, client.AtOffset(records[wanted].Offset))
	}
	return done, nil
}

// finished tells whether all that is assigned has been read to where it ended.
func (r *groupReader) finished(g *client.GroupConsumer) bool {
	if r.ends == nil || !r.joined {
		return false
	}
	assigned := g.Assignment()
	for _, tp := range assigned {
		if at, known := g.Position(tp); !r.unheard[tp] && (!known || at < r.ends[tp]) {
			return false
		}
	}
	if len(assigned) > 0 {
		return true
	}
	if r.idle.IsZero() {
		r.idle = time.Now()
	}
	if time.Since(r.idle) < idlePatience {
		return false
	}
	r.o.p.Note("all partitions are with other members of group %s", r.o.group)
	return true
}

// advise says what can be done about what ends a membership.
func (r *groupReader) advise(err error) error {
	switch {
	case errors.Is(err, client.ErrInconsistentGroupProtocol):
		return terminal.Hinted{Err: err, Hint: fmt.Sprintf("'barnabas group describe %s' shows what its members agreed on; --assignor chooses it", r.o.group)}
	case errors.Is(err, client.ErrFencedInstanceID):
		return terminal.Hinted{Err: err, Hint: "each --instance-id may be used by one member at a time"}
	}
	return err
}
