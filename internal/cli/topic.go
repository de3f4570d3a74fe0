package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
	"barnabas/internal/config"
)

func newTopic(p *terminal.Program) *cobra.Command {
	t := &terminal.Target{}
	c := terminal.Noun(&cobra.Command{Use: "topic", Aliases: []string{"topics"}, Short: "Create, list, describe, alter, move and delete topics"})
	t.Register(c.PersistentFlags(), p, terminal.AdminTimeout)
	c.AddCommand(newTopicCreate(p, t), newTopicList(p, t), newTopicDescribe(p, t), newTopicAlter(p, t), newTopicDelete(p, t),
		newTopicOffsets(p, t), newTopicTrim(p, t), newTopicReassign(p, t), newTopicElect(p, t))
	return c
}

// configKeys completes KEY= from the table of keys.
func configKeys(scope config.Scope, suffix string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for k := range config.Keys(scope) {
			if k.Status == config.Effective && (scope == config.Topics || k.Update != config.ReadOnly) {
				names = append(names, k.Name+suffix)
			}
		}
		return names, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
}

const minInSync = "min.insync.replicas"

// loweredInSync is the warning where a topic asks for more replicas in sync than it has: a write
// then waits for those that there are, so the setting protects less than it says (trap 6).
func loweredInSync(configured string, replicas int) string {
	n, err := strconv.Atoi(configured)
	if err != nil || replicas <= 0 || n <= replicas {
		return ""
	}
	return fmt.Sprintf("%s=%d counts as %d: the topic has only %s, so writes wait for no more",
		minInSync, n, replicas, terminal.Plural(replicas, "replica"))
}

// listedTopic is what topic list shows of a topic.
type listedTopic struct {
	Topic             string `json:"topic"`
	ID                string `json:"id"`
	Partitions        int    `json:"partitions"`
	ReplicationFactor int    `json:"replication_factor"`
	Internal          bool   `json:"internal,omitempty"`
}

func newTopicList(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var internal, names bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List topics",
		Args:    terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				found, err := a.ListTopics(ctx)
				if err != nil {
					return err
				}
				shown := []listedTopic{}
				for _, l := range found {
					if !l.Internal || internal {
						shown = append(shown, listedTopic{l.Name, l.ID.String(), l.Partitions, l.ReplicationFactor, l.Internal})
					}
				}
				return p.Show(out, shown, func() error { return showTopics(p, shown, names) })
			})
		},
	}
	c.Flags().BoolVar(&internal, "internal", false, "also those that the brokers keep for themselves")
	c.Flags().BoolVarP(&names, "quiet", "q", false, "names only, one a line")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func showTopics(p *terminal.Program, topics []listedTopic, names bool) error {
	if names {
		var lines []byte
		for _, t := range topics {
			lines = append(append(lines, t.Topic...), '\n')
		}
		return p.Write(lines)
	}
	t := terminal.NewTable("TOPIC", "PARTITIONS", "REPLICAS", "ID")
	for _, l := range topics {
		t.Add(l.Topic, l.Partitions, l.ReplicationFactor, l.ID)
	}
	return p.ShowTable(t, "there are no topics; 'barnabas topic create NAME' makes one")
}

// deletedTopic is what topic delete shows of a topic.
type deletedTopic struct {
	Topic   string `json:"topic"`
	Deleted bool   `json:"deleted"`
	Error   string `json:"error,omitempty"`
}

func newTopicDelete(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var ifExists bool
	c := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete topics with all their records",
		Args:    terminal.OneOrMore("NAME"),
		RunE: func(c *cobra.Command, names []string) error {
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return deleteTopics(ctx, p, a, names, ifExists, out)
			})
		},
		ValidArgsFunction: t.TopicNames(0),
	}
	c.Flags().BoolVar(&ifExists, "if-exists", false, "do not call it a failure where there is no such topic")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func deleteTopics(ctx context.Context, p *terminal.Program, a *admin.Admin, names []string, ifExists bool, out terminal.Format) error {
	results, err := a.DeleteTopics(ctx, names...)
	if err != nil {
		return err
	}
	var failed []terminal.FailedItem
	shown := []deletedTopic{}
	for _, r := range results {
		s := deletedTopic{Topic: r.Name, Deleted: r.Err == nil}
		if r.Err != nil && (!ifExists || !terminal.IsUnknownTopic(r.Err)) {
			s.Error = terminal.Said(r.Err)
			failed = append(failed, terminal.FailedItem{What: "delete topic " + r.Name, Err: terminal.UnknownTopic(ctx, a, r.Name, r.Err)})
		}
		shown = append(shown, s)
	}
	err = p.Show(out, shown, func() error {
		for _, s := range shown {
			switch {
			case s.Error != "":
				continue
			case s.Deleted:
				err = p.Write([]byte("deleted topic " + s.Topic + "\n"))
			default:
				err = p.Write([]byte("there is no topic " + s.Topic + "\n"))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.EachFailed(failed)
}
