// Package terminal is what all commands share with the person who types them: the flags that name a cluster and the
// connection to it, tables and JSON, errors in words, and the exit codes.
//
// It knows no command. The packages of commands beside it use it, each for a noun or a few.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
)

// Streams are the standard streams of the process, or a test's.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Program is what every command is given.
type Program struct {
	Streams
	Env      func(string) string
	Patience Patience
	Began    bool // a command was found and its arguments taken: whatever fails now is not the typing
}

// Patience is how long a person, or the script of one, is kept waiting for a broker.
type Patience struct {
	// Start is how long a refused connection is tried again, so that 'barnabas serve &' and the command
	// after it can stand in one script.
	Start time.Duration
	// Completion bounds how long a shell waits for names when Tab is pressed.
	Completion time.Duration
}

// NewProgram is the program with the patience of a person.
func NewProgram(s Streams, env func(string) string) *Program {
	return &Program{Streams: s, Env: env, Patience: Patience{Start: 2 * time.Second, Completion: 2 * time.Second}}
}

// ErrInterrupted is why a command's context ends at the first SIGINT or SIGTERM. A second signal
// ends the process at once.
var ErrInterrupted = fmt.Errorf("interrupted")

// Noun is a command that only groups verbs.
func Noun(c *cobra.Command) *cobra.Command {
	c.Args = UnknownVerb
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

// UnknownVerb refuses a word that is no command, and names those that look like it.
func UnknownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := UsageError{fmt.Errorf("%s has no command %q", c.CommandPath(), args[0])}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return Hinted{err, fmt.Sprintf("did you mean '%s %s'?", c.CommandPath(), strings.Join(near, "' or '"))}
	}
	return Hinted{err, fmt.Sprintf("'%s --help' lists them", c.CommandPath())}
}

// Exactly demands one argument for each name.
func Exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return Hinted{UsageError{fmt.Errorf("%s is missing", names[len(args)])}, "usage: " + c.UseLine()}
		case len(args) > len(names):
			return Hinted{UsageError{fmt.Errorf("%q is one argument too many", args[len(names)])}, "usage: " + c.UseLine()}
		}
		return nil
	}
}

// OneOrMore demands at least one argument.
func OneOrMore(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return Hinted{UsageError{fmt.Errorf("%s is missing", name)}, "usage: " + c.UseLine()}
		}
		return nil
	}
}

// AdminTimeout is the default --timeout of commands that ask for something once.
const AdminTimeout = 30 * time.Second

// KeyValues reads KEY=VALUE pairs of a flag, and refuses a key that is given twice.
func KeyValues(flag string, pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			return nil, Usagef("%s %q: write KEY=VALUE", flag, pair)
		}
		if _, twice := out[key]; twice {
			return nil, Usagef("%s: %s is given twice", flag, key)
		}
		out[key] = strings.TrimSpace(value)
	}
	return out, nil
}

// EachFailed reports the items that failed, one line each, and gives the error to end with: nil
// where none did.
func (p *Program) EachFailed(items []FailedItem) error {
	var errs []error
	for _, i := range items {
		if i.Err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", i.What, i.Err))
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	for _, err := range errs {
		p.Report(err)
	}
	return ErrReported{errors.Join(errs...)}
}

type FailedItem struct {
	What string
	Err  error
}

func IsUnknownTopic(err error) bool {
	return errors.Is(err, client.ErrUnknownTopicOrPartition) || errors.Is(err, client.ErrUnknownTopicID)
}

// PartitionsOf gives a topic's partitions by name, or an error that helps.
func PartitionsOf(ctx context.Context, a *admin.Admin, name string) (admin.TopicDescription, error) {
	found, err := a.DescribeTopics(ctx, name)
	if err != nil {
		return admin.TopicDescription{}, err
	}
	if found[0].Err != nil {
		return admin.TopicDescription{}, UnknownTopic(ctx, a, name, fmt.Errorf("topic %q: %w", name, found[0].Err))
	}
	return found[0], nil
}

func Optional(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func SortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
