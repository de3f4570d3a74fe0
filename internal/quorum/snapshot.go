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
// record each: a header (raft's metadata of the snapshot), then records by the thousand, then a
// footer with their count, so that a file that was cut short is told from a whole one.
const (
	snapshotSuffix   = ".checkpoint"
	keyHeader        = 'h'
	keyRecords       = 'r'
	keyFooter        = 'f'
	recordsPerBatch  = 1000
	maxSnapshotBytes = 4 << 30
)

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

func encodeSnapshot(m *pb.SnapshotMetadata, records []metadata.Record, nowMs int64) ([]byte, error) {
	var out []byte
	b := batch.NewBuilder(batch.BuilderOptions{})
	add := func(key byte, value []byte) error {
		b.Reset()
		b.Append(nowMs, []byte{key}, value, nil)
		built, err := b.Build()
		out = append(out, built...)
		return err
	}
	header, err := proto.Marshal(m)
	if err == nil {
		err = add(keyHeader, header)
	}
	for chunk := range slices.Chunk(records, recordsPerBatch) {
		encoded, encodeErr := metadata.Encode(chunk)
		err = errors.Join(err, encodeErr)
		if err == nil {
			err = add(keyRecords, encoded)
		}
	}
	if err == nil {
		err = add(keyFooter, binary.BigEndian.AppendUint64(nil, uint64(len(records))))
	}
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return out, nil
}

// decodeSnapshot reads a whole snapshot, or none: a file without its footer is ErrDamaged.
func decodeSnapshot(c *batch.Checker, data []byte) (m *pb.SnapshotMetadata, records []metadata.Record, err error) {
	for footer := false; !footer; {
		b, rest, err := batch.Next(data)
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return nil, nil, fmt.Errorf("snapshot: %w: %w", ErrDamaged, err)
		}
		data = rest
		for r, err := range c.Records(b) {
			if err != nil || len(r.Key) != 1 || m == nil && r.Key[0] != keyHeader {
				return nil, nil, errors.Join(fmt.Errorf("snapshot: %w: unexpected record", ErrDamaged), err)
			}
			switch r.Key[0] {
			case keyHeader:
				m = &pb.SnapshotMetadata{}
				err = proto.Unmarshal(r.Value, m)
			case keyRecords:
				var some []metadata.Record
				some, err = metadata.Decode(r.Value)
				records = append(records, some...)
			case keyFooter:
				footer = true
				if len(r.Value) != 8 || binary.BigEndian.Uint64(r.Value) != uint64(len(records)) {
					err = ErrDamaged
				}
			}
			if err != nil {
				return nil, nil, fmt.Errorf("snapshot: %w", err)
			}
		}
	}
	if len(data) > 0 {
		return nil, nil, fmt.Errorf("snapshot: %w: %d bytes after its end", ErrDamaged, len(data))
	}
	return m, records, nil
}

// saveSnapshot makes a snapshot durable; the ones before it go afterwards.
func (s *storage) saveSnapshot(m *pb.SnapshotMetadata, records []metadata.Record, nowMs int64) error {
	data, err := encodeSnapshot(m, records, nowMs)
	if err != nil {
		return err
	}
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

// loadSnapshot reads the newest snapshot; found is false where there is none.
func loadSnapshot(fsys disk.FS, dir string, c *batch.Checker) (m *pb.SnapshotMetadata, records []metadata.Record, found bool, err error) {
	entries, err := fsys.List(dir)
	if err != nil {
		return nil, nil, false, fmt.Errorf("list snapshots: %w", err)
	}
	newest := ""
	for _, e := range entries { // sorted by name, so by offset
		if _, _, ok := parseSnapshotName(e.Name); ok {
			newest = e.Name
		}
	}
	if newest == "" {
		return nil, nil, false, nil
	}
	data, err := disk.ReadFile(fsys, dir+"/"+newest, maxSnapshotBytes)
	if err == nil {
		m, records, err = decodeSnapshot(c, data)
	}
	if err == nil && snapshotName(m) != newest {
		err = fmt.Errorf("holds %s: %w", snapshotName(m), ErrDamaged)
	}
	if err != nil {
		return nil, nil, false, fmt.Errorf("read snapshot %s: %w", newest, err)
	}
	return m, records, true, nil
}
