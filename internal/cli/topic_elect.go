package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/reset"
	"barnabas/internal/cli/terminal"
)

const electHelp = `Give partitions their preferred leader, the first of their replicas, if it is in sync.

With --unclean, give partitions that have no leader any replica that lives, even one that
lacks records that were acknowledged. Those are lost, and consumers may have seen them:
wait for the replicas that have them if there is any hope.`

// electedPartition is what topic elect shows of a partition.
type electedPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Result    string `json:"result"` // elected, not needed or failed
	Leader    *int32 `json:"leader"` // that it has now; null: none, or not known
	Error     string `json:"error,omitempty"`
}

func newTopicElect(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var all, unclean bool
	c := &cobra.Command{
		Use:   "elect NAME[:0,1]...",
		Short: "Give partitions their preferred leaders, or any at all",
		Long:  electHelp,
		Example: `  barnabas topic elect --all
  barnabas topic elect flights:3 --unclean`,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return terminal.Hinted{Err: terminal.Usagef("of which topics? Give names, or --all"), Hint: "usage: " + c.UseLine()}
			}
			var scopes []reset.Scope
			for _, arg := range args {
				s, err := reset.ParseScope(arg)
				if err != nil {
					return terminal.UsageError{Err: err}
				}
				scopes = append(scopes, s)
			}
			kind := admin.Preferred
			if unclean {
				kind = admin.Unclean
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return electLeaders(ctx, p, a, kind, scopes, out)
			})
		},
		ValidArgsFunction: t.TopicNames(0),
	}
	c.Flags().BoolVar(&all, "all", false, "all partitions of the cluster")
	c.Flags().BoolVar(&unclean, "unclean", false, "accept the loss of records, where no replica in sync is left")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func electLeaders(ctx context.Context, p *terminal.Program, a *admin.Admin, kind admin.ElectionType, scopes []reset.Scope, out terminal.Format) error {
	var asked []client.TopicPartition
	for _, s := range scopes {
		topic, err := terminal.PartitionsOf(ctx, a, s.Topic)
		if err != nil {
			return err
		}
		for _, n := range s.Partitions {
			asked = append(asked, client.TopicPartition{Topic: s.Topic, Partition: n})
		}
		for _, part := range topic.Partitions {
			if s.Partitions == nil {
				asked = append(asked, client.TopicPartition{Topic: s.Topic, Partition: part.Partition})
			}
		}
	}
	results, err := a.ElectLeaders(ctx, kind, asked...)
	if err != nil {
		return err
	}
	shown := []electedPartition{}
	var failed []terminal.FailedItem
	for _, r := range results {
		tp := r.TopicPartition
		s := electedPartition{Topic: tp.Topic, Partition: tp.Partition, Result: "elected"}
		switch {
		case errors.Is(r.Err, client.ErrElectionNotNeeded):
			s.Result = "not needed"
		case r.Err != nil:
			s.Result, s.Error = "failed", terminal.Said(r.Err)
			failed = append(failed, terminal.FailedItem{What: fmt.Sprintf("elect a leader of %s-%d", tp.Topic, tp.Partition), Err: r.Err})
		}
		shown = append(shown, s)
	}
	if err := addLeaders(ctx, a, shown); err != nil {
		return err
	}
	err = p.Show(out, shown, func() error {
		t := terminal.NewTable("TOPIC", "PARTITION", "LEADER", "RESULT")
		for _, s := range shown {
			leader := "none"
			if s.Leader != nil {
				leader = fmt.Sprint(*s.Leader)
			}
			t.Add(s.Topic, s.Partition, leader, s.Result)
		}
		return p.ShowTable(t, "every partition has the leader that it should have")
	})
	if err != nil {
		return err
	}
	return p.EachFailed(failed)
}

// addLeaders looks up who leads now.
func addLeaders(ctx context.Context, a *admin.Admin, shown []electedPartition) error {
	leaders := map[client.TopicPartition]int32{}
	var names []string
	for _, s := range shown {
		if len(names) == 0 || names[len(names)-1] != s.Topic {
			names = append(names, s.Topic)
		}
	}
	if len(names) == 0 {
		return nil
	}
	found, err := a.DescribeTopics(ctx, names...)
	if err != nil {
		return err
	}
	for _, t := range found {
		for _, part := range t.Partitions {
			leaders[client.TopicPartition{Topic: t.Name, Partition: part.Partition}] = part.Leader
		}
	}
	for i := range shown {
		if leader, ok := leaders[client.TopicPartition{Topic: shown[i].Topic, Partition: shown[i].Partition}]; ok && leader >= 0 {
			shown[i].Leader = &leader
		}
	}
	return nil
}

// mostPlanBytes bounds a plan that comes from standard input: some 500,000 partitions.
const mostPlanBytes = 64 << 20

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, mostPlanBytes+1))
	if err == nil && len(text) > mostPlanBytes {
		err = fmt.Errorf("more than %s", terminal.HumanBytes(mostPlanBytes))
	}
	return text, err
}
