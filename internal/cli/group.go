package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/reset"
	"barnabas/internal/cli/terminal"
)

func newGroup(p *terminal.Program) *cobra.Command {
	t := &terminal.Target{}
	c := terminal.Noun(&cobra.Command{Use: "group", Aliases: []string{"groups"}, Short: "List, describe, reset and delete consumer groups"})
	t.Register(c.PersistentFlags(), p, terminal.AdminTimeout)
	c.AddCommand(newGroupList(p, t), newGroupDescribe(p, t), newGroupReset(p, t), newGroupDelete(p, t), newGroupDeleteOffsets(p, t))
	return c
}

// groupStates and groupTypes are what --state and --type know, in Kafka's names.
var (
	groupStates = []string{
		string(admin.GroupStable), string(admin.GroupEmpty), string(admin.GroupPreparingRebalance), string(admin.GroupCompletingRebalance),
		string(admin.GroupAssigning), string(admin.GroupReconciling), string(admin.GroupDead),
	}
	groupTypes = []string{string(admin.ClassicGroup), string(admin.ConsumerGroup), string(admin.ShareGroup), string(admin.StreamsGroup)}
)

// oneOf finds the names that are meant, whatever their case.
func oneOf(flag string, given, known []string) ([]string, error) {
	var out []string
	for _, g := range given {
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(g, k) })
		if i < 0 {
			return nil, terminal.Usagef("%s %q: there are %s", flag, g, strings.Join(known, ", "))
		}
		out = append(out, known[i])
	}
	return out, nil
}

// listedGroup is what group list shows of a group.
type listedGroup struct {
	Group        string `json:"group"`
	State        string `json:"state"`
	Type         string `json:"type"`
	ProtocolType string `json:"protocol_type"`
	Coordinator  int32  `json:"coordinator"`
}

func newGroupList(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var states, types []string
	var names bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List groups",
		Args:    terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := groupFilters(states, types)
			if err != nil {
				return err
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return listGroups(ctx, p, a, filters, names, out)
			})
		},
	}
	c.Flags().StringSliceVar(&states, "state", nil, "only groups in these `STATES`, as in Stable,Empty")
	c.Flags().StringSliceVar(&types, "type", nil, "only groups of these `TYPES`, as in classic,consumer")
	c.Flags().BoolVarP(&names, "quiet", "q", false, "names only, one a line")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(groupStates, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(groupTypes, cobra.ShellCompDirectiveNoFileComp))
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func groupFilters(states, types []string) ([]admin.GroupFilter, error) {
	var out []admin.GroupFilter
	states, err := oneOf("--state", states, groupStates)
	if err != nil {
		return nil, err
	}
	for _, s := range states {
		out = append(out, admin.InStates(admin.GroupState(s)))
	}
	types, err = oneOf("--type", types, groupTypes)
	if err != nil {
		return nil, err
	}
	for _, t := range types {
		out = append(out, admin.OfTypes(admin.GroupType(t)))
	}
	return out, nil
}

// listGroups shows the groups of the brokers that answer, also where others do not.
func listGroups(ctx context.Context, p *terminal.Program, a *admin.Admin, filters []admin.GroupFilter, names bool, out terminal.Format) error {
	found, failure := a.ListGroups(ctx, filters...)
	if failure != nil && len(found) == 0 {
		return failure
	}
	shown := []listedGroup{}
	for _, g := range found {
		shown = append(shown, listedGroup{g.Group, string(g.State), string(g.Type), g.ProtocolType, g.Coordinator})
	}
	err := p.Show(out, shown, func() error {
		if names {
			var lines []byte
			for _, g := range shown {
				lines = append(append(lines, g.Group...), '\n')
			}
			return p.Write(lines)
		}
		t := terminal.NewTable("GROUP", "STATE", "TYPE", "PROTOCOL")
		for _, g := range shown {
			t.Add(g.Group, g.State, g.Type, g.ProtocolType)
		}
		if len(filters) > 0 {
			return p.ShowTable(t, "there are no such groups")
		}
		return p.ShowTable(t, "there are no groups")
	})
	return errors.Join(err, failure)
}

// unknownGroup turns "there is no such group" into advice: the name that was probably meant.
func unknownGroup(ctx context.Context, a *admin.Admin, name string, err error) error {
	if !errors.Is(err, client.ErrGroupIDNotFound) {
		return err
	}
	hint := "'barnabas group list' shows what there is"
	if groups, listErr := a.ListGroups(ctx); listErr == nil {
		var names []string
		for _, g := range groups {
			if g.Group == name && g.Type != admin.ClassicGroup && g.Type != admin.ConsumerGroup {
				return fmt.Errorf("group %s is of type %s, which this command does not know: %w", name, g.Type, err)
			}
			names = append(names, g.Group)
		}
		if near := terminal.Nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?\n%s", near, hint)
		}
	}
	return terminal.Hinted{Err: terminal.NotFoundError{Text: fmt.Sprintf("there is no group %q", name), Cause: err}, Hint: hint}
}

// mostNamed is how many members an error names; of the rest it says how many there are.
const mostNamed = 10

// busyGroup says who has to be stopped before a group can be changed.
func busyGroup(d admin.GroupDescription) error {
	advice := []string{"stop them first:"}
	for i, m := range d.Members {
		if i == mostNamed {
			advice = append(advice, fmt.Sprintf("and %d more", len(d.Members)-i))
			break
		}
		member := fmt.Sprintf("%s at %s", m.ID, strings.TrimPrefix(m.Host, "/"))
		if !strings.HasPrefix(m.ID, m.ClientID) { // Kafka's ids begin with the client's, unless the member is static
			member += ", client " + m.ClientID
		}
		advice = append(advice, member)
	}
	if len(d.Members) == 0 { // they are joining or leaving at this moment
		advice = []string{"stop its members first, and wait until 'barnabas group describe' shows it as Empty"}
	}
	text := fmt.Sprintf("group %s has %s and is %s (%s)", d.Group, terminal.Plural(len(d.Members), "member"), d.State, client.ErrNonEmptyGroup.Name())
	return terminal.Hinted{Err: busyError{text, client.ErrNonEmptyGroup}, Hint: strings.Join(advice, "\n")}
}

// busyError replaces a code by a sentence.
type busyError struct {
	text  string
	cause error
}

func (e busyError) Error() string { return e.text }
func (e busyError) Unwrap() error { return e.cause }

// explainBusy is busyGroup where a broker has refused a change because of members.
func explainBusy(ctx context.Context, a *admin.Admin, group string, err error) error {
	if !errors.Is(err, client.ErrNonEmptyGroup) {
		return err
	}
	found, describeErr := a.DescribeGroups(ctx, group)
	if describeErr != nil || found[0].Err != nil || found[0].State == admin.GroupEmpty {
		return terminal.Hinted{Err: err, Hint: "stop its members first, then try again"}
	}
	return busyGroup(found[0])
}

// deletedGroup is what group delete shows of a group.
type deletedGroup struct {
	Group   string `json:"group"`
	Deleted bool   `json:"deleted"`
	Error   string `json:"error,omitempty"`
}

func newGroupDelete(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var ifExists bool
	c := &cobra.Command{
		Use:     "delete GROUP...",
		Aliases: []string{"rm"},
		Short:   "Delete groups with everything that they have committed",
		Args:    terminal.OneOrMore("GROUP"),
		RunE: func(c *cobra.Command, groups []string) error {
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return deleteGroups(ctx, p, a, groups, ifExists, out)
			})
		},
		ValidArgsFunction: t.GroupNames(0),
	}
	c.Flags().BoolVar(&ifExists, "if-exists", false, "do not call it a failure where there is no such group")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func deleteGroups(ctx context.Context, p *terminal.Program, a *admin.Admin, groups []string, ifExists bool, out terminal.Format) error {
	results, err := a.DeleteGroups(ctx, groups...)
	if err != nil {
		return err
	}
	var failed []terminal.FailedItem
	shown := []deletedGroup{}
	for _, r := range results {
		s := deletedGroup{Group: r.Group, Deleted: r.Err == nil}
		if r.Err != nil && (!ifExists || !errors.Is(r.Err, client.ErrGroupIDNotFound)) {
			s.Error = terminal.Said(r.Err)
			failed = append(failed, terminal.FailedItem{What: "delete group " + r.Group, Err: explainBusy(ctx, a, r.Group, unknownGroup(ctx, a, r.Group, r.Err))})
		}
		shown = append(shown, s)
	}
	err = p.Show(out, shown, func() error {
		var text strings.Builder
		for _, s := range shown {
			switch {
			case s.Error != "":
			case s.Deleted:
				text.WriteString("deleted group " + s.Group + "\n")
			default:
				text.WriteString("there is no group " + s.Group + "\n")
			}
		}
		return p.Write([]byte(text.String()))
	})
	if err != nil {
		return err
	}
	return p.EachFailed(failed)
}

// deletedOffset is what group delete-offsets shows of a partition.
type deletedOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // that was committed
	Deleted   bool   `json:"deleted"`
	Error     string `json:"error,omitempty"`
}

func newGroupDeleteOffsets(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var topics []string
	c := &cobra.Command{
		Use:   "delete-offsets GROUP --topic TOPIC[:PARTITION,...]",
		Short: "Forget what a group has committed in some topics",
		Example: `  barnabas group delete-offsets billing --topic orders
  barnabas group delete-offsets billing --topic orders:0,3 --topic refunds`,
		Args: terminal.Exactly("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			scopes, err := parseScopes(topics)
			if err != nil {
				return err
			}
			if len(scopes) == 0 {
				return terminal.Usagef("--topic is missing: TOPIC, or TOPIC:0,1 for some of its partitions")
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return deleteOffsets(ctx, p, a, args[0], scopes, out)
			})
		},
		ValidArgsFunction: t.GroupNames(1),
	}
	c.Flags().StringArrayVar(&topics, "topic", nil, "`TOPIC`, or TOPIC:0,1 for some of its partitions; repeatable")
	_ = c.RegisterFlagCompletionFunc("topic", t.TopicNames(0))
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func parseScopes(topics []string) ([]reset.Scope, error) {
	var out []reset.Scope
	for _, s := range topics {
		scope, err := reset.ParseScope(s)
		if err != nil {
			return nil, terminal.UsageError{Err: fmt.Errorf("--topic: %w", err)}
		}
		out = append(out, scope)
	}
	return out, nil
}

func deleteOffsets(ctx context.Context, p *terminal.Program, a *admin.Admin, group string, scopes []reset.Scope, out terminal.Format) error {
	committed, err := committedBy(ctx, a, group)
	if err != nil {
		return err
	}
	var chosen []client.TopicPartition
	for _, s := range scopes {
		before := len(chosen)
		for tp := range committed {
			if tp.Topic == s.Topic && (s.Partitions == nil || slices.Contains(s.Partitions, tp.Partition)) {
				chosen = append(chosen, tp)
			}
		}
		if len(chosen) == before {
			what := "topic " + s.Topic
			if s.Partitions != nil {
				what = fmt.Sprintf("partition %s of topic %s", terminal.Cell(s.Partitions), s.Topic)
			}
			return terminal.Hinted{
				Err:  terminal.NotFoundError{Text: fmt.Sprintf("group %s has committed nothing in %s", group, what), Cause: client.ErrUnknownTopicOrPartition},
				Hint: fmt.Sprintf("'barnabas group describe %s' shows where it has", group),
			}
		}
	}
	results, err := a.DeleteGroupOffsets(ctx, group, chosen...)
	if err != nil {
		return err
	}
	var failed []terminal.FailedItem
	shown := []deletedOffset{}
	for _, r := range results {
		s := deletedOffset{Topic: r.TopicPartition.Topic, Partition: r.TopicPartition.Partition, Offset: committed[r.TopicPartition], Deleted: r.Err == nil}
		if r.Err != nil {
			s.Error = terminal.Said(r.Err)
			failed = append(failed, terminal.FailedItem{What: "delete the offset of " + r.TopicPartition.String(), Err: r.Err})
		}
		shown = append(shown, s)
	}
	err = p.Show(out, shown, func() error {
		t := terminal.NewTable("TOPIC", "PARTITION", "DELETED")
		for _, s := range shown {
			if s.Deleted {
				t.Add(s.Topic, s.Partition, s.Offset)
			}
		}
		if len(t.Rows) == 0 {
			return nil
		}
		return p.ShowTable(t, "")
	})
	if err != nil {
		return err
	}
	failed = sameFailure(failed, "delete offsets of group "+group)
	for i, f := range failed {
		failed[i].Err = subscribed(ctx, a, group, f.Err)
	}
	return p.EachFailed(failed)
}

// subscribed explains why offsets may not be deleted.
func subscribed(ctx context.Context, a *admin.Admin, group string, err error) error {
	if errors.Is(err, client.ErrGroupSubscribedToTopic) {
		return terminal.Hinted{Err: err, Hint: "stop the members first, or those that subscribe to the topic"}
	}
	return explainBusy(ctx, a, group, unknownGroup(ctx, a, group, err))
}

// sameFailure makes one of many that have one reason.
func sameFailure(items []terminal.FailedItem, what string) []terminal.FailedItem {
	for _, i := range items {
		if i.Err.Error() != items[0].Err.Error() {
			return items
		}
	}
	if len(items) < 2 {
		return items
	}
	return []terminal.FailedItem{{What: what, Err: items[0].Err}}
}

// committedBy gives what a group has committed.
func committedBy(ctx context.Context, a *admin.Admin, group string) (map[client.TopicPartition]int64, error) {
	found, err := a.GroupOffsets(ctx, []string{group})
	if err != nil {
		return nil, err
	}
	if found[0].Err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, found[0].Err)
	}
	out := map[client.TopicPartition]int64{}
	for _, c := range found[0].Offsets {
		if c.Err != nil {
			return nil, fmt.Errorf("offset of group %s in %v: %w", group, c.TopicPartition, c.Err)
		}
		out[c.TopicPartition] = c.Offset
	}
	return out, nil
}
