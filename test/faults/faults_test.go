package faults

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a peer that sends back what it receives, and keeps it.
func echo(t *testing.T) (address string, received <-chan []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	all := make(chan []byte, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var got bytes.Buffer
			_, _ = io.Copy(io.MultiWriter(c, &got), c)
			_ = c.Close()
			all <- got.Bytes()
		}
	}()
	return l.Addr().String(), all
}

// What passes is what was written, in order, however it is delayed and throttled.
func TestBytesStayAsTheyAre(t *testing.T) {
	address, received := echo(t)
	n := New(1, Plan{Delay: 2 * time.Millisecond, Trickles: 1, Rate: 200_000})
	defer n.Close()
	c, err := n.Dial(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 20_000)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	go func() { _, _ = c.Write(sent) }()
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(back, sent) {
		t.Errorf("what came back is not what was sent: %v", err)
	}
	_ = c.Close()
	if got := <-received; !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived of %d", len(got), len(sent))
	}
	if counts := n.Counts(); counts.Throttled != 1 || counts.Bytes != int64(2*len(sent)) {
		t.Error(counts)
	}
}

// What is cut comes late where it is to: behind what the client writes to its next connection, and whole.
func TestWhatWasCutComesLate(t *testing.T) {
	address, received := echo(t)
	n := New(3, Plan{Delay: time.Hour, Lives: 20 * time.Millisecond, Late: 200 * time.Millisecond})
	defer n.Close()
	c, err := n.Dial(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("zombie")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was not cut")
	}
	if got := <-received; string(got) != "zombie" {
		t.Errorf("%q came late", got)
	}
	if counts := n.Counts(); counts.Cuts != 1 || counts.Late != 1 {
		t.Error(counts)
	}
}

// Without harm there is none, and after Heal there is none any more.
func TestHeal(t *testing.T) {
	address, received := echo(t)
	n := New(1, Plan{Refusals: 1})
	defer n.Close()
	ask := func() error {
		c, err := n.Dial(context.Background(), address)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	}
	if ask() == nil {
		t.Error("a connection that was to be refused was not")
	}
	n.Heal()
	if err := ask(); err != nil {
		t.Error(err)
	}
	<-received
	if counts := n.Counts(); counts.Refused != 1 || counts.Connections != 2 {
		t.Error(counts)
	}
}
