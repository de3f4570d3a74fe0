package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// sink is a connection that keeps what is written, up to a failure.
type sink struct {
	bytes.Buffer
	writes int
	fail   int // of the writes from here on; 0 never
}

var errSink = errors.New("sink is full")

func (s *sink) Write(p []byte) (int, error) {
	s.writes++
	if s.fail > 0 && s.writes >= s.fail {
		return 0, errSink
	}
	return s.Buffer.Write(p)
}
func (*sink) Close() error                     { return nil }
func (*sink) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*sink) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*sink) SetDeadline(time.Time) error      { return nil }
func (*sink) SetReadDeadline(time.Time) error  { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }

type file struct {
	data   []byte
	short  bool
	opened *int
}

func openFile(data []byte, short bool, opened *int) file {
	*opened++
	return file{data, short, opened}
}

func (f file) Len() int64 { return int64(len(f.data)) }
func (f file) SendTo(c net.Conn) (int64, error) {
	data := f.data
	if f.short {
		data = data[:len(data)/2]
	}
	n, err := c.Write(data)
	return int64(n), err
}

func (f file) AppendTo(dst []byte) ([]byte, error) {
	if f.short {
		return append(dst, f.data[:len(f.data)/2]...), nil
	}
	return append(dst, f.data...), nil
}
func (f file) Close() error { *f.opened--; return nil }

// writeReply writes one random reply and gives what it must be on the wire; nil if it is discarded.
func writeReply(o *Out, dice *rand.Rand, id int32, opened *int) []byte {
	flexible := dice.IntN(2) == 0
	o.Begin(id, flexible)
	want := binary.BigEndian.AppendUint32(nil, uint32(id))
	if flexible {
		want = append(want, 0)
	}
	for range dice.IntN(6) {
		data := bytes.Repeat([]byte{byte(dice.Uint32())}, 1+dice.IntN(2*inlineBytes))
		want = append(want, data...)
		switch dice.IntN(4) {
		case 0:
			o.Append(func(b []byte) []byte { return append(b, data...) })
		case 1:
			o.Bytes(data)
		case 2:
			o.File(openFile(data, false, opened))
		case 3:
			o.Waiting()
			o.Bytes(data)
		}
	}
	if dice.IntN(5) == 0 {
		o.Discard()
		return nil
	}
	size, err := o.End()
	if err != nil || size != int64(len(want)+LengthBytes) {
		panic("End")
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(want))), want...)
}

// What is sent is every completed reply, whole and in order, whenever it is flushed, also in the
// middle of the next; every file is closed; no memory is kept once all is sent.
func TestOutSendsCompleteRepliesInOrder(t *testing.T) {
	var pool Pool
	for seed := range uint64(500) {
		dice := rand.New(rand.NewPCG(seed, 0))
		o, c, opened := &Out{Pool: &pool}, &sink{}, 0
		if dice.IntN(2) == 0 {
			o.OnWaiting(func(o *Out) error { return o.Flush(c) })
		}
		var want []byte
		for id := range int32(dice.IntN(20)) {
			want = append(want, writeReply(o, dice, id, &opened)...)
			if dice.IntN(3) == 0 {
				if err := o.Flush(c); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		if o.Size() != int64(len(want)-c.Len()) {
			t.Fatalf("seed %d: %d bytes wait, want %d", seed, o.Size(), len(want)-c.Len())
		}
		if dice.IntN(2) == 0 {
			rest, err := o.Take(nil)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			c.Buffer.Write(rest)
		} else if err := o.Flush(c); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !bytes.Equal(c.Bytes(), want) {
			t.Fatalf("seed %d: %d bytes sent are not the %d expected", seed, c.Len(), len(want))
		}
		if opened != 0 || o.store != nil {
			t.Fatalf("seed %d: %d files open, memory held: %t", seed, opened, o.store != nil)
		}
	}
}

// Whichever write fails, every file is closed.
func TestOutClosesFilesWhenSendingFails(t *testing.T) {
	for seed := range uint64(300) {
		dice := rand.New(rand.NewPCG(seed, 1))
		o, c, opened := &Out{}, &sink{fail: 1 + dice.IntN(6)}, 0
		for id := range int32(5) {
			writeReply(o, dice, id, &opened)
		}
		if err := o.Flush(c); err != nil && !errors.Is(err, errSink) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if opened != 0 || o.Complete() {
			t.Fatalf("seed %d: %d files open, something left: %t", seed, opened, o.Complete())
		}
	}
}

// A range that gives less than it promised cannot be repaired: the length has been said.
func TestOutRefusesShortFiles(t *testing.T) {
	for _, size := range []int{100, 2 * inlineBytes} {
		opened := 0
		o, c := &Out{}, &sink{}
		o.Begin(1, false)
		o.File(openFile(make([]byte, size), true, &opened))
		_, err := o.End()
		if err == nil {
			err = o.Flush(c)
		}
		if err == nil || opened != 0 {
			t.Errorf("%d bytes: error %v, %d files open", size, err, opened)
		}
	}
}

// Small replies and small ranges of a burst leave in one write, and large bytes are not copied.
func TestOutWritesOnce(t *testing.T) {
	o, c, opened := &Out{}, &sink{}, 0
	for id := range int32(50) {
		o.Begin(id, true)
		o.File(openFile(make([]byte, 100), false, &opened))
		if _, err := o.End(); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Flush(c); err != nil || c.writes != 1 {
		t.Errorf("%d writes, %v", c.writes, err)
	}
	large := make([]byte, 10*inlineBytes)
	o.Begin(1, true)
	o.Bytes(large)
	if len(o.buf) >= len(large) {
		t.Errorf("%d bytes in the buffer", len(o.buf))
	}
	o.Reset()
}

func TestOutDoesNotAllocate(t *testing.T) {
	var pool Pool
	o, c := &Out{Pool: &pool}, &sink{}
	body := make([]byte, 100)
	encode := func(b []byte) []byte { return append(b, body...) }
	n := testing.AllocsPerRun(1000, func() {
		c.Reset()
		for id := range int32(5) {
			o.Begin(id, true)
			o.Append(encode)
			if _, err := o.End(); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Flush(c); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 && !poolsForget {
		t.Errorf("%v allocations", n)
	}
}
