package clustertest

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	internalPort = "9093"
	secretFile   = "/secret"
)

// Cluster adds brokers that form one quorum, broker1 to brokerN, with what they need to find each other.
// It does not start them. Settings are for all.
func (w *World) Cluster(brokers int, settings ...string) []*Node {
	var voters []string
	for id := range brokers {
		voters = append(voters, fmt.Sprintf("%d@broker%d:%s", id+1, id+1, internalPort))
	}
	var all []*Node
	for id := range brokers {
		n := w.Node(fmt.Sprintf("broker%d", id+1), fmt.Sprintf("node.id=%d", id+1),
			"controller.quorum.voters="+strings.Join(voters, ","), "cluster.secret.file="+secretFile)
		n.secret = "the secret of this world"
		n.Set(settings...)
		all = append(all, n)
	}
	return all
}

// Broker adds one more node to a cluster, brokerN, which has no vote. It does not start it.
func (w *World) Broker(cluster []*Node, settings ...string) *Node {
	id := len(w.nodes) + 1
	n := w.Node(fmt.Sprintf("broker%d", id), fmt.Sprintf("node.id=%d", id), "cluster.secret.file="+secretFile,
		"controller.quorum.voters="+cluster[0].Setting("controller.quorum.voters"),
		"listeners=PLAINTEXT://127.0.0.1:"+Port+",CONTROLLER://:"+internalPort)
	n.secret = cluster[0].secret
	n.Set(settings...)
	return n
}

// SetSecret gives a node another secret than the cluster's, from the next start on.
func (n *Node) SetSecret(secret string) { n.secret = secret }

// StartAll starts nodes side by side, for each waits for the others, and returns once all serve clients.
func (w *World) StartAll(nodes ...*Node) {
	w.T.Helper()
	var starting sync.WaitGroup
	for _, n := range nodes {
		starting.Go(func() {
			if err := n.Start(w.Context()); err != nil {
				w.Errorf("start %s: %v\n%s", n.Name, err, n.Log())
			}
		})
	}
	starting.Wait()
	if w.T.Failed() {
		w.T.FailNow()
	}
}

// Eventually waits in fake time until f holds, and returns how long that took.
func (w *World) Eventually(what string, within time.Duration, f func() bool) time.Duration {
	w.T.Helper()
	began := time.Now()
	dice := w.Dice("eventually " + what)
	for !f() {
		if time.Since(began) > within {
			w.Fatalf("not within %v: %s", within, what)
		}
		Jitter(dice, time.Millisecond)
	}
	return time.Since(began)
}
