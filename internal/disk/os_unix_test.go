//go:build linux || darwin

package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const lockHelper = "BARNABAS_DISK_TEST_LOCK" // the file that a second process shall lock

// TestLockHelper is the second process of TestLockOfAnotherProcess, and nothing when it is not.
func TestLockHelper(t *testing.T) {
	name := os.Getenv(lockHelper)
	if name == "" {
		return
	}
	_, err := OS.Lock(name, fmt.Sprint("pid ", os.Getpid()))
	require.NoError(t, err)
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed, or the parent is gone
}

func TestLockOfAnotherProcess(t *testing.T) {
	name := t.TempDir() + "/.lock"
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockHelper$")
	cmd.Env = append(os.Environ(), lockHelper+"="+name)
	_, err := cmd.StdinPipe() // closed by Wait, or with this process
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)
	_, err = OS.Lock(name, "us")
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, fmt.Sprint("pid ", cmd.Process.Pid), locked.Holder)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	l, err := OS.Lock(name, "us")
	require.NoError(t, err, "a lock ends with its process, even with kill -9")
	require.NoError(t, l.Close())
}

// TestFlushNeverHitsAnotherFile closes files while they are flushed and others take their numbers:
// a flush either succeeds on its own file or says that it is closed.
func TestFlushNeverHitsAnotherFile(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		f := open(t, OS, fmt.Sprint(dir, "/", i), New)
		write(t, f, "content", 0)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := f.SyncData(); err != nil && !errors.Is(err, fs.ErrClosed) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { f.Descriptor(func(fd int) { ours(t, fd, fmt.Sprint(dir, "/", i)) }) })
		pipe, other, err := os.Pipe() // would take the number; a pipe cannot be flushed
		require.NoError(t, err)
		wg.Wait()
		require.NoError(t, errors.Join(pipe.Close(), other.Close()))
	}
}

// ours wants fd to be the named file.
func ours(t *testing.T, fd int, name string) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Stat(name, &b)); err != nil || a.Ino != b.Ino {
		t.Errorf("descriptor %d is not %s: %v", fd, name, err)
	}
}

func TestInterruptedCallsAreMadeAgain(t *testing.T) {
	calls := 0
	err := uninterrupted(func() error {
		if calls++; calls < 3 {
			return &fs.PathError{Err: unix.EINTR}
		}
		return unix.EIO
	})
	require.Equal(t, 3, calls)
	require.Equal(t, unix.EIO, err, "and no other error is tried again")
}

func TestListFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/real", 0o700))
	require.NoError(t, os.Symlink("real", dir+"/link"))
	require.NoError(t, os.Symlink("nowhere", dir+"/loose"))
	entries, err := OS.List(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	require.Equal(t, "link", entries[0].Name)
	require.True(t, entries[0].Dir)
	require.Equal(t, "loose", entries[1].Name)
	require.False(t, entries[1].Dir)
}
