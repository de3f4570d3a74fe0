//go:build compat

package compat

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"barnabas/test/compat/rig"
)

const groupPartitions = 4

// groups is the life of one group: two members, a third joins while records are produced, one is
// killed, one leaves, and the broker is killed under the one that is left and under the producer.
func groups(t *testing.T, l *library, b *rig.Broker) {
	const topic, group = "group-life", "life"
	createTopic(t, b.Addr, topic, groupPartitions)
	j := newJournal(t, b.Addr, topic, group)
	produce := func(start, count int) *production {
		flags := []string{
			"--brokers", b.Addr, "--topic", topic, "--start", flagOf(start), "--count", flagOf(count), "--size", flagOf(recordSize), "--pace-ms", "2",
		}
		if l.about.Idempotent {
			flags = append(flags, "--idempotent", "true")
		}
		return l.produce(t, l.name+" producer", flags...)
	}
	const first, second = 500, 1000
	producer := produce(0, first)
	one := j.join(l, l.name+" one")
	two := j.join(l, l.name+" two")
	j.awaitShared(groupPartitions, one, two)
	acked := producer.finish()
	producer = produce(first, second) // one of them may have read all that there was before the other had joined
	j.awaitReading(one, two)
	three := j.join(l, l.name+" three")
	j.awaitShared(groupPartitions, one, two, three)
	maps.Copy(acked, producer.finish())
	producer = produce(first+second, second)
	producer.awaitAcked(second / 10)
	j.kill(two)
	j.awaitShared(groupPartitions, one, three)
	j.leave(three)
	j.awaitShared(groupPartitions, one)
	maps.Copy(acked, producer.finish())

	producer = produce(first+2*second, second)
	producer.awaitAcked(second / 10)
	b.Kill()
	b.Restart()
	maps.Copy(acked, producer.finish())
	if want := first + 3*second; len(acked) != want {
		t.Errorf("%d records are acknowledged, %d were sent", len(acked), want)
	}
	j.awaitAllRead(endOffsets(t, b.Addr, topic))
	j.leave(one)
	j.check()
	arrived(t, l, b.Addr, topic, acked)
	resumes(t, l, j, b)
}

// arrived looks at what the producers have left behind.
func arrived(t *testing.T, l *library, addr, topic string, acked map[int]place) {
	t.Helper()
	read := readAll(t, addr, topic)
	checkRecords(t, l, read, acked, func(int) string { return "all" }, func(int) string { return "none" })
	if l.about.Idempotent { // otherwise what was sent again may lie there twice
		count(t, read, len(acked))
		checkOrder(t, read, func(int) int { return 0 })
	}
}

// resumes lets new members find the group exactly where it was left: after it was left in peace, and
// after the member and the broker were killed.
func resumes(t *testing.T, l *library, j *journal, b *rig.Broker) {
	ends := endOffsets(t, b.Addr, j.topic)
	if at := committedOffsets(t, b.Addr, j.group, j.topic); !maps.Equal(at, ends) {
		t.Errorf("the group has read everything and left; it stands at %v, the ends are %v", at, ends)
	}
	j.demandExact(sortedPartitions(ends))
	more := func(start int) map[int32]int64 {
		l.produce(t, l.name+" producer", "--brokers", b.Addr, "--topic", j.topic, "--start", flagOf(start), "--count", "130", "--size", flagOf(recordSize)).finish()
		return endOffsets(t, b.Addr, j.topic)
	}
	four := j.join(l, l.name+" four", "--commit-every", "40")
	j.awaitAllRead(more(10_000))
	if l.about.Commits {
		j.await("three commits of 40 records are acknowledged", func() bool {
			total := int64(0)
			for p, o := range j.committed {
				total += o - ends[p]
			}
			return total >= 120
		})
	}
	four.Kill()
	b.Kill()
	b.Restart()
	j.kill(four) // dead already: what the broker has kept is what the next one begins with
	five := j.join(l, l.name+" five")
	j.awaitAllRead(more(20_000))
	j.awaitShared(groupPartitions, five)
	j.leave(five)
	j.check()
}

// static restarts a static member within its session: it gets its partitions back, and the other
// member does not notice.
func static(t *testing.T, l *library, b *rig.Broker) {
	const topic, group = "group-static", "static"
	createTopic(t, b.Addr, topic, groupPartitions)
	j := newJournal(t, b.Addr, topic, group)
	one := j.join(l, l.name+" instance one", "--instance", "one")
	two := j.join(l, l.name+" instance two", "--instance", "two")
	j.awaitShared(groupPartitions, one, two)
	j.mu.Lock()
	held, revocations := sortedPartitions(two.holds), one.revoked
	j.mu.Unlock()
	j.kill(two)
	again := j.join(l, l.name+" instance two again", "--instance", "two")
	j.awaitShared(groupPartitions, one, again)
	l.produce(t, l.name+" producer", "--brokers", b.Addr, "--topic", topic, "--start", "0", "--count", "100", "--size", flagOf(recordSize)).finish()
	j.awaitAllRead(endOffsets(t, b.Addr, topic))
	j.mu.Lock()
	if now := sortedPartitions(again.holds); !slices.Equal(now, held) {
		j.wrong("the instance came back to the partitions %v; it had %v", now, held)
	}
	if one.revoked != revocations {
		j.wrong("the other member lost partitions when the instance came back")
	}
	j.mu.Unlock()
	j.leave(one, again)
	j.check()
}

// assigns lets two members share a topic with each of the library's assignors.
func assigns(t *testing.T, l *library, b *rig.Broker) {
	const topic = "group-assignors"
	createTopic(t, b.Addr, topic, groupPartitions)
	l.produce(t, l.name+" producer", "--brokers", b.Addr, "--topic", topic, "--start", "0", "--count", "200", "--size", flagOf(recordSize)).finish()
	for _, assignor := range l.about.Assignors {
		j := newJournal(t, b.Addr, topic, "assigned-"+assignor)
		one := j.join(l, fmt.Sprintf("%s %s one", l.name, assignor), "--assignor", assignor)
		two := j.join(l, fmt.Sprintf("%s %s two", l.name, assignor), "--assignor", assignor)
		j.awaitShared(groupPartitions, one, two)
		j.await(assignor+" gives each of them half", func() bool { return len(one.holds) == groupPartitions/2 && len(two.holds) == groupPartitions/2 })
		j.awaitAllRead(endOffsets(t, b.Addr, topic))
		j.leave(one, two)
		j.check()
	}
}
