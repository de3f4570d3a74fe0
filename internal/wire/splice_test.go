package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// tcpPair connects a client's end with a broker's over TCP, where what is spliced leaves in one write.
func tcpPair(t *testing.T) (client, broker net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if broker, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), broker.Close() })
	return client, broker
}

// wrapped hides what a connection is, as TLS does.
type wrapped struct{ net.Conn }

// splicedRequest is parts of random sizes, each with its length and a checksum before it.
func splicedRequest(parts [][]byte) func(dst []byte, s *Splices) []byte {
	return func(dst []byte, s *Splices) []byte {
		for _, part := range parts {
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
			dst = binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(part))
			dst = s.Append(dst, part)
		}
		return dst
	}
}

func checkSpliced(body []byte) error {
	for len(body) > 0 {
		if len(body) < 8 || len(body)-8 < int(binary.BigEndian.Uint32(body)) {
			return errors.New("parts end early")
		}
		part := body[8 : 8+binary.BigEndian.Uint32(body)]
		if sum := crc32.ChecksumIEEE(part); sum != binary.BigEndian.Uint32(body[4:]) {
			return fmt.Errorf("a part of %d bytes is not what was sent", len(part))
		}
		body = body[8+len(part):]
	}
	return nil
}

func randomParts(rng *rand.Rand) [][]byte {
	parts := make([][]byte, rng.IntN(5))
	for i := range parts {
		parts[i] = make([]byte, rng.IntN(2*SpliceBytes))
		parts[i][max(len(parts[i])/2, 1)-1] = byte(rng.Uint32())
	}
	return parts
}

// Requests arrive as they were, spliced or not and from several callers, and once Wait has returned the
// memory may be used for something else, however the request has ended: the broker stops reading in the
// middle of some, hangs up, or answers, and the caller gives up.
func TestSplicedMemoryIsFreeAfterWait(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { splicedMemoryIsFree(t, seed) })
	}
}

func splicedMemoryIsFree(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	near, far := tcpPair(t)
	if rng.IntN(2) == 0 {
		near = wrapped{near}
	}
	stopAfter := rng.IntN(60) // requests
	hangsUp := rng.IntN(2) == 0
	const callers, each = 3, 10
	served := make(chan error, 1)
	go func() { served <- serveSpliced(far, stopAfter, hangsUp) }()

	c := NewClient(near, ClientOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for caller := range callers {
		rng := rand.New(rand.NewPCG(seed, uint64(1+caller)))
		wg.Go(func() {
			for range each {
				parts := randomParts(rng)
				for _, part := range parts {
					if len(part) > 0 {
						part[len(part)-1] = byte(rng.Uint32())
					}
				}
				p, err := c.StartSpliced(ctx, private, 0, splicedRequest(parts))
				if err != nil {
					return
				}
				_, _ = p.Wait(ctx)
				for _, part := range parts { // the race detector sees whoever still reads this
					for i := range part {
						part[i] = 0xff
					}
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	if stopAfter < callers*each && !hangsUp { // somebody waits for a broker that reads no more
		if err := <-served; err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		cancel()
	}
	<-finished
	cancel()
	_ = c.Close()
	if stopAfter >= callers*each || hangsUp {
		if err := <-served; err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// serveSpliced answers requests until the end, or until it has had so many: then it hangs up, or leaves the
// connection as it is.
func serveSpliced(conn net.Conn, stopAfter int, hangsUp bool) error {
	for n := 0; ; n++ {
		if n == stopAfter {
			var some [1000]byte // of a request, perhaps
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _ = conn.Read(some[:])
			if hangsUp {
				return conn.Close()
			}
			return nil
		}
		frame, err := readFrame(conn)
		if err != nil {
			return nil //nolint:nilerr // the client has gone
		}
		head, err := ParseRequest(frame)
		if err != nil {
			return err
		}
		if err := checkSpliced(head.Body); err != nil {
			return err
		}
		if err := answer(conn, head.Header, []byte("ok")); err != nil {
			return nil //nolint:nilerr // the client has gone
		}
	}
}

// Frames that were spliced and such that were not leave in the order of the calls, and one that fails to
// be encoded takes its splices with it.
func TestSplicesBelongToTheirFrame(t *testing.T) {
	near, far := tcpPair(t)
	c := NewClient(near, ClientOptions{})
	defer c.Close()
	large := bytes.Repeat([]byte("x"), 3*SpliceBytes)
	served := make(chan error, 1)
	go func() { served <- serveSpliced(far, 1<<30, false) }()
	var pending []*Pending
	for n := range 20 {
		start := func() (*Pending, error) {
			return c.StartSpliced(t.Context(), private, 0, splicedRequest([][]byte{large[:n], large, large[:n*1000]}))
		}
		if n%3 == 0 {
			start = func() (*Pending, error) {
				return c.Start(t.Context(), private, 0, func(dst []byte) []byte { return splicedRequest([][]byte{large})(dst, nil) })
			}
		}
		p, err := start()
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	for _, p := range pending {
		if body, err := p.Wait(t.Context()); err != nil || string(body) != "ok" {
			t.Errorf("answer %q, %v", body, err)
		}
	}
	_ = c.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
