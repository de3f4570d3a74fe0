package commitlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/compact"
	"barnabas/internal/disk"
)

// BenchmarkCompaction compacts 256 MiB of 1 KiB records over 65,536 keys on the machine's disk.
func BenchmarkCompaction(b *testing.B) {
	const records, keys, perBatch = 256 << 10, 64 << 10, 16
	value := make([]byte, 1000)
	for i := range value {
		value[i] = byte(i * 7)
	}
	for b.Loop() {
		b.StopTimer()
		o := testOptions(disk.OS)
		o.Path = filepath.ToSlash(b.TempDir())
		d := mustOpen(b, o)
		cfg := DefaultConfig()
		cfg.SegmentBytes, cfg.Compact, cfg.Delete, cfg.FlushBeforeAck = 64<<20, true, false, false
		l := mustLog(b, d, cfg)
		r := rand.New(rand.NewPCG(1, 1))
		build := batch.NewBuilder(batch.BuilderOptions{})
		for range records / perBatch {
			build.Reset()
			for range perBatch {
				build.Append(testNow, fmt.Appendf(nil, "key-%012d", r.IntN(keys)), value, nil)
			}
			made, err := build.Build()
			if err != nil {
				b.Fatal(err)
			}
			mustAppend(b, l, made)
		}
		flush(b, l)
		l.AdvanceHighWatermark(l.Progress().End)
		opts := CleanerOptions{Threads: 1}
		opts.setDefaults()
		throttle := &compact.Throttle{}
		throttle.SetRate(opts.IOBytesPerSecond)
		found, err := l.dirt(testNow)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(found.dirty)
		b.StartTimer()
		stats, err := l.compact(context.Background(), found, &opts, opts.mapFor(found.upTo-found.from), throttle)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(stats.RecordsKept), "kept")
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
