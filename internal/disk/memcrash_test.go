package disk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// history remembers of a file what any crash may leave at each offset.
type history struct {
	flushed  []byte   // content at the last flush
	possible [][]byte // every content since, in order, unflushed
}

// TestCrashKeepsWhatWasFlushed writes, cuts and flushes at random. After a crash each byte must
// be one that stood there at the last flush or since (zero where the file grew), and the size one
// between the smallest and the largest since.
func TestCrashKeepsWhatWasFlushed(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		m, f := newFile(t)
		var h history
		var now []byte
		for range 1 + r.IntN(30) {
			switch r.IntN(8) {
			case 0:
				require.NoError(t, f.SyncData())
				h = history{flushed: slices.Clone(now)}
			case 1:
				size := r.IntN(len(now) + 1)
				require.NoError(t, f.Truncate(int64(size)))
				now = slices.Clone(now[:size])
				h.possible = append(h.possible, now)
			default:
				p := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, 1+r.IntN(3000))
				off := r.IntN(len(now) + 1)
				write(t, f, string(p), int64(off))
				grown := append(slices.Clone(now), make([]byte, max(0, off+len(p)-len(now)))...)
				copy(grown[off:], p)
				now = grown
				h.possible = append(h.possible, now)
			}
		}
		after := m.Crash(seed)
		if err := h.allows([]byte(content(t, after, "/file"))); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func (h history) allows(got []byte) error {
	smallest, largest := len(h.flushed), len(h.flushed)
	for _, p := range h.possible {
		smallest, largest = min(smallest, len(p)), max(largest, len(p))
	}
	if len(got) < smallest || len(got) > largest {
		return fmt.Errorf("%d bytes survived, had between %d and %d", len(got), smallest, largest)
	}
	for i, b := range got {
		ok := i >= len(h.flushed) && b == 0 || i < len(h.flushed) && b == h.flushed[i]
		for _, p := range h.possible {
			ok = ok || i < len(p) && p[i] == b || i >= len(p) && b == 0
		}
		if !ok {
			return fmt.Errorf("byte %d is %d, which it never was since the last flush", i, b)
		}
	}
	return nil
}

// TestCrashHasEveryFate wants each way of losing data that the package names from some seed.
func TestCrashHasEveryFate(t *testing.T) {
	seen := map[string]uint64{}
	for seed := range uint64(400) {
		m, f := newFile(t)
		write(t, f, string(bytes.Repeat([]byte{1}, 3000)), 0)
		require.NoError(t, f.SyncData())
		write(t, f, string(bytes.Repeat([]byte{2}, 9000)), 3000)
		write(t, f, string(bytes.Repeat([]byte{3}, 500)), 0)
		got := []byte(content(t, m.Crash(seed), "/file"))
		tail := got[3000:]
		filled := bytes.Count(tail, []byte{2})
		switch first := bytes.Count(got[:500], []byte{3}); {
		case first == 0 && len(tail) == 0:
			seen["nothing"] = seed
		case first == 500 && filled == 9000:
			seen["all"] = seed
		case first == 0 && filled == len(tail) && len(tail)%4 == 1:
			seen["first write cut at any byte"] = seed
		case first == 500 && filled == 0:
			seen["second write without the first"] = seed
		case first > 0 && first < 500 && first%4 == 1:
			seen["overwrite torn at any byte"] = seed
		case tornInside(tail):
			seen["sectors torn inside"] = seed
		case filled > 0 && filled < len(tail) && tail[len(tail)-1] == 2:
			seen["hole"] = seed
		case filled == 0 && len(tail) > 512:
			seen["grown by zeros"] = seed
		}
	}
	for _, fate := range []string{
		"nothing", "all", "first write cut at any byte", "second write without the first",
		"overwrite torn at any byte", "sectors torn inside", "hole", "grown by zeros",
	} {
		require.Contains(t, seen, fate)
	}
}

// tornInside finds old bytes after new ones where no sector begins, and new ones after them: a
// write that was only cut short does not look like that. The tail begins at byte 3000.
func tornInside(tail []byte) bool {
	for i := 1; i < len(tail); i++ {
		if tail[i-1] == 2 && tail[i] == 0 && (3000+i)%sectorBytes != 0 && bytes.Contains(tail[i:], []byte{2}) {
			return true
		}
	}
	return false
}

// TestCrashedDiskIsWrittenAgain: what is read and what is on the platter are still two things.
func TestCrashedDiskIsWrittenAgain(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		m, f := newFile(t)
		p := []byte("first")
		write(t, f, string(p), 0)
		_, err := f.WriteAt(p, 0)
		require.NoError(t, err)
		copy(p, "xxxxx") // the buffer is the caller's again
		require.NoError(t, f.SyncData())
		m = m.Crash(seed)
		require.Equal(t, "first", content(t, m, "/file"), "seed %d", seed)
		f = open(t, m, "/file", Write)
		write(t, f, "other", 0)
		if content(t, m.Crash(seed), "/file") == "first" {
			lost++
		}
	}
	require.NotZero(t, lost)
}

// TestCrashMayLoseATruncateAndKeepWhatFollowed is why who cuts a file must flush before going on.
func TestCrashMayLoseATruncateAndKeepWhatFollowed(t *testing.T) {
	mixed := 0
	for seed := range uint64(400) {
		for _, flushed := range []bool{false, true} {
			m, f := newFile(t)
			write(t, f, "old old old old", 0)
			require.NoError(t, f.SyncData())
			require.NoError(t, f.Truncate(4))
			if flushed {
				require.NoError(t, f.SyncData())
			}
			write(t, f, "new ", 4)
			got := content(t, m.Crash(seed), "/file")
			if got == "old new old old" {
				mixed++
				require.False(t, flushed, "seed %d", seed)
			}
		}
	}
	require.NotZero(t, mixed)
}

// busyDisk does random things to names and contents of a small tree, the same for one seed.
func busyDisk(seed uint64) *Mem {
	r := rand.New(rand.NewPCG(seed, 3))
	m := NewMem()
	dirs := []string{"/", "/a", "/b", "/a/c"}
	for _, d := range dirs {
		_ = m.MkdirAll(d)
	}
	name := func() string { return path.Join(dirs[r.IntN(len(dirs))], string(rune('p'+r.IntN(6)))) }
	for range 80 {
		switch r.IntN(8) {
		case 0:
			_ = m.Rename(name(), name())
		case 1:
			_ = m.Remove(name())
		case 2:
			_ = m.SyncDir(dirs[r.IntN(len(dirs))])
		case 3:
			_ = m.Rename("/a/c", "/b/c")
		default:
			if f, err := m.Open(name(), Create); err == nil {
				_, _ = f.WriteAt(bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(2000)), int64(r.IntN(2000)))
				if r.IntN(2) == 0 {
					_ = f.SyncData()
				}
				_ = f.Close()
			}
		}
	}
	return m
}

func TestCrashReplays(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(100) {
		first := tree(t, busyDisk(5).Crash(seed), "/")
		for range 3 {
			require.Equal(t, first, tree(t, busyDisk(5).Crash(seed), "/"), "seed %d", seed)
		}
		outcomes[first] = true
	}
	require.Greater(t, len(outcomes), 90, "seeds make a difference")
}

// TestCrashOfACrashedDiskLosesNothing: what is left after a crash is all on the platter.
func TestCrashOfACrashedDiskLosesNothing(t *testing.T) {
	for seed := range uint64(200) {
		m := busyDisk(seed).Crash(seed)
		before := tree(t, m, "/")
		require.Equal(t, before, tree(t, m.Crash(seed+1), "/"), "seed %d", seed)
	}
}

// TestNamesSurviveInOrder makes, moves and removes names without a flush: what survives is what
// the directory looked like at some moment after the last flush.
func TestNamesSurviveInOrder(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		m := NewMem()
		look := func() string { return fmt.Sprint(names(t, m, "/")) }
		moments := map[string]bool{look(): true}
		for i := range 20 {
			switch r.IntN(4) {
			case 0:
				_ = m.Rename(fmt.Sprint("/", r.IntN(i+1)), fmt.Sprint("/", i))
			case 1:
				require.NoError(t, m.Remove(fmt.Sprint("/", r.IntN(i+1))))
			default:
				put(t, m, fmt.Sprint("/", i), "")
			}
			if r.IntN(8) == 0 {
				require.NoError(t, m.SyncDir("/"))
				clear(moments)
			}
			moments[look()] = true
		}
		if got := fmt.Sprint(names(t, m.Crash(seed), "/")); !moments[got] {
			t.Fatalf("seed %d: %s was never what the directory held since its last flush: %v", seed, got, moments)
		}
	}
}

// TestRenameIsAtomic moves a file and a directory between directories: after a crash each is in
// exactly one place, and in the new one once either directory has been flushed.
func TestRenameIsAtomic(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		for _, flush := range []string{"", "/from", "/to"} {
			m := NewMem()
			require.NoError(t, MkdirAllSync(m, "/from/dir"))
			require.NoError(t, MkdirAllSync(m, "/to"))
			require.NoError(t, WriteFileAtomic(m, "/from/dir/inner", []byte("x")))
			require.NoError(t, WriteFileAtomic(m, "/from/file", []byte("x")))
			put(t, m, "/to/earlier", "")
			require.NoError(t, m.Rename("/from/file", "/to/file"))
			require.NoError(t, m.Rename("/from/dir", "/to/dir"))
			if flush != "" {
				require.NoError(t, m.SyncDir(flush))
			}
			after := m.Crash(seed)
			for _, name := range []string{"/file", "/dir/inner"} {
				var at []string
				for _, dir := range []string{"/from", "/to"} {
					if _, err := after.Stat(dir + name); err == nil {
						at = append(at, dir)
					}
				}
				require.Len(t, at, 1, "seed %d, %q flushed: where %s is", seed, flush, name)
				if flush != "" {
					require.Equal(t, []string{"/to"}, at, "seed %d, %q flushed", seed, flush)
				}
				seen[name+at[0]]++
			}
			if _, err := after.Stat("/to/earlier"); err != nil {
				require.Empty(t, names(t, after, "/to"), "seed %d: a later change overtook an earlier", seed)
			}
		}
	}
	require.Len(t, seen, 4, "either outcome happens")
}

// TestRemoveOfADirectoryCanStopHalfway also on disk: some files gone, and not the same each time.
func TestRemoveOfADirectoryCanStopHalfway(t *testing.T) {
	left := map[string]bool{}
	for seed := range uint64(100) {
		m := NewMem()
		require.NoError(t, MkdirAllSync(m, "/dir"))
		for i := range 4 {
			put(t, m, fmt.Sprint("/dir/", i), "")
		}
		require.NoError(t, m.SyncDir("/dir"))
		require.NoError(t, m.Remove("/dir"))
		after := m.Crash(seed)
		if _, err := after.Stat("/dir"); err == nil {
			left[fmt.Sprint(names(t, after, "/dir"))] = true
		} else {
			left["gone"] = true
		}
	}
	require.GreaterOrEqual(t, len(left), 5, "%v", left)
}
