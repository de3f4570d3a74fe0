package server

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	// acceptBackoff and acceptBackoffMax space the tries after a failed accept, which is mostly a
	// lack of file descriptors: others must close first.
	acceptBackoff    = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// accept serves a listener until it is closed.
func (s *Server) accept(l net.Listener, cfg *Listener) {
	backoff := acceptBackoff
	var due time.Time
	for {
		conn, err := l.Accept()
		switch {
		case s.isClosing():
			if err == nil {
				reset(conn)
			}
			return
		case errors.Is(err, net.ErrClosed):
			s.logger.Error("listener closed under the server", "listener", cfg.Name, "cause", err)
			return
		case err != nil:
			s.stats.refused.accept.Inc()
			s.logger.Warn("accept fails", "listener", cfg.Name, "cause", err, "retry", backoff)
			if !s.sleep(backoff) {
				return
			}
			backoff = min(2*backoff, acceptBackoffMax)
			continue
		}
		backoff = acceptBackoff
		if !s.pace(&due) || !s.slots.take(s.ctx, s.closing, 1) {
			reset(conn) // closing
			return
		}
		s.admit(conn, cfg)
	}
}

// reset ends a connection on which nobody has been promised anything yet; see beginAbruptly.
func reset(conn net.Conn) {
	if l, ok := conn.(lingerer); ok {
		_ = l.SetLinger(0) // then as an orderly end
	}
	_ = conn.Close()
}

// pace waits where connections come faster than allowed; a second's worth may come at once. It
// tells whether the server goes on.
func (s *Server) pace(due *time.Time) bool {
	for {
		limits, changed := s.admission()
		if limits.PerSecond == unlimited {
			return true
		}
		var wait time.Duration // with none allowed, until that changes
		if limits.PerSecond > 0 {
			now := time.Now()
			next := *due
			if earliest := now.Add(-time.Second); next.Before(earliest) {
				next = earliest
			}
			next = next.Add(time.Second / time.Duration(limits.PerSecond))
			if wait = next.Sub(now); wait <= 0 {
				*due = next
				return true
			}
		}
		if !s.await(wait, changed) {
			return false
		}
	}
}

// await waits for d, 0 meaning for ever, or for a change; it tells whether the server goes on.
func (s *Server) await(d time.Duration, changed <-chan struct{}) bool {
	var over <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-over:
		return true
	case <-changed:
		return true
	case <-s.closing:
		return false
	}
}

// sleep tells whether the server goes on after d.
func (s *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closing:
		return false
	}
}

// admit starts a connection that holds a slot, or closes it.
func (s *Server) admit(conn net.Conn, cfg *Listener) {
	ip := hostOf(conn.RemoteAddr())
	c := s.newConnection(conn, cfg, ip)
	s.mu.Lock()
	most := s.mu.admission.PerIP
	if n, ok := s.mu.admission.PerIPOverrides[ip]; ok {
		most = n
	}
	full := s.mu.perIP[ip] >= most
	if !full {
		s.mu.perIP[ip]++
		s.mu.connections[c] = struct{}{}
	}
	s.mu.Unlock()
	if full {
		s.stats.refused.perIP.Inc()
		s.logger.Info("connection refused", "peer", conn.RemoteAddr().String(), "listener", cfg.Name,
			"cause", "max.connections.per.ip", "limit", most)
		c.cancel()
		_ = conn.Close() // nobody has been promised anything yet
		s.slots.give(1)
		return
	}
	s.stats.accepted.Inc()
	c.beginAbruptly(conn)
	s.running.Go(c.serve)
}

// forget ends what admit began.
func (s *Server) forget(c *connection) {
	s.mu.Lock()
	delete(s.mu.connections, c)
	if s.mu.perIP[c.ip]--; s.mu.perIP[c.ip] <= 0 {
		delete(s.mu.perIP, c.ip)
	}
	s.mu.Unlock()
	s.slots.give(1)
}

// prepare sizes the socket's buffers, and puts TLS over the socket where the listener has it.
func (s *Server) prepare(conn net.Conn, cfg *Listener) (net.Conn, syscall.RawConn) {
	if sized, ok := conn.(interface {
		SetReadBuffer(bytes int) error
		SetWriteBuffer(bytes int) error
	}); ok {
		// A size that cannot be had leaves the system's: slower, not wrong.
		if n := s.limits.ReceiveBufferBytes; n > 0 {
			_ = sized.SetReadBuffer(n)
		}
		if n := s.limits.SendBufferBytes; n > 0 {
			_ = sized.SetWriteBuffer(n)
		}
	}
	if cfg.TLS != nil {
		return tls.Server(conn, cfg.TLS), nil
	}
	return conn, rawConn(conn)
}

// hostOf is the address without its port, IPv4 written as such.
func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return host
}
