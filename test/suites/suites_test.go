//go:build compat && linux

package suites

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

var (
	slice       = flag.String("slice", "", "run this slice of slices.txt, not everything")
	only        = flag.String("only", "", "of Apache Kafka's tests, run those whose SUITE/TEST matches this pattern")
	onlyLeftOut = flag.Bool("left-out", false, "run the tests of left-out.txt; of Apache Kafka's, nothing else")
)

const kafkaIT = "run-kafka-it.sh" // which takes the names of tests

const readyWithin = 3 * time.Minute

func TestMain(m *testing.M) { rig.Main(m) }

// suite is one of the others' suites, or a group of Apache Kafka's.
type suite struct {
	name   string // of the subtest, and in slices.txt
	list   string // the first part of its names in left-out.txt
	script string
	group  string // of run-kafka-it.sh; "" in the others
	own    string // the file that names tests of which each gets brokers of its own, started by launcher
	apart  bool   // the brokers do not vote for the controller, so that a test can stop most of them
	within time.Duration
	also   []string // settings of the broker beside those of broker.properties
}

// The others expect several partitions in what is made by being used; Apache Kafka's own tests
// expect one, and the first of the brokers that their harness would start.
var (
	fourPartitions = []string{"num.partitions=4", "offsets.topic.num.partitions=5"}
	firstOfKit     = []string{"node.id=0", "num.partitions=1", "offsets.topic.num.partitions=1"}
)

var all = []suite{
	{name: "kafka-python", list: "kafka-python", script: "run-kafka-python.sh", within: 20 * time.Minute, also: fourPartitions},
	{name: "kafka-go", list: "kafka-go", script: "run-kafka-go.sh", within: 20 * time.Minute, also: fourPartitions},
	{name: "franz-go", list: "franz-go", script: "run-franz-go.sh", within: 20 * time.Minute, also: fourPartitions},
	{name: "consumer", list: "kafka-it", script: kafkaIT, group: "consumer", within: 40 * time.Minute, also: firstOfKit},
	{name: "producer", list: "kafka-it", script: kafkaIT, group: "producer", within: 20 * time.Minute, also: firstOfKit},
	{name: "admin", list: "kafka-it", script: kafkaIT, group: "admin", within: 20 * time.Minute, also: firstOfKit},
	{name: "tools", list: "kafka-it", script: kafkaIT, group: "tools", within: 40 * time.Minute, also: firstOfKit},
	{name: "fresh", list: "kafka-it", script: kafkaIT, own: "fresh.txt", within: 20 * time.Minute},
	{name: "clusters", list: "clusters", script: kafkaIT, own: "clusters.txt", within: 60 * time.Minute},
	{name: "outages", list: "clusters", script: kafkaIT, own: "outages.txt", apart: true, within: 20 * time.Minute},
}

func TestSuites(t *testing.T) {
	list, err := readLists()
	if err != nil {
		t.Fatal(err)
	}
	parts := everything()
	if *slice != "" {
		read, err := readSlices("slices.txt")
		if err != nil {
			t.Fatal(err)
		}
		if parts = read[*slice]; parts == nil {
			t.Fatalf("slices.txt has no slice %q", *slice)
		}
	}
	for _, p := range parts {
		t.Run(p.String(), func(t *testing.T) { p.run(t, list) })
	}
}

func (p part) run(t *testing.T, list lists) {
	began := time.Now()
	script, tests := p.command(t, list)
	if len(tests) == 0 && p.script == kafkaIT {
		t.Log("nothing to run")
		return
	}
	verdicts, said := p.call(t, slices.Concat(script, tests))
	for range maxAgain {
		tests = slices.DeleteFunc(tests, func(test string) bool { return !leaked(verdicts, shortName(test)) })
		if len(tests) == 0 {
			break
		}
		t.Logf("once more, for their threads had not quite ended: %s", tests)
		verdicts = slices.DeleteFunc(verdicts, func(v verdict) bool { return strings.Contains(v.why, threadLeak) })
		again, _ := p.call(t, slices.Concat(script, tests))
		verdicts = append(verdicts, again...)
	}
	if p.own != "" {
		// The exclude file speaks of a broker with one configuration for all.
		verdicts = slices.DeleteFunc(verdicts, func(v verdict) bool { return strings.HasPrefix(v.why, "excluded ") })
	}
	r := judge(p.list, verdicts, list)
	t.Logf("%s: %d passed, %d failed, %d left out, %d excluded, %.0f s",
		p, r.passed, len(r.failed), r.leftOut, r.excluded, time.Since(began).Seconds())
	for _, v := range r.failed {
		t.Errorf("%s %s/%s: %s", v.outcome, p.list, v.test, v.why)
	}
	for _, v := range r.pass {
		t.Errorf("%s/%s passes: take it out of left-out.txt", p.list, v.test)
	}
	if r.passed == 0 && !*onlyLeftOut {
		t.Errorf("nothing passed:\n%s", said)
	}
}

// Apache Kafka's tests end with a look at the threads that are left, without a wait for those that are
// just ending. On a busy machine a consumer's pool is seen now and then, whatever the broker is: the
// suite's exclude file names some tests that this has hit. Such a test runs again, at most maxAgain times.
const (
	threadLeak = "Thread leak detected"
	maxAgain   = 3
)

func leaked(verdicts []verdict, method string) bool {
	return slices.ContainsFunc(verdicts, func(v verdict) bool {
		return v.outcome == "FAIL" && strings.Contains(v.why, threadLeak) && invocation.ReplaceAllString(v.test, "") == method
	})
}

// call runs a script to its end and returns its verdicts, and the last of what it said.
func (p part) call(t *testing.T, command []string) ([]verdict, string) {
	t.Helper()
	var verdicts []verdict // written by one goroutine, and read once that has ended
	program := rig.Launch(t, p.script, command, func(line string) {
		if v, ok := readVerdict(line); ok {
			verdicts = append(verdicts, v)
		}
	})
	// Its exit code says whether all tests passed, by the suite's own reckoning.
	select {
	case <-program.Ended():
	case <-time.After(p.within + time.Minute):
		t.Errorf("%s has not ended within %v", p.script, p.within)
		program.Kill()
	}
	return verdicts, program.Said()
}

// command is the call of the suite's script for this part, and which of Apache Kafka's tests it is to run.
func (p part) command(t *testing.T, list lists) (script, tests []string) {
	t.Helper()
	dir := filepath.Join(rig.Shared(t), "suites")
	logs := os.Getenv("SUITES_RUN")
	if logs == "" {
		logs = t.TempDir()
	}
	file := filepath.Join(dir, p.script)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("no suites/%s in %s: set BARNABAS_SHARED to the folder that has it", p.script, rig.Shared(t))
	}
	script = []string{"env", "SUITES_RUN=" + logs, fmt.Sprintf("SUITES_BUDGET=%.0f", p.within.Seconds())}
	if p.own != "" {
		tests = p.pick(p.ownTests(t), list)
		launcher, err := filepath.Abs("launcher")
		if err != nil {
			t.Fatal(err)
		}
		if rig.System() == "kafka" {
			launcher = filepath.Join(dir, "launchers", "apache-kafka.sh")
		}
		if p.apart {
			script = append(script, "SUITES_APART=1")
		}
		return append(script, "EXT_LAUNCHER="+launcher, "SUITES_BARNABAS="+rig.Binary(t), "EXT_CLASSIC_ONLY=true", file, "-"), tests
	}
	if p.group != "" {
		tests = p.pick(lines(rig.Run(t, nil, "./methods", dir, p.group)), list)
		return append(script, "EXT_CLASSIC_ONLY=true", file, p.startBroker(t)), tests
	}
	address := p.startBroker(t)
	if p.script == "run-kafka-go.sh" {
		// Its program has the broker's address in it, so the next run cannot use this one's.
		t.Cleanup(func() {
			_ = os.RemoveAll(filepath.Join(cache(), "go", "kafka-go-"+strings.ReplaceAll(address, ":", "-")))
		})
	}
	return append(script, "GO_TEST_ARGS="+skipped(p.list, list.leftOut), file, address), nil
}

// skipped are the flags of a Go test that keep it from what is left out.
func skipped(suite string, list []leaveOut) string {
	var patterns []string
	for _, l := range list {
		test, ours := strings.CutPrefix(l.pattern, suite+"/")
		if !ours || *onlyLeftOut {
			continue
		}
		levels := strings.Split(strings.ReplaceAll(regexp.QuoteMeta(test), `\*`, ".*"), "/")
		patterns = append(patterns, "^"+strings.Join(levels, "$/^")+"$")
	}
	if len(patterns) == 0 {
		return ""
	}
	return "-test.skip=" + strings.Join(patterns, "|")
}

// pick takes this part's share of methods, without what is left out.
func (p part) pick(methods []string, list lists) []string {
	var picked []string
	n := 0
	for _, method := range methods {
		name := p.list + "/" + shortName(method)
		if _, out := find(list.leftOut, name); out != *onlyLeftOut || *only != "" && !matches(*only, name) {
			continue
		}
		if n++; n%p.of == p.share%p.of {
			picked = append(picked, method)
		}
	}
	return picked
}

// shortName is the name of a method in verdicts: without its package and its parameters.
func shortName(method string) string {
	name, _, _ := strings.Cut(method, "(")
	class, _, _ := strings.Cut(name, "#")
	return name[strings.LastIndexByte(class, '.')+1:]
}

// startBroker starts a broker with an empty data directory, which ends with the test.
func (p part) startBroker(t *testing.T) (address string) {
	t.Helper()
	text, err := os.ReadFile("broker.properties")
	if err != nil {
		t.Fatal(err)
	}
	settings := append(lines(string(text)), p.also...)
	if rig.System() == "kafka" {
		return p.startKafka(t, settings)
	}
	address = rig.FreeAddress(t)
	home := t.TempDir()
	settings = append(settings, "listeners=PLAINTEXT://"+address, "advertised.listeners=PLAINTEXT://"+address, "log.dirs="+filepath.Join(home, "data"))
	file := filepath.Join(home, "broker.properties")
	if err := os.WriteFile(file, []byte(strings.Join(settings, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	broker := rig.Launch(t, "the broker", []string{rig.Binary(t), "serve", "--config", file}, func(line string) {
		if strings.HasPrefix(line, "ready on ") {
			close(ready)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(broker.Said())
		}
	})
	select {
	case <-ready:
	case <-broker.Ended():
		t.Fatalf("the broker has not started\n%s", broker.Said())
	case <-time.After(readyWithin):
		t.Fatalf("the broker is not ready within %v\n%s", readyWithin, broker.Said())
	}
	return address
}

// startKafka starts an Apache Kafka instead: for its own tests as their launcher does.
func (p part) startKafka(t *testing.T, settings []string) (address string) {
	t.Helper()
	if p.script != kafkaIT {
		return rig.StartKafka(t, settings...).Addr
	}
	home, launcher := t.TempDir(), filepath.Join(rig.Shared(t), "suites", "launchers", "apache-kafka.sh")
	if err := os.WriteFile(filepath.Join(home, "server.properties"), []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rig.Run(t, nil, launcher, "stop", home) })
	_, address, _ = strings.Cut(rig.Run(t, nil, launcher, "start", home, "1"), "BOOTSTRAP=")
	return strings.TrimSpace(address)
}

// ownTests are the tests that want brokers of their own.
func (p part) ownTests(t *testing.T) []string {
	t.Helper()
	tests, err := os.ReadFile(p.own)
	if err != nil {
		t.Fatal(err)
	}
	return lines(string(tests))
}

// cache is where the scripts keep what they have fetched and built.
func cache() string {
	if dir := os.Getenv("SUITES_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(os.Getenv("HOME"), ".cache", "suites")
}
