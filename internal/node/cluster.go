package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/peer"
	"barnabas/internal/quorum"
)

const (
	// leastSecretBytes keeps the secret out of reach of guessing: who overhears a handshake can try guesses.
	leastSecretBytes = 16
	mostSecretBytes  = 4 << 10
	// lookAgain is how often a node that waits for the others looks who is missing.
	lookAgain = time.Second
)

// joinCluster opens the internal listener and finds out which cluster this node belongs to, which may
// take until the others are there. A node that is its quorum alone needs none of that.
func (n *Node) joinCluster(ctx context.Context) error {
	if n.bound.internal == nil {
		return nil
	}
	secret, err := n.o.secret()
	if err != nil {
		return err
	}
	listener := n.bound.internal
	n.bound.internal = nil // Peers closes it
	n.peers, err = peer.Open(ctx, peer.Options{
		Network: n.o.Network, Listener: listener, Self: peer.Node{ID: n.nodeID, Directory: n.dirs.meta.ID()},
		ClusterID: n.dirs.clusterID, Secret: secret, Logger: n.log, Random: n.o.Random,
		FrameMemory: n.o.Config.Int64("request.memory.internal.bytes"),
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	for _, v := range n.o.Config.Voters() {
		n.peers.SetAddress(v.ID, net.JoinHostPort(v.Host, strconv.Itoa(v.Port)))
	}
	seed, err := n.seed()
	if err != nil {
		return err
	}
	n.formed, err = quorum.Form(ctx, quorum.FormationOptions{
		FS: n.o.FS, Dir: n.dirs.meta, NodeID: n.nodeID, Voters: voterIDs(n.o.Config), ClusterID: n.dirs.clusterID,
		Transport: n.peers, Logger: n.log, Now: n.o.Now, Random: n.o.Random, Seed: seed,
		Waiting: func(what string) { n.phase("waiting for a cluster: " + what) },
	})
	if err != nil {
		return err
	}
	n.dirs.clusterID = n.formed.ClusterID
	if !n.formed.Blank {
		if err := n.dirs.setClusterID(); err != nil {
			return err
		}
	}
	n.peers.SetClusterID(n.formed.ClusterID)
	return nil
}

// awaitMetadata waits, on a node whose disk was empty, until it has the cluster's metadata. Only then do
// its directories belong to the cluster: before, it begins anew at every start.
func (n *Node) awaitMetadata(ctx context.Context) error {
	if !n.formed.Blank {
		return nil
	}
	told := ""
	for {
		if what := n.missing(); what != told {
			told = what
			n.log.Info(what)
			n.phase(what)
		}
		look := time.NewTimer(lookAgain)
		select {
		case <-look.C:
			continue
		case <-n.quorum.Joined():
			look.Stop()
			return n.dirs.setClusterID()
		case <-n.failure.done:
			look.Stop()
			return n.failure.cause
		case <-ctx.Done():
			look.Stop()
			return fmt.Errorf("%s: %w", told, context.Cause(ctx))
		}
	}
}

// missing says whom a node waits for that takes over the cluster's metadata.
func (n *Node) missing() string {
	what := fmt.Sprintf("waiting for the metadata of cluster %s from its leader", n.formed.ClusterID)
	if leader := n.quorum.Status().Leader; leader >= 0 {
		what = fmt.Sprintf("waiting for the metadata of cluster %s from its leader, node %d", n.formed.ClusterID, leader)
	}
	var absent []string
	for _, id := range voterIDs(n.o.Config) {
		if id != n.nodeID && !n.peers.Connected(id) {
			absent = append(absent, fmt.Sprintf("node %d", id))
		}
	}
	if len(absent) > 0 {
		what += "; no answer from " + strings.Join(absent, ", ")
	}
	return what
}

func voterIDs(c *config.Set) (ids []int32) {
	for _, v := range c.Voters() {
		ids = append(ids, v.ID)
	}
	return ids
}

// secret reads what the cluster's nodes prove to each other; nil where there is none to be had.
func (o *Options) secret() ([]byte, error) {
	path := o.Config.String("cluster.secret.file")
	if path == "" {
		return nil, nil
	}
	text, err := disk.ReadFile(o.FS, path, mostSecretBytes)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's secret (key cluster.secret.file): %w", err)
	}
	secret := bytes.TrimSpace(text)
	if len(secret) < leastSecretBytes {
		return nil, fmt.Errorf("the cluster's secret in %s has %d bytes, at least %d are needed (key cluster.secret.file)", path, len(secret), leastSecretBytes)
	}
	return secret, nil
}

// phase says what a start is waiting for.
func (n *Node) phase(what string) { n.waiting.Store(&what) }
