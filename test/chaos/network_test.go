//go:build chaos

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// nobody is the end at which the test and its clients are: nodes count from 1.
const nobody = 0

// link is what happens to bytes on their way from one end to another. The zero link is sound.
type link struct {
	cut   bool          // they vanish, and nobody is told
	loss  float64       // the share that vanishes
	delay time.Duration // how much later the others arrive
}

// network connects the nodes of a cluster with one another and with the test.
type network interface {
	// kind says what it is made of, for the log.
	kind() string

	// places returns where a node serves clients and the other nodes, as others reach it.
	places(node int) (clients, internal string)

	// flags are those with which a node serves there.
	flags(node int) []string

	// start starts a process at a node's place.
	start(node int, cmd *exec.Cmd) error

	close()
}

// links are a network's, and may change at any time.
type links struct {
	mu      sync.Mutex
	all     map[[2]int]link
	changed chan struct{} // closed and replaced when any changes
}

func newLinks() *links { return &links{all: map[[2]int]link{}, changed: make(chan struct{})} }

// set changes the way from one end to another, in this direction.
func (l *links) set(from, to int, how link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[[2]int{from, to}] = how
	l.tellLocked()
}

func (l *links) tellLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// open waits until bytes get through in this direction, and says how.
func (l *links) open(from, to int, done <-chan struct{}) (how link, ok bool) {
	for {
		l.mu.Lock()
		how, changed := l.all[[2]int{from, to}], l.changed
		l.mu.Unlock()
		if !how.cut {
			return how, true
		}
		select {
		case <-changed:
		case <-done:
			return how, false
		}
	}
}

func (l *links) get(from, to int) link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[[2]int{from, to}]
}

// heal makes all links sound.
func (l *links) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.all)
	l.tellLocked()
}

// lost throws the dice for one piece.
func (k link) lost() bool { return k.cut || k.loss > 0 && rand.Float64() < k.loss }

// newNetwork makes a network for this many nodes: of namespaces, or where this machine allows none of
// proxies. Nothing of it outlives this process, however that ends. BARNABAS_CHAOS_NETWORK=proxies
// asks for proxies.
func newNetwork(t *testing.T, nodes int, l *links) network {
	t.Helper()
	var made network
	var err error
	if asked := environment("BARNABAS_CHAOS_NETWORK", ""); asked == "proxies" {
		err = fmt.Errorf("BARNABAS_CHAOS_NETWORK=%s", asked)
	} else {
		made, err = newNamespaces(nodes, l)
	}
	if err != nil {
		t.Logf("no network namespaces: %v", err)
		if made, err = newProxies(nodes, l); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(made.close)
	t.Logf("network: %s", made.kind())
	return made
}
