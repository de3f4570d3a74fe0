package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// script is a connection whose other end says what it was told to, and hears nothing.
type script struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// Whatever a stranger says, he is neither let in nor able to end the process.
func FuzzHandshake(f *testing.F) {
	i := introduction{node: Node{ID: 1}, wants: 2, cluster: "one"}
	hello := i.encode()
	f.Add(append(append([]byte{0, byte(len(hello))}, hello...), append([]byte{0, 32}, make([]byte, 32)...)...))
	f.Add([]byte{0xff, 0xff, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, said []byte) {
		self := introduction{node: Node{ID: 2}, wants: 2, cluster: "one"}
		if with, err := receive(&script{in: bytes.NewReader(said)}, nil, []byte("a secret"), self, true, time.Time{}); err == nil {
			t.Fatalf("let in: %+v", with)
		}
		if with, err := greet(&script{in: bytes.NewReader(said)}, nil, []byte("a secret"), self, time.Time{}); err == nil {
			t.Fatalf("believed: %+v", with)
		}
		if i, err := decodeIntroduction(said); err == nil && !bytes.Equal(i.encode(), said) {
			t.Fatalf("%x is read as %+v", said, i)
		}
	})
}

// Frames of a node that has the secret end in an error at worst.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 11, 0x42, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0})
	f.Add([]byte{0, 0, 0, 13, 0x42, 5, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 2})
	f.Add([]byte{0, 0, 0, 13, 0x42, 5, 0, 1, 0, 0, 0, 1, 0, 1, 'x', 0, 2})
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, said []byte) {
		p := &Peers{log: slog.New(slog.DiscardHandler), memory: semaphore.NewWeighted(maxFrameMemory)}
		p.Handle(kindEcho, Receive(func(Node, []byte) error { return nil }))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		in := &inbound{
			p: p, ctx: ctx, conn: &script{in: bytes.NewReader(said)}, with: agreed{formed: true},
			writer: make(chan struct{}, 1), atWork: make(chan struct{}, maxUnanswered),
		}
		if err := in.read(); err == nil {
			t.Fatal("no end")
		} else if len(said) == 0 && !errors.Is(err, io.EOF) {
			t.Fatalf("nothing said: %v", err)
		}
		in.works.Wait()
		_, _ = result(said)
	})
}
