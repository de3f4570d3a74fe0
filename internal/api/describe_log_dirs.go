package api

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/commitlog"
	"barnabas/internal/replica"
)

// DescribeLogDirs, key 35, versions 1 to 5 (KIP-113). Version 3 has an error for the whole answer, 4
// the size of the file system (KIP-827), 5 says which directories take no new replicas (KIP-1066).
// A directory that has failed, while the broker runs or before, is listed with KAFKA_STORAGE_ERROR.
// A log's size is that of its segments, without indexes, as in Kafka.

func describeLogDirs(ctx context.Context, c *call, q *kmsg.DescribeLogDirsRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrDescribeLogDirsResponse()
	all := c.h.o.Replicas.Partitions() // by topic and number
	own, _ := c.h.o.Images.Image().Broker(c.h.o.NodeID)
	for _, d := range c.h.o.Replicas.Dirs() {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("describe log directories: %w", err)
		}
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir = absolute(d.Path())
		if own != nil {
			dir.IsCordoned = slices.Contains(own.Cordoned, d.ID())
		}
		usage, err := usageOf(d)
		if err != nil {
			dir.ErrorCode = kerr.KafkaStorageError.Code
		} else {
			dir.TotalBytes, dir.UsableBytes = int64(usage.Total), int64(usage.Available)
			dir.Topics = logsIn(d, all, q)
		}
		res.Dirs = append(res.Dirs, dir)
	}
	for _, path := range c.h.o.Replicas.LeftOut() {
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir, dir.ErrorCode = absolute(path), kerr.KafkaStorageError.Code
		res.Dirs = append(res.Dirs, dir)
	}
	return res, nil
}

// absolute is how Kafka shows a directory, however the configuration has it: a tool that asks several
// brokers must be able to tell their directories apart.
func absolute(path string) string {
	full, err := filepath.Abs(path)
	if err != nil { // the working directory is gone
		return path
	}
	return filepath.ToSlash(full)
}

func usageOf(d *commitlog.Dir) (commitlog.Usage, error) {
	if err := d.Offline(); err != nil {
		return commitlog.Usage{}, err
	}
	return d.Usage()
}

// logsIn describes the replicas in a directory that are asked for: all without a list.
func logsIn(d *commitlog.Dir, all []*replica.Partition, q *kmsg.DescribeLogDirsRequest) []kmsg.DescribeLogDirsResponseDirTopic {
	asked := map[commitlog.TopicPartition]bool{}
	for _, t := range q.Topics {
		for _, number := range t.Partitions {
			asked[commitlog.TopicPartition{Topic: t.Topic, Partition: number}] = true
		}
	}
	topics := []kmsg.DescribeLogDirsResponseDirTopic{}
	for _, p := range all {
		id := p.ID()
		if p.Log().Dir() != d || q.Topics != nil && !asked[id] {
			continue
		}
		if len(topics) == 0 || topics[len(topics)-1].Topic != id.Topic {
			topic := kmsg.NewDescribeLogDirsResponseDirTopic()
			topic.Topic = id.Topic
			topics = append(topics, topic)
		}
		part := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		part.Partition, part.Size = id.Partition, p.Log().Size()
		last := &topics[len(topics)-1]
		last.Partitions = append(last.Partitions, part)
	}
	return topics
}
