package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"barnabas/internal/cli/terminal"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
)

// startPatience is the variable in which a script says how long to wait for a broker that it has only just started.
const startPatience = "START_PATIENCE"

// TestMain makes the program itself of this test binary, for the scripts to run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"barnabas": func() {
			p := terminal.NewProgram(terminal.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Getenv)
			p.Patience.Completion = scriptPatience
			if d, err := time.ParseDuration(os.Getenv(startPatience)); err == nil {
				p.Patience.Start = d
			}
			os.Exit(runProgram(context.Background(), os.Args[1:], p))
		},
	})
}

// startNode runs a broker in this process, with its data in dir.
func startNode(dir string) (*node.Node, error) {
	set, _, err := config.Load(config.Sources{Flags: []config.Setting{
		{Key: "log.dirs", Value: dir},
		{Key: "listeners", Value: "PLAINTEXT://127.0.0.1:0"},
		{Key: "num.partitions", Value: "2"},
		{Key: "group.initial.rebalance.delay.ms", Value: "0"},
	}})
	if err != nil {
		return nil, err
	}
	return node.Start(context.Background(), node.Options{
		Config: set, FS: disk.OS, Network: netx.TCP, Logger: slog.New(slog.DiscardHandler), Now: time.Now, Random: rand.Reader,
		Version: "test",
	})
}

// commands are what scripts can say beside testscript's own.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"code":     exitsWith,
	"waitfor":  waitsFor,
	"serve":    serveInScript,
	"local":    localInScript,
	"killnode": killInScript,
	"stop":     stopInScript,
	"count":    countLines,
	"get":      getPage,
}

// exitsWith runs a command and demands an exit code: code 3 barnabas topic describe absent.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// scriptPatience bounds how long a script waits for what is bound to come.
const scriptPatience = 2 * time.Minute

// waitsFor runs a command again until its standard output matches: waitfor 'barnabas group list' live.
func waitsFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor COMMAND PATTERN")
	}
	words, pattern := strings.Fields(args[0]), regexp.MustCompile("(?m)"+args[1])
	for end := time.Now().Add(scriptPatience); ; {
		err := ts.Exec(words[0], words[1:]...) // each takes long enough for no pause to be needed
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not come to say %s", args[0], args[1])
		}
	}
}

// countLines demands so many lines of a file: count 5 stdout.
func countLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: count N FILE")
	}
	if got := strings.Count(ts.ReadFile(args[1]), "\n"); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s has %d lines, want %s", args[1], got, args[0])
	}
}

// getPage writes an HTTP page to the file `page`: get 200 http://...
func getPage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get STATUS URL")
	}
	resp, err := http.Get(args[1])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("page"), body, 0o644))
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("%s: status %d, want %s: %s", args[1], resp.StatusCode, args[0], body)
	}
}

// served is a broker that a script has started as a process.
type served struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	out    *bufio.Reader
}

type servedKey struct{}

var (
	address      = regexp.MustCompile(`PLAINTEXT://(\S+?)[,:]? `)
	adminAddress = regexp.MustCompile(`admin (http://\S+?): `)
)

// serveInScript starts `barnabas serve ARGS`, with variables that stand before them, waits for its line, writes it to the file `ready`, and
// sets BARNABAS_BROKERS and ADMIN.
func serveInScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: serve ARGS...")
	}
	path, err := exec.LookPath("barnabas")
	ts.Check(err)
	env := os.Environ()
	for len(args) > 0 && strings.HasPrefix(args[0], "BARNABAS_") {
		env, args = append(env, args[0]), args[1:]
	}
	s := &served{cmd: exec.Command(path, append([]string{"serve"}, args...)...)}
	s.cmd.Dir, s.cmd.Env = ts.MkAbs("."), env
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	ts.Defer(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	s.out = bufio.NewReader(out)
	line, err := s.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready ") {
		_ = s.cmd.Wait()
		ts.Fatalf("no line that begins with ready: %q %v\n%s", line, err, s.stderr.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("ready"), []byte(line), 0o644))
	ts.Setenv("PID", strconv.Itoa(s.cmd.Process.Pid))
	if m := address.FindStringSubmatch(line); m != nil {
		ts.Setenv("BARNABAS_BROKERS", m[1])
	}
	if m := adminAddress.FindStringSubmatch(line); m != nil {
		ts.Setenv("ADMIN", m[1])
	}
	*ts.Value(servedKey{}).(**served) = s
}

// localInScript starts `barnabas local ARGS`, waits for the line that begins with ready, writes all lines until then to the file
// `ready`, and sets BARNABAS_BROKERS. stop ends it.
func localInScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: local ARGS...")
	}
	path, err := exec.LookPath("barnabas")
	ts.Check(err)
	s := &served{cmd: exec.Command(path, append([]string{"local"}, args...)...)}
	s.cmd.Dir, s.cmd.Stderr = ts.MkAbs("."), &s.stderr
	out, err := s.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	ts.Defer(func() {
		_ = s.cmd.Process.Kill() // which ends the nodes, too
		_ = s.cmd.Wait()
	})
	s.out = bufio.NewReader(out)
	var all strings.Builder
	for line := ""; !strings.HasPrefix(line, "ready"); {
		if line, err = s.out.ReadString('\n'); err != nil {
			_ = s.cmd.Wait()
			ts.Fatalf("no line that begins with ready: %v\n%s%s", err, all.String(), s.stderr.String())
		}
		all.WriteString(line)
	}
	ts.Check(os.WriteFile(ts.MkAbs("ready"), []byte(all.String()), 0o644))
	_, brokers, _ := strings.Cut(strings.TrimSpace(all.String()), ", brokers ")
	ts.Setenv("BARNABAS_BROKERS", brokers)
	*ts.Value(servedKey{}).(**served) = s
}

// killInScript kills a node of local: killnode 2.
func killInScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: killnode NODE, after local")
	}
	m := regexp.MustCompile(`(?m)^node ` + args[0] + ` \(pid (\d+)\) ready`).FindStringSubmatch(ts.ReadFile("ready"))
	if m == nil {
		ts.Fatalf("no node %s is ready", args[0])
	}
	pid, err := strconv.Atoi(m[1])
	ts.Check(err)
	node, err := os.FindProcess(pid)
	ts.Check(err)
	ts.Check(node.Kill())
}

// stopInScript sends a signal to the broker that was started last, demands exit code 0 (with KILL: that
// it ends), and leaves its standard error in the file `log`.
func stopInScript(ts *testscript.TestScript, neg bool, args []string) {
	s := *ts.Value(servedKey{}).(**served)
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	if neg || len(args) != 1 || signals[args[0]] == 0 || s == nil {
		ts.Fatalf("usage: stop TERM|INT|KILL, after serve")
	}
	ts.Check(s.cmd.Process.Signal(signals[args[0]]))
	err := s.cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("log"), s.stderr.Bytes(), 0o644))
	if args[0] != "KILL" && err != nil {
		ts.Fatalf("after SIG%s: %v\n%s", args[0], err, s.stderr.String())
	}
}

// TestClientCommands runs the scripts of testdata/script, each against a broker of its own.
func TestClientCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  filepath.Join("testdata", "script"),
		Cmds: commands,
		Setup: func(env *testscript.Env) error {
			n, err := startNode(filepath.Join(env.WorkDir, ".data"))
			if err != nil {
				return fmt.Errorf("start a broker: %w", err)
			}
			env.Defer(func() {
				if err := n.Close(context.Background()); err != nil {
					env.T().Fatal("close the broker: ", err)
				}
			})
			env.Setenv("BARNABAS_BROKERS", strings.TrimPrefix(n.Advertised()[0], "PLAINTEXT://"))
			endAtOnce(env)
			return nil
		},
	})
}

// TestServe runs the scripts of testdata/serve, which start the broker themselves.
func TestServe(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  filepath.Join("testdata", "serve"),
		Cmds: commands,
		Setup: func(env *testscript.Env) error {
			env.Values[servedKey{}] = new(*served)
			endAtOnce(env)
			return nil
		},
	})
}

// endAtOnce has programs that are built for the race detector not wait a second, by default, each time that one ends.
func endAtOnce(env *testscript.Env) {
	env.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=10"))
}
