package commitlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"barnabas/internal/commitlog/epoch"
	"barnabas/internal/disk"
)

// The checkpoint files of a data directory, named and written as Kafka does: a version, a count, and a line per
// partition.
const (
	recoveryPointFile = "recovery-point-offset-checkpoint"
	startOffsetFile   = "log-start-offset-checkpoint"
	watermarkFile     = "replication-offset-checkpoint"
	cleanerFile       = "cleaner-offset-checkpoint" // names the logs that have been compacted
)

// maxCheckpointBytes bounds a checkpoint file: a million partitions with the longest topic names fit.
const maxCheckpointBytes = 512 << 20

// epochFile is where the epochs of a log are kept, in Kafka's format.
const epochFile = "leader-epoch-checkpoint"

// maxEpochFileBytes bounds leader-epoch-checkpoint: more than a million leader changes of one partition.
const maxEpochFileBytes = 32 << 20

var errCheckpoint = errors.New("malformed checkpoint")

func formatOffsets(offsets map[TopicPartition]int64) []byte {
	out := fmt.Appendf(nil, "0\n%d\n", len(offsets))
	for _, tp := range slices.SortedFunc(maps.Keys(offsets), compareTopicPartitions) {
		out = fmt.Appendf(out, "%s %d %d\n", tp.Topic, tp.Partition, offsets[tp])
	}
	return out
}

func compareTopicPartitions(a, b TopicPartition) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func parseOffsets(data []byte) (map[TopicPartition]int64, error) {
	offsets := map[TopicPartition]int64{}
	err := parseCheckpoint(data, 3, func(f []string) error {
		partition, err := strconv.ParseInt(f[1], 10, 32)
		if err != nil || partition < 0 || f[0] == "" {
			return fmt.Errorf("%w: partition %q %q", errCheckpoint, f[0], f[1])
		}
		offset, err := parseOffset(f[2])
		offsets[TopicPartition{f[0], int32(partition)}] = offset
		return err
	})
	return offsets, err
}

func parseOffset(s string) (int64, error) {
	offset, err := strconv.ParseInt(s, 10, 64)
	if err != nil || offset < 0 {
		return 0, fmt.Errorf("%w: offset %q", errCheckpoint, s)
	}
	return offset, nil
}

// parseCheckpoint hands every line's fields to line. The count guards against a file that was cut.
func parseCheckpoint(data []byte, fields int, line func([]string) error) error {
	lines := strings.Split(string(bytes.TrimSuffix(data, []byte("\n"))), "\n")
	if lines[0] != "0" {
		return fmt.Errorf("%w: version %.20q", errCheckpoint, lines[0])
	}
	if len(lines) < 2 || lines[1] != strconv.Itoa(len(lines)-2) {
		return fmt.Errorf("%w: %d lines do not match their count", errCheckpoint, len(lines))
	}
	for _, l := range lines[2:] {
		f := strings.Split(l, " ")
		if len(f) != fields {
			return fmt.Errorf("%w: line %.80q", errCheckpoint, l)
		}
		if err := line(f); err != nil {
			return err
		}
	}
	return nil
}

// readOffsets reads a checkpoint of the directory. One that is missing or damaged is as good as none: what it
// would have said is found out again, at the price of reading more.
func (d *Dir) readOffsets(name string) (map[TopicPartition]int64, error) {
	data, err := disk.ReadFile(d.fs, d.join(name), maxCheckpointBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return map[TopicPartition]int64{}, nil
	}
	if err != nil {
		return nil, err
	}
	offsets, err := parseOffsets(data)
	if err != nil {
		d.logger.Warn("checkpoint is damaged and ignored", "file", d.join(name), "error", err)
		return map[TopicPartition]int64{}, nil
	}
	return offsets, nil
}

func formatEpochs(entries []epoch.Start) []byte {
	out := fmt.Appendf(nil, "0\n%d\n", len(entries))
	for _, e := range entries {
		out = fmt.Appendf(out, "%d %d\n", e.Epoch, e.Offset)
	}
	return out
}

func parseEpochs(data []byte) ([]epoch.Start, error) {
	var entries []epoch.Start
	err := parseCheckpoint(data, 2, func(f []string) error {
		number, err := strconv.ParseInt(f[0], 10, 32)
		if err != nil || number < 0 {
			return fmt.Errorf("%w: epoch %q", errCheckpoint, f[0])
		}
		start, err := parseOffset(f[1])
		if err != nil {
			return err
		}
		e := epoch.Start{Epoch: int32(number), Offset: start}
		if n := len(entries); n > 0 && (entries[n-1].Epoch >= e.Epoch || entries[n-1].Offset >= e.Offset) {
			return fmt.Errorf("%w: epoch %d at %d after epoch %d at %d", errCheckpoint, e.Epoch, e.Offset,
				entries[n-1].Epoch, entries[n-1].Offset)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}
