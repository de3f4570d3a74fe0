// Package localcmd runs a whole cluster on this machine: one process of this program for each node, on the loopback
// interface, each with a data directory and ports of its own.
//
// It starts, watches and stops the processes, and decides nothing about the cluster that they form.
package localcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"barnabas/internal/cli/terminal"
)

// sizes are the numbers of nodes that form a quorum; each node votes.
var sizes = []int{1, 3, 5}

const (
	defaultPort = 9092
	// internalOffset is how far a node's port for the other nodes is from its port for clients.
	internalOffset = 10_000
	loopback       = "127.0.0.1"
)

const localHelp = `Start a cluster on this machine: a process of this program for each node, on the
loopback interface, with data and ports of its own. It is for trying things out: kill a
node, pause it, and watch the others go on.

It prints a line for each node that is ready, and one that begins with "ready" when the
cluster is. SIGINT (Ctrl-C) and SIGTERM stop all nodes. A node that dies is reported; the
others run on. Started again with the same --data, the cluster is the same.`

type local struct {
	p        *terminal.Program
	out      terminal.Format
	nodes    int
	data     string
	port     int
	set      []string
	logLevel string
}

// New makes the command.
func New(p *terminal.Program) *cobra.Command {
	o := &local{p: p}
	c := &cobra.Command{
		Use:   "local",
		Short: "Start a cluster of several nodes on this machine",
		Long:  localHelp,
		Example: `  barnabas local --nodes 3
  barnabas local --nodes 5 --data /tmp/five --set log.flush.before.ack=false`,
		Args: terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	flags := c.Flags()
	flags.IntVar(&o.nodes, "nodes", 3, "how many nodes `N`: 1, 3 or 5")
	flags.StringVar(&o.data, "data", "barnabas-local", "keep the nodes' data in `DIR`/node-1, DIR/node-2, ...")
	flags.IntVar(&o.port, "port", defaultPort, "serve clients of node 1 on this `PORT` of "+loopback+", of the others on those after it, and the nodes among themselves 10000 further up; 0 chooses free ones")
	flags.StringArrayVar(&o.set, "set", nil, "set `KEY=VALUE` on every node; repeatable")
	flags.StringVar(&o.logLevel, "log-level", "warn", "the nodes log to standard error from this `LEVEL` on: debug, info, warn or error")
	terminal.RegisterFormat(c, flags, &o.out)
	return c
}

// runningNode is what is shown of a node that is ready.
type runningNode struct {
	Node    int    `json:"node"`
	PID     int    `json:"pid"`
	Address string `json:"address"`
	Data    string `json:"data"`
}

// runningCluster is what is shown once all nodes are ready.
type runningCluster struct {
	Cluster string        `json:"cluster"`
	Brokers string        `json:"brokers"` // for --brokers and bootstrap.servers
	Nodes   []runningNode `json:"nodes"`
}

// ports are those of one node.
type ports struct{ clients, internal int }

func (o *local) run(ctx context.Context) error {
	if !slices.Contains(sizes, o.nodes) {
		return terminal.Usagef("--nodes %d: a quorum has 1, 3 or 5 nodes", o.nodes)
	}
	if o.port < 0 || o.port+o.nodes-1+internalOffset > 65535 {
		return terminal.Usagef("--port %d: from 0 to %d", o.port, 65535-internalOffset-o.nodes+1)
	}
	data, err := filepath.Abs(o.data)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start it for each node: %w", err)
	}
	at, err := o.choosePorts(ctx)
	if err != nil {
		return err
	}
	var members []member
	for i := range o.nodes {
		dir := filepath.Join(data, fmt.Sprintf("node-%d", i+1))
		members = append(members, member{
			id: i + 1, data: dir, address: net.JoinHostPort(loopback, strconv.Itoa(at[i].clients)),
			command: append([]string{executable}, o.arguments(i+1, dir, at)...),
		})
	}
	s := &supervisor{p: o.p, members: members, ready: o.announce}
	return s.run(ctx)
}

// choosePorts gives each node its ports.
func (o *local) choosePorts(ctx context.Context) (all []ports, err error) {
	if o.port > 0 {
		for i := range o.nodes {
			all = append(all, ports{o.port + i, o.port + i + internalOffset})
		}
		return all, nil
	}
	var open []net.Listener
	defer func() {
		for _, l := range open {
			err = errors.Join(err, l.Close())
		}
	}()
	free := func() (int, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		open = append(open, l) // until all are chosen, so that none is chosen twice
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	for range o.nodes {
		clients, errA := free()
		internal, errB := free()
		if err := cmp.Or(errA, errB); err != nil {
			return nil, err
		}
		all = append(all, ports{clients, internal})
	}
	return all, nil
}

// arguments are those that a node is started with.
func (o *local) arguments(id int, data string, at []ports) []string {
	var voters []string
	for i, p := range at {
		voters = append(voters, fmt.Sprintf("%d@%s:%d", i+1, loopback, p.internal))
	}
	args := []string{
		"serve", "--node-id", strconv.Itoa(id), "--data", data, "--log-level", o.logLevel,
		"--listen", net.JoinHostPort(loopback, strconv.Itoa(at[id-1].clients)),
	}
	if len(at) > 1 {
		args = append(args, "--voters", strings.Join(voters, ","))
	}
	for _, pair := range o.set {
		args = append(args, "--set", pair)
	}
	return args
}

// ofCluster finds the cluster's id in the line of a node that is ready.
var ofCluster = regexp.MustCompile(` of cluster (\S+?),`)

// announce is called when all nodes are ready.
func (o *local) announce(running []runningNode, line string) error {
	c := runningCluster{Nodes: running}
	if m := ofCluster.FindStringSubmatch(line); m != nil {
		c.Cluster = m[1]
	}
	var addresses []string
	for _, n := range running {
		addresses = append(addresses, n.Address)
	}
	c.Brokers = strings.Join(addresses, ",")
	return o.p.Show(o.out, c, func() error {
		return o.p.Write(fmt.Appendf(nil, "ready: cluster %s of %s, brokers %s\n", c.Cluster, terminal.Plural(len(running), "node"), c.Brokers))
	})
}
