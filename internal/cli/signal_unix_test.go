//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"barnabas/internal/cli/terminal"
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
	cmd.Env = append(os.Environ(), terminal.BrokersVariable+"="+address)
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
		t.Cleanup(func() { _ = cmd.Process.Kill() })
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
	if err := producer.Wait(); !errors.As(err, &exit) || exit.ExitCode() != terminal.ExitInterrupted {
		t.Fatalf("the producer ended with %v, want exit code %d\n%s", err, terminal.ExitInterrupted, &told)
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
	defer func() { _ = n.Close(t.Context()) }()
	address := strings.TrimPrefix(n.Advertised()[0], "PLAINTEXT://")
	typed := regexp.MustCompile("(?m)^(\\./barnabas (?:topic|produce|consume|group|config) .*)$|`(\\./barnabas log dump [^`]*)`").FindAllSubmatch(text, -1)
	if len(typed) < 6 {
		t.Fatalf("the README has %d commands", len(typed))
	}
	for _, m := range typed {
		line := string(m[1]) + string(m[2])
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), terminal.BrokersVariable+"="+address)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if strings.HasSuffix(line, "| wc -l") && strings.TrimSpace(string(out)) != "1000" {
			t.Fatalf("%s: %s", line, out)
		}
	}
}
