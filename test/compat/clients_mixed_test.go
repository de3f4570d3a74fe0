//go:build compat

package compat

import (
	"maps"
	"testing"

	"barnabas/test/compat/rig"
)

const mixedPartitions = 6

// mixture is a group of several libraries under an assignor that they all know. They join one after
// the other, so that the first one divides the partitions; it is killed, and another one does.
type mixture struct {
	assignor string
	members  []string
}

var mixtures = []mixture{
	{"range", []string{"java-4.3.1", "confluent-python", "franz-go", "kafka-python"}},
	{"roundrobin", []string{"aiokafka", "java-2.8.2", "kafka-python", "rdkafka-rust", "sarama"}},
	{"sticky", []string{"java-3.9.1", "franz-go", "sarama"}},
	{"cooperative-sticky", []string{"confluent-python", "java-4.3.1", "franz-go"}},
}

func mixed(t *testing.T, m mixture, v *compatibility) {
	const topic, group = "mixed", "mixed"
	b := rig.Start(t, groupSettings...)
	createTopic(t, b.Addr, topic, mixedPartitions)
	j := newJournal(t, b.Addr, topic, group)
	producer := v.library(t, m.members[len(m.members)-1]).produce(t, "producer", "--brokers", b.Addr, "--topic", topic, "--start", "0", "--count", "3000",
		"--size", flagOf(recordSize), "--pace-ms", "3")
	var members []*groupMember
	for _, name := range m.members {
		members = append(members, j.join(v.library(t, name), name, "--assignor", m.assignor))
		j.awaitShared(mixedPartitions, members...)
	}
	j.kill(members[0])
	members = members[1:]
	j.awaitShared(mixedPartitions, members...)
	j.leave(members[0])
	members = members[1:]
	j.awaitShared(mixedPartitions, members...)
	producer.finish()
	ends := endOffsets(t, b.Addr, topic)
	j.awaitAllRead(ends)
	j.leave(members...)
	if at := committedOffsets(t, b.Addr, group, topic); !maps.Equal(at, ends) {
		t.Errorf("the group has read everything and left; it stands at %v, the ends are %v", at, ends)
	}
	j.check()
	v.note(t, "mixed "+m.assignor)
}
