package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
	"barnabas/internal/config"
)

type topicCreate struct {
	p          *terminal.Program
	t          *terminal.Target
	out        terminal.Format
	partitions int32
	replicas   int16
	config     []string
	unless     bool
	dryRun     bool
}

func newTopicCreate(p *terminal.Program, t *terminal.Target) *cobra.Command {
	o := &topicCreate{p: p, t: t}
	c := &cobra.Command{
		Use:   "create NAME...",
		Short: "Create topics",
		Long: `Create topics.

Without --partitions and --replication-factor the broker decides, by its settings
num.partitions and default.replication.factor.`,
		Example: `  barnabas topic create flights --partitions 12
  barnabas topic create events --config retention.ms=172800000 --config compression.type=zstd`,
		Args: terminal.OneOrMore("NAME"),
		RunE: func(c *cobra.Command, names []string) error { return o.run(c, names) },
	}
	flags := c.Flags()
	flags.Int32VarP(&o.partitions, "partitions", "p", 0, "how many partitions `N` (default: num.partitions of the broker)")
	flags.Int16VarP(&o.replicas, "replication-factor", "r", 0, "how many copies `N` of each (default: default.replication.factor of the broker)")
	flags.StringArrayVar(&o.config, "config", nil, "set `KEY=VALUE`; repeatable")
	flags.BoolVar(&o.unless, "if-not-exists", false, "leave a topic that exists as it is, and do not call that a failure")
	flags.BoolVar(&o.dryRun, "dry-run", false, "let the broker check, and create nothing")
	terminal.RegisterFormat(c, flags, &o.out)
	_ = c.RegisterFlagCompletionFunc("config", configKeys(config.Topics, "="))
	return c
}

// createdTopic is what topic create shows of a topic.
type createdTopic struct {
	Topic             string   `json:"topic"`
	ID                string   `json:"id,omitempty"`
	Partitions        int32    `json:"partitions,omitempty"`
	ReplicationFactor int16    `json:"replication_factor,omitempty"`
	Created           bool     `json:"created"`
	Exists            bool     `json:"exists,omitempty"` // with --if-not-exists
	Warnings          []string `json:"warnings,omitempty"`
	Error             string   `json:"error,omitempty"`
}

func (o *topicCreate) run(c *cobra.Command, names []string) error {
	for flag, n := range map[string]int64{"partitions": int64(o.partitions), "replication-factor": int64(o.replicas)} {
		if c.Flags().Changed(flag) && n < 1 {
			return terminal.Usagef("--%s %d: at least 1", flag, n)
		}
	}
	settings, err := terminal.KeyValues("--config", o.config)
	if err != nil {
		return err
	}
	if err := config.CheckTopic(settings); err != nil {
		return terminal.UsageError{Err: err}
	}
	var topics []admin.NewTopic
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return terminal.Usagef("%s is given twice", name)
		}
		topics = append(topics, admin.NewTopic{Name: name, Partitions: o.partitions, ReplicationFactor: o.replicas, Configs: settings})
	}
	return o.t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
		var options []admin.ChangeOption
		if o.dryRun {
			options = append(options, admin.ValidateOnly())
		}
		made, err := a.CreateTopics(ctx, topics, options...)
		if err != nil {
			return err
		}
		return o.show(made, o.brokerCount(ctx, a, made))
	})
}

// brokerCount tells how many brokers there are, for the advice where there are too few; 0 where
// nobody needs it.
func (o *topicCreate) brokerCount(ctx context.Context, a *admin.Admin, made []admin.CreatedTopic) int {
	if !slices.ContainsFunc(made, func(t admin.CreatedTopic) bool { return errors.Is(t.Err, client.ErrInvalidReplicationFactor) }) {
		return 0
	}
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		return 0 // the topic's own error is what counts
	}
	return len(cluster.Brokers)
}

func (o *topicCreate) show(made []admin.CreatedTopic, brokers int) error {
	var shown []createdTopic
	var failed []terminal.FailedItem
	for _, m := range made {
		s := createdTopic{Topic: m.Name, Created: m.Err == nil && !o.dryRun}
		switch {
		case m.Err == nil:
			s.Partitions, s.ReplicationFactor = max(m.Partitions, 0), max(m.ReplicationFactor, 0)
			if id := m.ID; id != (client.UUID{}) {
				s.ID = id.String()
			}
			for _, e := range m.Configs {
				if w := loweredInSync(e.Value, int(m.ReplicationFactor)); e.Name == minInSync && w != "" {
					s.Warnings = append(s.Warnings, w)
				}
			}
		case o.unless && errors.Is(m.Err, client.ErrTopicAlreadyExists):
			s.Exists = true
		default:
			s.Error = terminal.Said(m.Err)
			failed = append(failed, terminal.FailedItem{What: "create topic " + m.Name, Err: o.advise(m, brokers)})
		}
		shown = append(shown, s)
	}
	err := o.p.Show(o.out, shown, func() error {
		for _, s := range shown {
			if line := s.line(o.dryRun); line != "" {
				if err := o.p.Write([]byte(line + "\n")); err != nil {
					return err
				}
			}
			for _, w := range s.Warnings {
				o.p.Note("warning: topic %s: %s", s.Topic, w)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return o.p.EachFailed(failed)
}

func (s createdTopic) line(dryRun bool) string {
	size := ""
	if s.Partitions > 0 {
		size = fmt.Sprintf(" with %s, replication factor %d", terminal.Plural(s.Partitions, "partition"), s.ReplicationFactor)
	}
	switch {
	case s.Error != "":
		return ""
	case s.Exists:
		return fmt.Sprintf("topic %s exists already", s.Topic)
	case dryRun:
		return fmt.Sprintf("topic %s could be created%s", s.Topic, size)
	}
	return fmt.Sprintf("created topic %s%s", s.Topic, size)
}

func (o *topicCreate) advise(m admin.CreatedTopic, brokers int) error {
	switch {
	case errors.Is(m.Err, client.ErrTopicAlreadyExists):
		return terminal.Hinted{Err: m.Err, Hint: "--if-not-exists leaves it as it is; 'barnabas topic describe " + m.Name + "' shows it"}
	case errors.Is(m.Err, client.ErrInvalidReplicationFactor) && brokers > 0 && brokers < math.MaxInt16:
		return terminal.Hinted{Err: m.Err, Hint: fmt.Sprintf("the cluster has %s: --replication-factor can be at most %d", terminal.Plural(brokers, "broker"), brokers)}
	}
	return m.Err
}
