//go:build compat

package compat

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

// journal follows the members of one group by the lines that they print, and holds them to what a
// group promises: a member reads only what it was given, without a gap, never from before an offset
// that was committed when it was given the partition; and all of them together read everything.
//
// Lines of one member are in order. Those of several are in the order of arrival, which may be later
// than the truth by a moment; so nothing is concluded from a line that is not there yet.
type journal struct {
	t     *testing.T
	addr  string // of the brokers
	topic string
	group string

	mu        sync.Mutex
	members   []*groupMember
	committed map[int32]int64              // the highest that was acknowledged
	seen      map[int32]map[int64]struct{} // every offset that some member has read
	resumes   map[int32]int64              // where the next period of a partition has to begin exactly
	inHand    map[int32]*bool              // whether the record is found that a member that has left may have had in hand
	wrongs    []string
	changed   chan struct{} // closed and replaced at every line
}

type groupMember struct {
	*rig.Program
	library *library

	// Guarded by the journal.
	holds   map[int32]bool
	next    map[int32]int64 // within a period: what has to come next
	revoked int             // lines of revocation that took something
	read    int
	left    bool
	events  []string // the last of its assignments, revocations and commits, with the time
}

// keptEvents bounds what a failure shows of a member's history.
const keptEvents = 12

func newJournal(t *testing.T, addr, topic, group string) *journal {
	return &journal{
		t: t, addr: addr, topic: topic, group: group, committed: map[int32]int64{}, seen: map[int32]map[int64]struct{}{},
		resumes: map[int32]int64{}, inHand: map[int32]*bool{}, changed: make(chan struct{}),
	}
}

// join starts a member.
func (j *journal) join(l *library, name string, flags ...string) *groupMember {
	j.t.Helper()
	m := &groupMember{library: l, holds: map[int32]bool{}, next: map[int32]int64{}}
	j.mu.Lock()
	j.members = append(j.members, m)
	j.mu.Unlock()
	flags = append([]string{"--brokers", j.addr, "--topic", j.topic, "--group", j.group}, flags...)
	m.Program = l.launch(j.t, name, func(line printed) { j.note(m, name, line) }, "group", flags...)
	return m
}

func (j *journal) note(m *groupMember, name string, line printed) {
	j.mu.Lock()
	defer j.mu.Unlock()
	m.remember(line)
	switch {
	case line.Assigned != nil:
		for _, p := range *line.Assigned {
			m.holds[p] = true
			delete(m.next, p)
		}
	case line.Revoked != nil:
		if len(*line.Revoked) > 0 {
			m.revoked++
		}
		for _, p := range *line.Revoked {
			delete(m.holds, p)
		}
	case line.Record != nil:
		j.noteRecord(m, name, line.Record.Partition, line.Record.Offset)
	case line.Committed != nil:
		for p, o := range line.Committed {
			j.committed[p] = max(j.committed[p], o)
		}
	case line.Left:
		m.left = true
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

func (m *groupMember) remember(line printed) {
	var event string
	switch {
	case line.Assigned != nil:
		event = fmt.Sprintf("assigned %v", *line.Assigned)
	case line.Revoked != nil:
		event = fmt.Sprintf("revoked %v", *line.Revoked)
	case line.Committed != nil:
		event = fmt.Sprintf("committed %v", line.Committed)
	default:
		return
	}
	if m.events = append(m.events, time.Now().Format("15:04:05.000 ")+event); len(m.events) > keptEvents {
		m.events = m.events[1:]
	}
}

func (j *journal) noteRecord(m *groupMember, name string, p int32, o int64) {
	m.read++
	next, within := m.next[p]
	m.next[p] = o + 1
	exact, known := j.resumes[p]
	if !within && j.wasInHand(p, o-1) {
		exact = max(exact, o)
	}
	switch {
	case !m.holds[p]:
		j.wrong("%s read offset %d of partition %d, which it does not have", name, o, p)
	case within && o != next:
		j.wrong("%s read offset %d of partition %d, where %d has its turn", name, o, p, next)
	case !within && known && o != exact:
		j.wrong("%s began at offset %d of partition %d; the group stands at %d", name, o, p, exact)
	case !within && o < j.committed[p]:
		j.wrong("%s began at offset %d of partition %d; %d is committed", name, o, p, j.committed[p])
	}
	if !within {
		delete(j.resumes, p)
	}
	j.see(p, o)
}

func (j *journal) see(p int32, o int64) {
	if j.seen[p] == nil {
		j.seen[p] = map[int64]struct{}{}
	}
	j.seen[p][o] = struct{}{}
}

// mayHaveInHand notes that a member is about to be asked to end, where its library commits a record that it has just handed
// over by then and does not show: at most one, in one of the partitions that it has.
func (j *journal) mayHaveInHand(m *groupMember) {
	if !slices.Contains(m.library.about.Lacks, "in-hand") {
		return
	}
	found := new(bool)
	for p := range m.holds {
		j.inHand[p] = found
	}
}

// wasInHand reports whether a record that comes right before a period was in the hand of the member that left.
func (j *journal) wasInHand(p int32, o int64) bool {
	found := j.inHand[p]
	delete(j.inHand, p)
	exact, known := j.resumes[p]
	_, shown := j.seen[p][o]
	if found == nil || *found || o < 0 || (known && o != exact) || (!known && shown) {
		return false
	}
	*found = true
	j.see(p, o)
	return true
}

func (j *journal) wrong(format string, args ...any) {
	if len(j.wrongs) < 20 {
		j.wrongs = append(j.wrongs, fmt.Sprintf(format, args...))
	}
}

// await waits until something holds that the members' lines bring about.
func (j *journal) await(what string, holds func() bool) {
	j.t.Helper()
	deadline := time.After(patience)
	for {
		j.mu.Lock()
		done, changed, wrongs := holds(), j.changed, j.wrongs
		j.mu.Unlock()
		if len(wrongs) > 0 {
			j.t.Fatalf("before %s:\n%s\n%s", what, strings.Join(wrongs, "\n"), j.state())
		}
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			j.t.Fatalf("not within %v: %s\n%s", patience, what, j.state())
		}
	}
}

// state is what a failure shows: each member's partitions and last words, and the broker's.
func (j *journal) state() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var text strings.Builder
	for p, seen := range j.seen {
		fmt.Fprintf(&text, "partition %d: %d offsets read, %d committed\n", p, len(seen), j.committed[p])
	}
	for _, m := range j.members {
		fmt.Fprintf(&text, "%s has %v, has read %d records. %s\n", m.Name, sortedPartitions(m.holds), m.read, strings.Join(m.events, ", "))
		if !m.left {
			text.WriteString(m.Said() + "\n")
		}
	}
	fmt.Fprintf(&text, "it is %s", time.Now().Format("15:04:05.000"))
	return text.String()
}

// awaitShared waits until these members, and no others, have all partitions among them, and each has some.
func (j *journal) awaitShared(partitions int, members ...*groupMember) {
	j.t.Helper()
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
	}
	j.await(strings.Join(names, ", ")+" share the partitions", func() bool {
		owned := map[int32]int{}
		for _, m := range members {
			if len(m.holds) == 0 && len(members) <= partitions {
				return false
			}
			for p := range m.holds {
				owned[p]++
			}
		}
		return len(owned) == partitions && !slices.ContainsFunc(slices.Collect(maps.Values(owned)), func(n int) bool { return n > 1 })
	})
}

// awaitReading waits until each of these has read something since now.
func (j *journal) awaitReading(members ...*groupMember) {
	j.t.Helper()
	j.mu.Lock()
	before := map[*groupMember]int{}
	for _, m := range members {
		before[m] = m.read
	}
	j.mu.Unlock()
	for _, m := range members {
		j.await(m.Name+" reads", func() bool { return m.read > before[m] })
	}
}

// awaitAllRead waits until every offset below the ends has been read by some member.
func (j *journal) awaitAllRead(ends map[int32]int64) {
	j.t.Helper()
	j.await(fmt.Sprintf("everything up to %v is read", ends), func() bool {
		for p, end := range ends {
			if int64(len(j.seen[p])) < end {
				return false
			}
		}
		return true
	})
}

// kill ends a member with SIGKILL, and demands that whoever gets its partitions begins exactly where
// the group stands, as the broker tells it.
func (j *journal) kill(m *groupMember) {
	j.t.Helper()
	m.Kill()
	j.mu.Lock()
	held := sortedPartitions(m.holds)
	clear(m.holds)
	j.mu.Unlock()
	j.demandExact(held)
}

// arrivedFor is how often in a row the broker tells the same of the commits of a member that was killed, until nothing of it
// can be on its way any more.
const arrivedFor = 10

// demandExact sets where the next period of these partitions begins. Nobody may commit for them meanwhile.
func (j *journal) demandExact(partitions []int32) {
	j.t.Helper()
	var now map[int32]int64
	alike := 0
	rig.Eventually(j.t, patience, "a killed member's last commit has arrived", func() bool {
		before := now
		now = committedOffsets(j.t, j.addr, j.group, j.topic)
		same := before != nil && !slices.ContainsFunc(partitions, func(p int32) bool { return before[p] != now[p] })
		if alike++; !same {
			alike = 0
		}
		return alike == arrivedFor
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range partitions {
		if now[p] < j.committed[p] {
			j.wrong("partition %d stands at %d; a commit of %d was acknowledged", p, now[p], j.committed[p])
		}
		j.resumes[p] = max(now[p], 0) // nothing committed: from the beginning
	}
}

// leave asks members to end and waits for it. What they had read is committed, where they commit at all.
func (j *journal) leave(members ...*groupMember) {
	j.t.Helper()
	for _, m := range members {
		j.mu.Lock()
		j.mayHaveInHand(m)
		j.mu.Unlock()
		m.Terminate()
	}
	for _, m := range members {
		m.Succeeds(patience)
		j.mu.Lock()
		if !m.left {
			j.wrong("%s ended without saying that it left", m.Name)
		}
		clear(m.holds)
		j.mu.Unlock()
	}
}

// check reports what went wrong.
func (j *journal) check() {
	j.t.Helper()
	j.mu.Lock()
	wrongs := j.wrongs
	j.mu.Unlock()
	if len(wrongs) > 0 {
		j.t.Errorf("%s\n%s", strings.Join(wrongs, "\n"), j.state())
	}
}
