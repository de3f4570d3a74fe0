// Package logdump reads the files of a data directory as an operator does who wants to know what
// is in them and whether it is whole: segments, their indexes, producer snapshots, checkpoints,
// and the metadata log with its snapshots.
//
// It decides what a file is by its name, and what counts as damage. It trusts nothing that it
// reads, changes nothing, needs no lock, and refuses to know how a broker would repair a file. The
// file of a running broker may end inside a batch that is being written.
package logdump

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Item is one thing found in a file. It marshals to JSON, and Text is the same in one line.
type Item interface{ Text() string }

// Options say what is wanted.
type Options struct {
	Records bool // of segments, each record; those of the metadata log are shown always
	Quiet   bool // nothing but damage and a summary for each file
}

// Damage is a place in a file that is not as it should be.
type Damage struct {
	Kind     string `json:"kind"` // "damage"
	File     string `json:"file"`
	Position int64  `json:"position"`
	What     string `json:"what"`
}

// Text gives the damage in a line.
func (d Damage) Text() string {
	return fmt.Sprintf("DAMAGE at byte %d of %s: %s", d.Position, d.File, d.What)
}

// Summary ends a file.
type Summary struct {
	Kind    string `json:"kind"` // "summary"
	File    string `json:"file"`
	Type    string `json:"type"`
	Bytes   int64  `json:"bytes"`
	Batches int64  `json:"batches,omitempty"`
	Records int64  `json:"records,omitempty"`
	Entries int64  `json:"entries,omitempty"`
	First   *int64 `json:"first_offset,omitempty"`
	Next    *int64 `json:"next_offset,omitempty"`
	Damaged int64  `json:"damaged"`
}

// Text gives the summary in a line.
func (s Summary) Text() string {
	text := fmt.Sprintf("%s: %s, %d bytes", s.File, s.Type, s.Bytes)
	if s.Batches > 0 {
		text += fmt.Sprintf(", %d batches, %d records", s.Batches, s.Records)
	}
	if s.First != nil {
		text += fmt.Sprintf(", offsets %d to %d", *s.First, *s.Next-1)
	}
	if s.Entries > 0 {
		text += fmt.Sprintf(", %d entries", s.Entries)
	}
	if s.Damaged > 0 {
		return text + fmt.Sprintf(", DAMAGED in %d places", s.Damaged)
	}
	return text + ", no damage"
}

// ErrUnknownFile answers a file whose name says nothing that this package knows.
var ErrUnknownFile = errors.New("not a file of a data directory, by its name")

// dumper is one file being read.
type dumper struct {
	file    string
	f       io.ReaderAt
	size    int64
	options Options
	emit    func(Item) error
	sum     Summary
}

// show hands an item on, unless only damage is wanted.
func (d *dumper) show(i Item) error {
	if d.options.Quiet {
		return nil
	}
	return d.emit(i)
}

func (d *dumper) damage(at int64, format string, args ...any) error {
	d.sum.Damaged++
	return d.emit(Damage{"damage", d.file, at, fmt.Sprintf(format, args...)})
}

// kind is a sort of file.
type kind struct {
	name string
	read func(*dumper) error
}

var (
	offsetName   = regexp.MustCompile(`^(\d{20})\.(log|index|timeindex|txnindex|snapshot)(\.deleted)?$`)
	snapshotName = regexp.MustCompile(`^(\d{20})-(\d{10})\.checkpoint(\.deleted)?$`)
)

var bySuffix = map[string]kind{
	"log":       {"segment", (*dumper).segment},
	"index":     {"offset index", (*dumper).offsetIndex},
	"timeindex": {"time index", (*dumper).timeIndex},
	"txnindex":  {"transaction index", (*dumper).transactionIndex},
	"snapshot":  {"producer snapshot", (*dumper).producers},
}

var byName = map[string]kind{
	"leader-epoch-checkpoint":          {"leader epochs", (*dumper).epochs},
	"recovery-point-offset-checkpoint": {"recovery points", (*dumper).offsets},
	"log-start-offset-checkpoint":      {"log starts", (*dumper).offsets},
	"replication-offset-checkpoint":    {"high watermarks", (*dumper).offsets},
	"meta.properties":                  {"identity of a data directory", (*dumper).properties},
	"partition.metadata":               {"identity of a partition", (*dumper).partition},
	"quorum-state":                     {"term and vote of the quorum", (*dumper).quorumState},
	".kafka_cleanshutdown":             {"mark of a clean stop", (*dumper).text},
	".lock":                            {"lock of a data directory", (*dumper).text},
}

// metadataDir is the directory of the metadata log: the entries of its segments are changes.
const metadataDir = "__cluster_metadata-0"

func kindOf(path string) (kind, bool) {
	name := filepath.Base(path)
	if m := offsetName.FindStringSubmatch(name); m != nil {
		return bySuffix[m[2]], true
	}
	if snapshotName.MatchString(name) {
		return kind{"metadata snapshot", (*dumper).metadataSnapshot}, true
	}
	k, ok := byName[name]
	return k, ok
}

// Dump reads a file, or every file that it knows of a directory (not those of directories in it),
// and hands what it finds to emit, each file's Summary last. It returns how many places are
// damaged; the error is emit's, or what kept it from reading.
func Dump(path string, o Options, emit func(Item) error) (damaged int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err // names operation and path
	}
	if !info.IsDir() {
		return dumpFile(path, o, emit)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0, err
	}
	known := 0
	for _, e := range entries { // by name, so a segment comes with its indexes
		name := filepath.Join(path, e.Name())
		if _, ok := kindOf(name); !ok || e.IsDir() {
			continue
		}
		known++
		n, err := dumpFile(name, o, emit)
		damaged += n
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a running broker deletes files
			return damaged, err
		}
	}
	if known == 0 {
		return 0, fmt.Errorf("%s: there is %w in it", path, ErrUnknownFile)
	}
	return damaged, nil
}

func dumpFile(path string, o Options, emit func(Item) error) (damaged int64, err error) {
	k, ok := kindOf(path)
	if !ok {
		return 0, fmt.Errorf("%s: %w", path, ErrUnknownFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	d := &dumper{file: path, f: f, size: info.Size(), options: o, emit: emit}
	d.sum = Summary{Kind: "summary", File: path, Type: k.name, Bytes: d.size}
	if err := k.read(d); err != nil {
		return d.sum.Damaged, fmt.Errorf("read %s: %w", path, err)
	}
	return d.sum.Damaged, emit(d.sum)
}

// baseOffset is what a file's name says.
func baseOffset(path string) int64 {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	name, _, _ = strings.Cut(name, "-")
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// isMetadata tells whether a file belongs to the metadata log.
func isMetadata(path string) bool {
	abs, err := filepath.Abs(path)
	return err == nil && filepath.Base(filepath.Dir(abs)) == metadataDir
}

// maxSmallFile bounds what is read whole: checkpoints, snapshots, indexes.
const maxSmallFile = 1 << 30

// whole reads all of a file; ok is false where that was reported as damage.
func (d *dumper) whole() (data []byte, ok bool, err error) {
	if d.size > maxSmallFile {
		return nil, false, d.damage(maxSmallFile, "it is larger than such a file can be")
	}
	data = make([]byte, d.size)
	n, err := d.f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	return data[:n], true, nil
}

// entries reads a file of entries of one width. A last one that is not whole is damage.
func (d *dumper) entries(width int, each func(at int64, entry []byte) error) error {
	data, ok, err := d.whole()
	if err != nil || !ok {
		return err
	}
	at := int64(0)
	for entry := range slices.Chunk(data, width) {
		if len(entry) < width {
			return d.damage(at, "%d bytes of an entry of %d", len(entry), width)
		}
		d.sum.Entries++
		if err := each(at, entry); err != nil {
			return err
		}
		at += int64(width)
	}
	return nil
}
