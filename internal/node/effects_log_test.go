package node_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
)

// logEffects are those of the broker's keys of logs that are no topic's default.
var logEffects = map[string]effect{
	"log.dir":           {see: directory, cases: []string{"/one", "/one", "/two", "/two"}},
	"log.dirs":          {see: directory, cases: []string{"/one", "/one", "/two,/three", "/two /three"}},
	"cordoned.log.dirs": {see: cordoned, cases: []string{"/data", "/more", "/more", "/data", "", "/data /more"}, running: true},
	"log.flush.offset.checkpoint.interval.ms":       {see: checkpointed("recovery-point-offset-checkpoint"), cases: []string{"1u", "written", "100u", "not written"}},
	"log.flush.start.offset.checkpoint.interval.ms": {see: checkpointed("replication-offset-checkpoint"), cases: []string{"1u", "written", "100u", "not written"}},
	"log.flush.scheduler.interval.ms":               {see: flushedInTime, cases: []string{"1u", "flushed", "100u", "not flushed"}},
	"log.initial.task.delay.ms":                     {see: firstTask, cases: []string{"2000", "done", "60000", "not yet"}},
	"log.retention.check.interval.ms":               {see: checkedInTime, cases: []string{"1u", "deleted", "100u", "kept"}},
	"log.idle.close.ms":                             {see: closedWhenIdle, cases: []string{"1u", "closed", "100u", "open"}},
	"log.max.open.files":                            {see: closedWhenMany, cases: []string{"64", "closed", "4096", "open"}},
	"message.max.decompressed.bytes":                {see: unpacked, cases: []string{"100000", "MESSAGE_TOO_LARGE", "1000000", "taken"}},
	"num.recovery.threads.per.data.dir":             {see: recoveredAtATime, cases: []string{"1", "1", "3", "3"}},
	"producer.id.expiration.ms":                     {see: producers, cases: []string{"1u", "0", "100u", "3"}, running: true},
	"producer.id.expiration.check.interval.ms":      {see: producersChecked, cases: []string{"1u", "0", "100u", "3"}},
	"producer.id.max.entries":                       {see: producers, cases: []string{"1", "1", "1000", "3"}},
}

func directory(p *probe) string {
	p.n = p.Node("broker", "log.dirs", p.key+"="+p.value)
	p.n.MustStart()
	var found []string
	for _, dir := range []string{"/data", "/one", "/two", "/three"} {
		if p.size(dir+"/meta.properties") > 0 {
			found = append(found, dir)
		}
	}
	return strings.Join(found, " ")
}

func cordoned(p *probe) string {
	p.start("log.dirs=/data,/more")
	time.Sleep(time.Second)
	p.topic("t", 4)
	var found []string
	for n := range int32(4) {
		p.mustProduce("t", n, "a")
	}
	for _, dir := range []string{"/data", "/more"} {
		for n := range 4 {
			if p.size(fmt.Sprintf("%s/t-%d", dir, n)) >= 0 {
				found = append(found, dir)
				break
			}
		}
	}
	return strings.Join(found, " ")
}

func checkpointed(file string) func(p *probe) string {
	return func(p *probe) string {
		p.start("log.initial.task.delay.ms=3000000")
		p.topic("t", 1)
		p.mustProduce("t", 0, "a")
		before := p.size("/data/" + file)
		time.Sleep(p.unit + p.unit/10)
		return yes(p.size("/data/"+file) > before, "written", "not written")
	}
}

func firstTask(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, "a")
	before := p.size("/data/recovery-point-offset-checkpoint")
	time.Sleep(5 * time.Second)
	return yes(p.size("/data/recovery-point-offset-checkpoint") > before, "done", "not yet")
}

func checkedInTime(p *probe) string {
	p.start("log.initial.task.delay.ms=3000000")
	p.topic("t", 1, "retention.bytes", "1000", "internal.segment.bytes", "1000")
	p.mustProduce("t", 0, texts(20, 300)...)
	time.Sleep(p.unit + p.unit/10)
	start, err := p.c.Offset(p.Context(), "t", 0, -2)
	if err != nil {
		p.Fatalf("log start: %v", err)
	}
	return yes(start > 0, "deleted", "kept")
}

// opened tells whether another append had to open the segment again.
func opened(p *probe, partitions int) string {
	p.n.Record()
	for n := range int32(partitions) {
		p.mustProduce("t", n, "b")
	}
	return yes(count(p.n.Record(), disk.OpOpen, "/00000000000000000000.log") > 0, "closed", "open")
}

func closedWhenIdle(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, "a")
	time.Sleep(3 * p.unit)
	return opened(p, 1)
}

func closedWhenMany(p *probe) string {
	p.start()
	const partitions = 100
	p.topic("t", partitions)
	for n := range int32(partitions) {
		p.mustProduce("t", n, "a")
	}
	time.Sleep(2 * time.Second)
	return opened(p, partitions)
}

func unpacked(p *probe) string {
	p.start()
	p.topic("t", 1)
	bomb := clustertest.Batch(time.Now().UnixMilli(), batch.Gzip, strings.Repeat("0", 500_000))
	_, err := p.c.Produce(p.Context(), -1, "t", 0, bomb)
	return verdict(err)
}

func recoveredAtATime(p *probe) string {
	p.start()
	p.topic("t", 8)
	for n := range int32(8) {
		p.mustProduce("t", n, "a")
	}
	p.n.Kill()
	var now, most atomic.Int64
	p.n.Fault(func(op disk.Op) error {
		if op.Kind == disk.OpRead && strings.HasPrefix(op.Path, "/data/t-") && strings.HasSuffix(op.Path, ".log") {
			at := now.Add(1)
			for seen := most.Load(); at > seen && !most.CompareAndSwap(seen, at); seen = most.Load() {
			}
			time.Sleep(time.Second)
			now.Add(-1)
		}
		return nil
	})
	p.n.MustStart()
	return fmt.Sprint(most.Load())
}

// producersAfter is how many producers of three a partition remembers after a while.
func producersAfter(p *probe, d time.Duration) string {
	p.topic("t", 1)
	for range 3 {
		id, err := p.c.ProducerID(p.Context())
		if err != nil {
			p.Fatalf("producer id: %v", err)
		}
		b := clustertest.Batch(time.Now().UnixMilli(), batch.None, "a")
		b.SetProducer(id, 0, 0, false)
		if _, err := p.c.Produce(p.Context(), -1, "t", 0, b); err != nil {
			p.Fatalf("produce: %v", err)
		}
	}
	time.Sleep(d)
	t := kmsg.NewDescribeProducersRequestTopic()
	t.Topic, t.Partitions = "t", []int32{0}
	q := kmsg.NewPtrDescribeProducersRequest()
	q.Topics = append(q.Topics, t)
	res, err := clustertest.Call[*kmsg.DescribeProducersResponse](p.Context(), p.c, q)
	if err != nil {
		p.Fatalf("describe producers: %v", err)
	}
	return fmt.Sprint(len(res.Topics[0].Partitions[0].ActiveProducers))
}

func producers(p *probe) string {
	p.start("producer.id.expiration.check.interval.ms=5000", "log.initial.task.delay.ms=1000")
	return producersAfter(p, 2*p.unit)
}

func producersChecked(p *probe) string {
	p.start("producer.id.expiration.ms=1000", "log.initial.task.delay.ms=3000000")
	return producersAfter(p, 2*p.unit)
}
