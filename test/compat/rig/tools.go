//go:build linux

package rig

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Tools is one Java process that runs Apache Kafka's tools one after the other. The start of a process for
// each takes longer than what most of them do.
type Tools struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

// StartTools starts the process, which ends with the test.
func StartTools(t testing.TB) *Tools {
	t.Helper()
	source := filepath.Join(Root(), "test", "compat", "tools", "Tools.java")
	cmd := exec.Command("java", append(javaArgs(t, "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"), source)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Kafka's tools: %v", err)
	}
	k := &Tools{t: t, in: in, out: bufio.NewReader(out), cmd: cmd}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return k
}

// Run runs one tool, named by its class, and returns what it printed on either stream, and its exit code.
func (k *Tools) Run(class string, args ...string) (said string, code int) {
	k.t.Helper()
	stuck := time.AfterFunc(toolWithin, func() { _ = k.cmd.Process.Kill() })
	defer stuck.Stop()
	command := append([]string{class}, args...)
	if _, err := io.WriteString(k.in, strings.Join(command, "\t")+"\n"); err != nil {
		k.t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	var size int
	head, err := k.out.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(head, &code, &size)
	}
	text := make([]byte, size)
	if err == nil {
		_, err = io.ReadFull(k.out, text)
	}
	if err != nil {
		k.t.Fatalf("%s: what the process of Kafka's tools says is %q: %v", strings.Join(command, " "), head, err)
	}
	return string(text), code
}
