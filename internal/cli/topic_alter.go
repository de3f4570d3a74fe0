package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
	"barnabas/internal/config"
)

type topicAlter struct {
	p          *terminal.Program
	t          *terminal.Target
	out        terminal.Format
	partitions int32
	set        []string
	remove     []string
	dryRun     bool
}

func newTopicAlter(p *terminal.Program, t *terminal.Target) *cobra.Command {
	o := &topicAlter{p: p, t: t}
	c := &cobra.Command{
		Use:   "alter NAME",
		Short: "Add partitions to a topic, or change its settings",
		Long: `Add partitions to a topic, or change its settings.

The number of partitions can only grow. What was written stays where it is, and keys go to
other partitions afterwards, so records of one key keep their order only on either side of the change.`,
		Example: `  barnabas topic alter flights --partitions 24
  barnabas topic alter flights --set retention.ms=3600000 --delete compression.type`,
		Args:              terminal.Exactly("NAME"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c, args[0]) },
		ValidArgsFunction: t.TopicNames(1),
	}
	flags := c.Flags()
	flags.Int32VarP(&o.partitions, "partitions", "p", 0, "how many partitions `N` it is to have in all")
	flags.StringArrayVar(&o.set, "set", nil, "set `KEY=VALUE`; repeatable")
	flags.StringArrayVar(&o.set, "config", nil, "the same as --set")
	flags.StringArrayVar(&o.remove, "delete", nil, "go back to what holds without the topic's own `KEY`; repeatable")
	flags.BoolVar(&o.dryRun, "dry-run", false, "let the broker check, and change nothing")
	terminal.RegisterFormat(c, flags, &o.out)
	_ = c.RegisterFlagCompletionFunc("set", configKeys(config.Topics, "="))
	_ = c.RegisterFlagCompletionFunc("delete", configKeys(config.Topics, ""))
	return c
}

// alteredTopic is what topic alter shows.
type alteredTopic struct {
	Topic      string            `json:"topic"`
	Partitions int32             `json:"partitions,omitempty"`
	Set        map[string]string `json:"set,omitempty"`
	Deleted    []string          `json:"deleted,omitempty"`
	DryRun     bool              `json:"dry_run,omitempty"`
	Warnings   []string          `json:"warnings,omitempty"`
}

func (o *topicAlter) run(c *cobra.Command, name string) error {
	if c.Flags().Changed("partitions") && o.partitions < 1 {
		return terminal.Usagef("--partitions %d: at least 1", o.partitions)
	}
	change, err := configChange(admin.Topic(name), o.set, o.remove)
	if err != nil {
		return err
	}
	if o.partitions == 0 && len(change.Set)+len(change.Delete) == 0 {
		return terminal.Usagef("nothing to alter: give --partitions, --set or --delete")
	}
	if err := config.CheckTopic(change.Set); err != nil {
		return terminal.UsageError{Err: err}
	}
	return o.t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
		topic, err := terminal.PartitionsOf(ctx, a, name)
		if err != nil {
			return err
		}
		if err := o.grow(ctx, a, topic); err != nil {
			return err
		}
		if err := o.configure(ctx, a, change); err != nil {
			return err
		}
		return o.show(change, topic)
	})
}

func (o *topicAlter) options() []admin.ChangeOption {
	if o.dryRun {
		return []admin.ChangeOption{admin.ValidateOnly()}
	}
	return nil
}

func (o *topicAlter) grow(ctx context.Context, a *admin.Admin, topic admin.TopicDescription) error {
	if o.partitions == 0 {
		return nil
	}
	if n := len(topic.Partitions); int(o.partitions) <= n {
		return terminal.Hinted{
			Err:  terminal.Usagef("--partitions %d: topic %s has %d already, and the number can only grow", o.partitions, topic.Name, n),
			Hint: "--partitions is how many it is to have in all",
		}
	}
	grown, err := a.CreatePartitions(ctx, []admin.MorePartitions{{Topic: topic.Name, Total: o.partitions}}, o.options()...)
	if err == nil {
		err = grown[0].Err
	}
	if err != nil {
		return fmt.Errorf("add partitions to topic %s: %w", topic.Name, err)
	}
	return nil
}

func (o *topicAlter) configure(ctx context.Context, a *admin.Admin, change admin.ConfigChange) error {
	if len(change.Set)+len(change.Delete) == 0 {
		return nil
	}
	done, err := a.AlterConfigs(ctx, []admin.ConfigChange{change}, o.options()...)
	if err == nil {
		err = done[0].Err
	}
	if err != nil {
		return fmt.Errorf("alter %v: %w", change.Resource, err)
	}
	return nil
}

func (o *topicAlter) show(change admin.ConfigChange, topic admin.TopicDescription) error {
	s := alteredTopic{Topic: topic.Name, Partitions: o.partitions, Set: change.Set, Deleted: change.Delete, DryRun: o.dryRun}
	replicas := 0
	for _, part := range topic.Partitions {
		replicas = max(replicas, len(part.Replicas))
	}
	if w := loweredInSync(change.Set[minInSync], replicas); w != "" {
		s.Warnings = append(s.Warnings, w)
	}
	return o.p.Show(o.out, s, func() error {
		did := "altered topic "
		if o.dryRun {
			did = "would alter topic "
		}
		text := did + topic.Name + ":"
		if o.partitions > 0 {
			text += fmt.Sprintf(" %s, %d before", terminal.Plural(o.partitions, "partition"), len(topic.Partitions))
		}
		text += changeInWords(change) + "\n"
		for _, w := range s.Warnings {
			o.p.Note("warning: topic %s: %s", topic.Name, w)
		}
		return o.p.Write([]byte(text))
	})
}
