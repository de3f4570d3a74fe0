package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestValuesAreShownInPrometheusTextFormat(t *testing.T) {
	r := New()
	requests := r.Counters("requests_total", "Requests.", "api")
	requests.With("Produce").Add(3)
	requests.With("Fetch").Inc()
	r.Gauge("connections", "Connections.").Set(7)
	r.Histogram("request_seconds", "Time.", Seconds()).Observe(0.2)
	r.Collect("log_end_offset", "Per partition.", Grows, []string{"topic", "partition"},
		func(emit func(float64, ...string)) { emit(42, "orders", "0"); emit(43, "orders", "1") })

	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`barnabas_requests_total{api="Produce"} 3`,
		`barnabas_requests_total{api="Fetch"} 1`,
		`barnabas_connections 7`,
		`barnabas_request_seconds_count 1`,
		`barnabas_log_end_offset{partition="1",topic="orders"} 43`,
		`# TYPE barnabas_log_end_offset counter`,
		`go_goroutines`,
	} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %q in\n%s", line, w.Body.String())
		}
	}
	if v, ok := r.Value("log_end_offset", "0", "orders"); !ok || v != 42 {
		t.Errorf("Value gives %v, %t", v, ok)
	}
}

func TestAskingAgainGivesTheSameMetric(t *testing.T) {
	r := New()
	r.Counter("flushes_total", "Flushes.").Inc()
	r.Counter("flushes_total", "Flushes.").Inc()
	if v, _ := r.Value("flushes_total"); v != 2 {
		t.Errorf("counted %v, want 2", v)
	}
	defer func() {
		if recover() == nil {
			t.Error("the same name with another kind is accepted")
		}
	}()
	r.Gauge("flushes_total", "Flushes.")
}

func TestNilRegistryCounts(t *testing.T) {
	var r *Registry
	r.Counter("a_total", "A.").Inc()
	r.Counters("b_total", "B.", "x").With("1").Add(2)
	r.Gauges("c", "C.", "x").With("1").Set(2)
	r.Histogram("d", "D.", Seconds()).Observe(1)
	r.Collect("e", "E.", Varies, nil, func(func(float64, ...string)) { t.Error("read") })
}

// Counting happens on the paths of every record.
func TestCountingDoesNotAllocate(t *testing.T) {
	r := New()
	c, h := r.Counters("a_total", "A.", "x").With("1"), r.Histogram("d", "D.", Seconds())
	if n := testing.AllocsPerRun(100, func() { c.Add(3); h.Observe(0.001) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
