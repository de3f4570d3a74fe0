//go:build linux

// Package rig starts the broker under test as a process of its own, and other people's tools
// beside it. It decides where the broker's files lie and which port it has; what is asked of
// the broker is the tests' business. It knows nothing of how a broker works inside.
//
// The broker is ours, built once per test process as it ships (CGO_ENABLED=0). Two variables
// exchange it, and a third varies what is done to it:
//
//	BARNABAS_TEST_SYSTEM=kafka    an Apache Kafka instead, which shows that the tests are right
//	BARNABAS_BINARY=FILE          this binary, not a fresh one
//	BARNABAS_SEED=N               another seed of random numbers; "random" for one that nobody has tried
//
// BARNABAS_SHARED names the folder with peers/kafka, by default the one beside the repository.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	readyWithin = 3 * time.Minute // Apache Kafka on a loaded machine takes most of it
	stopWithin  = 3 * time.Minute
	toolWithin  = 4 * time.Minute
)

// System says which broker the tests run against: "barnabas" or "kafka".
func System() string {
	if s := os.Getenv("BARNABAS_TEST_SYSTEM"); s != "" {
		return s
	}
	return "barnabas"
}

// release is the Apache Kafka that the tests run against; "" for ours.
func release() Release {
	if System() == "kafka" {
		return Kafka431
	}
	return ""
}

// Root is the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Seed is where a test's random numbers begin. It is the same in every run, unless BARNABAS_SEED says otherwise: whoever
// looks for what no run has shown yet asks for another one, and a failure names it.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(1)
	switch asked := os.Getenv("BARNABAS_SEED"); asked {
	case "":
	case "random":
		seed = rand.Uint64()
	default:
		var err error
		if seed, err = strconv.ParseUint(asked, 10, 64); err != nil {
			t.Fatalf("BARNABAS_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("BARNABAS_SEED=%d does the same again", seed)
		}
	})
	return seed
}

// Shared is the folder with Apache Kafka's installer and the measuring tools.
func Shared(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("BARNABAS_SHARED")
	if dir == "" {
		dir = filepath.Join(Root(), "..", "shared")
	}
	if _, err := os.Stat(filepath.Join(dir, "peers", "kafka")); err != nil {
		t.Fatalf("no peers/kafka in %s: set BARNABAS_SHARED to the folder that has it", dir)
	}
	return dir
}

var built struct {
	sync.Once
	dir, file string
	err       error
}

// Main runs a package's tests and removes what was built for them: call it from TestMain.
func Main(m *testing.M) {
	m.Run()
	_ = os.RemoveAll(built.dir) // "" where nothing was built
}

// Binary is our program as it ships.
func Binary(t testing.TB) string {
	t.Helper()
	if file := os.Getenv("BARNABAS_BINARY"); file != "" {
		return file
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "barnabas-under-test"); built.err != nil {
			return
		}
		built.file = filepath.Join(built.dir, "barnabas")
		cmd := exec.Command("go", "build", "-trimpath", "-o", built.file, "./cmd/barnabas")
		cmd.Dir = Root()
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the broker: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.file
}

// Broker is a running process of the system under test.
type Broker struct {
	Addr string // HOST:PORT
	Data string // the data directory: log.dirs

	t        testing.TB
	port     int
	settings []string
	wrapper  []string
	args     []string
	release  Release // of Apache Kafka; "" is ours
	classes  string  // of plugins of an Apache Kafka

	listeners string // the key, where --listen does not say it
	running   *process
	said      string // by the process before
}

// Options say how a broker is started.
type Options struct {
	Data     string   // "" for a temporary one; ignored by Apache Kafka
	Settings []string // key=value, in Kafka's names
	Wrapper  []string // what runs our binary, such as strace with its flags
	Args     []string // further flags of our binary
}

// Start starts a broker with an empty data directory and stops it when the test ends.
func Start(t testing.TB, settings ...string) *Broker {
	t.Helper()
	return StartWith(t, Options{Settings: settings})
}

// StartWith is Start with more said.
func StartWith(t testing.TB, o Options) *Broker {
	t.Helper()
	b := newBroker(t, o.Settings)
	b.wrapper, b.args, b.release = o.Wrapper, o.Args, release()
	if b.release != "" {
		b.formatKafka()
	} else if b.Data = o.Data; b.Data == "" {
		b.Data = filepath.Join(t.TempDir(), "data")
	}
	b.begin()
	return b
}

// begin is the first start. Another process may have taken the port since it was found free; then
// there is no harm in another one.
func (b *Broker) begin() {
	b.t.Helper()
	for range 3 {
		p, err := b.launch()
		if err != nil {
			b.t.Fatal(err)
		}
		b.running = p
		if err = p.awaitReady(b); err == nil {
			return
		}
		if b.release != "" || !strings.Contains(p.log.String(), "address already in use") {
			b.t.Fatalf("%v\n%s", err, tail(p.log.String(), 8000))
		}
		b.port = freePorts(b.t)
		b.Addr = fmt.Sprintf("127.0.0.1:%d", b.port)
	}
	b.t.Fatal("three ports that were free were taken")
}

func newBroker(t testing.TB, settings []string) *Broker {
	t.Helper()
	port := freePorts(t)
	_ = t.TempDir() // asked for before the cleanup below is registered, so removed after the broker has ended
	b := &Broker{t: t, port: port, Addr: fmt.Sprintf("127.0.0.1:%d", port), settings: settings}
	t.Cleanup(func() {
		if b.running != nil {
			b.Kill()
		}
		if t.Failed() {
			t.Logf("the broker said:\n%s", tail(b.Log(), 8000))
		}
	})
	return b
}

// freePorts finds a port whose successor is free too: Apache Kafka's controller wants it. Both lie
// below the range from which the system gives ports to outgoing connections, so that a port stays
// free while its broker is down.
func freePorts(t testing.TB) int {
	t.Helper()
	var last error
	for range 100 {
		port := 10_000 + 2*rand.IntN(5_000) // test/suites/launcher has those from 20,000 on
		if !reserve(port) {
			continue // it is for a broker that has not started yet, or is down for a while
		}
		if last = free(port); last == nil {
			last = free(port + 1)
		}
		if last == nil {
			return port
		}
	}
	t.Fatalf("find a free port: %v", last)
	return 0
}

// reserved keeps what says that ports are this process's, until it ends.
var reserved sync.Map

// reserve takes a port for this process, where no other process of these tests has. It is a name of this machine's that is
// taken, not the port, which the broker needs.
func reserve(port int) bool {
	l, err := net.Listen("unix", fmt.Sprintf("@barnabas-test-port-%d", port))
	if err == nil {
		reserved.Store(port, l)
	}
	return err == nil
}

// FreeAddress is an address of this machine at which nothing listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePorts(t))
}

func free(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return l.Close()
}

// Restart starts the process again on the same data and address, and waits until it serves.
func (b *Broker) Restart() {
	b.t.Helper()
	if b.running != nil {
		b.t.Fatal("the broker runs already")
	}
	p, err := b.launch()
	if err != nil {
		b.t.Fatal(err)
	}
	b.running = p
	if err := p.awaitReady(b); err != nil {
		b.t.Fatalf("%v\n%s", err, tail(p.log.String(), 8000))
	}
}

// TryStart starts a second process on this broker's data with another address, and returns what
// it said and its exit code. It is for a start that must be refused.
func (b *Broker) TryStart(args ...string) (output string, code int) {
	b.t.Helper()
	all := append([]string{"serve", "--data", b.Data, "--listen", fmt.Sprintf("127.0.0.1:%d", freePorts(b.t))}, args...)
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(b.t), all...)
	cmd.Env = Environment()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("start a second broker: %v", err)
	}
	if ctx.Err() != nil {
		b.t.Fatalf("a second broker on %s was not refused:\n%s", b.Data, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (b *Broker) launch() (*process, error) {
	if b.release != "" {
		return spawn(b.release.command(b.t, b.Data+".properties", b.classes))
	}
	args := append([]string{}, b.wrapper...)
	args = append(args, Binary(b.t), "serve", "--data", b.Data)
	if b.listeners == "" {
		args = append(args, "--listen", b.Addr)
	} else {
		args = append(args, "--set", "listeners="+b.listeners)
	}
	args = append(args, b.args...)
	for _, s := range b.settings {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = Environment()
	return spawn(cmd)
}

// Environment is this process's without what is addressed to the tests: our program takes every
// variable that begins with BARNABAS_ for a setting of its own.
func Environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "BARNABAS_") })
}

// PID is the broker's process id. Under a wrapper it is the wrapped process.
func (b *Broker) PID() int {
	b.t.Helper()
	pid := b.running.cmd.Process.Pid
	if len(b.wrapper) == 0 {
		return pid
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		b.t.Fatalf("find the wrapped broker: %v", err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		b.t.Fatalf("find the wrapped broker among %q: %v", children, err)
	}
	return child
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (b *Broker) Kill() {
	b.t.Helper()
	b.end(syscall.SIGKILL)
}

// Stop ends the process with SIGTERM and returns its exit code.
func (b *Broker) Stop() int {
	b.t.Helper()
	return b.end(syscall.SIGTERM)
}

// Interrupt ends the process with SIGINT and returns its exit code.
func (b *Broker) Interrupt() int {
	b.t.Helper()
	return b.end(syscall.SIGINT)
}

func (b *Broker) end(signal syscall.Signal) int {
	b.t.Helper()
	p := b.running
	if p == nil {
		b.t.Fatal("the broker does not run")
	}
	if err := syscall.Kill(b.PID(), signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		b.t.Fatalf("send %v: %v", signal, err)
	}
	select {
	case <-p.gone:
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		b.t.Fatalf("the broker did not end within %v of %v\n%s", stopWithin, signal, tail(p.log.String(), 4000))
	}
	b.running = nil
	b.said = p.log.String()
	return p.cmd.ProcessState.ExitCode()
}

// Gone is closed once the process has ended.
func (b *Broker) Gone() <-chan struct{} { return b.running.gone }

// Log is what the running process has said, or the last one did.
func (b *Broker) Log() string {
	if b.running != nil {
		return b.running.log.String()
	}
	return b.said
}

// process is a child whose output is kept and which dies with the test.
type process struct {
	cmd  *exec.Cmd
	log  *lines
	gone chan struct{}
}

func spawn(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: newLines(), gone: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		_ = cmd.Wait() // its exit code is read from ProcessState
		close(p.gone)
	}()
	return p, nil
}

func (p *process) awaitReady(b *Broker) error {
	ready := p.log.ready
	if b.release != "" {
		ready = answers(b.Addr, p.gone)
	}
	select {
	case <-ready:
		return nil
	case <-p.gone:
		return fmt.Errorf("the broker ended before it was ready, exit code %d", p.cmd.ProcessState.ExitCode())
	case <-time.After(readyWithin):
		return fmt.Errorf("the broker was not ready within %v", readyWithin)
	}
}

// answers is closed once the broker at addr takes part in its cluster.
func answers(addr string, gone <-chan struct{}) chan struct{} {
	ready := make(chan struct{})
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			if exec.Command("kcat", "-b", addr, "-L", "-m", "2").Run() == nil {
				close(ready)
				return
			}
			select {
			case <-tick.C:
			case <-gone:
				return
			}
		}
	}()
	return ready
}

// lines collects output and notices the line that begins with "ready".
type lines struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	at    int // where the line not yet looked at begins
	seen  bool
	ready chan struct{}
}

func newLines() *lines { return &lines{ready: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	for !l.seen {
		line, _, whole := bytes.Cut(l.buf.Bytes()[l.at:], []byte("\n"))
		if !whole {
			break
		}
		l.at += len(line) + 1
		if bytes.HasPrefix(line, []byte("ready")) {
			l.seen = true
			close(l.ready)
		}
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Run runs a tool to its end and returns what it printed. stdin may be nil. A failure ends the test.
func Run(t testing.TB, stdin io.Reader, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := Try(t, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, tail(stdout, 4000), tail(stderr, 4000))
	}
	return stdout
}

// Try is Run for a tool that may fail.
func Try(t testing.TB, stdin io.Reader, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.Env = Environment() // our own program among the tools
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %v: %w", toolWithin, err)
	}
	return out.String(), errs.String(), err
}

// Eventually waits for a condition that something outside this process brings about.
func Eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
