package quorum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// A snapshot is a file in Kafka's naming (end offset, exclusive, and epoch) and of batches with one
// record each: a header (raft's metadata of the snapshot), in a quorum of several its members, and once more those that vote in
// Kafka's own control records, for its tools to read; then
// records by the thousand, then a footer with their count, so that a file that was cut short is told
// from a whole one.
const (
	snapshotSuffix   = ".checkpoint"
	keyHeader        = 'h'
	keyMembers       = 'v'
	keyRecords       = 'r'
	keyFooter        = 'f'
	recordsPerBatch  = 1000
	maxSnapshotBytes = 4 << 30
)

// snapshotFile is what a snapshot holds.
type snapshotFile struct {
	meta    *pb.SnapshotMetadata
	members membership
	records []metadata.Record
	data    []byte // the file itself, where it came from another node
}

func (f *snapshotFile) snapshot() metadata.Snapshot {
	return metadata.Snapshot{Offset: offsetOf(f.meta.GetIndex()), Epoch: int32(f.meta.GetTerm()), Records: f.records}
}

// snapshotName gives 00000000000000000042-0000000007.checkpoint for a snapshot up to offset 41.
func snapshotName(m *pb.SnapshotMetadata) string {
	return fmt.Sprintf("%020d-%010d%s", offsetOf(m.GetIndex())+1, m.GetTerm(), snapshotSuffix)
}

// parseSnapshotName is the reverse; ok is false for other files.
func parseSnapshotName(name string) (index, term uint64, ok bool) {
	stem, isSnapshot := strings.CutSuffix(name, snapshotSuffix)
	end, epoch, hasDash := strings.Cut(stem, "-")
	if !isSnapshot || !hasDash || len(end) != 20 || len(epoch) != 10 {
		return 0, 0, false
	}
	next, err1 := strconv.ParseInt(end, 10, 64)
	t, err2 := strconv.ParseUint(epoch, 10, 32)
	if err1 != nil || err2 != nil || next < 0 {
		return 0, 0, false
	}
	return indexOf(next - 1), t, true
}

func encodeSnapshot(f *snapshotFile, nowMs int64) ([]byte, error) {
	var out []byte
	with, next := newBuilders(), int64(0)
	flush := func(b *batch.Builder) error {
		built, err := b.Build()
		if err == nil {
			built.Assign(next, 0)
			next += int64(built.Count())
		}
		out = append(out, built...)
		b.Reset()
		return err
	}
	add := func(key byte, value []byte) error {
		with.data.Append(nowMs, []byte{key}, value, nil)
		return flush(with.data)
	}
	header, err := proto.Marshal(f.meta)
	if err == nil {
		err = add(keyHeader, header)
	}
	if len(f.members.Members) > 0 {
		members, encodeErr := f.members.encode()
		if err = errors.Join(err, encodeErr); err == nil {
			err = add(keyMembers, members)
		}
		if voters := f.members.voters(f.meta.GetConfState().GetVoters()); err == nil && len(voters) > 0 {
			with.control.Append(nowMs, controlKey(batch.KRaftVersion), metadata.AppendKRaftVersion(nil), nil)
			with.control.Append(nowMs, controlKey(batch.KRaftVoters), metadata.AppendVoters(nil, voters, nil), nil)
			err = flush(with.control)
		}
	}
	for chunk := range slices.Chunk(f.records, recordsPerBatch) {
		encoded, encodeErr := metadata.Encode(chunk)
		err = errors.Join(err, encodeErr)
		if err == nil {
			err = add(keyRecords, encoded)
		}
	}
	if err == nil {
		err = add(keyFooter, binary.BigEndian.AppendUint64(nil, uint64(len(f.records))))
	}
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return out, nil
}

// decodeSnapshot reads a whole snapshot, or none: a file without its footer is ErrDamaged.
func decodeSnapshot(c *batch.Checker, data []byte) (*snapshotFile, error) {
	f := &snapshotFile{}
	for footer := false; !footer; {
		b, rest, err := batch.Next(data)
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w: %w", ErrDamaged, err)
		}
		data = rest
		if b.IsControl() && f.meta != nil {
			continue // what is said of the voters for others to read
		}
		for r, err := range c.Records(b) {
			if err != nil || len(r.Key) != 1 || f.meta == nil && r.Key[0] != keyHeader {
				return nil, errors.Join(fmt.Errorf("snapshot: %w: unexpected record", ErrDamaged), err)
			}
			switch r.Key[0] {
			case keyHeader:
				f.meta = &pb.SnapshotMetadata{}
				err = proto.Unmarshal(r.Value, f.meta)
			case keyMembers:
				f.members, err = decodeMembership(r.Value)
			case keyRecords:
				var some []metadata.Record
				some, err = metadata.Decode(r.Value)
				f.records = append(f.records, some...)
			case keyFooter:
				footer = true
				if len(r.Value) != 8 || binary.BigEndian.Uint64(r.Value) != uint64(len(f.records)) {
					err = ErrDamaged
				}
			}
			if err != nil {
				return nil, fmt.Errorf("snapshot: %w", err)
			}
		}
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("snapshot: %w: %d bytes after its end", ErrDamaged, len(data))
	}
	return f, nil
}

// saveSnapshot makes a snapshot durable; the ones before it go afterwards.
func (s *storage) saveSnapshot(f *snapshotFile, nowMs int64) error {
	data, err := encodeSnapshot(f, nowMs)
	if err != nil {
		return err
	}
	return s.saveSnapshotData(f.meta, data)
}

func (s *storage) saveSnapshotData(m *pb.SnapshotMetadata, data []byte) error {
	name := snapshotName(m)
	if err := s.home.WriteFile(logName+"/"+name, data); err != nil {
		return fmt.Errorf("save snapshot %s: %w", name, err)
	}
	entries, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, e := range entries {
		if index, _, ok := parseSnapshotName(e.Name); ok && index < m.GetIndex() {
			if err := s.fs.Remove(s.dir + "/" + e.Name); err != nil {
				return fmt.Errorf("remove snapshot %s: %w", e.Name, err)
			}
		}
	}
	return nil
}

// loadSnapshot reads the newest snapshot; nil where there is none.
func loadSnapshot(fsys disk.FS, dir string, c *batch.Checker) (*snapshotFile, error) {
	newest, err := newestSnapshot(fsys, dir)
	if err != nil || newest == "" {
		return nil, err
	}
	data, err := disk.ReadFile(fsys, dir+"/"+newest, maxSnapshotBytes)
	var f *snapshotFile
	if err == nil {
		f, err = decodeSnapshot(c, data)
	}
	if err == nil && snapshotName(f.meta) != newest {
		err = fmt.Errorf("holds %s: %w", snapshotName(f.meta), ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w; if there are other voters, %s", newest, err, fromOthers)
	}
	return f, nil
}

// newestSnapshot is the name of the newest snapshot's file, "" where there is none.
func newestSnapshot(fsys disk.FS, dir string) (newest string, err error) {
	entries, err := fsys.List(dir)
	if err != nil {
		return "", fmt.Errorf("list snapshots: %w", err)
	}
	for _, e := range entries { // sorted by name, so by offset
		if _, _, ok := parseSnapshotName(e.Name); ok {
			newest = e.Name
		}
	}
	return newest, nil
}
