// Package promhooks makes Prometheus metrics of what a client does.
//
//	h, err := promhooks.New(prometheus.DefaultRegisterer)
//	c, err := client.New(client.Hooks(h))
//
// Each begins with barnabas_client_:
//
//	connections                     by broker ("seed" while its number is not known): open now
//	connects_total                  by broker and outcome ("ok", "failed")
//	connect_seconds                 how long connecting took
//	requests_total                  by api and outcome
//	requests_in_flight              sent and not answered
//	request_seconds                 by api: from a request to its answer
//	request_bytes_total             by api
//	response_bytes_total            by api
//	throttled_seconds_total         by api: for how long brokers wanted to be left alone
//	written_records_total           by topic and outcome
//	written_batches_total           by topic and outcome
//	written_bytes_total             by topic: as they were sent
//	written_buffer_bytes_total      by topic: of buffer.memory, so about before compression
//	written_again_total             by topic: further attempts to send a batch
//	write_seconds                   from the Send of a batch's first record to its end
//	buffer_wait_seconds             how long Send waited for buffer.memory
//	read_records_total              by topic
//	read_bytes_total                by topic: as they were sent
//	read_lag_records                by topic and partition: from what was fetched last to the end
//	rebalances_total                by group and what ("assigned", "revoked", "lost")
//	rebalance_seconds               by what: how long the program's callbacks took
//	assigned_partitions             by group: now
//	commits_total                   by group and outcome
//	commit_seconds                  how long a commit took
//
// It decides names and labels; it refuses to know how they are shown. Nothing is counted for each
// record: what a batch costs is a few atomic operations.
package promhooks

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"barnabas/client/hooks"
)

// metrics are those of the package's comment, in its order.
type metrics struct {
	connections    *prometheus.GaugeVec
	connects       *prometheus.CounterVec
	connectSeconds prometheus.Histogram

	requests       *prometheus.CounterVec
	inFlight       prometheus.Gauge
	requestSeconds *prometheus.HistogramVec
	requestBytes   *prometheus.CounterVec
	responseBytes  *prometheus.CounterVec
	throttled      *prometheus.CounterVec

	writtenRecords *prometheus.CounterVec
	writtenBatches *prometheus.CounterVec
	writtenBytes   *prometheus.CounterVec
	writtenBuffer  *prometheus.CounterVec
	writtenAgain   *prometheus.CounterVec
	writeSeconds   prometheus.Histogram
	bufferWait     prometheus.Histogram

	readRecords *prometheus.CounterVec
	readBytes   *prometheus.CounterVec
	lag         *prometheus.GaugeVec

	rebalances       *prometheus.CounterVec
	rebalanceSeconds *prometheus.HistogramVec
	assigned         *prometheus.GaugeVec
	commits          *prometheus.CounterVec
	commitSeconds    prometheus.Histogram
}

// New registers the metrics and gives the hooks that count into them. Several clients may share a
// registry: asked again, New gives hooks for the metrics that are there. Errors: those of Register,
// where something else has one of the names.
func New(r prometheus.Registerer) (hooks.Hooks, error) {
	reg := &registering{to: r}
	m := &metrics{
		connections:    reg.gauges("connections", "Connections that are open, by broker.", "broker"),
		connects:       reg.counters("connects_total", "Attempts to connect, by broker and outcome.", "broker", "outcome"),
		connectSeconds: reg.seconds("connect_seconds", "How long connecting to a broker took."),

		requests:       reg.counters("requests_total", "Requests, by api and outcome.", "api", "outcome"),
		inFlight:       reg.gauge("requests_in_flight", "Requests that were sent and not answered."),
		requestSeconds: reg.secondsBy("request_seconds", "From a request to its answer, by api.", "api"),
		requestBytes:   reg.counters("request_bytes_total", "Bytes of requests, by api.", "api"),
		responseBytes:  reg.counters("response_bytes_total", "Bytes of answers, by api.", "api"),
		throttled:      reg.counters("throttled_seconds_total", "For how long brokers wanted to be left alone, by api.", "api"),

		writtenRecords: reg.counters("written_records_total", "Records produced, by topic and outcome.", "topic", "outcome"),
		writtenBatches: reg.counters("written_batches_total", "Batches produced, by topic and outcome.", "topic", "outcome"),
		writtenBytes:   reg.counters("written_bytes_total", "Bytes of batches as they were sent, by topic.", "topic"),
		writtenBuffer:  reg.counters("written_buffer_bytes_total", "Bytes of buffer.memory that batches took, by topic.", "topic"),
		writtenAgain:   reg.counters("written_again_total", "Further attempts to send a batch, by topic.", "topic"),
		writeSeconds:   reg.seconds("write_seconds", "From the Send of a batch's first record to its end."),
		bufferWait:     reg.seconds("buffer_wait_seconds", "How long Send waited for buffer.memory."),

		readRecords: reg.counters("read_records_total", "Records fetched, by topic.", "topic"),
		readBytes:   reg.counters("read_bytes_total", "Bytes fetched as they were sent, by topic.", "topic"),
		lag:         reg.gauges("read_lag_records", "From what was fetched last to the end, by topic and partition.", "topic", "partition"),

		rebalances:       reg.counters("rebalances_total", "Changes of what a member reads, by group and what.", "group", "what"),
		rebalanceSeconds: reg.secondsBy("rebalance_seconds", "How long the program's callbacks took, by what.", "what"),
		assigned:         reg.gauges("assigned_partitions", "Partitions that a member reads, by group.", "group"),
		commits:          reg.counters("commits_total", "Commits of offsets, by group and outcome.", "group", "outcome"),
		commitSeconds:    reg.seconds("commit_seconds", "How long a commit of offsets took."),
	}
	if err := errors.Join(reg.failed...); err != nil {
		return hooks.Hooks{}, fmt.Errorf("register the metrics of a client: %w", err)
	}
	return hooks.Hooks{
		Connected: m.connected, Disconnected: m.disconnected, Sent: m.sent, Answered: m.answered,
		Written: m.written, Waited: m.waited, Read: m.read, Rebalanced: m.rebalanced, Committed: m.committed,
	}, nil
}

func brokerLabel(b hooks.Broker) string {
	if b.ID < 0 {
		return "seed"
	}
	return strconv.Itoa(int(b.ID))
}

func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

func (m *metrics) connected(c hooks.Connected) {
	broker := brokerLabel(c.Broker)
	m.connects.WithLabelValues(broker, outcome(c.Err)).Inc()
	if c.Err == nil {
		m.connections.WithLabelValues(broker).Inc()
		m.connectSeconds.Observe(c.Took.Seconds())
	}
}

func (m *metrics) disconnected(d hooks.Disconnected) {
	m.connections.WithLabelValues(brokerLabel(d.Broker)).Dec()
}

func (m *metrics) sent(s hooks.Sent) {
	api := s.API()
	m.requestBytes.WithLabelValues(api).Add(float64(s.Bytes))
	if s.OneWay {
		m.requests.WithLabelValues(api, outcome(nil)).Inc()
		return
	}
	m.inFlight.Inc()
}

func (m *metrics) answered(a hooks.Answered) {
	api := a.API()
	m.inFlight.Dec()
	m.requests.WithLabelValues(api, outcome(a.Err)).Inc()
	m.responseBytes.WithLabelValues(api).Add(float64(a.ResponseBytes))
	if a.Err == nil {
		m.requestSeconds.WithLabelValues(api).Observe(a.Took.Seconds())
	}
	if a.Throttled > 0 {
		m.throttled.WithLabelValues(api).Add(a.Throttled.Seconds())
	}
}

func (m *metrics) written(w hooks.Written) {
	became := outcome(w.Err)
	m.writtenRecords.WithLabelValues(w.Topic, became).Add(float64(w.Records))
	m.writtenBatches.WithLabelValues(w.Topic, became).Inc()
	if w.Attempts > 1 {
		m.writtenAgain.WithLabelValues(w.Topic).Add(float64(w.Attempts - 1))
	}
	m.writeSeconds.Observe(w.Took.Seconds())
	if w.Err == nil {
		m.writtenBytes.WithLabelValues(w.Topic).Add(float64(w.Bytes))
		m.writtenBuffer.WithLabelValues(w.Topic).Add(float64(w.Memory))
	}
}

func (m *metrics) waited(w hooks.Waited) { m.bufferWait.Observe(w.Took.Seconds()) }

func (m *metrics) read(r hooks.Read) {
	m.readRecords.WithLabelValues(r.Topic).Add(float64(r.Records))
	m.readBytes.WithLabelValues(r.Topic).Add(float64(r.Bytes))
	if r.Lag >= 0 {
		m.lag.WithLabelValues(r.Topic, strconv.Itoa(int(r.Number))).Set(float64(r.Lag))
	}
}

func (m *metrics) rebalanced(r hooks.Rebalanced) {
	m.rebalances.WithLabelValues(r.Group, string(r.What)).Inc()
	m.rebalanceSeconds.WithLabelValues(string(r.What)).Observe(r.Took.Seconds())
	n := float64(len(r.Partitions))
	if r.What != hooks.Assigned {
		n = -n
		for _, p := range r.Partitions { // how far behind it is somebody else shows from now on
			m.lag.DeleteLabelValues(p.Topic, strconv.Itoa(int(p.Number)))
		}
	}
	m.assigned.WithLabelValues(r.Group).Add(n)
}

func (m *metrics) committed(c hooks.Committed) {
	m.commits.WithLabelValues(c.Group, outcome(c.Err)).Inc()
	m.commitSeconds.Observe(c.Took.Seconds())
}
