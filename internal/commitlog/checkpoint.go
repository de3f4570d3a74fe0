package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"barnabas/internal/commitlog/checkpoint"
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
	err := checkpoint.Lines(data, 3, func(f []string) error {
		partition, err := strconv.ParseInt(f[1], 10, 32)
		if err != nil || partition < 0 || f[0] == "" {
			return fmt.Errorf("%w: partition %q %q", checkpoint.ErrMalformed, f[0], f[1])
		}
		offset, err := checkpoint.Offset(f[2])
		offsets[TopicPartition{f[0], int32(partition)}] = offset
		return err
	})
	return offsets, err
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
