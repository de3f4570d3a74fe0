package server

import (
	"errors"
	"fmt"
	"time"
)

// Limits are what one server grants its peers. The zero value of a field means its default; what
// happens at each limit is said with it.
type Limits struct {
	// FrameBytes bounds a request (socket.request.max.bytes, default 100 MiB). A longer one closes
	// its connection. Requests other than Produce, which are small where they are honest, and grow
	// when they are decoded, are bounded by RequestMemoryBytes/64 too, but never to less than 512 KiB.
	FrameBytes int
	// UnauthenticatedFrameBytes is FrameBytes for a peer that has yet to prove who it is
	// (sasl.server.max.receive.size, default 512 KiB).
	UnauthenticatedFrameBytes int
	// RequestMemoryBytes bounds the memory of requests that are arriving, once more that of requests
	// being decoded, and a third time what replies hold while they wait, over all connections
	// (queued.max.request.bytes, where -1 means this default of 256 MiB). Past the first two
	// connections are not read until others are done; replies to what was read before go on. Past
	// the third a reply that would wait is sent without, and those that its connection has waiting
	// go before it.
	RequestMemoryBytes int64
	// Unanswered bounds the requests of one connection that were read and not answered
	// (connection.max.unanswered.requests, default 64, at least 2). Past it the connection is not
	// read, and TCP slows the client down.
	Unanswered int
	// Connections, ConnectionsPerIP with its overrides, and ConnectionsPerSecond are the
	// ConnectionLimits at the start, where 0 means no limit instead.
	Connections               int
	ConnectionsPerIP          int
	ConnectionsPerIPOverrides map[string]int
	ConnectionsPerSecond      int
	// Idle is how long a connection may have neither a request nor an unanswered one before it is
	// closed (connections.max.idle.ms, default 10 minutes).
	Idle time.Duration
	// Stall is how long a peer may stand still in the middle of a request, or take nothing of a
	// reply, before its connection is closed (connection.stall.ms, default 30 s); beyond it every
	// 32 KiB grant another second.
	Stall time.Duration
	// SendBufferBytes and ReceiveBufferBytes size the socket's buffers (socket.send.buffer.bytes,
	// socket.receive.buffer.bytes); 0 or less leaves them to the operating system.
	SendBufferBytes, ReceiveBufferBytes int
}

// ConnectionLimits are the limits that can change while a server runs. Zero means none at all.
type ConnectionLimits struct {
	// Total bounds the connections that are served (max.connections). Past it new ones wait, unread.
	Total int
	// PerIP bounds the connections from one address (max.connections.per.ip), PerIPOverrides those
	// from the addresses in it (max.connections.per.ip.overrides). Further ones are closed at once.
	PerIP          int
	PerIPOverrides map[string]int
	// PerSecond bounds how fast new connections are taken on (max.connection.creation.rate). Faster
	// ones wait, unread.
	PerSecond int
}

func (l *Limits) connections() ConnectionLimits {
	return ConnectionLimits{l.Connections, l.ConnectionsPerIP, l.ConnectionsPerIPOverrides, l.ConnectionsPerSecond}
}

// SetConnectionLimits puts new limits in the place of the old. Connections that are open stay; where
// there are more than Total, new ones wait until enough have ended.
func (s *Server) SetConnectionLimits(l ConnectionLimits) {
	s.slots.resize(int64(l.Total))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.admission = l
	close(s.mu.readmit)
	s.mu.readmit = make(chan struct{})
}

// admission returns the limits for new connections, and a channel that is closed when they change.
func (s *Server) admission() (ConnectionLimits, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.admission, s.mu.readmit
}

const (
	defaultFrameBytes           = 100 << 20
	defaultUnauthenticatedBytes = 512 << 10
	defaultRequestMemory        = 256 << 20
	defaultUnanswered           = 64
	defaultIdle                 = 10 * time.Minute
	defaultStall                = 30 * time.Second
	unlimited                   = 1<<31 - 1

	// decodedPerByte is what decoding a hostile frame can take: a list of n elements costs the
	// sender n bytes and the decoder n structures of some 64 bytes (measured).
	decodedPerByte = 64
	// hurriedPause is how long a connection is not read after a reply that was not allowed to wait:
	// who polls must not spin.
	hurriedPause = 100 * time.Millisecond
	// smallFrameBytes is what a request other than Produce may always have.
	smallFrameBytes = 512 << 10
)

// The decisions that end a connection on the server's side.
var (
	errFrameTooLarge = errors.New("request larger than allowed")
	errStalled       = errors.New("peer stands still in the middle of a request")
	errIdle          = errors.New("connection idle")
	errClosing       = errors.New("server is closing")
)

func (l Limits) withDefaults() Limits {
	orInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	orInt(&l.FrameBytes, defaultFrameBytes)
	orInt(&l.UnauthenticatedFrameBytes, defaultUnauthenticatedBytes)
	orInt(&l.Unanswered, defaultUnanswered)
	l.Unanswered = max(l.Unanswered, 2)
	orInt(&l.Connections, unlimited)
	orInt(&l.ConnectionsPerIP, unlimited)
	orInt(&l.ConnectionsPerSecond, unlimited)
	if l.RequestMemoryBytes <= 0 {
		l.RequestMemoryBytes = defaultRequestMemory
	}
	if l.Idle <= 0 {
		l.Idle = defaultIdle
	}
	if l.Stall <= 0 {
		l.Stall = defaultStall
	}
	return l
}

// frame checks the announced length of a request.
func (l *Limits) frame(key int16, bytes int64, authenticated bool) error {
	most, name := int64(l.FrameBytes), "socket.request.max.bytes"
	if other := max(l.RequestMemoryBytes/decodedPerByte, smallFrameBytes); key != keyProduce && other < most {
		most, name = other, "queued.max.request.bytes/64"
	}
	if !authenticated && int64(l.UnauthenticatedFrameBytes) < most {
		most, name = int64(l.UnauthenticatedFrameBytes), "sasl.server.max.receive.size"
	}
	if bytes > most {
		return fmt.Errorf("%d bytes, %s allows %d: %w", bytes, name, most, errFrameTooLarge)
	}
	return nil
}

// decoding is the memory to reserve for decoding a request beyond its frame. Produce's bulk is
// not decoded into structures.
func (l *Limits) decoding(key int16, bytes int) int64 {
	if key == keyProduce {
		return 0
	}
	return int64(bytes) * decodedPerByte
}
