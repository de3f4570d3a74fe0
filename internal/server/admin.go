package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// The admin listener's own limits: it must answer when the broker is in trouble, and must not be
// the trouble.
const (
	adminConnections   = 64 // further ones wait, unaccepted
	adminHeaderBytes   = 16 << 10
	adminHeaderTimeout = 5 * time.Second
	adminReadTimeout   = 10 * time.Second
	adminIdleTimeout   = 60 * time.Second
	// adminWriteTimeout leaves room for a profile or trace over some minutes.
	adminWriteTimeout = 5 * time.Minute
)

// AdminOptions say what the admin listener shows.
type AdminOptions struct {
	Network Network
	Addr    string       // host:port
	Metrics http.Handler // /metrics
	// Ready says why requests cannot be served yet, or nil (/ready: 200 or 503). It must not wait.
	Ready  func() error
	Logger *slog.Logger // nil discards
}

// Admin is the administrator's HTTP listener: /metrics (Prometheus), /live (200 as long as the
// process answers), /ready, and /debug/pprof. It asks nobody who they are, so its address belongs
// on an inner network.
type Admin struct {
	http   http.Server
	addr   net.Addr
	served chan error
}

// ListenAdmin starts the admin listener. ctx bounds the call.
func ListenAdmin(ctx context.Context, o AdminOptions) (*Admin, error) {
	l, err := o.Network.Listen(ctx, o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the admin on %s: %w", o.Addr, err)
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	a := &Admin{addr: l.Addr(), served: make(chan error, 1)}
	a.http = http.Server{
		Handler:           adminRoutes(o),
		ReadHeaderTimeout: adminHeaderTimeout,
		ReadTimeout:       adminReadTimeout,
		WriteTimeout:      adminWriteTimeout,
		IdleTimeout:       adminIdleTimeout,
		MaxHeaderBytes:    adminHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	limited := &limitedListener{
		Listener: l, slots: make(chan struct{}, adminConnections), closed: make(chan struct{}),
	}
	go func() { a.served <- a.http.Serve(limited) }()
	return a, nil
}

// Addr is the address listened on, with the port that was picked.
func (a *Admin) Addr() net.Addr { return a.addr }

// Shutdown stops listening and lets requests under way finish until ctx ends.
func (a *Admin) Shutdown(ctx context.Context) error {
	err := a.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.http.Close())
	}
	if served := <-a.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	a.served <- http.ErrServerClosed // for another call
	if err != nil {
		return fmt.Errorf("stop the admin listener: %w", err)
	}
	return nil
}

func adminRoutes(o AdminOptions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Metrics)
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "live") // whoever asked has gone otherwise
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready") // whoever asked has gone otherwise
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
