package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"time"

	"barnabas/internal/certs"
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
	listener := n.bound.internal
	n.bound.internal = nil // Peers closes it
	o := peer.Options{
		Network: n.o.Network, Listener: listener, Self: peer.Node{ID: n.nodeID, Directory: n.dirs.meta.ID()},
		ClusterID: n.dirs.clusterID, Secret: n.secret, Logger: n.log, Random: n.o.Random,
		FrameMemory: n.o.Config.Int64("request.memory.internal.bytes"),
	}
	if n.certs != nil {
		o.Certificates = n.certs
	}
	var err error
	if n.peers, err = peer.Open(ctx, o); err != nil {
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
		Waiting: func(what string) { n.phase("waiting for a cluster: " + what + n.troubles()) },
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

// openCredentials reads by what this node proves to the others that it is one of them, before anything is made on disk.
func (n *Node) openCredentials() (err error) {
	if n.bound.internal == nil {
		return nil
	}
	if n.secret, err = n.o.secret(); err != nil {
		return err
	}
	settings, err := n.o.Config.InternalTLS()
	if err != nil || settings == nil {
		return err
	}
	n.certs, err = certs.Open(certs.Options{FS: n.o.FS, Settings: *settings, Host: n.bound.reached.Host, Now: n.o.Now, Logger: n.log})
	return err
}

// applyCertificates puts settings of TLS into force that were changed while the node runs.
func (n *Node) applyCertificates(now *config.Set) {
	if n.certs == nil {
		return
	}
	settings, err := now.InternalTLS()
	if err == nil && settings != nil {
		err = n.certs.Use(*settings)
	}
	if err != nil {
		n.log.Warn("settings of TLS cannot be used; the old ones go on", "err", err)
	}
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
	if absent := n.absent(); len(absent) > 0 {
		what += "; no answer from " + strings.Join(absent, ", ") + n.troubles()
	}
	return what
}

// absent are the other voters to which there is no connection.
func (n *Node) absent() (names []string) {
	for _, id := range voterIDs(n.o.Config) {
		if id != n.nodeID && !n.peers.Connected(id) {
			names = append(names, fmt.Sprintf("node %d", id))
		}
	}
	return names
}

// troubles says why voters cannot be spoken to, where they are there and will not have this node, or it will not have
// them.
func (n *Node) troubles() string {
	var all []string
	for _, id := range voterIDs(n.o.Config) {
		if err := n.peers.Trouble(id); peer.IsRefusal(err) {
			all = append(all, fmt.Sprintf("; %v", err))
		}
	}
	return strings.Join(all, "")
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
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the cluster's secret (key cluster.secret.file): %w; make one, once, and copy it to every node: head -c 32 /dev/urandom | base64 > %s", err, path)
	case err != nil:
		return nil, fmt.Errorf("read the cluster's secret (key cluster.secret.file): %w", err)
	}
	secret := bytes.TrimSpace(text)
	if len(secret) < leastSecretBytes {
		return nil, fmt.Errorf("the cluster's secret in %s has %d bytes, at least %d are needed (key cluster.secret.file): head -c 32 /dev/urandom | base64 makes a good one", path, len(secret), leastSecretBytes)
	}
	return secret, nil
}

// phase says what a start is waiting for.
func (n *Node) phase(what string) { n.waiting.Store(&what) }
