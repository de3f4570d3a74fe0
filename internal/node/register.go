package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/controller"
	"barnabas/internal/lifecycle"
	"barnabas/internal/metadata"
	"barnabas/internal/metrics"
)

// newBroker makes this process's side of being a broker. It is told of the metadata after everything else.
func (n *Node) newBroker(seed uint64) {
	n.dice = newJitter(seed, n.nodeID)
	o := lifecycle.Options{
		Controller: n.router, Registration: n.registration, Alone: n.peers == nil,
		Interval: n.o.Config.Millis("broker.heartbeat.interval.ms"), Session: n.o.Config.Millis("broker.session.timeout.ms"),
		RegistrationPatience: n.o.Config.Millis("initial.broker.registration.timeout.ms"),
		Jitter:               n.dice.below, Logger: n.log, Fatal: n.fail,
	}
	if n.peers != nil {
		o.Heard, o.Lapsed = n.heard, func(lapsed bool) {
			n.replicas.Doubt(lapsed)
			n.coordinator.Doubt(lapsed)
		}
	}
	n.broker.Store(lifecycle.New(o))
}

// heard is when another node last answered anything. The only voter hears from itself all that it needs.
func (n *Node) heard() time.Time {
	if voters := n.quorum.Status().Voters; len(voters) == 1 && voters[0].NodeID == n.nodeID {
		return time.Now()
	}
	return n.peers.Heard()
}

// speakUp has the controller hear from this broker soon, once there is one: something has changed. It does not wait.
func (n *Node) speakUp() {
	if b := n.broker.Load(); b != nil {
		b.Hurry()
	}
}

// registration is what this process says of itself.
func (n *Node) registration() metadata.Registration {
	r := metadata.Registration{
		ID: n.nodeID, Incarnation: n.incarnation, Listeners: n.bound.advertised, Features: controller.SupportedRanges(),
		Complete: n.lost.Load() == 0, CleanEpoch: n.dirs.cleanEpoch(),
	}
	if n.bound.reached != nil {
		r.Listeners = append(slices.Clone(r.Listeners), *n.bound.reached)
	}
	if rack := n.o.Config.String("broker.rack"); rack != "" {
		r.Rack = &rack
	}
	r.Directories, r.Cordoned = n.directories()
	return r
}

// register makes this process known to the controller and waits until its replicas are open.
func (n *Node) register(ctx context.Context) (err error) {
	if err = n.awaitLeader(ctx); err != nil {
		return err
	}
	n.phase("catching up with the metadata of the cluster")
	for err = n.router.Sync(ctx); err != nil; err = n.router.Sync(ctx) {
		if ctx.Err() != nil || !errors.Is(err, controller.ErrTimedOut) {
			return fmt.Errorf("catch up with the metadata of the cluster: %w", err)
		}
		n.log.Info("still catching up with the metadata of the cluster", "err", err)
	}
	if err = n.guardData(); err != nil {
		return err
	}
	// From here on replicas may be written, and what a clean stop before has promised of them ends.
	n.dirs.setBrokerEpoch(commitlog.NoEpoch)
	n.phase("waiting for the controller to register this broker")
	if err = n.broker.Load().Register(ctx); err != nil {
		return err
	}
	select {
	case <-n.replicas.Ready():
		return nil
	case <-n.failure.done:
		return n.failure.cause
	case <-ctx.Done():
		return fmt.Errorf("wait for the registration of broker %d: %w", n.nodeID, context.Cause(ctx))
	}
}

// awaitLeader waits until the quorum has a leader that this node hears, and says what is missing where that takes long.
func (n *Node) awaitLeader(ctx context.Context) error {
	const waiting = "waiting for a leader of the metadata quorum"
	n.phase(waiting)
	for told := ""; ; {
		look := time.NewTimer(lookAgain)
		select {
		case <-n.leads:
			look.Stop()
			return nil
		case <-n.failure.done:
			look.Stop()
			return n.failure.cause
		case <-ctx.Done():
			look.Stop()
			return fmt.Errorf("wait for a leader of the metadata quorum: %w", context.Cause(ctx))
		case <-look.C:
			if n.peers == nil {
				continue
			}
			if what := waiting + n.silent(); what != told {
				told = what
				n.log.Info(what)
				n.phase(what)
			}
		}
	}
}

// silent says which voters do not answer. Where all do and none is heard of as the leader, the others may look for this
// node elsewhere.
func (n *Node) silent() string {
	if absent := n.absent(); len(absent) > 0 {
		return "; no answer from " + strings.Join(absent, ", ") + n.troubles()
	}
	at := net.JoinHostPort(n.bound.reached.Host, fmt.Sprint(n.bound.reached.Port))
	return fmt.Sprintf("; all voters answer, and none as the leader: do the others have this node at %s, too (controller.quorum.voters)?", at)
}

// takeLeave has others lead what this broker does, before it stops (controlled.shutdown.enable).
func (n *Node) takeLeave(ctx context.Context) {
	b := n.broker.Load()
	if b == nil || n.server.Load() == nil || n.Failure() != nil || !n.o.Config.Bool("controlled.shutdown.enable") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.o.Config.Millis("server.shutdown.timeout.ms"))
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { n.watchVoters(ctx, giveUp) })
	err := b.ShutDown(ctx)
	giveUp(nil)
	watching.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		n.log.Warn("this broker stops while it leads partitions; others take over when they notice", "err", err)
	}
}

const (
	// votersPatience is how long too few voters may be connected before a broker that stops waits for no controller any more:
	// longer than it takes to connect again after a line has broken.
	votersPatience = 300 * time.Millisecond
	votersLook     = 50 * time.Millisecond
)

var errNoQuorum = errors.New("so few voters are connected that there can be no controller")

// watchVoters ends the wait for a controller when there can be none: the last nodes of a cluster that is stopped as a whole have
// nobody to hand over to.
func (n *Node) watchVoters(ctx context.Context, giveUp context.CancelCauseFunc) {
	var missing time.Duration
	for missing < votersPatience {
		pause := votersLook + n.dice.below(time.Millisecond)
		look := time.NewTimer(pause)
		select {
		case <-look.C:
		case <-ctx.Done():
			look.Stop()
			return
		}
		if missing += pause; n.mayBeLed() {
			missing = 0
		}
	}
	giveUp(errNoQuorum)
}

// mayBeLed tells whether as many voters are connected, this node among them if it votes, as a controller needs.
func (n *Node) mayBeLed() bool {
	if n.peers == nil {
		return true
	}
	voters := n.quorum.Status().Voters
	there := 0
	for _, v := range voters {
		if v.NodeID == n.nodeID || n.peers.Connected(v.NodeID) {
			there++
		}
	}
	return len(voters) == 0 || 2*there > len(voters)
}

// directories are the ids of the data directories that work, and of those among them that take no
// new replicas (cordoned.log.dirs).
func (n *Node) directories() (online, cordoned []metadata.UUID) {
	shut := n.replicas.Settings().List("cordoned.log.dirs")
	for _, d := range n.dirs.data {
		if d.Offline() != nil {
			continue
		}
		online = append(online, d.ID())
		if slices.Contains(shut, d.Path()) || slices.Contains(shut, "*") {
			cordoned = append(cordoned, d.ID())
		}
	}
	return online, cordoned
}

// guardData refuses to go on where partitions stand on disk of which the metadata has never heard:
// they would count as deleted. It is called with the metadata complete and this node not yet in it. A
// broker that was unregistered is not in it either, and comes back to topics that are.
func (n *Node) guardData() error {
	image := n.controller.Image()
	if _, registered := image.Broker(n.nodeID); registered {
		return nil
	}
	if logs, known := n.dirs.partitionLogs(image); logs > 0 && known == 0 {
		return fmt.Errorf("the data directories hold %d partitions of cluster %s, but the metadata log in %s knows nothing of them: "+
			"give the directory that it was in (key metadata.log.dir; by default the first of log.dirs)",
			logs, n.dirs.clusterID, n.dirs.meta.Path())
	}
	return nil
}

// registerMetrics shows what is read when somebody asks, instead of being counted.
func (n *Node) registerMetrics() {
	n.metrics.Collect("partition_log_bytes", "Bytes of a partition's segments on this broker.", metrics.Varies,
		[]string{"topic", "partition"}, n.perPartition(func(p *partitionState) float64 { return float64(p.size) }))
	n.metrics.Collect("partition_log_end_offset", "The offset that the partition's next record gets.", metrics.Varies,
		[]string{"topic", "partition"}, n.perPartition(func(p *partitionState) float64 { return float64(p.end) }))
	n.metrics.Collect("partition_high_watermark", "Everything below this offset of the partition is committed.", metrics.Varies,
		[]string{"topic", "partition"}, n.perPartition(func(p *partitionState) float64 { return float64(p.watermark) }))
	n.metrics.Collect("replication_throttled_bytes_total", "Bytes of throttled partitions that this broker sent as their leader, or copied as a follower.",
		metrics.Grows, []string{"side"}, func(emit func(float64, ...string)) {
			leading, following := n.replicas.ThrottledBytes()
			emit(float64(leading), "leader")
			emit(float64(following), "follower")
		})
	n.metrics.Collect("directory_offline", "1 for a data directory that has failed.", metrics.Varies,
		[]string{"dir"}, n.perDirectory)
	n.metrics.Collect("build_info", "1, with the version of the program.", metrics.Varies,
		[]string{"version"}, func(emit func(float64, ...string)) { emit(1, n.o.Version) })
}

// registerCleaner shows what compaction has done since the start.
func (n *Node) registerCleaner() {
	if n.dirs.cleaner == nil {
		return
	}
	stats := n.dirs.cleaner.Stats()
	total := func(name, help string, read func() float64) {
		n.metrics.Collect(name, help, metrics.Grows, nil, func(emit func(float64, ...string)) { emit(read()) })
	}
	total("cleaner_runs_total", "Compactions of a log, failed ones included.", func() float64 { return float64(stats.Runs.Load()) })
	total("cleaner_failures_total", "Compactions that ended with an error.", func() float64 { return float64(stats.Failures.Load()) })
	total("cleaner_read_bytes_total", "Bytes read by compaction.", func() float64 { return float64(stats.BytesRead.Load()) })
	total("cleaner_written_bytes_total", "Bytes written by compaction.", func() float64 { return float64(stats.BytesWritten.Load()) })
	total("cleaner_read_records_total", "Records that compaction decided about.", func() float64 { return float64(stats.RecordsRead.Load()) })
	total("cleaner_kept_records_total", "Records that compaction kept.", func() float64 { return float64(stats.RecordsKept.Load()) })
	total("cleaner_seconds_total", "Time spent compacting.", func() float64 { return float64(stats.Nanoseconds.Load()) / 1e9 })
	n.metrics.Collect("cleaner_due_logs", "Logs that were due for compaction when it was looked last.", metrics.Varies, nil,
		func(emit func(float64, ...string)) { emit(float64(stats.Compactable.Load())) })
	n.metrics.Collect("cleaner_uncleanable_logs", "Logs that compaction leaves alone because of damage.", metrics.Varies, nil,
		func(emit func(float64, ...string)) { emit(float64(stats.Uncleanable.Load())) })
}

type partitionState struct{ size, end, watermark int64 }

func (n *Node) perPartition(value func(*partitionState) float64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) {
		if n.Ready() != nil {
			return
		}
		for _, p := range n.replicas.Partitions() {
			progress := p.Progress()
			state := partitionState{size: p.Log().Size(), end: progress.End, watermark: progress.HighWatermark}
			id := p.ID()
			emit(value(&state), id.Topic, fmt.Sprint(id.Partition))
		}
	}
}

func (n *Node) perDirectory(emit func(float64, ...string)) {
	if n.Ready() != nil {
		return
	}
	for _, d := range n.dirs.all() {
		offline := 0.0
		if d.Offline() != nil {
			offline = 1
		}
		emit(offline, d.Path())
	}
}
