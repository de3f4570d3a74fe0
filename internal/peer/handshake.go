package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The handshake: four frames, each a length (2 bytes) and that many bytes.
//
//	dialler   hello      magic, version, ids, whom it wants, cluster id, a fresh number
//	listener  challenge  ids, cluster id, a fresh number
//	dialler   proof      HMAC-SHA256(secret, "dialler", hello, challenge)
//	listener  verdict    a code, and with code 0 HMAC-SHA256(secret, "listener", hello, challenge)
//
// Each proof covers both numbers, so that one overheard is worth nothing later, and names its end, so
// that neither can be sent back. Under TLS it covers the connection, too, so that nobody between two nodes
// can pass it on. The dialler proves itself first: a stranger learns from a listener
// what it could ask any broker, and nothing that depends on the secret.
const (
	magic            = "BARNABAS-PEER"
	handshakeVersion = 1
	nonceBytes       = 32
	proofBytes       = sha256.Size
	maxClusterID     = 255
)

// Codes of a verdict.
const (
	accepted byte = iota
	refusedSecret
	refusedCluster
	refusedNode
	refusedRemote
	refusedClear // in the place of a challenge: certificates are wanted
)

// refusals are the errors that codes stand for, on both ends.
var refusals = map[byte]error{
	refusedSecret: ErrWrongSecret, refusedCluster: ErrWrongCluster, refusedNode: ErrWrongNode, refusedRemote: ErrNotLoopback,
	refusedClear: ErrOneSided,
}

// notTLS answers a dialler that begins with TLS. It is as long as the header of a record, which is what the
// dialler waits for, and is none.
var notTLS = []byte{0, 3, refusedClear, 0, 0}

// introduction is what an end says of itself.
type introduction struct {
	node    Node
	wants   int32 // the node that the dialler means; of a listener, its own
	cluster string
	nonce   [nonceBytes]byte
}

func (i *introduction) encode() []byte {
	b := append([]byte(magic), handshakeVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(i.node.ID))
	b = append(b, i.node.Directory[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(i.wants))
	b = append(b, i.nonce[:]...)
	b = append(b, byte(len(i.cluster)))
	return append(b, i.cluster...)
}

func decodeIntroduction(b []byte) (i introduction, err error) {
	const fixed = len(magic) + 1 + 4 + 16 + 4 + nonceBytes + 1
	switch {
	case len(b) < fixed || string(b[:len(magic)]) != magic:
		return i, fmt.Errorf("%w: this is no introduction", ErrHandshake)
	case b[len(magic)] != handshakeVersion:
		return i, fmt.Errorf("%w: version %d, this program speaks %d", ErrHandshake, b[len(magic)], handshakeVersion)
	case len(b) != fixed+int(b[fixed-1]):
		return i, fmt.Errorf("%w: %d bytes", ErrHandshake, len(b))
	}
	rest := b[len(magic)+1:]
	i.node.ID = int32(binary.BigEndian.Uint32(rest))
	rest = rest[4+copy(i.node.Directory[:], rest[4:]):]
	i.wants = int32(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	copy(i.nonce[:], rest)
	i.cluster = string(rest[nonceBytes+1:])
	return i, nil
}

func prove(secret []byte, on channel, end string, hello, challenge []byte) []byte {
	h := hmac.New(sha256.New, secret)
	parts := [][]byte{[]byte(magic), []byte(end), hello, challenge}
	if on != nil {
		parts = append(parts, on)
	}
	for _, part := range parts {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

const (
	dialler  = "dialler"
	listener = "listener"
)

func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if speaksTLS(head) {
		return nil, fmt.Errorf("%w: it begins with TLS, and this node has no certificates", ErrOneSided)
	}
	if n > maxHandshakeBytes {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrHandshake, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

// agreed is what a handshake has found.
type agreed struct {
	node   Node // the other end
	formed bool // both ends belong to the cluster
}

func sameCluster(a, b string) bool { return a == "" || b == "" || a == b }

// greet is the dialler's half.
func greet(c net.Conn, on channel, secret []byte, self introduction, deadline time.Time) (agreed, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return agreed{}, err
	}
	hello := self.encode()
	if err := writeFrame(c, hello); err != nil {
		return agreed{}, fmt.Errorf("introduce this node: %w", err)
	}
	challenge, err := readFrame(c)
	if err != nil {
		return agreed{}, fmt.Errorf("wait for the other node's introduction: %w", err)
	}
	if len(challenge) == 1 && challenge[0] == refusedClear {
		return agreed{}, fmt.Errorf("refused: %w", ErrOneSided)
	}
	other, err := decodeIntroduction(challenge)
	if err != nil {
		return agreed{}, err
	}
	if err := writeFrame(c, prove(secret, on, dialler, hello, challenge)); err != nil {
		return agreed{}, fmt.Errorf("prove this node: %w", err)
	}
	verdict, err := readFrame(c)
	switch {
	case err != nil:
		return agreed{}, fmt.Errorf("wait for the other node's verdict: %w", err)
	case len(verdict) == 1 && refusals[verdict[0]] != nil:
		return agreed{}, fmt.Errorf("refused: %w", self.refused(refusals[verdict[0]], &other))
	case len(verdict) != 1+proofBytes || verdict[0] != accepted:
		return agreed{}, fmt.Errorf("%w: this is no verdict", ErrHandshake)
	case !hmac.Equal(verdict[1:], prove(secret, on, listener, hello, challenge)):
		return agreed{}, ErrWrongSecret
	case other.node.ID != self.wants:
		return agreed{}, self.refused(ErrWrongNode, &other)
	case !sameCluster(self.cluster, other.cluster):
		return agreed{}, self.refused(ErrWrongCluster, &other)
	}
	return agreed{other.node, self.cluster != "" && other.cluster != ""}, c.SetDeadline(time.Time{})
}

// refused says of which nodes and clusters a refusal speaks. i is the dialler's.
func (i *introduction) refused(why error, listener *introduction) error {
	switch {
	case errors.Is(why, ErrWrongNode):
		return fmt.Errorf("%w: node %d, and node %d is looked for there: is controller.quorum.voters the same on all nodes?", why, listener.node.ID, i.wants)
	case errors.Is(why, ErrWrongCluster):
		return fmt.Errorf("%w: node %d to %s, node %d to %s", why, i.node.ID, i.cluster, listener.node.ID, listener.cluster)
	}
	return why
}

// receive is the listener's half. The dialler is told why it is refused where it can do something
// about it.
func receive(c net.Conn, on channel, secret []byte, self introduction, local bool, deadline time.Time) (agreed, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return agreed{}, err
	}
	hello, err := readFrame(c)
	if errors.Is(err, ErrOneSided) {
		if _, writeErr := c.Write(notTLS); writeErr != nil {
			return agreed{}, writeErr
		}
	}
	if err != nil {
		return agreed{}, fmt.Errorf("wait for the other node's introduction: %w", err)
	}
	other, err := decodeIntroduction(hello)
	if err != nil {
		return agreed{}, err
	}
	challenge := self.encode()
	if err := writeFrame(c, challenge); err != nil {
		return agreed{}, fmt.Errorf("introduce this node: %w", err)
	}
	proof, err := readFrame(c)
	if err != nil {
		return agreed{}, fmt.Errorf("wait for the other node's proof: %w", err)
	}
	verdict := []byte{accepted}
	switch {
	case !hmac.Equal(proof, prove(secret, on, dialler, hello, challenge)):
		verdict[0] = refusedSecret
	case len(secret) == 0 && !local:
		verdict[0] = refusedRemote
	case other.wants != self.node.ID:
		verdict[0] = refusedNode
	case !sameCluster(self.cluster, other.cluster):
		verdict[0] = refusedCluster
	default:
		verdict = append(verdict, prove(secret, on, listener, hello, challenge)...)
	}
	if err := writeFrame(c, verdict); err != nil {
		return agreed{}, fmt.Errorf("send the verdict: %w", err)
	}
	if verdict[0] != accepted {
		return agreed{}, fmt.Errorf("node %d: %w", other.node.ID, other.refused(refusals[verdict[0]], &self))
	}
	return agreed{other.node, self.cluster != "" && other.cluster != ""}, c.SetDeadline(time.Time{})
}
