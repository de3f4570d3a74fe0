package node

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
)

// Options is what a node is made of. All fields are required unless they say otherwise.
type Options struct {
	Config  *config.Set
	FS      disk.FS
	Network netx.Network
	Logger  *slog.Logger
	Now     func() time.Time
	Random  io.Reader // ids; crypto/rand's in earnest
	Version string    // of the program, for logs and metrics
	// OpenFiles is how many descriptors the process may have, which connections and files share; 0 is
	// no limit.
	OpenFiles int
	// FetchSessionBytes bounds what clients' fetch sessions hold together; below api.LeastFetchSessionBytes it is that.
	FetchSessionBytes int64
	// Insecure is the operator's word that clients may be served without authentication on an
	// address that other machines reach.
	Insecure bool
}

// ErrInsecure: a listener would serve other machines' clients, and nobody would be asked who they are.
var ErrInsecure = errors.New("clients on other machines could read and change everything: there is no authentication yet")

// check refuses settings that only make sense together, or not at all yet.
func (o *Options) check() error {
	listeners := o.Config.Listeners()
	if len(listeners) == 0 {
		return errors.New("no listener for clients: set --listen HOST:PORT (key listeners)")
	}
	for _, l := range listeners {
		if l.Protocol != "PLAINTEXT" {
			return fmt.Errorf("listener %s: security protocol %s is not available in this version; use PLAINTEXT (key listener.security.protocol.map)",
				l.Listener, l.Protocol)
		}
	}
	for _, l := range listeners {
		if !o.Insecure && !config.IsLoopback(l.Host) {
			return fmt.Errorf("listen on %s: %w; give --insecure if that is what you want, or listen on 127.0.0.1", l.Address(), ErrInsecure)
		}
	}
	return nil
}
