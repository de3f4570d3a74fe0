// Package clustercmd is the commands about a cluster as a whole: what it consists of, what is wrong with it, and who
// takes part.
//
// It asks through client/admin, as any program does. What a finding means for users is decided here; what to do about
// it is left to them.
package clustercmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// describedCluster is what cluster describe shows.
type describedCluster struct {
	ID         string             `json:"id"`
	Controller int32              `json:"controller"`
	Brokers    []describedBroker  `json:"brokers"`
	Features   map[string]int16   `json:"features,omitempty"`
	Quorum     *describedQuorum   `json:"quorum,omitempty"`
	Dirs       []describedDataDir `json:"data_directories,omitempty"`
}

type describedBroker struct {
	Node    int32  `json:"node"`
	Address string `json:"address"`
	Rack    string `json:"rack,omitempty"`
	Fenced  bool   `json:"fenced,omitempty"`
}

type describedQuorum struct {
	Leader        int32   `json:"leader"`
	Epoch         int32   `json:"epoch"`
	HighWatermark int64   `json:"high_watermark"`
	Voters        []int32 `json:"voters"`
}

type describedDataDir struct {
	Node       int32  `json:"node"`
	Path       string `json:"path"`
	Partitions int    `json:"partitions"`
	Bytes      int64  `json:"bytes"` // of the partitions in it
	Usable     int64  `json:"usable_bytes"`
	Total      int64  `json:"total_bytes"`
	Error      string `json:"error,omitempty"`
}

// New makes the command and its verbs.
func New(p *terminal.Program) *cobra.Command {
	t := &terminal.Target{}
	c := terminal.Noun(&cobra.Command{Use: "cluster", Short: "Show the cluster"})
	t.Register(c.PersistentFlags(), p, terminal.AdminTimeout)
	var out terminal.Format
	describe := &cobra.Command{
		Use:   "describe",
		Short: "Show brokers, quorum, features and data directories",
		Args:  terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				d, err := describeCluster(ctx, a)
				if err != nil {
					return err
				}
				return p.Show(out, d, func() error { return d.write(p) })
			})
		},
	}
	terminal.RegisterFormat(describe, describe.Flags(), &out)
	c.AddCommand(describe)
	return c
}

func describeCluster(ctx context.Context, a *admin.Admin) (*describedCluster, error) {
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		return nil, err
	}
	d := &describedCluster{ID: cluster.ID, Controller: cluster.Controller, Brokers: []describedBroker{}, Features: map[string]int16{}}
	for _, b := range cluster.Brokers {
		d.Brokers = append(d.Brokers, describedBroker{b.Node, b.Address(), b.Rack, b.Fenced})
	}
	features, err := a.DescribeFeatures(ctx)
	if err != nil {
		return nil, err
	}
	for name, r := range features.Finalized {
		d.Features[name] = r.Max
	}
	quorum, err := a.DescribeQuorum(ctx)
	if err != nil {
		return nil, err
	}
	d.Quorum = &describedQuorum{Leader: quorum.Leader, Epoch: quorum.LeaderEpoch, HighWatermark: quorum.HighWatermark}
	for _, v := range quorum.Voters {
		d.Quorum.Voters = append(d.Quorum.Voters, v.Node)
	}
	dirs, err := a.DescribeLogDirs(ctx)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		s := describedDataDir{Node: dir.Node, Path: dir.Path, Partitions: len(dir.Replicas), Usable: dir.UsableBytes, Total: dir.TotalBytes}
		for _, r := range dir.Replicas {
			s.Bytes += r.Bytes
		}
		if dir.Err != nil {
			s.Error = terminal.Said(dir.Err)
		}
		d.Dirs = append(d.Dirs, s)
	}
	return d, nil
}

func (d *describedCluster) write(p *terminal.Program) error {
	if err := p.Write(fmt.Appendf(nil, "cluster %s: %s\n\n", d.ID, terminal.Plural(len(d.Brokers), "broker"))); err != nil {
		return err
	}
	brokers := terminal.NewTable("NODE", "ADDRESS", "RACK", "ROLE")
	for _, b := range d.Brokers {
		role := "broker"
		switch {
		case b.Node == d.Quorum.Leader:
			role = "broker, leads the quorum"
		case b.Fenced:
			role = "broker, fenced"
		}
		brokers.Add(b.Node, b.Address, b.Rack, role)
	}
	if err := p.ShowTable(brokers, ""); err != nil {
		return err
	}
	dirs := terminal.NewTable("NODE", "DATA DIRECTORY", "PARTITIONS", "SIZE", "FREE", "STATE")
	for _, s := range d.Dirs {
		state := "online"
		if s.Error != "" {
			state = s.Error
		}
		dirs.Add(s.Node, s.Path, s.Partitions, terminal.HumanBytes(s.Bytes), terminal.HumanBytes(s.Usable), state)
	}
	if err := p.Write([]byte("\n")); err != nil {
		return err
	}
	if err := p.ShowTable(dirs, ""); err != nil {
		return err
	}
	text := fmt.Sprintf("\nmetadata: epoch %d, %s committed\n", d.Quorum.Epoch, terminal.Plural(d.Quorum.HighWatermark, "record"))
	for _, name := range terminal.SortedKeys(d.Features) {
		text += fmt.Sprintf("feature %s: %d\n", name, d.Features[name])
	}
	return p.Write([]byte(text))
}
