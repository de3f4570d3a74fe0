package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"barnabas/internal/metrics"
	"barnabas/internal/netx"
)

func TestAdminShowsMetricsAndState(t *testing.T) {
	m := metrics.New()
	m.Counter("flushes_total", "Flushes.").Add(3)
	notReady := errors.New("recovering 3 of 12 logs")
	a, err := ListenAdmin(context.Background(), AdminOptions{
		Network: netx.TCP, Addr: "127.0.0.1:0", Metrics: m.Handler(),
		Ready: func() error { return notReady },
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		t.Helper()
		res, err := http.Get("http://" + a.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	for _, c := range []struct {
		path   string
		status int
		has    string
	}{
		{"/live", 200, "live"},
		{"/ready", 503, "recovering 3 of 12 logs"},
		{"/metrics", 200, "barnabas_flushes_total 3"},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "profile"},
		{"/", 404, ""},
	} {
		if status, body := get(c.path); status != c.status || !strings.Contains(body, c.has) {
			t.Errorf("%s: %d %q", c.path, status, body)
		}
	}
	notReady = nil
	if status, body := get("/ready"); status != 200 || !strings.Contains(body, "ready") {
		t.Errorf("/ready: %d %q", status, body)
	}
	http.DefaultClient.CloseIdleConnections()
	for range 2 {
		if err := a.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
}
