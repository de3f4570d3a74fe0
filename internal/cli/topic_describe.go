package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// describedTopic is what topic describe shows of a topic.
type describedTopic struct {
	Topic             string               `json:"topic"`
	ID                string               `json:"id"`
	Internal          bool                 `json:"internal,omitempty"`
	ReplicationFactor int                  `json:"replication_factor"`
	Partitions        []describedPartition `json:"partitions"`
	Configs           map[string]string    `json:"configs"` // those that the topic has of its own
	Warnings          []string             `json:"warnings,omitempty"`
}

type describedPartition struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"` // -1: none
	LeaderEpoch int32   `json:"leader_epoch"`
	Replicas    []int32 `json:"replicas"`
	InSync      []int32 `json:"isr"`
	Eligible    []int32 `json:"elr"`            // eligible to lead although not in sync (KIP-966); null: the broker does not say
	LastKnown   []int32 `json:"last_known_elr"` // eligible before they stopped uncleanly
	Offline     []int32 `json:"offline,omitempty"`
	Start       *int64  `json:"start_offset"` // null: unknown
	End         *int64  `json:"end_offset"`
	Bytes       *int64  `json:"bytes"` // on the leader's disk
}

func newTopicDescribe(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	c := &cobra.Command{
		Use:   "describe NAME...",
		Short: "Show topics: partitions, leaders, replicas, offsets, sizes, settings",
		Args:  terminal.OneOrMore("NAME"),
		RunE: func(c *cobra.Command, names []string) error {
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return describeTopics(ctx, p, a, names, out)
			})
		},
		ValidArgsFunction: t.TopicNames(0),
	}
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func describeTopics(ctx context.Context, p *terminal.Program, a *admin.Admin, names []string, out terminal.Format) error {
	found, err := a.DescribeTopics(ctx, names...)
	if err != nil {
		return err
	}
	shown := []describedTopic{}
	var failed []terminal.FailedItem
	for _, d := range found {
		if d.Err != nil {
			failed = append(failed, terminal.FailedItem{What: "describe topic " + d.Name, Err: terminal.UnknownTopic(ctx, a, d.Name, d.Err)})
			continue
		}
		shown = append(shown, describeTopic(d))
	}
	if err := addDetails(ctx, a, shown); err != nil {
		return err
	}
	err = p.Show(out, shown, func() error {
		for i := range shown {
			if err := shown[i].write(p, i > 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.EachFailed(failed)
}

func describeTopic(d admin.TopicDescription) describedTopic {
	t := describedTopic{Topic: d.Name, ID: d.ID.String(), Internal: d.Internal, Configs: map[string]string{}}
	for _, part := range d.Partitions {
		t.ReplicationFactor = max(t.ReplicationFactor, len(part.Replicas))
		t.Partitions = append(t.Partitions, describedPartition{
			Partition: part.Partition, Leader: part.Leader, LeaderEpoch: part.LeaderEpoch,
			Replicas: part.Replicas, InSync: part.InSync, Offline: part.Offline,
			Eligible: part.Eligible, LastKnown: part.LastKnownEligible,
		})
	}
	count := func(what string, is func(describedPartition) bool) {
		var which []int32
		for _, part := range t.Partitions {
			if is(part) {
				which = append(which, part.Partition)
			}
		}
		if len(which) > 0 {
			t.Warnings = append(t.Warnings, fmt.Sprintf("%s: partition %s", what, terminal.Cell(which)))
		}
	}
	count("no leader, so neither reads nor writes", func(d describedPartition) bool { return d.Leader < 0 })
	for _, part := range t.Partitions {
		if part.Leader < 0 && len(part.LastKnown) > 0 {
			t.Warnings = append(t.Warnings, fmt.Sprintf("partition %d waits for a replica that has everything: those that had it last are on %s",
				part.Partition, terminal.Cell(part.LastKnown)))
		}
	}
	count("fewer replicas in sync than there should be", func(d describedPartition) bool { return len(d.InSync) < len(d.Replicas) })
	return t
}

// addDetails asks for offsets, sizes and settings, each once for all topics.
func addDetails(ctx context.Context, a *admin.Admin, topics []describedTopic) error {
	if err := addOffsets(ctx, a, topics); err != nil {
		return err
	}
	if err := addSizes(ctx, a, topics); err != nil {
		return err
	}
	var resources []admin.Resource
	for _, t := range topics {
		resources = append(resources, admin.Topic(t.Topic))
	}
	if len(resources) == 0 {
		return nil
	}
	found, err := a.DescribeConfigs(ctx, resources)
	if err != nil {
		return err
	}
	for i, d := range found {
		t := &topics[i]
		for _, e := range d.Entries {
			if e.Source == admin.DynamicTopicConfig {
				t.Configs[e.Name] = e.Value
			}
			if w := loweredInSync(e.Value, t.ReplicationFactor); e.Name == minInSync && w != "" {
				t.Warnings = append(t.Warnings, w)
			}
		}
	}
	return nil
}

func addOffsets(ctx context.Context, a *admin.Admin, topics []describedTopic) error {
	for _, spec := range []admin.OffsetSpec{admin.Earliest, admin.Latest} {
		specs := map[client.TopicPartition]admin.OffsetSpec{}
		for _, t := range topics {
			for _, part := range t.Partitions {
				if part.Leader >= 0 {
					specs[client.TopicPartition{Topic: t.Topic, Partition: part.Partition}] = spec
				}
			}
		}
		if len(specs) == 0 {
			return nil
		}
		found, err := a.ListOffsets(ctx, specs, client.ReadUncommitted)
		if err != nil {
			return err
		}
		for _, o := range found {
			part := partitionIn(topics, o.TopicPartition)
			if o.Err != nil || part == nil {
				continue // shown as unknown
			}
			if spec == admin.Earliest {
				part.Start = &o.Offset
			} else {
				part.End = &o.Offset
			}
		}
	}
	return nil
}

func addSizes(ctx context.Context, a *admin.Admin, topics []describedTopic) error {
	dirs, err := a.DescribeLogDirs(ctx)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		for _, r := range d.Replicas {
			if part := partitionIn(topics, r.TopicPartition); part != nil && part.Leader == d.Node && !r.Future {
				part.Bytes = &r.Bytes
			}
		}
	}
	return nil
}

func partitionIn(topics []describedTopic, tp client.TopicPartition) *describedPartition {
	for i := range topics {
		if topics[i].Topic != tp.Topic {
			continue
		}
		at := slices.IndexFunc(topics[i].Partitions, func(d describedPartition) bool { return d.Partition == tp.Partition })
		if at >= 0 {
			return &topics[i].Partitions[at]
		}
	}
	return nil
}

func (t *describedTopic) write(p *terminal.Program, separate bool) error {
	var head strings.Builder
	if separate {
		head.WriteString("\n")
	}
	fmt.Fprintf(&head, "topic %s, id %s: %s, replication factor %d\n", t.Topic, t.ID, terminal.Plural(len(t.Partitions), "partition"), t.ReplicationFactor)
	if len(t.Configs) > 0 {
		head.WriteString("settings:")
		for _, name := range terminal.SortedKeys(t.Configs) {
			fmt.Fprintf(&head, " %s=%s", name, t.Configs[name])
		}
		head.WriteString("\n")
	}
	head.WriteString("\n")
	if err := p.Write([]byte(head.String())); err != nil {
		return err
	}
	rows := terminal.NewTable("PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELR", "OFFLINE", "START", "END", "SIZE")
	for _, d := range t.Partitions {
		leader := "none"
		if d.Leader >= 0 {
			leader = fmt.Sprint(d.Leader)
		}
		size := "-"
		if d.Bytes != nil {
			size = terminal.HumanBytes(*d.Bytes)
		}
		rows.Add(d.Partition, leader, d.LeaderEpoch, d.Replicas, d.InSync, d.Eligible, d.Offline, terminal.Optional(d.Start), terminal.Optional(d.End), size)
	}
	if err := p.ShowTable(rows, ""); err != nil {
		return err
	}
	for _, w := range t.Warnings {
		p.Note("warning: topic %s: %s", t.Topic, w)
	}
	return nil
}
