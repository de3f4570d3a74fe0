//go:build compat

package compat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	"barnabas/test/compat/rig"
)

// meter counts what comes from each address.
type meter struct {
	mu   sync.Mutex
	from map[string]int
}

func (m *meter) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &metered{Conn: c, m: m, address: address}, nil
}

func (m *meter) of(address string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.from[address]
}

type metered struct {
	net.Conn
	m       *meter
	address string
}

func (c *metered) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.m.mu.Lock()
	c.m.from[c.address] += n
	c.m.mu.Unlock()
	return n, err
}

// placeTopic creates a topic of one partition with its replicas on these nodes, the first of which leads.
func placeTopic(t *testing.T, addr, topic string, nodes []int32, configs ...kmsg.CreateTopicsRequestTopicConfig) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	in := kmsg.NewCreateTopicsRequestTopic()
	in.Topic, in.NumPartitions, in.ReplicationFactor, in.Configs = topic, -1, -1, configs
	in.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: nodes}}
	req.Topics = append(req.Topics, in)
	cl := kgoClient(t, addr)
	rig.Eventually(t, patience, "the topic is made", func() bool {
		resp, err := req.RequestWith(within(t, patience), cl)
		return err == nil && len(resp.Topics) == 1 && (resp.Topics[0].ErrorCode == 0 || client.Error(resp.Topics[0].ErrorCode) == client.ErrTopicAlreadyExists)
	})
	rig.Eventually(t, patience, "it has its leader", func() bool {
		return onlyLeader(t, addr, topic) == nodes[0]
	})
}

// onlyLeader gives the leader of a topic's only partition, -1 where there is none.
func onlyLeader(t *testing.T, addr, topic string) int32 {
	t.Helper()
	details, err := admin(t, addr).ListTopics(within(t, patience), topic)
	if err != nil || details[topic].Err != nil {
		return -1
	}
	return details[topic].Partitions[0].Leader
}

func produceValues(t *testing.T, addr, topic string, count, size int) {
	t.Helper()
	cl := kgoClient(t, addr, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordDeliveryTimeout(patience))
	for n := range count {
		value := append(fmt.Appendf(nil, "%d ", n), make([]byte, size)...)
		cl.Produce(t.Context(), &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(within(t, patience)); err != nil {
		t.Fatal(err)
	}
}

var replicaTests = []clientTest{
	{name: "nearest replica", needs: []need{nodes(3)}, run: nearestReplica},
	{name: "trap 3, truncation", needs: []need{nodes(3)}, run: trap03OurConsumerFindsTruncation},
}

// A consumer in a rack reads the replica there and not the leader (KIP-392), and goes on, in order and
// with nothing twice, when that replica is killed with -9, and when the leader is.
func nearestReplica(t *testing.T, p *site) {
	c := p.cluster
	addr, topic := p.addr, uniqueTopic("nearest")
	placeTopic(t, addr, topic, []int32{1, 2, 3})
	const records, size = 3000, 1000
	produceValues(t, addr, topic, records, size)
	m := &meter{from: map[string]int{}}
	k, err := ourClient(t, addr, client.Dialer(m.dial)).NewConsumer(client.Rack("rack-3"), client.NoAutoOffsetReset(), client.MaxPartitionFetchBytes(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	tp := client.TopicPartition{Topic: topic}
	if err := k.Assign(map[client.TopicPartition]client.Position{tp: client.Earliest}); err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	readTo := func(end int64) {
		t.Helper()
		for next < end {
			got, err := k.Poll(within(t, patience))
			if err != nil {
				t.Fatalf("at %d: %v", next, err)
			}
			for _, r := range got {
				if r.Offset != next {
					t.Fatalf("offset %d after %d", r.Offset, next-1)
				}
				next++
			}
		}
	}
	readTo(records)
	if near, leader := m.of(c.Node(3).Addr), m.of(c.Node(1).Addr); near < records*size || leader > records*size/4 {
		t.Errorf("%d bytes of the replica nearby, %d of the leader", near, leader)
	}
	c.Node(3).Kill()
	produceValues(t, addr, topic, records, size)
	readTo(2 * records)
	if leader := m.of(c.Node(1).Addr); leader < records*size/2 {
		t.Errorf("%d bytes of the leader, when there is no replica nearby", leader)
	}
	c.Restart(3)
	c.Node(1).Kill()
	rig.Eventually(t, patience, "another leads", func() bool { l := onlyLeader(t, addr, topic); return l >= 0 && l != 1 })
	produceValues(t, addr, topic, records, size)
	readTo(3 * records)
	c.Restart(1)
}

// An unclean election loses records that a consumer has read; though the log has grown past its
// position again, it is told (KIP-320).
func trap03OurConsumerFindsTruncation(t *testing.T, p *site) {
	c := p.cluster
	addr, topic := p.addr, uniqueTopic("unclean")
	set := func(key, value string) kmsg.CreateTopicsRequestTopicConfig {
		return kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value}
	}
	placeTopic(t, addr, topic, []int32{1, 2}, set("unclean.leader.election.enable", "true"), set("min.insync.replicas", "1"))
	k, err := ourClient(t, addr).NewConsumer(client.NoAutoOffsetReset())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	tp := client.TopicPartition{Topic: topic}
	if err := k.Assign(map[client.TopicPartition]client.Position{tp: client.Earliest}); err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	readTo := func(end int64) {
		t.Helper()
		for next < end {
			got, err := k.Poll(within(t, patience))
			if err != nil {
				t.Fatalf("at %d: %v", next, err)
			}
			next = got[len(got)-1].Offset + 1
		}
	}
	produceValues(t, addr, topic, 10, 10)
	readTo(10)
	c.Node(2).Kill()
	produceValues(t, addr, topic, 10, 10)
	readTo(20)
	c.Node(1).Kill()
	c.Restart(2)
	rig.Eventually(t, patience, "the one that has less leads", func() bool { return onlyLeader(t, addr, topic) == 2 })
	produceValues(t, addr, topic, 15, 10)
	if got, err := k.Poll(within(t, patience)); !errors.Is(err, client.ErrLogTruncated) {
		t.Errorf("it reads on at %v: %v", got, err)
	}
	if err := k.Seek(tp, client.AtOffset(10)); err != nil {
		t.Fatal(err)
	}
	next = 10
	readTo(25)
	c.Restart(1)
}
