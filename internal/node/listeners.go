package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/netx"
	"barnabas/internal/server"
)

// boundNetwork hands the server listeners that were opened before everything else, and knows
// their real ports: advertised addresses may say 0, and clients must be told what it became.
type boundNetwork struct {
	netx.Network
	open       map[string]net.Listener // by the name under which the server asks
	listeners  []server.Listener
	advertised []metadata.Listener
	internal   net.Listener       // of the cluster's other nodes; nil without any
	reached    *metadata.Listener // where they reach it
}

// bind opens the clients' listeners.
func bind(ctx context.Context, o *Options) (*boundNetwork, error) {
	b := &boundNetwork{Network: o.Network, open: map[string]net.Listener{}}
	ports := map[string]int{}
	for _, e := range o.Config.Listeners() {
		l, err := o.Network.Listen(ctx, e.Address())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w; is another program using the port? Choose another with --listen HOST:PORT (key listeners)",
				e.Address(), err), b.close())
		}
		addr := l.Addr().String()
		b.open[addr] = l
		b.listeners = append(b.listeners, server.Listener{Name: e.Listener, Addr: addr})
		ports[e.Listener] = portOf(l.Addr())
	}
	for _, e := range o.Config.AdvertisedListeners() {
		advertised, err := advertise(e, ports)
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.advertised = append(b.advertised, advertised)
	}
	if err := b.bindInternal(ctx, o); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// bindInternal opens the listener for the cluster's other nodes.
func (b *boundNetwork) bindInternal(ctx context.Context, o *Options) (err error) {
	e, needed := o.Config.InternalListener()
	if !needed {
		return nil
	}
	if b.internal, err = o.Network.Listen(ctx, e.Address()); err != nil {
		return fmt.Errorf("listen on %s for the cluster's other nodes: %w; is a node with this number running already, or another program using the port? It is this node's in controller.quorum.voters",
			e.Address(), err)
	}
	if v, ok := o.Config.OwnVoter(); ok {
		b.reached = &metadata.Listener{Name: e.Listener, Host: v.Host, Port: uint16(v.Port)}
		return nil
	}
	// A node without a vote is in nobody's configuration. Where its listener is every interface's, it is reached at the host
	// that clients are told.
	host := e.Host
	if ip := net.ParseIP(host); (host == "" || ip != nil && ip.IsUnspecified()) && len(b.advertised) > 0 {
		host = b.advertised[0].Host
	}
	b.reached = &metadata.Listener{Name: e.Listener, Host: host, Port: uint16(portOf(b.internal.Addr()))}
	return nil
}

func advertise(e config.Endpoint, ports map[string]int) (metadata.Listener, error) {
	port := e.Port
	if port == 0 {
		port = ports[e.Listener]
	}
	host := e.Host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		name, err := os.Hostname()
		if err != nil {
			return metadata.Listener{}, fmt.Errorf("advertise listener %s: find this machine's name: %w; give --advertise HOST:PORT (key advertised.listeners)",
				e.Listener, err)
		}
		host = name
	}
	return metadata.Listener{Name: e.Listener, Host: host, Port: uint16(port)}, nil
}

func portOf(a net.Addr) int {
	_, text, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0
	}
	port, err := net.LookupPort("tcp", text)
	if err != nil {
		return 0
	}
	return port
}

// Listen gives a listener that is open already to the server, once.
func (b *boundNetwork) Listen(_ context.Context, addr string) (net.Listener, error) {
	l, ok := b.open[addr]
	if !ok {
		return nil, fmt.Errorf("listen on %s: BUG: not bound", addr)
	}
	delete(b.open, addr)
	return l, nil
}

// close closes what the server has not taken over.
func (b *boundNetwork) close() error {
	var errs []error
	if b.internal != nil {
		errs = append(errs, b.internal.Close())
		b.internal = nil
	}
	for addr, l := range b.open {
		errs = append(errs, l.Close())
		delete(b.open, addr)
	}
	return errors.Join(errs...)
}

func limits(c *config.Set) server.Limits {
	return server.Limits{
		FrameBytes:                c.Int("socket.request.max.bytes"),
		UnauthenticatedFrameBytes: c.Int("sasl.server.max.receive.size"),
		RequestMemoryBytes:        c.RequestMemoryBytes(),
		Unanswered:                c.Int("connection.max.unanswered.requests"),
		Idle:                      idle(c),
		Stall:                     c.Millis("connection.stall.ms"),
		SendBufferBytes:           c.Int("socket.send.buffer.bytes"),
		ReceiveBufferBytes:        c.Int("socket.receive.buffer.bytes"),
	}
}

// never is longer than any connection lives, and short enough to be added to a time.
const never = 100 * 365 * 24 * time.Hour

// idle is connections.max.idle.ms, where 0 and less stand for no limit.
func idle(c *config.Set) time.Duration {
	if d := c.Millis("connections.max.idle.ms"); d > 0 {
		return min(d, never)
	}
	return never
}

func (o *Options) connectionLimits(c *config.Set) server.ConnectionLimits {
	return server.ConnectionLimits{
		Total:          o.mostConnections(c),
		PerIP:          c.Int("max.connections.per.ip"),
		PerIPOverrides: c.MaxConnectionsPerIP(),
		PerSecond:      c.Int("max.connection.creation.rate"),
	}
}
