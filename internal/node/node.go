package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/api"
	"barnabas/internal/certs"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/controller"
	"barnabas/internal/coordinator"
	"barnabas/internal/lifecycle"
	"barnabas/internal/metadata"
	"barnabas/internal/metrics"
	"barnabas/internal/peer"
	"barnabas/internal/quorum"
	"barnabas/internal/replica"
	"barnabas/internal/server"
	"barnabas/internal/uuid"
)

// Node is a running broker.
type Node struct {
	o      *Options
	log    *slog.Logger
	nodeID int32

	metrics     *metrics.Registry
	incarnation metadata.UUID
	replicas    *replica.Manager
	dirs        *dirs
	secret      []byte       // of the cluster; nil: without one
	certs       *certs.Store // of the internal listener; nil: it speaks in the clear
	peers       *peer.Peers  // nil: this node is its quorum alone
	formed      quorum.Formation
	controller  *controller.Controller
	router      *controller.Router // to the controller, wherever it is
	coordinator *coordinator.Coordinator
	leads       chan struct{} // has a value once the quorum has a leader
	quorum      *quorum.Quorum
	member      atomic.Bool // quorum is set
	bound       *boundNetwork
	server      atomic.Pointer[server.Server]
	admin       *server.Admin

	broker atomic.Pointer[lifecycle.Broker] // this process as the controller knows it
	dice   *jitter                          // spreads what this node does of its own
	places *lifecycle.Places                // in which directories its replicas lie
	placed atomic.Pointer[metadata.Image]   // the newest that the replicas have followed
	lost   atomic.Int64                     // data directories that have failed

	ready   chan struct{}          // closed when clients are served
	waiting atomic.Pointer[string] // what the start waits for, where that may take long

	// abandon ends a start under way: what it waits for will not come once the node has failed.
	abandon context.CancelCauseFunc
	failure struct { // the first error after which the node cannot go on
		sync.Once
		cause error
		done  chan struct{}
	}
}

// Start builds a node and returns once it serves clients. ctx bounds the start alone: Close stops
// the node. Errors name what was being done, and the setting at fault where there is one.
func Start(ctx context.Context, o Options) (*Node, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n := &Node{o: &o, log: o.Logger, nodeID: int32(o.Config.Int("node.id")), metrics: metrics.New(), ready: make(chan struct{})}
	n.failure.done = make(chan struct{})
	starting, abandon := context.WithCancelCause(ctx)
	defer abandon(nil)
	n.abandon = abandon
	if err := n.start(starting); err != nil {
		return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	close(n.ready)
	return n, nil
}

// start goes up the levels. What it has built when it fails, Close takes down.
func (n *Node) start(ctx context.Context) (err error) {
	if n.incarnation, err = uuid.New(n.o.Random); err != nil {
		return fmt.Errorf("draw this process's id: %w", err)
	}
	// The addresses first: a port in use is the commonest mistake, and should cost no recovery.
	if n.bound, err = bind(ctx, n.o); err != nil {
		return err
	}
	if err = n.openCredentials(); err != nil {
		return err
	}
	if err = n.startAdmin(ctx); err != nil {
		return err
	}
	n.checkDescriptors()
	seed, err := n.seed()
	if err != nil {
		return err
	}
	n.replicas = replica.NewManager(replica.Options{
		NodeID: n.nodeID, Incarnation: n.incarnation, Config: n.o.Config, Logger: n.log, Cluster: n.replication(seed),
	})
	if n.dirs, err = openDirs(ctx, n.o, n, func() { n.lost.Add(1) }); err != nil {
		return err
	}
	if n.lost.Load() >= int64(len(n.o.Config.LogDirs())) {
		return errors.New("every data directory has failed")
	}
	if path, found := n.dirs.metadataElsewhere(); found {
		return fmt.Errorf("the metadata log is in %s, not in %s: say so with the key metadata.log.dir, or put %s first in log.dirs",
			path, n.dirs.meta.Path(), path)
	}
	if n.admin != nil {
		n.registerCleaner()
	}
	n.replicas.Use(n.dirs.data, n.dirs.leftOut...)
	if err = n.joinCluster(ctx); err != nil {
		return err
	}
	if err = n.startMetadata(ctx); err != nil {
		return err
	}
	if err = n.awaitMetadata(ctx); err != nil {
		return err
	}
	if err = n.register(ctx); err != nil {
		return err
	}
	if err = n.serve(ctx); err != nil {
		return err
	}
	n.applySettings()
	n.phase("waiting for the controller to let this broker take part")
	return n.broker.Load().Serve(ctx)
}

// startMetadata starts the controller and the quorum that carries its records.
func (n *Node) startMetadata(ctx context.Context) (err error) {
	seed, err := n.seed()
	if err != nil {
		return err
	}
	n.leads = make(chan struct{}, 1)
	n.coordinator = coordinator.New(context.WithoutCancel(ctx), coordinator.Options{
		NodeID: n.nodeID, Replicas: n.replicas, Config: n.o.Config, Logger: n.log, Now: n.o.Now, Random: n.o.Random, Metrics: n.metrics,
	})
	n.router = n.newRouter(seed)
	n.newBroker(seed)
	n.controller = controller.New(context.WithoutCancel(ctx), controller.Options{
		NodeID: n.nodeID, ClusterID: n.dirs.clusterID, Config: n.o.Config, Logger: n.log,
		Publishers: []metadata.Publisher{&addressBook{n, map[int32]bool{}}, n.replicas, n.coordinator, settingsFollower{n}, n.router, placesFollower{n}, n.broker.Load()}, Rand: n.o.Random,
	})
	n.router.Use(n.controller)
	n.newPlaces()
	o := quorum.Options{
		FS: n.o.FS, Dir: n.dirs.meta, Log: metadataLogConfig(n.o.Config), NodeID: n.nodeID,
		Machine: watched{n.controller, n.router, n.leads, n.peers != nil, n.speakUp}, Logger: n.log, Now: n.o.Now, Seed: seed, Fatal: n.fail,
		SnapshotBytes:    n.o.Config.Int64("metadata.log.max.record.bytes.between.snapshots"),
		SnapshotInterval: n.o.Config.Millis("metadata.log.max.snapshot.interval.ms"),
	}
	if n.peers != nil {
		o.Transport, o.ClusterID, o.Expected = n.peers, n.formed.ClusterID, voterIDs(n.o.Config)
		o.Blank, o.Admission = n.formed.Blank, n.formed.Admission
	}
	if n.quorum, err = quorum.Open(ctx, o); err != nil {
		return err
	}
	n.member.Store(true)
	n.controller.Start(n.quorum)
	n.serveReplicas()
	n.observePeers()
	return nil
}

// newRouter finds the controller among the nodes; alone, it is here.
func (n *Node) newRouter(seed uint64) *controller.Router {
	if n.peers == nil {
		return controller.NewRouter(n.nodeID, nil, seed)
	}
	r := controller.NewRouter(n.nodeID, n.peers, seed)
	r.LimitMemory(n.o.Config.Int64("request.memory.internal.bytes"))
	return r
}

// metadataReserveBytes is kept on the disk for the metadata log alone, so that a disk filled by
// partitions still takes the changes (deleting a topic, shortening its retention) that help.
const metadataReserveBytes = 4 << 20

// mostMetadataSegmentBytes bounds what is preallocated: a segment's whole size.
const mostMetadataSegmentBytes = 64 << 20

func metadataLogConfig(c *config.Set) commitlog.Config {
	l := commitlog.DefaultConfig()
	l.SegmentBytes = int32(min(c.Int("metadata.log.segment.bytes"), mostMetadataSegmentBytes))
	l.SegmentMs = c.Int64("metadata.log.segment.ms")
	l.Delete = false // snapshots cut it
	l.MaxMessageBytes = l.SegmentBytes
	l.Preallocate, l.ReserveBytes = true, metadataReserveBytes
	return l
}

// serve lets clients in.
func (n *Node) serve(ctx context.Context) (err error) {
	seed, err := n.seed()
	if err != nil {
		return err
	}
	handler := api.New(api.Options{
		NodeID: n.nodeID, Images: n.controller, Replicas: n.replicas, Controller: n.router, Quorum: n.quorum,
		Coordinator: n.coordinator, Config: n.replicas.Settings, Logger: n.log, Now: n.o.Now, Rand: rand.New(rand.NewPCG(seed, 1)),
		FetchSessionBytes: n.o.FetchSessionBytes,
	})
	s, err := server.Listen(ctx, server.Options{
		Network: n.bound, Listeners: n.bound.listeners, Handler: handler, Limits: limits(n.o.Config),
		Logger: n.log, Metrics: n.metrics, APIName: kmsg.NameForKey,
	})
	if err != nil {
		return err
	}
	n.server.Store(s)
	return nil
}

// watched tells, beside the controller, the router who leads the quorum, and the node that somebody does:
// until then nobody could take its registration.
type watched struct {
	*controller.Controller
	router *controller.Router
	leads  chan<- struct{}
	others bool // another node may lead

	changed func() // the broker has to be heard by the new controller
}

// Leadership implements quorum.Machine.
func (w watched) Leadership(l metadata.Leadership) {
	w.Controller.Leadership(l)
	w.router.Leadership(l)
	w.changed()
	if l.Mine || w.others && l.Leader >= 0 {
		select {
		case w.leads <- struct{}{}:
		default:
		}
	}
}

func (n *Node) startAdmin(ctx context.Context) (err error) {
	addr := n.o.Config.String("admin.listener")
	if addr == "" {
		return nil
	}
	n.registerMetrics()
	n.admin, err = server.ListenAdmin(ctx, server.AdminOptions{
		Network: n.o.Network, Addr: addr, Metrics: n.metrics.Handler(), Ready: n.Ready, Logger: n.log,
	})
	return err
}

func (n *Node) seed() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(n.o.Random, b[:]); err != nil {
		return 0, fmt.Errorf("draw a seed: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// Addrs are the addresses on which clients are served, in the order of the configuration.
func (n *Node) Addrs() []net.Addr { return n.server.Load().Addrs() }

// Advertised are the addresses that clients are told.
func (n *Node) Advertised() []string {
	var all []string
	for _, l := range n.bound.advertised {
		all = append(all, l.Name+"://"+net.JoinHostPort(l.Host, fmt.Sprint(l.Port)))
	}
	return all
}

// AdminAddr is the admin listener's address, nil if there is none.
func (n *Node) AdminAddr() net.Addr {
	if n.admin == nil {
		return nil
	}
	return n.admin.Addr()
}

// Image is the newest committed metadata.
func (n *Node) Image() *metadata.Image { return n.controller.Image() }

// Ready says why the node does not serve clients, or nil.
func (n *Node) Ready() error {
	select {
	case <-n.failure.done:
		return fmt.Errorf("the node has failed: %w", n.failure.cause)
	default:
	}
	select {
	case <-n.ready:
		return nil
	default:
		if what := n.waiting.Load(); what != nil {
			return errors.New("starting: " + *what)
		}
		return errors.New("starting")
	}
}

// Failed is closed when the node cannot go on; Failure then says why. The caller closes it.
func (n *Node) Failed() <-chan struct{} { return n.failure.done }

// Failure is the error after which the node could not go on, nil while it can.
func (n *Node) Failure() error {
	select {
	case <-n.failure.done:
		return n.failure.cause
	default:
		return nil
	}
}

func (n *Node) fail(err error) {
	n.failure.Do(func() {
		n.failure.cause = err
		close(n.failure.done)
		n.abandon(err)
	})
}

// Flushed implements commitlog.Observer.
func (n *Node) Flushed(l *commitlog.Log, end int64) { n.replicas.Flushed(l, end) }

// Offline implements commitlog.Observer. Without its metadata directory, or with no data directory
// left, a node is no use, and says so by stopping. It may be called while others are still opened.
func (n *Node) Offline(d *commitlog.Dir, cause error) {
	n.replicas.Offline(d, cause)
	if d.Path() == n.o.Config.MetadataLogDir() {
		n.fail(fmt.Errorf("metadata directory %s failed: %w", d.Path(), cause))
		return
	}
	if n.lost.Add(1) >= int64(len(n.o.Config.LogDirs())) {
		n.fail(fmt.Errorf("the last data directory failed: %s: %w", d.Path(), cause))
		return
	}
	n.speakUp()
}

// Close takes the node down in reverse: no more groups and requests, then the metadata, then the logs, which
// are flushed and marked as cleanly closed. Replies under way may take server.shutdown.timeout.ms.
// It is safe after a failed start.
func (n *Node) Close(ctx context.Context) error {
	var errs []error
	n.takeLeave(ctx)
	if n.coordinator != nil {
		n.coordinator.Close() // members that wait for others learn at once that they must look elsewhere
	}
	if s := n.server.Load(); s != nil {
		patient, cancel := context.WithTimeout(ctx, n.o.Config.Millis("server.shutdown.timeout.ms"))
		if err := s.Shutdown(patient); err != nil && ctx.Err() == nil {
			// A consumer's long poll may well be longer than our patience: it asks again elsewhere.
			n.log.Info("stopped without all replies sent", "err", err)
		} else {
			errs = append(errs, err)
		}
		cancel()
	}
	if n.bound != nil {
		errs = append(errs, n.bound.close())
	}
	if b := n.broker.Load(); b != nil {
		b.Close()
		if epoch := b.Epoch(); epoch > 0 {
			n.dirs.setBrokerEpoch(epoch)
		}
	}
	if n.places != nil {
		n.places.Close()
	}
	if n.controller != nil {
		n.controller.Close()
	}
	if n.quorum != nil {
		errs = append(errs, n.quorum.Close())
	}
	if n.replicas != nil {
		n.replicas.Close() // after the last Publish, which is the controller's, and before the directories
	}
	if n.peers != nil {
		errs = append(errs, n.peers.Close())
	}
	if n.dirs != nil {
		errs = append(errs, n.dirs.close())
	}
	if n.admin != nil {
		errs = append(errs, n.admin.Shutdown(ctx))
	}
	return errors.Join(errs...)
}
