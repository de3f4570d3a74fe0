//go:build chaos

package chaos

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

const (
	// faultLasts is how long a node is frozen or cut off.
	faultLasts = 12 * time.Second

	// torturedTopic is the first that is tortured in a cluster.
	torturedTopic = "tortured"
)

// longer says how many times as long the tests about clusters take as they have to:
// BARNABAS_CHAOS_LONGER=2.
func longer(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(environment("BARNABAS_CHAOS_LONGER", "1"))
	if err != nil || n < 1 {
		t.Fatalf("BARNABAS_CHAOS_LONGER: %q is not a number from 1 on", environment("BARNABAS_CHAOS_LONGER", "1"))
	}
	return n
}

var yardstick struct {
	sync.Once
	file string
	err  error
}

// yardstickFile builds the yardstick once, beside the binary under test.
func yardstickFile(t *testing.T) string {
	t.Helper()
	yardstick.Do(func() {
		yardstick.file = filepath.Join(scratch, "yardstick")
		build := exec.Command("go", "build", "-o", yardstick.file, ".")
		build.Dir = filepath.Join(rig.Shared(t), "yardstick")
		if out, err := build.CombinedOutput(); err != nil {
			yardstick.err = fmt.Errorf("build the yardstick: %w\n%s", err, out)
		}
	})
	if yardstick.err != nil {
		t.Fatal(yardstick.err)
	}
	return yardstick.file
}

// torture is the yardstick's, under way.
type torture struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr strings.Builder
	ended          chan struct{}
}

// tortureBegins starts to write to a new topic, and to read it, for a while.
func tortureBegins(t *testing.T, topic string, lasts time.Duration, args ...string) *torture {
	t.Helper()
	r := &torture{t: t, ended: make(chan struct{})}
	all := append([]string{"torture", "-t", topic, "-p", "6", "-d", lasts.String()}, args...)
	r.cmd = exec.Command(yardstickFile(t), all...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // its exit code is read from ProcessState
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

// hasEnded says whether nobody writes and reads any more.
func (r *torture) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// verdict waits for the end: nothing lost, doubled, reordered, seen and gone, or given up. It returns
// the longest time that any partition acknowledged nothing.
func (r *torture) verdict() (gap time.Duration) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(8 * time.Minute):
		r.t.Fatal("torture does not end")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		r.t.Fatalf("torture: %v\n%s%s", r.cmd.ProcessState, r.stdout.String(), r.stderr.String())
	}
	var figures map[string]any
	if err := json.Unmarshal([]byte(r.stdout.String()), &figures); err != nil {
		r.t.Fatalf("torture printed %q: %v", r.stdout.String(), err)
	}
	for _, sin := range []string{"lost", "duplicated", "reordered", "phantom", "skipped", "rewound", "ahead", "data_loss", "failed"} {
		if n, ok := figures[sin].(float64); !ok || n != 0 {
			r.t.Errorf("%s: %v", sin, figures[sin])
		}
	}
	r.t.Log(strings.TrimSpace(r.stdout.String()))
	seconds, _ := figures["longest_gap_s"].(float64)
	return time.Duration(seconds * float64(time.Second))
}

// mostTries bounds how often faults are brought again, with writing that lasts twice as long as before.
const mostTries = 4

// clusterTortured has three nodes written to and read from while faults come. They have lasts to come and go: where
// the machine is so slow that the writing is over before they are, all of it is done again with more time.
func clusterTortured(t *testing.T, lasts time.Duration, faults func(c *cluster)) {
	t.Helper()
	c := newCluster(t, 3, nil)
	for try := 1; ; try, lasts = try+1, 2*lasts {
		topic := torturedTopic
		if try > 1 {
			topic += fmt.Sprint("-", try)
		}
		writing := tortureBegins(t, topic, lasts, "-b", c.addresses(), "-r", "3", "-min-isr", "2")
		c.awaitTopic(topic)
		pause(t, 2*time.Second)
		faults(c)
		over := writing.hasEnded()
		gap := writing.verdict()
		c.awaitInSync(patience)
		t.Logf("%s: longest gap %v", t.Name(), gap)
		c.logHistory()
		if !over {
			return
		}
		if try == mostTries {
			t.Fatalf("the writing was over before the faults, though it lasted %v", lasts)
		}
		t.Logf("the writing was over before the faults: once more, with %v", 2*lasts)
	}
}

// TestClusterTortureKill kills each node with -9 in turn and revives it, one every ten seconds, each
// time from full ISR.
func TestClusterTortureKill(t *testing.T) {
	rng := seeded(t)
	rounds := 3 * longer(t)
	clusterTortured(t, time.Duration(rounds)*10*time.Second+5*time.Second, func(c *cluster) {
		first := rng.IntN(3)
		for round := range rounds {
			began := time.Now()
			id := (first+round)%3 + 1
			c.note("the controller is %d", c.controller())
			c.kill(id)
			pause(t, time.Duration(rng.Int64N(int64(3*time.Second)))) // at once, too
			c.start(id)
			c.awaitReady(c.node(id))
			c.awaitInSync(patience)
			if rest := 10*time.Second - time.Since(began); rest > 0 && round < rounds-1 {
				pause(t, rest)
			}
		}
	})
}

// TestClusterTortureFreeze stops processes for twelve seconds, the controller's first.
func TestClusterTortureFreeze(t *testing.T) {
	t.Parallel()
	eachForAWhile(t, func(c *cluster, id int) { c.freeze(id) }, func(c *cluster, id int) { c.thaw(id) })
}

// TestClusterTortureCut cuts nodes off for twelve seconds, from clients too, the controller first.
func TestClusterTortureCut(t *testing.T) {
	t.Parallel()
	eachForAWhile(t, func(c *cluster, id int) { c.cutOff(id, true) }, func(c *cluster, _ int) { c.healAll() })
}

func eachForAWhile(t *testing.T, fault, cure func(c *cluster, id int)) {
	t.Helper()
	rounds := longer(t)
	clusterTortured(t, time.Duration(rounds)*(faultLasts+5*time.Second)+6*time.Second, func(c *cluster) {
		for round := range rounds {
			id := c.controller()
			if round%2 == 1 {
				id = id%3 + 1 // leads a third of the partitions
			}
			c.note("the controller is %d, leader of tortured-0 %d", c.controller(), c.leaderOf(torturedTopic, 0))
			fault(c, id)
			pause(t, faultLasts)
			cure(c, id)
			c.awaitInSync(patience)
		}
	})
}

// TestClusterTortureRestart stops each node in turn, cleanly, and starts it again.
func TestClusterTortureRestart(t *testing.T) {
	rounds := 3 * longer(t)
	clusterTortured(t, time.Duration(rounds)*3*time.Second+4*time.Second, func(c *cluster) {
		for round := range rounds {
			id := round%3 + 1
			c.note("the controller is %d", c.controller())
			c.stop(id)
			c.start(id)
			c.awaitReady(c.node(id))
			c.awaitInSync(patience)
			pause(t, time.Second)
		}
	})
}

// TestClusterTortureWipe takes away all that a node has stored: it comes back into every ISR. In turn,
// where there is time, each node; the controller first.
func TestClusterTortureWipe(t *testing.T) {
	rounds := longer(t)
	clusterTortured(t, time.Duration(rounds)*8*time.Second+5*time.Second, func(c *cluster) {
		for range rounds {
			id := c.controller()
			c.kill(id)
			c.wipe(id)
			c.start(id)
			c.awaitReady(c.node(id))
			took := c.awaitInSync(patience)
			t.Logf("node %d, wiped, is in every ISR %v after it was ready", id, took)
			pause(t, time.Second)
		}
	})
}

// awaitTopic waits until every partition of a topic has a leader.
func (c *cluster) awaitTopic(name string) {
	c.t.Helper()
	rig.Eventually(c.t, patience, "topic "+name+" is there", func() bool {
		res, err := c.metadata(c.t.Context(), c.nodes[0])
		if err != nil {
			return false
		}
		for _, topic := range res.Topics {
			if *topic.Topic == name {
				for _, p := range topic.Partitions {
					if p.Leader < 0 {
						return false
					}
				}
				return true
			}
		}
		return false
	})
}
