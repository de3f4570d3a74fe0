package clustercmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// describedCluster is what cluster describe shows.
type describedCluster struct {
	ID          string             `json:"id"`
	Controller  int32              `json:"controller"` // the node that leads the quorum; -1: none is known
	Brokers     []describedBroker  `json:"brokers"`
	Features    map[string]int16   `json:"features,omitempty"`
	Quorum      *describedQuorum   `json:"quorum,omitempty"` // null: it did not answer
	QuorumError string             `json:"quorum_error,omitempty"`
	Dirs        []describedDataDir `json:"data_directories,omitempty"`
}

type describedBroker struct {
	Node      int32    `json:"node"`
	Address   string   `json:"address"`
	Rack      string   `json:"rack,omitempty"`
	Fenced    bool     `json:"fenced,omitempty"`
	Endpoints []string `json:"controller_endpoints,omitempty"` // NAME://HOST:PORT, for the other nodes
}

type describedQuorum struct {
	Leader        int32           `json:"leader"`
	Epoch         int32           `json:"epoch"`
	HighWatermark int64           `json:"high_watermark"`
	Voters        []int32         `json:"voters"`
	Observers     []int32         `json:"observers"`
	Replicas      []quorumReplica `json:"replicas"` // of the metadata: voters first
}

// quorumReplica is a node with a copy of the metadata.
type quorumReplica struct {
	Node         int32      `json:"node"`
	Role         string     `json:"role"` // leader, voter or observer
	Directory    string     `json:"directory"`
	LogEnd       *int64     `json:"log_end"` // null: unknown
	Lag          *int64     `json:"lag"`     // records that it does not have yet
	LastCaughtUp *time.Time `json:"last_caught_up,omitempty"`
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

func newDescribe(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	c := &cobra.Command{
		Use:   "describe",
		Short: "Show brokers, controller, quorum, features and data directories",
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
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

// quorumPatience is how long the quorum may take to elect a leader, and brokers to answer, while somebody waits to see
// how the cluster is.
const quorumPatience = 5 * time.Second

// askQuorum is DescribeQuorum for those who want to know, too, that it does not answer.
func askQuorum(ctx context.Context, a *admin.Admin) (admin.Quorum, error) {
	asking, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	return a.DescribeQuorum(asking)
}

func describeCluster(ctx context.Context, a *admin.Admin) (*describedCluster, error) {
	cluster, err := a.DescribeCluster(ctx, admin.WithFencedBrokers())
	if err != nil {
		return nil, err
	}
	d := &describedCluster{ID: cluster.ID, Controller: -1, Brokers: []describedBroker{}, Features: map[string]int16{}}
	quorum, err := askQuorum(ctx, a)
	if err != nil {
		d.QuorumError = terminal.Said(err)
	} else {
		d.Controller, d.Quorum = quorum.Leader, describeQuorum(quorum)
	}
	for _, b := range cluster.Brokers {
		shown := describedBroker{Node: b.Node, Address: b.Address(), Rack: b.Rack, Fenced: b.Fenced}
		for _, e := range quorum.Endpoints[b.Node] {
			shown.Endpoints = append(shown.Endpoints, endpointText(e))
		}
		d.Brokers = append(d.Brokers, shown)
	}
	features, err := a.DescribeFeatures(ctx)
	if err != nil {
		return nil, err
	}
	for name, r := range features.Finalized {
		d.Features[name] = r.Max
	}
	asking, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	dirs, err := a.DescribeLogDirs(asking)
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

func endpointText(e admin.QuorumEndpoint) string {
	return fmt.Sprintf("%s://%s", e.Listener, hostPort(e.Host, e.Port))
}

func describeQuorum(q admin.Quorum) *describedQuorum {
	d := &describedQuorum{Leader: q.Leader, Epoch: q.LeaderEpoch, HighWatermark: q.HighWatermark, Voters: []int32{}, Observers: []int32{}}
	end := int64(-1) // the leader's
	for _, r := range q.Voters {
		if r.Node == q.Leader {
			end = r.LogEnd
		}
	}
	add := func(r admin.QuorumReplica, role string) {
		shown := quorumReplica{Node: r.Node, Role: role, Directory: r.Directory.String()}
		if r.LogEnd >= 0 {
			shown.LogEnd = &r.LogEnd
			if end >= 0 {
				lag := max(end-r.LogEnd, 0)
				shown.Lag = &lag
			}
		}
		if !r.LastCaughtUp.IsZero() {
			shown.LastCaughtUp = &r.LastCaughtUp
		}
		d.Replicas = append(d.Replicas, shown)
	}
	for _, r := range q.Voters {
		d.Voters = append(d.Voters, r.Node)
		role := "voter"
		if r.Node == q.Leader {
			role = "leader"
		}
		add(r, role)
	}
	for _, r := range q.Observers {
		d.Observers = append(d.Observers, r.Node)
		add(r, "observer")
	}
	return d
}

func (d *describedCluster) write(p *terminal.Program) error {
	if err := p.Write(fmt.Appendf(nil, "cluster %s: %s\n\n", d.ID, terminal.Plural(len(d.Brokers), "broker"))); err != nil {
		return err
	}
	brokers := terminal.NewTable("NODE", "ADDRESS", "RACK", "ROLE")
	for _, b := range d.Brokers {
		role := "broker"
		if b.Fenced {
			role = "broker, fenced"
		}
		if b.Node == d.Controller {
			role += ", leads the quorum"
		}
		brokers.Add(b.Node, b.Address, b.Rack, role)
	}
	if err := p.ShowTable(brokers, ""); err != nil {
		return err
	}
	if err := d.writeQuorum(p); err != nil {
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
	text := "\n"
	if d.Quorum != nil {
		text += fmt.Sprintf("metadata: epoch %d, %s committed\n", d.Quorum.Epoch, terminal.Plural(d.Quorum.HighWatermark, "record"))
	}
	for _, name := range terminal.SortedKeys(d.Features) {
		text += fmt.Sprintf("feature %s: %d\n", name, d.Features[name])
	}
	return p.Write([]byte(text))
}

func (d *describedCluster) writeQuorum(p *terminal.Program) error {
	if d.Quorum == nil {
		p.Note("warning: the quorum does not answer: %s", d.QuorumError)
		return nil
	}
	rows := terminal.NewTable("NODE", "QUORUM", "LAG", "CAUGHT UP", "DIRECTORY ID")
	now := time.Now()
	for _, r := range d.Quorum.Replicas {
		caughtUp := "-"
		if r.LastCaughtUp != nil {
			caughtUp = ago(now.Sub(*r.LastCaughtUp))
		}
		rows.Add(r.Node, r.Role, terminal.Optional(r.Lag), caughtUp, r.Directory)
	}
	if err := p.Write([]byte("\n")); err != nil {
		return err
	}
	return p.ShowTable(rows, "")
}

// ago words how long ago something was.
func ago(d time.Duration) string {
	if d < time.Second {
		return "now"
	}
	return d.Truncate(time.Second).String() + " ago"
}
