package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
)

// trimmedPartition is what topic trim shows of a partition.
type trimmedPartition struct {
	Partition int32  `json:"partition"`
	Start     int64  `json:"start_offset"`
	Error     string `json:"error,omitempty"`
}

func newTopicTrim(p *program, t *target) *cobra.Command {
	var out format
	var before int64
	var partitions []int32
	c := &cobra.Command{
		Use:   "trim NAME --before OFFSET",
		Short: "Delete the oldest records of a topic",
		Example: `  barnabas topic trim flights --partition 3 --before 1000
  barnabas topic trim flights --before -1`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("before") {
				return usagef("--before is missing: the first offset to keep, or -1 to keep none")
			}
			if before < -1 {
				return usagef("--before %d: an offset, or -1 for all that there is", before)
			}
			return t.admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return trimTopic(ctx, p, a, args[0], partitions, before, out)
			})
		},
		ValidArgsFunction: t.topicNames(1),
	}
	c.Flags().Int64Var(&before, "before", 0, "the first `OFFSET` to keep; -1 deletes all that there is")
	c.Flags().Int32SliceVar(&partitions, "partition", nil, "only these partitions `N,...` (default all)")
	registerFormat(c, c.Flags(), &out)
	return c
}

func trimTopic(ctx context.Context, p *program, a *admin.Admin, name string, partitions []int32, before int64, out format) error {
	topic, err := partitionsOf(ctx, a, name)
	if err != nil {
		return err
	}
	chosen, err := choosePartitions(name, len(topic.Partitions), partitions)
	if err != nil {
		return err
	}
	marks := map[client.TopicPartition]int64{}
	for _, n := range chosen {
		marks[client.TopicPartition{Topic: name, Partition: n}] = before
	}
	done, err := a.DeleteRecords(ctx, marks)
	if err != nil {
		return err
	}
	shown := []trimmedPartition{}
	var failed []failedItem
	for _, d := range done {
		s := trimmedPartition{Partition: d.TopicPartition.Partition, Start: d.LowWatermark}
		if d.Err != nil {
			s.Error = said(d.Err)
			failed = append(failed, failedItem{fmt.Sprintf("trim partition %d", s.Partition), d.Err})
		}
		shown = append(shown, s)
	}
	err = p.show(out, shown, func() error {
		t := newTable("PARTITION", "START")
		for _, s := range shown {
			if s.Error == "" {
				t.add(s.Partition, s.Start)
			}
		}
		if len(t.rows) == 0 {
			return nil
		}
		return p.showTable(t, "")
	})
	if err != nil {
		return err
	}
	return p.eachFailed(failed)
}

// choosePartitions checks the partitions that were asked for against those that there are; none
// asked for are all.
func choosePartitions(topic string, count int, asked []int32) ([]int32, error) {
	if len(asked) == 0 {
		for n := range int32(count) {
			asked = append(asked, n)
		}
		return asked, nil
	}
	for _, n := range asked {
		if n < 0 || int(n) >= count {
			return nil, notFoundError{fmt.Sprintf("topic %s has no partition %d: it has 0 to %d", topic, n, count-1), client.ErrNoSuchPartition}
		}
	}
	return asked, nil
}
