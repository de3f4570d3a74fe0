package logdump

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"barnabas/internal/batch"
)

// segmentOf builds a segment of batches of three records each, and where each batch begins.
func segmentOf(t testing.TB, batches int) (data []byte, at []int) {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range batches {
		b.Reset()
		for j := range 3 {
			b.Append(int64(1000+10*i+j), []byte("key"), fmt.Appendf(nil, "value %d of batch %d", j, i), nil)
		}
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		built.Assign(int64(3*i), 0)
		at = append(at, len(data))
		data = append(data, built...)
	}
	return data, at
}

const segmentName = "00000000000000000000.log"

// dump writes a file and reads it, and gives what was shown.
func dump(t testing.TB, name string, data []byte, o Options) (damaged int64, shown []Item) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	damaged, err := Dump(path, o, func(i Item) error {
		shown = append(shown, i)
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return damaged, shown
}

func summaryOf(shown []Item) Summary { return shown[len(shown)-1].(Summary) }

// TestEveryFlippedBitIsFound: from its magic on, every bit of a batch counts, and the batches around a
// damaged one are read nevertheless.
func TestEveryFlippedBitIsFound(t *testing.T) {
	data, at := segmentOf(t, 3)
	if damaged, shown := dump(t, segmentName, data, Options{Records: true}); damaged != 0 || summaryOf(shown).Records != 9 {
		t.Fatalf("a whole segment: %d places are damaged, %v", damaged, summaryOf(shown))
	}
	const lengthAt, magicAt = 8, 16
	for pos := at[1] + lengthAt; pos < at[2]; pos++ {
		if inHeader := pos - at[1]; inHeader >= lengthAt+4 && inHeader < magicAt {
			continue // the leader epoch is the broker's and outside the checksum
		}
		for bit := range 8 {
			bad := slices.Clone(data)
			bad[pos] ^= 1 << bit
			damaged, shown := dump(t, segmentName, bad, Options{Records: true})
			if damaged == 0 {
				t.Fatalf("bit %d of byte %d flipped, and nothing is said", bit, pos)
			}
			if s := summaryOf(shown); *s.First != 0 || *s.Next != 9 || s.Batches != 2 {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, pos, s)
			}
		}
	}
}

// TestTornTailIsFound: wherever a segment is cut but between batches, the place is named.
func TestTornTailIsFound(t *testing.T) {
	data, at := segmentOf(t, 3)
	for size := range len(data) {
		damaged, shown := dump(t, segmentName, data[:size], Options{})
		if slices.Contains(at, size) {
			if damaged != 0 {
				t.Fatalf("cut at %d, between batches: %v", size, shown)
			}
			continue
		}
		d, ok := shown[len(shown)-2].(Damage)
		from := at[sortedBefore(at, size)]
		if damaged != 1 || !ok || d.Position != int64(from) || !strings.Contains(d.What, "the file ends after") {
			t.Fatalf("cut at %d: %v, want damage at %d", size, shown[len(shown)-2].Text(), from)
		}
	}
}

func sortedBefore(at []int, size int) int {
	i, _ := slices.BinarySearch(at, size)
	return i - 1
}

func TestReservedSpaceIsTold(t *testing.T) {
	data, _ := segmentOf(t, 1)
	_, shown := dump(t, segmentName, append(data, make([]byte, 100)...), Options{})
	if d, ok := shown[len(shown)-2].(Damage); !ok || !strings.Contains(d.What, "100 zero bytes up to the end") {
		t.Fatalf("%v", shown[len(shown)-2].Text())
	}
}

// TestIndexesAreHeldAgainstTheSegment: an entry that leads anywhere else is damage.
func TestIndexesAreHeldAgainstTheSegment(t *testing.T) {
	data, at := segmentOf(t, 3)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(segmentName, data)
	entry := func(fields ...int) (out []byte) {
		for _, n := range fields {
			out = append(out, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		}
		return out
	}
	for _, c := range []struct {
		name    string
		data    []byte
		damaged int64
	}{
		{"00000000000000000000.index", entry(5, at[1], 8, at[2]), 0},
		{"00000000000000000000.index", entry(4, at[1]), 1},
		{"00000000000000000000.index", entry(5, at[1]+1), 1},
		{"00000000000000000000.index", entry(8, at[2], 5, at[1]), 1},
		{"00000000000000000000.timeindex", entry(0, 1012, 5, 0, 1022, 8), 0},
		{"00000000000000000000.timeindex", entry(0, 1011, 5), 1},
		{"00000000000000000000.timeindex", entry(0, 1022, 8, 0, 1012, 5), 1},
		{"00000000000000000000.timeindex", entry(0, 1012), 1},
	} {
		damaged, err := Dump(write(c.name, c.data), Options{}, func(Item) error { return nil })
		if err != nil || damaged != c.damaged {
			t.Errorf("%s %x: %d places are damaged (%v), want %d", c.name, c.data, damaged, err, c.damaged)
		}
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if _, err := Dump(p, Options{}, func(Item) error { return nil }); !errors.Is(err, ErrUnknownFile) {
			t.Errorf("%s: %v, want %v", p, err, ErrUnknownFile)
		}
	}
}

// FuzzDump: no bytes under any name make it panic or fail, and the summary counts the damage shown.
func FuzzDump(f *testing.F) {
	names := []string{
		segmentName, "00000000000000000000.index", "00000000000000000000.timeindex", "00000000000000000000.txnindex",
		"00000000000000000009.snapshot", "00000000000000000009-0000000002.checkpoint", "leader-epoch-checkpoint",
		"recovery-point-offset-checkpoint", "meta.properties", "partition.metadata", "quorum-state", ".lock",
	}
	data, _ := segmentOf(f, 2)
	seeds := [][]byte{data, data[:len(data)-3], {}, make([]byte, 70), []byte("0\n1\n0 0\n"), []byte("0\n1\nt 0 5\n"), []byte("version=1\nnode.id=1\n"), []byte(`{"a":1}`)}
	for i := range names {
		for _, seed := range seeds {
			f.Add(uint8(i), seed)
		}
	}
	dir := f.TempDir()
	for _, d := range []string{metadataDir, "t-0"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		for _, d := range []string{metadataDir, "t-0"} {
			path := filepath.Join(dir, d, names[int(which)%len(names)])
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			told := int64(0)
			damaged, err := Dump(path, Options{Records: true}, func(i Item) error {
				if i.Text() == "" {
					t.Error("an item without text")
				}
				if _, ok := i.(Damage); ok {
					told++
				}
				return nil
			})
			if err != nil || damaged != told {
				t.Fatalf("%s: %d damaged, %d told: %v", path, damaged, told, err)
			}
			_ = os.Remove(path)
		}
	})
}
