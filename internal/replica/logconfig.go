package replica

import (
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// logConfig makes the settings of a log from the effective settings of its topic.
func logConfig(t *config.Topic) commitlog.Config {
	c := commitlog.DefaultConfig()
	c.SegmentBytes = int32(t.Int("segment.bytes"))
	c.IndexMaxBytes = int32(t.Int("segment.index.bytes"))
	c.IndexIntervalBytes = int32(t.Int("index.interval.bytes"))
	c.SegmentMs, c.SegmentJitterMs = t.Int64("segment.ms"), t.Int64("segment.jitter.ms")
	c.RetentionBytes, c.RetentionMs = t.Int64("retention.bytes"), t.Int64("retention.ms")
	policy := t.List("cleanup.policy")
	c.Delete, c.Compact = slices.Contains(policy, "delete"), slices.Contains(policy, "compact")
	c.FlushBeforeAck = t.Bool("flush.before.ack")
	c.FlushMessages, c.FlushMs = t.Int64("flush.messages"), t.Int64("flush.ms")
	c.FileDeleteDelayMs = t.Int64("file.delete.delay.ms")
	c.Preallocate = t.Bool("preallocate")
	c.MaxMessageBytes = int32(t.Int("max.message.bytes"))
	if t.String("message.timestamp.type") == "LogAppendTime" {
		c.TimestampType = batch.LogAppendTime
	}
	c.TimestampBeforeMaxMs = t.Int64("message.timestamp.before.max.ms")
	c.TimestampAfterMaxMs = t.Int64("message.timestamp.after.max.ms")
	c.KeepCodec = true
	switch name := t.String("compression.type"); name {
	case "producer":
	case "uncompressed":
		c.KeepCodec, c.Codec = false, batch.None
	default:
		if codec, err := batch.ParseCodec(name); err == nil { // config has refused every other name
			c.KeepCodec, c.Codec = false, codec
		}
	}
	c.Levels = batch.Levels{
		Gzip: t.Int("compression.gzip.level"), Lz4: t.Int("compression.lz4.level"), Zstd: t.Int("compression.zstd.level"),
	}
	c.DeleteRetentionMs = t.Int64("delete.retention.ms")
	c.MinCompactionLagMs, c.MaxCompactionLagMs = t.Int64("min.compaction.lag.ms"), t.Int64("max.compaction.lag.ms")
	c.MinCleanableRatio = t.Float("min.cleanable.dirty.ratio")
	return c
}

// reconfigure takes over the topic's settings. A topic that stops being durable commits at once
// what waited for the disk.
func (p *Partition) reconfigure(t *topicSettings, img *metadata.Image) {
	c := logConfig(t.Topic)
	p.log.Reconfigure(c)
	p.durable.Store(c.FlushBeforeAck)
	p.leastAsked.Store(int32(t.Int("min.insync.replicas")))
	p.throttle(&t.throttled)
	if state, ok := img.Partition(p.id.Topic, p.id.Partition); ok {
		p.setMinInSync(state)
	}
	p.advance()
}

// setMinInSync works out Kafka's effectiveMinIsr: asking for more than there are replicas would refuse every write.
func (p *Partition) setMinInSync(state *metadata.Partition) {
	p.minInSync.Store(int32(state.MinISR(int(p.leastAsked.Load()))))
}
