package node_test

import (
	"fmt"
	"strings"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
)

// cleanerEffects are those of the keys of compaction.
var cleanerEffects = map[string]effect{
	"log.cleaner.enable":                  {see: compacted(0), cases: []string{"true", "compacted", "false", "whole"}},
	"log.cleaner.threads":                 {see: compacted(0), cases: []string{"0", "whole", "1", "compacted"}, running: true},
	"log.cleaner.backoff.ms":              {see: compacted(0), cases: []string{"1u", "compacted", "100u", "whole"}, running: true},
	"log.cleaner.io.max.bytes.per.second": {see: compacted(3000), cases: []string{"1000", "whole", "1e9", "compacted"}, running: true},
	"log.cleaner.dedupe.buffer.size":      {see: passes, cases: []string{"1", "several", "134217728", "one"}, running: true},
	"log.cleaner.io.buffer.load.factor":   {see: passes, cases: []string{"0.1", "several", "0.9", "one"}, running: true},
	"log.cleaner.io.buffer.size":          {see: largestWrite, cases: []string{"20000", "at most 16 KiB", "262144", "more"}, running: true},
}

// compactionEffects are those of a topic's.
var compactionEffects = map[string]effect{
	"delete.retention.ms":       {see: tombstone, cases: []string{"1u", "gone", "100u", "there"}, running: true},
	"min.cleanable.dirty.ratio": {see: compacted(0), cases: []string{"0.2", "compacted", "1", "whole"}, running: true},
	"min.compaction.lag.ms":     {see: compacted(0), cases: []string{"1u", "compacted", "100u", "whole"}, running: true},
	"max.compaction.lag.ms":     {see: compactedInTime, cases: []string{"1u", "compacted", "100u", "whole"}, running: true},
}

// keyed makes a batch of records with keys; a record without a value is a tombstone.
func keyed(records ...string) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for _, r := range records {
		key, value, has := strings.Cut(r, "=")
		if has {
			b.Append(time.Now().UnixMilli(), []byte(key), []byte(value), nil)
		} else {
			b.Append(time.Now().UnixMilli(), []byte(key), nil, nil)
		}
	}
	made, err := b.Build()
	if err != nil {
		panic(err)
	}
	return made
}

func (p *probe) mustProduceKeyed(topic string, records ...string) {
	p.T.Helper()
	if _, err := p.c.Produce(p.Context(), -1, topic, 0, keyed(records...)); err != nil {
		p.Fatalf("produce to %s: %v", topic, err)
	}
}

// compactedTopic makes a topic whose segments are small, with what is compacted whenever anything is dirty.
func (p *probe) compactedTopic(configs ...string) {
	p.T.Helper()
	configs = append(configs, "cleanup.policy", "compact", "file.delete.delay.ms", "1000")
	if !strings.Contains(p.key, "cleanable") && !strings.Contains(strings.Join(configs, " "), "cleanable") {
		configs = append(configs, "min.cleanable.dirty.ratio", "0")
	}
	if message := p.topic("t", 1, configs...); message != "created" {
		p.Fatalf("create: %s", message)
	}
}

func (p *probe) records() []clustertest.Record {
	p.T.Helper()
	all, err := p.c.ReadAll(p.Context(), "t", 0, 0)
	if err != nil {
		p.Fatalf("read: %v", err)
	}
	return all
}

// compacted tells whether of ten records of each key one is left after a while.
func compacted(size int) func(p *probe) string {
	return func(p *probe) string {
		p.start()
		p.compactedTopic("internal.segment.bytes", fmt.Sprint(2000+4*size))
		for i := range 100 {
			p.mustProduceKeyed("t", fmt.Sprintf("%d=%s", i%10, strings.Repeat("v", size+100)))
		}
		time.Sleep(p.unit + p.unit/2)
		return yes(len(p.records()) < 50, "compacted", "whole")
	}
}

// compactedInTime rolls no segment by size, and nothing is dirty enough: only max.compaction.lag.ms has the log compacted.
func compactedInTime(p *probe) string {
	p.start()
	p.compactedTopic("min.cleanable.dirty.ratio", "1")
	for i := range 100 {
		p.mustProduceKeyed("t", fmt.Sprintf("%d=v", i%10))
	}
	time.Sleep(2 * p.unit)
	return yes(len(p.records()) < 50, "compacted", "whole")
}

// passes tells whether 3,000 keys were compacted at once.
func passes(p *probe) string {
	p.start("log.cleaner.io.buffer.size=8192", yes(p.key == "log.cleaner.dedupe.buffer.size", "log.cleaner.backoff.ms=15000", "log.cleaner.dedupe.buffer.size=108192"))
	p.compactedTopic("internal.segment.bytes", "100000")
	for i := range 60 {
		var records []string
		for k := range 50 {
			records = append(records, fmt.Sprintf("%06d=value", i*50+k))
		}
		p.mustProduceKeyed("t", records...)
	}
	p.n.Record()
	p.mustProduceKeyed("t", "last="+strings.Repeat("v", 90_000)) // rolls
	time.Sleep(p.unit)
	written := count(p.n.Record(), disk.OpRename, "cleaner-offset-checkpoint")
	if n := len(p.records()); n != 3001 {
		p.Fatalf("%d records", n)
	}
	return map[bool]string{true: "several", false: yes(written > 0, "one", "none")}[written > 2] // one before the first exchange, one after each pass
}

// largestWrite tells how much is written to a new segment at a time.
func largestWrite(p *probe) string {
	p.start()
	p.compactedTopic("internal.segment.bytes", "300000")
	p.n.Record()
	for i := range 500 {
		p.mustProduceKeyed("t", fmt.Sprintf("%d=%s", i, strings.Repeat("v", 1000)))
	}
	time.Sleep(p.unit)
	largest := int64(0)
	for _, op := range p.n.Record() {
		if op.Kind == disk.OpWrite && strings.HasSuffix(op.Path, ".log.cleaned") {
			largest = max(largest, op.Len)
		}
	}
	if largest == 0 {
		return "none"
	}
	return yes(largest <= 16<<10, "at most 16 KiB", "more")
}

// tombstone looks for one after two compactions, a while apart.
func tombstone(p *probe) string {
	p.start()
	p.compactedTopic("internal.segment.bytes", "1000")
	p.mustProduceKeyed("t", "gone=v")
	p.mustProduceKeyed("t", "gone")
	for range 2 {
		for i := range 30 {
			p.mustProduceKeyed("t", fmt.Sprintf("%d=%s", i%5, strings.Repeat("v", 100)))
		}
		time.Sleep(p.unit + p.unit/2)
	}
	found := "gone"
	for _, r := range p.records() {
		if r.Key == "gone" {
			if r.Value != "" {
				p.Fatalf("the record that was deleted is there")
			}
			found = "there"
		}
	}
	return found
}
