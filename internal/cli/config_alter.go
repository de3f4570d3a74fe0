package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
	"barnabas/internal/config"
)

// alteredConfig is what config alter shows.
type alteredConfig struct {
	Resource string            `json:"resource"`
	Name     string            `json:"name"`
	Set      map[string]string `json:"set,omitempty"`
	Deleted  []string          `json:"deleted,omitempty"`
	DryRun   bool              `json:"dry_run,omitempty"`
}

func newConfigAlter(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var s subject
	var out terminal.Format
	var set, remove []string
	var dryRun, force bool
	c := &cobra.Command{
		Use:   "alter (--topic NAME | --broker ID | --default) [--set KEY=VALUE]... [--delete KEY]...",
		Short: "Change settings while the brokers run",
		Example: `  barnabas config alter --topic flights --set retention.ms=3600000
  barnabas config alter --default --set log.retention.ms=172800000
  barnabas config alter --topic flights --delete retention.ms`,
		Args: terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := s.resource(c)
			if err != nil {
				return err
			}
			change, err := configChange(r, set, remove)
			if err != nil {
				return err
			}
			if len(change.Set)+len(change.Delete) == 0 {
				return terminal.Usagef("nothing to alter: give --set KEY=VALUE or --delete KEY")
			}
			if !force {
				if err := checkChange(change); err != nil {
					return err
				}
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return alterConfig(ctx, p, a, change, dryRun, out)
			})
		},
	}
	s.register(c, t)
	c.Flags().StringArrayVar(&set, "set", nil, "set `KEY=VALUE`; repeatable")
	c.Flags().StringArrayVar(&remove, "delete", nil, "go back to what holds without this `KEY`; repeatable")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "let the broker check, and change nothing")
	c.Flags().BoolVar(&force, "force", false, "leave it to the broker whether it knows KEY and takes VALUE")
	terminal.RegisterFormat(c, c.Flags(), &out)
	keys := func(suffix string) cobra.CompletionFunc {
		return func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			of := config.Topics
			if c.Flags().Changed("broker") || c.Flags().Changed("default") {
				of = config.Broker
			}
			return configKeys(of, suffix)(c, args, part)
		}
	}
	_ = c.RegisterFlagCompletionFunc("set", keys("="))
	_ = c.RegisterFlagCompletionFunc("delete", keys(""))
	return c
}

// checkChange refuses keys and values that this program does not know. A broker would keep an
// unknown key of its own for its plugins, and so keep a typing error without a word.
func checkChange(c admin.ConfigChange) error {
	for _, key := range slices.Concat(terminal.SortedKeys(c.Set), c.Delete) {
		if _, known := config.Lookup(scope(c.Resource), key); !known {
			return terminal.UsageError{Err: unknownKey(c.Resource, key)}
		}
	}
	var err error
	if c.Resource.Type == admin.TopicResource {
		err = config.CheckTopic(c.Set)
	} else {
		err = config.CheckDynamicBroker(c.Resource.Name, c.Set, c.Resource.Name != "")
	}
	if err != nil {
		return terminal.UsageError{Err: err}
	}
	return nil
}

// unknownKey refuses a setting that a resource does not have.
func unknownKey(r admin.Resource, key string) error {
	err := terminal.NotFoundError{Text: fmt.Sprintf("%v has no setting %q", r, key), Cause: nil}
	var names []string
	for k := range config.Keys(scope(r)) {
		names = append(names, k.Name)
	}
	if near := terminal.Nearest(key, names); near != "" {
		return terminal.Hinted{Err: err, Hint: fmt.Sprintf("did you mean %s?", near)}
	}
	return terminal.Hinted{Err: err, Hint: "'barnabas config describe --all' lists them"}
}

func alterConfig(ctx context.Context, p *terminal.Program, a *admin.Admin, change admin.ConfigChange, dryRun bool, out terminal.Format) error {
	var options []admin.ChangeOption
	if dryRun {
		options = append(options, admin.ValidateOnly())
	}
	done, err := a.AlterConfigs(ctx, []admin.ConfigChange{change}, options...)
	if err == nil {
		err = done[0].Err
	}
	if err != nil {
		return fmt.Errorf("alter %v: %w", change.Resource, explainResource(ctx, a, change.Resource, err))
	}
	shown := alteredConfig{change.Resource.Type.String(), change.Resource.Name, change.Set, change.Delete, dryRun}
	err = p.Show(out, shown, func() error {
		did := "altered"
		if dryRun {
			did = "would alter"
		}
		return p.Write(fmt.Appendf(nil, "%s %v:%s\n", did, change.Resource, changeInWords(change)))
	})
	if err != nil {
		return err
	}
	return warnLowered(ctx, p, a, change)
}

// warnLowered tells where a topic now asks for more replicas in sync than it has (trap 6).
func warnLowered(ctx context.Context, p *terminal.Program, a *admin.Admin, change admin.ConfigChange) error {
	value, set := change.Set[minInSync]
	if !set || change.Resource.Type != admin.TopicResource {
		return nil
	}
	topic, err := terminal.PartitionsOf(ctx, a, change.Resource.Name)
	if err != nil {
		return err
	}
	replicas := 0
	for _, d := range topic.Partitions {
		replicas = max(replicas, len(d.Replicas))
	}
	if w := loweredInSync(value, replicas); w != "" {
		p.Note("warning: topic %s: %s", change.Resource.Name, w)
	}
	return nil
}
