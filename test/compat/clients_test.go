//go:build compat

package compat

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"barnabas/test/compat/rig"
)

// lanes bounds how many scenarios run side by side: a group spends much of its time waiting for a
// dead member's session to end.
const lanes = 3

// libraries in the order in which they are built: while the slow ones are, the others are tested.
func libraries() []*library {
	return []*library{
		{name: "franz-go", dir: "franz-go"},
		{name: "kcat", dir: "kcat"},
		{name: "confluent-python", dir: "confluent-python"},
		{name: "java-4.3.1", dir: "java", version: "4.3.1"},
		{name: "kafka-go", dir: "kafka-go"},
		{name: "rdkafka-rust", dir: "rdkafka-rust"},
		{name: "kafka-python", dir: "kafka-python"},
		{name: "java-2.8.2", dir: "java", version: "2.8.2"},
		{name: "aiokafka", dir: "aiokafka"},
		{name: "sarama", dir: "sarama"},
		{name: "java-3.9.1", dir: "java", version: "3.9.1"},
		{name: "kafkajs", dir: "kafkajs"},
	}
}

// groupSettings make a new group's first rebalance quick, which waits three seconds by default.
var groupSettings = []string{"group.initial.rebalance.delay.ms=0"}

// TestClients lets every client library at a broker, through a program of its own: see clients/README.md.
// BARNABAS_COMPAT_CLIENTS restricts it to libraries named there, with commas between them.
func TestClients(t *testing.T) {
	cache := clientsCache(t)
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
		t.Fatal(err)
	}
	verdicts := newCompatibility(libraries())
	if only := os.Getenv("BARNABAS_COMPAT_CLIENTS"); only != "" {
		verdicts.libraries = slices.DeleteFunc(verdicts.libraries, func(l *library) bool { return !slices.Contains(strings.Split(only, ","), l.name) })
		verdicts.partial = true
	}
	queue := make(chan func(), 4*len(verdicts.libraries)) // the builder waits for nobody
	var workers sync.WaitGroup
	for range lanes {
		workers.Go(func() {
			for run := range queue {
				run()
			}
		})
	}
	queue <- func() { t.Run("tools", func(t *testing.T) { tools(t, verdicts) }) }
	for _, l := range verdicts.libraries {
		if err := l.build(cache); err != nil {
			t.Errorf("build %s: %v", l.name, err)
			continue
		}
		l.introduce(t)
		queue <- func() { t.Run(l.name, func(t *testing.T) { singly(t, l, verdicts) }) }
		queue <- func() { t.Run(l.name+" group", func(t *testing.T) { together(t, l, verdicts) }) }
	}
	for _, m := range mixtures {
		if verdicts.partial && !verdicts.has(m.members) {
			continue
		}
		queue <- func() { t.Run("mixed "+m.assignor, func(t *testing.T) { mixed(t, m, verdicts) }) }
	}
	close(queue)
	workers.Wait()
	verdicts.finish(t)
}

// singly is what a library does by itself.
func singly(t *testing.T, l *library, v *compatibility) {
	b := rig.Start(t, groupSettings...)
	v.run(t, l, "produce", func(t *testing.T) []string { produces(t, l, b); return nil })
	if l.about.Idempotent {
		v.run(t, l, "idempotent", func(t *testing.T) []string { producesOnce(t, l, b); return nil })
	}
	v.run(t, l, "consume", func(t *testing.T) []string { consumes(t, l, b); return nil })
	v.run(t, l, "admin", func(t *testing.T) []string { return administers(t, l, b) })
	v.run(t, l, "errors", func(t *testing.T) []string { return meetsErrors(t, l, b) })
	v.run(t, l, "assignors", func(t *testing.T) []string { assigns(t, l, b); return nil })
}

// together is what its members do in groups, over which brokers are killed.
func together(t *testing.T, l *library, v *compatibility) {
	b := rig.Start(t, groupSettings...)
	v.run(t, l, "group", func(t *testing.T) []string { groups(t, l, b); return nil })
	if l.about.Static {
		v.run(t, l, "static", func(t *testing.T) []string { static(t, l, b); return nil })
	}
}
