package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// describedConfig is what config describe shows of a setting.
type describedConfig struct {
	Name      string  `json:"name"`
	Value     *string `json:"value"` // null: none, or not shown
	Source    string  `json:"source"`
	Type      string  `json:"type"`
	ReadOnly  bool    `json:"read_only,omitempty"`
	Sensitive bool    `json:"sensitive,omitempty"`
	Doc       string  `json:"documentation,omitempty"`
}

// sources says where a value comes from, in words.
var sources = map[admin.ConfigSource]string{
	admin.DynamicTopicConfig:         "topic",
	admin.DynamicBrokerConfig:        "broker, at run time",
	admin.DynamicDefaultBrokerConfig: "all brokers, at run time",
	admin.StaticBrokerConfig:         "broker, at its start",
	admin.DefaultConfig:              "default",
}

func newConfigDescribe(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var s subject
	var out terminal.Format
	var all, doc bool
	c := &cobra.Command{
		Use:   "describe (--topic NAME | --broker ID | --default) [KEY...]",
		Short: "Show settings",
		Long: `Show settings that somebody has set, where each value comes from, and with --all those that
nobody has. With KEYs only these are shown, set or not.`,
		Example: `  barnabas config describe --topic flights
  barnabas config describe --broker 1 log.retention.hours --doc`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, keys []string) error {
			r, err := s.resource(c)
			if err != nil {
				return err
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				entries, err := configsOf(ctx, a, r, keys, all || len(keys) > 0, doc)
				if err != nil {
					return err
				}
				return p.Show(out, entries, func() error { return showConfigs(p, r, entries, all, doc) })
			})
		},
	}
	s.register(c, t)
	c.Flags().BoolVarP(&all, "all", "a", false, "also settings that have their default value")
	c.Flags().BoolVar(&doc, "doc", false, "also what each setting means")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func configsOf(ctx context.Context, a *admin.Admin, r admin.Resource, keys []string, defaults, doc bool) ([]describedConfig, error) {
	var options []admin.DescribeOption
	if len(keys) > 0 {
		options = append(options, admin.Only(keys...))
	}
	if doc {
		options = append(options, admin.WithDocumentation())
	}
	found, err := a.DescribeConfigs(ctx, []admin.Resource{r}, options...)
	if err == nil {
		err = found[0].Err
	}
	if err != nil {
		return nil, fmt.Errorf("settings of %v: %w", r, explainResource(ctx, a, r, err))
	}
	shown := []describedConfig{}
	for _, e := range found[0].Entries {
		if e.IsDefault() && !defaults {
			continue
		}
		d := describedConfig{
			Name: e.Name, Source: e.Source.String(), Type: e.Type.String(), ReadOnly: e.ReadOnly, Sensitive: e.Sensitive, Doc: e.Documentation,
		}
		if !e.Null {
			d.Value = &e.Value
		}
		shown = append(shown, d)
	}
	for _, key := range keys {
		if !slices.ContainsFunc(shown, func(d describedConfig) bool { return d.Name == key }) {
			return nil, unknownKey(r, key)
		}
	}
	return shown, nil
}

func showConfigs(p *terminal.Program, r admin.Resource, entries []describedConfig, all, doc bool) error {
	if doc {
		for _, d := range entries {
			text := fmt.Sprintf("%s = %s (%s)\n    %s\n", d.Name, d.shown(), d.source(), d.Doc)
			if err := p.Write([]byte(text)); err != nil {
				return err
			}
		}
		return nil
	}
	t := terminal.NewTable("KEY", "VALUE", "SOURCE")
	for _, d := range entries {
		t.Add(d.Name, d.shown(), d.source())
	}
	ifEmpty := fmt.Sprintf("nothing is set of %v; --all shows what holds by default", r)
	if all {
		ifEmpty = fmt.Sprintf("%v has no settings", r)
	}
	return p.ShowTable(t, ifEmpty)
}

func (d describedConfig) shown() string {
	switch {
	case d.Sensitive:
		return "(hidden)"
	case d.Value == nil:
		return "(null)"
	case *d.Value == "":
		return `""`
	}
	return *d.Value
}

func (d describedConfig) source() string {
	for source, words := range sources {
		if source.String() == d.Source {
			return words
		}
	}
	return d.Source
}
