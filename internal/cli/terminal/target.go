package terminal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"barnabas/client"
	"barnabas/client/admin"
)

const (
	BrokersVariable = "BARNABAS_BROKERS"
	defaultBrokers  = "127.0.0.1:9092"
	defaultPort     = "9092"

	// connectPatience bounds one connection attempt: whoever types a wrong address is told soon.
	connectPatience = 5 * time.Second

	// leastTimeout is the shortest --timeout: below it nothing can succeed.
	leastTimeout = time.Millisecond
)

// Target is the cluster that a client command talks to, from its flags.
type Target struct {
	p        *Program
	brokers  []string
	Timeout  time.Duration
	patience time.Duration // with an address that refuses connections
}

// Register adds the flags that every client command has.
func (t *Target) Register(flags *pflag.FlagSet, p *Program, timeout time.Duration) {
	t.p, t.patience = p, p.Patience.Start
	flags.StringSliceVarP(&t.brokers, "brokers", "b", nil,
		"ask these brokers first, `HOST:PORT,...` (default $"+BrokersVariable+", else "+defaultBrokers+")")
	flags.DurationVar(&t.Timeout, "timeout", timeout, "give up after this time")
}

// addresses gives what was named, each with a port.
func (t *Target) addresses() ([]string, error) {
	list, origin := t.brokers, "--brokers"
	if len(list) == 0 {
		list, origin = strings.Split(t.p.Env(BrokersVariable), ","), BrokersVariable
	}
	var out []string
	for _, a := range list {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		if strings.Contains(a, "://") || strings.ContainsAny(a, "/ ") {
			return nil, Usagef("%s: %q is not HOST:PORT", origin, a)
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), defaultPort)
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || !isPort(port) {
			return nil, Usagef("%s: %q is not HOST:PORT", origin, a)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		if t.p.Env(BrokersVariable) != "" || len(t.brokers) > 0 {
			return nil, Usagef("%s names no broker: write HOST:PORT, several with commas between them", origin)
		}
		out = []string{defaultBrokers}
	}
	return out, nil
}

func isPort(s string) bool {
	n, err := net.LookupPort("tcp", s)
	return err == nil && n > 0
}

// named is how messages call the cluster.
func (t *Target) named() string {
	list, err := t.addresses()
	if err != nil {
		return "the brokers"
	}
	return strings.Join(list, ", ")
}

// Connect makes a client and asks for an answer at once, so that a wrong address shows as that
// and not as whatever the command tries first.
func (t *Target) Connect(ctx context.Context, options ...client.Option) (*client.Client, error) {
	addresses, err := t.addresses()
	if err != nil {
		return nil, err
	}
	if t.Timeout < leastTimeout {
		return nil, Usagef("--timeout %v is less than %v", t.Timeout, leastTimeout)
	}
	all := append([]client.Option{
		client.Brokers(addresses...), client.ID("barnabas-cli"), client.ConnectionSetupTimeout(min(connectPatience, t.Timeout)),
		client.RequestTimeout(min(30*time.Second, t.Timeout)),
	}, options...)
	c, err := client.New(all...)
	if err != nil {
		return nil, UsageError{err}
	}
	patient, cancel := t.Within(ctx)
	defer cancel()
	if err := t.reach(patient, c); err != nil {
		return nil, errors.Join(t.Explain(err), c.Close())
	}
	return c, nil
}

// reach asks for an answer, for a while again where nobody listens: the broker may have been started by
// the line before. The client itself waits between attempts (reconnect.backoff.ms).
func (t *Target) reach(ctx context.Context, c *client.Client) error {
	for began := time.Now(); ; {
		err := c.Ping(ctx)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil || time.Since(began) > t.patience {
			return err
		}
	}
}

// Within bounds a call by --timeout.
func (t *Target) Within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t.Timeout, ErrNoAnswer)
}

// Admin runs a command that makes admin calls, within --timeout.
func (t *Target) Admin(ctx context.Context, run func(context.Context, *admin.Admin) error) error {
	c, err := t.Connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := t.Within(ctx)
	defer cancel()
	err = t.Explain(run(ctx, admin.New(c, admin.Timeout(t.Timeout))))
	return errors.Join(err, c.Close())
}

// TopicNames completes names of topics by asking the brokers; most says how many arguments may be
// topics, 0 for any number.
func (t *Target) TopicNames(most int) cobra.CompletionFunc {
	return t.names(most, func(ctx context.Context, a *admin.Admin) ([]string, error) {
		topics, err := a.ListTopics(ctx)
		var names []string
		for _, topic := range topics {
			names = append(names, topic.Name)
		}
		return names, err
	})
}

// GroupNames is topicNames for groups.
func (t *Target) GroupNames(most int) cobra.CompletionFunc {
	return t.names(most, func(ctx context.Context, a *admin.Admin) ([]string, error) {
		groups, err := a.ListGroups(ctx)
		var names []string
		for _, g := range groups {
			names = append(names, g.Group)
		}
		return names, err
	})
}

// names completes arguments, of which each is named once.
func (t *Target) names(most int, list func(context.Context, *admin.Admin) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		quick := *t
		quick.Timeout, quick.patience = t.p.Patience.Completion, 0
		var names []string
		err := quick.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
			all, err := list(ctx, a)
			for _, name := range all {
				if !contains(args, name) {
					names = append(names, name)
				}
			}
			return err
		})
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func contains(list []string, s string) bool {
	for _, other := range list {
		if other == s {
			return true
		}
	}
	return false
}

// UnknownTopic turns "there is no such topic" into advice: the name that was probably meant, or
// how to make one.
func UnknownTopic(ctx context.Context, a *admin.Admin, name string, err error) error {
	if !errors.Is(err, client.ErrUnknownTopicOrPartition) {
		return err
	}
	hint := fmt.Sprintf("'barnabas topic create %s' makes it, 'barnabas topic list' shows what there is", name)
	if topics, listErr := a.ListTopics(ctx); listErr == nil {
		var names []string
		for _, t := range topics {
			names = append(names, t.Name)
		}
		if near := Nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?\n%s", near, hint)
		}
	}
	return Hinted{NotFoundError{fmt.Sprintf("there is no topic %q", name), err}, hint}
}

// NotFoundError replaces a code by a sentence.
type NotFoundError struct {
	Text  string
	Cause error
}

func (e NotFoundError) Error() string { return e.Text }
func (e NotFoundError) Unwrap() error { return e.Cause }

// Nearest finds the name most like the given one, or "" where none is close: a third of the
// letters may differ.
func Nearest(name string, names []string) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, n := range names {
		if d := editDistance(strings.ToLower(name), strings.ToLower(n)); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// editDistance counts the insertions, removals, changes and swaps of neighbours that make b of a.
func editDistance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = last, row, before
	}
	return rows[1][len(b)]
}
