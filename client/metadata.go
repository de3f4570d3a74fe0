package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// metadata is step (d): which brokers there are, which of them leads each partition and in which
// leader epoch. Any broker tells. It is asked again when metadata.max.age.ms has passed, and at
// once when somebody found it stale, though never twice within retry.backoff.ms. What is known is
// an immutable snapshot, so the senders' way to a leader takes no lock.
type metadata struct {
	c       *Client
	current atomic.Pointer[snapshot]
	wake    chan struct{} // one slot: an update is wanted

	mu struct { // never held while asking
		sync.Mutex
		changed chan struct{} // closed and replaced whenever an update has ended, well or not
		err     error         // of the last update
		begun   int           // updates that have begun
		ended   int           // the latest of them that has ended
		users   map[metadataUser]bool
	}
}

// metadataUser is a producer or consumer: it names the topics that it wants to know about, and is
// told when there is something new. Both are called without locks held.
type metadataUser interface {
	wantedTopics(now time.Time) (names []string, mayCreate bool)
	metadataChanged(s *snapshot)
}

// snapshot is the cluster as some broker saw it. Nobody changes it.
type snapshot struct {
	at         time.Time // zero: nothing is known yet
	clusterID  string
	controller int32 // -1: unknown
	brokers    map[int32]brokerInfo
	topics     map[string]*topicInfo
}

type brokerInfo struct {
	id      int32
	address string
	rack    string
}

type topicInfo struct {
	name       string
	id         [16]byte // zero where the broker is too old to have them
	internal   bool
	err        error // why there are no partitions
	partitions []partitionInfo
}

type partitionInfo struct {
	leader      int32 // -1: none
	leaderEpoch int32 // -1: unknown
	replicas    []int32
	inSync      []int32
	offline     []int32
	err         error
}

// partition gives a partition of a topic, where both are known.
func (s *snapshot) partition(tp TopicPartition) (*topicInfo, *partitionInfo) {
	t := s.topics[tp.Topic]
	if t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.partitions) {
		return t, nil
	}
	return t, &t.partitions[tp.Partition]
}

func newMetadata(c *Client) *metadata {
	m := &metadata{c: c, wake: make(chan struct{}, 1)}
	m.current.Store(&snapshot{controller: -1})
	m.mu.changed = make(chan struct{})
	m.mu.users = map[metadataUser]bool{}
	return m
}

func (m *metadata) snapshot() *snapshot { return m.current.Load() }

func (m *metadata) register(u metadataUser) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.users[u] = true
}

func (m *metadata) unregister(u metadataUser) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.users, u)
}

// update asks for new metadata soon, and does not wait for it.
func (m *metadata) update() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run updates whenever it is asked to and whenever the metadata is old, until ctx ends.
func (m *metadata) run(ctx context.Context) {
	failures := 0
	for {
		age := time.NewTimer(m.untilOld())
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-age.C:
		}
		age.Stop()
		if ctx.Err() != nil {
			m.ended(context.Cause(ctx))
			return
		}
		err := m.refresh(ctx)
		if err != nil && ctx.Err() == nil {
			failures++
			if failures&(failures-1) == 0 { // ever more rarely
				m.c.log.Warn("no metadata from any broker", "attempt", failures, "error", err)
			}
			m.update()
		} else {
			failures = 0
		}
		m.ended(err)
		if sleep(ctx, m.c.cfg.retryBackoff.after(max(failures, 1), m.c.random)) != nil {
			m.ended(context.Cause(ctx))
			return
		}
	}
}

// untilOld is the time that the metadata still counts as fresh. Before the first it is long: who
// needs it asks.
func (m *metadata) untilOld() time.Duration {
	s := m.snapshot()
	if s.at.IsZero() {
		return m.c.cfg.metadataMaxAge
	}
	return time.Until(s.at.Add(m.c.cfg.metadataMaxAge))
}

// ended lets everybody look again.
func (m *metadata) ended(err error) {
	m.mu.Lock()
	m.mu.err, m.mu.ended = err, m.mu.begun
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
	m.mu.Unlock()
}

// refresh asks for all that the users want and tells them. Topics that do not exist and may be
// created are asked for apart, so that asking for others cannot create those.
func (m *metadata) refresh(ctx context.Context) error {
	now := time.Now()
	m.mu.Lock()
	m.mu.begun++
	users := slices.Collect(maps.Keys(m.mu.users))
	m.mu.Unlock()
	known := m.snapshot()
	var create, ask []string
	for _, u := range users {
		names, mayCreate := u.wantedTopics(now)
		for _, name := range names {
			if t := known.topics[name]; mayCreate && (t == nil || errors.Is(t.err, ErrUnknownTopicOrPartition)) {
				create = append(create, name)
			} else {
				ask = append(ask, name)
			}
		}
	}
	create = sortedUnique(create)
	ask = slices.DeleteFunc(sortedUnique(ask), func(n string) bool { return slices.Contains(create, n) })

	next := &snapshot{}
	if len(create) > 0 {
		resp, err := m.ask(ctx, create, true)
		if err != nil {
			return err
		}
		next.take(known, resp)
	}
	if len(ask) > 0 || len(create) == 0 {
		resp, err := m.ask(ctx, ask, false)
		if err != nil {
			return err
		}
		next.take(known, resp)
	}
	next.at = time.Now()
	m.publish(known, next, users)
	return nil
}

func sortedUnique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// publish makes next current, unless a hint came meanwhile: then the hint's leaders win by epoch.
func (m *metadata) publish(base, next *snapshot, users []metadataUser) {
	for !m.current.CompareAndSwap(base, next) {
		base = m.snapshot()
		for name, t := range next.topics {
			t.keepNewerLeaders(base.topics[name])
		}
	}
	for _, u := range users {
		u.metadataChanged(next)
	}
}

// ask sends one Metadata request to any broker. No names: brokers and controller only.
func (m *metadata) ask(ctx context.Context, names []string, mayCreate bool) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	req.AllowAutoTopicCreation = mayCreate
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := m.c.requestAny(ctx, req)
	if err != nil {
		return nil, err
	}
	answer := resp.(*kmsg.MetadataResponse)
	// REBOOTSTRAP_REQUIRED (KIP-1102) says that the brokers we know may be another cluster's.
	if err := CodeError(answer.ErrorCode, nil); err != nil {
		if errors.Is(err, ErrRebootstrapRequired) {
			m.forgetBrokers()
		}
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return answer, nil
}

// forgetBrokers goes back to the addresses that the client was given.
func (m *metadata) forgetBrokers() {
	for {
		s := m.snapshot()
		next := *s
		next.brokers = nil
		if m.current.CompareAndSwap(s, &next) {
			return
		}
	}
}

// take adds a response. Where it is older than what was known of a topic's leader (brokers learn
// of elections one after another), the newer epoch stays.
func (s *snapshot) take(known *snapshot, resp *kmsg.MetadataResponse) {
	if resp.ClusterID != nil {
		s.clusterID = *resp.ClusterID
	}
	s.controller = resp.ControllerID
	s.brokers = make(map[int32]brokerInfo, len(resp.Brokers))
	for _, b := range resp.Brokers {
		info := brokerInfo{id: b.NodeID, address: joinHostPort(b.Host, b.Port)}
		if b.Rack != nil {
			info.rack = *b.Rack
		}
		s.brokers[b.NodeID] = info
	}
	if s.topics == nil {
		s.topics = map[string]*topicInfo{}
	}
	for i := range resp.Topics {
		if t := readTopic(&resp.Topics[i]); t.name != "" {
			t.keepNewerLeaders(known.topics[t.name])
			s.topics[t.name] = t
		}
	}
}

func joinHostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func readTopic(in *kmsg.MetadataResponseTopic) *topicInfo {
	t := &topicInfo{id: in.TopicID, internal: in.IsInternal, err: CodeError(in.ErrorCode, nil)}
	if in.Topic != nil {
		t.name = *in.Topic
	}
	if t.err != nil {
		return t
	}
	// Partitions come in any order; a number beyond their count would be a hole nobody can fill.
	t.partitions = make([]partitionInfo, len(in.Partitions))
	for i := range t.partitions {
		t.partitions[i] = partitionInfo{leader: -1, leaderEpoch: -1, err: ErrLeaderNotAvailable}
	}
	for _, p := range in.Partitions {
		if p.Partition < 0 || int(p.Partition) >= len(t.partitions) {
			continue
		}
		t.partitions[p.Partition] = partitionInfo{
			leader: p.Leader, leaderEpoch: p.LeaderEpoch, err: CodeError(p.ErrorCode, nil),
			replicas: p.Replicas, inSync: p.ISR, offline: p.OfflineReplicas,
		}
	}
	return t
}

// keepNewerLeaders keeps what is known of the same topic (by id) where its epoch is higher.
func (t *topicInfo) keepNewerLeaders(known *topicInfo) {
	if known == nil || known.id != t.id || t.err != nil {
		return
	}
	for i := range min(len(t.partitions), len(known.partitions)) {
		if known.partitions[i].leaderEpoch > t.partitions[i].leaderEpoch {
			t.partitions[i] = known.partitions[i]
		}
	}
}

// leaderHint is what a broker that is no longer the leader says about the new one (KIP-951).
type leaderHint struct {
	tp          TopicPartition
	leader      int32
	leaderEpoch int32
}

// hint takes over a new leader without asking. It is false where the hint is of no use; true also
// where the same is known already.
func (m *metadata) hint(h leaderHint, brokers []brokerInfo) bool {
	for {
		s := m.snapshot()
		t, p := s.partition(h.tp)
		if p == nil || h.leader < 0 {
			return false
		}
		if h.leaderEpoch <= p.leaderEpoch {
			return h.leaderEpoch == p.leaderEpoch && h.leader == p.leader
		}
		next := *s
		next.brokers = maps.Clone(s.brokers)
		for _, b := range brokers {
			next.brokers[b.id] = b
		}
		if _, known := next.brokers[h.leader]; !known {
			return false
		}
		topic := *t
		topic.partitions = slices.Clone(t.partitions)
		topic.partitions[h.tp.Partition].leader = h.leader
		topic.partitions[h.tp.Partition].leaderEpoch = h.leaderEpoch
		topic.partitions[h.tp.Partition].err = nil
		next.topics = maps.Clone(s.topics)
		next.topics[h.tp.Topic] = &topic
		if m.current.CompareAndSwap(s, &next) {
			return true
		}
	}
}

// await returns the first snapshot that good accepts, asking for updates until then. It gives up
// when ctx ends, with the reason why the metadata could not be had where there is one. good may
// return an error that nothing will mend, which ends the wait.
func (m *metadata) await(ctx context.Context, good func(*snapshot) (bool, error)) (*snapshot, error) {
	for {
		m.mu.Lock()
		changed, last := m.mu.changed, m.mu.err
		m.mu.Unlock()
		s := m.snapshot()
		ok, err := good(s)
		if err != nil {
			return nil, err
		}
		if ok {
			return s, nil
		}
		m.update()
		select {
		case <-changed:
		case <-ctx.Done():
			if last != nil {
				return nil, fmt.Errorf("%w: %w", context.Cause(ctx), last)
			}
			return nil, context.Cause(ctx)
		case <-m.c.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// renew asks for an update and waits for one that began no earlier than now, well or not: a wrong
// address is to be told at once and not tried again until ctx ends.
func (m *metadata) renew(ctx context.Context) (*snapshot, error) {
	m.mu.Lock()
	after := m.mu.begun
	m.mu.Unlock()
	for {
		m.mu.Lock()
		changed, ended, err := m.mu.changed, m.mu.ended, m.mu.err
		m.mu.Unlock()
		if ended > after {
			return m.snapshot(), err
		}
		m.update()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-m.c.ctx.Done():
			return nil, ErrClosed
		}
	}
}
