package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
)

// Port is where every node of a world serves clients.
const Port = "9092"

// Node is one broker with its disk, over all its lives.
type Node struct {
	Name string

	w        *World
	settings map[string]string
	insecure bool
	secret   string            // of the cluster; "" on a node that is one alone
	files    map[string]string // that the disk has before each start, beside the secret
	disk     *disk.Mem
	life     int
	running  *node.Node
	starting *Starting
	logged   logLines
	faults   faults
	clock    clock
}

// Node adds a broker to the world; it does not start it. Settings are written KEY=VALUE, over
// those of a node in a test: node.id 1, its data in /data, and no Kafka default touched.
func (w *World) Node(name string, settings ...string) *Node {
	n := &Node{Name: name, w: w, disk: disk.NewMem(), files: map[string]string{}, settings: map[string]string{
		"node.id": "1", "log.dirs": "/data",
		"listeners":            "PLAINTEXT://127.0.0.1:" + Port,
		"advertised.listeners": "PLAINTEXT://" + name + ":" + Port,
	}}
	n.faults.dice = map[string]*rand.Rand{}
	n.faults.w = w
	n.Set(settings...)
	w.nodes = append(w.nodes, n)
	return n
}

// Set changes settings, KEY=VALUE each, from the next start on. KEY alone takes one away.
func (n *Node) Set(settings ...string) {
	for _, s := range settings {
		if key, value, ok := strings.Cut(s, "="); ok {
			n.settings[key] = value
		} else {
			delete(n.settings, key)
		}
	}
}

// Disk is the node's disk in this life.
func (n *Node) Disk() *disk.Mem { return n.disk }

// Broker is the running node, nil while there is none.
func (n *Node) Broker() *node.Node { return n.running }

// Config is what the settings make.
func (n *Node) Config() (*config.Set, error) {
	var src config.Sources
	for _, key := range slices.Sorted(maps.Keys(n.settings)) {
		src.Flags = append(src.Flags, config.Setting{Key: key, Value: n.settings[key]})
	}
	set, _, err := config.Load(src)
	return set, err
}

// Start begins a life and returns once the node serves clients.
func (n *Node) Start(ctx context.Context) error {
	set, err := n.Config()
	if err != nil {
		return err
	}
	return n.StartOn(ctx, n.w.Net.Host(n.Name), set)
}

// StartOn is Start with a network and a configuration of the caller's.
func (n *Node) StartOn(ctx context.Context, network netx.Network, set *config.Set) error {
	o := n.prepare(network, set)
	running, err := node.Start(ctx, o)
	return n.started(running, err)
}

// prepare begins a life up to where the process would run.
func (n *Node) prepare(network netx.Network, set *config.Set) node.Options {
	n.life++
	n.keepSecret()
	n.disk.SetFault(n.faults.ask)
	n.logged.clear()
	name := fmt.Sprintf("%s/%d", n.Name, n.life)
	return node.Options{
		Config: set, FS: n.disk, Network: network, Logger: slog.New(slog.NewTextHandler(&n.logged, nil)),
		Now: n.clock.now, Random: newRandomBytes(n.w.Dice(name)), Version: "test", Insecure: n.insecure,
	}
}

func (n *Node) started(running *node.Node, err error) error {
	n.w.Trace(n.Name, "start %d: %v", n.life, err == nil)
	if err != nil {
		return err
	}
	n.running = running
	return nil
}

// Starting is a start under way.
type Starting struct {
	abandon context.CancelFunc
	done    chan struct{}
	running *node.Node
	err     error
}

// Done is closed when the start has ended, well or not.
func (s *Starting) Done() <-chan struct{} { return s.done }

// Begin is Start beside the caller, who goes on: Started says when it has ended and how. Until then the node has no
// Broker, but it can be killed, or lose its power, in the middle of its start.
func (n *Node) Begin(ctx context.Context) (*Starting, error) {
	set, err := n.Config()
	if err != nil {
		return nil, err
	}
	ctx, abandon := context.WithCancel(ctx)
	s := &Starting{abandon: abandon, done: make(chan struct{})}
	o := n.prepare(n.w.Net.Host(n.Name), set)
	n.starting = s
	go func() {
		defer close(s.done)
		s.running, s.err = node.Start(ctx, o)
	}()
	return s, nil
}

// Started waits for a start that Begin has begun, if there is one, and says how it ended.
func (n *Node) Started() error {
	s := n.starting
	if s == nil {
		return nil
	}
	<-s.done
	s.abandon()
	n.starting = nil
	return n.started(s.running, s.err)
}

// IsStarting reports whether a start that Begin has begun is still under way.
func (n *Node) IsStarting() bool {
	if n.starting == nil {
		return false
	}
	select {
	case <-n.starting.done:
		return false
	default:
		return true
	}
}

// keepSecret writes the cluster's secret, and what else has to be there, to the disk that the node has now.
func (n *Node) keepSecret() {
	n.disk.SetFault(nil)
	if n.secret != "" {
		n.write(secretFile, n.secret)
	}
	for _, name := range slices.Sorted(maps.Keys(n.files)) {
		n.write(name, n.files[name])
	}
}

func (n *Node) write(name, text string) {
	if kept, err := disk.ReadFile(n.disk, name, int64(len(text))); err == nil && string(kept) == text {
		return // and it may be that there is no room for another
	}
	f, err := n.disk.Open(name, disk.Create)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
		err = errors.Join(err, f.SyncData(), f.Close(), n.disk.SyncDir(path.Dir(name)))
	}
	if err != nil {
		n.w.Errorf("write %s of %s: %v", name, n.Name, err)
	}
}

// MustStart is Start that ends the test where it fails.
func (n *Node) MustStart() {
	n.w.T.Helper()
	if err := n.Start(n.w.T.Context()); err != nil {
		n.w.Fatalf("start %s: %v\n%s", n.Name, err, n.Log())
	}
}

// Stop ends the life cleanly.
func (n *Node) Stop() error {
	if err := n.Started(); err != nil {
		return err
	}
	if n.running == nil {
		return nil
	}
	running := n.running
	n.running = nil
	err := running.Close(context.Background())
	n.w.Trace(n.Name, "stopped: %v", err == nil)
	return err
}

// Kill ends the process as SIGKILL does: the page cache stays, connections are reset.
func (n *Node) Kill() {
	n.w.Net.Kill(n.Name)
	n.disk = n.disk.Kill()
	n.bury("killed")
}

// Crash cuts the power: what was not flushed is lost, torn, or kept, as the seed has it.
func (n *Node) Crash(seed uint64) {
	n.w.Net.Kill(n.Name)
	n.disk = n.disk.Crash(seed)
	n.bury("power cut")
}

// CrashedDisk takes over a disk that somebody else has crashed or killed, in a Fault.
func (n *Node) CrashedDisk(d *disk.Mem) {
	n.w.Net.Kill(n.Name)
	n.disk = d
	n.bury("disk replaced")
}

// bury waits for the goroutines of a process that is gone; whatever they do, its disk and network are dead.
func (n *Node) bury(how string) {
	n.resumeDisk() // what waited for it finds it gone
	if s := n.starting; s != nil {
		s.abandon()
		_ = n.Started() // as it may
	}
	if n.running == nil {
		return
	}
	running := n.running
	n.running = nil
	dead, cancel := context.WithCancel(context.Background())
	cancel() // a dead process takes no leave
	_ = running.Close(dead)
	n.w.Trace(n.Name, "%s", how)
}

// Wipe ends the process as Kill does, and leaves it an empty disk.
func (n *Node) Wipe() {
	n.Kill()
	n.disk = disk.NewMem()
}

// Log is what the node has logged in this life.
func (n *Node) Log() string { return n.logged.text() }

// maxLogged bounds the log of one life that is kept.
const maxLogged = 1 << 20

type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() < maxLogged {
		l.buf.Write(p)
	}
	return len(p), nil
}

func (l *logLines) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func (l *logLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// faults is what a node's disk suffers. Flushes take 1 to 2 ms, unless a rule says otherwise.
type faults struct {
	w  *World
	mu sync.Mutex // never held while waiting
	// dice draw the time of a flush, one for each path, so that flushes of other files do not matter.
	dice map[string]*rand.Rand
	rule disk.Fault
	ops  []disk.Op // seen since Record; nil: not recorded
	on   bool
	// paused is closed when the node goes on; nil while it does.
	paused chan struct{}
}

// Fault puts a rule before every operation of the node's disk, in this life and the next; nil takes it away.
func (n *Node) Fault(rule disk.Fault) {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	n.faults.rule = rule
}

// Record begins to note the disk's operations, and returns those noted since the last call.
func (n *Node) Record() []disk.Op {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	ops := n.faults.ops
	n.faults.ops, n.faults.on = nil, true
	return ops
}

func (f *faults) ask(op disk.Op) error {
	flush := op.Kind == disk.OpSync || op.Kind == disk.OpSyncDir || op.Kind == disk.OpSyncFS
	var latency time.Duration
	f.mu.Lock()
	rule, paused := f.rule, f.paused
	if f.on {
		f.ops = append(f.ops, op)
	}
	if flush {
		name := path.Clean(op.Path)
		dice := f.dice[name]
		if dice == nil {
			dice = f.w.Dice("disk" + name)
			f.dice[name] = dice
		}
		latency = time.Millisecond + time.Duration(dice.Int64N(int64(time.Millisecond)))
	}
	f.mu.Unlock()
	if latency > 0 {
		time.Sleep(latency)
	}
	if paused != nil {
		<-paused
	}
	if rule != nil {
		return rule(op)
	}
	return nil
}

// Setting is what a setting is from the next start on, "" where it has no value of its own.
func (n *Node) Setting(key string) string { return n.settings[key] }
