package promhooks

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "barnabas_client_"

// bounds are the upper ends of the buckets of times, in seconds: from a request that an idle broker
// answers to one that waits for request.timeout.ms.
var bounds = []float64{100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// registering makes metrics, or finds those that an earlier client has made.
type registering struct {
	to     prometheus.Registerer
	failed []error
}

func register[C prometheus.Collector](r *registering, made C) C {
	err := r.to.Register(made)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := there.ExistingCollector.(C); ok {
			return same
		}
	}
	if err != nil {
		r.failed = append(r.failed, err)
	}
	return made
}

func (r *registering) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels))
}

func (r *registering) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels))
}

func (r *registering) gauge(name, help string) prometheus.Gauge {
	return register(r, prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help}))
}

func (r *registering) seconds(name, help string) prometheus.Histogram {
	return register(r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: bounds}))
}

func (r *registering) secondsBy(name, help string, labels ...string) *prometheus.HistogramVec {
	return register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: bounds}, labels))
}
