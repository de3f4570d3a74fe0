//go:build compat

package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

const (
	topicTool    = "org.apache.kafka.tools.TopicCommand"
	reassignTool = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
	electionTool = "org.apache.kafka.tools.LeaderElectionCommand"
	quorumTool   = "org.apache.kafka.tools.MetadataQuorumCommand"
	clusterTool  = "org.apache.kafka.tools.ClusterTool"
	featureTool  = "org.apache.kafka.tools.FeatureCommand"
	versionsTool = "org.apache.kafka.tools.BrokerApiVersionsCommand"
	logDirsTool  = "org.apache.kafka.tools.LogDirsCommand"
	offsetsTool  = "org.apache.kafka.tools.GetOffsetShell"
	configTool   = "kafka.admin.ConfigCommand"
	verifyTool   = "org.apache.kafka.tools.ReplicaVerificationTool"

	clusterGolden = "testdata/cluster-tools-kafka-4.3.1.txt"
	heldGroup     = "cluster-tools"
	stepWithin    = patience // until a step's answer is as it should be
	recordWithin  = 15 * time.Second
	afterFailure  = 5 * time.Second // the rest is looked at, but not waited for
)

// story is what happens to a cluster of three under the eyes of Apache Kafka's tools. What they print is
// compared with what they print of an Apache Kafka to which the same has happened:
//
//	BARNABAS_TEST_SYSTEM=kafka BARNABAS_COMPAT_WRITE=1 go test -tags compat -run TestClusterTools ./test/compat
//
// writes that down.
type story struct {
	t      *testing.T
	c      *rig.Cluster
	tools  *rig.Tools
	at     string // the nodes that the tools are told of
	golden map[string]string
	said   []string // every step with what was printed, for the file
	home   string
}

// TestClusterTools lets Apache Kafka's tools for clusters look at three nodes, move partitions between them,
// elect leaders, and see nodes die and come back.
func TestClusterTools(t *testing.T) {
	settings := []string{"offsets.topic.num.partitions=1", "group.initial.rebalance.delay.ms=0", "auto.leader.rebalance.enable=false"}
	s := &story{t: t, c: rig.StartCluster(t, 3, settings...), tools: rig.StartTools(t), home: t.TempDir()}
	s.at = s.c.Addresses()
	s.golden = readGolden(t)
	if recording() {
		defer func() {
			if err := os.WriteFile(clusterGolden, []byte(strings.Join(s.said, "")), 0o600); err != nil {
				t.Error(err)
			}
		}()
	}
	s.topics()
	s.describes()
	s.configs()
	s.moves()
	s.aNodeIsDown()
	s.elections()
	s.unregistered()
}

// recording tells whether what is printed is written down, and not compared.
func recording() bool { return os.Getenv("BARNABAS_COMPAT_WRITE") != "" && rig.System() == "kafka" }

// readGolden reads what each step printed.
func readGolden(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(clusterGolden)
	if os.IsNotExist(err) && rig.System() == "kafka" {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]string{}
	for _, part := range strings.Split(string(text), "=== ")[1:] {
		name, said, _ := strings.Cut(part, "\n")
		steps[name] = said
	}
	return steps
}

// step runs a tool, until it prints what Apache Kafka's did: what a node knows of a change comes a little
// later than the change. Of an Apache Kafka it is what is printed once until is in it.
func (s *story) step(name, until, class string, args ...string) {
	s.t.Helper()
	at := 0
	if class == clusterTool {
		at = 1 // it wants its command first
	}
	args = slices.Insert(slices.Clone(args), at, "--bootstrap-server", s.at)
	want, known := s.golden[name]
	if !known && !recording() {
		s.t.Fatalf("%s has no step %q", clusterGolden, name)
	}
	within := stepWithin
	if recording() {
		within = recordWithin
	} else if s.t.Failed() {
		within = afterFailure
	}
	ends := time.Now().Add(within)
	var before, seen string
	for {
		said, code := s.tools.Run(class, args...)
		got := fmt.Sprintf("%sexit code %d\n", s.plain(said), code)
		if slices.Contains(args, "--describe") && class == topicTool {
			got = ordered(got)
		}
		before, seen = seen, got
		switch {
		case recording() && class == topicTool && slices.Contains(args, "--describe") && before != seen:
			<-time.After(time.Second) // a picture that has not settled yet
		case recording() && strings.Contains(got, until), !recording() && got == want:
			s.said = append(s.said, "=== "+name+"\n"+got)
			return
		case time.Now().After(ends):
			s.t.Errorf("%s\n%s %s\nprints\n%s\nand of Apache Kafka\n%s\nas it was printed:\n%s", name, class, strings.Join(args, " "), got, want, said)
			return
		}
		<-time.After(200 * time.Millisecond)
	}
}

var (
	uuids       = regexp.MustCompile(`(^|[ "])[A-Za-z0-9_-]{22}($|[ "])`)
	spaces      = regexp.MustCompile(`[ \t]+`)
	reasons     = regexp.MustCompile(`(Error while executing topic command : |org\.apache\.kafka\.common\.errors\.\w+: ).*`)
	traces      = regexp.MustCompile(`^(at |Caused by: |\.\.\. )`)
	directories = regexp.MustCompile(`"directoryId": "[^"]*", `)
	numbers     = regexp.MustCompile(`\b\d+\b`)
)

// plain puts what differs from run to run under names.
func (s *story) plain(said string) string {
	for i, b := range s.c.Brokers {
		said = strings.ReplaceAll(said, b.InternalAddress(), fmt.Sprintf("INTERNAL%d", i+1))
		said = strings.ReplaceAll(said, b.Addr, fmt.Sprintf("NODE%d", i+1))
		said = strings.ReplaceAll(said, b.Data, fmt.Sprintf("DATA%d", i+1))
	}
	said = strings.ReplaceAll(said, s.home, "HOME")
	// Apache Kafka writes down for a whole cluster what is its default, because ELR depends on it.
	said = strings.ReplaceAll(said, "DYNAMIC_DEFAULT_BROKER_CONFIG:min.insync.replicas=1, ", "")
	// Of three copies two are waited for by default here (docs/deviations.md).
	said = strings.ReplaceAll(said, "DEFAULT_CONFIG:min.insync.replicas=2", "DEFAULT_CONFIG:min.insync.replicas=1")
	var kept []string
	for _, line := range lines(said) {
		line = uuids.ReplaceAllString(strings.TrimSpace(spaces.ReplaceAllString(line, " ")), "${1}UUID$2")
		for i, b := range s.c.Brokers {
			line = strings.ReplaceAll(line, strings.Replace(b.Addr, ":", " ", 1), fmt.Sprintf("NODE%d", i+1))
		}
		line = reasons.ReplaceAllString(line, "${1}REASON") // a broker's own words
		if head, list, found := strings.Cut(line, "for partitions "); found {
			// Where __consumer_offsets lies is chance, and the rest is in the order of a hash.
			partitions := slices.DeleteFunc(strings.Split(list, ", "), func(p string) bool { return strings.HasPrefix(p, "__consumer_offsets") })
			slices.Sort(partitions)
			line = head + "for partitions " + strings.Join(partitions, ", ")
		}
		if line != "" && !traces.MatchString(line) && !strings.HasPrefix(line, "min.insync.replicas=1 ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(append(kept, ""), "\n")
}

var inSync = regexp.MustCompile(`Isr: [0-9,]+`)

// ordered puts in order what has none: topics, and the members of an ISR.
func ordered(described string) string {
	all := lines(inSync.ReplaceAllStringFunc(described, func(isr string) string {
		ids := strings.Split(strings.TrimPrefix(isr, "Isr: "), ",")
		slices.Sort(ids)
		return "Isr: " + strings.Join(ids, ",")
	}))
	slices.Sort(all)
	return strings.Join(all, "\n") + "\n"
}

func (s *story) file(name, text string) string {
	s.t.Helper()
	file := filepath.Join(s.home, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *story) topics() {
	s.step("topic with assignment", "Created", topicTool, "--create", "--topic", "spread", "--replica-assignment", "1:2:3,2:3:1,3:1:2,1:3:2",
		"--config", "min.insync.replicas=2")
	s.step("topic of two replicas", "Created", topicTool, "--create", "--topic", "pair", "--replica-assignment", "3:2,2:3", "--config", "min.insync.replicas=1")
	s.step("topic that is not on the third", "Created", topicTool, "--create", "--topic", "away", "--replica-assignment", "1:2", "--config", "min.insync.replicas=1")
	s.step("topic that wants both its replicas", "Created", topicTool, "--create", "--topic", "strict", "--replica-assignment", "3:2", "--config", "min.insync.replicas=2")
	s.step("topic with more replicas than brokers", "Error", topicTool, "--create", "--topic", "toomany", "--partitions", "1", "--replication-factor", "4")
	s.step("topic that exists", "Error", topicTool, "--create", "--topic", "pair", "--partitions", "1", "--replication-factor", "2")
	s.step("topic placed on a broker that is none", "Error", topicTool, "--create", "--topic", "nowhere", "--replica-assignment", "1:9")
	s.step("topics", "spread", topicTool, "--list", "--exclude-internal")
	s.step("topics described", "Isr: 1,2,3", topicTool, "--describe", "--topic", "spread,pair,strict")
	for _, flag := range []string{"--under-replicated-partitions", "--unavailable-partitions", "--at-min-isr-partitions", "--under-min-isr-partitions"} {
		s.step("healthy, "+flag, "exit", topicTool, "--describe", "--exclude-internal", flag)
	}
}

// produce writes records to every partition of spread, and commits half of them for a group.
func (s *story) produce(addr string, each int) {
	s.t.Helper()
	cl := kgoClient(s.t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("spread"))
	defer cl.Close()
	for i := range each {
		for p := range int32(4) {
			if err := cl.ProduceSync(within(s.t, patience), &kgo.Record{Partition: p, Value: fmt.Appendf(nil, "%d", i)}).FirstErr(); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *story) describes() {
	s.produce(s.at, 10)
	s.step("offsets", "spread:3:10", offsetsTool, "--topic", "spread")
	s.step("cluster id", "Cluster ID", clusterTool, "cluster-id")
	s.step("endpoints", "broker", clusterTool, "list-endpoints")
	s.quorum()
	s.step("log dirs", "version", logDirsTool, "--describe", "--broker-list", "1,2,3", "--topic-list", "spread")
	s.versions()
	s.features()
	s.verification()
}

// quorum is not told alike: offsets and times are a run's own. What is named, and by how many nodes, is told here.
func (s *story) quorum() {
	for _, form := range [][]string{{"--status"}, {"--replication"}, {"--replication", "--human-readable"}} {
		name := "quorum, " + strings.Join(form, " ")
		said, code := s.tools.Run(quorumTool, append([]string{"--bootstrap-server", s.at, "describe"}, form...)...)
		// Ours have voters that can change from the beginning, and Apache Kafka's here have not: these have no directories.
		said = directories.ReplaceAllString(said, "")
		shape := numbers.ReplaceAllString(strings.ReplaceAll(s.plain(said), "-1", "1"), "N")
		var rows []string
		for _, line := range lines(shape) {
			line = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\S+|N ms ago`).ReplaceAllString(line, "TIME")
			rows = append(rows, regexp.MustCompile(`\d+`).ReplaceAllString(line, "N"))
		}
		if form[0] == "--replication" {
			slices.Sort(rows[1:]) // the leader first
		}
		s.compare(name, strings.Join(rows, "\n"), code)
	}
}

// compare is step for what has been printed already.
func (s *story) compare(name, said string, code int) {
	s.t.Helper()
	got := fmt.Sprintf("%s\nexit code %d\n", said, code)
	if recording() {
		s.said = append(s.said, "=== "+name+"\n"+got)
		return
	}
	if want := s.golden[name]; got != want {
		s.t.Errorf("%s\nprints\n%s\nand of Apache Kafka\n%s", name, got, want)
	}
}

// versions: each broker is asked, and none of its APIs is unknown to the tool.
func (s *story) versions() {
	said, code := s.tools.Run(versionsTool, "--bootstrap-server", s.at)
	for id := range 3 {
		if !strings.Contains(said, fmt.Sprintf("(id: %d rack: null isFenced: false)", id+1)) {
			s.t.Errorf("versions of node %d are not there, exit code %d:\n%s", id+1, code, said)
		}
	}
	if code != 0 || strings.Contains(said, "UNKNOWN") || strings.Count(said, "Produce(0): ") != 3 {
		s.t.Errorf("versions, exit code %d:\n%s", code, said)
	}
}

// features: what is supported and finalised is a broker's own. Every line is one that the tool could fill.
func (s *story) features() {
	said, code := s.tools.Run(featureTool, "--bootstrap-server", s.at, "describe")
	var names []string
	for _, line := range lines(said) {
		if m := regexp.MustCompile(`^Feature: (\S+)\s+SupportedMinVersion: \S+\s+SupportedMaxVersion: \S+\s+FinalizedVersionLevel: \S+\s+Epoch: \d+$`).FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		} else {
			s.t.Errorf("features: %s", line)
		}
	}
	if code != 0 || !slices.Contains(names, "metadata.version") {
		s.t.Errorf("features %v, exit code %d", names, code)
	}
}

// verification runs the tool that compares replicas until it has told of a round in which it found them equal.
func (s *story) verification() {
	equal := make(chan struct{})
	seen := false
	p := rig.Launch(s.t, "ReplicaVerificationTool", rig.JavaCommand(s.t, verifyTool, "--broker-list", s.at, "--topics-include", "spread", "--time", "-2",
		"--report-interval-ms", "200"), func(line string) {
		if !seen && strings.Contains(line, "max lag is 0") && strings.Contains(line, "among 4 partitions") {
			seen = true
			close(equal)
		}
	})
	defer p.Kill()
	select {
	case <-equal:
	case <-p.Ended():
		s.t.Errorf("ReplicaVerificationTool ended:\n%s", p.Said())
	case <-time.After(patience):
		s.t.Errorf("ReplicaVerificationTool says:\n%s", p.Said())
	}
}

func (s *story) configs() {
	s.step("setting of a topic", "Completed", configTool, "--alter", "--entity-type", "topics", "--entity-name", "spread", "--add-config", "retention.ms=86400000")
	s.step("settings of a topic", "retention.ms", configTool, "--describe", "--entity-type", "topics", "--entity-name", "spread")
	s.step("setting of a broker", "Completed", configTool, "--alter", "--entity-type", "brokers", "--entity-name", "2", "--add-config", "log.cleaner.threads=2")
	s.step("settings of a broker", "threads=2", configTool, "--describe", "--entity-type", "brokers", "--entity-name", "2")
	s.step("settings of another broker", "exit", configTool, "--describe", "--entity-type", "brokers", "--entity-name", "3")
	s.step("setting of all brokers", "Completed", configTool, "--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.retention.ms=172800000")
	s.step("settings of all brokers", "172800000", configTool, "--describe", "--entity-type", "brokers", "--entity-default")
	s.step("setting of all brokers taken back", "Completed", configTool, "--alter", "--entity-type", "brokers", "--entity-default", "--delete-config", "log.retention.ms")
	s.step("setting of a broker that is not dynamic", "Error", configTool, "--alter", "--entity-type", "brokers", "--entity-name", "2", "--add-config", "node.id=7")
}

// moves are reassignments that go through: with one that stays as it is, one with fewer replicas and one with others.
func (s *story) moves() {
	move := s.file("move.json", `{"version":1,"partitions":[{"topic":"spread","partition":0,"replicas":[2,3]},{"topic":"spread","partition":1,"replicas":[2,3,1]},{"topic":"pair","partition":1,"replicas":[1,3]}]}`)
	s.step("move", "Successfully started", reassignTool, "--reassignment-json-file", move, "--execute")
	s.step("move is complete", "pair-1 is completed", reassignTool, "--reassignment-json-file", move, "--verify")
	s.step("nothing moves", "No partition", reassignTool, "--list")
	s.step("moved", "Replicas: 2,3", topicTool, "--describe", "--topic", "spread,pair,strict")
	s.step("move to a broker that is none", "rror", reassignTool, "--reassignment-json-file",
		s.file("nowhere.json", `{"version":1,"partitions":[{"topic":"pair","partition":0,"replicas":[9]}]}`), "--execute")
	s.generated()
	back := s.file("back.json", `{"version":1,"partitions":[{"topic":"spread","partition":0,"replicas":[1,2,3]},{"topic":"pair","partition":1,"replicas":[2,3]}]}`)
	s.step("move with a throttle", "Successfully started", reassignTool, "--reassignment-json-file", back, "--execute", "--throttle", "50000000", "--replica-alter-log-dirs-throttle", "1000000")
	s.step("throttled move is complete", "Clearing topic-level throttles", reassignTool, "--reassignment-json-file", back, "--verify")
	s.step("throttles are gone", "exit", configTool, "--describe", "--entity-type", "brokers", "--entity-name", "1")
	s.step("throttles of the topic are gone", "min.insync", configTool, "--describe", "--entity-type", "topics", "--entity-name", "spread")
}

// generated: the plan is random, where things are is not.
func (s *story) generated() {
	topics := s.file("topics.json", `{"version":1,"topics":[{"topic":"spread"},{"topic":"pair"}]}`)
	said, code := s.tools.Run(reassignTool, "--bootstrap-server", s.at, "--topics-to-move-json-file", topics, "--broker-list", "1,2,3", "--generate")
	is, plan, _ := strings.Cut(said, "Proposed partition reassignment configuration")
	s.compare("generated, what is", strings.TrimSpace(s.plain(is)), code)
	type assignment struct {
		Partitions []struct {
			Topic    string
			Replicas []int
		}
	}
	if got := decodeJSON[assignment](s.t, "the proposed plan", strings.TrimSpace(plan)); len(got.Partitions) != 6 {
		s.t.Errorf("plan for %d partitions:\n%s", len(got.Partitions), plan)
	}
}

// aNodeIsDown: node 3.
func (s *story) aNodeIsDown() {
	g := groupTools{t: s.t, b: s.c.Node(1)}
	cl := kgoClient(s.t, s.at, kgo.ConsumerGroup(heldGroup), kgo.ConsumeTopics("spread"), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for read := 0; read < 40; {
		fetches := cl.PollFetches(within(s.t, patience))
		if err := fetches.Err(); err != nil {
			g.t.Fatal(err)
		}
		read += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(within(s.t, patience)); err != nil {
		s.t.Fatal(err)
	}
	if err := cl.LeaveGroupContext(within(s.t, patience)); err != nil {
		s.t.Fatal(err)
	}
	cl.Close()
	s.step("group", "spread", consumerGroups, "--describe", "--group", heldGroup)
	s.c.Node(3).Kill()
	s.at = s.c.Addresses(1, 2)
	s.step("a node down, topics", "Elr: 3", topicTool, "--describe", "--topic", "spread,pair,strict")
	for _, flag := range []string{"--under-replicated-partitions", "--unavailable-partitions", "--at-min-isr-partitions", "--under-min-isr-partitions"} {
		s.step("a node down, "+flag, "exit", topicTool, "--describe", "--exclude-internal", flag)
	}
	s.produce(s.at, 3)
	s.step("a node down, offsets", "spread:3:13", offsetsTool, "--topic", "spread")
	s.step("a node down, group", "spread", consumerGroups, "--describe", "--group", heldGroup)
	s.step("a node down, groups", "Empty", consumerGroups, "--list", "--state")
	s.step("a node down, endpoints", "broker", clusterTool, "list-endpoints")
	s.step("a node down, fenced ones too", "fenced", clusterTool, "list-endpoints", "--include-fenced-brokers")
	s.step("a node down, log dirs", "do not exist", logDirsTool, "--describe", "--broker-list", "1,2,3", "--topic-list", "spread")
	stuck := s.file("stuck.json", `{"version":1,"partitions":[{"topic":"away","partition":0,"replicas":[1,2,3]}]}`)
	s.step("move to a broker that is down", "exit", reassignTool, "--reassignment-json-file", stuck, "--execute")
	move := kadm.AlterPartitionAssignmentsReq{}
	move.Assign("away", 0, []int32{1, 2, 3})
	if moved, err := admin(s.t, s.at).AlterPartitionAssignments(within(s.t, patience), move); err != nil || moved.Error() != nil {
		s.t.Fatalf("move away-0: %v, %v", err, moved.Error())
	}
	s.step("it goes on", "still in progress", reassignTool, "--reassignment-json-file", stuck, "--verify", "--preserve-throttles")
	s.step("it is listed", "away-0", reassignTool, "--list")
	s.step("it is described", "Adding", topicTool, "--describe", "--topic", "away")
	s.step("it is called off", "cancelled", reassignTool, "--reassignment-json-file", stuck, "--cancel", "--preserve-throttles")
	s.step("it is called off again", "None", reassignTool, "--reassignment-json-file", stuck, "--cancel", "--preserve-throttles")
	s.step("nothing is left of it", "away", topicTool, "--describe", "--topic", "away")
}

// elections begin with node 3 coming back to partitions that others lead now. Then nodes 2 and 3 die one after the
// other, and 2 comes back to a partition of which only 3 has all.
func (s *story) elections() {
	s.step("elections, one cannot be", "exit", electionTool, "--election-type", "preferred", "--topic", "spread", "--partition", "2")
	s.c.Restart(3)
	s.at = s.c.Addresses()
	s.step("the node is back", "Isr: 1,2,3", topicTool, "--describe", "--topic", "spread,pair,strict")
	file := s.file("elect.json", `{"partitions":[{"topic":"spread","partition":2},{"topic":"spread","partition":0}]}`)
	s.step("preferred leaders of a file", "Successfully", electionTool, "--election-type", "preferred", "--path-to-json-file", file)
	s.step("preferred leaders of all", "exit", electionTool, "--election-type", "preferred", "--all-topic-partitions")
	s.step("a partition that is not there", "exit", electionTool, "--election-type", "preferred", "--topic", "absent", "--partition", "0")
	s.step("unclean where there is a leader", "exit", electionTool, "--election-type", "unclean", "--topic", "pair", "--partition", "0")
	s.step("elected", "Leader: 3", topicTool, "--describe", "--topic", "spread,pair,strict")

	// Its other replica was in the ELR of both. Of a node that was killed Apache Kafka takes it out of there when it
	// comes back; ours, which acknowledges what is on disk, elects it.
	s.step("topic is deleted", "exit", topicTool, "--delete", "--topic", "strict")

	s.c.Node(2).Kill()
	s.at = s.c.Addresses(1, 3)
	s.step("the second node down", "Isr: 3", topicTool, "--describe", "--topic", "pair")
	s.c.Node(3).Kill()
	s.c.Restart(2)
	s.at = s.c.Addresses(1, 2)
	s.step("no leader", "Leader: none", topicTool, "--describe", "--topic", "pair")
	s.step("unavailable", "none", topicTool, "--describe", "--exclude-internal", "--unavailable-partitions")
	s.step("no preferred leader", "exit", electionTool, "--election-type", "preferred", "--topic", "pair", "--partition", "0")
	s.step("unclean leader", "Successfully", electionTool, "--election-type", "unclean", "--topic", "pair", "--partition", "0")
	s.step("an unclean leader leads", "Leader: 2", topicTool, "--describe", "--topic", "pair")
}

// unregistered is node 3, dead as it is. It comes back.
func (s *story) unregistered() {
	s.step("a node that is none is unregistered", "exit", clusterTool, "unregister", "--id", "9")
	s.step("unregister", "no longer registered", clusterTool, "unregister", "--id", "3")
	s.step("unregistered, endpoints", "broker", clusterTool, "list-endpoints", "--include-fenced-brokers")
	s.c.Restart(3)
	s.at = s.c.Addresses()
	s.step("registered again", "exit", clusterTool, "list-endpoints", "--include-fenced-brokers")
	s.step("all is well again", "Isr: 1,2,3", topicTool, "--describe", "--topic", "spread,pair")
	s.step("group in the end", "spread", consumerGroups, "--describe", "--group", heldGroup)
}
