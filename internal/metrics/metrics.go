// Package metrics is where the parts of a node count what they do, and where that is read. A
// Registry belongs to one node; it hands out counters, gauges and histograms, each under a fixed
// name and set of label names, and writes them all in Prometheus' text format.
//
// A value with labels is looked up once (With) and kept by whoever counts: the hot paths touch
// atomics only. What exists once per partition is not kept here at all: a Collect function reads
// it when somebody asks. Which values a node counts is decided by its parts, not here; names are
// prefixed with "barnabas_".
package metrics

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const prefix = "barnabas_"

// Registry holds the metrics of one node. Its methods are safe for concurrent use. Asking for a
// name again gives the same metric; asking for it with other labels or another kind panics, which
// is a programmer's error. A nil *Registry is usable: its metrics count and are never shown.
type Registry struct {
	prom *prometheus.Registry
	mu   struct {
		sync.Mutex
		known map[string]any
	}
}

// New makes a Registry that also shows the Go runtime's and the process's own metrics.
func New() *Registry {
	r := &Registry{prom: prometheus.NewRegistry()}
	r.mu.known = map[string]any{}
	r.prom.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// Counter is a number that only grows.
type Counter struct{ c prometheus.Counter }

// Add adds n, which must not be negative.
func (c Counter) Add(n int64) { c.c.Add(float64(n)) }

// Inc adds one.
func (c Counter) Inc() { c.c.Inc() }

// Gauge is a number that goes up and down.
type Gauge struct{ g prometheus.Gauge }

// Set replaces the value.
func (g Gauge) Set(v float64) { g.g.Set(v) }

// Add adds d, which may be negative.
func (g Gauge) Add(d float64) { g.g.Add(d) }

// Histogram counts observations in buckets.
type Histogram struct{ h prometheus.Observer }

// Observe counts v, in the unit that the metric's name ends in.
func (h Histogram) Observe(v float64) { h.h.Observe(v) }

// Counters are counters that differ in the values of their labels.
type Counters struct{ v *prometheus.CounterVec }

// With gives the counter for these values, one per label name. Keep it: the lookup is not free.
func (c Counters) With(values ...string) Counter { return Counter{c.v.WithLabelValues(values...)} }

// Gauges are gauges that differ in the values of their labels.
type Gauges struct{ v *prometheus.GaugeVec }

// With gives the gauge for these values, one per label name. Keep it: the lookup is not free.
func (g Gauges) With(values ...string) Gauge { return Gauge{g.v.WithLabelValues(values...)} }

// Forget removes the gauge for these values.
func (g Gauges) Forget(values ...string) { g.v.DeleteLabelValues(values...) }

// Histograms are histograms that differ in the values of their labels.
type Histograms struct{ v *prometheus.HistogramVec }

// With gives the histogram for these values, one per label name. Keep it: the lookup is not free.
func (h Histograms) With(values ...string) Histogram {
	return Histogram{h.v.WithLabelValues(values...)}
}

// Counter makes or finds a counter. By convention its name ends in _total.
func (r *Registry) Counter(name, help string) Counter {
	return keep(r, name, nil, func() (Counter, prometheus.Collector) {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
		return Counter{c}, c
	})
}

// Counters makes or finds counters with the given label names.
func (r *Registry) Counters(name, help string, labels ...string) Counters {
	return keep(r, name, labels, func() (Counters, prometheus.Collector) {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
		return Counters{v}, v
	})
}

// Gauge makes or finds a gauge.
func (r *Registry) Gauge(name, help string) Gauge {
	return keep(r, name, nil, func() (Gauge, prometheus.Collector) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
		return Gauge{g}, g
	})
}

// Gauges makes or finds gauges with the given label names.
func (r *Registry) Gauges(name, help string, labels ...string) Gauges {
	return keep(r, name, labels, func() (Gauges, prometheus.Collector) {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
		return Gauges{v}, v
	})
}

// Histogram makes or finds a histogram with these upper bounds of its buckets, ascending.
func (r *Registry) Histogram(name, help string, bounds []float64) Histogram {
	return keep(r, name, nil, func() (Histogram, prometheus.Collector) {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: bounds})
		return Histogram{h}, h
	})
}

// Histograms makes or finds histograms with these upper bounds and label names.
func (r *Registry) Histograms(name, help string, bounds []float64, labels ...string) Histograms {
	return keep(r, name, labels, func() (Histograms, prometheus.Collector) {
		v := prometheus.NewHistogramVec(
			prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: bounds}, labels)
		return Histograms{v}, v
	})
}

// Seconds are bounds for times from 50 microseconds to 30 seconds.
func Seconds() []float64 {
	return []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
}

// Kind says whether a collected value only grows.
type Kind int

// The kinds of collected values.
const (
	Grows  Kind = iota // a counter
	Varies             // a gauge
)

// Collect registers a function that gives the values of a metric whenever it is read, one call of
// emit for each combination of label values, and not two for the same. It is for what is counted
// elsewhere anyway, such as per partition; it runs on the reader's goroutine and must be safe to
// run several times at once.
func (r *Registry) Collect(name, help string, kind Kind, labels []string, read func(emit func(value float64, labelValues ...string))) {
	if r == nil {
		return
	}
	valueType := prometheus.GaugeValue
	if kind == Grows {
		valueType = prometheus.CounterValue
	}
	r.prom.MustRegister(&collector{
		desc: prometheus.NewDesc(prefix+name, help, labels, nil), kind: valueType, read: read,
	})
}

type collector struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(func(float64, ...string))
}

func (c *collector) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c *collector) Collect(to chan<- prometheus.Metric) {
	c.read(func(value float64, labels ...string) {
		m, err := prometheus.NewConstMetric(c.desc, c.kind, value, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(c.desc, err)
		}
		to <- m
	})
}

// Handler serves every metric in Prometheus' text format.
func (r *Registry) Handler() http.Handler {
	if r == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(r.prom, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Value reads one counter or gauge (or the number of observations of a histogram) by its name
// without prefix and its label values in the order of the label names sorted, and tells whether
// it exists. It is for tests and status pages: it gathers everything.
func (r *Registry) Value(name string, labelValues ...string) (float64, bool) {
	if r == nil {
		return 0, false
	}
	families, err := r.prom.Gather()
	if err != nil && families == nil {
		return 0, false
	}
	for _, f := range families {
		if f.GetName() != prefix+name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) != len(labelValues) {
				continue
			}
			for i, l := range m.GetLabel() {
				if l.GetValue() != labelValues[i] {
					continue metrics
				}
			}
			switch {
			case m.Counter != nil:
				return m.Counter.GetValue(), true
			case m.Gauge != nil:
				return m.Gauge.GetValue(), true
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount()), true
			}
		}
	}
	return 0, false
}

// keep gives the metric that is known under name, or makes and registers one.
func keep[M any](r *Registry, name string, labels []string, create func() (M, prometheus.Collector)) M {
	if r == nil {
		m, _ := create()
		return m
	}
	key := fmt.Sprint(name, labels)
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.mu.known[key]; ok {
		return known.(M)
	}
	m, c := create()
	r.prom.MustRegister(c)
	r.mu.known[key] = m
	return m
}
