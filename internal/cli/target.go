package cli

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
	brokersVariable = "BARNABAS_BROKERS"
	defaultBrokers  = "127.0.0.1:9092"
	defaultPort     = "9092"

	// connectPatience bounds one connection attempt: whoever types a wrong address is told soon.
	connectPatience = 5 * time.Second

	// leastTimeout is the shortest --timeout: below it nothing can succeed.
	leastTimeout = time.Millisecond
)

// target is the cluster that a client command talks to, from its flags.
type target struct {
	p        *program
	brokers  []string
	timeout  time.Duration
	patience time.Duration // with an address that refuses connections
}

// register adds the flags that every client command has.
func (t *target) register(flags *pflag.FlagSet, p *program, timeout time.Duration) {
	t.p, t.patience = p, p.patience.start
	flags.StringSliceVarP(&t.brokers, "brokers", "b", nil,
		"ask these brokers first, `HOST:PORT,...` (default $"+brokersVariable+", else "+defaultBrokers+")")
	flags.DurationVar(&t.timeout, "timeout", timeout, "give up after this time")
}

// addresses gives what was named, each with a port.
func (t *target) addresses() ([]string, error) {
	list, origin := t.brokers, "--brokers"
	if len(list) == 0 {
		list, origin = strings.Split(t.p.env(brokersVariable), ","), brokersVariable
	}
	var out []string
	for _, a := range list {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		if strings.Contains(a, "://") || strings.ContainsAny(a, "/ ") {
			return nil, usagef("%s: %q is not HOST:PORT", origin, a)
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), defaultPort)
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || !isPort(port) {
			return nil, usagef("%s: %q is not HOST:PORT", origin, a)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		if t.p.env(brokersVariable) != "" || len(t.brokers) > 0 {
			return nil, usagef("%s names no broker: write HOST:PORT, several with commas between them", origin)
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
func (t *target) named() string {
	list, err := t.addresses()
	if err != nil {
		return "the brokers"
	}
	return strings.Join(list, ", ")
}

// connect makes a client and asks for an answer at once, so that a wrong address shows as that
// and not as whatever the command tries first.
func (t *target) connect(ctx context.Context, options ...client.Option) (*client.Client, error) {
	addresses, err := t.addresses()
	if err != nil {
		return nil, err
	}
	if t.timeout < leastTimeout {
		return nil, usagef("--timeout %v is less than %v", t.timeout, leastTimeout)
	}
	all := append([]client.Option{
		client.Brokers(addresses...), client.ID("barnabas-cli"), client.ConnectionSetupTimeout(min(connectPatience, t.timeout)),
		client.RequestTimeout(min(30*time.Second, t.timeout)),
	}, options...)
	c, err := client.New(all...)
	if err != nil {
		return nil, usageError{err}
	}
	patient, cancel := t.within(ctx)
	defer cancel()
	if err := t.reach(patient, c); err != nil {
		return nil, errors.Join(t.explain(err), c.Close())
	}
	return c, nil
}

// reach asks for an answer, for a while again where nobody listens: the broker may have been started by
// the line before. The client itself waits between attempts (reconnect.backoff.ms).
func (t *target) reach(ctx context.Context, c *client.Client) error {
	for began := time.Now(); ; {
		err := c.Ping(ctx)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil || time.Since(began) > t.patience {
			return err
		}
	}
}

// within bounds a call by --timeout.
func (t *target) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t.timeout, errNoAnswer)
}

// admin runs a command that makes admin calls, within --timeout.
func (t *target) admin(ctx context.Context, run func(context.Context, *admin.Admin) error) error {
	c, err := t.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := t.within(ctx)
	defer cancel()
	err = t.explain(run(ctx, admin.New(c, admin.Timeout(t.timeout))))
	return errors.Join(err, c.Close())
}

// topicNames completes names of topics by asking the brokers; most says how many arguments may be
// topics, 0 for any number.
func (t *target) topicNames(most int) cobra.CompletionFunc {
	return t.names(most, func(ctx context.Context, a *admin.Admin) ([]string, error) {
		topics, err := a.ListTopics(ctx)
		var names []string
		for _, topic := range topics {
			names = append(names, topic.Name)
		}
		return names, err
	})
}

// groupNames is topicNames for groups.
func (t *target) groupNames(most int) cobra.CompletionFunc {
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
func (t *target) names(most int, list func(context.Context, *admin.Admin) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		quick := *t
		quick.timeout, quick.patience = t.p.patience.completion, 0
		var names []string
		err := quick.admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
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

// unknownTopic turns "there is no such topic" into advice: the name that was probably meant, or
// how to make one.
func unknownTopic(ctx context.Context, a *admin.Admin, name string, err error) error {
	if !errors.Is(err, client.ErrUnknownTopicOrPartition) {
		return err
	}
	hint := fmt.Sprintf("'barnabas topic create %s' makes it, 'barnabas topic list' shows what there is", name)
	if topics, listErr := a.ListTopics(ctx); listErr == nil {
		var names []string
		for _, t := range topics {
			names = append(names, t.Name)
		}
		if near := nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?\n%s", near, hint)
		}
	}
	return hinted{notFoundError{fmt.Sprintf("there is no topic %q", name), err}, hint}
}

// notFoundError replaces a code by a sentence.
type notFoundError struct {
	text  string
	cause error
}

func (e notFoundError) Error() string { return e.text }
func (e notFoundError) Unwrap() error { return e.cause }

// nearest finds the name most like the given one, or "" where none is close: a third of the
// letters may differ.
func nearest(name string, names []string) string {
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
