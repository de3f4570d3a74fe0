//go:build compat

package compat

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"barnabas/test/compat/rig"
)

// throughFailovers are the libraries that are taken through failovers: those on which most programs rest.
// BARNABAS_COMPAT_CLIENTS names others.
var throughFailovers = []string{"franz-go", "kcat", "confluent-python", "java-4.3.1"}

const (
	failoverTopic   = "failover"
	failoverRecords = 600 // of each library, in each round
)

// TestClientsThroughFailovers has a producer and two members of a group of each library at work on three nodes,
// each of which is killed with SIGKILL and started again, in turn. What was acknowledged is there, once and
// in order, and has been read; nobody reads from before what was committed.
func TestClientsThroughFailovers(t *testing.T) {
	cache := clientsCache(t)
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
		t.Fatal(err)
	}
	names := throughFailovers
	if only := os.Getenv("BARNABAS_COMPAT_CLIENTS"); only != "" {
		names = strings.Split(only, ",")
	}
	c := rig.StartCluster(t, 3, append([]string{"offsets.topic.num.partitions=5"}, groupSettings...)...)
	var all []*worker
	for _, l := range libraries() {
		if !slices.Contains(names, l.name) {
			continue
		}
		if err := l.build(cache); err != nil {
			t.Fatalf("build %s: %v", l.name, err)
		}
		l.introduce(t)
		all = append(all, &worker{t: t, c: c, library: l, topic: failoverTopic + "-" + l.name, acked: map[int]place{}})
	}
	for _, w := range all {
		w.begin()
	}
	each(all, func(w *worker) { w.journal.awaitShared(groupPartitions, w.one, w.two) })
	for round := range 3 {
		awaitWhole(t, c)
		for _, w := range all {
			w.produce(round)
		}
		each(all, func(w *worker) { w.producer.awaitAcked(failoverRecords / 10) })
		c.Node(round + 1).Kill()
		each(all, func(w *worker) { maps.Copy(w.acked, w.producer.finish()) })
		c.Restart(round + 1)
	}
	awaitWhole(t, c)
	each(all, (*worker).check)
}

// each does something to all of them side by side.
func each(all []*worker, do func(*worker)) {
	var busy sync.WaitGroup
	for _, w := range all {
		busy.Go(func() { do(w) })
	}
	busy.Wait()
}

// worker is a library at work.
type worker struct {
	t        *testing.T
	c        *rig.Cluster
	library  *library
	topic    string
	journal  *journal
	one, two *groupMember
	producer *production
	acked    map[int]place
}

func (w *worker) begin() {
	w.t.Helper()
	two := "2"
	if _, err := admin(w.t, w.c.Addresses()).CreateTopic(within(w.t, patience), groupPartitions, 3, map[string]*string{"min.insync.replicas": &two}, w.topic); err != nil {
		w.t.Fatalf("create %s: %v", w.topic, err)
	}
	w.journal = newJournal(w.t, w.c.Addresses(), w.topic, "group-"+w.topic)
	w.one = w.journal.join(w.library, w.library.name+" one")
	w.two = w.journal.join(w.library, w.library.name+" two")
}

func (w *worker) produce(round int) {
	w.t.Helper()
	flags := []string{
		"--brokers", w.c.Addresses(), "--topic", w.topic, "--start", flagOf(round * failoverRecords), "--count", flagOf(failoverRecords),
		"--size", flagOf(recordSize), "--pace-ms", "2",
	}
	if w.library.about.Idempotent {
		flags = append(flags, "--idempotent", "true")
	}
	w.producer = w.library.produce(w.t, fmt.Sprintf("%s producer %d", w.library.name, round), flags...)
}

func (w *worker) check() {
	if want := 3 * failoverRecords; len(w.acked) != want {
		w.t.Errorf("%s: %d records are acknowledged, %d were sent", w.library.name, len(w.acked), want)
	}
	ends := endOffsets(w.t, w.c.Addresses(), w.topic)
	w.journal.awaitAllRead(ends)
	// One after the other: a member that commits while the other's leaving has the group rebalance is refused, with Kafka too.
	w.journal.leave(w.one)
	w.journal.awaitShared(groupPartitions, w.two)
	w.journal.leave(w.two)
	w.journal.check()
	if at := committedOffsets(w.t, w.c.Addresses(), w.journal.group, w.topic); !maps.Equal(at, ends) {
		w.t.Errorf("%s: the group has read everything and left; it stands at %v, the ends are %v", w.library.name, at, ends)
	}
	arrived(w.t, w.library, w.c.Addresses(), w.topic, w.acked)
}

// awaitWhole waits until all nodes are there, and every replica of every partition is in sync.
func awaitWhole(t *testing.T, c *rig.Cluster) {
	t.Helper()
	ctx := within(t, patience)
	adm := admin(t, c.Addresses())
	rig.Eventually(t, patience, "all replicas are in sync", func() bool {
		m, err := adm.Metadata(ctx)
		if err != nil || len(m.Brokers) != len(c.Brokers) {
			return false
		}
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				if p.Leader < 0 || len(p.ISR) != len(p.Replicas) {
					return false
				}
			}
		}
		return true
	})
}
