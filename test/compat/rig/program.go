//go:build linux

package rig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// keptLines bounds what a failure shows of a program's output.
const keptLines = 12

// Program is a process whose standard output is read line by line. It leads a process group of its
// own, and ends with the test.
type Program struct {
	Name string

	t      testing.TB
	cmd    *exec.Cmd
	stderr lines
	gone   chan struct{}

	mu   sync.Mutex
	tail []string // the last lines of standard output
}

// Launch starts a program in an empty folder. each is called with every line of its standard
// output, from one goroutine, in order; Ended is closed after the last of them.
func Launch(t testing.TB, name string, command []string, each func(line string)) *Program {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = t.TempDir(), Environment()
	p := &Program{Name: name, t: t, cmd: cmd, gone: make(chan struct{}), stderr: lines{ready: make(chan struct{})}}
	cmd.Stderr = &p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.gone)
		in := bufio.NewScanner(out)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			p.keep(in.Text())
			each(in.Text())
		}
		_ = cmd.Wait() // its exit code is read from ProcessState
	}()
	t.Cleanup(p.Kill)
	return p
}

func (p *Program) keep(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tail = append(p.tail, line); len(p.tail) > keptLines {
		p.tail = p.tail[1:]
	}
}

// Ended is closed once the process has ended and its last line has been handed on.
func (p *Program) Ended() <-chan struct{} { return p.gone }

// Kill ends the whole process group with SIGKILL and waits until the output is read. A program that
// has ended is left alone.
func (p *Program) Kill() {
	select {
	case <-p.gone:
		return
	default:
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Errorf("kill %s: %v", p.Name, err)
	}
	<-p.gone
}

// Terminate asks the process to end, with SIGTERM.
func (p *Program) Terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("ask %s to end: %v\n%s", p.Name, err, p.Said())
	}
}

// Succeeds waits until the process has ended with exit code 0.
func (p *Program) Succeeds(within time.Duration) {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(within):
		p.t.Fatalf("%s has not ended within %v\n%s", p.Name, within, p.Said())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("%s: %v\n%s", p.Name, p.cmd.ProcessState, p.Said())
	}
}

// Said is the end of what the program has printed on both streams.
func (p *Program) Said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s printed last:\n  %s\nand on standard error:\n%s", p.Name, strings.Join(p.tail, "\n  "), tail(p.stderr.String(), 3000))
}

// buildTries is how often a build script runs that fails: registries do not always answer.
const buildTries = 3

// Build runs a build script and returns the command that it prints last, as words.
func Build(script string, args ...string) (command []string, err error) {
	for range buildTries {
		if command, err = buildOnce(script, args...); err == nil {
			break
		}
	}
	return command, err
}

func buildOnce(script string, args ...string) ([]string, error) {
	cmd := exec.Command(script, args...)
	cmd.Env = Environment()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", script, strings.Join(args, " "), err, tail(out.String(), 3000), tail(errs.String(), 6000))
	}
	printed := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	command := printed[len(printed)-1]
	// A shell reads the words, and becomes the program.
	return []string{"bash", "-c", "exec " + command + ` "$@"`, "program"}, nil
}
