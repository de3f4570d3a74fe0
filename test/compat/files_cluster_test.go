//go:build compat

package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"barnabas/test/compat/rig"
)

// TestFilesOfReplicas has the leader of a partition killed twice between records, and lets Apache Kafka's
// DumpLogSegments read what each of three replicas then has: every record. The leader-epoch checkpoints are what
// the elections and the records make them; Apache Kafka, which passes the same test, writes the same bytes.
func TestFilesOfReplicas(t *testing.T) {
	c := rig.StartCluster(t, 3, "auto.leader.rebalance.enable=false")
	small, two, forever := "1048576", "2", "-1" // the records are old
	if _, err := admin(t, c.Addresses()).CreateTopic(within(t, patience), 1, 3, map[string]*string{"segment.bytes": &small, "min.insync.replicas": &two, "retention.ms": &forever}, "files"); err != nil {
		t.Fatal(err)
	}
	seed := rig.Seed(t)
	checkpoint, killed := "0\n3\n", 0
	var expected []string
	for round := range 3 {
		checkpoint += fmt.Sprintf("%d %d\n", round, len(expected))
		expected = append(expected, fillSegments(t, c.Addresses(), seed+uint64(round))...)
		if killed > 0 {
			c.Restart(killed)
		}
		awaitWhole(t, c)
		if round < 2 {
			killed = leaderOf(t, c, "files")
			c.Node(killed).Kill()
		}
	}
	leader := leaderOf(t, c, "files")
	c.Node(leader%3 + 1).Stop()
	c.Node((leader+1)%3 + 1).Stop()
	c.Node(leader).Kill() // an Apache Kafka that is the last of three waits for the others when it is to stop
	for id := 1; id <= 3; id++ {
		dir := filepath.Join(c.Node(id).Data, "files-0")
		checkFiles(t, fmt.Sprintf("node %d of which %d leads", id, leader), dir, expected, id != leader)
		got, err := os.ReadFile(filepath.Join(dir, "leader-epoch-checkpoint"))
		if err != nil || string(got) != checkpoint {
			t.Errorf("node %d, leader %d: the checkpoint is %q, %v; the elections make it %q", id, leader, got, err, checkpoint)
		}
		if history := epochHistory(t, dir); history != checkpoint {
			t.Errorf("node %d, leader %d: the batches tell %q, the elections %q", id, leader, history, checkpoint)
		}
	}
}

// leaderOf waits until a node that runs leads the only partition of a topic.
func leaderOf(t *testing.T, c *rig.Cluster, topic string) (node int) {
	t.Helper()
	adm := admin(t, c.Addresses())
	rig.Eventually(t, patience, topic+" has a leader", func() bool {
		m, err := adm.Metadata(within(t, patience), topic)
		if err != nil || m.Topics[topic].Err != nil || len(m.Topics[topic].Partitions) != 1 {
			return false
		}
		node = int(m.Topics[topic].Partitions[0].Leader)
		return node > 0
	})
	return node
}
