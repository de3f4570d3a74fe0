package netx

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"barnabas/internal/faketime"
)

// A process that stands still neither reads nor writes nor accepts, and finds it all waiting when it goes on.
func TestMemPausedHostStandsStill(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := NewMem(1)
		near, far := memPair(t, m)
		defer func() { _ = near.Close() }() // the other end dies with its host
		l, err := m.Host("b").Listen(t.Context(), ":9092")
		require.NoError(t, err)

		m.Pause("b")
		began := time.Now()
		_, err = near.Write([]byte("ask"))
		require.NoError(t, err, "its kernel takes what it is sent")
		other, err := m.Host("a").Dial(t.Context(), l.Addr().String())
		require.NoError(t, err, "and connections")
		defer func() { require.NoError(t, other.Close()) }()
		time.AfterFunc(3*time.Second, func() { m.Resume("b") })

		require.NoError(t, far.SetReadDeadline(began.Add(time.Hour)))
		var got [3]byte
		_, err = io.ReadFull(far, got[:])
		require.NoError(t, err)
		require.Equal(t, "ask", string(got[:]))
		require.InDelta(t, 3*time.Second, time.Since(began), float64(5*time.Millisecond), "it reads when it goes on")
		c, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, c.Close())

		m.Pause("b")
		began = time.Now()
		time.AfterFunc(time.Second, func() { m.Resume("b") })
		_, err = far.Write([]byte("answer"))
		require.NoError(t, err)
		require.InDelta(t, time.Second, time.Since(began), float64(5*time.Millisecond), "it writes when it goes on")
		_, err = io.ReadFull(near, make([]byte, 6))
		require.NoError(t, err)

		m.Pause("b")
		began = time.Now()
		time.AfterFunc(time.Second, func() { m.Resume("b") })
		require.NoError(t, far.SetReadDeadline(began.Add(time.Millisecond)))
		_, err = far.Read(make([]byte, 1))
		require.Error(t, err)
		require.InDelta(t, time.Second, time.Since(began), float64(5*time.Millisecond), "no deadline passes for it meanwhile")

		m.Pause("b")
		soon, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = m.Host("b").Dial(soon, "a:1")
		require.ErrorIs(t, err, context.DeadlineExceeded, "it reaches nobody")
		m.Kill("b")
		_, err = near.Read(make([]byte, 1))
		require.Error(t, err, "a process that stands still can be killed")
		l, err = m.Host("b").Listen(t.Context(), ":9092")
		require.NoError(t, err, "and its next life goes on")
		require.NoError(t, l.Close())
	})
}
