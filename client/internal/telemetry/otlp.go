package telemetry

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// This file writes metrics down as MetricsData of OpenTelemetry's protocol (opentelemetry.proto.metrics.v1), by hand: it is
// a few messages, and whoever imports the client has no use for their generated code and what that requires. The
// numbers are those of the messages' fields.
const (
	metricsDataResourceMetrics = 1

	resourceMetricsResource     = 1
	resourceMetricsScopeMetrics = 2

	resourceAttributes = 1

	scopeMetricsScope   = 1
	scopeMetricsMetrics = 2

	scopeName = 1

	metricName  = 1
	metricGauge = 5
	metricSum   = 7

	dataPoints     = 1 // of Gauge and of Sum
	sumTemporality = 2
	sumIsMonotonic = 3

	pointStart      = 2
	pointTime       = 3
	pointDouble     = 4
	pointAttributes = 7

	keyValueKey   = 1
	keyValueValue = 2

	anyValueString = 1
)

// The values of AggregationTemporality.
const (
	temporalityDelta      = 1
	temporalityCumulative = 2
)

// scopeOfMetrics is who measured.
const scopeOfMetrics = "barnabas/client"

// helping is how much of what was asked for is told: less and less, where a broker takes no more bytes.
type helping int8

const (
	everything helping = iota
	whatIsRequired
	whatIsRequiredOfNoNode
	nothing
)

func (h helping) takes(m *metric) bool {
	switch h {
	case everything:
		return true
	case whatIsRequired:
		return m.required
	case whatIsRequiredOfNoNode:
		return m.required && m.byNode == nil
	case nothing:
	}
	return false
}

// encode gives MetricsData, and how many points are in it.
func (s *Snapshot) encode(wanted Wanted, delta bool, h helping) (text []byte, points int) {
	for i := range s.scopes {
		t := &s.scopes[i]
		metrics, n := t.metrics(wanted, delta, h)
		if n == 0 {
			continue
		}
		points += n
		text = message(text, metricsDataResourceMetrics, func(b []byte) []byte {
			b = message(b, resourceMetricsResource, t.resource)
			return message(b, resourceMetricsScopeMetrics, func(b []byte) []byte {
				b = message(b, scopeMetricsScope, func(b []byte) []byte { return appendString(b, scopeName, scopeOfMetrics) })
				return append(b, metrics...)
			})
		})
	}
	return text, points
}

func (t *taken) resource(b []byte) []byte {
	for _, label := range [][2]string{
		{"transactional_id", t.labels.TransactionalID},
		{"group_id", t.labels.Group},
		{"group_instance_id", t.labels.GroupInstance},
		{"group_member_id", t.member},
		{"client_rack", t.labels.Rack},
	} {
		if label[1] != "" {
			b = appendAttribute(b, resourceAttributes, label[0], label[1])
		}
	}
	return b
}

// metrics gives the metrics of a scope that are wanted and known, as they stand in ScopeMetrics.
func (t *taken) metrics(wanted Wanted, delta bool, h helping) (text []byte, points int) {
	for _, m := range slices.Concat(ofAll, ofKind[t.labels.Kind]) {
		name := prefixes[t.labels.Kind] + m.name
		if !h.takes(&m) || !wanted.has(name) {
			continue
		}
		data, n := t.points(&m, delta)
		if n == 0 {
			continue
		}
		points += n
		text = message(text, scopeMetricsMetrics, func(b []byte) []byte {
			b = appendString(b, metricName, name)
			return m.append(b, data, delta)
		})
	}
	return text, points
}

// append adds the metric's points as what they are.
func (m *metric) append(b, data []byte, delta bool) []byte {
	if m.form == gauge {
		return message(b, metricGauge, func(b []byte) []byte { return append(b, data...) })
	}
	return message(b, metricSum, func(b []byte) []byte {
		b = append(b, data...)
		temporality := uint64(temporalityCumulative)
		if delta {
			temporality = temporalityDelta
		}
		b = appendVarint(b, sumTemporality, temporality)
		return appendVarint(b, sumIsMonotonic, 1)
	})
}

// points gives what is known of a metric. What has no value is left out, and so is a sum to which nothing was added.
func (t *taken) points(m *metric, delta bool) (text []byte, points int) {
	switch {
	case m.byNode != nil:
		for _, node := range sortedNodes(t.nodes) {
			if n := t.nodes[node]; n.count > 0 {
				text = appendPoint(text, time.Time{}, t.until, m.byNode(&n), "node_id", nodeName(node))
				points++
			}
		}
		return text, points
	case m.total != nil:
		v, start := m.total(&t.now), t.began
		if delta {
			v, start = v-m.total(&t.before), t.since
		}
		if v == 0 {
			return nil, 0
		}
		return appendPoint(nil, start, t.until, v), 1
	}
	v, known := m.value(t)
	if !known {
		return nil, 0
	}
	return appendPoint(nil, time.Time{}, t.until, v), 1
}

// nodeName is a broker as Apache Kafka's clients name it; one of bootstrap.servers, whose number is not known, is node--1.
func nodeName(node int32) string { return fmt.Sprintf("node-%d", node) }

// appendPoint adds a NumberDataPoint with labels, each a key and a value. start may be zero.
func appendPoint(b []byte, start, at time.Time, v float64, labels ...string) []byte {
	return message(b, dataPoints, func(b []byte) []byte {
		if !start.IsZero() {
			b = appendFixed(b, pointStart, uint64(start.UnixNano()))
		}
		b = appendFixed(b, pointTime, uint64(at.UnixNano()))
		b = appendFixed(b, pointDouble, math.Float64bits(v))
		for i := 0; i < len(labels); i += 2 {
			b = appendAttribute(b, pointAttributes, labels[i], labels[i+1])
		}
		return b
	})
}

func appendAttribute(b []byte, field int, key, value string) []byte {
	return message(b, field, func(b []byte) []byte {
		b = appendString(b, keyValueKey, key)
		return message(b, keyValueValue, func(b []byte) []byte { return appendString(b, anyValueString, value) })
	})
}

func appendString(b []byte, field int, s string) []byte {
	b = binary.AppendUvarint(appendTag(b, field, lengthDelimited), uint64(len(s)))
	return append(b, s...)
}

func appendFixed(b []byte, field int, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(b, field, fixed64), v)
}

func appendVarint(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(appendTag(b, field, varint), v)
}

// message adds a message within a message.
func message(b []byte, field int, fill func(b []byte) []byte) []byte {
	inner := fill(nil)
	b = binary.AppendUvarint(appendTag(b, field, lengthDelimited), uint64(len(inner)))
	return append(b, inner...)
}

// The kinds of fields in protobuf's encoding.
const (
	varint          = 0
	fixed64         = 1
	lengthDelimited = 2
)

func appendTag(b []byte, field, kind int) []byte {
	return binary.AppendUvarint(b, uint64(field<<3|kind))
}
