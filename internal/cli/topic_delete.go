package cli

import (
	"context"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
)

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
