package clustertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"barnabas/internal/certs/certtest"
)

// A cluster of certificates alone forms, copies, loses its leader, and takes a wiped node in again.
func TestClusterWithCertificatesOutlivesItsNodes(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		ca := certtest.NewAuthority("ca")
		w.Certify(ca, nodes...)
		w.StartAll(nodes...)
		voteless := w.Broker(nodes)
		w.Certify(ca, voteless)
		voteless.MustStart()
		c := w.MustDial("client", nodes[0])
		if err := c.PlaceTopic(w.Context(), "t", 1, 1, 2, 3); err != nil {
			w.Fatalf("create t: %v", err)
		}
		if err := c.PlaceTopic(w.Context(), "copied", 1, 1, 4); err != nil {
			w.Fatalf("create copied: %v", err)
		}
		w.mustProduce(c, "copied", 0, strings.Repeat("x", 300_000))
		w.whole(append(nodes, voteless), time.Minute, "copied")
		w.whole(nodes, time.Minute, "t")
		for i := range 3 {
			leader := w.leaderOf(c, "t", 0)
			w.mustProduce(w.MustDial("client", nodes[leader-1]), "t", 0, strings.Repeat(fmt.Sprint(i), 300_000))
			nodes[leader-1].Kill()
			other := nodes[leader%3]
			c = w.MustDial("client", other)
			w.Eventually("another leads", 20*time.Second, func() bool {
				now := w.leaderOf(c, "t", 0)
				return now > 0 && now != leader
			})
			if i == 1 {
				nodes[leader-1].Wipe()
			}
			nodes[leader-1].MustStart()
			w.whole(nodes, time.Minute, "t")
			w.Eventually("who is wiped votes again", 20*time.Second, func() bool {
				q := w.quorum(c)
				return q.ErrorCode == 0 && len(q.CurrentVoters) == 3 && len(q.Observers) == 1
			})
		}
		leader := w.leaderOf(c, "t", 0)
		if got := w.values(w.MustDial("client", nodes[leader-1]), "t", 0); len(got) != 3 {
			w.Errorf("%d records", len(got))
		}
	})
}

// A node whose certificate the others do not believe waits outside, and both sides say why.
func TestNodeWithAStrangersCertificateStaysOutside(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		ca, other := certtest.NewAuthority("ours"), certtest.NewAuthority("theirs")
		w.Certify(ca, nodes[:2]...)
		w.Certify(other, nodes[2])
		nodes[2].SetFile(TruststoreFile, other.PEM()+ca.PEM())
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		if err := nodes[2].Start(ctx); err == nil {
			w.Fatalf("node 3 serves")
		}
		started := make(chan error)
		for _, n := range nodes {
			go func() {
				ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
				defer cancel()
				started <- n.Start(ctx)
			}()
		}
		for range nodes {
			if err := <-started; err == nil {
				w.Errorf("a node serves although one of the three is not believed")
			}
		}
		if log := nodes[0].Log(); !strings.Contains(log, "CN=theirs") || !strings.Contains(log, TruststoreFile) {
			w.Errorf("node 1 does not say whom it does not believe: %s", log)
		}
		if log := nodes[2].Log(); !strings.Contains(log, "does not trust this node's certificate") {
			w.Errorf("node 3 does not say that it is not believed: %s", log)
		}
	})
}

// Certificates are replaced one node after the other, under way, by those of a new authority: first all believe both,
// then all show new ones, then the old is forgotten.
func TestCertificatesAreReplacedWithoutARestart(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		before, after := certtest.NewAuthority("before"), certtest.NewAuthority("after")
		w.Certify(before, nodes...)
		w.StartAll(nodes...)
		c := w.MustDial("client", nodes[0])
		w.mustCreate(c, "t", 1)
		w.whole(nodes, time.Minute, "t")
		steps := []func(*Node){
			func(n *Node) { n.SetFile(TruststoreFile, before.PEM()+after.PEM()) },
			func(n *Node) { n.SetFile(KeystoreFile, after.Keystore(certtest.Node{Hosts: []string{n.Name}})) },
			func(n *Node) { n.SetFile(TruststoreFile, after.PEM()) },
		}
		for i, step := range steps {
			for _, n := range nodes {
				step(n)
			}
			time.Sleep(10 * time.Second)
			w.Net.Isolate(nodes[2].Name) // so that connections are made anew
			time.Sleep(5 * time.Second)
			w.Net.Rejoin(nodes[2].Name)
			w.whole(nodes, time.Minute, "t")
			w.Trace("test", "step %d", i)
		}
		if err := nodes[2].Stop(); err != nil {
			w.Fatalf("stop: %v", err)
		}
		nodes[2].SetFile(KeystoreFile, before.Keystore(certtest.Node{Hosts: []string{nodes[2].Name}}))
		nodes[2].SetFile(TruststoreFile, before.PEM()+after.PEM())
		ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
		defer cancel()
		if err := nodes[2].Start(ctx); err == nil {
			w.Errorf("a node with a certificate of the forgotten authority serves")
		}
	})
}
