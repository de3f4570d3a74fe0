package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	readyWithin = 2 * time.Minute
	stopWithin  = time.Minute
)

// broker is a process and what to start it again with.
type broker struct {
	name    string // "kafka" or "ours"
	addr    string
	dir     string // data
	command func() *exec.Cmd
	members []*broker // of a cluster that is measured as one broker; then what is below stays empty
	copies  int       // of every partition

	cmd  *exec.Cmd
	out  *readyLine
	gone chan struct{}
}

// readyLine notices when our broker says that it serves.
type readyLine struct {
	mu    sync.Mutex
	text  bytes.Buffer
	seen  bool
	ready chan struct{}
}

func (r *readyLine) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.text.Len() < 1<<20 {
		r.text.Write(p)
	}
	if text := r.text.String(); !r.seen && (strings.HasPrefix(text, "ready") || strings.Contains(text, "\nready")) {
		r.seen = true
		close(r.ready)
	}
	return len(p), nil
}

func (r *readyLine) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// bothHave is the one setting that is not the default of either: members of a new group do not wait for each other.
const bothHave = "group.initial.rebalance.delay.ms=0"

func newOurs(o options, dir string, set ...string) *broker {
	b := &broker{name: "ours", addr: fmt.Sprintf("127.0.0.1:%d", o.ourPort), dir: dir, copies: 1}
	b.command = func() *exec.Cmd {
		args := []string{"serve", "--data", dir, "--listen", b.addr}
		for _, s := range append(set, bothHave) {
			args = append(args, "--set", s)
		}
		return exec.Command(o.binary, args...)
	}
	return b
}

// newKafka formats a directory for one combined node with Apache Kafka's defaults.
func newKafka(o options, dir string, set ...string) (*broker, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b := &broker{name: "kafka", addr: fmt.Sprintf("127.0.0.1:%d", o.kafkaPort), dir: filepath.Join(dir, "data"), copies: 1}
	properties := filepath.Join(dir, "server.properties")
	controller := fmt.Sprintf("127.0.0.1:%d", o.kafkaPort+1)
	text := strings.Join([]string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller,
		"listeners=PLAINTEXT://" + b.addr + ",CONTROLLER://" + controller, "advertised.listeners=PLAINTEXT://" + b.addr,
		"controller.listener.names=CONTROLLER", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + b.dir, "offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1", "share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
	}, "\n") + "\n" + strings.Join(append(set, bothHave), "\n") + "\n"
	if err := os.WriteFile(properties, []byte(text), 0o644); err != nil {
		return nil, err
	}
	if err := formatKafka(o, properties); err != nil {
		return nil, err
	}
	b.command = func() *exec.Cmd { return kafkaCommand(properties) }
	return b, nil
}

// formatKafka makes a node's directory the cluster's.
func formatKafka(o options, properties string) error {
	peer := filepath.Join(o.shared, "peers", "kafka")
	if out, err := exec.Command(peer, "install").CombinedOutput(); err != nil {
		return fmt.Errorf("install Apache Kafka: %w\n%s", err, out)
	}
	if out, err := exec.Command(peer, "tool", "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM1Qk", "-c", properties).CombinedOutput(); err != nil {
		return fmt.Errorf("format Apache Kafka's directory: %w\n%s", err, out)
	}
	return nil
}

// kafkaCommand starts a node with the heap and collector of Apache Kafka's own start script.
func kafkaCommand(properties string) *exec.Cmd {
	cache := os.Getenv("PEERS_CACHE")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache", "peers")
	}
	jars := filepath.Join(cache, "kafka-4.3.1", "lib", "*")
	return exec.Command("java", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars, "kafka.Kafka", properties)
}

// launch starts the process and does not wait for it.
func (b *broker) launch() error {
	b.cmd = b.command()
	b.out = &readyLine{ready: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = b.out, b.out
	b.cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "BARNABAS_") }) // not our program's settings
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", b.name, err)
	}
	b.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait()
		close(gone)
	}(b.cmd, b.gone)
	return nil
}

// start launches the process and waits until it takes part in everything.
func (b *broker) start(ctx context.Context) error {
	if len(b.members) > 0 {
		return b.startTeam(ctx)
	}
	if err := b.launch(); err != nil {
		return err
	}
	return b.serving(ctx)
}

// serving waits until a process that was launched takes part in everything.
func (b *broker) serving(ctx context.Context) error {
	if b.name == "ours" {
		return b.awaitLine(ctx)
	}
	cl, err := b.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	return b.until(ctx, "ready", func(ctx context.Context) error { return cl.Ping(ctx) })
}

// awaitLine waits for the line with which our broker says that it serves.
func (b *broker) awaitLine(ctx context.Context) error {
	select {
	case <-b.out.ready:
		return nil
	case <-b.gone:
		return fmt.Errorf("%s ended before it was ready:\n%s", b.name, b.out)
	case <-time.After(readyWithin):
		return fmt.Errorf("%s was not ready within %v:\n%s", b.name, readyWithin, b.out)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *broker) until(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, 2*time.Second)
		err := try(attempt)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-b.gone:
			return fmt.Errorf("%s ended before %s:\n%s", b.name, what, b.out)
		case <-ctx.Done():
			return fmt.Errorf("%s: %s: %w", b.name, what, errors.Join(ctx.Err(), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end sends a signal and waits until the process is gone.
func (b *broker) end(signal syscall.Signal) error {
	if len(b.members) > 0 {
		return b.endTeam(signal)
	}
	if b.cmd == nil {
		return nil
	}
	_ = b.cmd.Process.Signal(signal) // it may be gone already
	select {
	case <-b.gone:
	case <-time.After(stopWithin):
		_ = b.cmd.Process.Kill()
		<-b.gone
		return fmt.Errorf("%s did not end within %v of %v", b.name, stopWithin, signal)
	}
	b.cmd = nil
	return nil
}

// dialable waits until something listens: a lone client's patience in small steps.
func (b *broker) dialable(ctx context.Context) error {
	return b.until(ctx, "listening", func(context.Context) error {
		c, err := net.DialTimeout("tcp", b.addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (b *broker) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(b.addr, ",")...), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
	}, opts...)...)
}

// makeTopic creates a topic and waits until every partition has a leader that answers.
func (b *broker) makeTopic(ctx context.Context, name string, partitions int, configs map[string]string) error {
	cl, err := b.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	set := map[string]*string{"file.delete.delay.ms": new(string)}
	*set["file.delete.delay.ms"] = "1000"
	for k, v := range configs {
		set[k] = &v
	}
	if b.copies > 1 {
		two := "2"
		set["min.insync.replicas"] = &two
	}
	if err := b.until(ctx, "create "+name, func(ctx context.Context) error {
		made, err := adm.CreateTopics(ctx, int32(partitions), int16(b.copies), set, name)
		if err != nil {
			return err
		}
		if err := made[name].Err; err != nil && !strings.Contains(err.Error(), "TOPIC_ALREADY_EXISTS") {
			return fmt.Errorf("%w: %s", err, made[name].ErrMessage)
		}
		return nil
	}); err != nil {
		return err
	}
	return b.until(ctx, "lead "+name, func(ctx context.Context) error {
		ends, err := adm.ListEndOffsets(ctx, name)
		if err == nil {
			err = ends.Error()
		}
		if err == nil && len(ends[name]) < partitions {
			err = fmt.Errorf("%d of %d partitions", len(ends[name]), partitions)
		}
		return err
	})
}

func (b *broker) dropTopic(ctx context.Context, name string) error {
	cl, err := b.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).DeleteTopics(ctx, name)
	return err
}

// cpuSeconds is what the process, or each of a cluster, has used so far: user and system, in ticks of 10 ms.
func (b *broker) cpuSeconds() (all float64) {
	for _, m := range b.members {
		all += m.cpuSeconds()
	}
	if len(b.members) > 0 {
		return all
	}
	if b.cmd == nil { // of a cluster, stopped
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// residentMiB is the memory that the process has in use now.
func (b *broker) residentMiB() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
