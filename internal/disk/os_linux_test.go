package disk

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKernelReleases(t *testing.T) {
	for release, want := range map[string]bool{
		"5.8.0": true, "5.8": true, "5.10.0-28-amd64": true, "6.1.0": true, "10.0": true,
		"5.7.19": false, "4.19.0": false, "3.10.0-1160.el7": false, "": false, "six": false, "6": false,
	} {
		require.Equal(t, want, atLeastRelease(release, 5, 8), release)
	}
}

// blocks is the space that a file takes, in bytes.
func blocks(t *testing.T, name string) int64 {
	t.Helper()
	st, err := os.Stat(name)
	require.NoError(t, err)
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestPreallocateTakesSpaceAndTruncateGivesItBack asks the file system of the temporary directory;
// one without fallocate may answer with nothing reserved.
func TestPreallocateTakesSpaceAndTruncateGivesItBack(t *testing.T) {
	name := t.TempDir() + "/file"
	f := open(t, OS, name, New)
	write(t, f, "content", 0)
	require.NoError(t, f.SyncData()) // delayed allocation would count as nothing
	small := blocks(t, name)
	require.NoError(t, f.Preallocate(0, 8<<20))
	if reserved := blocks(t, name); reserved != small {
		require.GreaterOrEqual(t, reserved, int64(8<<20))
	}
	require.NoError(t, f.Truncate(7))
	require.LessOrEqual(t, blocks(t, name), small)
	require.Equal(t, "content", content(t, OS, name))
	require.NoError(t, f.Close())
}

// TestSyncFSIsTrustedWhereErrorsAreReported: the kernel's pseudo file systems are not on the list.
func TestSyncFSIsTrustedWhereErrorsAreReported(t *testing.T) {
	v, err := OS.Volume("/proc")
	require.NoError(t, err)
	require.ErrorIs(t, v.SyncFS(), errors.ErrUnsupported)
	require.NoError(t, v.Close())
	v, err = OS.Volume(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, v.Close())
	if err := v.SyncFS(); !errors.Is(err, errors.ErrUnsupported) {
		require.ErrorIs(t, err, os.ErrClosed)
	}
}
