package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	restartGroups  = 1000
	oldCommits     = 10_000_000
	compactBytes   = 4 << 30
	compactKeys    = 1_000_000
	compactRecord  = 1024
	compactSegment = 256 << 20
	dedupeMiB      = 128 // log.cleaner.dedupe.buffer.size by default
)

// storedRows are about what lies on the disk already: old commits to be read at a start, old records to be compacted away.
func storedRows() []row {
	kept := map[string]*broker{}
	return []row{
		{
			name: "restart", title: "restart with 1,000 groups and ten million old commits, until every group can commit", variants: []string{kafka, durable}, alone: true,
			metrics: []metric{{"seconds", "time", "s"}, {"cpu", "broker CPU", "s"}},
			bars:    []bar{{durable, "seconds", kafka, false, 0.5, "0.1x"}},
			prepare: func(ctx context.Context, l *lab, v variant) (err error) {
				kept[v.name], err = l.withOldCommits(ctx, v.name)
				return err
			},
			run: func(ctx context.Context, _ *lab, v variant, _ string) (sample, error) {
				return restart(ctx, kept[v.name])
			},
			tidyUp: func(_ context.Context, _ *lab, v variant) error { return os.RemoveAll(kept[v.name].dir) },
		},
		{
			name: "compact", title: "compacting 4 GiB of 1 KiB records over a million keys", variants: []string{kafka, durable}, alone: true,
			metrics: []metric{{"seconds", "time", "s"}, {"cpu", "broker CPU", "s"}, {"memory", "memory above the idle broker's", "MiB"}, {"left", "what is left", "MiB"}},
			bars:    []bar{{durable, "seconds", kafka, false, 1, "0.5x"}, {durable, "cpu", kafka, false, 0.7, ""}, {durable, "memory", "", false, dedupeMiB, ""}},
			run:     compact,
		},
	}
}

// withOldCommits makes a broker whose groups have committed again and again, and stops it.
func (l *lab) withOldCommits(ctx context.Context, name string) (*broker, error) {
	b, remove, err := l.own(name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.start(ctx), b.commitOften(ctx, l.scaled(oldCommits))); err != nil {
		remove()
		return nil, err
	}
	return b, b.end(syscall.SIGTERM)
}

func (b *broker) commitOften(ctx context.Context, commits int) error {
	if err := b.makeTopic(ctx, "consumed", commitPartitions, nil); err != nil {
		return err
	}
	if err := b.coordinator(ctx, restartGroup(0)); err != nil {
		return err
	}
	rounds := max(1, commits/commitPartitions/restartGroups)
	return b.everyGroup(ctx, func(ctx context.Context, c *committer) error {
		for i := range rounds {
			if err := b.until(ctx, "commit", func(ctx context.Context) error { return c.commit(ctx, int64(i)) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func restartGroup(i int) string { return fmt.Sprintf("group-%d", i) }

// everyGroup does something for each of the thousand groups, over a few connections.
func (b *broker) everyGroup(ctx context.Context, do func(context.Context, *committer) error) error {
	var next atomic.Int64
	return everyone(ctx, 16, func(ctx context.Context, _ int) error {
		w, err := dialWire(ctx, b.addr)
		if err != nil {
			return err
		}
		defer w.close()
		for i := next.Add(1) - 1; i < restartGroups; i = next.Add(1) - 1 {
			if err := do(ctx, newCommitter(w, restartGroup(int(i)), "consumed")); err != nil {
				return err
			}
		}
		return nil
	})
}

func restart(ctx context.Context, b *broker) (sample, error) {
	start := time.Now()
	if err := b.launch(); err != nil {
		return nil, err
	}
	if err := b.dialable(ctx); err != nil {
		return nil, err
	}
	if err := b.everyGroup(ctx, func(ctx context.Context, c *committer) error {
		return b.until(ctx, "commit", func(ctx context.Context) error { return c.commit(ctx, 1) })
	}); err != nil {
		return nil, err
	}
	s := sample{"seconds": time.Since(start).Seconds(), "cpu": b.cpuSeconds()}
	return s, b.end(syscall.SIGTERM)
}

// compact fills a topic that is not compacted yet, makes it one that is, and takes the time until the cleaner's own
// checkpoint says that everything below the segment in use is clean.
func compact(ctx context.Context, l *lab, v variant, topic string) (sample, error) {
	b, remove, err := l.own(v.name, "log.cleaner.backoff.ms=100")
	defer remove()
	if err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	records := l.scaled(compactBytes / compactRecord)
	if err := b.makeTopic(ctx, topic, 1, map[string]string{"segment.bytes": strconv.Itoa(min(compactSegment, records*compactRecord/8))}); err != nil {
		return nil, err
	}
	if err := b.fill(ctx, topic, records, l.scaled(compactKeys)); err != nil {
		return nil, err
	}
	syscall.Sync()
	target, err := b.lastSegment(topic)
	if err != nil {
		return nil, err
	}
	idle, cpu, start := b.residentMiB(), b.cpuSeconds(), time.Now()
	if err := b.alterTopic(ctx, topic, map[string]string{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}); err != nil {
		return nil, err
	}
	peak := idle
	for done := false; !done; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		peak = max(peak, b.residentMiB())
		done = b.cleanedTo(topic) >= target
	}
	s := sample{"seconds": time.Since(start).Seconds(), "cpu": b.cpuSeconds() - cpu, "memory": peak - idle}
	s["left"] = b.logMiB(topic)
	return s, b.end(syscall.SIGTERM)
}

// fill writes records with keys in random order; the same for every broker.
func (b *broker) fill(ctx context.Context, topic string, records, keys int) error {
	cl, err := b.client(producerOpts(topic, "none")...)
	if err != nil {
		return err
	}
	defer cl.Close()
	rng := rand.New(rand.NewPCG(7, 7))
	pool := payloads(compactRecord - 8)
	var failed failures
	for i := range records {
		key := binary.BigEndian.AppendUint64(nil, uint64(rng.IntN(keys)))
		cl.Produce(ctx, &kgo.Record{Key: key, Value: pool[i%len(pool)]}, func(_ *kgo.Record, err error) { failed.note(err) })
	}
	return errors.Join(cl.Flush(ctx), failed.err())
}

func (b *broker) alterTopic(ctx context.Context, topic string, configs map[string]string) error {
	cl, err := b.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var changes []kadm.AlterConfig
	for k, v := range configs {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
	}
	answers, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, changes, topic)
	if err != nil {
		return err
	}
	_, err = answers.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	return err
}

// lastSegment is the offset at which the segment in use begins.
func (b *broker) lastSegment(topic string) (int64, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, topic+"-0", "*.log"))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no segments of %s in %s: %w", topic, b.dir, err)
	}
	name := filepath.Base(files[len(files)-1])
	return strconv.ParseInt(strings.TrimSuffix(name, ".log"), 10, 64)
}

// cleanedTo is what the cleaner's checkpoint says of the topic's first partition: -1 for nothing yet.
func (b *broker) cleanedTo(topic string) int64 {
	f, err := os.Open(filepath.Join(b.dir, "cleaner-offset-checkpoint"))
	if err != nil {
		return -1
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == topic {
			if offset, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
				return offset
			}
		}
	}
	return -1
}

func (b *broker) logMiB(topic string) float64 {
	files, _ := filepath.Glob(filepath.Join(b.dir, topic+"-0", "*.log"))
	var bytes int64
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			bytes += info.Size()
		}
	}
	return float64(bytes) / (1 << 20)
}
