package server

import (
	"strconv"
	"sync/atomic"

	"barnabas/internal/metrics"
)

// countedKeys bounds the keys with metrics of their own; hostile ones share the last.
const countedKeys = 128

// stats are the server's metrics, each looked up once.
type stats struct {
	accepted       metrics.Counter
	broken         metrics.Counter
	refused        struct{ perIP, accept metrics.Counter }
	received, sent metrics.Counter
	memoryWaits    metrics.Counter
	hurried        metrics.Counter

	name     func(key int16) string
	requests metrics.Counters
	errors   metrics.Counters
	seconds  metrics.Histograms
	apis     [countedKeys + 1]atomic.Pointer[apiStats]
}

// apiStats are those of one API key.
type apiStats struct {
	requests, errors metrics.Counter
	seconds          metrics.Histogram
}

func newStats(r *metrics.Registry, name func(int16) string, s *Server) *stats {
	if name == nil {
		name = func(key int16) string { return strconv.Itoa(int(key)) }
	}
	t := &stats{
		accepted:    r.Counter("connections_accepted_total", "Connections accepted."),
		broken:      r.Counter("connections_broken_total", "Connections closed because of what the peer sent or failed to take, or of a failed request."),
		received:    r.Counter("network_received_bytes_total", "Bytes read from connections."),
		sent:        r.Counter("network_sent_bytes_total", "Bytes written to connections."),
		memoryWaits: r.Counter("request_memory_waits_total", "Requests that had to wait for memory (queued.max.request.bytes)."),
		hurried: r.Counter("requests_hurried_total",
			"Requests answered without waiting, since those that wait hold all memory (queued.max.request.bytes)."),
		name:     name,
		requests: r.Counters("requests_total", "Requests read, by API.", "api"),
		errors:   r.Counters("request_failures_total", "Requests that closed their connection, by API.", "api"),
		seconds:  r.Histograms("request_seconds", "From a request's last byte to its complete reply, by API.", metrics.Seconds(), "api"),
	}
	refused := r.Counters("connections_refused_total", "Connections not accepted, by the limit or failure.", "cause")
	t.refused.perIP = refused.With("max.connections.per.ip")
	t.refused.accept = refused.With("accept")
	r.Collect("connections", "Connections now.", metrics.Varies, nil,
		func(emit func(float64, ...string)) { emit(float64(s.slots.inUse())) })
	r.Collect("request_memory_bytes", "Memory reserved for requests, of queued.max.request.bytes each.", metrics.Varies, []string{"stage"},
		func(emit func(float64, ...string)) {
			emit(float64(s.arriving.inUse()), "arriving")
			emit(float64(s.decoding.inUse()), "decoding")
			emit(float64(s.waiting.inUse()), "waiting")
		})
	return t
}

// api gives the metrics of a key without looking anything up by name, but for the first time.
func (t *stats) api(key int16) *apiStats {
	slot := int(key)
	if slot < 0 || slot > countedKeys {
		slot = countedKeys
	}
	if a := t.apis[slot].Load(); a != nil {
		return a
	}
	name := ""
	if slot < countedKeys {
		name = t.name(key)
	}
	if name == "" {
		name = "unknown"
	}
	a := &apiStats{requests: t.requests.With(name), errors: t.errors.With(name), seconds: t.seconds.With(name)}
	t.apis[slot].Store(a)
	return a
}
