package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// eachFS runs a test on the operating system's file system and on one in memory: what callers
// learn from tests on the second must hold on the first.
func eachFS(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("OS", func(t *testing.T) { test(t, OS, filepath.ToSlash(t.TempDir())) })
	t.Run("Mem", func(t *testing.T) {
		m := NewMem()
		require.NoError(t, MkdirAllSync(m, "/some/dir"))
		test(t, m, "/some/dir")
	})
}

func open(t *testing.T, fsys FS, name string, m Mode) File {
	t.Helper()
	f, err := fsys.Open(name, m)
	require.NoError(t, err)
	return f
}

// put makes or replaces a file without flushing it.
func put(t *testing.T, fsys FS, name, content string) {
	t.Helper()
	f := open(t, fsys, name, Create)
	require.NoError(t, f.Truncate(0))
	write(t, f, content, 0)
	require.NoError(t, f.Close())
}

func write(t *testing.T, f File, content string, off int64) {
	t.Helper()
	n, err := f.WriteAt([]byte(content), off)
	require.NoError(t, err)
	require.Equal(t, len(content), n)
}

func content(t *testing.T, fsys FS, name string) string {
	t.Helper()
	data, err := ReadFile(fsys, name, 1<<20)
	require.NoError(t, err)
	return string(data)
}

func names(t *testing.T, fsys FS, dir string) []string {
	t.Helper()
	entries, err := fsys.List(dir)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

func TestOpenModes(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		for _, m := range []Mode{Read, Write} {
			_, err := fsys.Open(dir+"/missing", m)
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
		for _, m := range []Mode{Create, New} {
			_, err := fsys.Open(dir+"/nowhere/file", m)
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
		f := open(t, fsys, dir+"/file", New)
		write(t, f, "content", 0)
		require.NoError(t, f.Close())
		_, err := fsys.Open(dir+"/file", New)
		require.ErrorIs(t, err, fs.ErrExist)
		for _, m := range []Mode{Write, Create} {
			f = open(t, fsys, dir+"/file", m)
			write(t, f, "C", 0)
			require.NoError(t, f.Close())
			require.Equal(t, "Content", content(t, fsys, dir+"/file"))
		}
		f = open(t, fsys, dir+"/file", Read)
		_, err = f.WriteAt([]byte("x"), 0)
		require.Error(t, err, "a file that was opened to read")
		require.Error(t, f.Truncate(0))
		require.NoError(t, f.SyncData(), "what others wrote can be flushed by a reader")
		require.NoError(t, f.Close())
		for _, m := range []Mode{Read, Write, Create} {
			_, err = fsys.Open(dir, m)
			require.Error(t, err, "a directory")
		}
	})
}

func TestReadAndWriteAtOffsets(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f := open(t, fsys, dir+"/file", New)
		write(t, f, "after a hole", 10_000)
		size, err := f.Size()
		require.NoError(t, err)
		require.EqualValues(t, 10_012, size)
		buf := bytes.Repeat([]byte{0xff}, 20)
		n, err := f.ReadAt(buf, 9_990)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00after a ho", string(buf[:n]))
		n, err = f.ReadAt(buf, 100)
		require.NoError(t, err)
		require.Equal(t, make([]byte, 20), buf[:n])
		n, err = f.ReadAt(buf, 10_006)
		require.Equal(t, io.EOF, err)
		require.Equal(t, "a hole", "a "+string(buf[2:n]), "what there is comes with io.EOF")
		n, err = f.ReadAt(buf, 1<<20)
		require.Equal(t, io.EOF, err)
		require.Zero(t, n)
		_, err = f.ReadAt(buf, -1)
		require.Error(t, err)
		_, err = f.WriteAt(buf, -1)
		require.Error(t, err)
		require.NoError(t, f.Close())
	})
}

func TestTruncate(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f := open(t, fsys, dir+"/file", New)
		write(t, f, "0123456789", 0)
		require.NoError(t, f.Truncate(4))
		require.Equal(t, "0123", content(t, fsys, dir+"/file"))
		require.NoError(t, f.Truncate(8))
		require.Equal(t, "0123\x00\x00\x00\x00", content(t, fsys, dir+"/file"), "what was cut must not come back")
		require.Error(t, f.Truncate(-1))
		require.NoError(t, f.Close())
	})
}

func TestPreallocateKeepsSizeAndContent(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f := open(t, fsys, dir+"/file", New)
		write(t, f, "content", 0)
		require.NoError(t, f.Preallocate(0, 1<<20))
		require.NoError(t, f.Preallocate(1<<20, 0))
		require.Equal(t, "content", content(t, fsys, dir+"/file"))
		write(t, f, "!", 100_000)
		put(t, fsys, dir+"/other", "")
		other := open(t, fsys, dir+"/other", Write)
		require.NoError(t, other.Preallocate(0, 1<<20))
		require.NoError(t, other.Truncate(200_000))
		require.Equal(t, string(make([]byte, 200_000)), content(t, fsys, dir+"/other"))
		require.NoError(t, other.Close())
		buf := make([]byte, 2)
		_, err := f.ReadAt(buf, 99_999)
		require.NoError(t, err)
		require.Equal(t, "\x00!", string(buf))
		require.NoError(t, f.SyncData())
		require.NoError(t, f.Close())
	})
}

func TestClosedFileRefuses(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f := open(t, fsys, dir+"/file", New)
		require.NoError(t, f.Close())
		_, err := f.Size()
		require.ErrorIs(t, err, fs.ErrClosed)
		_, err = f.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, fs.ErrClosed)
		_, err = f.WriteAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, fs.ErrClosed)
		require.ErrorIs(t, f.SyncData(), fs.ErrClosed)
		require.ErrorIs(t, f.Truncate(0), fs.ErrClosed)
		require.ErrorIs(t, f.Close(), fs.ErrClosed)
		require.False(t, f.Descriptor(func(int) { t.Error("a closed file lent its descriptor") }))
	})
}

func TestListAndStat(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		put(t, fsys, dir+"/b", "four")
		put(t, fsys, dir+"/a", "")
		require.NoError(t, fsys.MkdirAll(dir+"/c/d"))
		require.NoError(t, fsys.MkdirAll(dir+"/c"))
		entries, err := fsys.List(dir)
		require.NoError(t, err)
		for i, want := range []Entry{{Name: "a"}, {Name: "b", Size: 4}, {Name: "c", Dir: true}} {
			one, err := fsys.Stat(dir + "/" + want.Name)
			require.NoError(t, err)
			require.Equal(t, one, entries[i])
			require.False(t, one.ModTime.IsZero())
			one.ModTime = want.ModTime
			require.Equal(t, want, one)
		}
		_, err = fsys.Stat(dir + "/missing")
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.List(dir + "/missing")
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.List(dir + "/a")
		require.Error(t, err, "a file has no entries")
		require.Error(t, fsys.MkdirAll(dir+"/a/d"), "a file has no directories")
		require.Error(t, fsys.MkdirAll(dir+"/a"), "a file is none")
	})
}

func TestRename(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		put(t, fsys, dir+"/old", "moved")
		put(t, fsys, dir+"/taken", "replaced")
		f := open(t, fsys, dir+"/taken", Read)
		require.NoError(t, RenameSync(fsys, dir+"/old", dir+"/taken"))
		require.Equal(t, "moved", content(t, fsys, dir+"/taken"))
		buf := make([]byte, 8)
		_, err := f.ReadAt(buf, 0)
		require.NoError(t, err)
		require.Equal(t, "replaced", string(buf), "who has the replaced file open goes on reading it")
		require.NoError(t, f.Close())

		require.NoError(t, fsys.MkdirAll(dir+"/a/inner"))
		require.NoError(t, fsys.MkdirAll(dir+"/b"))
		require.NoError(t, RenameSync(fsys, dir+"/taken", dir+"/a/inner/file"), "into another directory")
		require.NoError(t, RenameSync(fsys, dir+"/a/inner", dir+"/b/outer"), "a directory")
		require.Equal(t, "moved", content(t, fsys, dir+"/b/outer/file"))
		require.Equal(t, []string{"a", "b"}, names(t, fsys, dir))
		require.Empty(t, names(t, fsys, dir+"/a"))

		require.ErrorIs(t, fsys.Rename(dir+"/missing", dir+"/x"), fs.ErrNotExist)
		require.ErrorIs(t, fsys.Rename(dir+"/a", dir+"/nowhere/a"), fs.ErrNotExist)
		require.ErrorIs(t, fsys.Rename(dir+"/a", dir+"/b"), fs.ErrExist, "a directory takes nobody's place")
		put(t, fsys, dir+"/file", "")
		require.ErrorIs(t, fsys.Rename(dir+"/file", dir+"/a"), fs.ErrExist)
		require.Error(t, fsys.Rename(dir+"/a", dir+"/file"))
		require.Error(t, fsys.Rename(dir+"/b", dir+"/b/outer/b"), "into itself")
		require.NoError(t, fsys.Rename(dir+"/file", dir+"/file"))
		require.Equal(t, []string{"a", "b", "file"}, names(t, fsys, dir))
	})
}

func TestExchange(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		put(t, fsys, dir+"/a", "from a")
		put(t, fsys, dir+"/b", "b")
		if errors.Is(fsys.Exchange(dir+"/a", dir+"/b"), errors.ErrUnsupported) {
			require.Equal(t, "from a", content(t, fsys, dir+"/a"), "nothing is done where it cannot")
			return
		}
		require.Equal(t, "b", content(t, fsys, dir+"/a"))
		require.Equal(t, "from a", content(t, fsys, dir+"/b"))
		require.NoError(t, fsys.Exchange(dir+"/a", dir+"/a"))
		require.NoError(t, fsys.SyncDir(dir))

		require.ErrorIs(t, fsys.Exchange(dir+"/a", dir+"/missing"), fs.ErrNotExist)
		require.ErrorIs(t, fsys.Exchange(dir+"/missing", dir+"/a"), fs.ErrNotExist)
		require.NoError(t, fsys.MkdirAll(dir+"/d"))
		put(t, fsys, dir+"/d/c", "c")
		require.Error(t, fsys.Exchange(dir+"/a", dir+"/d"), "a directory")
		require.Error(t, fsys.Exchange(dir+"/a", dir+"/d/c"), "of another directory")
		require.Equal(t, []string{"a", "b", "d"}, names(t, fsys, dir))
		require.NoError(t, fsys.Remove(dir+"/b"))
		require.Equal(t, "b", content(t, fsys, dir+"/a"))
	})
}

func TestRemove(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		require.NoError(t, fsys.Remove(dir+"/missing"))
		require.NoError(t, fsys.Remove(dir+"/missing/below"))
		require.NoError(t, fsys.MkdirAll(dir+"/a/b"))
		for i := range 5 {
			put(t, fsys, fmt.Sprintf("%s/a/b/%d", dir, i), "x")
		}
		put(t, fsys, dir+"/open", "still here")
		f := open(t, fsys, dir+"/open", Create)
		require.NoError(t, fsys.Remove(dir+"/open"))
		require.NoError(t, fsys.Remove(dir+"/a"))
		require.Empty(t, names(t, fsys, dir))
		write(t, f, "S", 0)
		buf := make([]byte, 10)
		_, err := f.ReadAt(buf, 0)
		require.NoError(t, err)
		require.Equal(t, "Still here", string(buf))
		require.NoError(t, f.SyncData())
		require.NoError(t, f.Close())
	})
}

func TestLockSaysWhoHoldsIt(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		put(t, fsys, dir+"/.lock", "pid 1, long gone, with a longer name than the next one's")
		l, err := fsys.Lock(dir+"/.lock", "pid 123")
		require.NoError(t, err)
		require.Equal(t, "pid 123", content(t, fsys, dir+"/.lock"))
		_, err = fsys.Lock(dir+"/.lock", "pid 456")
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, "pid 123", locked.Holder)
		require.ErrorContains(t, err, dir+"/.lock is locked by pid 123")
		require.NoError(t, l.Close())
		l, err = fsys.Lock(dir+"/.lock", "pid 456")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.ErrorIs(t, l.Close(), fs.ErrClosed)
		_, err = fsys.Lock(dir+"/nowhere/.lock", "pid 123")
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestDirectoryAndVolume(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		require.NoError(t, fsys.SyncDir(dir))
		require.ErrorIs(t, fsys.SyncDir(dir+"/missing"), fs.ErrNotExist)
		avail, total, err := fsys.Free(dir)
		require.NoError(t, err)
		require.NotZero(t, total)
		require.LessOrEqual(t, avail, total)
		_, _, err = fsys.Free(dir + "/missing")
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.Volume(dir + "/missing")
		require.ErrorIs(t, err, fs.ErrNotExist)
		v, err := fsys.Volume(dir)
		require.NoError(t, err)
		put(t, fsys, dir+"/file", "content")
		if err := v.SyncFS(); !errors.Is(err, errors.ErrUnsupported) {
			require.NoError(t, err)
		}
		require.NoError(t, v.Close())
	})
}

func TestWriteFileAtomicReplaces(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := dir + "/state"
		require.NoError(t, WriteFileAtomic(fsys, name, []byte("first, and long")))
		put(t, fsys, name+tempSuffix, "half of what a crash interru")
		require.NoError(t, WriteFileAtomic(fsys, name, []byte("second")))
		require.Equal(t, "second", content(t, fsys, name))
		require.NoError(t, WriteFileAtomic(fsys, name, nil))
		require.Empty(t, content(t, fsys, name))
		require.Equal(t, []string{"state"}, names(t, fsys, dir))
		require.ErrorIs(t, WriteFileAtomic(fsys, dir+"/nowhere/state", nil), fs.ErrNotExist)
	})
}

func TestWriteFileReservedReplaces(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := dir + "/state"
		for _, text := range []string{"first, and long", "second", string(bytes.Repeat([]byte("long"), 3000)), "third", ""} {
			require.NoError(t, WriteFileReserved(fsys, name, []byte(text)))
			if text != "" {
				require.Equal(t, text, content(t, fsys, name))
			}
		}
		require.Equal(t, []string{"state", "state.spare"}, names(t, fsys, dir))
		require.ErrorIs(t, WriteFileReserved(fsys, dir+"/nowhere/state", nil), fs.ErrNotExist)
	})
}

func TestReadFileHasALimit(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		put(t, fsys, dir+"/file", "12345")
		data, err := ReadFile(fsys, dir+"/file", 5)
		require.NoError(t, err)
		require.Equal(t, "12345", string(data))
		_, err = ReadFile(fsys, dir+"/file", 4)
		require.ErrorIs(t, err, ErrTooLarge)
		_, err = ReadFile(fsys, dir+"/missing", 4)
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestMkdirAllSync(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		require.NoError(t, MkdirAllSync(fsys, dir+"/a/b/c"))
		require.NoError(t, MkdirAllSync(fsys, dir+"/a/b/c"))
		require.Equal(t, []string{"c"}, names(t, fsys, dir+"/a/b"))
		put(t, fsys, dir+"/file", "")
		require.Error(t, MkdirAllSync(fsys, dir+"/file"))
		require.Error(t, MkdirAllSync(fsys, dir+"/file/below"))
	})
}

func TestConcurrentUseOfOneFile(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f := open(t, fsys, dir+"/file", New)
		const writers, each = 4, 50
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					line := fmt.Sprintf("%03d %03d\n", w, i)
					if _, err := f.WriteAt([]byte(line), int64(w*each+i)*8); err != nil {
						t.Error(err)
					}
					if _, err := f.ReadAt(make([]byte, 8), int64(w*each+i)*8); err != nil && !errors.Is(err, io.EOF) {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range 5 {
					if err := f.SyncData(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for i := range writers * each {
			buf := make([]byte, 8)
			_, err := f.ReadAt(buf, int64(i)*8)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%03d %03d\n", i/each, i%each), string(buf))
		}
		require.NoError(t, f.Close())
	})
}

// TestMemBehavesLikeTheSystem makes the same random calls on both and wants the same answers.
func TestMemBehavesLikeTheSystem(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		real := filepath.ToSlash(t.TempDir())
		m := NewMem()
		files := []string{"a", "b", "d/a", "d/b", "d/e/a", "f"}
		all := append(slices.Clone(files), "d", "d/e")
		for step := range 60 {
			call := randomCall(r, files, all)
			want := call.on(OS, real)
			if got := call.on(m, "/"); got != want {
				t.Fatalf("seed %d, step %d, %s: memory says %q, the system %q", seed, step, call, got, want)
			}
		}
		if got, want := tree(t, m, "/"), tree(t, OS, real); got != want {
			t.Fatalf("seed %d: memory holds\n%sthe system\n%s", seed, got, want)
		}
		require.NoError(t, os.RemoveAll(real))
	}
}

type call struct {
	kind     int
	mode     Mode
	name, to string
	off, n   int64
}

func (c call) String() string {
	return fmt.Sprintf("kind %d mode %d name %s to %s off %d n %d", c.kind, c.mode, c.name, c.to, c.off, c.n)
}

func randomCall(r *rand.Rand, files, all []string) call {
	return call{
		kind: r.IntN(9), mode: Mode(r.IntN(4)),
		name: files[r.IntN(len(files))], to: all[r.IntN(len(all))],
		off: r.Int64N(9000), n: r.Int64N(6000),
	}
}

// on makes the call and describes the answer.
func (c call) on(fsys FS, dir string) string {
	name, to := dir+"/"+c.name, dir+"/"+c.to
	switch c.kind {
	case 0:
		return kindOf(fsys.MkdirAll(to))
	case 1:
		return kindOf(fsys.Rename(name, to))
	case 2:
		return kindOf(fsys.Rename(to, name))
	case 3:
		return kindOf(fsys.Remove(name))
	case 8:
		err := fsys.Exchange(name, to)
		if errors.Is(err, errors.ErrUnsupported) { // then it has to be made to look like one that can
			return kindOf(exchangeByHand(fsys, name, to))
		}
		return kindOf(err)
	}
	f, err := fsys.Open(name, c.mode)
	if err != nil {
		return kindOf(err)
	}
	defer f.Close()
	switch c.kind {
	case 4, 5:
		_, err = f.WriteAt(bytes.Repeat([]byte{byte(c.n)}, int(c.n)), c.off)
	case 6:
		err = f.Truncate(c.off)
	case 7:
		buf := make([]byte, c.n)
		n, err := f.ReadAt(buf, c.off)
		return fmt.Sprintf("%s %x", kindOf(err), buf[:n])
	}
	size, _ := f.Size()
	return fmt.Sprint(kindOf(err), size)
}

// exchangeByHand does what Exchange does, in steps.
func exchangeByHand(fsys FS, a, b string) error {
	one, err := fsys.Stat(a)
	if err != nil {
		return err
	}
	other, err := fsys.Stat(b)
	if err != nil {
		return err
	}
	if one.Dir || other.Dir || filepath.Dir(a) != filepath.Dir(b) {
		return fs.ErrInvalid
	}
	if a == b {
		return nil
	}
	return errors.Join(fsys.Rename(a, a+"~"), fsys.Rename(b, a), fsys.Rename(a+"~", b))
}

func kindOf(err error) string {
	for _, known := range []error{fs.ErrNotExist, fs.ErrExist, io.EOF} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if err != nil {
		return "refused"
	}
	return "done"
}

// tree describes everything below dir.
func tree(t *testing.T, fsys FS, dir string) string {
	t.Helper()
	entries, err := fsys.List(dir)
	require.NoError(t, err)
	var s string
	for _, e := range entries {
		s += fmt.Sprintln(e.Name, e.Dir, e.Size)
		if e.Dir {
			s += tree(t, fsys, dir+"/"+e.Name)
		} else {
			s += fmt.Sprintf("%x\n", content(t, fsys, dir+"/"+e.Name))
		}
	}
	return s
}
