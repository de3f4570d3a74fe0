package netx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"barnabas/internal/faketime"
)

// osFile is a FileReader that says whether it was copied from.
type osFile struct {
	*os.File
	noDescriptor bool
	copied       bool
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	f.copied = true
	return f.File.ReadAt(p, off)
}

func (f *osFile) Descriptor(use func(fd int)) bool {
	if f.noDescriptor {
		return false
	}
	raw, err := f.SyscallConn()
	return err == nil && raw.Control(func(fd uintptr) { use(int(fd)) }) == nil
}

func randomFile(t *testing.T, size int) (*osFile, []byte) {
	t.Helper()
	content := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content)
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, content, 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return &osFile{File: f}, content
}

// tcpPair returns both ends of a connection over the loopback.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := TCP.Listen(context.Background(), "127.0.0.1:0")
	require.NoError(t, err)
	near, err = TCP.Dial(context.Background(), l.Addr().String())
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// receive collects what comes until the end of the stream.
func receive(c net.Conn) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(c)
		got <- data
	}()
	return got
}

// TestSendFileToManyReaders sends random ranges of one open file on eight connections at once:
// a position that they shared would show as bytes from elsewhere.
func TestSendFileToManyReaders(t *testing.T) {
	const readers, ranges = 8, 10
	for _, copying := range []bool{false, true} {
		f, content := randomFile(t, 3<<20)
		f.noDescriptor = copying
		var wg sync.WaitGroup
		for reader := range uint64(readers) {
			near, far := tcpPair(t)
			wg.Go(func() {
				var want []byte
				got := receive(far)
				r := rand.New(rand.NewPCG(reader, 2))
				own := &osFile{File: f.File, noDescriptor: copying}
				for range ranges {
					off := r.Int64N(int64(len(content)))
					n := r.Int64N(min(512<<10, int64(len(content))-off) + 1)
					want = append(want, content[off:off+n]...)
					if sent, err := SendFile(near, own, off, n); err != nil || sent != n {
						t.Errorf("reader %d: sent %d of %d bytes from %d: %v", reader, sent, n, off, err)
					}
				}
				if err := near.Close(); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(<-got, want) {
					t.Errorf("reader %d got other bytes than were sent", reader)
				}
				if want := copying || runtime.GOOS != "linux"; own.copied != want {
					t.Errorf("reader %d: copied: %v, want %v", reader, own.copied, want)
				}
			})
		}
		wg.Wait()
	}
}

func TestSendFileOfAFileThatEndsEarly(t *testing.T) {
	for _, copying := range []bool{false, true} {
		f, content := randomFile(t, 100_000)
		f.noDescriptor = copying
		near, far := tcpPair(t)
		got := receive(far)
		sent, err := SendFile(near, f, 60_000, 50_000)
		require.EqualValues(t, 40_000, sent)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		var fault *FileError
		require.ErrorAs(t, err, &fault)
		require.EqualValues(t, 100_000, fault.Off)
		sent, err = SendFile(near, f, 200_000, 1)
		require.Zero(t, sent)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		sent, err = SendFile(near, f, 200_000, 0)
		require.Zero(t, sent)
		require.NoError(t, err, "nothing asked, nothing missing")
		require.NoError(t, near.Close())
		require.Equal(t, content[60_000:], <-got)
	}
}

// TestSendFileWaitsForASlowReader fills the socket, so that the send has to wait, twice: for the
// reader and then, as nobody reads, for its deadline.
func TestSendFileWaitsForASlowReader(t *testing.T) {
	for _, copying := range []bool{false, true} {
		f, content := randomFile(t, 16<<20)
		f.noDescriptor = copying
		near, far := tcpPair(t)
		require.NoError(t, near.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		sent, err := SendFile(near, f, 0, int64(len(content)))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NotErrorAs(t, err, new(*FileError))
		require.Less(t, sent, int64(len(content)))
		require.NoError(t, near.SetWriteDeadline(time.Time{}))
		got := receive(far)
		rest, err := SendFile(near, f, sent, int64(len(content))-sent)
		require.NoError(t, err)
		require.EqualValues(t, len(content), sent+rest)
		require.NoError(t, near.Close())
		require.True(t, bytes.Equal(content, <-got), "what was sent before and after the wait")
	}
}

func TestSendFileOnAConnectionThatBreaks(t *testing.T) {
	for _, copying := range []bool{false, true} {
		f, content := randomFile(t, 16<<20)
		f.noDescriptor = copying
		near, far := tcpPair(t)
		done := make(chan error, 1)
		go func() {
			_, err := SendFile(near, f, 0, int64(len(content)))
			done <- err
		}()
		_, err := io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, far.Close()) // with bytes unread: a reset
		err = <-done
		require.Error(t, err)
		require.NotErrorAs(t, err, new(*FileError))
		require.NoError(t, near.Close())
		_, err = SendFile(near, f, 0, 1)
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// TestSendFileOutlivesTheFilesClose closes the file in the middle of a send. The descriptor must
// not be given to another file before the send is over.
func TestSendFileOutlivesTheFilesClose(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // elsewhere ReadAt fails, and the send says so
	}
	f, content := randomFile(t, 16<<20)
	near, far := tcpPair(t)
	done := make(chan error, 1)
	go func() {
		_, err := SendFile(near, f, 0, int64(len(content)))
		done <- errors.Join(err, near.Close())
	}()
	first := make([]byte, 1)
	_, err := io.ReadFull(far, first)
	require.NoError(t, err)
	require.NoError(t, f.File.Close())
	other, err := os.Create(filepath.Join(t.TempDir(), "other")) // would get the number
	require.NoError(t, err)
	require.NoError(t, other.Truncate(int64(len(content))))
	rest := <-receive(far)
	require.NoError(t, <-done)
	require.True(t, bytes.Equal(content, slices.Concat(first, rest)))
	require.NoError(t, other.Close())
}

type brokenFile struct{ at int64 }

func (f brokenFile) Descriptor(func(int)) bool { return false }

func (f brokenFile) ReadAt(p []byte, off int64) (int, error) {
	if n := f.at - off; n < int64(len(p)) {
		return int(max(0, n)), syscall.EIO
	}
	return len(p), nil
}

func TestSendFileTellsTheFilesFaultFromTheConnections(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		near, far := memPair(t, NewMem(1))
		got := receive(far)
		sent, err := SendFile(near, brokenFile{at: 100_000}, 0, 200_000)
		require.EqualValues(t, 100_000, sent)
		var fault *FileError
		require.ErrorAs(t, err, &fault)
		require.EqualValues(t, 100_000, fault.Off)
		require.ErrorIs(t, err, syscall.EIO)
		require.NoError(t, near.Close())
		require.Len(t, <-got, 100_000)
		_, err = SendFile(near, brokenFile{at: 100}, 0, 1)
		require.ErrorIs(t, err, net.ErrClosed)
		require.NotErrorAs(t, err, new(*FileError))
		require.NoError(t, far.Close())
	})
}
