package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// metadataTopic is the quorum's log, which lies in a data directory too and is nobody's replica.
const metadataTopic = "__cluster_metadata"

// Options is what a Manager is made of. All fields but Cluster are required.
type Options struct {
	NodeID int32
	// Incarnation is this process's own, under which it registers with the controller. Until an
	// image holds that registration, the node is replaying history: topics that have long been
	// deleted appear and go, and acting on them would delete what stands on disk under their names.
	Incarnation metadata.UUID
	Config      *config.Set // static broker settings; dynamic ones come with the metadata
	Logger      *slog.Logger
	Cluster     *Cluster // nil: this broker's replicas have no others
}

// Manager holds this broker's replicas. State enters by one door, Publish; the data directories
// report to Flushed and Offline.
type Manager struct {
	o   Options
	log *slog.Logger

	settings atomic.Pointer[config.Set] // with the dynamic settings of the newest image
	dirs     []*commitlog.Dir           // fixed before the first Publish
	leftOut  []string                   // fixed likewise
	started  bool                       // Publish's alone
	ready    chan struct{}              // closed when the replicas of the first image are open
	image    atomic.Pointer[metadata.Image]
	sessions atomic.Uint64 // given out to followers
	sending  throttle      // of partitions led here
	taking   throttle      // of partitions followed here
	doubted  atomic.Bool   // see Doubt

	lastTopic atomic.Pointer[topicSettings]
	links     *links  // nil without a Cluster
	keeper    *keeper // likewise

	mu struct { // held for look-ups and single insertions only
		sync.RWMutex
		partitions map[commitlog.TopicPartition]*Partition
		found      map[commitlog.TopicPartition][]stood // the logs that stood there at start
		failed     map[commitlog.TopicPartition]error   // replicas that should be here and could not be opened
		feeds      map[int32]*feed                      // sessions of followers, by broker
	}
}

// NewManager returns a Manager without replicas. It is the commitlog.Observer of the directories
// that Use gives it.
func NewManager(o Options) *Manager {
	m := &Manager{o: o, log: o.Logger, ready: make(chan struct{})}
	m.settings.Store(o.Config)
	m.applyThrottles(o.Config)
	m.mu.partitions = map[commitlog.TopicPartition]*Partition{}
	m.mu.found = map[commitlog.TopicPartition][]stood{}
	m.mu.failed = map[commitlog.TopicPartition]error{}
	m.mu.feeds = map[int32]*feed{}
	// A session of an earlier process under this id is none of this one.
	m.sessions.Store(binary.BigEndian.Uint64(o.Incarnation[8:]))
	if o.Cluster != nil {
		m.links, m.keeper = newLinks(m, o.Cluster), newKeeper(m, o.Cluster)
	}
	return m
}

// Close ends what the Manager does of its own: following other brokers, and asking the controller. Its replicas stay as
// they are until their directories are closed. Called once, after the last Publish.
func (m *Manager) Close() {
	if m.links == nil {
		return
	}
	m.links.close()
	m.keeper.close()
	m.mu.Lock()
	feeds := m.mu.feeds
	m.mu.feeds = map[int32]*feed{}
	m.mu.Unlock()
	for _, f := range feeds {
		f.end()
	}
}

// registered tells in which life a broker is registered, and whether it may be in sync (KIP-841).
func (m *Manager) registered(id int32) (life int64, eligible bool) {
	if img := m.image.Load(); img != nil {
		if b, ok := img.Broker(id); ok {
			return b.Epoch, !b.Fenced && !b.ShuttingDown
		}
	}
	return 0, false
}

// takesPart tells whether a broker is registered and not fenced.
func (m *Manager) takesPart(id int32) bool {
	b, ok := m.image.Load().Broker(id)
	return ok && !b.Fenced
}

// brokerEpoch is this broker's own.
func (m *Manager) brokerEpoch() int64 {
	epoch, _ := m.registered(m.o.NodeID)
	return epoch
}

func (m *Manager) rackOf(id int32) (string, bool) {
	if b, ok := m.image.Load().Broker(id); ok && b.Rack != nil {
		return *b.Rack, true
	}
	return "", false
}

// patience is how far a follower may fall behind.
func (m *Manager) patience() patience {
	return patience{m.Settings().Millis("replica.lag.time.max.ms"), m.o.Cluster.MaxLagMessages}
}

// stood is a log that was found at start.
type stood struct {
	dir   *commitlog.Dir
	topic metadata.UUID // zero: the log does not say
}

// Use sets the data directories, and the paths of those that had failed before and are left out. It is
// called once, before the first Publish.
func (m *Manager) Use(dirs []*commitlog.Dir, leftOut ...string) {
	m.dirs, m.leftOut = slices.Clone(dirs), leftOut
	for _, d := range dirs {
		for _, f := range d.Found() {
			m.mu.found[f.TopicPartition] = append(m.mu.found[f.TopicPartition], stood{d, f.TopicID})
		}
	}
}

// Ready is closed once the node is registered and the replicas that it then held are open.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Dirs returns the data directories.
func (m *Manager) Dirs() []*commitlog.Dir { return m.dirs }

// LeftOut returns the paths of the data directories that could not be opened.
func (m *Manager) LeftOut() []string { return m.leftOut }

// Settings returns the broker's settings as they are now, dynamic ones included.
func (m *Manager) Settings() *config.Set { return m.settings.Load() }

// Partition finds a replica of this broker. Whether it leads is for the replica to say.
// Errors: ErrUnknownPartition, ErrUnavailable.
func (m *Manager) Partition(topic string, number int32) (*Partition, error) {
	id := commitlog.TopicPartition{Topic: topic, Partition: number}
	m.mu.RLock()
	p, ok := m.mu.partitions[id]
	var failure error
	if !ok {
		failure = m.mu.failed[id]
	}
	m.mu.RUnlock()
	switch {
	case ok:
		return p, nil
	case failure != nil:
		return nil, fmt.Errorf("%v: %w: %w", id, ErrUnavailable, failure)
	}
	return nil, fmt.Errorf("%v: %w", id, ErrUnknownPartition)
}

// Partitions returns all replicas, by topic and number.
func (m *Manager) Partitions() []*Partition {
	m.mu.RLock()
	all := make([]*Partition, 0, len(m.mu.partitions))
	for _, p := range m.mu.partitions {
		all = append(all, p)
	}
	m.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Partition) int { return compareIDs(a.id, b.id) })
	return all
}

// Flushed implements commitlog.Observer: what is on disk may count now.
func (m *Manager) Flushed(l *commitlog.Log, _ int64) {
	id := l.ID()
	m.mu.RLock()
	p, ok := m.mu.partitions[id]
	m.mu.RUnlock()
	if ok && p.log == l {
		p.flushedHere()
	}
}

// Offline implements commitlog.Observer: everybody who waits for the directory is let go.
func (m *Manager) Offline(d *commitlog.Dir, cause error) {
	m.log.Error("data directory is offline; its partitions are unavailable", "dir", d.Path(), "cause", cause)
	for _, p := range m.Partitions() {
		if p.log.Dir() == d {
			p.release()
		}
	}
}

// Publish implements metadata.Publisher: the one door through which replicas appear, change and
// go. What it is told before this process's registration is history, and changes nothing.
func (m *Manager) Publish(ctx context.Context, d *metadata.Delta, img *metadata.Image) {
	if m.started {
		m.apply(ctx, d, img)
		return
	}
	if own, ok := img.Broker(m.o.NodeID); !ok || own.Incarnation != m.o.Incarnation {
		return
	}
	m.started = true
	m.removeForgotten(img)
	m.apply(ctx, metadata.Diff(metadata.Empty(), img), img)
	close(m.ready)
}

func (m *Manager) apply(ctx context.Context, d *metadata.Delta, img *metadata.Image) {
	m.image.Store(img)
	m.applySettings(d, img)
	var work []func() error
	gone := map[*commitlog.Dir][]commitlog.TopicPartition{}
	for _, change := range d.Topics {
		if change.New == nil {
			m.removeTopic(change.Old, gone)
			continue
		}
		for _, number := range change.Partitions {
			work = append(work, func() error { return m.applyPartition(change.New, number, img) })
		}
	}
	m.delete(gone)
	m.run(ctx, work)
	m.applyTopicConfigs(d, img)
	if len(d.Brokers) > 0 && m.keeper != nil { // one of them may be eligible now
		for _, p := range m.Partitions() {
			m.keep(p)
			p.lookAtDeletes()
		}
	}
}

// run opens logs side by side: recovery after a crash reads from disk.
func (m *Manager) run(ctx context.Context, work []func() error) {
	if len(work) == 1 {
		m.report(work[0]())
		return
	}
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(max(1, m.Settings().Int("num.recovery.threads.per.data.dir")*max(1, len(m.dirs))))
	for _, f := range work {
		group.Go(func() error {
			m.report(f())
			return nil
		})
	}
	_ = group.Wait() // the functions above return nil: each failure is its partition's own
}

func (m *Manager) report(err error) {
	if err != nil {
		m.log.Error("partition is unavailable", "err", err)
	}
}

// applySettings takes over changed dynamic settings of the broker and of all brokers.
func (m *Manager) applySettings(d *metadata.Delta, img *metadata.Image) {
	own := fmt.Sprint(m.o.NodeID)
	if !d.ConfigChanged(metadata.BrokerResource, "") && !d.ConfigChanged(metadata.BrokerResource, own) {
		return
	}
	next, err := m.o.Config.With(img.Config(metadata.BrokerResource, ""), img.Config(metadata.BrokerResource, own))
	if err != nil {
		m.log.Error("dynamic broker settings that are not allowed are left out", "err", err)
	}
	m.settings.Store(next)
	m.applyThrottles(next)
	for _, p := range m.Partitions() {
		p.reconfigure(m.topicSettings(img, p.id.Topic), img)
	}
}

// topicSettings are the effective settings of a topic. The last are kept, for they are asked for by every partition.
func (m *Manager) topicSettings(img *metadata.Image, topic string) *topicSettings {
	set := m.Settings()
	if last := m.lastTopic.Load(); last != nil && last.img == img && last.set == set && last.name == topic {
		return last
	}
	t := set.Topic(img.Config(metadata.TopicResource, topic))
	next := &topicSettings{Topic: t, img: img, set: set, name: topic, throttled: throttledOn(m.o.NodeID, t)}
	m.lastTopic.Store(next)
	return next
}

// topicSettings are what a topic's partitions go by, and what they were made of.
type topicSettings struct {
	*config.Topic
	throttled throttledReplicas
	img       *metadata.Image
	set       *config.Set
	name      string
}

func (m *Manager) applyTopicConfigs(d *metadata.Delta, img *metadata.Image) {
	for _, r := range d.Configs {
		if r.Kind != metadata.TopicResource {
			continue
		}
		topic, ok := img.Topic(r.Name)
		if !ok {
			continue
		}
		settings := m.topicSettings(img, r.Name)
		for number := range topic.Partitions {
			if p, err := m.Partition(r.Name, int32(number)); err == nil {
				p.reconfigure(settings, img)
			}
		}
	}
}

// applyPartition opens the log of a partition that lives here, and gives it its role.
func (m *Manager) applyPartition(topic *metadata.Topic, number int32, img *metadata.Image) error {
	state := topic.Partitions[number]
	id := commitlog.TopicPartition{Topic: topic.Name, Partition: number}
	at := slices.Index(state.Replicas, m.o.NodeID)
	if at < 0 {
		m.remove(id)
		return nil
	}
	p, err := m.Partition(topic.Name, number)
	if err == nil && p.topicID != topic.ID {
		m.remove(id) // a topic deleted and made again is another topic (KIP-516)
		p, err = nil, ErrUnknownPartition
	}
	if err != nil {
		if p, err = m.open(topic, id, state, at, img); err != nil {
			m.mu.Lock()
			m.mu.failed[id] = err
			m.mu.Unlock()
			return err
		}
	}
	return p.assume(m.o.NodeID, state, m.links)
}

func (m *Manager) open(topic *metadata.Topic, id commitlog.TopicPartition, state *metadata.Partition, at int, img *metadata.Image) (*Partition, error) {
	dir, err := m.dirOf(id, state, at)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", id, err)
	}
	settings := m.topicSettings(img, topic.Name)
	log, err := dir.Log(id, topic.ID, logConfig(settings.Topic))
	if err != nil {
		return nil, fmt.Errorf("open %v in %s: %w", id, dir.Path(), err)
	}
	p := &Partition{m: m, id: id, topicID: topic.ID, log: log}
	if len(state.Replicas) > 1 {
		log.RetainTombstonesFrom(0) // until it is known what the others have
	}
	p.mu.role = absent{}
	p.reconfigure(settings, img)
	m.mu.Lock()
	m.mu.partitions[id] = p
	delete(m.mu.failed, id)
	m.mu.Unlock()
	return p, nil
}

// dirOf finds the data directory of a replica: where its log is found, else the one that the
// metadata names, else any that is online. A directory that is named and not here holds the replica's
// records, so an empty log elsewhere must not take its place.
func (m *Manager) dirOf(id commitlog.TopicPartition, state *metadata.Partition, at int) (*commitlog.Dir, error) {
	m.mu.RLock()
	found := m.mu.found[id]
	m.mu.RUnlock()
	for _, f := range found {
		if len(found) == 1 || at < len(state.Directories) && f.dir.ID() == state.Directories[at] {
			return f.dir, nil
		}
	}
	if at < len(state.Directories) && !state.Directories[at].Reserved() {
		for _, d := range m.dirs {
			if d.ID() == state.Directories[at] {
				return d, nil
			}
		}
		return nil, fmt.Errorf("its data directory %v is missing", state.Directories[at])
	}
	for _, f := range found { // several, and the metadata names none: any of them rather than an empty one
		if f.dir.Offline() == nil {
			return f.dir, nil
		}
	}
	for _, d := range m.dirs {
		if d.Offline() == nil {
			return d, nil
		}
	}
	return nil, errors.New("none of the data directories is online")
}

// removeTopic ends a topic's replicas and adds their logs to those that are gone.
func (m *Manager) removeTopic(topic *metadata.Topic, gone map[*commitlog.Dir][]commitlog.TopicPartition) {
	for number := range topic.Partitions {
		if p, err := m.Partition(topic.Name, int32(number)); err != nil || p.topicID == topic.ID {
			m.end(commitlog.TopicPartition{Topic: topic.Name, Partition: int32(number)}, gone)
		}
	}
}

// remove ends a replica and deletes its files, after file.delete.delay.ms.
func (m *Manager) remove(id commitlog.TopicPartition) {
	gone := map[*commitlog.Dir][]commitlog.TopicPartition{}
	m.end(id, gone)
	m.delete(gone)
}

func (m *Manager) end(id commitlog.TopicPartition, gone map[*commitlog.Dir][]commitlog.TopicPartition) {
	m.mu.Lock()
	found := m.mu.found[id]
	delete(m.mu.found, id)
	p, ok := m.mu.partitions[id]
	delete(m.mu.partitions, id)
	delete(m.mu.failed, id)
	m.mu.Unlock()
	if ok {
		p.leave(absent{})
		gone[p.log.Dir()] = append(gone[p.log.Dir()], id)
	}
	for _, f := range found {
		// What this broker had, and lost while it was away, goes too. Left where it is it would be taken for the replica after
		// the next start, when another has been made in another directory meanwhile.
		if !slices.Contains(gone[f.dir], id) && !f.topic.IsZero() {
			gone[f.dir] = append(gone[f.dir], id)
		}
	}
}

// delete deletes logs, directory by directory: each is flushed once, however many logs go. Metadata does not wait for it.
func (m *Manager) delete(gone map[*commitlog.Dir][]commitlog.TopicPartition) {
	for _, d := range m.dirs {
		d.Remove(gone[d]...)
	}
}

// removeForgotten deletes, at start, the logs of topics that were deleted while this broker was
// down. The directory belongs to this cluster (meta.properties), and its metadata is complete up
// to a committed record, so what it does not know was deleted.
func (m *Manager) removeForgotten(img *metadata.Image) {
	gone := map[*commitlog.Dir][]commitlog.TopicPartition{}
	defer func() { m.delete(gone) }()
	for _, d := range m.dirs {
		for _, found := range d.Found() {
			if found.Topic == metadataTopic {
				continue
			}
			if found.TopicID.IsZero() {
				// The file that says whose log this is is damaged or missing. That is no proof that the
				// topic is gone: under a name that is known the log is taken for its topic's.
				if _, known := img.Topic(found.Topic); !known {
					m.log.Error("a log does not say which topic it belongs to, and none has its name; it is left alone",
						"partition", found.TopicPartition, "dir", d.Path())
				}
				continue
			}
			topic, known := img.TopicByID(found.TopicID)
			if known && topic.Name == found.Topic && int(found.Partition) < len(topic.Partitions) {
				continue
			}
			m.mu.Lock()
			m.mu.found[found.TopicPartition] = slices.DeleteFunc(m.mu.found[found.TopicPartition], func(f stood) bool { return f.dir == d })
			m.mu.Unlock()
			m.log.Info("deleting a log whose topic no longer exists", "partition", found.TopicPartition, "dir", d.Path())
			gone[d] = append(gone[d], found.TopicPartition)
		}
	}
}

func compareIDs(a, b commitlog.TopicPartition) int {
	switch {
	case a.Topic < b.Topic:
		return -1
	case a.Topic > b.Topic:
		return 1
	}
	return int(a.Partition) - int(b.Partition)
}
