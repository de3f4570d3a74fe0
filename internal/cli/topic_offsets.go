package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// partitionOffsets is what topic offsets shows of a partition.
type partitionOffsets struct {
	Partition int32  `json:"partition"`
	Start     int64  `json:"start_offset"`
	End       int64  `json:"end_offset"`
	At        *int64 `json:"offset_at_time,omitempty"` // with --at; null: no record is that late
	Time      string `json:"timestamp,omitempty"`      // of the record there
}

func newTopicOffsets(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var at string
	var committed bool
	c := &cobra.Command{
		Use:   "offsets NAME",
		Short: "Show where the partitions of a topic begin and end",
		Example: `  barnabas topic offsets flights
  barnabas topic offsets flights --at 2h`,
		Args: terminal.Exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			var when time.Time
			if at != "" {
				var err error
				if when, err = parseMoment(at, time.Now()); err != nil {
					return terminal.UsageError{Err: fmt.Errorf("--at: %w", err)}
				}
			}
			isolation := client.ReadUncommitted
			if committed {
				isolation = client.ReadCommitted
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return showOffsets(ctx, p, a, args[0], when, isolation, out)
			})
		},
		ValidArgsFunction: t.TopicNames(1),
	}
	c.Flags().StringVar(&at, "at", "", "also the first offset that is not older than `TIME`: RFC 3339, Unix ms, or so long ago, as in 2h")
	c.Flags().BoolVar(&committed, "committed", false, "the end is where transactions are decided")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func showOffsets(ctx context.Context, p *terminal.Program, a *admin.Admin, name string, when time.Time, isolation client.Isolation, out terminal.Format) error {
	topic, err := terminal.PartitionsOf(ctx, a, name)
	if err != nil {
		return err
	}
	shown := make([]partitionOffsets, len(topic.Partitions))
	for i, d := range topic.Partitions {
		shown[i].Partition = d.Partition
	}
	ask := func(spec admin.OffsetSpec, take func(*partitionOffsets, admin.ListedOffset)) {
		if err != nil {
			return
		}
		var found []admin.ListedOffset
		found, err = listOffsets(ctx, a, topic, spec, isolation)
		for i, o := range found {
			take(&shown[i], o)
		}
	}
	ask(admin.Earliest, func(s *partitionOffsets, o admin.ListedOffset) { s.Start = o.Offset })
	ask(admin.Latest, func(s *partitionOffsets, o admin.ListedOffset) { s.End = o.Offset })
	if !when.IsZero() {
		ask(admin.AtTime(when), func(s *partitionOffsets, o admin.ListedOffset) {
			if o.Offset >= 0 {
				s.At, s.Time = &o.Offset, formatTime(o.Timestamp)
			}
		})
	}
	if err != nil {
		return err
	}
	return p.Show(out, shown, func() error {
		heading := []string{"PARTITION", "START", "END", "RECORDS"}
		if !when.IsZero() {
			heading = append(heading, "AT "+formatTime(when), "ITS TIME")
		}
		t := terminal.NewTable(heading...)
		for _, s := range shown {
			cells := []any{s.Partition, s.Start, s.End, s.End - s.Start}
			if !when.IsZero() {
				cells = append(cells, terminal.Optional(s.At), s.Time)
			}
			t.Add(cells...)
		}
		return p.ShowTable(t, "")
	})
}

// listOffsets finds an offset in every partition of a topic, in the order of the partitions.
func listOffsets(ctx context.Context, a *admin.Admin, topic admin.TopicDescription, spec admin.OffsetSpec,
	isolation client.Isolation,
) ([]admin.ListedOffset, error) {
	specs := map[client.TopicPartition]admin.OffsetSpec{}
	for _, d := range topic.Partitions {
		specs[client.TopicPartition{Topic: topic.Name, Partition: d.Partition}] = spec
	}
	found, err := a.ListOffsets(ctx, specs, isolation)
	if err != nil {
		return nil, err
	}
	for _, o := range found {
		if o.Err != nil {
			return nil, fmt.Errorf("offsets of %v: %w", o.TopicPartition, o.Err)
		}
	}
	return found, nil
}

// formatTime words a record's timestamp, in UTC and to the millisecond.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// trimmedPartition is what topic trim shows of a partition.
type trimmedPartition struct {
	Partition int32  `json:"partition"`
	Start     int64  `json:"start_offset"`
	Error     string `json:"error,omitempty"`
}

func newTopicTrim(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var before int64
	var partitions []int32
	c := &cobra.Command{
		Use:   "trim NAME --before OFFSET",
		Short: "Delete the oldest records of a topic",
		Example: `  barnabas topic trim flights --partition 3 --before 1000
  barnabas topic trim flights --before -1`,
		Args: terminal.Exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("before") {
				return terminal.Usagef("--before is missing: the first offset to keep, or -1 to keep none")
			}
			if before < -1 {
				return terminal.Usagef("--before %d: an offset, or -1 for all that there is", before)
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return trimTopic(ctx, p, a, args[0], partitions, before, out)
			})
		},
		ValidArgsFunction: t.TopicNames(1),
	}
	c.Flags().Int64Var(&before, "before", 0, "the first `OFFSET` to keep; -1 deletes all that there is")
	c.Flags().Int32SliceVar(&partitions, "partition", nil, "only these partitions `N,...` (default all)")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func trimTopic(ctx context.Context, p *terminal.Program, a *admin.Admin, name string, partitions []int32, before int64, out terminal.Format) error {
	topic, err := terminal.PartitionsOf(ctx, a, name)
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
	var failed []terminal.FailedItem
	for _, d := range done {
		s := trimmedPartition{Partition: d.TopicPartition.Partition, Start: d.LowWatermark}
		if d.Err != nil {
			s.Error = terminal.Said(d.Err)
			failed = append(failed, terminal.FailedItem{What: fmt.Sprintf("trim partition %d", s.Partition), Err: d.Err})
		}
		shown = append(shown, s)
	}
	err = p.Show(out, shown, func() error {
		t := terminal.NewTable("PARTITION", "START")
		for _, s := range shown {
			if s.Error == "" {
				t.Add(s.Partition, s.Start)
			}
		}
		if len(t.Rows) == 0 {
			return nil
		}
		return p.ShowTable(t, "")
	})
	if err != nil {
		return err
	}
	return p.EachFailed(failed)
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
			return nil, terminal.NotFoundError{Text: fmt.Sprintf("topic %s has no partition %d: it has 0 to %d", topic, n, count-1), Cause: client.ErrNoSuchPartition}
		}
	}
	return asked, nil
}
