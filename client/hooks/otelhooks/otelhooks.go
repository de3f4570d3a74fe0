// Package otelhooks makes OpenTelemetry metrics of what a client does.
//
//	h, err := otelhooks.New(otel.GetMeterProvider())
//	c, err := client.New(client.Hooks(h))
//
// Where OpenTelemetry's conventions for messaging have a name it is used, with the attributes
// messaging.system (kafka), messaging.operation.name, messaging.destination.name,
// messaging.consumer.group.name and error.type:
//
//	messaging.client.sent.messages       records of batches that are done with
//	messaging.client.consumed.messages   records fetched
//	messaging.client.operation.duration  "send": from the Send of a batch's first record to its end; "commit"
//
// What they have no name for begins with barnabas.client:
//
//	barnabas.client.connections          by server.address and server.port: open now
//	barnabas.client.connect.duration     how long connecting took; error.type where it failed
//	barnabas.client.requests.in_flight   sent and not answered
//	barnabas.client.request.duration     by api: from a request to its answer; error.type where there is none
//	barnabas.client.request.size         by api
//	barnabas.client.response.size        by api
//	barnabas.client.throttle.duration    by api: for how long a broker wanted to be left alone
//	barnabas.client.sent.size            by topic: bytes of batches as they were sent
//	barnabas.client.sent.again           by topic: further attempts to send a batch
//	barnabas.client.buffer_wait.duration how long Send waited for buffer.memory
//	barnabas.client.consumed.size        by topic: bytes fetched as they were sent
//	barnabas.client.consumer.lag         by topic and partition: from what was fetched last to the end
//	barnabas.client.rebalance.duration   by group and what: how long the program's callbacks took
//	barnabas.client.assigned_partitions  by group: now
//
// It decides names and attributes; it refuses to know where they go. Nothing is counted for each
// record.
package otelhooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"barnabas/client"
	"barnabas/client/hooks"
)

// scope is what the metrics are said to come from.
const scope = "barnabas/client"

type instruments struct {
	sent     metric.Int64Counter
	consumed metric.Int64Counter
	duration metric.Float64Histogram

	connections metric.Int64UpDownCounter
	connect     metric.Float64Histogram

	inFlight     metric.Int64UpDownCounter
	request      metric.Float64Histogram
	requestSize  metric.Int64Histogram
	responseSize metric.Int64Histogram
	throttle     metric.Float64Histogram

	sentSize  metric.Int64Counter
	sentAgain metric.Int64Counter
	wait      metric.Float64Histogram

	consumedSize metric.Int64Counter
	lag          metric.Int64Gauge

	rebalance metric.Float64Histogram
	assigned  metric.Int64UpDownCounter
}

// New makes the instruments and gives the hooks that record with them. Errors: those of the
// provider, where it refuses an instrument.
func New(provider metric.MeterProvider) (hooks.Hooks, error) {
	m := &making{meter: provider.Meter(scope)}
	i := &instruments{
		sent:     m.counter("messaging.client.sent.messages", "{message}", "Records of batches that are done with."),
		consumed: m.counter("messaging.client.consumed.messages", "{message}", "Records fetched."),
		duration: m.seconds("messaging.client.operation.duration", "From the Send of a batch's first record to its end; a commit of offsets."),

		connections: m.upDown("barnabas.client.connections", "{connection}", "Connections that are open."),
		connect:     m.seconds("barnabas.client.connect.duration", "How long connecting to a broker took."),

		inFlight:     m.upDown("barnabas.client.requests.in_flight", "{request}", "Requests that were sent and not answered."),
		request:      m.seconds("barnabas.client.request.duration", "From a request to its answer."),
		requestSize:  m.bytes("barnabas.client.request.size", "Size of requests."),
		responseSize: m.bytes("barnabas.client.response.size", "Size of answers."),
		throttle:     m.seconds("barnabas.client.throttle.duration", "For how long a broker wanted to be left alone."),

		sentSize:  m.counter("barnabas.client.sent.size", "By", "Bytes of batches as they were sent."),
		sentAgain: m.counter("barnabas.client.sent.again", "{batch}", "Further attempts to send a batch."),
		wait:      m.seconds("barnabas.client.buffer_wait.duration", "How long Send waited for buffer.memory."),

		consumedSize: m.counter("barnabas.client.consumed.size", "By", "Bytes fetched as they were sent."),
		lag:          m.gauge("barnabas.client.consumer.lag", "{message}", "From what was fetched last to the end."),

		rebalance: m.seconds("barnabas.client.rebalance.duration", "How long the program's callbacks took."),
		assigned:  m.upDown("barnabas.client.assigned_partitions", "{partition}", "Partitions that a member of a group reads."),
	}
	if err := errors.Join(m.failed...); err != nil {
		return hooks.Hooks{}, fmt.Errorf("make the metrics of a client: %w", err)
	}
	return hooks.Hooks{
		Connected: i.connected, Disconnected: i.disconnected, Sent: i.requested, Answered: i.answered,
		Written: i.written, Waited: i.waited, Read: i.read, Rebalanced: i.rebalanced, Committed: i.committed,
	}, nil
}

// No span belongs to what a client does on its own goroutines.
var background = context.Background()

// The conventions' attributes.
var system = attribute.String("messaging.system", "kafka")

func operation(name string) attribute.KeyValue {
	return attribute.String("messaging.operation.name", name)
}
func topic(p hooks.Partition) attribute.KeyValue {
	return attribute.String("messaging.destination.name", p.Topic)
}
func partition(p hooks.Partition) attribute.KeyValue {
	return attribute.String("messaging.destination.partition.id", strconv.Itoa(int(p.Number)))
}
func group(name string) attribute.KeyValue {
	return attribute.String("messaging.consumer.group.name", name)
}
func api(r hooks.Request) attribute.KeyValue { return attribute.String("messaging.kafka.api", r.API()) }

// with gives attributes as an option, and error.type where there is an error: Kafka's name for it,
// or "_OTHER" as the conventions want.
func with(err error, attributes ...attribute.KeyValue) metric.MeasurementOption {
	if err != nil {
		kind := "_OTHER"
		if code, ok := errors.AsType[client.Error](err); ok {
			kind = code.Name()
		}
		attributes = append(attributes, attribute.String("error.type", kind))
	}
	return metric.WithAttributes(attributes...)
}

func server(b hooks.Broker) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(b.Address)
	if err != nil {
		return []attribute.KeyValue{attribute.String("server.address", b.Address)}
	}
	n, _ := strconv.Atoi(port)
	return []attribute.KeyValue{attribute.String("server.address", host), attribute.Int("server.port", n)}
}

func (i *instruments) connected(c hooks.Connected) {
	if c.Err == nil {
		i.connections.Add(background, 1, with(nil, server(c.Broker)...))
	}
	i.connect.Record(background, c.Took.Seconds(), with(c.Err, server(c.Broker)...))
}

func (i *instruments) disconnected(d hooks.Disconnected) {
	i.connections.Add(background, -1, with(nil, server(d.Broker)...))
}

func (i *instruments) requested(s hooks.Sent) {
	i.requestSize.Record(background, int64(s.Bytes), with(nil, api(s.Request)))
	if !s.OneWay {
		i.inFlight.Add(background, 1)
	}
}

func (i *instruments) answered(a hooks.Answered) {
	i.inFlight.Add(background, -1)
	i.request.Record(background, a.Took.Seconds(), with(a.Err, api(a.Request)))
	if a.Err != nil {
		return
	}
	i.responseSize.Record(background, int64(a.ResponseBytes), with(nil, api(a.Request)))
	if a.Throttled > 0 {
		i.throttle.Record(background, a.Throttled.Seconds(), with(nil, api(a.Request)))
	}
}

func (i *instruments) written(w hooks.Written) {
	where := topic(w.Partition)
	i.sent.Add(background, int64(w.Records), with(w.Err, system, operation("send"), where))
	i.duration.Record(background, w.Took.Seconds(), with(w.Err, system, operation("send"), where))
	if w.Attempts > 1 {
		i.sentAgain.Add(background, int64(w.Attempts-1), with(nil, where))
	}
	if w.Err == nil {
		i.sentSize.Add(background, int64(w.Bytes), with(nil, where))
	}
}

func (i *instruments) waited(w hooks.Waited) {
	i.wait.Record(background, w.Took.Seconds(), with(w.Err))
}

func (i *instruments) read(r hooks.Read) {
	where := topic(r.Partition)
	i.consumed.Add(background, int64(r.Records), with(nil, system, operation("poll"), where))
	i.consumedSize.Add(background, int64(r.Bytes), with(nil, where))
	if r.Lag >= 0 {
		i.lag.Record(background, r.Lag, with(nil, where, partition(r.Partition)))
	}
}

func (i *instruments) rebalanced(r hooks.Rebalanced) {
	i.rebalance.Record(background, r.Took.Seconds(), with(nil, group(r.Group), attribute.String("messaging.kafka.rebalance", string(r.What))))
	n := int64(len(r.Partitions))
	if r.What != hooks.Assigned {
		n = -n
	}
	i.assigned.Add(background, n, with(nil, group(r.Group)))
}

func (i *instruments) committed(c hooks.Committed) {
	i.duration.Record(background, c.Took.Seconds(), with(c.Err, system, operation("commit"), group(c.Group)))
}
