//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"barnabas/client"
	"barnabas/internal/cli/terminal"
)

// member is a consume --group --follow that runs.
type member struct {
	cmd   *exec.Cmd
	out   io.ReadCloser
	lines *bufio.Reader
	told  bytes.Buffer
}

func startMember(t *testing.T, address string, args ...string) *member {
	t.Helper()
	m := &member{cmd: exec.Command("barnabas", append([]string{"consume", "--group", "g", "--follow", "-b", address}, args...)...)}
	var err error
	if m.out, err = m.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	m.lines, m.cmd.Stderr = bufio.NewReader(m.out), &m.told
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.cmd.Process.Kill() })
	return m
}

func (m *member) prints(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got, err := m.lines.ReadString('\n'); got != w+"\n" {
			t.Fatalf("a member printed %q (%v), want %q\n%s", got, err, w, &m.told)
		}
	}
}

func send(t *testing.T, address string, partition int, lines ...string) {
	t.Helper()
	cmd := exec.Command("barnabas", "produce", "t", "-b", address, "--partition", strconv.Itoa(partition))
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("produce: %v\n%s", err, out)
	}
}

// groupNow is what group describe says of g at this moment.
func groupNow(t *testing.T, address string) describedGroup {
	t.Helper()
	var found []describedGroup
	if err := json.Unmarshal([]byte(run(t, address, "group", "describe", "g", "-o", "json")), &found); err != nil {
		t.Fatal(err)
	}
	return found[0]
}

func awaitGroup(t *testing.T, address, what string, is func(describedGroup) bool) {
	t.Helper()
	for end := time.Now().Add(scriptPatience); !is(groupNow(t, address)); {
		if time.Now().After(end) {
			t.Fatalf("the group does not come to have %s: %+v", what, groupNow(t, address))
		}
	}
}

// TestInterruptedMembersCommitAndLeave: Ctrl-C ends a member with code 0; what it has printed is
// committed and its partitions are another's at once, long before its session would have ended.
func TestInterruptedMembersCommitAndLeave(t *testing.T) {
	address := brokerFor(t)
	run(t, address, "topic", "create", "t", "-p", "2")
	send(t, address, 0, "a0")
	send(t, address, 1, "b0")
	first := startMember(t, address, "t")
	got := []string{}
	for range 2 { // of two partitions, in no order
		line, err := first.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the first member: %v\n%s", err, &first.told)
		}
		got = append(got, strings.TrimSpace(line))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"a0", "b0"}) {
		t.Fatalf("the first member printed %v", got)
	}
	second := startMember(t, address, "t")
	stable := func(members int) func(describedGroup) bool {
		return func(d describedGroup) bool {
			return d.State == "Stable" && len(d.Members) == members &&
				!slices.ContainsFunc(d.Members, func(m describedMember) bool { return len(m.Assignment["t"]) != 2/members })
		}
	}
	awaitGroup(t, address, "two members with a partition each", stable(2))
	mine, others := 0, 1
	if d := groupNow(t, address); d.Partitions[0].MemberID == d.Partitions[1].MemberID {
		t.Fatalf("one member has both: %+v", d.Partitions)
	}
	send(t, address, 0, "a1")
	send(t, address, 1, "b1")
	line, err := first.lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if line == "b1\n" {
		mine, others = 1, 0
	}
	second.prints(t, []string{"a1", "b1"}[others])
	if err := first.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := first.cmd.Wait(); err != nil {
		t.Fatalf("the first member: %v\n%s", err, &first.told)
	}
	d := groupNow(t, address) // no waiting: it has left, and has committed before
	if len(d.Members) != 1 || d.Partitions[mine].Committed == nil || *d.Partitions[mine].Committed != 2 {
		t.Errorf("after it has left: %+v", d)
	}
	awaitGroup(t, address, "one member with both partitions", stable(1))
	send(t, address, mine, "after")
	second.prints(t, "after") // and nothing twice

	// A pipe that is closed ends it, too.
	if err := second.out.Close(); err != nil {
		t.Fatal(err)
	}
	send(t, address, mine, "unseen")
	if err := second.cmd.Wait(); err != nil {
		t.Fatalf("the second member: %v\n%s", err, &second.told)
	}
	d = groupNow(t, address)
	if d.State != "Empty" || *d.Partitions[mine].Committed != 3 || *d.Partitions[others].Committed != 2 || d.TotalLag != 1 {
		t.Errorf("after its pipe was closed: %+v", d)
	}
}

// Records that have come since a member began are neither printed nor passed over.
func TestMembersStopWhereTheTopicEnded(t *testing.T) {
	address := brokerFor(t)
	run(t, address, "topic", "create", "t", "-p", "1")
	send(t, address, 0, strings.Split("0 1 2 3 4 5 6 7 8 9", " ")...)
	c, err := client.New(client.Brokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out strings.Builder
	r := &groupReader{reader: &reader{
		o:      &consume{p: &terminal.Program{Streams: terminal.Streams{Out: &out, Err: io.Discard}}, t: terminal.Target{Timeout: scriptPatience}, group: "g"},
		client: c, print: func(dst []byte, rec *client.Record) []byte { return append(dst, rec.Value...) },
		ends: map[client.TopicPartition]int64{{Topic: "t"}: 6},
	}}
	g, err := c.NewGroupConsumer("g", r.beginAt(client.Earliest), client.OnAssigned(
		func(context.Context, *client.GroupConsumer, []client.TopicPartition) { r.joined = true }))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe("t"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.follow(t.Context(), g), g.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if d := groupNow(t, address); out.String() != "012345" || *d.Partitions[0].Committed != 6 {
		t.Errorf("printed %q, committed %d", out.String(), *d.Partitions[0].Committed)
	}
}
