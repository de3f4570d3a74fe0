package node_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
)

const offsetsTopic = "__consumer_offsets"

// groupEffects are those of the keys of groups and committed offsets.
var groupEffects = map[string]effect{
	"group.coordinator.append.linger.ms":  {see: commitTook, cases: []string{"-1", "0s", "0", "0s", "2000", "2s"}},
	"group.coordinator.threads":           {see: loadedAtATime, cases: []string{"1", "1", "3", "3"}},
	"group.initial.rebalance.delay.ms":    {see: joinTook, cases: []string{"0", "0s", "5000", "5s"}},
	"group.min.session.timeout.ms":        {see: joinFor(5 * time.Second), cases: []string{"1000", "taken", "6000", "INVALID_SESSION_TIMEOUT"}},
	"group.max.session.timeout.ms":        {see: joinFor(10 * time.Minute), cases: []string{"1800000", "taken", "60000", "INVALID_SESSION_TIMEOUT"}},
	"group.max.size":                      {see: secondMember, cases: []string{"1", "GROUP_MAX_SIZE_REACHED", "2", "taken"}},
	"offset.metadata.max.bytes":           {see: commitWithNote, cases: []string{"100", "taken", "99", "OFFSET_METADATA_TOO_LARGE"}},
	"offsets.commit.timeout.ms":           {see: commitOnSlowDisk, cases: []string{"5000", "COORDINATOR_NOT_AVAILABLE after 5s", "30000", "taken after 10s"}},
	"offsets.load.buffer.size":            {see: loadReads, cases: []string{"2000", "many", "5242880", "few"}},
	"offsets.retention.minutes":           {see: keptAnHour, cases: []string{"59", "expired", "61", "kept"}},
	"offsets.retention.check.interval.ms": {see: expiredInTime, cases: []string{"1000", "expired", "100u", "kept"}},
	"offsets.topic.compression.codec":     {see: storedCommit, cases: []string{"0", "none", "1", "gzip", "4", "zstd"}},
	"offsets.topic.num.partitions":        {see: offsetsPartitions, cases: []string{"50", "50", "3", "3"}},
	"offsets.topic.segment.bytes":         {see: offsetsSegments, cases: []string{"1048576", "2", "104857600", "1"}},
}

// startGroups starts a node on which groups are used.
func (p *probe) startGroups(settings ...string) {
	p.T.Helper()
	for _, usual := range []string{"group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=1"} {
		if !strings.HasPrefix(usual, p.key+"=") {
			settings = slices.Insert(settings, 0, usual)
		}
	}
	p.start(settings...)
	p.topic("t", 10)
	p.meet()
}

func (p *probe) meet() {
	p.T.Helper()
	if _, err := p.c.Coordinator(p.Context(), "g"); err != nil {
		p.Fatalf("find coordinator: %v", err)
	}
}

func (p *probe) commit(group string) error {
	return p.c.Commit(p.Context(), group, "t", map[int32]int64{0: 1})
}

// took is how long f takes, to the second.
func took(f func()) string {
	began := time.Now()
	f()
	return time.Since(began).Round(time.Second).String()
}

func commitTook(p *probe) string {
	p.startGroups()
	return took(func() {
		if err := p.commit("g"); err != nil {
			p.Fatalf("commit: %v", err)
		}
	})
}

// loaded waits until what a group has committed is known.
func (p *probe) loaded(group string) {
	p.T.Helper()
	for {
		_, err := p.c.Committed(p.Context(), group, "t")
		if err == nil {
			return
		}
		if !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			p.Fatalf("fetch offsets: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func loadedAtATime(p *probe) string {
	p.startGroups("offsets.topic.num.partitions=5")
	for n := range 40 {
		if err := p.commit(fmt.Sprint("g", n)); err != nil {
			p.Fatalf("commit: %v", err)
		}
	}
	p.n.Kill()
	var now, most, serving atomic.Int64
	p.n.Fault(func(op disk.Op) error {
		if op.Kind == disk.OpRead && serving.Load() > 0 && strings.HasPrefix(op.Path, "/data/"+offsetsTopic) && strings.HasSuffix(op.Path, ".log") {
			at := now.Add(1)
			for seen := most.Load(); at > seen && !most.CompareAndSwap(seen, at); seen = most.Load() {
			}
			time.Sleep(time.Second)
			now.Add(-1)
		}
		return nil
	})
	p.n.Set("num.recovery.threads.per.data.dir=1")
	serving.Store(1)
	p.n.MustStart()
	most.Store(0) // so much for recovery
	p.c = p.MustDial("again", p.n)
	for n := range 40 {
		p.loaded(fmt.Sprint("g", n))
	}
	return fmt.Sprint(most.Load())
}

func (p *probe) join(m *clustertest.Member) {
	p.T.Helper()
	if err := m.Join(p.Context()); err != nil {
		p.Fatalf("join: %v", err)
	}
}

func joinTook(p *probe) string {
	p.startGroups()
	return took(func() { p.join(p.c.NewMember("g")) })
}

func joinFor(session time.Duration) func(p *probe) string {
	return func(p *probe) string {
		p.startGroups()
		m := p.c.NewMember("g")
		m.Session = session
		return verdict(m.Join(p.Context()))
	}
}

func secondMember(p *probe) string {
	p.startGroups()
	first := p.c.NewMember("g")
	p.join(first)
	second := p.MustDial("second", p.n).NewMember("g")
	done := make(chan error, 1)
	go func() { done <- second.Join(p.Context()) }()
	time.Sleep(time.Second)
	if len(done) == 0 {
		p.join(first) // the second waits for it
	}
	return verdict(<-done)
}

func commitWithNote(p *probe) string {
	p.startGroups()
	q := clustertest.CommitRequest("g", "t", map[int32]int64{0: 1})
	q.Topics[0].Partitions[0].Metadata = kmsg.StringPtr(strings.Repeat("x", 100))
	res, err := clustertest.Call[*kmsg.OffsetCommitResponse](p.Context(), p.c, q)
	if err != nil {
		p.Fatalf("commit: %v", err)
	}
	return verdict(clustertest.CommitRefusal(res))
}

func commitOnSlowDisk(p *probe) string {
	p.startGroups()
	p.n.Fault(func(op disk.Op) error {
		if op.Kind == disk.OpSync && strings.Contains(op.Path, offsetsTopic) || op.Kind == disk.OpSyncFS {
			time.Sleep(10 * time.Second)
		}
		return nil
	})
	var got string
	d := took(func() { got = verdict(p.commit("g")) })
	return got + " after " + d
}

func loadReads(p *probe) string {
	p.startGroups()
	for range 200 {
		if err := p.commit("g"); err != nil {
			p.Fatalf("commit: %v", err)
		}
	}
	if err := p.n.Stop(); err != nil { // recovery reads nothing then
		p.Fatalf("stop: %v", err)
	}
	p.n.Record()
	p.n.MustStart()
	p.c = p.MustDial("again", p.n)
	p.loaded("g")
	return yes(count(p.n.Record(), disk.OpRead, offsetsTopic+"-0/00000000000000000000.log") > 6, "many", "few")
}

// committed tells whether there is still something committed.
func (p *probe) committed() bool {
	p.T.Helper()
	offsets, err := p.c.Committed(p.Context(), "g", "t")
	if err != nil {
		p.Fatalf("fetch offsets: %v", err)
	}
	return len(offsets) > 0
}

func keptAnHour(p *probe) string {
	p.startGroups("offsets.retention.check.interval.ms=1000")
	if err := p.commit("g"); err != nil {
		p.Fatalf("commit: %v", err)
	}
	time.Sleep(time.Hour)
	return yes(p.committed(), "kept", "expired")
}

func expiredInTime(p *probe) string {
	p.startGroups("offsets.retention.minutes=1")
	if err := p.commit("g"); err != nil {
		p.Fatalf("commit: %v", err)
	}
	time.Sleep(2 * time.Minute)
	return yes(p.committed(), "kept", "expired")
}

func storedCommit(p *probe) string {
	p.startGroups()
	if err := p.commit("g"); err != nil {
		p.Fatalf("commit: %v", err)
	}
	return stored(p, offsetsTopic).Codec().String()
}

func offsetsPartitions(p *probe) string {
	p.startGroups()
	t, err := p.c.Topic(p.Context(), offsetsTopic)
	if err != nil {
		p.Fatalf("metadata: %v", err)
	}
	return fmt.Sprint(len(t.Partitions))
}

func offsetsSegments(p *probe) string {
	p.startGroups()
	q := clustertest.CommitRequest("g", "t", map[int32]int64{0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1})
	for i := range q.Topics[0].Partitions {
		q.Topics[0].Partitions[i].Metadata = kmsg.StringPtr(strings.Repeat("x", 4000))
	}
	for range 40 {
		res, err := clustertest.Call[*kmsg.OffsetCommitResponse](p.Context(), p.c, q)
		if err == nil {
			err = clustertest.CommitRefusal(res)
		}
		if err != nil {
			p.Fatalf("commit: %v", err)
		}
	}
	return fmt.Sprint(len(p.files("/data/"+offsetsTopic+"-0", ".log")))
}
