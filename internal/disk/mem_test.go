package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"barnabas/internal/faketime"
)

var errDisk = errors.New("the disk says no")

// on makes a Fault that answers one kind of Op.
func on(k Kind, answer func(Op) error) Fault {
	return func(op Op) error {
		if op.Kind == k {
			return answer(op)
		}
		return nil
	}
}

func always(err error) func(Op) error { return func(Op) error { return err } }

// newFile makes a durable, empty file on a new disk.
func newFile(t *testing.T) (*Mem, File) {
	t.Helper()
	m := NewMem()
	f := open(t, m, "/file", New)
	require.NoError(t, m.SyncDir("/"))
	return m, f
}

// TestTrap08FailedFlushIsNotRetried: after a flush that failed the next says success and reads
// show the data, and yet it is on no disk that a crash leaves.
func TestTrap08FailedFlushIsNotRetried(t *testing.T) {
	flushes := map[Kind]func(m *Mem, f File) error{
		OpSync: func(_ *Mem, f File) error { return f.SyncData() },
		OpSyncFS: func(m *Mem, _ File) error {
			v, err := m.Volume("/")
			if err != nil {
				return err
			}
			return v.SyncFS()
		},
	}
	for kind, flush := range flushes {
		for seed := range uint64(50) {
			m, f := newFile(t)
			write(t, f, "kept", 0)
			require.NoError(t, flush(m, f))
			write(t, f, " lost", 4)
			m.SetFault(on(kind, always(errDisk)))
			require.ErrorIs(t, flush(m, f), errDisk)
			m.SetFault(nil)
			require.NoError(t, flush(m, f))
			require.Equal(t, "kept lost", content(t, m, "/file"))
			write(t, f, " new", 9)
			require.NoError(t, flush(m, f))
			require.Equal(t, "kept\x00\x00\x00\x00\x00 new", content(t, m.Crash(seed), "/file"), "seed %d, %s", seed, kind)
		}
	}
}

func TestFailedDirectoryFlushLosesNames(t *testing.T) {
	for seed := range uint64(50) {
		m := NewMem()
		put(t, m, "/lost", "")
		m.SetFault(on(OpSyncDir, always(errDisk)))
		require.ErrorIs(t, m.SyncDir("/"), errDisk)
		m.SetFault(nil)
		put(t, m, "/new", "")
		require.NoError(t, m.SyncDir("/"))
		require.Equal(t, []string{"lost", "new"}, names(t, m, "/"))
		require.Equal(t, []string{"new"}, names(t, m.Crash(seed), "/"), "seed %d", seed)
	}
}

func TestFailedDirectoryFlushLosesARenameInBoth(t *testing.T) {
	for seed := range uint64(20) {
		m := NewMem()
		require.NoError(t, MkdirAllSync(m, "/from"))
		require.NoError(t, MkdirAllSync(m, "/to"))
		require.NoError(t, WriteFileAtomic(m, "/from/file", []byte("x")))
		require.NoError(t, m.Rename("/from/file", "/to/file"))
		m.SetFault(on(OpSyncDir, always(errDisk)))
		require.ErrorIs(t, m.SyncDir("/from"), errDisk)
		m.SetFault(nil)
		require.NoError(t, m.SyncDir("/to"))
		after := m.Crash(seed)
		require.Empty(t, names(t, after, "/to"))
		require.Equal(t, "x", content(t, after, "/from/file"))
	}
}

// TestFlushCoversWhatWasThereWhenItBegan lets a flush take a second, in which more is written.
func TestFlushCoversWhatWasThereWhenItBegan(t *testing.T) {
	late := 0
	for seed := range uint64(40) {
		faketime.Test(t, func(t *testing.T) {
			m, f := newFile(t)
			m.SetFault(on(OpSync, func(Op) error { time.Sleep(time.Second); return nil }))
			write(t, f, "before", 0)
			time.AfterFunc(time.Second/2, func() { _, _ = f.WriteAt([]byte("after"), 6) })
			require.NoError(t, f.SyncData())
			switch got := content(t, m.Crash(seed), "/file"); {
			case len(got) < 6 || got[:6] != "before":
				t.Fatalf("seed %d: %q", seed, got)
			case got != "beforeafter":
				late++
			}
		})
	}
	require.NotZero(t, late, "what was written during the flush is not durable by it")
}

// TestSlowDiskBlocksNobodyElse sleeps in one Op while others go on: in a bubble a lock held across
// the sleep would stop time for good.
func TestSlowDiskBlocksNobodyElse(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m, f := newFile(t)
		m.SetFault(func(op Op) error {
			if op.Path == "/file" {
				time.Sleep(time.Minute)
			}
			return nil
		})
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 4 {
			wg.Go(func() { _, _ = f.WriteAt([]byte("slow"), int64(i)*4); _ = f.SyncData() })
		}
		for i := range 10 {
			put(t, m, fmt.Sprint("/quick", i), "x")
		}
		require.Zero(t, time.Since(start))
		wg.Wait()
		require.Equal(t, 2*time.Minute, time.Since(start))
	})
}

// TestFaultSeesEveryOp first, with its extent, and may refuse it; a refused Op changes nothing.
func TestFaultSeesEveryOp(t *testing.T) {
	m := NewMem()
	require.NoError(t, m.MkdirAll("/dir/sub"))
	put(t, m, "/dir/file", "content")
	f := open(t, m, "dir/file", Create)
	v, err := m.Volume("/dir")
	require.NoError(t, err)
	calls := []struct {
		op   Op
		call func() error
	}{
		{Op{Kind: OpOpen, Path: "/dir/new"}, func() error { _, err := m.Open("/dir//new", New); return err }},
		{Op{Kind: OpRead, Path: "dir/file", Off: 2, Len: 3}, func() error { _, err := f.ReadAt(make([]byte, 3), 2); return err }},
		{Op{Kind: OpWrite, Path: "dir/file", Off: 2, Len: 3}, func() error { _, err := f.WriteAt(make([]byte, 3), 2); return err }},
		{Op{Kind: OpTruncate, Path: "dir/file", Off: 2}, func() error { return f.Truncate(2) }},
		{Op{Kind: OpPreallocate, Path: "dir/file", Off: 2, Len: 9}, func() error { return f.Preallocate(2, 9) }},
		{Op{Kind: OpSync, Path: "dir/file"}, f.SyncData},
		{Op{Kind: OpSize, Path: "dir/file"}, func() error { _, err := f.Size(); return err }},
		{Op{Kind: OpMkdir, Path: "/dir/more"}, func() error { return m.MkdirAll("/dir/more") }},
		{Op{Kind: OpList, Path: "/dir"}, func() error { _, err := m.List("/dir"); return err }},
		{Op{Kind: OpStat, Path: "/dir"}, func() error { _, err := m.Stat("/dir"); return err }},
		{Op{Kind: OpExchange, Path: "/dir/file", To: "/dir/file"}, func() error { return m.Exchange("/dir/file", "/dir/file") }},
		{Op{Kind: OpRename, Path: "/dir/file", To: "/dir/moved"}, func() error { return m.Rename("/dir/file", "/dir/moved") }},
		{Op{Kind: OpRemove, Path: "/dir/file"}, func() error { return m.Remove("/dir/file") }},
		{Op{Kind: OpRemove, Path: "/dir/missing"}, func() error { return m.Remove("/dir/missing") }},
		{Op{Kind: OpSyncDir, Path: "/dir"}, func() error { return m.SyncDir("/dir") }},
		{Op{Kind: OpSyncFS, Path: "/dir"}, v.SyncFS},
		{Op{Kind: OpFree, Path: "/dir"}, func() error { _, _, err := m.Free("/dir"); return err }},
		{Op{Kind: OpLock, Path: "/dir/lock"}, func() error { _, err := m.Lock("/dir/lock", "me"); return err }},
		{Op{Kind: OpVolume, Path: "/dir"}, func() error { _, err := m.Volume("/dir"); return err }},
	}
	before := tree(t, m, "/")
	for _, c := range calls {
		var seen []Op
		m.SetFault(func(op Op) error { seen = append(seen, op); return errDisk })
		err := c.call()
		m.SetFault(nil)
		require.ErrorIs(t, err, errDisk, c.op.Kind)
		require.ErrorContains(t, err, c.op.Path)
		require.Equal(t, []Op{c.op}, seen)
		require.Equal(t, before, tree(t, m, "/"), c.op.Kind)
		m.SetFault(on(c.op.Kind, always(nil)))
		require.NoError(t, c.call(), c.op.Kind)
		m.SetFault(nil)
		put(t, m, "/dir/file", "content")
		for _, made := range []string{"new", "more", "moved", "lock"} {
			require.NoError(t, m.Remove("/dir/"+made))
		}
		f = open(t, m, "dir/file", Create)
	}
}

func TestShortLetsAPartThrough(t *testing.T) {
	m, f := newFile(t)
	m.SetFault(on(OpWrite, always(Short{N: 4, Err: errDisk})))
	n, err := f.WriteAt([]byte("half of it"), 0)
	require.ErrorIs(t, err, errDisk)
	require.Equal(t, 4, n)
	m.SetFault(on(OpRead, always(fmt.Errorf("wrapped: %w", Short{N: 2}))))
	buf := make([]byte, 4)
	n, err = f.ReadAt(buf, 0)
	require.Error(t, err)
	require.Equal(t, "ha", string(buf[:n]))
	m.SetFault(on(OpTruncate, always(Short{N: 1, Err: errDisk})))
	require.ErrorIs(t, f.Truncate(0), errDisk, "what has no length fails as a whole")
	m.SetFault(nil)
	require.Equal(t, "half", content(t, m, "/file"))
}

func TestGarbledReadIsNotOnTheDisk(t *testing.T) {
	m, f := newFile(t)
	write(t, f, "content", 0)
	m.SetFault(on(OpRead, always(Garbled{Off: 1, Bit: 1})))
	buf := make([]byte, 7)
	_, err := f.ReadAt(buf, 0)
	require.NoError(t, err)
	require.Equal(t, "cmntent", string(buf))
	m.SetFault(nil)
	require.Equal(t, "content", content(t, m, "/file"))
}

func TestFlipBit(t *testing.T) {
	for seed := range uint64(20) {
		m, f := newFile(t)
		write(t, f, "flushed", 0)
		require.NoError(t, f.SyncData())
		require.NoError(t, m.FlipBit("/file", 0, 5))
		write(t, f, " unflushed", 7)
		require.NoError(t, m.FlipBit("/file", 8, 5))
		require.Equal(t, "Flushed Unflushed", content(t, m, "/file"))
		require.NoError(t, f.SyncData())
		require.Equal(t, "Flushed Unflushed", content(t, m.Crash(seed), "/file"))
	}
	m, _ := newFile(t)
	require.ErrorIs(t, m.FlipBit("/file", 0, 0), fs.ErrInvalid)
	require.ErrorIs(t, m.FlipBit("/missing", 0, 0), fs.ErrNotExist)
}

// used is how many bytes of a disk with a capacity are taken.
func used(t *testing.T, m *Mem) int {
	t.Helper()
	avail, total, err := m.Free("/")
	require.NoError(t, err)
	return int(total - avail)
}

func TestFullDisk(t *testing.T) {
	m, f := newFile(t)
	m.SetCapacity(10 * pageBytes)
	reserve := open(t, m, "/reserve", New)
	require.NoError(t, reserve.Preallocate(100, 3*pageBytes))
	require.Equal(t, 4*pageBytes, used(t, m))
	n, err := f.WriteAt(make([]byte, 8*pageBytes), 1000)
	require.True(t, IsNoSpace(err), err)
	require.Equal(t, 6*pageBytes-1000, n, "what fits is written")
	size, err := f.Size()
	require.NoError(t, err)
	require.EqualValues(t, 6*pageBytes, size)
	write(t, f, "in place", 0)
	n, err = f.WriteAt([]byte("x"), 6*pageBytes)
	require.True(t, IsNoSpace(err), err)
	require.Zero(t, n)
	require.True(t, IsNoSpace(f.Preallocate(0, 7*pageBytes)))
	require.NoError(t, f.Preallocate(0, 6*pageBytes), "is there already")
	write(t, reserve, string(make([]byte, 3*pageBytes)), 100)
	require.Equal(t, 10*pageBytes, used(t, m), "the reserve was for this")
	_, err = m.Lock("/lock", "me")
	require.NoError(t, err, "names take no space")

	require.NoError(t, f.Truncate(1))
	require.Equal(t, 5*pageBytes, used(t, m))
	require.NoError(t, m.Remove("/reserve"))
	require.Equal(t, 5*pageBytes, used(t, m), "who has it open still reads it")
	require.NoError(t, reserve.Close())
	require.Equal(t, pageBytes, used(t, m))
	put(t, m, "/new", "x")
	require.NoError(t, m.Rename("/new", "/file"))
	require.Equal(t, 2*pageBytes, used(t, m))
	require.NoError(t, f.Close())
	require.Equal(t, pageBytes, used(t, m))
	m.SetCapacity(0)
	_, total, err := m.Free("/")
	require.NoError(t, err)
	require.Equal(t, uint64(1<<40), total)
}

// TestSpaceIsAccountedFor does random things and compares the counter with a count.
func TestSpaceIsAccountedFor(t *testing.T) {
	for seed := range uint64(200) {
		m := busyDisk(seed)
		want := m.used
		require.Equal(t, m.root.closeAll(), want, "seed %d", seed)
		require.LessOrEqual(t, int64(used(t, m.Crash(seed))), int64(1<<20))
	}
}

func TestIsNoSpace(t *testing.T) {
	require.True(t, IsNoSpace(&fs.PathError{Err: syscall.ENOSPC}))
	require.True(t, IsNoSpace(fmt.Errorf("append: %w", syscall.EDQUOT)))
	require.False(t, IsNoSpace(syscall.EIO))
	require.False(t, IsNoSpace(nil))
}

// TestSyncFSFlushesAllBelow its directory, names and contents, and nothing else.
func TestSyncFSFlushesAllBelow(t *testing.T) {
	for seed := range uint64(100) {
		m := NewMem()
		require.NoError(t, MkdirAllSync(m, "/one"))
		require.NoError(t, MkdirAllSync(m, "/two"))
		v, err := m.Volume("/one")
		require.NoError(t, err)
		for _, dir := range []string{"/one", "/two"} {
			require.NoError(t, m.MkdirAll(dir+"/deep/down"))
			for i := range 5 {
				put(t, m, fmt.Sprint(dir, "/deep/down/", i), "content")
			}
			require.NoError(t, m.Rename(dir+"/deep/down/0", dir+"/moved"))
		}
		want := tree(t, m, "/one")
		require.NoError(t, v.SyncFS())
		require.NoError(t, v.Close())
		require.ErrorIs(t, v.SyncFS(), fs.ErrClosed)
		before := tree(t, m, "/two")
		after := m.Crash(seed)
		require.Equal(t, want, tree(t, after, "/one"), "seed %d", seed)
		if seed == 0 {
			require.NotEqual(t, before, tree(t, after, "/two"))
		}
	}
}

func TestFailedSyncFSSparesOtherVolumes(t *testing.T) {
	for seed := range uint64(30) {
		m := NewMem()
		for _, dir := range []string{"/one", "/two"} {
			require.NoError(t, MkdirAllSync(m, dir))
			put(t, m, dir+"/file", "content")
		}
		v, err := m.Volume("/one")
		require.NoError(t, err)
		m.SetFault(on(OpSyncFS, always(errDisk)))
		require.ErrorIs(t, v.SyncFS(), errDisk)
		f := open(t, m, "/two/file", Read)
		require.NoError(t, f.SyncData())
		require.NoError(t, m.SyncDir("/two"))
		after := m.Crash(seed)
		require.Empty(t, names(t, after, "/one"), "seed %d", seed)
		require.Equal(t, "content", content(t, after, "/two/file"))
	}
}

// everyCall fails on a disk that is gone.
func everyCall(t *testing.T, m *Mem, f File, v Volume, want error) {
	t.Helper()
	_, err := f.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, want)
	_, err = f.WriteAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, want)
	_, err = f.Size()
	require.ErrorIs(t, err, want)
	require.ErrorIs(t, f.SyncData(), want)
	require.ErrorIs(t, f.Truncate(0), want)
	require.ErrorIs(t, f.Preallocate(0, 1), want)
	require.ErrorIs(t, v.SyncFS(), want)
	_, err = m.Open("/file", Create)
	require.ErrorIs(t, err, want)
	_, err = m.List("/")
	require.ErrorIs(t, err, want)
	_, err = m.Lock("/lock", "me")
	require.ErrorIs(t, err, want)
	require.ErrorIs(t, m.Rename("/file", "/x"), want)
	require.ErrorIs(t, m.Remove("/file"), want)
	require.ErrorIs(t, m.SyncDir("/"), want)
	require.NoError(t, f.Close())
	require.NoError(t, v.Close())
}

func TestOldHandlesOfACrashedDisk(t *testing.T) {
	for _, end := range []struct {
		of   func(*Mem) *Mem
		want error
	}{
		{func(m *Mem) *Mem { return m.Crash(1) }, ErrPowerLost},
		{(*Mem).Kill, ErrKilled},
	} {
		m, f := newFile(t)
		v, err := m.Volume("/")
		require.NoError(t, err)
		l, err := m.Lock("/lock", "me")
		require.NoError(t, err)
		m.SetFault(on(OpFree, always(errDisk)))
		next := end.of(m)
		everyCall(t, m, f, v, end.want)
		require.NoError(t, l.Close())
		_, err = next.Lock("/lock", "the next")
		require.NoError(t, err, "a lock ends with its process")
		_, _, err = next.Free("/")
		require.ErrorIs(t, err, errDisk, "faults stay")
		end.of(m)
		require.ErrorIs(t, m.SyncDir("/"), end.want)
	}
}

// TestCrashDuringAnOp: what is under way when the power goes fails, and leaves no trace.
func TestCrashDuringAnOp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m, f := newFile(t)
		m.SetFault(func(Op) error { time.Sleep(time.Second); return nil })
		failed := make(chan error, 2)
		go func() { _, err := f.WriteAt([]byte("x"), 0); failed <- err }()
		go func() { failed <- f.SyncData() }()
		time.Sleep(time.Second / 2)
		after := m.Crash(1)
		require.ErrorIs(t, <-failed, ErrPowerLost)
		require.ErrorIs(t, <-failed, ErrPowerLost)
		after.SetFault(nil)
		require.Empty(t, content(t, after, "/file"))
	})
}

// TestKillLosesNothingAndFlushesNothing: page cache that outlives its process is not durable.
func TestKillLosesNothingAndFlushesNothing(t *testing.T) {
	lost := 0
	for seed := range uint64(100) {
		m := busyDisk(seed)
		before := tree(t, m, "/")
		space := m.used
		m = m.Kill()
		require.Equal(t, before, tree(t, m, "/"))
		require.Equal(t, space, m.used)
		want := tree(t, busyDisk(seed).Crash(seed), "/")
		got := tree(t, m.Crash(seed), "/")
		require.Equal(t, want, got, "seed %d: a crash does the same with and without the kill", seed)
		if got != before {
			lost++
		}
	}
	require.Greater(t, lost, 50)
}

// TestSyncCostsWhatWasWritten and not what is there: a small append to a large file.
func TestSyncCostsWhatWasWritten(t *testing.T) {
	m, f := newFile(t)
	write(t, f, string(make([]byte, 32<<20)), 0)
	require.NoError(t, f.SyncData())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range 100 {
		write(t, f, "append", 32<<20+int64(i)*6)
		require.NoError(t, f.SyncData())
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20))
	require.Empty(t, m.dirty)
}

// TestRemovedFilesAreForgotten: what nothing leads to any more must not pile up in a long run.
func TestRemovedFilesAreForgotten(t *testing.T) {
	m := NewMem()
	for i := range 50 {
		dir := fmt.Sprint("/d", i)
		require.NoError(t, m.MkdirAll(dir))
		put(t, m, dir+"/file", "x")
		put(t, m, dir+"/temp", "x")
		require.NoError(t, m.Rename(dir+"/temp", dir+"/file"))
		f := open(t, m, dir+"/file", Create)
		require.NoError(t, m.Remove(dir))
		write(t, f, "y", 0)
		require.NoError(t, f.Close())
		require.NoError(t, m.SyncDir("/"))
	}
	require.Empty(t, m.dirty)
	require.Zero(t, m.used)
}

// TestWriteFileAtomicSurvivesCrashes crashes it at every Op that it makes, and fails each: the
// file has the old content or the new, and the new where the call said so.
func TestWriteFileAtomicSurvivesCrashes(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(60) {
		for stop := range 12 {
			m := NewMem()
			require.NoError(t, WriteFileAtomic(m, "/state", []byte("old")))
			var crashed *Mem
			ops := 0
			m.SetFault(func(op Op) error {
				if ops++; ops-1 == stop {
					crashed = m.Crash(seed)
				}
				return nil
			})
			err := WriteFileAtomic(m, "/state", []byte("new content"))
			require.Equal(t, crashed != nil, err != nil)
			if crashed == nil {
				crashed = m.Crash(seed)
			}
			crashed.SetFault(nil)
			got := content(t, crashed, "/state")
			if got != "old" && got != "new content" || err == nil && got == "old" {
				t.Fatalf("seed %d, crash at operation %d: %q, %v", seed, stop, got, err)
			}
			outcomes[got] = true
		}
	}
	require.Len(t, outcomes, 2)
	for stop := range 12 {
		m := NewMem()
		require.NoError(t, WriteFileAtomic(m, "/state", []byte("old")))
		ops := 0
		m.SetFault(func(Op) error {
			if ops++; ops-1 == stop {
				return errDisk
			}
			return nil
		})
		err := WriteFileAtomic(m, "/state", []byte("new content"))
		m.SetFault(nil)
		if ops > stop {
			require.ErrorIs(t, err, errDisk)
		} else {
			require.NoError(t, err)
			require.Equal(t, "new content", content(t, m, "/state"))
		}
		require.NoError(t, WriteFileAtomic(m, "/state", []byte("again")), "what a failure leaves is in nobody's way")
		require.Equal(t, []string{"state"}, names(t, m, "/"))
	}
}

// TestWriteFileReservedSurvivesCrashes at any of its steps: the old content or the new, whole.
func TestWriteFileReservedSurvivesCrashes(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(60) {
		for stop := range 12 {
			m := NewMem()
			require.NoError(t, WriteFileReserved(m, "/state", []byte("older, and longer")))
			require.NoError(t, WriteFileReserved(m, "/state", []byte("old")))
			var crashed *Mem
			ops := 0
			m.SetFault(func(op Op) error {
				if ops++; ops-1 == stop {
					crashed = m.Crash(seed)
				}
				return nil
			})
			err := WriteFileReserved(m, "/state", []byte("new content"))
			require.Equal(t, crashed != nil, err != nil)
			if crashed == nil {
				crashed = m.Crash(seed)
			}
			crashed.SetFault(nil)
			got := content(t, crashed, "/state")
			if got != "old" && got != "new content" || err == nil && got == "old" {
				t.Fatalf("seed %d, crash at operation %d: %q, %v", seed, stop, got, err)
			}
			outcomes[got] = true
			require.NoError(t, WriteFileReserved(crashed, "/state", []byte("again")), "what a crash leaves is in nobody's way")
			require.Equal(t, "again", content(t, crashed, "/state"))
		}
	}
	require.Len(t, outcomes, 2)
}

// TestWriteFileReservedOnAFullDisk while somebody takes every page that becomes free, before each step.
func TestWriteFileReservedOnAFullDisk(t *testing.T) {
	m := NewMem()
	require.NoError(t, WriteFileReserved(m, "/state", []byte("0")))
	m.SetCapacity(int64(used(t, m) + 3*pageBytes))
	greedy := open(t, m, "/greedy", New)
	size := int64(0)
	m.SetFault(func(op Op) error {
		if op.Path != "/greedy" {
			n, _ := greedy.WriteAt(make([]byte, 4*pageBytes), size)
			size += int64(n)
		}
		return nil
	})
	for i := range 50 {
		text := fmt.Sprint(i) + string(bytes.Repeat([]byte("x"), (i*397)%4000))
		require.NoError(t, WriteFileReserved(m, "/state", []byte(text)), "write %d", i)
		require.Equal(t, text, content(t, m, "/state"))
	}
	require.True(t, IsNoSpace(WriteFileAtomic(m, "/other", []byte("x"))), "the disk is full")
	require.True(t, IsNoSpace(WriteFileReserved(m, "/state", make([]byte, 3*pageBytes))), "more than is reserved")
	require.NoError(t, WriteFileReserved(m, "/state", []byte("goes on")))
	require.Equal(t, "goes on", content(t, m, "/state"))
}

// TestMkdirAllSyncSurvives a kill at any point followed by another try and a power cut.
func TestMkdirAllSyncSurvives(t *testing.T) {
	for seed := range uint64(40) {
		for stop := range 12 {
			m := NewMem()
			var killed *Mem
			ops := 0
			m.SetFault(func(Op) error {
				if ops++; ops-1 == stop {
					killed = m.Kill()
				}
				return nil
			})
			err := MkdirAllSync(m, "/a/b/c")
			if killed != nil {
				require.Error(t, err)
				m = killed
			}
			m.SetFault(nil)
			require.NoError(t, MkdirAllSync(m, "/a/b/c"))
			_, err = m.Crash(seed).Stat("/a/b/c")
			require.NoError(t, err, "seed %d, killed at operation %d", seed, stop)
		}
	}
}

func TestMemLimitsAFilesSize(t *testing.T) {
	_, f := newFile(t)
	_, err := f.WriteAt([]byte("x"), maxFileBytes)
	require.ErrorIs(t, err, syscall.EFBIG)
	require.ErrorIs(t, f.Truncate(maxFileBytes+1), syscall.EFBIG)
	require.ErrorIs(t, f.Preallocate(maxFileBytes, 1), syscall.EFBIG)
	require.ErrorIs(t, f.Preallocate(1, -1), syscall.EINVAL)
	n, err := f.ReadAt(nil, 0)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = f.ReadAt(make([]byte, 1), 1<<62)
	require.Equal(t, io.EOF, err)
}

// TestConcurrentUseOfOneDisk is for the race detector: everything at once, and a crash in between.
func TestConcurrentUseOfOneDisk(t *testing.T) {
	m := NewMem()
	require.NoError(t, MkdirAllSync(m, "/dir"))
	v, err := m.Volume("/")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := 0; ; j++ {
				name := fmt.Sprintf("/dir/%d-%d", i, j%7)
				f, err := m.Open(name, Create)
				if errors.Is(err, ErrPowerLost) {
					return
				}
				_, _ = f.WriteAt(make([]byte, 3000), int64(j))
				_, _ = f.ReadAt(make([]byte, 100), 0)
				_ = f.SyncData()
				_ = m.Rename(name, name+"x")
				_ = v.SyncFS()
				_ = m.SyncDir("/dir")
				_ = m.Remove(name + "x")
				m.SetCapacity(int64(j) << 12)
				_ = f.Close()
				if j == 50 {
					m.Crash(1)
				}
			}
		})
	}
	wg.Wait()
}
