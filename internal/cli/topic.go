package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/config"
)

// adminTimeout is the default --timeout of commands that ask for something once.
const adminTimeout = 30 * time.Second

func newTopic(p *program) *cobra.Command {
	t := &target{}
	c := noun(&cobra.Command{Use: "topic", Aliases: []string{"topics"}, Short: "Create, list, describe, alter and delete topics"})
	t.register(c.PersistentFlags(), p, adminTimeout)
	c.AddCommand(newTopicCreate(p, t), newTopicList(p, t), newTopicDescribe(p, t), newTopicAlter(p, t), newTopicDelete(p, t),
		newTopicOffsets(p, t), newTopicTrim(p, t))
	return c
}

// keyValues reads KEY=VALUE pairs of a flag, and refuses a key that is given twice.
func keyValues(flag string, pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			return nil, usagef("%s %q: write KEY=VALUE", flag, pair)
		}
		if _, twice := out[key]; twice {
			return nil, usagef("%s: %s is given twice", flag, key)
		}
		out[key] = strings.TrimSpace(value)
	}
	return out, nil
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
		minInSync, n, replicas, plural(replicas, "replica"))
}

// partitionsOf gives a topic's partitions by name, or an error that helps.
func partitionsOf(ctx context.Context, a *admin.Admin, name string) (admin.TopicDescription, error) {
	found, err := a.DescribeTopics(ctx, name)
	if err != nil {
		return admin.TopicDescription{}, err
	}
	if found[0].Err != nil {
		return admin.TopicDescription{}, unknownTopic(ctx, a, name, fmt.Errorf("topic %q: %w", name, found[0].Err))
	}
	return found[0], nil
}

// eachFailed reports the items that failed, one line each, and gives the error to end with: nil
// where none did.
func (p *program) eachFailed(items []failedItem) error {
	var errs []error
	for _, i := range items {
		if i.err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", i.what, i.err))
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	for _, err := range errs {
		p.report(err)
	}
	return errReported{errors.Join(errs...)}
}

type failedItem struct {
	what string
	err  error
}

func isUnknownTopic(err error) bool {
	return errors.Is(err, client.ErrUnknownTopicOrPartition) || errors.Is(err, client.ErrUnknownTopicID)
}

// listedTopic is what topic list shows of a topic.
type listedTopic struct {
	Topic             string `json:"topic"`
	ID                string `json:"id"`
	Partitions        int    `json:"partitions"`
	ReplicationFactor int    `json:"replication_factor"`
	Internal          bool   `json:"internal,omitempty"`
}

func newTopicList(p *program, t *target) *cobra.Command {
	var out format
	var internal, names bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List topics",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return t.admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
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
				return p.show(out, shown, func() error { return showTopics(p, shown, names) })
			})
		},
	}
	c.Flags().BoolVar(&internal, "internal", false, "also those that the brokers keep for themselves")
	c.Flags().BoolVarP(&names, "quiet", "q", false, "names only, one a line")
	registerFormat(c, c.Flags(), &out)
	return c
}

func showTopics(p *program, topics []listedTopic, names bool) error {
	if names {
		var lines []byte
		for _, t := range topics {
			lines = append(append(lines, t.Topic...), '\n')
		}
		return p.write(lines)
	}
	t := newTable("TOPIC", "PARTITIONS", "REPLICAS", "ID")
	for _, l := range topics {
		t.add(l.Topic, l.Partitions, l.ReplicationFactor, l.ID)
	}
	return p.showTable(t, "there are no topics; 'barnabas topic create NAME' makes one")
}

// deletedTopic is what topic delete shows of a topic.
type deletedTopic struct {
	Topic   string `json:"topic"`
	Deleted bool   `json:"deleted"`
	Error   string `json:"error,omitempty"`
}

func newTopicDelete(p *program, t *target) *cobra.Command {
	var out format
	var ifExists bool
	c := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete topics with all their records",
		Args:    oneOrMore("NAME"),
		RunE: func(c *cobra.Command, names []string) error {
			return t.admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return deleteTopics(ctx, p, a, names, ifExists, out)
			})
		},
		ValidArgsFunction: t.topicNames(0),
	}
	c.Flags().BoolVar(&ifExists, "if-exists", false, "do not call it a failure where there is no such topic")
	registerFormat(c, c.Flags(), &out)
	return c
}

func deleteTopics(ctx context.Context, p *program, a *admin.Admin, names []string, ifExists bool, out format) error {
	results, err := a.DeleteTopics(ctx, names...)
	if err != nil {
		return err
	}
	var failed []failedItem
	shown := []deletedTopic{}
	for _, r := range results {
		s := deletedTopic{Topic: r.Name, Deleted: r.Err == nil}
		if r.Err != nil && (!ifExists || !isUnknownTopic(r.Err)) {
			s.Error = said(r.Err)
			failed = append(failed, failedItem{"delete topic " + r.Name, unknownTopic(ctx, a, r.Name, r.Err)})
		}
		shown = append(shown, s)
	}
	err = p.show(out, shown, func() error {
		for _, s := range shown {
			switch {
			case s.Error != "":
				continue
			case s.Deleted:
				err = p.write([]byte("deleted topic " + s.Topic + "\n"))
			default:
				err = p.write([]byte("there is no topic " + s.Topic + "\n"))
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
	return p.eachFailed(failed)
}
