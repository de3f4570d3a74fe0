package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/internal/cli/terminal"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
)

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

func newClusterRecover(p *terminal.Program) *cobra.Command {
	var f serveFlags
	var force bool
	var out terminal.Format
	c := &cobra.Command{
		Use:   "recover",
		Short: "Go on with one voter when a majority is lost for good",
		Long:  recoverHelp,
		Example: `  barnabas cluster recover --node-id 2 --data /var/lib/barnabas
  barnabas cluster recover --config server.properties --force`,
		Args: terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := recoverQuorum(c.Context(), p, f, force)
			if err != nil {
				return err
			}
			return p.Show(out, r, func() error { return r.write(p) })
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.configFile, "config", "", "the node's properties `FILE`")
	flags.StringVar(&f.nodeID, "node-id", "", "the node's `NUMBER` (key node.id)")
	flags.StringArrayVar(&f.data, "data", nil, "the node's data `DIR`; repeat as for serve (key log.dirs)")
	flags.StringArrayVar(&f.set, "set", nil, "set `KEY=VALUE`; repeatable")
	flags.BoolVar(&force, "force", false, "do it")
	terminal.RegisterFormat(c, flags, &out)
	return c
}

func recoverQuorum(ctx context.Context, p *terminal.Program, f serveFlags, force bool) (*recovered, error) {
	set, _, err := f.load(os.Environ())
	if err != nil {
		return nil, err
	}
	if dir := set.MetadataLogDir(); !exists(dir) {
		return nil, terminal.NotFoundError{Text: fmt.Sprintf("there is no data directory %s: name this node's with --data or --config", dir), Cause: fs.ErrNotExist}
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

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (r *recovered) write(p *terminal.Program) error {
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
	return p.Write([]byte(lines))
}
