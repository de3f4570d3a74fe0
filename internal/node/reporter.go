package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"barnabas/internal/metadata"
)

// reporter tells the controller which data directories work and which take new replicas, whenever
// that has changed since it was last told.
type reporter struct {
	changed chan struct{} // holds one signal
	told    directoriesTold
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

type directoriesTold struct{ online, cordoned []metadata.UUID }

// reportRetry is how long the reporter waits after the controller did not take a report.
const reportRetry = time.Second

// reportPatience bounds how long the controller may take for one.
const reportPatience = 30 * time.Second

// startReporter begins once the node is registered; what has changed meanwhile is told first.
func (n *Node) startReporter() {
	ctx, cancel := context.WithCancel(context.Background())
	n.reporter.cancel = cancel
	n.reporter.done.Go(func() { n.report(ctx) })
	n.directoriesChanged()
}

// directoriesChanged has the reporter look again. It does not wait.
func (n *Node) directoriesChanged() {
	select {
	case n.reporter.changed <- struct{}{}:
	default:
	}
}

func (n *Node) report(ctx context.Context) {
	random := rand.New(rand.NewPCG(uint64(n.epoch), uint64(n.nodeID)))
	elections := time.NewTimer(n.untilElection(random))
	defer elections.Stop()
	for {
		select {
		case <-n.reporter.changed:
		case <-elections.C:
			n.electUnclean(ctx)
			elections.Reset(n.untilElection(random))
			continue
		case <-ctx.Done():
		}
		for ctx.Err() == nil && !n.reportOnce(ctx) {
			wait := time.NewTimer(reportRetry)
			select {
			case <-wait.C:
			case <-ctx.Done():
			}
			wait.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// untilElection is unclean.leader.election.interval.ms, and up to a millisecond more.
func (n *Node) untilElection(random *rand.Rand) time.Duration {
	return min(n.o.Config.Millis("unclean.leader.election.interval.ms"), never) + time.Duration(random.Int64N(int64(time.Millisecond)))
}

// electUnclean asks for the leadership of partitions whose directory is gone, where their topics allow it.
// As long as a directory that is configured cannot be used their records may be in that one.
func (n *Node) electUnclean(ctx context.Context) {
	if n.lost.Load() > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	elected, err := n.router.ElectUncleanLeaders(ctx, n.nodeID, n.epoch)
	if err != nil && ctx.Err() == nil {
		n.log.Error("leaderless partitions cannot be looked at", "err", err)
	}
	for _, p := range elected {
		n.log.Warn("partition begins anew without its records: its data directory is gone, and unclean.leader.election.enable allows it",
			"topic", p.Topic, "partition", p.Partition)
	}
}

// reportOnce tells whether the controller knows how things are.
func (n *Node) reportOnce(ctx context.Context) bool {
	online, cordoned := n.directories()
	told := &n.reporter.told
	if slices.Equal(online, told.online) && slices.Equal(cordoned, told.cordoned) {
		return true
	}
	if len(online) == 0 {
		return true // the node is about to stop
	}
	ctx, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	if err := n.router.UpdateDirectories(ctx, n.nodeID, n.epoch, online, cordoned); err != nil {
		n.log.Error("the controller does not know yet which data directories are usable", "err", err)
		return false
	}
	told.online, told.cordoned = online, cordoned
	return true
}

func (n *Node) stopReporter() {
	if n.reporter.cancel != nil {
		n.reporter.cancel()
		n.reporter.done.Wait()
	}
}

// settingsFollower puts dynamic settings of the broker into force that no replica reads. It stands
// behind the replicas in the line of publishers, so that it finds their settings renewed.
type settingsFollower struct{ n *Node }

// Publish implements metadata.Publisher.
func (f settingsFollower) Publish(_ context.Context, d *metadata.Delta, _ *metadata.Image) {
	if len(d.Configs) > 0 {
		f.n.applySettings()
	}
}

// applySettings is called by the publisher, and once more when all is built.
func (n *Node) applySettings() {
	now := n.replicas.Settings()
	for _, d := range n.dirs.data {
		d.SetProducerIDExpiration(now.Millis("producer.id.expiration.ms"))
	}
	if c := n.dirs.cleaner; c != nil {
		c.Reconfigure(cleanerOptions(n.o, now))
	}
	if s := n.server.Load(); s != nil {
		s.SetConnectionLimits(n.o.connectionLimits(now))
	}
	n.directoriesChanged()
}
