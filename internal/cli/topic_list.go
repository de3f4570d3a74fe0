package cli

import (
	"context"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
)

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
