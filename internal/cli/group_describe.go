package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// describedGroup is what group describe shows of a group. As JSON it is always whole.
type describedGroup struct {
	Group        string               `json:"group"`
	State        string               `json:"state"`
	Type         string               `json:"type"`
	ProtocolType string               `json:"protocol_type"`
	Protocol     string               `json:"protocol"` // for consumers the assignor
	Coordinator  describedCoordinator `json:"coordinator"`
	Members      []describedMember    `json:"members"`
	Partitions   []describedProgress  `json:"partitions"`
	TotalLag     int64                `json:"total_lag"`
}

type describedCoordinator struct {
	Node int32  `json:"node"`
	Host string `json:"host"`
	Port int32  `json:"port"`
}

type describedMember struct {
	MemberID   string             `json:"member_id"`
	InstanceID string             `json:"instance_id,omitempty"`
	ClientID   string             `json:"client_id"`
	Host       string             `json:"host"`
	Topics     []string           `json:"topics"`     // that it subscribes to
	Assignment map[string][]int32 `json:"assignment"` // partitions by topic
	// What members of another protocol type than "consumer" have sent, and been given.
	Metadata        string `json:"metadata_base64,omitempty"`
	AssignmentBytes string `json:"assignment_base64,omitempty"`
	Error           string `json:"error,omitempty"`
}

// describedProgress is a partition that the group has committed in, or that a member has.
type describedProgress struct {
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	Committed  *int64 `json:"committed_offset"` // null: nothing is committed
	Start      *int64 `json:"start_offset"`     // null: unknown
	End        *int64 `json:"end_offset"`
	Lag        *int64 `json:"lag"`
	Epoch      *int32 `json:"leader_epoch,omitempty"` // beside the commit
	Metadata   string `json:"metadata,omitempty"`     // beside the commit
	MemberID   string `json:"member_id,omitempty"`
	InstanceID string `json:"instance_id,omitempty"`
	ClientID   string `json:"client_id,omitempty"`
	Host       string `json:"host,omitempty"`
	Error      string `json:"error,omitempty"`
}

// groupParts are the tables that group describe is to print.
type groupParts struct{ offsets, members, state bool }

func newGroupDescribe(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var parts groupParts
	var all, committed bool
	c := &cobra.Command{
		Use:   "describe GROUP...",
		Short: "Show groups: state, members, what is assigned and committed, and the lag",
		Long: `Show groups: state, members, what is assigned and committed, and the lag.

Without --members and --state the table of offsets is shown: a line for each partition that the
group has committed in or that a member has. -o json has everything.`,
		Example: `  barnabas group describe billing
  barnabas group describe --all --state
  barnabas group describe billing -o json | jq '.[0].total_lag'`,
		Args: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return terminal.Usagef("--all and names of groups: give one of them")
			}
			if all {
				return nil
			}
			return terminal.OneOrMore("GROUP")(c, args)
		},
		RunE: func(c *cobra.Command, groups []string) error {
			if parts == (groupParts{}) {
				parts.offsets = true
			}
			isolation := client.ReadUncommitted
			if committed {
				isolation = client.ReadCommitted
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				return describeGroups(ctx, p, a, groups, isolation, parts, out)
			})
		},
		ValidArgsFunction: t.GroupNames(0),
	}
	c.Flags().BoolVar(&parts.offsets, "offsets", false, "offsets and lag of each partition (the default)")
	c.Flags().BoolVar(&parts.members, "members", false, "members with what is assigned to them")
	c.Flags().BoolVar(&parts.state, "state", false, "a line for each group")
	c.Flags().BoolVar(&all, "all", false, "all groups")
	c.Flags().BoolVar(&committed, "committed", false, "a partition ends where transactions are decided")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func describeGroups(ctx context.Context, p *terminal.Program, a *admin.Admin, groups []string, isolation client.Isolation, parts groupParts, out terminal.Format) error {
	if len(groups) == 0 {
		listed, err := a.ListGroups(ctx)
		if err != nil {
			return err
		}
		for _, g := range listed {
			if g.Type == admin.ClassicGroup || g.Type == admin.ConsumerGroup {
				groups = append(groups, g.Group)
			}
		}
	}
	found, err := a.Lag(ctx, isolation, groups...)
	if err != nil {
		return err
	}
	shown := []describedGroup{}
	var failed []terminal.FailedItem
	for i := range found {
		if err := found[i].Err; err != nil {
			failed = append(failed, terminal.FailedItem{What: "describe group " + groups[i], Err: unknownGroup(ctx, a, groups[i], err)})
			continue
		}
		shown = append(shown, describeGroup(&found[i]))
	}
	if err := p.Show(out, shown, func() error { return writeGroups(p, shown, parts) }); err != nil {
		return err
	}
	return p.EachFailed(failed)
}

func describeGroup(g *admin.GroupLag) describedGroup {
	d := describedGroup{
		Group: g.Group, State: string(g.State), Type: string(g.Type), ProtocolType: g.ProtocolType, Protocol: g.Protocol,
		Coordinator: describedCoordinator{g.Coordinator.Node, g.Coordinator.Host, g.Coordinator.Port},
		Members:     []describedMember{}, Partitions: []describedProgress{}, TotalLag: g.Total(),
	}
	for i := range g.Members {
		d.Members = append(d.Members, describeMember(&g.Members[i]))
	}
	for i := range g.Partitions {
		d.Partitions = append(d.Partitions, describeProgress(&g.Partitions[i]))
	}
	return d
}

func describeMember(m *admin.GroupMember) describedMember {
	d := describedMember{
		MemberID: m.ID, InstanceID: m.InstanceID, ClientID: m.ClientID, Host: strings.TrimPrefix(m.Host, "/"),
		Topics: append([]string{}, m.Topics...), Assignment: map[string][]int32{},
	}
	for _, tp := range m.Assignment {
		d.Assignment[tp.Topic] = append(d.Assignment[tp.Topic], tp.Partition)
	}
	if m.Topics == nil && m.Assignment == nil {
		d.Metadata = base64.StdEncoding.EncodeToString(m.Metadata)
		d.AssignmentBytes = base64.StdEncoding.EncodeToString(m.AssignmentBytes)
	}
	if m.Err != nil {
		d.Error = m.Err.Error()
	}
	return d
}

func describeProgress(l *admin.PartitionLag) describedProgress {
	known := func(n, unknown int64) *int64 {
		if n == unknown {
			return nil
		}
		return &n
	}
	d := describedProgress{
		Topic: l.TopicPartition.Topic, Partition: l.TopicPartition.Partition, Metadata: l.Metadata,
		Committed: known(l.Committed, -1), Start: known(l.Start, -1), End: known(l.End, -1), Lag: known(l.Lag, admin.NoLag),
	}
	if epoch, known := l.LeaderEpoch.Get(); known {
		d.Epoch = &epoch
	}
	if m := l.Member; m != nil {
		d.MemberID, d.InstanceID, d.ClientID, d.Host = m.ID, m.InstanceID, m.ClientID, strings.TrimPrefix(m.Host, "/")
	}
	if l.Err != nil {
		d.Error = terminal.Said(l.Err)
	}
	return d
}

func writeGroups(p *terminal.Program, groups []describedGroup, parts groupParts) error {
	if parts.state {
		t := terminal.NewTable("GROUP", "STATE", "TYPE", "PROTOCOL", "ASSIGNOR", "MEMBERS", "LAG", "COORDINATOR")
		for _, g := range groups {
			t.Add(g.Group, g.State, g.Type, g.ProtocolType, g.Protocol, len(g.Members), g.TotalLag, g.coordinator())
		}
		if err := p.ShowTable(t, "there are no groups"); err != nil {
			return err
		}
	}
	if !parts.offsets && !parts.members {
		return nil
	}
	for i := range groups {
		if i > 0 || parts.state {
			if err := p.Write([]byte("\n")); err != nil {
				return err
			}
		}
		if err := groups[i].write(p, parts); err != nil {
			return err
		}
	}
	if len(groups) == 0 && !parts.state {
		p.Note("there are no groups")
	}
	return nil
}

func (g *describedGroup) coordinator() string {
	return fmt.Sprintf("%d (%s:%d)", g.Coordinator.Node, g.Coordinator.Host, g.Coordinator.Port)
}

// write prints a head of one line, and the tables.
func (g *describedGroup) write(p *terminal.Program, parts groupParts) error {
	head := fmt.Sprintf("group %s: %s, %s", g.Group, g.State, terminal.Plural(len(g.Members), "member"))
	if g.Protocol != "" {
		head += ", assigned by " + g.Protocol
	}
	head += fmt.Sprintf(", coordinator %s, total lag %s\n", g.coordinator(), terminal.HumanCount(g.TotalLag))
	if err := p.Write([]byte(head)); err != nil {
		return err
	}
	if parts.offsets {
		if err := g.writeOffsets(p); err != nil {
			return err
		}
	}
	if parts.members {
		return g.writeMembers(p)
	}
	return nil
}

func (g *describedGroup) writeOffsets(p *terminal.Program) error {
	t := terminal.NewTable("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "CLIENT", "HOST", "MEMBER")
	for _, d := range g.Partitions {
		t.Add(d.Topic, d.Partition, terminal.Optional(d.Committed), terminal.Optional(d.End), terminal.Optional(d.Lag), d.ClientID, d.Host, d.MemberID)
	}
	if err := p.ShowTable(t, "group "+g.Group+" has committed nothing, and nothing is assigned"); err != nil {
		return err
	}
	for _, d := range g.Partitions {
		if d.Error != "" {
			p.Note("warning: %s-%d: %s", d.Topic, d.Partition, d.Error)
		}
		if d.Lag != nil && *d.Lag < 0 {
			p.Note("warning: %s-%d: what is committed lies behind the end: the log has been cut, or the topic made again", d.Topic, d.Partition)
		}
	}
	return nil
}

func (g *describedGroup) writeMembers(p *terminal.Program) error {
	t := terminal.NewTable("MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS", "ASSIGNMENT")
	for _, m := range g.Members {
		var count int
		var assigned []string
		for _, topic := range terminal.SortedKeys(m.Assignment) {
			count += len(m.Assignment[topic])
			assigned = append(assigned, topic+":"+terminal.Cell(m.Assignment[topic]))
		}
		t.Add(m.MemberID, m.InstanceID, m.ClientID, m.Host, count, strings.Join(assigned, " "))
	}
	if err := p.ShowTable(t, "group "+g.Group+" has no members"); err != nil {
		return err
	}
	for _, m := range g.Members {
		if m.Error != "" {
			p.Note("warning: member %s: %s", m.MemberID, m.Error)
		}
	}
	return nil
}
