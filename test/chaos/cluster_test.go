//go:build chaos

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/test/compat/rig"
)

func environment(name, otherwise string) string {
	if s := os.Getenv(name); s != "" {
		return s
	}
	return otherwise
}

// member is one node of a cluster: a process of our binary, and its data.
type member struct {
	id      int
	address string // for clients
	data    string
	log     *nodeLog
	ask     *kgo.Client // asks this node and no other

	cmd  *exec.Cmd // nil while it does not run
	gone chan struct{}
}

// cluster is several nodes on a network with faults. Its methods are for one goroutine at a time, but
// for those that only ask.
type cluster struct {
	*links
	t     *testing.T
	net   network
	nodes []*member // by number - 1
	flags []string
	began time.Time

	told struct {
		sync.Mutex
		events []event
	}
}

// newCluster starts a cluster and waits until all of it is there. dirs has nodes' data directories where
// they have to be somewhere special. The nodes' logs, with everything that was done to them, go to the
// test's artifacts (go test -artifacts keeps them), and their ends to its output where it fails.
func newCluster(t *testing.T, nodes int, dirs map[int]string) *cluster {
	t.Helper()
	if rig.System() != "barnabas" {
		t.Fatal("these tests start our binary: unset BARNABAS_TEST_SYSTEM")
	}
	logs := t.ArtifactDir()
	c := &cluster{links: newLinks(), t: t, began: time.Now()}
	home := t.TempDir()
	c.net = newNetwork(t, nodes, c.links)
	secret := filepath.Join(home, "secret")
	if err := os.WriteFile(secret, []byte("what the nodes of this cluster share\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var voters []string
	for id := 1; id <= nodes; id++ {
		clients, internal := c.net.places(id)
		voters = append(voters, fmt.Sprintf("%d@%s", id, internal))
		m := &member{id: id, address: clients, data: filepath.Join(home, fmt.Sprint("node", id))}
		if dir, ok := dirs[id]; ok {
			m.data = dir
		}
		m.log = newNodeLog(t, filepath.Join(logs, fmt.Sprintf("node%d.log", id)))
		m.ask = client(t, clients, kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
		c.nodes = append(c.nodes, m)
	}
	c.flags = []string{"--voters", strings.Join(voters, ","), "--secret-file", secret, "--insecure", "--log-level", environment("BARNABAS_CHAOS_LOG_LEVEL", "info")}
	t.Cleanup(c.end)
	for _, m := range c.nodes {
		c.launch(m)
	}
	for _, m := range c.nodes {
		c.awaitReady(m)
	}
	c.awaitInSync(patience)
	return c
}

// end kills what runs, and tells what the nodes said where the test has failed.
func (c *cluster) end() {
	for _, m := range c.nodes {
		if m.cmd != nil {
			_ = m.cmd.Process.Kill()
			<-m.gone
		}
	}
	if !c.t.Failed() {
		return
	}
	c.logHistory()
	for _, m := range c.nodes {
		c.t.Logf("node %d said last:\n%s", m.id, m.log.tail(40))
	}
}

// event is one line of a cluster's history.
type event struct {
	at    time.Time
	line  string
	wrong bool
}

// What is logged of the history before all of it: what stands so close to what went wrong.
const (
	beforeWrong = 6 * time.Second
	behindWrong = time.Second
)

// note writes down what is done to the cluster, in the nodes' logs too. Any goroutine may call it.
func (c *cluster) note(format string, args ...any) { c.write(false, fmt.Sprintf(format, args...)) }

// wrong is t.Errorf, and a note.
func (c *cluster) wrong(format string, args ...any) {
	c.t.Helper()
	what := fmt.Sprintf(format, args...)
	c.write(true, "WRONG: "+what)
	c.t.Error(what)
}

func (c *cluster) write(wrong bool, what string) {
	now := time.Now()
	line := fmt.Sprintf("%s (at %.1f s) %s", now.UTC().Format("15:04:05.000"), now.Sub(c.began).Seconds(), what)
	c.told.Lock()
	c.told.events = append(c.told.events, event{now, line, wrong})
	c.told.Unlock()
	for _, m := range c.nodes {
		m.log.write("--- " + line + "\n")
	}
}

// logHistory logs all that was noted, and first what was done around that which went wrong.
func (c *cluster) logHistory() {
	c.t.Helper()
	c.told.Lock()
	defer c.told.Unlock()
	var around, all strings.Builder
	for _, e := range c.told.events {
		fmt.Fprintln(&all, e.line)
		if slices.ContainsFunc(c.told.events, func(w event) bool {
			return w.wrong && !e.at.Before(w.at.Add(-beforeWrong)) && !e.at.After(w.at.Add(behindWrong))
		}) {
			fmt.Fprintln(&around, e.line)
		}
	}
	if around.Len() > 0 {
		c.t.Logf("around what went wrong:\n%s", around.String())
	}
	c.t.Logf("what was done:\n%s", all.String())
}

func (c *cluster) node(id int) *member { return c.nodes[id-1] }

// addresses are all nodes', for clients.
func (c *cluster) addresses() string {
	var all []string
	for _, m := range c.nodes {
		all = append(all, m.address)
	}
	return strings.Join(all, ",")
}

func (c *cluster) launch(m *member) {
	c.t.Helper()
	if m.cmd != nil {
		c.t.Fatalf("node %d runs already", m.id)
	}
	args := append([]string{"serve", "--node-id", fmt.Sprint(m.id), "--data", m.data}, c.net.flags(m.id)...)
	cmd := exec.Command(rig.Binary(c.t), append(args, c.flags...)...)
	cmd.Env = rig.Environment()
	cmd.Stdout, cmd.Stderr = m.log, m.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.log.expectReady()
	if err := c.net.start(m.id, cmd); err != nil {
		c.t.Fatalf("start node %d: %v", m.id, err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its exit code is read from ProcessState
		close(gone)
	}()
	m.cmd, m.gone = cmd, gone
}

func (c *cluster) awaitReady(m *member) {
	c.t.Helper()
	select {
	case <-m.log.isReady():
	case <-m.gone:
		c.t.Fatalf("node %d ended before it was ready: %v", m.id, m.cmd.ProcessState)
	case <-time.After(patience):
		c.t.Fatalf("node %d was not ready within %v", m.id, patience)
	}
}

// start starts a node on what data it has, without waiting for anything.
func (c *cluster) start(id int) {
	c.t.Helper()
	c.note("start %d", id)
	c.launch(c.node(id))
}

// kill ends a process with SIGKILL.
func (c *cluster) kill(id int) {
	c.t.Helper()
	c.note("kill -9 %d", id)
	c.finish(c.node(id), syscall.SIGKILL)
}

// stop ends a process with SIGTERM: it has to end well.
func (c *cluster) stop(id int) {
	c.t.Helper()
	c.note("stop %d", id)
	if code := c.finish(c.node(id), syscall.SIGTERM); code != 0 {
		c.t.Errorf("node %d: exit code %d after SIGTERM", id, code)
	}
}

func (c *cluster) finish(m *member, with syscall.Signal) (code int) {
	c.t.Helper()
	if m.cmd == nil {
		c.t.Fatalf("node %d does not run", m.id)
	}
	c.signal(m, with)
	select {
	case <-m.gone:
	case <-time.After(patience):
		c.t.Fatalf("node %d did not end within %v of %v", m.id, patience, with)
	}
	code = m.cmd.ProcessState.ExitCode()
	m.cmd = nil
	return code
}

func (c *cluster) signal(m *member, s syscall.Signal) {
	c.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.t.Fatalf("send %v to node %d: %v", s, m.id, err)
	}
}

// freeze stops a process where it stands, and thaw lets it go on.
func (c *cluster) freeze(id int) {
	c.t.Helper()
	c.note("freeze %d", id)
	c.signal(c.node(id), syscall.SIGSTOP)
}

func (c *cluster) thaw(id int) {
	c.t.Helper()
	c.note("thaw %d", id)
	c.signal(c.node(id), syscall.SIGCONT)
}

// wipe removes what a node that does not run has stored.
func (c *cluster) wipe(id int) {
	c.t.Helper()
	m := c.node(id)
	if m.cmd != nil {
		c.t.Fatalf("node %d runs", id)
	}
	c.note("wipe %d", id)
	if err := os.RemoveAll(m.data); err != nil {
		c.t.Fatal(err)
	}
}

// others are all nodes but one, and the test's end if that counts too.
func (c *cluster) others(id int, clientsToo bool) (ends []int) {
	if clientsToo {
		ends = append(ends, nobody)
	}
	for _, m := range c.nodes {
		if m.id != id {
			ends = append(ends, m.id)
		}
	}
	return ends
}

// cutOff parts a node from all others, and from clients or not.
func (c *cluster) cutOff(id int, clientsToo bool) {
	c.note("cut off %d, clients too: %v", id, clientsToo)
	for _, other := range c.others(id, clientsToo) {
		c.set(id, other, link{cut: true})
		c.set(other, id, link{cut: true})
	}
}

// cutOneWay lets nothing through to a node, or nothing from it, but from and to clients.
func (c *cluster) cutOneWay(id int, inbound bool) {
	c.note("cut one way %d, inbound: %v", id, inbound)
	for _, other := range c.others(id, false) {
		if inbound {
			c.set(other, id, link{cut: true})
		} else {
			c.set(id, other, link{cut: true})
		}
	}
}

// worsen makes all links of a node bad in both directions.
func (c *cluster) worsen(id int, how link) {
	c.note("links of %d: loss %.0f%%, delay %v", id, how.loss*100, how.delay)
	for _, other := range c.others(id, true) {
		c.set(id, other, how)
		c.set(other, id, how)
	}
}

func (c *cluster) healAll() {
	c.note("heal")
	c.heal()
}

// metadata is what one node believes.
func (c *cluster) metadata(ctx context.Context, m *member) (*kmsg.MetadataResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	res, err := m.ask.Broker(m.id).Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("ask node %d for metadata: %w", m.id, err)
	}
	return res.(*kmsg.MetadataResponse), nil
}

// unsound says what is not as it should be in a node's eyes; "" is a cluster in which every replica
// that there is is in sync.
func (c *cluster) unsound(ctx context.Context, m *member) string {
	res, err := c.metadata(ctx, m)
	if err != nil {
		return err.Error()
	}
	if len(res.Brokers) != len(c.nodes) {
		return fmt.Sprintf("node %d sees %d brokers", m.id, len(res.Brokers))
	}
	for _, topic := range res.Topics {
		for _, p := range topic.Partitions {
			if p.Leader < 0 || len(p.ISR) != len(p.Replicas) || len(p.OfflineReplicas) > 0 {
				return fmt.Sprintf("node %d sees %s-%d led by %d in epoch %d, replicas %v, in sync %v, offline %v",
					m.id, *topic.Topic, p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, p.OfflineReplicas)
			}
		}
	}
	return ""
}

// awaitInSync waits until every node says that all are there and all replicas in sync, and returns how
// long that took.
func (c *cluster) awaitInSync(within time.Duration) (took time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	began := time.Now()
	for what := "nobody was asked"; ; {
		unsound := ""
		for _, m := range c.nodes {
			if unsound = c.unsound(ctx, m); unsound != "" {
				break
			}
		}
		if unsound == "" {
			took = time.Since(began)
			c.note("all in sync after %.1f s", took.Seconds())
			return took
		}
		if ctx.Err() == nil {
			what = unsound
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			c.t.Fatalf("not all in sync within %v: %s", within, what)
		}
	}
}

// controller is the node that leads the quorum, as one that runs says.
func (c *cluster) controller() int {
	c.t.Helper()
	leader := 0
	rig.Eventually(c.t, patience, "some node knows who the controller is", func() bool {
		for _, m := range c.nodes {
			if m.cmd == nil {
				continue
			}
			if leader = c.controllerFor(m); leader > 0 {
				return true
			}
		}
		return false
	})
	return leader
}

func (c *cluster) controllerFor(m *member) int {
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
	defer cancel()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic, partition := kmsg.NewDescribeQuorumRequestTopic(), kmsg.NewDescribeQuorumRequestTopicPartition()
	topic.Topic, topic.Partitions = "__cluster_metadata", append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	res, err := m.ask.Broker(m.id).Request(ctx, req)
	if err != nil {
		return 0
	}
	answer := res.(*kmsg.DescribeQuorumResponse)
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 || answer.Topics[0].Partitions[0].ErrorCode != 0 {
		return 0
	}
	return int(answer.Topics[0].Partitions[0].LeaderID)
}

// leaderOf is who leads a partition, in the eyes of a node that runs.
func (c *cluster) leaderOf(topic string, partition int32) int {
	c.t.Helper()
	leader := 0
	rig.Eventually(c.t, patience, "a partition has a leader", func() bool {
		for _, m := range c.nodes {
			if m.cmd == nil {
				continue
			}
			res, err := c.metadata(c.t.Context(), m)
			if err != nil {
				continue
			}
			for _, t := range res.Topics {
				for _, p := range t.Partitions {
					if *t.Topic == topic && p.Partition == partition && p.Leader > 0 {
						leader = int(p.Leader)
						return true
					}
				}
			}
		}
		return false
	})
	return leader
}

// nodeLog is what all processes of a node said, in a file, and whether the latest has said that it is ready.
type nodeLog struct {
	mu    sync.Mutex
	file  *os.File
	line  []byte // the latest, not yet whole
	ready chan struct{}
	seen  bool
}

func newNodeLog(t *testing.T, name string) *nodeLog {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &nodeLog{file: f, ready: make(chan struct{})}
}

func (l *nodeLog) expectReady() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready, l.seen, l.line = make(chan struct{}), false, nil
}

func (l *nodeLog) isReady() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

func (l *nodeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := p; !l.seen && len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		l.line, rest = append(l.line, line...), after
		if !whole {
			break
		}
		if bytes.HasPrefix(l.line, []byte("ready")) {
			l.seen = true
			close(l.ready)
		}
		l.line = l.line[:0]
	}
	return l.file.Write(p)
}

func (l *nodeLog) write(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.file.WriteString(line)
}

// tail returns the last lines.
func (l *nodeLog) tail(lines int) string {
	text, err := os.ReadFile(l.file.Name())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
