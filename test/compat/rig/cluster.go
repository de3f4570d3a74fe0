//go:build linux

package rig

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Cluster is several brokers that form one quorum: the system under test, or Apache Kafka.
type Cluster struct {
	Brokers []*Broker // by node id - 1

	t testing.TB
}

// StartCluster starts nodes 1 to N with empty data directories and stops them when the test ends. Settings
// are for all of them, {node} in them is the node's number. It returns once each serves clients, which is before all have heard of all.
func StartCluster(t testing.TB, nodes int, settings ...string) *Cluster {
	t.Helper()
	return StartClusterOf(t, release(), nodes, settings...)
}

// StartClusterOf is StartCluster with nodes of a release of Apache Kafka; of "", ours.
func StartClusterOf(t testing.TB, r Release, nodes int, settings ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	var voters []string
	for id := 1; id <= nodes; id++ {
		own := make([]string, len(settings))
		for i, s := range settings {
			own[i] = strings.ReplaceAll(s, "{node}", fmt.Sprint(id))
		}
		b := newBroker(t, own)
		c.Brokers = append(c.Brokers, b)
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", id, b.port+1))
	}
	for i, b := range c.Brokers {
		b.release = r
		b.form(i+1, nodes, strings.Join(voters, ","))
	}
	for _, b := range c.Brokers {
		p, err := b.launch()
		if err != nil {
			t.Fatal(err)
		}
		b.running = p
	}
	for _, b := range c.Brokers {
		b.awaitReady()
	}
	return c
}

// form makes the broker one of a cluster's.
func (b *Broker) form(id, nodes int, voters string) {
	b.t.Helper()
	if b.release != "" {
		copies := fmt.Sprint(min(nodes, 3))
		b.formatNode(id, voters, map[string]string{
			"offsets.topic.replication.factor": copies, "transaction.state.log.replication.factor": copies,
			"share.coordinator.state.topic.replication.factor": copies,
		})
		return
	}
	b.Data = filepath.Join(b.t.TempDir(), fmt.Sprint("node", id))
	b.args = []string{"--node-id", fmt.Sprint(id), "--voters", voters}
}

// Join starts a further node of ours, which has no vote, with the next number.
func (c *Cluster) Join() *Broker {
	c.t.Helper()
	id := len(c.Brokers) + 1
	b := newBroker(c.t, c.Brokers[0].settings)
	c.Brokers = append(c.Brokers, b)
	b.Data = filepath.Join(c.t.TempDir(), fmt.Sprint("node", id))
	b.listeners = fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s", b.Addr, b.InternalAddress())
	b.NameVoters(id, c, 1, 2, 3)
	c.Restart(id)
	return b
}

// NameVoters has a node of ours started with these nodes as the voters from the next start on.
func (b *Broker) NameVoters(id int, c *Cluster, voters ...int) {
	var named []string
	for _, v := range voters {
		named = append(named, fmt.Sprintf("%d@%s", v, c.Node(v).InternalAddress()))
	}
	b.args = []string{"--node-id", fmt.Sprint(id), "--voters", strings.Join(named, ",")}
}

func (b *Broker) awaitReady() {
	b.t.Helper()
	if err := b.running.awaitReady(b); err != nil {
		b.t.Fatalf("%v\n%s", err, tail(b.running.log.String(), 8000))
	}
}

// Addresses are those for clients, with commas between them; of the nodes named, or of all.
func (c *Cluster) Addresses(ids ...int) string {
	var all []string
	for i, b := range c.Brokers {
		if len(ids) == 0 || slices.Contains(ids, i+1) {
			all = append(all, b.Addr)
		}
	}
	return strings.Join(all, ",")
}

// Node gives the broker with this number.
func (c *Cluster) Node(id int) *Broker { return c.Brokers[id-1] }

// InternalAddress is where the other nodes of a cluster reach the broker.
func (b *Broker) InternalAddress() string { return fmt.Sprintf("127.0.0.1:%d", b.port+1) }

// Restart starts nodes again that do not run, side by side.
func (c *Cluster) Restart(ids ...int) {
	c.t.Helper()
	for _, id := range ids {
		b := c.Node(id)
		if b.running != nil {
			c.t.Fatalf("node %d runs already", id)
		}
		p, err := b.launch()
		if err != nil {
			c.t.Fatal(err)
		}
		b.running = p
	}
	for _, id := range ids {
		c.Node(id).awaitReady()
	}
}
