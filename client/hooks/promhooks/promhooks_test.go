package promhooks_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/client/hooks"
	"barnabas/client/hooks/promhooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newHooks(t *testing.T, r *prometheus.Registry) hooks.Hooks {
	t.Helper()
	h, err := promhooks.New(r)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// gathered gives every value by name and labels, without the prefix; of histograms how often they
// were told of something.
func gathered(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := strings.TrimPrefix(f.GetName(), "barnabas_client_") + "{" + strings.Join(labels, ",") + "}"
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func expect(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if have, there := got[name]; !there || have != v {
			t.Errorf("%s is %v, expected %v", name, have, v)
		}
	}
	if t.Failed() {
		for _, name := range slices.Sorted(maps.Keys(got)) {
			t.Log(name, got[name])
		}
	}
}

// What a client did with a real broker is in the metrics, and they come to rest when it is closed.
func TestWhatAClientDoesIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	broker := barnabastest.Start(t)
	broker.CreateTopic("orders", 1)
	c := broker.Client(client.Hooks(newHooks(t, registry)))
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if err := p.Send(t.Context(), client.ProducerRecord{Topic: "orders", Value: fmt.Append(nil, n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	g, err := c.NewGroupConsumer("billing", client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe("orders"); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 10; {
		records, err := g.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n += len(records)
	}
	if err := g.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	during := gathered(t, registry)
	expect(t, during, map[string]float64{
		"written_records_total{outcome=ok,topic=orders}": 10,
		"read_records_total{topic=orders}":               10,
		"read_lag_records{partition=0,topic=orders}":     0,
		"assigned_partitions{group=billing}":             1,
		"rebalances_total{group=billing,what=assigned}":  1,
		"commits_total{group=billing,outcome=ok}":        1,
		"commit_seconds{}":                               1,
		"requests_total{api=OffsetCommit,outcome=ok}":    1,
		"request_seconds{api=OffsetCommit}":              1,
		"write_seconds{}":                                during["written_batches_total{outcome=ok,topic=orders}"],
		"written_bytes_total{topic=orders}":              during["read_bytes_total{topic=orders}"],
		"connect_seconds{}":                              during["connects_total{broker=1,outcome=ok}"] + during["connects_total{broker=seed,outcome=ok}"],
		"written_buffer_bytes_total{topic=orders}":       10 * 37,
	})
	if during["request_bytes_total{api=Produce}"] <= during["written_bytes_total{topic=orders}"] ||
		during["response_bytes_total{api=Fetch}"] <= during["read_bytes_total{topic=orders}"] {
		t.Errorf("requests are smaller than what is in them: %v", during)
	}
	if err := g.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	after := gathered(t, registry)
	expect(t, after, map[string]float64{
		"connections{broker=1}": 0, "connections{broker=seed}": 0, "requests_in_flight{}": 0, "assigned_partitions{group=billing}": 0,
	})
	if _, there := after["read_lag_records{partition=0,topic=orders}"]; there {
		t.Error("the lag of a partition that was given up is still shown")
	}
}

func TestWhatGoesWrongIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := newHooks(t, registry)
	at := hooks.Partition{Topic: "orders", Number: 3}
	h.Written(hooks.Written{Partition: at, Records: 5, Attempts: 3, Bytes: 100, Err: client.ErrNotEnoughReplicas})
	h.Connected(hooks.Connected{Broker: hooks.Broker{ID: -1}, Err: client.ErrNoBrokers})
	h.Sent(hooks.Sent{Request: hooks.Request{Key: 0}, Bytes: 100, OneWay: true})
	h.Sent(hooks.Sent{Request: hooks.Request{Key: 1}, Bytes: 100})
	h.Answered(hooks.Answered{Request: hooks.Request{Key: 1}, Throttled: 250 * time.Millisecond, Err: client.ErrNetwork})
	h.Waited(hooks.Waited{Took: time.Second})
	h.Committed(hooks.Committed{Group: "billing", Err: client.ErrRebalanceInProgress})
	expect(t, gathered(t, registry), map[string]float64{
		"written_records_total{outcome=failed,topic=orders}": 5,
		"written_again_total{topic=orders}":                  2,
		"connects_total{broker=seed,outcome=failed}":         1,
		"requests_total{api=Produce,outcome=ok}":             1,
		"requests_total{api=Fetch,outcome=failed}":           1,
		"requests_in_flight{}":                               0,
		"throttled_seconds_total{api=Fetch}":                 0.25,
		"buffer_wait_seconds{}":                              1,
		"commits_total{group=billing,outcome=failed}":        1,
	})
}

// Clients that share a registry share the metrics.
func TestClientsShareARegistry(t *testing.T) {
	registry := prometheus.NewRegistry()
	for range 3 {
		newHooks(t, registry).Written(hooks.Written{Partition: hooks.Partition{Topic: "orders"}, Records: 2})
	}
	expect(t, gathered(t, registry), map[string]float64{"written_records_total{outcome=ok,topic=orders}": 6})

	foreign := prometheus.NewRegistry()
	foreign.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "barnabas_client_connections", Help: "Somebody else's."}))
	if _, err := promhooks.New(foreign); err == nil {
		t.Error("a name that something else has was taken")
	}
}
