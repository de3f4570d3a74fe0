package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
	"barnabas/internal/config"
)

func newConfig(p *terminal.Program) *cobra.Command {
	t := &terminal.Target{}
	c := terminal.Noun(&cobra.Command{Use: "config", Aliases: []string{"configs"}, Short: "Show and change settings of topics and brokers"})
	t.Register(c.PersistentFlags(), p, terminal.AdminTimeout)
	c.AddCommand(newConfigDescribe(p, t), newConfigAlter(p, t))
	return c
}

// subject says whose settings: exactly one flag is given.
type subject struct {
	topic    string
	broker   int32
	defaults bool
}

func (s *subject) register(c *cobra.Command, t *terminal.Target) {
	flags := c.Flags()
	flags.StringVarP(&s.topic, "topic", "t", "", "the settings of topic `NAME`")
	flags.Int32Var(&s.broker, "broker", 0, "the settings of the broker with node id `ID`")
	flags.BoolVar(&s.defaults, "default", false, "what holds for every broker without a value of its own")
	names := t.TopicNames(0)
	_ = c.RegisterFlagCompletionFunc("topic", func(c *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
		return names(c, nil, part)
	})
}

func (s *subject) resource(c *cobra.Command) (admin.Resource, error) {
	given := 0
	for _, name := range []string{"topic", "broker", "default"} {
		if c.Flags().Changed(name) {
			given++
		}
	}
	switch {
	case given != 1:
		return admin.Resource{}, terminal.Usagef("whose settings? Give one of --topic NAME, --broker ID, --default")
	case c.Flags().Changed("topic"):
		if s.topic == "" {
			return admin.Resource{}, terminal.Usagef("--topic: name the topic")
		}
		return admin.Topic(s.topic), nil
	case c.Flags().Changed("broker"):
		return admin.Broker(s.broker), nil
	case !s.defaults:
		return admin.Resource{}, terminal.Usagef("--default=false names nothing")
	}
	return admin.AllBrokers(), nil
}

// scope is the table of keys that a resource's settings are in.
func scope(r admin.Resource) config.Scope {
	if r.Type == admin.TopicResource {
		return config.Topics
	}
	return config.Broker
}

// explainResource words the errors that naming a wrong topic or broker leads to.
func explainResource(ctx context.Context, a *admin.Admin, r admin.Resource, err error) error {
	switch {
	case err == nil:
		return nil
	case r.Type == admin.TopicResource:
		return terminal.UnknownTopic(ctx, a, r.Name, err)
	case !strings.Contains(err.Error(), client.ErrUnknownBroker.Error()):
		return err
	}
	hint := "'barnabas cluster describe' shows the brokers"
	return terminal.Hinted{Err: terminal.NotFoundError{Text: fmt.Sprintf("there is no broker %s", r.Name), Cause: client.ErrUnknownBroker}, Hint: hint}
}

// configChange reads --set and --delete.
func configChange(r admin.Resource, set, remove []string) (admin.ConfigChange, error) {
	values, err := terminal.KeyValues("--set", set)
	if err != nil {
		return admin.ConfigChange{}, err
	}
	for _, key := range remove {
		if key == "" || strings.Contains(key, "=") {
			return admin.ConfigChange{}, terminal.Usagef("--delete %q: write KEY alone", key)
		}
		if _, both := values[key]; both {
			return admin.ConfigChange{}, terminal.Usagef("%s is both set and deleted", key)
		}
	}
	return admin.ConfigChange{Resource: r, Set: values, Delete: remove}, nil
}

// changeInWords lists what a change sets and deletes.
func changeInWords(c admin.ConfigChange) string {
	var text strings.Builder
	for _, key := range terminal.SortedKeys(c.Set) {
		fmt.Fprintf(&text, " %s=%s", key, c.Set[key])
	}
	for _, key := range c.Delete {
		fmt.Fprintf(&text, " %s deleted", key)
	}
	return text.String()
}
