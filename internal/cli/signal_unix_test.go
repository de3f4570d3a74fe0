//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// brokerFor starts a broker for a test and returns its address.
func brokerFor(t *testing.T) string {
	t.Helper()
	n, err := startNode(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(n.Advertised()[0], "PLAINTEXT://")
}

func run(t *testing.T, address string, args ...string) string {
	t.Helper()
	cmd := exec.Command("barnabas", args...)
	cmd.Env = append(os.Environ(), brokersVariable+"="+address)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("barnabas %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestInterruptedProduceKeepsItsWord: Ctrl-C while produce waits for a line ends it with code 130, and
// the summary counts what was acknowledged. The follower that saw it ends with code 0.
func TestInterruptedProduceKeepsItsWord(t *testing.T) {
	address := brokerFor(t)
	run(t, address, "topic", "create", "t", "-p", "1")
	follower := exec.Command("barnabas", "consume", "t", "--follow", "-b", address)
	out, err := follower.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	producer := exec.Command("barnabas", "produce", "t", "-b", address)
	in, err := producer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	producer.Stderr = &told
	for _, cmd := range []*exec.Cmd{follower, producer} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
	}
	if _, err := io.WriteString(in, "one\ntwo\nhalf a li"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("the follower printed %q (%v), want %q", got, err, want)
		}
	}
	if err := producer.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := producer.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Fatalf("the producer ended with %v, want exit code %d\n%s", err, exitInterrupted, &told)
	}
	if !strings.Contains(told.String(), "sent 2 records (6 B)") {
		t.Errorf("the producer told %q", &told)
	}
	if err := follower.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := follower.Wait(); err != nil {
		t.Fatalf("the follower: %v", err)
	}
}

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
	t.Cleanup(func() { m.cmd.Process.Kill() })
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

// TestREADME runs what the README tells a newcomer to type, but for starting brokers and for other
// people's tools.
func TestREADME(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := exec.LookPath("barnabas")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs(filepath.Join(root, "examples"))
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{program: "barnabas", examples: "examples"} {
		if err := os.Symlink(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := startNode(filepath.Join(dir, "barnabas-data"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(t.Context())
	address := strings.TrimPrefix(n.Advertised()[0], "PLAINTEXT://")
	typed := regexp.MustCompile("(?m)^(\\./barnabas (?:topic|produce|consume|group|config) .*)$|`(\\./barnabas log dump [^`]*)`").FindAllSubmatch(text, -1)
	if len(typed) < 6 {
		t.Fatalf("the README has %d commands", len(typed))
	}
	for _, m := range typed {
		line := string(m[1]) + string(m[2])
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), brokersVariable+"="+address)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if strings.HasSuffix(line, "| wc -l") && strings.TrimSpace(string(out)) != "1000" {
			t.Fatalf("%s: %s", line, out)
		}
	}
}
