package node_test

import (
	"fmt"
	"strings"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
)

// topicEffects are those of a topic's keys, seen alike through the broker's keys that give them their defaults.
var topicEffects = map[string]effect{
	"cleanup.policy":                          {see: keyless, cases: []string{"delete", "taken", "compact", "INVALID_RECORD"}, running: true},
	"compression.type":                        {see: storedCodec, cases: []string{"producer", "lz4", "gzip", "gzip", "uncompressed", "none"}, running: true},
	"compression.gzip.level":                  {see: storedSize("gzip"), cases: []string{"1", "*", "9", "*"}},
	"compression.lz4.level":                   {see: storedSize("lz4"), cases: []string{"1", "*", "17", "*"}},
	"compression.zstd.level":                  {see: storedSize("zstd"), cases: []string{"1", "*", "22", "*"}},
	"file.delete.delay.ms":                    {see: deletedFiles, cases: []string{"1u", "gone", "10u", "there"}},
	"flush.before.ack":                        {see: acksWithoutFlush, cases: []string{"true", "waits", "false", "acknowledged"}, running: true},
	"flush.messages":                          {see: flushedAfterThree, cases: []string{"3", "flushed", "1000", "not flushed"}},
	"flush.ms":                                {see: flushedInTime, cases: []string{"1u", "flushed", "100u", "not flushed"}},
	"follower.replication.throttled.replicas": {see: copiesThrottled, cases: []string{"", "soon", "*", "late", "0:2", "late", "0:1,1:2", "soon"}},
	"leader.replication.throttled.replicas":   {see: copiesThrottled, cases: []string{"", "soon", "*", "late", "0:1", "late", "0:2,1:1", "soon"}},
	"index.interval.bytes":                    {see: indexEntries, cases: []string{"0", "entries", "100000000", "none"}},
	"internal.segment.bytes":                  {see: segments(300), cases: []string{"1000", "*", "100000", "*"}},
	"segment.bytes":                           {see: segments(400_000), cases: []string{"1048576", "*", "8388608", "*"}},
	"max.message.bytes":                       {see: largeRecord, cases: []string{"1000", "MESSAGE_TOO_LARGE", "20000", "taken"}, running: true},
	"message.timestamp.after.max.ms":          {see: timestamp(+2 * time.Minute), cases: []string{"1u", "INVALID_TIMESTAMP", "3u", "taken"}},
	"message.timestamp.before.max.ms":         {see: timestamp(-2 * time.Minute), cases: []string{"1u", "INVALID_TIMESTAMP", "3u", "taken"}},
	"message.timestamp.type":                  {see: whoseClock, cases: []string{"CreateTime", "the producer's", "LogAppendTime", "the broker's"}},
	"min.insync.replicas":                     {see: minISRWarning, cases: []string{"1", "created", "2", "warned"}},
	"preallocate":                             {see: preallocated, cases: []string{"true", "reserved", "false", "not reserved"}},
	"retention.bytes":                         {see: retained(0), cases: []string{"-1", "all", "2000", "some"}, running: true},
	"retention.ms":                            {see: retained(1), cases: []string{"-1", "all", "1u", "some"}},
	"segment.index.bytes":                     {see: segmentsByIndex, cases: []string{"16", "*", "10485760", "*"}},
	"segment.ms":                              {see: segmentsByTime, cases: []string{"1u", "2", "100u", "1"}},
	"unclean.leader.election.enable":          {see: ledWithoutDirectory, cases: []string{"true", "led", "false", "waiting"}, running: true},
	"segment.jitter.ms":                       {see: segmentsByJitter, cases: []string{"0", "in step", "2u", "spread"}},
}

func keyless(p *probe) string {
	p.start()
	p.topic("t", 1)
	return verdict(p.produce("t", 0, "without a key"))
}

// stored is the first batch as a consumer gets it.
func stored(p *probe, topic string) batch.Batch {
	got, err := p.c.Fetch(p.Context(), topic, 0, 0, clustertest.FetchOptions{})
	if err != nil {
		p.Fatalf("fetch: %v", err)
	}
	b, _, err := batch.Next(got.RecordBatches)
	if err != nil {
		p.Fatalf("first batch: %v", err)
	}
	return b
}

func storedCodec(p *probe) string {
	p.start()
	p.topic("t", 1)
	if _, err := p.c.Produce(p.Context(), -1, "t", 0, clustertest.Batch(time.Now().UnixMilli(), batch.Lz4, texts(20, 30)...)); err != nil {
		p.Fatalf("produce: %v", err)
	}
	return stored(p, "t").Codec().String()
}

func storedSize(codec string) func(p *probe) string {
	return func(p *probe) string {
		p.start()
		p.topic("t", 1, "compression.type", codec)
		words := []string{"flight", "origin", "delay", "Chicago", "distance", "Boston", "late", "Denver"}
		dice := p.Dice("text")
		var text strings.Builder
		for range 20_000 {
			text.WriteString(words[dice.IntN(len(words))])
			text.WriteByte(byte('a' + dice.IntN(26)))
		}
		p.mustProduce("t", 0, text.String())
		return fmt.Sprint(stored(p, "t").Size())
	}
}

func deletedFiles(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, "a")
	if err := p.c.DeleteTopic(p.Context(), "t"); err != nil {
		p.Fatalf("delete: %v", err)
	}
	if len(p.files("/data", "-delete")) != 1 {
		return "gone at once"
	}
	time.Sleep(3 * p.unit)
	return yes(len(p.files("/data", "-delete")) == 0, "gone", "there")
}

func acksWithoutFlush(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.n.Fault(func(op disk.Op) error {
		if op.Kind == disk.OpSync && strings.HasPrefix(op.Path, "/data/t-0") || op.Kind == disk.OpSyncDir && op.Path == "/data" || op.Kind == disk.OpSyncFS {
			time.Sleep(time.Minute)
		}
		return nil
	})
	ctx, cancel := p.within(10 * time.Second)
	defer cancel()
	_, err := p.c.Produce(ctx, -1, "t", 0, clustertest.Batch(time.Now().UnixMilli(), batch.None, "a"))
	return yes(err == nil, "acknowledged", "waits")
}

func flushedLog(p *probe) string {
	ops := p.n.Record()
	return yes(count(ops, disk.OpSync, "/data/t-0/0000")+count(ops, disk.OpSyncFS, "") > 0, "flushed", "not flushed")
}

func flushedAfterThree(p *probe) string {
	p.start()
	p.topic("t", 1, "flush.before.ack", "false")
	p.n.Record()
	p.mustProduce("t", 0, "a", "b")
	if flushedLog(p) == "flushed" {
		return "flushed too early"
	}
	p.mustProduce("t", 0, "c")
	return flushedLog(p)
}

func flushedInTime(p *probe) string {
	p.start()
	p.topic("t", 1, "flush.before.ack", "false")
	p.n.Record()
	p.mustProduce("t", 0, "a")
	time.Sleep(p.unit / 2)
	if flushedLog(p) == "flushed" {
		return "flushed too early"
	}
	time.Sleep(2 * p.unit)
	return flushedLog(p)
}

func indexEntries(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, texts(30, 300)...)
	if err := p.n.Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	return yes(p.size("/data/t-0/00000000000000000000.index") > 0, "entries", "none")
}

func segments(size int) func(p *probe) string {
	return func(p *probe) string {
		p.start()
		p.topic("t", 1)
		p.mustProduce("t", 0, texts(8, size)...)
		return fmt.Sprint(len(p.files("/data/t-0", ".log")))
	}
}

func largeRecord(p *probe) string {
	p.start()
	p.topic("t", 1)
	return verdict(p.produce("t", 0, strings.Repeat("x", 5000)))
}

func timestamp(off time.Duration) func(p *probe) string {
	return func(p *probe) string {
		p.start()
		p.topic("t", 1)
		_, err := p.c.Produce(p.Context(), -1, "t", 0, clustertest.Batch(time.Now().Add(off).UnixMilli(), batch.None, "a"))
		return verdict(err)
	}
}

func whoseClock(p *probe) string {
	p.start()
	p.topic("t", 1)
	sent := time.Now().Add(-time.Second).UnixMilli()
	if _, err := p.c.Produce(p.Context(), -1, "t", 0, clustertest.Batch(sent, batch.None, "a")); err != nil {
		p.Fatalf("produce: %v", err)
	}
	got, err := p.c.ReadAll(p.Context(), "t", 0, 0)
	if err != nil || len(got) != 1 {
		p.Fatalf("read %v: %v", got, err)
	}
	return yes(got[0].TimestampMs == sent, "the producer's", "the broker's")
}

func minISRWarning(p *probe) string {
	p.start()
	message := p.topic("t", 1)
	return yes(strings.Contains(message, "min.insync.replicas is 2"), "warned", message)
}

func preallocated(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.n.Record()
	p.mustProduce("t", 0, "a")
	return yes(count(p.n.Record(), disk.OpPreallocate, "/data/t-0/") > 0, "reserved", "not reserved")
}

func retained(units int) func(p *probe) string {
	return func(p *probe) string {
		p.start("log.retention.check.interval.ms=5000", "log.initial.task.delay.ms=1000")
		p.topic("t", 1, "internal.segment.bytes", "1000")
		p.mustProduce("t", 0, texts(20, 300)...)
		time.Sleep(time.Duration(units)*(p.unit+p.unit/10) + 20*time.Second)
		start, err := p.c.Offset(p.Context(), "t", 0, -2)
		if err != nil {
			p.Fatalf("log start: %v", err)
		}
		return yes(start == 0, "all", "some")
	}
}

func segmentsByIndex(p *probe) string {
	p.start()
	p.topic("t", 1, "index.interval.bytes", "0")
	p.mustProduce("t", 0, texts(10, 100)...)
	return fmt.Sprint(len(p.files("/data/t-0", ".log")))
}

func segmentsByTime(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, "a")
	time.Sleep(p.unit + p.unit/10)
	p.mustProduce("t", 0, "b")
	return fmt.Sprint(len(p.files("/data/t-0", ".log")))
}

func segmentsByJitter(p *probe) string {
	p.start()
	const partitions = 8
	p.topic("t", partitions, "segment.ms", fmt.Sprint((2 * p.unit).Milliseconds()))
	for range 2 {
		for n := range int32(partitions) {
			p.mustProduce("t", n, "a")
		}
		time.Sleep(p.unit)
	}
	rolled := 0
	for n := range partitions {
		rolled += len(p.files(fmt.Sprintf("/data/t-%d", n), ".log")) - 1
	}
	return yes(rolled == 0, "in step", "spread")
}
