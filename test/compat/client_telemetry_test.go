//go:build compat

package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/client"
	ours "barnabas/client/admin"
	"barnabas/test/compat/rig"
)

const clientMetrics = "org.apache.kafka.tools.ClientMetricsCommand"

// told is a push as the plugin wrote it down.
type told struct {
	At          int64  `json:"at"` // Unix ms
	Instance    string `json:"instance"`
	ClientID    string `json:"client_id"`
	ContentType string `json:"content_type"`
	Terminating bool   `json:"terminating"`
	Metrics     []toldMetric
}

type toldMetric struct {
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	Temporality string            `json:"temporality"`
	Monotonic   bool              `json:"monotonic"`
	Value       any               `json:"value"` // a number, or "NaN" of Java's clients
	Start       int64             `json:"start"`
	Time        int64             `json:"time"`
	Labels      map[string]string `json:"labels"`
	Resource    map[string]string `json:"resource"`
}

// telemetryBroker is an Apache Kafka with the plugin, whose file gives what it was pushed.
type telemetryBroker struct {
	t    *testing.T
	addr string
	file string
}

func startTelemetryBroker(t *testing.T) *telemetryBroker {
	t.Helper()
	classes := rig.CompileJava(t, filepath.Join(rig.Root(), "test", "compat", "telemetry", "TelemetryFile.java"))
	file := filepath.Join(t.TempDir(), "pushed.jsonl")
	b := rig.StartKafkaWith(t, classes, "metric.reporters=TelemetryFile", "telemetry.file="+file, "group.initial.rebalance.delay.ms=0")
	return &telemetryBroker{t, b.Addr, file}
}

// subscribe sets the one subscription that there is, with Apache Kafka's tool.
func (b *telemetryBroker) subscribe(args ...string) {
	b.t.Helper()
	rig.Java(b.t, nil, clientMetrics, append([]string{"--bootstrap-server", b.addr, "--name", "all"}, args...)...)
}

// of gives what was pushed that a function wants.
func (b *telemetryBroker) of(want func(p *told) bool) (all []told) {
	b.t.Helper()
	text, err := os.ReadFile(b.file)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var p told
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			b.t.Fatalf("%v: %s", err, line)
		}
		if want(&p) {
			all = append(all, p)
		}
	}
	return all
}

func (b *telemetryBroker) from(id client.UUID) []told {
	b.t.Helper()
	return b.of(func(p *told) bool { return p.Instance == id.String() })
}

func (b *telemetryBroker) awaitPushes(what string, want func(p *told) bool, n int) {
	b.t.Helper()
	rig.Eventually(b.t, patience, what, func() bool { return len(b.of(want)) >= n })
}

// TestClientTelemetry has our client push its metrics to an Apache Kafka (KIP-714), and compares what arrives there with
// what was produced and consumed, and with what Java's clients push.
func TestClientTelemetry(t *testing.T) {
	t.Parallel()
	b := startTelemetryBroker(t)
	b.subscribe("--alter", "--metrics", "*", "--interval", "1000")
	createTopic(t, b.addr, "told", 3)
	java := b.javaNames()
	for _, protocol := range []client.Protocol{client.ClassicProtocol, client.ConsumerProtocol} {
		t.Run(string(protocol), func(t *testing.T) { (&telemetryBroker{t, b.addr, b.file}).tellsTheTruth(protocol, java) })
	}
	t.Run("subscription changes", func(t *testing.T) { (&telemetryBroker{t, b.addr, b.file}).followsChanges() })
	t.Run("switched off", func(t *testing.T) {
		c := ourClient(t, b.addr, client.ID("silent"), client.MetricsPush(false))
		if _, err := c.ClientInstanceID(within(t, patience)); !errors.Is(err, client.ErrMetricsPushOff) {
			t.Errorf("client instance id: %v", err)
		}
	})
	if n := len(b.of(func(p *told) bool { return p.ClientID == "silent" })); n > 0 {
		t.Errorf("%d pushes of a client that is not to push", n)
	}
}

// javaNames runs Java's producer and consumer, and gives the names of the metrics that they push.
func (b *telemetryBroker) javaNames() map[string]string {
	b.t.Helper()
	names := map[string]string{}
	for range 5 { // each lives for some intervals, but on a busy machine it may not be asked in time
		rig.Java(b.t, nil, perfProducer, "--bootstrap-server", b.addr, "--topic", "told", "--num-records", "40", "--record-size", "10",
			"--throughput", "10", "--command-property", "client.id=java")
		rig.Java(b.t, nil, consoleConsumer, "--bootstrap-server", b.addr, "--topic", "told", "--from-beginning", "--group", "java",
			"--timeout-ms", "5000", "--command-property", "client.id=java")
		for _, p := range b.of(func(p *told) bool { return p.ClientID == "java" }) {
			for _, m := range p.Metrics {
				names[m.Name] = m.Kind
			}
		}
		if names[requiredMetrics[0]] != "" && names[requiredMetrics[len(requiredMetrics)-1]] != "" {
			b.t.Logf("Java's clients push %d metrics", len(names))
			return names
		}
	}
	b.t.Fatalf("Java's clients push only %d metrics", len(names))
	return nil
}

const toldRecords = 500

// tellsTheTruth writes in transactions, reads in a group, and compares.
func (b *telemetryBroker) tellsTheTruth(protocol client.Protocol, java map[string]string) {
	t, ctx := b.t, within(b.t, patience)
	group := "tellers-" + string(protocol)
	topic := "told-" + string(protocol)
	createTopic(t, b.addr, topic, 3)
	began := time.Now()
	c := ourClient(t, b.addr, client.ID(group))
	id, err := c.ClientInstanceID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer(client.TransactionalID(group))
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.NewGroupConsumer(group, client.GroupProtocol(protocol), client.InstanceID("first"), client.Rack("cellar"),
		client.AutoOffsetReset(client.Earliest), client.IsolationLevel(client.ReadCommitted))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Subscribe(topic), p.InitTransactions(ctx), p.Begin()); err != nil {
		t.Fatal(err)
	}
	for n := range toldRecords {
		if err := p.Send(ctx, client.ProducerRecord{Topic: topic, Value: fmt.Appendf(nil, "record %d", n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for read := 0; read < toldRecords; {
		records, err := g.Poll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		read += len(records)
	}
	if err := g.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	member := g.Membership().MemberID
	b.awaitPushes("two pushes of a member", func(p *told) bool {
		return p.Instance == id.String() && slices.ContainsFunc(p.Metrics, func(m toldMetric) bool { return m.Resource["group_member_id"] == member })
	}, 2)
	b.awaitPushes("a push of a member that owns all", func(p *told) bool { // those before may be of one that still joined
		return p.Instance == id.String() && slices.ContainsFunc(p.Metrics, func(m toldMetric) bool {
			return m.Resource["group_member_id"] == member && strings.HasSuffix(m.Name, "coordinator.assigned.partitions") && m.Value == 3.0
		})
	}, 1)
	if err := errors.Join(p.Close(ctx), g.Close(ctx), c.Close()); err != nil {
		t.Fatal(err)
	}
	pushes := b.from(id)
	b.checkPushes(pushes, group, began)
	checkValues(t, pushes, group, member, java)
}

// checkPushes checks when was pushed and by whom.
func (b *telemetryBroker) checkPushes(pushes []told, clientID string, began time.Time) {
	t := b.t
	for i, p := range pushes {
		last := i == len(pushes)-1
		if p.ClientID != clientID || p.ContentType != "OTLP" || p.Terminating != last {
			t.Errorf("push %d of %d: client %q, content %q, terminating %v", i, len(pushes), p.ClientID, p.ContentType, p.Terminating)
		}
		// The broker refuses what comes sooner; its clock and ours are read at different moments.
		if i > 0 && !last && p.At-pushes[i-1].At < 900 {
			t.Errorf("push %d comes %d ms after the one before", i, p.At-pushes[i-1].At)
		}
		for _, m := range p.Metrics {
			if m.Time < began.UnixNano() || m.Time > p.At*1e6+1e6 || m.Kind == "sum" && (m.Start < began.UnixNano() || m.Start > m.Time) {
				t.Errorf("push %d: %s from %d to %d", i, m.Name, m.Start, m.Time)
			}
			if m.Kind == "sum" && (m.Temporality != "AGGREGATION_TEMPORALITY_DELTA" || !m.Monotonic) {
				t.Errorf("push %d: %s is %s, monotonic %v", i, m.Name, m.Temporality, m.Monotonic)
			}
		}
	}
}

// checkValues compares the metrics with what was done: deltas come to it, all required names are there, and Java's
// clients have every one of them, as the same kind.
func checkValues(t *testing.T, pushes []told, name, member string, java map[string]string) {
	const producer, consumer = "org.apache.kafka.producer.", "org.apache.kafka.consumer."
	sums, gauges, seen := map[string]float64{}, map[string][]float64{}, map[string]bool{}
	for _, p := range pushes {
		for _, m := range p.Metrics {
			v, ok := m.Value.(float64)
			if !ok {
				t.Errorf("%s is %v", m.Name, m.Value)
			}
			seen[m.Name] = true
			if m.Kind == "sum" {
				sums[m.Name] += v
			} else {
				gauges[m.Name] = append(gauges[m.Name], v)
			}
			checkLabels(t, m, name, member)
			if kind, known := java[m.Name]; !strings.HasPrefix(m.Name, "org.apache.kafka.admin.") && (!known || kind != m.Kind) {
				t.Errorf("Java's clients have %s as %q, we as %s", m.Name, kind, m.Kind)
			}
		}
	}
	for _, required := range requiredMetrics {
		if !seen[required] {
			t.Errorf("%s was not pushed", required)
		}
	}
	for what, want := range map[string]float64{
		producer + "record.send.total": toldRecords, producer + "record.error.total": 0,
		consumer + "fetch.manager.records.consumed.total": toldRecords,
	} {
		if sums[what] != want {
			t.Errorf("%s comes to %v, it was %v", what, sums[what], want)
		}
	}
	if bytes := sums[consumer+"fetch.manager.bytes.consumed.total"]; bytes < toldRecords*10 || bytes > toldRecords*40 {
		t.Errorf("%v bytes consumed", bytes)
	}
	for _, what := range []string{producer, consumer, "org.apache.kafka.admin.client."} {
		if n := sums[what+"connection.creation.total"]; n < 1 || n > 8 {
			t.Errorf("%s: %v connections", what, n)
		}
		if rate := slices.Max(gauges[what+"connection.creation.rate"]); rate <= 0 || rate > 8 {
			t.Errorf("%s: %v connections in a second", what, rate)
		}
	}
	if owned := gauges[consumer+"coordinator.assigned.partitions"]; slices.Max(owned) != 3 {
		t.Errorf("assigned partitions: %v", owned)
	}
	for what, values := range gauges {
		if name, isAverage := strings.CutSuffix(what, ".avg"); isAverage && what != consumer+"poll.idle.ratio.avg" {
			if longest := gauges[name+".max"]; slices.Max(values) > slices.Max(longest) || slices.Min(values) < 0 || slices.Max(longest) > 120_000 {
				t.Errorf("%s: averages %v ms, largest %v ms", name, values, longest)
			}
		}
	}
	if ratios := gauges[consumer+"poll.idle.ratio.avg"]; slices.Min(ratios) < 0 || slices.Max(ratios) > 1 {
		t.Errorf("idle ratios %v", ratios)
	}
	t.Logf("%d pushes, %d metrics: %v", len(pushes), len(seen), slices.Sorted(maps.Keys(seen)))
}

// checkLabels checks whose a metric is said to be.
func checkLabels(t *testing.T, m toldMetric, name, member string) {
	want := map[string]string{}
	switch {
	case strings.HasPrefix(m.Name, "org.apache.kafka.producer."):
		want["transactional_id"] = name
	case strings.HasPrefix(m.Name, "org.apache.kafka.consumer."):
		want["group_id"], want["group_instance_id"], want["client_rack"] = name, "first", "cellar"
		if _, joined := m.Resource["group_member_id"]; joined {
			want["group_member_id"] = member
		}
	}
	if !maps.Equal(m.Resource, want) {
		t.Errorf("%s is of %v, expected %v", m.Name, m.Resource, want)
	}
	node, byNode := m.Labels["node_id"]
	if byNode != strings.Contains(m.Name, ".node.request.") || byNode && node != "node-1" && node != "node--1" || len(m.Labels) > 1 {
		t.Errorf("%s has labels %v", m.Name, m.Labels)
	}
}

// requiredMetrics are those that KIP-714 names.
var requiredMetrics = []string{
	"org.apache.kafka.producer.connection.creation.rate", "org.apache.kafka.producer.connection.creation.total",
	"org.apache.kafka.producer.node.request.latency.avg", "org.apache.kafka.producer.node.request.latency.max",
	"org.apache.kafka.producer.produce.throttle.time.avg", "org.apache.kafka.producer.produce.throttle.time.max",
	"org.apache.kafka.producer.record.queue.time.avg", "org.apache.kafka.producer.record.queue.time.max",
	"org.apache.kafka.consumer.connection.creation.rate", "org.apache.kafka.consumer.connection.creation.total",
	"org.apache.kafka.consumer.node.request.latency.avg", "org.apache.kafka.consumer.node.request.latency.max",
	"org.apache.kafka.consumer.poll.idle.ratio.avg",
	"org.apache.kafka.consumer.coordinator.commit.latency.avg", "org.apache.kafka.consumer.coordinator.commit.latency.max",
	"org.apache.kafka.consumer.coordinator.assigned.partitions",
	"org.apache.kafka.consumer.coordinator.rebalance.latency.avg", "org.apache.kafka.consumer.coordinator.rebalance.latency.max",
	"org.apache.kafka.consumer.coordinator.rebalance.latency.total",
	"org.apache.kafka.consumer.fetch.manager.fetch.latency.avg", "org.apache.kafka.consumer.fetch.manager.fetch.latency.max",
}

// followsChanges changes the subscription while the client lives, and takes it away.
func (b *telemetryBroker) followsChanges() {
	t, ctx := b.t, within(b.t, patience)
	c := ourClient(t, b.addr, client.ID("follower"))
	id, err := c.ClientInstanceID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.awaitPushes("pushes every second", func(p *told) bool { return p.Instance == id.String() }, 2)
	b.subscribe("--alter", "--metrics", "org.apache.kafka.admin.client.connection.", "--interval", "300")
	narrowed := func(p *told) bool {
		return p.Instance == id.String() && len(p.Metrics) > 0 &&
			!slices.ContainsFunc(p.Metrics, func(m toldMetric) bool {
				return !strings.HasPrefix(m.Name, "org.apache.kafka.admin.client.connection.")
			})
	}
	b.awaitPushes("pushes of the new subscription", narrowed, 5)
	quick := b.of(narrowed)
	if took := quick[4].At - quick[1].At; took < 900-100 || took > 60_000 {
		t.Errorf("three intervals of 300 ms took %d ms", took)
	}
	if _, err := ours.New(c).DescribeCluster(ctx); err != nil { // it works on
		t.Error(err)
	}
	b.subscribe("--delete")
	if again, err := c.ClientInstanceID(ctx); err != nil || again != id {
		t.Errorf("client instance id %v, %v, it was %v", again, err, id)
	}
	c.Close()
	for _, p := range b.from(id) {
		if p.Instance != id.String() {
			t.Errorf("pushed as %s", p.Instance)
		}
	}
}

// TestClientTelemetryCodecs has Apache Kafka's classes read what is pushed with each codec. What packs it is internal to the
// client, and so is the test of it.
func TestClientTelemetryCodecs(t *testing.T) {
	rig.Run(t, nil, "env", "BARNABAS_SHARED="+rig.Shared(t), "go", "-C", rig.Root(), "test", "-tags", "compat", "-count=1", "-run", "ApacheKafka", "./client/internal/telemetry")
}

// TestNoClientTelemetry connects to a broker that asks for no metrics: ours, or an Apache Kafka without a plugin.
func TestNoClientTelemetry(t *testing.T) {
	addr := clientBroker(t)
	createTopic(t, addr, "untold", 1)
	c, ctx := ourClient(t, addr), within(t, patience)
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.SendSync(ctx, client.ProducerRecord{Topic: "untold", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ClientInstanceID(ctx); !errors.Is(err, client.ErrUnsupported) {
		t.Errorf("client instance id: %v", err)
	}
	at := time.Now()
	if err := errors.Join(p.Close(ctx), c.Close()); err != nil {
		t.Error(err)
	}
	t.Logf("%s: closed in %v", rig.System(), time.Since(at))
}
