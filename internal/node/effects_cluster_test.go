package node_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
)

// clusterEffects are those of the keys of brokers that have others.
var clusterEffects = map[string]effect{
	"broker.session.timeout.ms":               {see: hungBrokerReplaced, cases: []string{"1000", "1s", "3000", "3s"}},
	"broker.heartbeat.interval.ms":            {see: silentBrokerReplaced, cases: []string{"100", "3s", "3000", "1s"}},
	"initial.broker.registration.timeout.ms":  {see: registersWhileDisksAreSlow, cases: []string{"5000", "gives up", "60000", "registers"}},
	"controlled.shutdown.enable":              {see: ledAfterStop, cases: []string{"true", "by another", "false", "by nobody"}},
	"offsets.topic.replication.factor":        {see: offsetsReplicas, cases: []string{"1", "1", "2", "2", "3", "3"}},
	"replica.lag.time.max.ms":                 {see: stalledFor(25 * time.Second), cases: []string{"10000", "left", "60000", "in sync"}},
	"replica.lag.max.messages":                {see: stalledFor(15 * time.Second), cases: []string{"0", "in sync", "5", "left", "20", "in sync"}},
	"replica.fetch.wait.max.ms":               {see: asks, cases: []string{"10", "often", "500", "seldom"}},
	"replica.fetch.max.bytes":                 {see: catchesUp(1, 50), cases: []string{"10000", "late", "1048576", "soon"}},
	"replica.fetch.response.max.bytes":        {see: catchesUp(50, 1), cases: []string{"10000", "late", "10485760", "soon"}},
	"replica.selector.class":                  {see: whomToRead, cases: []string{config.LeaderSelector, "the leader", config.RackAwareReplicaSelector, "the follower in the rack"}},
	"leader.replication.throttled.rate":       {see: copiesThrottled, cases: []string{"100000", "late", "9223372036854775807", "soon"}},
	"follower.replication.throttled.rate":     {see: copiesThrottled, cases: []string{"100000", "late", "9223372036854775807", "soon"}},
	"replication.quota.window.size.seconds":   {see: copiesAtOnce, cases: []string{"1", "late", "60", "soon"}},
	"replication.quota.window.num":            {see: copiesWhatWasLeft, cases: []string{"1", "late", "11", "late", "100", "soon"}},
	"request.memory.internal.bytes":           {see: passedOn, cases: []string{"1", "one by one", "134217728", "together"}},
	"auto.leader.rebalance.enable":            {see: ledAgain, cases: []string{"true", "by the preferred", "false", "by the other"}},
	"leader.imbalance.check.interval.seconds": {see: ledAgain, cases: []string{"60", "by the preferred", "3600", "by the other"}},
}

// startCluster starts three nodes with the setting, and others unless they are of the same key.
func (p *probe) startCluster(settings ...string) {
	p.T.Helper()
	p.nodes = p.Cluster(3, append([]string{"connections.max.idle.ms=0"}, settings...)...)
	for _, n := range p.nodes {
		if p.key != "" {
			n.Set(p.key + "=" + p.value)
		}
	}
	p.StartAll(p.nodes...)
	p.at(1)
}

// at has the client speak to a node from now on.
func (p *probe) at(broker int32) {
	p.T.Helper()
	p.n = p.nodes[broker-1]
	p.c = p.MustDial("client", p.n)
}

// place makes topic t, led by the first of the brokers, and waits until all are in sync.
func (p *probe) place(partitions int32, replicas ...int32) {
	p.T.Helper()
	if err := p.c.PlaceTopic(p.Context(), "t", partitions, replicas...); err != nil {
		p.Fatalf("create t: %v", err)
	}
	p.inSync(len(replicas), time.Minute)
	for _, n := range p.nodes {
		p.Eventually("the topic is known to "+n.Name, time.Second, func() bool {
			_, known := n.Broker().Image().Topic("t")
			return known
		})
	}
}

func (p *probe) described() []kmsg.MetadataResponseTopicPartition {
	p.T.Helper()
	topic, err := p.c.Topic(p.Context(), "t")
	if err != nil {
		p.Fatalf("describe t: %v", err)
	}
	slices.SortFunc(topic.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
	return topic.Partitions
}

// inSync waits until every partition has so many replicas in sync, and returns how long that took.
func (p *probe) inSync(replicas int, within time.Duration) time.Duration {
	p.T.Helper()
	return p.Eventually(fmt.Sprint(replicas, " replicas in sync"), within, func() bool {
		return !slices.ContainsFunc(p.described(), func(d kmsg.MetadataResponseTopicPartition) bool { return len(d.ISR) != replicas })
	})
}

// ledBy waits until a broker leads the first partition, and returns how long that took to the second.
func (p *probe) ledBy(broker int32) string {
	p.T.Helper()
	return p.Eventually(fmt.Sprint("led by ", broker), time.Minute, func() bool { return p.described()[0].Leader == broker }).Round(time.Second).String()
}

// hang cuts off a broker that leads a partition, and not the quorum, after a while, and returns how long it takes until
// another leads.
func (p *probe) hang(after time.Duration) string {
	p.T.Helper()
	controller := p.controller()
	victim, other := 1+controller%3, 1+(controller+1)%3
	p.at(other)
	p.place(1, victim, other)
	time.Sleep(after)
	p.Net.Isolate(p.nodes[victim-1].Name)
	return p.ledBy(other)
}

// controller is the broker that leads the quorum.
func (p *probe) controller() int32 {
	p.T.Helper()
	q := kmsg.NewPtrDescribeQuorumRequest()
	q.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	res, err := clustertest.Call[*kmsg.DescribeQuorumResponse](p.Context(), p.c, q)
	if err != nil || res.Topics[0].Partitions[0].LeaderID < 1 {
		p.Fatalf("describe the quorum: %v", err)
	}
	return res.Topics[0].Partitions[0].LeaderID
}

func hungBrokerReplaced(p *probe) string {
	p.startCluster("broker.heartbeat.interval.ms=100")
	return p.hang(0)
}

// silentBrokerReplaced hangs a broker shortly before it would say again that it lives, where it seldom does.
func silentBrokerReplaced(p *probe) string {
	p.startCluster("broker.session.timeout.ms=3300")
	return p.hang(2300 * time.Millisecond)
}

// registersWhileDisksAreSlow starts a broker while no change of the metadata is committed in less than ten seconds.
func registersWhileDisksAreSlow(p *probe) string {
	p.startCluster()
	last := p.nodes[2]
	if err := last.Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	time.Sleep(10 * time.Second)
	for _, n := range p.nodes[:2] {
		n.Fault(func(op disk.Op) error {
			if op.Kind == disk.OpSync && strings.HasPrefix(op.Path, metadataDir) {
				time.Sleep(10 * time.Second)
			}
			return nil
		})
	}
	err := last.Start(p.Context())
	for _, n := range p.nodes {
		n.Fault(nil)
	}
	if err != nil && !strings.Contains(err.Error(), "register broker 3") {
		p.Fatalf("start: %v", err)
	}
	return yes(err == nil, "registers", "gives up")
}

// ledAfterStop is who leads what a broker has led, at the moment when it has stopped.
func ledAfterStop(p *probe) string {
	p.startCluster()
	p.place(1, 2, 1)
	if err := p.nodes[1].Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	return yes(p.described()[0].Leader == 1, "by another", "by nobody")
}

func offsetsReplicas(p *probe) string {
	p.startCluster("offsets.topic.num.partitions=1")
	p.meet()
	topic, err := p.c.Topic(p.Context(), offsetsTopic)
	if err != nil {
		p.Fatalf("describe %s: %v", offsetsTopic, err)
	}
	return fmt.Sprint(len(topic.Partitions[0].Replicas))
}

// stall has broker 2 copy nothing more of topic t, though it lives, and writes ten records to broker 1.
func (p *probe) stall() {
	p.T.Helper()
	p.nodes[1].Fault(func(op disk.Op) error {
		if op.Kind == disk.OpWrite && strings.HasPrefix(op.Path, "/data/t-") {
			time.Sleep(time.Minute) // longer than anybody looks
		}
		return nil
	})
	for range 10 {
		if _, err := p.c.Produce(p.Context(), 1, "t", 0, clustertest.Batch(time.Now().UnixMilli(), batch.None, "v")); err != nil {
			p.Fatalf("produce: %v", err)
		}
	}
}

// stalled says whether broker 2 is in sync a while after it was stalled.
func (p *probe) stalled(after time.Duration) string {
	p.T.Helper()
	p.stall()
	time.Sleep(after)
	isr := p.described()[0].ISR
	if !slices.Contains(isr, 1) {
		p.Fatalf("in sync: %v", isr)
	}
	return yes(slices.Contains(isr, 2), "in sync", "left")
}

func stalledFor(after time.Duration) func(*probe) string {
	return func(p *probe) string {
		p.startCluster()
		p.place(1, 1, 2)
		p.mustProduce("t", 0, "first")
		time.Sleep(time.Second)
		return p.stalled(after)
	}
}

// asks says how often a follower speaks to the others in a quiet minute. A thousand times it does anyway, for other reasons.
func asks(p *probe) string {
	p.startCluster()
	p.place(1, 1, 2)
	follower := p.nodes[1]
	if err := follower.Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	set, err := follower.Config()
	if err != nil {
		p.Fatalf("%v", err)
	}
	network := &counting{Network: p.Net.Host(follower.Name)}
	if err := follower.StartOn(p.Context(), network, set); err != nil {
		p.Fatalf("start: %v", err)
	}
	p.inSync(2, time.Minute)
	before := network.writes.Load()
	time.Sleep(time.Minute)
	return yes(network.writes.Load()-before > 3000, "often", "seldom")
}

// counting counts what is written to connections that its host has made.
type counting struct {
	netx.Network
	writes atomic.Int64
}

func (n *counting) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return countedConn{c, n}, nil
}

type countedConn struct {
	net.Conn
	n *counting
}

func (c countedConn) Write(b []byte) (int, error) {
	c.n.writes.Add(1)
	return c.Conn.Write(b)
}

// catchesUp says whether a follower that is half a second away and has missed 500 kB in batches of 10 kB is in sync again soon.
func catchesUp(partitions int32, batches int) func(*probe) string {
	return func(p *probe) string {
		p.startCluster()
		p.place(partitions, 1, 2)
		follower := p.nodes[1]
		if err := follower.Stop(); err != nil {
			p.Fatalf("stop: %v", err)
		}
		for n := range partitions {
			p.mustProduce("t", n, texts(batches, 10_000)...)
		}
		for _, other := range []string{"broker1", "broker3"} {
			p.Net.SetLatency(other, follower.Name, 100*time.Millisecond, 0)
			p.Net.SetLatency(follower.Name, other, 100*time.Millisecond, 0)
		}
		follower.MustStart()
		return yes(p.inSync(2, time.Minute) < 5*time.Second, "soon", "late")
	}
}

// throttleTopic has broker 2 copy topic t from broker 1, at 100 kB per second at most on either side, unless the key is that
// of one rate.
func (p *probe) throttleTopic(configs map[string]string) {
	p.T.Helper()
	p.place(1, 1, 2)
	brokers := map[string]string{}
	if rate := "replication.throttled.rate"; strings.HasSuffix(p.key, rate) {
		brokers[p.key] = p.value
	} else {
		brokers["leader."+rate], brokers["follower."+rate] = "100000", "100000"
	}
	for key, value := range brokers {
		if err := p.c.Alter(p.Context(), kmsg.ConfigResourceTypeBroker, "", key, &value); err != nil {
			p.Fatalf("alter %s: %v", key, err)
		}
	}
	for key, value := range configs {
		if err := p.c.Alter(p.Context(), kmsg.ConfigResourceTypeTopic, "t", key, &value); err != nil {
			p.Fatalf("alter %s: %v", key, err)
		}
	}
}

// catchUp stops broker 2 and has it catch up with three megabytes.
func (p *probe) catchUp() string {
	p.T.Helper()
	follower := p.nodes[1]
	if err := follower.Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	p.mustProduce("t", 0, texts(60, 50_000)...)
	follower.MustStart()
	return yes(p.inSync(2, time.Minute) < 5*time.Second, "soon", "late")
}

var throttledOnBothSides = map[string]string{"leader.replication.throttled.replicas": "*", "follower.replication.throttled.replicas": "*"}

func copiesThrottled(p *probe) string {
	key := p.key
	p.key = "" // it is set while the cluster runs
	p.startCluster()
	p.key = key
	if p.scope == config.Topics {
		p.throttleTopic(map[string]string{p.key: p.value})
	} else {
		p.throttleTopic(throttledOnBothSides)
	}
	return p.catchUp()
}

// copiesAtOnce is whether three megabytes may be copied at once by who has copied nothing before.
func copiesAtOnce(p *probe) string {
	p.startCluster()
	p.throttleTopic(throttledOnBothSides)
	return p.catchUp()
}

// copiesWhatWasLeft is whether three megabytes are copied at once by who copied next to nothing for a time in which that
// many were allowed.
func copiesWhatWasLeft(p *probe) string {
	p.startCluster()
	p.throttleTopic(map[string]string{"leader.replication.throttled.replicas": "*"})
	p.mustProduce("t", 0, "v")
	time.Sleep(40 * time.Second)
	return p.catchUp()
}

// whomToRead is whom a consumer in the rack of a follower is told to read from.
func whomToRead(p *probe) string {
	p.nodes = p.Cluster(3, p.key+"="+p.value)
	for i, n := range p.nodes {
		n.Set(fmt.Sprint("broker.rack=rack", i+1))
	}
	p.StartAll(p.nodes...)
	p.at(1)
	p.place(1, 1, 2, 3)
	p.mustProduce("t", 0, "v")
	got, err := p.c.Fetch(p.Context(), "t", 0, 0, clustertest.FetchOptions{Rack: "rack3"})
	if err != nil {
		p.Fatalf("fetch: %v", err)
	}
	switch {
	case got.PreferredReadReplica == 3 && len(got.RecordBatches) == 0:
		return "the follower in the rack"
	case got.PreferredReadReplica == -1 && len(got.RecordBatches) > 0:
		return "the leader"
	}
	p.Fatalf("preferred: %d, with %d bytes", got.PreferredReadReplica, len(got.RecordBatches))
	return ""
}

// ledAgain is who leads two minutes after the preferred leader, which was killed, is in sync again.
func ledAgain(p *probe) string {
	p.startCluster("leader.imbalance.check.interval.seconds=60")
	p.place(1, 2, 1)
	p.nodes[1].Kill()
	p.ledBy(1)
	p.nodes[1].MustStart()
	p.inSync(2, time.Minute)
	time.Sleep(2 * time.Minute)
	return yes(p.described()[0].Leader == 2, "by the preferred", "by the other")
}

// passedOn is how the controller takes four requests that another node passes on to it while each of its decisions takes half a
// second to be written.
func passedOn(p *probe) string {
	p.startCluster()
	other := p.nodes[p.controller()%3]
	for _, n := range p.nodes {
		n.Fault(func(op disk.Op) error {
			if op.Kind == disk.OpSync && strings.Contains(op.Path, "__cluster_metadata") {
				time.Sleep(500 * time.Millisecond)
			}
			return nil
		})
	}
	began := time.Now()
	var asking sync.WaitGroup
	for i := range 4 {
		c := p.MustDial(fmt.Sprint("client", i), other)
		asking.Go(func() {
			if err := c.PlaceTopic(p.Context(), fmt.Sprint("t", i), 1, 1); err != nil {
				p.Errorf("create topic %d: %v", i, err)
			}
		})
	}
	asking.Wait()
	return yes(time.Since(began) > 2*time.Second, "one by one", "together")
}
