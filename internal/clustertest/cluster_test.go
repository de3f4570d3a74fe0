package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
)

// threeNodes lives a world of a seed's, of the first usual ones, with a cluster of three nodes that run.
func threeNodes(t *testing.T, usual uint64, f func(w *World, nodes []*Node)) {
	t.Helper()
	for seed := range Seeds(usual) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			f(w, nodes)
		})
	}
}

// without are all nodes but one.
func without(nodes []*Node, n *Node) []*Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(o *Node) bool { return o == n })
}

// leader is the node that leads the quorum, as a node sees it; nil while it knows of none.
func (w *World) leader(c *Client, nodes []*Node) *Node {
	p := w.quorum(c)
	if p.ErrorCode != 0 {
		return nil
	}
	return nodes[p.LeaderID-1]
}

func (w *World) quorum(c *Client) kmsg.DescribeQuorumResponseTopicPartition {
	w.T.Helper()
	q := kmsg.NewPtrDescribeQuorumRequest()
	q.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	res, err := Call[*kmsg.DescribeQuorumResponse](w.Context(), c, q)
	if err != nil {
		w.Fatalf("describe quorum: %v", err)
	}
	return res.Topics[0].Partitions[0]
}

func (w *World) clients(nodes []*Node) (all []*Client) {
	for _, n := range nodes {
		all = append(all, w.MustDial("client", n))
	}
	return all
}

func TestThreeNodesAreOneCluster(t *testing.T) {
	threeNodes(t, 10, func(w *World, nodes []*Node) {
		clients := w.clients(nodes)
		for i, c := range clients {
			res, err := Call[*kmsg.DescribeClusterResponse](w.Context(), c, kmsg.NewPtrDescribeClusterRequest())
			if err != nil || len(res.Brokers) != 3 || res.ClusterID != nodes[0].Broker().Image().ClusterID() {
				w.Fatalf("node %d describes the cluster as %+v, %v", i+1, res, err)
			}
			for _, b := range res.Brokers {
				if b.Port != 9092 || b.Host != fmt.Sprintf("broker%d", b.NodeID) {
					w.Fatalf("node %d tells clients of %+v", i+1, b)
				}
			}
			p := w.quorum(c)
			if p.ErrorCode != 0 || len(p.CurrentVoters) != 3 || p.LeaderID < 1 {
				w.Fatalf("node %d describes the quorum as %+v", i+1, p)
			}
			for _, v := range p.CurrentVoters {
				if v.LogEndOffset < p.HighWatermark-5 || v.LastFetchTimestamp <= 0 || v.LastCaughtUpTimestamp <= 0 {
					w.Fatalf("node %d describes voter %+v below watermark %d", i+1, v, p.HighWatermark)
				}
			}
		}
		// Changes are made wherever they are asked for, and are there where they were asked for.
		for i, c := range clients {
			topic := fmt.Sprintf("topic%d", i)
			if _, err := c.CreateTopic(w.Context(), topic, 6); err != nil {
				w.Fatalf("create at node %d: %v", i+1, err)
			}
			if _, err := c.Topic(w.Context(), topic); err != nil {
				w.Fatalf("node %d does not know what it has made: %v", i+1, err)
			}
		}
		w.Eventually("all images are the same", time.Second, func() bool {
			offsets := map[int64]bool{}
			for _, n := range nodes {
				offsets[n.Broker().Image().Offset()] = true
			}
			return len(offsets) == 1
		})
		spread := map[int32]int{}
		topic, err := clients[2].Topic(w.Context(), "topic0")
		if err != nil {
			w.Fatalf("%v", err)
		}
		for _, p := range topic.Partitions {
			spread[p.Leader]++
			at := clients[p.Leader-1]
			if _, err := at.Produce(w.Context(), -1, "topic0", p.Partition, Batch(time.Now().UnixMilli(), batch.None, "v")); err != nil {
				w.Fatalf("produce to partition %d at node %d: %v", p.Partition, p.Leader, err)
			}
		}
		if spread[1] != 2 || spread[2] != 2 || spread[3] != 2 {
			w.Fatalf("six partitions are led by %v", spread)
		}
	})
}

func TestMoreReplicasThanBrokersAreRefused(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		w.StartAll(nodes...)
		c := w.MustDial("client", nodes[0])
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "copied", 1, 4
		q := kmsg.NewPtrCreateTopicsRequest()
		q.TimeoutMillis, q.Topics = timeoutMillis, append(q.Topics, topic)
		res, err := Call[*kmsg.CreateTopicsResponse](w.Context(), c, q)
		if err != nil {
			w.Fatalf("%v", err)
		}
		got := res.Topics[0]
		if got.ErrorCode != kerr.InvalidReplicationFactor.Code || got.ErrorMessage == nil || !strings.Contains(*got.ErrorMessage, "needs as many brokers") {
			w.Fatalf("%+v", got)
		}
	})
}

func TestKilledControllerIsReplacedWithinASecond(t *testing.T) {
	threeNodes(t, 10, func(w *World, nodes []*Node) {
		first := w.MustDial("client", nodes[0])
		old := w.leader(first, nodes)
		others := without(nodes, old)
		clients := w.clients(others)
		began := time.Now()
		old.Kill()
		if _, err := clients[w.Seed%2].CreateTopic(w.Context(), "after", 3); err != nil {
			w.Fatalf("create after the controller's end: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			w.Fatalf("the next change took %v", took)
		}
		old.MustStart()
		w.Eventually("the node that comes back knows", 5*time.Second, func() bool {
			_, known := old.Broker().Image().Topic("after")
			return known
		})
	})
}

func TestCleanStopHandsTheControllerOver(t *testing.T) {
	threeNodes(t, 5, func(w *World, nodes []*Node) {
		old := w.leader(w.MustDial("client", nodes[0]), nodes)
		others := without(nodes, old)
		c := w.MustDial("client", others[0])
		if err := old.Stop(); err != nil {
			w.Fatalf("stop: %v", err)
		}
		began := time.Now()
		if _, err := c.CreateTopic(w.Context(), "after", 1); err != nil || time.Since(began) > 200*time.Millisecond {
			w.Fatalf("create after a clean stop: %v, took %v", err, time.Since(began))
		}
		old.MustStart()
	})
}

// A node whose disk was wiped comes back, with all the metadata, and votes again.
func TestTrap10WipedNodeComesBack(t *testing.T) {
	threeNodes(t, 6, func(w *World, nodes []*Node) {
		c := w.MustDial("client", nodes[w.Seed%3])
		for i := range 5 {
			if _, err := c.CreateTopic(w.Context(), fmt.Sprint("topic", i), 3); err != nil {
				w.Fatalf("%v", err)
			}
		}
		cluster := nodes[0].Broker().Image().ClusterID()
		victim := nodes[(w.Seed+1)%3]
		victim.Wipe()
		victim.MustStart()
		image := victim.Broker().Image()
		if _, known := image.Topic("topic4"); !known || image.ClusterID() != cluster {
			w.Fatalf("the node that came back is in cluster %s and knows %d topics", image.ClusterID(), image.TopicCount())
		}
		w.Eventually("it votes again", 5*time.Second, func() bool { return w.allVote(nodes) })
	})
}

// allVote tells whether every node is a voter with the disk that it has now.
func (w *World) allVote(nodes []*Node) bool {
	w.T.Helper()
	c := w.MustDial("votes", nodes[0])
	defer c.Close()
	p := w.quorum(c)
	if p.ErrorCode != 0 || len(p.CurrentVoters) != len(nodes) || len(p.Observers) != 0 {
		return false
	}
	for _, v := range p.CurrentVoters {
		own, known := nodes[0].Broker().Image().Broker(v.ReplicaID)
		if !known || !slices.Contains(own.Directories, v.ReplicaDirectoryID) {
			return false
		}
	}
	return true
}

func TestTwoWipedNodesSayWhomTheyWaitFor(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		w.StartAll(nodes...)
		nodes[2].Kill()
		nodes[0].Wipe()
		nodes[1].Wipe()
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		var starting sync.WaitGroup
		for _, n := range nodes[:2] {
			starting.Go(func() {
				err := n.Start(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer from node 3") || !strings.Contains(n.Log(), "no answer from node 3") {
					w.Errorf("%s: %v\n%s", n.Name, err, n.Log())
				}
			})
		}
		starting.Wait()
	})
}

func TestNodeWithAnotherSecretStaysOutside(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		nodes[2].SetSecret("another secret altogether")
		ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
		defer cancel()
		errs := make(chan error, len(nodes))
		for _, n := range nodes {
			go func() { errs <- n.Start(ctx) }()
		}
		for range nodes {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				w.Fatalf("started although one node has another secret: %v", err)
			}
		}
		if !strings.Contains(nodes[2].Log(), "cluster.secret.file") {
			w.Fatalf("the node does not say why:\n%s", nodes[2].Log())
		}
	})
}

// A cluster that began as one node grows to three by its configuration alone.
func TestOneNodeGrowsIntoThree(t *testing.T) {
	for seed := range Seeds(4) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3)
			voters := nodes[1].Setting("controller.quorum.voters")
			nodes[0].Set("controller.quorum.voters")
			nodes[0].MustStart()
			c := w.MustDial("client", nodes[0])
			if _, err := c.CreateTopic(w.Context(), "early", 2); err != nil {
				w.Fatalf("%v", err)
			}
			if err := nodes[0].Stop(); err != nil {
				w.Fatalf("%v", err)
			}
			nodes[0].Set("controller.quorum.voters=" + voters)
			w.StartAll(nodes...)
			c = w.MustDial("client", nodes[1])
			if _, err := c.Topic(w.Context(), "early"); err != nil {
				w.Fatalf("%v", err)
			}
			w.Eventually("three voters", 10*time.Second, func() bool {
				p := w.quorum(c)
				return p.ErrorCode == 0 && len(p.CurrentVoters) == 3
			})
			nodes[0].Kill()
			if _, err := c.CreateTopic(w.Context(), "late", 2); err != nil {
				w.Fatalf("%v", err)
			}
		})
	}
}

func TestTopicsAreMadeWhileANodeIsDown(t *testing.T) {
	for _, clean := range []bool{false, true} {
		Run(t, 1, func(w *World) {
			nodes := w.Cluster(3)
			w.StartAll(nodes...)
			if clean {
				if err := nodes[2].Stop(); err != nil {
					w.Fatalf("%v", err)
				}
			} else {
				nodes[2].Kill()
			}
			time.Sleep(30 * time.Second)
			c := w.MustDial("client", nodes[0])
			if _, err := c.CreateTopic(w.Context(), "after", 1); err != nil {
				w.Errorf("stopped cleanly: %v: %v", clean, err)
			}
		})
	}
}

// TestBrokerWithoutAVoteIsABroker: a fourth node joins three voters, has replicas, leads some, and is missed at once when it dies.
func TestBrokerWithoutAVoteIsABroker(t *testing.T) {
	threeNodes(t, 4, func(w *World, nodes []*Node) {
		fourth := w.Broker(nodes)
		fourth.MustStart()
		nodes = append(nodes, fourth)
		c := w.MustDial("client", nodes[0])
		p := w.quorum(c)
		if len(p.CurrentVoters) != 3 || len(p.Observers) != 1 || p.Observers[0].ReplicaID != 4 {
			w.Fatalf("the quorum is %+v", p)
		}
		if err := c.PlaceTopic(w.Context(), "orders", 2, 4, 1, 2); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		end := w.startWriting(nodes, "orders", 2)
		time.Sleep(time.Second)
		fourth.Kill()
		time.Sleep(2 * time.Second)
		fourth.MustStart()
		w.whole(nodes, 10*time.Second, "orders")
		w.wroteOn(c, nodes, end())
	})
}

// TestCutOffControllerLosesItsPartitionsSoon: what the broker beside a controller leads that nobody can reach any more is
// led by another within two heartbeats of the next controller's election, not another session later. How long that election takes
// is raft's dice's: a round lasts at most twice its timeout, and a vote that is split takes another.
func TestCutOffControllerLosesItsPartitionsSoon(t *testing.T) {
	const (
		round  = 2 * 10 * 50 * time.Millisecond // ticks of an election's timeout, each so long: see quorum.Options
		rounds = 4
		around = 100 * time.Millisecond // for what is to be written and told, and the clock's jitter
	)
	threeNodes(t, 6, func(w *World, nodes []*Node) {
		c := w.MustDial("client", nodes[0])
		if _, err := c.CreateTopic(w.Context(), "orders", 6); err != nil {
			w.Fatalf("%v", err)
		}
		w.whole(nodes, 5*time.Second, "orders")
		controller := w.leader(c, nodes)
		others := without(nodes, controller)
		cut := int32(slices.Index(nodes, controller) + 1)
		settings, err := controller.Config()
		if err != nil {
			w.Fatalf("%v", err)
		}
		elections := func() (n int) {
			for _, other := range others {
				n += strings.Count(other.Log(), "this node is the controller")
			}
			return n
		}
		before := elections()
		w.Net.Isolate(controller.Name)
		w.Eventually("another is the controller", rounds*round, func() bool { return elections() > before })
		took := w.Eventually("others lead", 10*time.Second, func() bool {
			topic, _ := others[0].Broker().Image().Topic("orders")
			return !slices.ContainsFunc(topic.Partitions, func(p *metadata.Partition) bool { return p.Leader == cut })
		})
		if most := 2*settings.Millis("broker.heartbeat.interval.ms") + around; took > most {
			w.Fatalf("others lead %v after there is another controller, at most %v", took, most)
		}
		w.Net.Rejoin(controller.Name)
	})
}

// TestTwoOfThreeCopiesAreAskedFor: where nobody sets min.insync.replicas, it is two from three replicas on, else one, and
// clients are told that number.
func TestTwoOfThreeCopiesAreAskedFor(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		w.StartAll(nodes...)
		c := w.MustDial("admin", nodes[0])
		if _, err := c.CreateTopic(w.Context(), "three", 1); err != nil {
			w.Fatalf("%v", err)
		}
		if err := errors.Join(c.PlaceTopic(w.Context(), "two", 1, 1, 2), c.PlaceTopic(w.Context(), "one", 1, 1)); err != nil {
			w.Fatalf("%v", err)
		}
		told := func(topic, want string, from kmsg.ConfigSource) {
			w.T.Helper()
			value, source, err := c.Describe(w.Context(), kmsg.ConfigResourceTypeTopic, topic, "min.insync.replicas")
			if err != nil || value != want || source != from {
				w.Fatalf("%s: min.insync.replicas is told as %q from %v, %v; want %q from %v", topic, value, source, err, want, from)
			}
		}
		w.whole(nodes, 5*time.Second, "three", "two", "one")
		told("three", "2", kmsg.ConfigSourceDefaultConfig)
		told("two", "1", kmsg.ConfigSourceDefaultConfig)
		told("one", "1", kmsg.ConfigSourceDefaultConfig)
		one := "1"
		if err := c.Alter(w.Context(), kmsg.ConfigResourceTypeTopic, "two", "min.insync.replicas", &one); err != nil {
			w.Fatalf("%v", err)
		}
		told("two", "1", kmsg.ConfigSourceDynamicTopicConfig)
	})
}
