//go:build compat

package compat

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

const membersTopic = "kept"

// members is a cluster whose nodes come and go, and what it has acknowledged.
type members struct {
	t     *testing.T
	c     *rig.Cluster
	tools *rig.Tools
	acked []string
}

// TestClusterMembers lets a fourth node join three, and take the place of one of them, as a voter and as a broker, by
// our commands and by Apache Kafka's; then two of the three that are left are lost with their disks, and the last
// one goes on. Nothing that was acknowledged is lost.
func TestClusterMembers(t *testing.T) {
	if rig.System() != "barnabas" {
		t.Fatal("this is about our nodes: unset BARNABAS_TEST_SYSTEM")
	}
	m := &members{t: t, c: rig.StartCluster(t, 3, "offsets.topic.num.partitions=1"), tools: rig.StartTools(t)}
	two := "2"
	if _, err := admin(t, m.c.Addresses()).CreateTopic(within(t, patience), 2, 3, map[string]*string{"min.insync.replicas": &two}, membersTopic); err != nil {
		t.Fatal(err)
	}
	m.produce(1, 2, 3)
	m.joins()
	m.replaces()
	m.isLeftAlone()
	m.isJoinedAgain()
}

// produce writes some records.
func (m *members) produce(at ...int) {
	m.t.Helper()
	cl := kgoClient(m.t, m.c.Addresses(at...), kgo.DefaultProduceTopic(membersTopic))
	defer cl.Close()
	for range 50 {
		value := fmt.Sprint(len(m.acked))
		if err := cl.ProduceSync(within(m.t, patience), kgo.StringRecord(value)).FirstErr(); err != nil {
			m.t.Fatalf("produce %s: %v", value, err)
		}
		m.acked = append(m.acked, value)
	}
}

// holds looks for all that was acknowledged.
func (m *members) holds(at ...int) {
	m.t.Helper()
	var got []string
	for _, r := range inOrder(readAll(m.t, m.c.Addresses(at...), membersTopic)) {
		got = append(got, string(r.Value))
	}
	slices.Sort(got)
	equalLines(m.t, "what was acknowledged", got, slices.Sorted(slices.Values(m.acked)))
}

// ours runs our program until it does not fail.
func (m *members) ours(at []int, args ...string) (said string) {
	m.t.Helper()
	why := ""
	rig.Eventually(m.t, patience, "barnabas "+strings.Join(args, " "), func() bool {
		stdout, stderr, err := rig.Try(m.t, nil, rig.Binary(m.t), append(args, "-b", m.c.Addresses(at...))...)
		if said = stdout; err != nil && stderr != why {
			why = stderr
			m.t.Logf("barnabas %s: %v: %s", strings.Join(args, " "), err, stderr)
		}
		return err == nil
	})
	return said
}

var voterID = regexp.MustCompile(`"id": (\d+), "directoryId": "([^"]+)"`)

// voters are told by Apache Kafka's tool, with their directories; none while it has no answer.
func (m *members) voters(at ...int) map[string]string {
	m.t.Helper()
	said, code := m.tools.Run(quorumTool, "--bootstrap-server", m.c.Addresses(at...), "describe", "--status")
	_, line, told := strings.Cut(said, "CurrentVoters")
	if code != 0 || !told {
		m.t.Logf("describe --status: %s", said)
		return nil
	}
	line, _, _ = strings.Cut(line, "\n")
	all := map[string]string{}
	for _, v := range voterID.FindAllStringSubmatch(line, -1) {
		all[v[1]] = v[2]
	}
	return all
}

// kafkas has Apache Kafka's tool change the voters. Where it says that it could not, it may have done so all the same.
func (m *members) kafkas(what string, at []int, args []string, done func(voters map[string]string) bool) {
	m.t.Helper()
	rig.Eventually(m.t, patience, "Apache Kafka's tool "+what, func() bool {
		said, code := m.tools.Run(quorumTool, append([]string{"--bootstrap-server", m.c.Addresses(at...)}, args...)...)
		if code == 0 {
			return true
		}
		m.t.Logf("%s: %s", strings.Join(args, " "), said)
		voters := m.voters(at...)
		return voters != nil && done(voters)
	})
}

func (m *members) awaitVoters(want string, at ...int) {
	m.t.Helper()
	rig.Eventually(m.t, patience, "the voters are "+want, func() bool {
		var ids []string
		for id := range m.voters(at...) {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		return strings.Join(ids, " ") == want
	})
}

// awaitReplicas waits until the topic's partitions are in sync on exactly these nodes.
func (m *members) awaitReplicas(want []int32, at ...int) {
	m.t.Helper()
	adm, ctx := admin(m.t, m.c.Addresses(at...)), within(m.t, patience)
	rig.Eventually(m.t, patience, fmt.Sprintf("all is in sync on %v", want), func() bool {
		md, err := adm.Metadata(ctx, membersTopic)
		if err != nil || md.Topics[membersTopic].Err != nil {
			return false
		}
		for _, p := range md.Topics[membersTopic].Partitions {
			if p.Leader < 0 || !slices.Equal(slices.Sorted(slices.Values(p.ISR)), want) || !slices.Equal(slices.Sorted(slices.Values(p.Replicas)), want) {
				return false
			}
		}
		return len(md.Topics[membersTopic].Partitions) == 2
	})
}

// joins: a fourth node follows, is given a vote by Apache Kafka's tool, loses it by ours and gets it again by ours.
func (m *members) joins() {
	four := m.c.Join()
	dir := regexp.MustCompile(`(?m)^4\s+(\S+).*Observer`)
	rig.Eventually(m.t, patience, "Apache Kafka's tool sees the observer", func() bool {
		said, _ := m.tools.Run(quorumTool, "--bootstrap-server", m.c.Addresses(), "describe", "--replication")
		return dir.MatchString(said)
	})
	properties := writeFile(m.t, "controller.properties", fmt.Sprintf("process.roles=controller\nnode.id=4\ncontroller.quorum.bootstrap.servers=%s\ncontroller.listener.names=CONTROLLER\n"+
		"listeners=CONTROLLER://%s\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT\nlog.dirs=%s\n", m.c.Node(1).InternalAddress(), four.InternalAddress(), four.Data))
	m.kafkas("gives node 4 a vote", nil, []string{"--command-config", properties, "add-controller"}, func(voters map[string]string) bool { return voters["4"] != "" })
	m.awaitVoters("1 2 3 4")
	m.ours(nil, "cluster", "remove", "4", "--keep-broker")
	m.awaitVoters("1 2 3")
	m.ours(nil, "cluster", "add", "4")
	m.awaitVoters("1 2 3 4")
}

// replaces: the first node's replicas go to the fourth, its vote is taken by Apache Kafka's tool, and it is stopped and
// forgotten. Then another one dies, which three voters survive and two would not.
func (m *members) replaces() {
	move := kadm.AlterPartitionAssignmentsReq{}
	move.Assign(membersTopic, 0, []int32{2, 3, 4})
	move.Assign(membersTopic, 1, []int32{4, 2, 3})
	move.Assign("__consumer_offsets", 0, []int32{2, 3, 4})
	if moved, err := admin(m.t, m.c.Addresses()).AlterPartitionAssignments(within(m.t, patience), move); err != nil {
		m.t.Fatalf("move: %v, %v", err, moved.Error())
	}
	m.awaitReplicas([]int32{2, 3, 4})
	directory := ""
	rig.Eventually(m.t, patience, "Apache Kafka's tool tells node 1's directory", func() bool {
		directory = m.voters()["1"]
		return directory != ""
	})
	m.kafkas("takes the vote of node 1", []int{2, 3, 4}, []string{"remove-controller", "--controller-id", "1", "--controller-directory-id", directory},
		func(voters map[string]string) bool { return voters["1"] == "" })
	m.awaitVoters("2 3 4", 2, 3, 4)
	if code := m.c.Node(1).Stop(); code != 0 {
		m.t.Errorf("node 1 stops with %d", code)
	}
	m.ours([]int{2, 3, 4}, "cluster", "remove", "1")
	m.c.Node(2).Kill()
	m.produce(3, 4)
	if _, err := admin(m.t, m.c.Addresses(3, 4)).CreateTopic(within(m.t, patience), 1, 2, nil, "later"); err != nil {
		m.t.Fatalf("nodes 3 and 4 decide: %v", err)
	}
}

// isLeftAlone: node 3 goes too, and both disks are gone. Node 4 goes on by itself.
func (m *members) isLeftAlone() {
	m.c.Node(3).Kill()
	for _, id := range []int{2, 3} {
		if err := os.RemoveAll(m.c.Node(id).Data); err != nil {
			m.t.Fatal(err)
		}
	}
	four := m.c.Node(4)
	four.Kill()
	recover := []string{"cluster", "recover", "--node-id", "4", "--data", four.Data}
	plan, stderr, err := rig.Try(m.t, nil, rig.Binary(m.t), recover...)
	m.t.Logf("without --force: %v: %s%s", err, plan, stderr)
	m.t.Logf("with it: %s", rig.Run(m.t, nil, rig.Binary(m.t), append(recover, "--force")...))
	m.c.Restart(4)
	m.awaitVoters("4", 4)
	// It leads, and says so. What is committed it cannot know before min.insync.replicas are there (KIP-966).
	rig.Eventually(m.t, patience, "node 4 leads", func() bool {
		md, err := admin(m.t, m.c.Addresses(4)).Metadata(within(m.t, 10*time.Second), membersTopic)
		if err != nil {
			return false
		}
		for _, p := range md.Topics[membersTopic].Partitions {
			if p.Leader != 4 {
				return false
			}
		}
		return len(md.Topics[membersTopic].Partitions) == 2
	})
}

// isJoinedAgain: the other two begin anew, on empty disks.
func (m *members) isJoinedAgain() {
	for _, id := range []int{2, 3} {
		m.c.Node(id).NameVoters(id, m.c, 2, 3, 4)
	}
	m.c.Restart(2, 3)
	m.awaitReplicas([]int32{2, 3, 4}, 4)
	m.awaitVoters("2 3 4", 4)
	m.produce(2, 3, 4)
	m.holds(2, 3, 4)
}
