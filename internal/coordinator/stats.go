package coordinator

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/coordinator/group"
	"barnabas/internal/metrics"
)

// stats are what all partitions count.
type stats struct {
	commits  metrics.Counter
	loaded   metrics.Counter
	loads    metrics.Histogram
	perBatch metrics.Histogram
}

func newStats(r *metrics.Registry) stats {
	return stats{
		commits:  r.Counter("group_offset_commits_total", "Offsets that groups have committed, one for each partition of each commit."),
		loaded:   r.Counter("group_loaded_records_total", "Records that were read when partitions of __consumer_offsets were loaded."),
		loads:    r.Histogram("group_load_seconds", "How long partitions of __consumer_offsets that hold records took to load.", metrics.Seconds()),
		perBatch: r.Histogram("group_append_records", "Records that groups wrote, by batch.", []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000}),
	}
}

// shardConfig is what the shards obey.
func shardConfig(c *config.Set) group.Config {
	return group.Config{
		GroupInitialRebalanceDelay:    c.Millis("group.initial.rebalance.delay.ms"),
		GroupMinSessionTimeout:        c.Millis("group.min.session.timeout.ms"),
		GroupMaxSessionTimeout:        c.Millis("group.max.session.timeout.ms"),
		GroupMaxSize:                  c.Int("group.max.size"),
		OffsetMetadataMaxBytes:        c.Int("offset.metadata.max.bytes"),
		OffsetsRetention:              time.Duration(c.Int64("offsets.retention.minutes")) * time.Minute,
		OffsetsRetentionCheckInterval: c.Millis("offsets.retention.check.interval.ms"),
	}
}

// askWait bounds how long whoever reads the metrics waits for the partitions.
const askWait = time.Second

// showGroups shows the groups by state, counted when somebody asks.
func (c *Coordinator) showGroups(r *metrics.Registry) {
	r.Collect("groups", "Groups that this broker coordinates, by state.", metrics.Varies, []string{"state"},
		func(emit func(float64, ...string)) {
			for state, n := range c.countGroups() {
				emit(float64(n), state)
			}
		})
}

// countGroups asks every led partition for its groups. Those that are loading have none yet.
func (c *Coordinator) countGroups() map[string]int {
	ctx, cancel := context.WithTimeout(c.ctx, askWait)
	defer cancel()
	var calls []*Call
	for _, n := range c.Led() {
		q := kmsg.NewPtrListGroupsRequest()
		q.SetVersion(q.MaxVersion())
		calls = append(calls, c.SubmitTo(n, group.Client{}, q, 0))
	}
	counts := map[string]int{"Empty": 0, "PreparingRebalance": 0, "CompletingRebalance": 0, "Stable": 0}
	for _, call := range calls {
		res, err := call.Await(ctx)
		if err != nil {
			continue
		}
		for _, g := range res.(*kmsg.ListGroupsResponse).Groups {
			counts[g.GroupState]++
		}
	}
	return counts
}
