package otelhooks

import "go.opentelemetry.io/otel/metric"

// bounds are the upper ends of the buckets of times, in seconds: from a request that an idle broker
// answers to one that waits for request.timeout.ms. The conventions' own begin at 5 ms.
var bounds = []float64{100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// sizes are those of sizes in bytes: from a heartbeat to max.request.size and beyond.
var sizes = []float64{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}

// making makes instruments and keeps what goes wrong.
type making struct {
	meter  metric.Meter
	failed []error
}

func kept[I any](m *making, made I, err error) I {
	if err != nil {
		m.failed = append(m.failed, err)
	}
	return made
}

func (m *making) counter(name, unit, what string) metric.Int64Counter {
	made, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
	return kept(m, made, err)
}

func (m *making) upDown(name, unit, what string) metric.Int64UpDownCounter {
	made, err := m.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	return kept(m, made, err)
}

func (m *making) gauge(name, unit, what string) metric.Int64Gauge {
	made, err := m.meter.Int64Gauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	return kept(m, made, err)
}

func (m *making) seconds(name, what string) metric.Float64Histogram {
	made, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bounds...))
	return kept(m, made, err)
}

func (m *making) bytes(name, what string) metric.Int64Histogram {
	made, err := m.meter.Int64Histogram(name, metric.WithUnit("By"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(sizes...))
	return kept(m, made, err)
}
