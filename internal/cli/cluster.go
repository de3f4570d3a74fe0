package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
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

func newCluster(p *program) *cobra.Command {
	t := &target{}
	c := noun(&cobra.Command{Use: "cluster", Short: "Show the cluster"})
	t.register(c.PersistentFlags(), p, adminTimeout)
	var out format
	describe := &cobra.Command{
		Use:   "describe",
		Short: "Show brokers, quorum, features and data directories",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return t.admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				d, err := describeCluster(ctx, a)
				if err != nil {
					return err
				}
				return p.show(out, d, func() error { return d.write(p) })
			})
		},
	}
	registerFormat(describe, describe.Flags(), &out)
	c.AddCommand(describe, newClusterRecover(p))
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
			s.Error = said(dir.Err)
		}
		d.Dirs = append(d.Dirs, s)
	}
	return d, nil
}

func (d *describedCluster) write(p *program) error {
	if err := p.write(fmt.Appendf(nil, "cluster %s: %s\n\n", d.ID, plural(len(d.Brokers), "broker"))); err != nil {
		return err
	}
	brokers := newTable("NODE", "ADDRESS", "RACK", "ROLE")
	for _, b := range d.Brokers {
		role := "broker"
		switch {
		case b.Node == d.Quorum.Leader:
			role = "broker, leads the quorum"
		case b.Fenced:
			role = "broker, fenced"
		}
		brokers.add(b.Node, b.Address, b.Rack, role)
	}
	if err := p.showTable(brokers, ""); err != nil {
		return err
	}
	dirs := newTable("NODE", "DATA DIRECTORY", "PARTITIONS", "SIZE", "FREE", "STATE")
	for _, s := range d.Dirs {
		state := "online"
		if s.Error != "" {
			state = s.Error
		}
		dirs.add(s.Node, s.Path, s.Partitions, humanBytes(s.Bytes), humanBytes(s.Usable), state)
	}
	if err := p.write([]byte("\n")); err != nil {
		return err
	}
	if err := p.showTable(dirs, ""); err != nil {
		return err
	}
	text := fmt.Sprintf("\nmetadata: epoch %d, %s committed\n", d.Quorum.Epoch, plural(d.Quorum.HighWatermark, "record"))
	for _, name := range sortedKeys(d.Features) {
		text += fmt.Sprintf("feature %s: %d\n", name, d.Features[name])
	}
	return p.write([]byte(text))
}

const recoverHelp = `Make this node, which must not be running, the only voter of its cluster, with the
metadata on its own disk.

This is for one case alone: a majority of the voters has lost its disks for good, so
that the cluster has no leader and never will. What those voters had agreed on without
this node is lost. Where several voters are left, choose the one whose metadata reaches
furthest: without --force this only says how far that is.

Never start a lost voter again with the disk that it had: two of them could go on by
themselves as if nothing had been. With empty data directories, and the same --voters,
they join again and vote.`

// recovered is what cluster recover shows.
type recovered struct {
	Cluster string  `json:"cluster"`
	Node    int     `json:"node"`
	Voters  []int32 `json:"voters"` // that are given up, or would be
	End     int64   `json:"end"`    // of the metadata log
	Epoch   int32   `json:"epoch"`  // in which its last entry was written
	Topics  int     `json:"topics"`
	Brokers int     `json:"brokers"`
	Done    bool    `json:"done"`
}

func newClusterRecover(p *program) *cobra.Command {
	var f serveFlags
	var force bool
	var out format
	c := &cobra.Command{
		Use:   "recover",
		Short: "Go on with one voter when a majority is lost for good",
		Long:  recoverHelp,
		Example: `  barnabas cluster recover --node-id 2 --data /var/lib/barnabas
  barnabas cluster recover --config server.properties --force`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := recoverQuorum(c.Context(), p, f, force)
			if err != nil {
				return err
			}
			return p.show(out, r, func() error { return r.write(p) })
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.configFile, "config", "", "the node's properties `FILE`")
	flags.StringVar(&f.nodeID, "node-id", "", "the node's `NUMBER` (key node.id)")
	flags.StringArrayVar(&f.data, "data", nil, "the node's data `DIR`; repeat as for serve (key log.dirs)")
	flags.StringArrayVar(&f.set, "set", nil, "set `KEY=VALUE`; repeatable")
	flags.BoolVar(&force, "force", false, "do it")
	registerFormat(c, flags, &out)
	return c
}

func recoverQuorum(ctx context.Context, p *program, f serveFlags, force bool) (*recovered, error) {
	set, _, err := f.load(os.Environ())
	if err != nil {
		return nil, err
	}
	r, err := node.RecoverQuorum(ctx, node.Options{
		Config: set, FS: disk.OS, Network: netx.TCP, Logger: slog.New(slog.NewTextHandler(p.Err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Now: time.Now, Random: rand.Reader, Version: Version(),
	}, force)
	if err != nil {
		return nil, asServeFailure(err)
	}
	shown := &recovered{
		Cluster: r.ClusterID, Node: set.Int("node.id"), Voters: []int32{}, End: r.End, Epoch: r.Epoch, Topics: r.Topics, Brokers: r.Brokers, Done: force,
	}
	for _, m := range r.Members {
		shown.Voters = append(shown.Voters, m.NodeID)
	}
	return shown, nil
}

func (r *recovered) write(p *program) error {
	var others []string
	for _, v := range r.Voters {
		if int(v) != r.Node {
			others = append(others, fmt.Sprint(v))
		}
	}
	lines := fmt.Sprintf("cluster %s: the metadata of node %d reaches offset %d, written in epoch %d; it knows %d topics and %d brokers\n",
		r.Cluster, r.Node, r.End-1, r.Epoch, r.Topics, r.Brokers)
	switch {
	case len(others) == 0:
		lines += "it is the only voter\n"
	case r.Done:
		lines += fmt.Sprintf("it is the only voter now; empty the data directories of %s before they start again\n", strings.Join(others, ", "))
	default:
		lines += fmt.Sprintf("nothing was changed; --force gives up the voters %s\n", strings.Join(others, ", "))
	}
	return p.write([]byte(lines))
}
