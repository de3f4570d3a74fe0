package clustercmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// nodeArgument reads the one argument of add and remove.
func nodeArgument(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, terminal.Usagef("NODE: %q is not a node's number", text)
	}
	return int32(n), nil
}

// unknownNode is the answer where the cluster has no such node.
func unknownNode(node int32, what string) error {
	return terminal.Hinted{
		Err:  terminal.NotFoundError{Text: fmt.Sprintf("node %d %s", node, what), Cause: client.ErrBrokerIDNotRegistered},
		Hint: "'barnabas cluster describe' shows the nodes that there are",
	}
}

const addHelp = `Give a node a vote in the metadata quorum.

The node has to run already, with the addresses of the cluster's voters, and to follow
the metadata: 'barnabas cluster describe' then shows it as an observer. It votes once it
has caught up. A quorum of three survives the loss of one voter, one of five of two; an
even number survives no more than the odd number below it.`

// changedMember is what cluster add and remove show.
type changedMember struct {
	Node         int32  `json:"node"`
	Directory    string `json:"directory,omitempty"`
	Voter        bool   `json:"voter"`                  // it has a vote now
	Unregistered bool   `json:"unregistered,omitempty"` // the cluster has forgotten it as a broker
}

func newAdd(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var endpoints []string
	c := &cobra.Command{
		Use:   "add NODE",
		Short: "Give a node a vote in the metadata quorum",
		Long:  addHelp,
		Args:  terminal.Exactly("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := nodeArgument(args[0])
			if err != nil {
				return err
			}
			given, err := readEndpoints(endpoints)
			if err != nil {
				return err
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				done, err := addVoter(ctx, a, node, given)
				if err != nil {
					return err
				}
				return p.Show(out, done, func() error {
					return p.Write(fmt.Appendf(nil, "node %d votes now, with directory %s\n", node, done.Directory))
				})
			})
		},
	}
	c.Flags().StringArrayVar(&endpoints, "endpoint", nil, "where the other voters reach it, `NAME://HOST:PORT` (default: as the cluster knows it)")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func readEndpoints(texts []string) (all []admin.QuorumEndpoint, err error) {
	for _, text := range texts {
		name, address, ok := strings.Cut(text, "://")
		host, port, err := net.SplitHostPort(address)
		number, portErr := strconv.ParseUint(port, 10, 16)
		if !ok || name == "" || host == "" || err != nil || portErr != nil || number == 0 {
			return nil, terminal.Usagef("--endpoint %q: write NAME://HOST:PORT, as in CONTROLLER://10.0.0.4:9093", text)
		}
		all = append(all, admin.QuorumEndpoint{Listener: name, Host: host, Port: uint16(number)})
	}
	return all, nil
}

func addVoter(ctx context.Context, a *admin.Admin, node int32, endpoints []admin.QuorumEndpoint) (*changedMember, error) {
	quorum, err := a.DescribeQuorum(ctx)
	if err != nil {
		return nil, err
	}
	is := func(r admin.QuorumReplica) bool { return r.Node == node }
	if at := slices.IndexFunc(quorum.Voters, is); at >= 0 {
		return nil, fmt.Errorf("add node %d: it votes already, with directory %v: %w", node, quorum.Voters[at].Directory, client.ErrDuplicateVoter)
	}
	at := slices.IndexFunc(quorum.Observers, is)
	if at < 0 {
		return nil, unknownNode(node, "does not follow the metadata: start it first")
	}
	if len(endpoints) == 0 {
		endpoints = quorum.Endpoints[node]
	}
	if len(endpoints) == 0 {
		return nil, terminal.Hinted{
			Err: terminal.Usagef("nobody knows where the voters reach node %d", node), Hint: "say it with --endpoint NAME://HOST:PORT",
		}
	}
	voter := admin.RaftVoter{Node: node, Directory: quorum.Observers[at].Directory}
	if err := a.AddRaftVoter(ctx, voter, endpoints...); err != nil {
		return nil, err
	}
	return &changedMember{Node: node, Directory: voter.Directory.String(), Voter: true}, nil
}

const removeHelp = `Take a node out of the cluster: its vote in the metadata quorum, if it has one, and
its registration as a broker.

Move its replicas to other brokers first ('barnabas topic reassign --brokers ...') and
stop it: a broker that runs registers again. With --keep-broker only its vote goes. A vote is not
taken where the voters that are left, as far as they are up to date, could not lead.`

func newRemove(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	var keep, force bool
	c := &cobra.Command{
		Use:     "remove NODE",
		Aliases: []string{"rm"},
		Short:   "Take a node out of the quorum and out of the cluster",
		Long:    removeHelp,
		Args:    terminal.Exactly("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := nodeArgument(args[0])
			if err != nil {
				return err
			}
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				done, err := removeNode(ctx, a, node, keep, force)
				if err != nil {
					return err
				}
				return p.Show(out, done, func() error { return p.Write([]byte(done.removed() + "\n")) })
			})
		},
	}
	c.Flags().BoolVar(&keep, "keep-broker", false, "take only its vote")
	c.Flags().BoolVar(&force, "force", false, "even if it runs, or has replicas that would be lost")
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func (m *changedMember) removed() string {
	switch {
	case m.Directory == "":
		return fmt.Sprintf("node %d is no broker of the cluster any more", m.Node)
	case m.Unregistered:
		return fmt.Sprintf("node %d has no vote and is no broker of the cluster any more", m.Node)
	}
	return fmt.Sprintf("node %d has no vote any more", m.Node)
}

func removeNode(ctx context.Context, a *admin.Admin, node int32, keep, force bool) (*changedMember, error) {
	quorum, err := a.DescribeQuorum(ctx)
	if err != nil {
		return nil, err
	}
	cluster, err := a.DescribeCluster(ctx, admin.WithFencedBrokers())
	if err != nil {
		return nil, err
	}
	done := &changedMember{Node: node}
	vote := slices.IndexFunc(quorum.Voters, func(r admin.QuorumReplica) bool { return r.Node == node })
	broker := slices.IndexFunc(cluster.Brokers, func(b admin.BrokerDescription) bool { return b.Node == node })
	switch {
	case vote < 0 && broker < 0:
		return nil, unknownNode(node, "is neither a voter nor a broker of the cluster")
	case vote < 0 && keep:
		return nil, fmt.Errorf("remove node %d: it has no vote: %w", node, client.ErrVoterNotFound)
	}
	if broker >= 0 && !keep && !force {
		if err := mayGo(ctx, a, cluster.Brokers[broker]); err != nil {
			return nil, err
		}
	}
	if vote >= 0 {
		if err := staysLed(&quorum, node, time.Now()); err != nil {
			return nil, err
		}
		voter := admin.RaftVoter{Node: node, Directory: quorum.Voters[vote].Directory}
		if err := a.RemoveRaftVoter(ctx, voter); err != nil {
			return nil, err
		}
		done.Directory = voter.Directory.String()
	}
	if broker >= 0 && !keep {
		if err := a.UnregisterBroker(ctx, node); err != nil && !errors.Is(err, client.ErrBrokerIDNotRegistered) {
			return nil, err
		}
		done.Unregistered = true
	}
	return done, nil
}

// staysLed refuses to take a vote where the voters that are left could not lead the quorum: a majority of them has to
// be there. A cluster whose quorum is lost by its own command could not even take the command back.
func staysLed(quorum *admin.Quorum, node int32, now time.Time) error {
	var left, away []int32
	for i := range quorum.Voters {
		switch v := &quorum.Voters[i]; {
		case v.Node == node:
		case isAway(quorum, v, now):
			away = append(away, v.Node)
			fallthrough
		default:
			left = append(left, v.Node)
		}
	}
	switch {
	case len(left) == 0:
		return fmt.Errorf("node %d is the only voter, and a cluster without one has no leader: give another node a vote first ('barnabas cluster add')", node)
	case len(left)-len(away) <= len(left)/2:
		return terminal.Hinted{
			Err: fmt.Errorf("without node %d the quorum would have no majority: of the voters that are left, %s not up to date", node, nodes("voter", away, "")),
			Hint: fmt.Sprintf("start %s first, or remove %s before node %d; --force changes nothing here",
				them(len(away)), them(len(away)), node),
		}
	}
	return nil
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// mayGo refuses to forget a broker that somebody needs.
func mayGo(ctx context.Context, a *admin.Admin, b admin.BrokerDescription) error {
	topics, err := allTopics(ctx, a)
	if err != nil {
		return err
	}
	var held []string
	for _, t := range topics {
		for _, part := range t.Partitions {
			if slices.Contains(part.Replicas, b.Node) {
				held = append(held, fmt.Sprintf("%s-%d", t.Name, part.Partition))
			}
		}
	}
	switch {
	case len(held) > 0:
		return terminal.Hinted{
			Err: fmt.Errorf("%s on broker %d: %s", has(len(held), "partition has a replica", "partitions have replicas"), b.Node, some(held)),
			Hint: "'barnabas topic reassign --brokers ...' moves them to others, 'barnabas topic reassign --list' shows when that is done;\n" +
				"--force removes the broker all the same, and with it these replicas",
		}
	case !b.Fenced:
		return terminal.Hinted{
			Err:  fmt.Errorf("broker %d runs, and would register again", b.Node),
			Hint: "stop it, and wait until 'barnabas cluster describe' shows it as fenced; --keep-broker takes only its vote",
		}
	}
	return nil
}

// allTopics describes every topic, the internal ones included.
func allTopics(ctx context.Context, a *admin.Admin) ([]admin.TopicDescription, error) {
	listed, err := a.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range listed {
		names = append(names, l.Name)
	}
	if len(names) == 0 {
		return nil, nil
	}
	return a.DescribeTopics(ctx, names...)
}
