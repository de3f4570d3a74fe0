package otelhooks_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/client/hooks"
	"barnabas/client/hooks/otelhooks"
)

// collected gives every value by name and attributes: sums and gauges as they are, of histograms
// how often they were told of something.
func collected(t *testing.T, from *metric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := from.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	note := func(name string, a attribute.Set, v float64) {
		out[name+"{"+a.Encoded(attribute.DefaultEncoder())+"}"] = v
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Histogram[int64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Count))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Count))
				}
			default:
				t.Fatalf("%s is a %T", m.Name, data)
			}
		}
	}
	return out
}

func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if have, there := got[name]; !there || have != v {
			t.Errorf("%s is %v, expected %v", name, have, v)
		}
	}
	if t.Failed() {
		for name, v := range got {
			t.Log(name, v)
		}
	}
}

// What a client did with a real broker is in the metrics.
func TestWhatAClientDoesIsMeasured(t *testing.T) {
	reader := metric.NewManualReader()
	h, err := otelhooks.New(metric.NewMeterProvider(metric.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	broker := barnabastest.Start(t)
	broker.CreateTopic("orders", 1)
	c := broker.Client(client.Hooks(h))
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
	during := collected(t, reader)
	expect(t, during, map[string]float64{
		"messaging.client.sent.messages{messaging.destination.name=orders,messaging.operation.name=send,messaging.system=kafka}":            10,
		"messaging.client.consumed.messages{messaging.destination.name=orders,messaging.operation.name=poll,messaging.system=kafka}":        10,
		"messaging.client.operation.duration{messaging.consumer.group.name=billing,messaging.operation.name=commit,messaging.system=kafka}": 1,
		"barnabas.client.consumer.lag{messaging.destination.name=orders,messaging.destination.partition.id=0}":                              0,
		"barnabas.client.assigned_partitions{messaging.consumer.group.name=billing}":                                                        1,
		"barnabas.client.rebalance.duration{messaging.consumer.group.name=billing,messaging.kafka.rebalance=assigned}":                      1,
		"barnabas.client.request.duration{messaging.kafka.api=OffsetCommit}":                                                                1,
		"barnabas.client.request.size{messaging.kafka.api=OffsetCommit}":                                                                    1,
		"barnabas.client.response.size{messaging.kafka.api=OffsetCommit}":                                                                   1,
	})
	if during["barnabas.client.connections{server.address=broker,server.port=9092}"] == 0 {
		t.Error("no connection is open")
	}
	if err := g.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	expect(t, collected(t, reader), map[string]float64{
		"barnabas.client.connections{server.address=broker,server.port=9092}":        0,
		"barnabas.client.requests.in_flight{}":                                       0,
		"barnabas.client.assigned_partitions{messaging.consumer.group.name=billing}": 0,
	})
}

// Errors have Kafka's names, and a broker that throttles and a Send that waits are seen.
func TestWhatGoesWrongIsMeasured(t *testing.T) {
	reader := metric.NewManualReader()
	h, err := otelhooks.New(metric.NewMeterProvider(metric.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	at := hooks.Partition{Topic: "orders", Number: 3}
	h.Written(hooks.Written{Partition: at, Records: 5, Attempts: 3, Err: fmt.Errorf("orders-3: %w", client.ErrNotEnoughReplicas)})
	h.Written(hooks.Written{Partition: at, Records: 2, Attempts: 1, Err: errors.New("closed")})
	h.Connected(hooks.Connected{Broker: hooks.Broker{ID: 1, Address: "nowhere"}, Err: errors.New("refused")})
	h.Sent(hooks.Sent{Request: hooks.Request{Key: 0}, Bytes: 100, OneWay: true})
	h.Answered(hooks.Answered{Request: hooks.Request{Key: 1}, Throttled: time.Second})
	h.Waited(hooks.Waited{Took: time.Second})
	h.Committed(hooks.Committed{Group: "billing", Err: client.ErrRebalanceInProgress})
	expect(t, collected(t, reader), map[string]float64{
		"messaging.client.sent.messages{error.type=NOT_ENOUGH_REPLICAS,messaging.destination.name=orders,messaging.operation.name=send,messaging.system=kafka}":              5,
		"messaging.client.sent.messages{error.type=_OTHER,messaging.destination.name=orders,messaging.operation.name=send,messaging.system=kafka}":                           2,
		"barnabas.client.sent.again{messaging.destination.name=orders}":                                                                                                      2,
		"barnabas.client.connect.duration{error.type=_OTHER,server.address=nowhere}":                                                                                         1,
		"barnabas.client.request.size{messaging.kafka.api=Produce}":                                                                                                          1,
		"barnabas.client.throttle.duration{messaging.kafka.api=Fetch}":                                                                                                       1,
		"barnabas.client.buffer_wait.duration{}":                                                                                                                             1,
		"messaging.client.operation.duration{error.type=REBALANCE_IN_PROGRESS,messaging.consumer.group.name=billing,messaging.operation.name=commit,messaging.system=kafka}": 1,
	})
}

func TestNothingIsMeasuredForNobody(t *testing.T) {
	h, err := otelhooks.New(noop.NewMeterProvider())
	if err != nil {
		t.Fatal(err)
	}
	h.Written(hooks.Written{})
}
