//go:build compat

package compat

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

const (
	perfConsumer       = "org.apache.kafka.tools.ConsumerPerformance"
	verifiableProducer = "org.apache.kafka.tools.VerifiableProducer"
	verifiableConsumer = "org.apache.kafka.tools.VerifiableConsumer"
)

// groupTool is one of Apache Kafka's own programs that join groups.
type groupTool struct {
	name, does string
	test       func(t *testing.T, b *rig.Broker)
}

var toolsOfKafka = []groupTool{
	{"kafka-console-consumer", "reads with a group, and goes on where it stopped", consoleConsumerGroup},
	{"kafka-consumer-perf-test", "reads with a group", consumerPerformance},
	{"kafka-verifiable-producer", "produces, and says what is acknowledged", verifiableProduces},
	{"kafka-verifiable-consumer", "two share a topic, and commit what they read", verifiableConsumes},
}

func tools(t *testing.T, v *compatibility) {
	b := rig.Start(t, groupSettings...)
	for _, tool := range toolsOfKafka {
		if t.Run(tool.name, func(t *testing.T) { tool.test(t, b) }) {
			v.note(t, tool.name)
		}
	}
}

func consoleConsumerGroup(t *testing.T, b *rig.Broker) {
	const topic, group = "tools-console", "tools-console"
	createTopic(t, b.Addr, topic, 1)
	var all []string
	for i := range 60 {
		all = append(all, fmt.Sprint(i))
	}
	kcat(t, b.Addr, strings.Join(all, "\n")+"\n", "-P", "-t", topic)
	read := func(n int) []string {
		return lines(rig.Java(t, nil, consoleConsumer, "--bootstrap-server", b.Addr, "--topic", topic, "--group", group,
			"--from-beginning", "--max-messages", flagOf(n), "--timeout-ms", flagOf(patience.Milliseconds())))
	}
	equalLines(t, "the first 25", read(25), all[:25])
	if at := committedOffsets(t, b.Addr, group, topic); at[0] != 25 {
		t.Errorf("25 records were printed; the group stands at %v", at)
	}
	equalLines(t, "the rest", read(35), all[25:])
}

func consumerPerformance(t *testing.T, b *rig.Broker) {
	const topic, group = "tools-performance", "tools-performance"
	createTopic(t, b.Addr, topic, 3)
	rig.Java(t, nil, perfProducer, "--bootstrap-server", b.Addr, "--topic", topic, "--num-records", "50000", "--record-size", "100", "--throughput", "-1")
	out := lines(rig.Java(t, nil, perfConsumer, "--bootstrap-server", b.Addr, "--topic", topic, "--group", group, "--num-records", "50000", "--timeout", flagOf(patience.Milliseconds())))
	figures := strings.Split(out[len(out)-1], ", ")
	if len(figures) < 5 || figures[4] != "50000" {
		t.Errorf("the tool did not consume 50000 records:\n%s", strings.Join(out, "\n"))
	}
}

// verifiable is a line of the verifiable programs.
type verifiable struct {
	Name       string
	Sent       int
	Acked      int
	Success    bool
	Count      int
	Partitions []struct {
		Partition int32
		Offset    int64
		MaxOffset int64
	}
	Offsets []struct {
		Partition int32
		Offset    int64
	}
}

func verifiableProduces(t *testing.T, b *rig.Broker) {
	const topic = "tools-verifiable"
	createTopic(t, b.Addr, topic, 4)
	out := lines(rig.Java(t, nil, verifiableProducer, "--bootstrap-server", b.Addr, "--topic", topic, "--max-messages", "2000", "--acks", "-1"))
	delivered := 0
	var last verifiable
	for _, line := range out {
		last = decodeJSON[verifiable](t, "a line of the verifiable producer", line)
		if last.Name == "producer_send_success" {
			delivered++
		}
	}
	if last.Name != "tool_data" || last.Sent != 2000 || last.Acked != 2000 || delivered != 2000 {
		t.Errorf("2000 records were to be acknowledged; %d were, and the tool says %+v", delivered, last)
	}
	count(t, readAll(t, b.Addr, topic), 2000)
}

// verifiableConsumes reads what the verifiable producer has left there. A commit is refused where it meets a rebalance; the
// member is then told to join again, and the records are read, and committed, once more.
func verifiableConsumes(t *testing.T, b *rig.Broker) {
	const topic, group = "tools-verifiable", "tools-verifiable"
	var mu sync.Mutex
	committed, assigned, refused, revoked := map[int32]int64{}, map[string]int{}, 0, 0
	changed := make(chan struct{}, 1)
	launch := func(name string) *rig.Program {
		command := rig.JavaCommand(t, verifiableConsumer, "--bootstrap-server", b.Addr, "--topic", topic, "--group-id", group,
			"--reset-policy", "earliest", "--session-timeout", "30000")
		return rig.Launch(t, name, command, func(line string) {
			var said verifiable
			if json.Unmarshal([]byte(line), &said) != nil {
				return // a warning of the logger
			}
			mu.Lock()
			defer mu.Unlock()
			switch said.Name {
			case "partitions_assigned":
				assigned[name] = len(said.Partitions)
			case "partitions_revoked":
				revoked++
			case "offsets_committed":
				if !said.Success {
					refused++
					break
				}
				for _, o := range said.Offsets {
					committed[o.Partition] = max(committed[o.Partition], o.Offset)
				}
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}
	members := []*rig.Program{launch("one"), launch("two")}
	ends := endOffsets(t, b.Addr, topic)
	deadline := time.After(patience)
	for done := false; !done; {
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%v committed of %v, partitions %v\n%s\n%s", committed, ends, assigned, members[0].Said(), members[1].Said())
		}
		mu.Lock()
		done = sum(committed) == sum(ends) && assigned["one"] == 2 && assigned["two"] == 2
		mu.Unlock()
	}
	for _, m := range members {
		m.Terminate()
	}
	for _, m := range members {
		<-m.Ended() // a Java program that is told to end does not end with 0
		if !strings.Contains(m.Said(), "shutdown_complete") {
			t.Errorf("%s did not say that it ended in order\n%s", m.Name, m.Said())
		}
	}
	at := committedOffsets(t, b.Addr, group, topic)
	for _, p := range sortedPartitions(ends) {
		if at[p] != ends[p] {
			t.Errorf("partition %d: the group stands at %d of %d", p, at[p], ends[p])
		}
	}
	if refused > revoked {
		t.Errorf("%d commits were refused, and %d times partitions were revoked", refused, revoked)
	}
}
