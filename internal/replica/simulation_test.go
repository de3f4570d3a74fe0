package replica

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// simulatedSeeds is how many worlds an ordinary test run has; WORLD_SEEDS=FROM,TO asks for others.
const simulatedSeeds = 30

var durableTopics = []worldTopic{
	{name: "durable", id: 1, numbers: 2, configs: map[string]string{"min.insync.replicas": "2"}},
	{name: "single", id: 2, numbers: 1, configs: map[string]string{"min.insync.replicas": "1"}},
}

var cachedTopics = []worldTopic{
	{name: "durable", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}},
	{name: "cached", id: 2, numbers: 2, configs: map[string]string{"min.insync.replicas": "2", "flush.before.ack": "false"}},
}

// TestReplicationSurvives: three brokers under faults. Nothing that was acknowledged is lost or doubled; what was read
// stays as it was read; the replicas are equal in the end.
func TestReplicationSurvives(t *testing.T) {
	from, to := uint64(0), uint64(simulatedSeeds)
	if span := os.Getenv("WORLD_SEEDS"); span != "" {
		from, to = parseSpan(t, span)
	}
	total := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			topics := durableTopics
			if seed%2 == 1 {
				topics = cachedTopics
			}
			inWorld(t, seed, topics, func(_ *testing.T, w *world) {
				w.late.Store(true)
				w.check.begin(20 * time.Millisecond)
				w.trouble(10*time.Second, seed%2 == 0)
				w.await("all replicas in sync", w.whole)
				w.check.end()
				<-time.After(2 * time.Second)
				w.check.verdict()
				total["acknowledged"] += w.check.acknowledged()
				for what, n := range w.counts {
					total[what] += n
				}
			})
		})
	}
	t.Log(total)
}

func parseSpan(t *testing.T, span string) (from, to uint64) {
	t.Helper()
	for i, c := range span {
		if c == ',' {
			a, err1 := strconv.ParseUint(span[:i], 10, 64)
			b, err2 := strconv.ParseUint(span[i+1:], 10, 64)
			if err1 != nil || err2 != nil {
				break
			}
			return a, b
		}
	}
	t.Fatalf("WORLD_SEEDS=%s: want FROM,TO", span)
	return 0, 0
}
