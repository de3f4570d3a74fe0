package main

import (
	"context"
	"encoding/binary"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// tally counts the requests that leave through the connections that it makes.
type tally struct {
	dial func(ctx context.Context, address string) (net.Conn, error)
	mu   sync.Mutex
	sent counts
}

// counts are requests by API key.
type counts map[int16]int

// group is how many requests a group costs: all, but for those that fetch records.
func (c counts) group() (n int) {
	for key, sent := range c {
		if key != int16(kmsg.Fetch) {
			n += sent
		}
	}
	return n
}

func (t *tally) connect(ctx context.Context, address string) (net.Conn, error) {
	c, err := t.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &counted{Conn: c, by: t}, nil
}

func (t *tally) all() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := counts{}
	for key, n := range t.sent {
		out[key] = n
	}
	return out
}

func (t *tally) add(key int16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sent == nil {
		t.sent = counts{}
	}
	t.sent[key]++
}

// counted looks at the beginning of every frame that is written: its length, and the request's key.
type counted struct {
	net.Conn
	by   *tally
	head [6]byte
	have int // of head
	left int // of the frame, behind head
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	for rest := p[:n]; len(rest) > 0; {
		if c.left > 0 {
			skip := min(c.left, len(rest))
			c.left, rest = c.left-skip, rest[skip:]
			continue
		}
		some := copy(c.head[c.have:], rest)
		c.have, rest = c.have+some, rest[some:]
		if c.have == len(c.head) {
			c.by.add(int16(binary.BigEndian.Uint16(c.head[4:])))
			c.have, c.left = 0, int(binary.BigEndian.Uint32(c.head[:]))-2
		}
	}
	return n, err
}
