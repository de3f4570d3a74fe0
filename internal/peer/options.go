package peer

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"barnabas/internal/netx"
)

// Kind numbers the messages; the package's documentation says whose they are.
type Kind uint8

const (
	// kindPing asks for an empty answer. One way it says that this end is there.
	kindPing Kind = 0
	// firstDataKind is the first that travels on the data connection.
	firstDataKind Kind = 32
	// endOfKinds bounds the kinds.
	endOfKinds Kind = 48
	// KindKey is added to a kind to make the key of its frames: a number that no request of Kafka has.
	KindKey = 0x4200
)

// Node is a node as its peers know it: a number, and the id of the directory with its metadata. A node
// whose disk was wiped comes back with another directory.
type Node struct {
	ID        int32
	Directory [16]byte
}

// What a caller can decide on.
var (
	// ErrClosed: this node is stopping.
	ErrClosed = errors.New("connections between nodes are closed")
	// ErrUnknownNode: no address is known of the node.
	ErrUnknownNode = errors.New("no address is known of the node")
	// ErrUnserved: the other end has nobody who answers this kind, or not yet.
	ErrUnserved = errors.New("the other node does not answer this kind of request")
	// ErrNotFormed: one of the two ends belongs to no cluster yet.
	ErrNotFormed = errors.New("one of the two nodes has not joined the cluster yet")
	// ErrWrongSecret: the ends do not share a secret, or one has none.
	ErrWrongSecret = errors.New("the nodes do not have the same secret (key cluster.secret.file)")
	// ErrWrongCluster: the ends belong to different clusters.
	ErrWrongCluster = errors.New("the nodes belong to different clusters")
	// ErrWrongNode: another node answers at the address.
	ErrWrongNode = errors.New("another node answers at this address")
	// ErrNotLoopback: without a secret or certificates only this machine is spoken to.
	ErrNotLoopback = errors.New("without a secret or certificates only nodes on the same machine may connect (key cluster.secret.file)")
	// ErrOneSided: one end has certificates and the other speaks in the clear.
	ErrOneSided = errors.New("one of the two nodes uses certificates on the internal listener and the other does not (key listener.security.protocol.map)")
	// ErrUntrusted: the other end's certificate is missing or not to be believed.
	ErrUntrusted = errors.New("the other node's certificate is not trusted")
	// ErrDistrusted: the other end does not believe this one's.
	ErrDistrusted = errors.New("the other node does not trust this node's certificate")
	// ErrTLS: the ends cannot agree on how to speak TLS.
	ErrTLS = errors.New("the nodes cannot agree on TLS")
	// ErrHandshake: what came was no handshake of this version.
	ErrHandshake = errors.New("malformed handshake")
)

// RemoteError is what the other end answered in place of a result.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return "the other node: " + e.Message }

// Limits of one node's part.
const (
	maxFrameBytes     = 16 << 20  // of a frame on an authenticated connection, but for maxDataBytes; a longer one closes it
	maxDataBytes      = 1<<31 - 1 // of an answer on the data connection: it has one batch at least, as large as topics allow them
	maxFrameMemory    = 64 << 20  // Options.FrameMemory where it is 0
	maxHandshakeBytes = 1 << 10   // of a frame before that; a longer one closes the connection
	maxUnanswered     = 256       // requests of one connection at work; past it nothing more is read from it
	maxReadersAnswer  = 64 << 10  // of an answer that a connection's reader writes itself; a longer one would hold up what comes behind
	maxInFlight       = 256       // requests sent on one connection and not answered; past it Call waits
	maxPosted         = 4096      // one-way messages that wait for one connection; past it Post drops
	maxPostedBytes    = 16 << 20  // and their bytes
	maxConnections    = 4096      // accepted at a time; past it the next waits to be accepted
	maxHandshakes     = 64        // of them, not yet authenticated; past it the one that has waited longest is closed
	maxStrangers      = 256       // refusals that are remembered, to report each once; past it all are forgotten

	handshakeTimeout = 5 * time.Second // for all of it
	dialTimeout      = 2 * time.Second // a lost first packet is better sent anew than waited for
	firstPause       = 20 * time.Millisecond
	longestPause     = time.Second // between two attempts to connect, plus half of it at random
	pingInterval     = time.Second
	pingPatience     = 4 * time.Second  // an end that does not answer for so long, and sends nothing else, is gone
	silence          = 15 * time.Second // an accepted connection that says nothing for so long is closed
	writeStall       = 5 * time.Second  // for a peer that takes nothing
)

// Options is what Peers is made of. All fields are required unless they say otherwise.
type Options struct {
	Network  netx.Network
	Listener net.Listener // the internal one; Peers closes it. nil: this node only dials
	Self     Node
	// ClusterID is "" as long as the node belongs to no cluster; see SetClusterID.
	ClusterID string
	// Secret is the cluster's; empty: without Certificates only this machine is spoken to.
	Secret []byte
	// Certificates are for TLS; nil: connections are in the clear. With a Secret a node proves both.
	Certificates Certificates
	// Loopback says whether an address is this machine's. nil: the IP addresses that are.
	Loopback func(net.Addr) bool
	// FrameMemory bounds the bytes of large frames (above 64 KiB) that are being read or handled, over all connections; who would
	// exceed it waits. 0: 64 MiB. Less than the longest frame, 16 MiB, is that.
	FrameMemory int64
	Logger      *slog.Logger
	Random      io.Reader // read once, in Open
}

func isLoopback(a net.Addr) bool {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
