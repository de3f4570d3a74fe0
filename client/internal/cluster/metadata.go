package cluster

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

	"barnabas/client/internal/errcode"
)

// Metadata is step (d): which brokers there are, which of them leads each partition and in which
// leader epoch. Any broker tells. It is asked again when metadata.max.age.ms has passed, and at
// once when somebody found it stale, though never twice within retry.backoff.ms. What is known is
// an immutable snapshot, so the senders' way to a leader takes no lock.
type Metadata struct {
	c       *Cluster
	current atomic.Pointer[Snapshot]
	wake    chan struct{} // one slot: an update is wanted

	mu struct { // never held while asking
		sync.Mutex
		changed chan struct{} // closed and replaced whenever an update has ended, well or not
		err     error         // of the last update
		begun   int           // updates that have begun
		ended   int           // the latest of them that has ended
		users   []*User
	}
}

// User is a producer or consumer: it names the topics that it wants to know about, and is told
// when there is something new. Both are called without locks held.
type User struct {
	Wanted  func(now time.Time) Wanted
	Changed func(s *Snapshot)
	// Refused, which may be nil, is told that there will be nothing new for now: the brokers do not believe us, or we not
	// them (see the function Refused), and nobody is asked again until somebody calls Update.
	Refused func(err error)
}

// Wanted are topics that somebody wants to know about.
type Wanted struct {
	Names     []string
	MayCreate bool       // where one does not exist, and the brokers allow it
	All       bool       // all that there are, beside those named
	IDs       [][16]byte // of topics whose names are not known
}

// Snapshot is the cluster as some broker saw it. Nobody changes it.
type Snapshot struct {
	At         time.Time // zero: nothing is known yet
	ClusterID  string
	Controller int32 // -1: unknown
	Brokers    map[int32]Broker
	Topics     map[string]*Topic
}

type Broker struct {
	ID      int32
	Address string
	Rack    string
}

// NewBroker reads a broker of a response.
func NewBroker(id int32, host string, port int32, rack *string) Broker {
	b := Broker{ID: id, Address: JoinHostPort(host, port)}
	if rack != nil {
		b.Rack = *rack
	}
	return b
}

type Topic struct {
	Name       string
	ID         [16]byte // zero where the broker is too old to have them
	Internal   bool
	Err        error // why there are no partitions
	Partitions []Partition
}

type Partition struct {
	Leader      int32 // -1: none
	LeaderEpoch int32 // -1: unknown
	Replicas    []int32
	InSync      []int32
	Offline     []int32
	Err         error
}

// Partition gives a partition of a topic, where both are known.
func (s *Snapshot) Partition(topic string, n int32) (*Topic, *Partition) {
	t := s.Topics[topic]
	if t == nil || n < 0 || int(n) >= len(t.Partitions) {
		return t, nil
	}
	return t, &t.Partitions[n]
}

func newMetadata(c *Cluster) *Metadata {
	m := &Metadata{c: c, wake: make(chan struct{}, 1)}
	m.current.Store(&Snapshot{Controller: -1})
	m.mu.changed = make(chan struct{})
	return m
}

// Err is why the latest update failed, nil where it did not.
func (m *Metadata) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.err
}

// Snapshot is the latest of what is known.
func (m *Metadata) Snapshot() *Snapshot { return m.current.Load() }

// Register lets a user name the topics that it wants, and be told when something is new.
func (m *Metadata) Register(u *User) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.users = append(m.mu.users, u)
}

// Unregister ends Register.
func (m *Metadata) Unregister(u *User) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.users = slices.DeleteFunc(m.mu.users, func(other *User) bool { return other == u })
}

// Update asks for new metadata soon, and does not wait for it.
func (m *Metadata) Update() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run updates whenever it is asked to and whenever the metadata is old, until ctx ends.
func (m *Metadata) run(ctx context.Context) {
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
			if Refused(err) {
				m.tellRefused(err)
			} else {
				m.Update()
			}
		} else {
			failures = 0
		}
		m.ended(err)
		if Sleep(ctx, m.c.cfg.RetryBackoff.After(max(failures, 1), m.c.Random)) != nil {
			m.ended(context.Cause(ctx))
			return
		}
	}
}

// tellRefused tells the users, each of whom may wait for something else than an answer of Await or Renew.
func (m *Metadata) tellRefused(err error) {
	m.mu.Lock()
	users := slices.Clone(m.mu.users)
	m.mu.Unlock()
	for _, u := range users {
		if u.Refused != nil {
			u.Refused(err)
		}
	}
}

// untilOld is the time that the metadata still counts as fresh. Before the first it is long: who
// needs it asks.
func (m *Metadata) untilOld() time.Duration {
	s := m.Snapshot()
	if s.At.IsZero() {
		return m.c.cfg.MetadataMaxAge
	}
	return time.Until(s.At.Add(m.c.cfg.MetadataMaxAge))
}

// ended lets everybody look again.
func (m *Metadata) ended(err error) {
	m.mu.Lock()
	m.mu.err, m.mu.ended = err, m.mu.begun
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
	m.mu.Unlock()
}

// refresh asks for all that the users want and tells them. Topics that do not exist and may be
// created are asked for apart, so that asking for others cannot create those.
func (m *Metadata) refresh(ctx context.Context) error {
	now := time.Now()
	m.mu.Lock()
	m.mu.begun++
	users := slices.Clone(m.mu.users)
	m.mu.Unlock()
	known := m.Snapshot()
	var create, ask []string
	var ids [][16]byte
	all := false
	for _, u := range users {
		wanted := u.Wanted(now)
		all = all || wanted.All
		ids = append(ids, wanted.IDs...)
		for _, name := range wanted.Names {
			if t := known.Topics[name]; wanted.MayCreate && (t == nil || errors.Is(t.Err, errcode.UnknownTopicOrPartition)) {
				create = append(create, name)
			} else {
				ask = append(ask, name)
			}
		}
	}
	create = sortedUnique(create)
	ask = slices.DeleteFunc(sortedUnique(ask), func(n string) bool { return slices.Contains(create, n) })

	next := &Snapshot{}
	if len(create) > 0 {
		resp, err := m.Ask(ctx, create, true)
		if err != nil {
			return err
		}
		next.Take(known, resp)
	}
	if all {
		resp, err := m.askAll(ctx)
		if err != nil {
			return err
		}
		next.Take(known, resp)
		ask = slices.DeleteFunc(ask, func(n string) bool { return next.Topics[n] != nil })
	}
	if len(ids) > 0 && !all {
		resp, err := m.askByID(ctx, ids)
		if err != nil {
			return err
		}
		next.Take(known, resp)
	}
	if len(ask) > 0 || len(create)+len(ids) == 0 && !all {
		resp, err := m.Ask(ctx, ask, false)
		if err != nil {
			return err
		}
		next.Take(known, resp)
	}
	next.At = time.Now()
	m.publish(known, next, users)
	return nil
}

func sortedUnique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// publish makes next current, unless a hint came meanwhile: then the hint's leaders win by epoch.
func (m *Metadata) publish(base, next *Snapshot, users []*User) {
	for !m.current.CompareAndSwap(base, next) {
		base = m.Snapshot()
		for name, t := range next.Topics {
			t.keepNewerLeaders(base.Topics[name])
		}
	}
	for _, u := range users {
		u.Changed(next)
	}
}

// Ask sends one Metadata request to any broker. No names: brokers and controller only.
func (m *Metadata) Ask(ctx context.Context, names []string, mayCreate bool) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	req.AllowAutoTopicCreation = mayCreate
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	return m.send(ctx, req)
}

// askByID asks for topics by their ids. Those that no broker knows are missing in the answer.
func (m *Metadata) askByID(ctx context.Context, ids [][16]byte) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, id := range ids {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{TopicID: id})
	}
	req.AllowAutoTopicCreation = false
	return m.send(ctx, req)
}

// askAll asks for every topic that there is.
func (m *Metadata) askAll(ctx context.Context) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = nil
	return m.send(ctx, req)
}

func (m *Metadata) send(ctx context.Context, req *kmsg.MetadataRequest) (*kmsg.MetadataResponse, error) {
	resp, err := m.c.RequestAny(ctx, req)
	if err != nil {
		return nil, err
	}
	answer := resp.(*kmsg.MetadataResponse)
	// REBOOTSTRAP_REQUIRED (KIP-1102) says that the brokers we know may be another cluster's.
	if err := errcode.Of(answer.ErrorCode, nil); err != nil {
		if errors.Is(err, errcode.RebootstrapRequired) {
			m.forgetBrokers()
		}
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return answer, nil
}

// AddBroker takes in a broker that another request told of.
func (m *Metadata) AddBroker(b Broker) {
	for {
		s := m.Snapshot()
		if s.Brokers[b.ID] == b {
			return
		}
		next := *s
		next.Brokers = maps.Clone(s.Brokers)
		if next.Brokers == nil {
			next.Brokers = map[int32]Broker{}
		}
		next.Brokers[b.ID] = b
		if m.current.CompareAndSwap(s, &next) {
			return
		}
	}
}

// forgetBrokers goes back to the addresses that the client was given.
func (m *Metadata) forgetBrokers() {
	for {
		s := m.Snapshot()
		next := *s
		next.Brokers = nil
		if m.current.CompareAndSwap(s, &next) {
			return
		}
	}
}

// Take adds a response. Where it is older than what was known of a topic's leader (brokers learn
// of elections one after another), the newer epoch stays.
func (s *Snapshot) Take(known *Snapshot, resp *kmsg.MetadataResponse) {
	if resp.ClusterID != nil {
		s.ClusterID = *resp.ClusterID
	}
	s.Controller = resp.ControllerID
	s.Brokers = make(map[int32]Broker, len(resp.Brokers))
	for _, b := range resp.Brokers {
		s.Brokers[b.NodeID] = NewBroker(b.NodeID, b.Host, b.Port, b.Rack)
	}
	if s.Topics == nil {
		s.Topics = map[string]*Topic{}
	}
	for i := range resp.Topics {
		if t := ReadTopic(&resp.Topics[i]); t.Name != "" {
			t.keepNewerLeaders(known.Topics[t.Name])
			s.Topics[t.Name] = t
		}
	}
}

// JoinHostPort makes an address of what a response holds.
func JoinHostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// ReadTopic reads a topic of a Metadata response.
func ReadTopic(in *kmsg.MetadataResponseTopic) *Topic {
	t := &Topic{ID: in.TopicID, Internal: in.IsInternal, Err: errcode.Of(in.ErrorCode, nil)}
	if in.Topic != nil {
		t.Name = *in.Topic
	}
	if t.Err != nil {
		return t
	}
	// Partitions come in any order; a number beyond their count would be a hole nobody can fill.
	t.Partitions = make([]Partition, len(in.Partitions))
	for i := range t.Partitions {
		t.Partitions[i] = Partition{Leader: -1, LeaderEpoch: -1, Err: errcode.LeaderNotAvailable}
	}
	for _, p := range in.Partitions {
		if p.Partition < 0 || int(p.Partition) >= len(t.Partitions) {
			continue
		}
		t.Partitions[p.Partition] = Partition{
			Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Err: errcode.Of(p.ErrorCode, nil),
			Replicas: p.Replicas, InSync: p.ISR, Offline: p.OfflineReplicas,
		}
	}
	return t
}

// keepNewerLeaders keeps what is known of the same topic (by id) where its epoch is higher.
func (t *Topic) keepNewerLeaders(known *Topic) {
	if known == nil || known.ID != t.ID || t.Err != nil {
		return
	}
	for i := range min(len(t.Partitions), len(known.Partitions)) {
		if known.Partitions[i].LeaderEpoch > t.Partitions[i].LeaderEpoch {
			t.Partitions[i] = known.Partitions[i]
		}
	}
}

// Hint is what a broker that is no longer the leader says about the new one (KIP-951).
type Hint struct {
	Topic       string
	Partition   int32
	Leader      int32
	LeaderEpoch int32
}

// Hint takes over a new leader without asking. It is false where the hint is of no use; true also
// where the same is known already.
func (m *Metadata) Hint(h Hint, Brokers []Broker) bool {
	for {
		s := m.Snapshot()
		t, p := s.Partition(h.Topic, h.Partition)
		if p == nil || h.Leader < 0 {
			return false
		}
		if h.LeaderEpoch <= p.LeaderEpoch {
			return h.LeaderEpoch == p.LeaderEpoch && h.Leader == p.Leader
		}
		next := *s
		next.Brokers = maps.Clone(s.Brokers)
		for _, b := range Brokers {
			next.Brokers[b.ID] = b
		}
		if _, known := next.Brokers[h.Leader]; !known {
			return false
		}
		topic := *t
		topic.Partitions = slices.Clone(t.Partitions)
		topic.Partitions[h.Partition].Leader = h.Leader
		topic.Partitions[h.Partition].LeaderEpoch = h.LeaderEpoch
		topic.Partitions[h.Partition].Err = nil
		next.Topics = maps.Clone(s.Topics)
		next.Topics[h.Topic] = &topic
		if m.current.CompareAndSwap(s, &next) {
			return true
		}
	}
}

// Await returns the first snapshot that good accepts, asking for updates until then. It gives up
// when ctx ends, with the reason why the metadata could not be had where there is one. good may
// return an error that nothing will mend, which ends the wait; so does one of Refused.
func (m *Metadata) Await(ctx context.Context, good func(*Snapshot) (bool, error)) (*Snapshot, error) {
	m.mu.Lock()
	after := m.mu.begun
	m.mu.Unlock()
	for {
		m.mu.Lock()
		changed, last, ended := m.mu.changed, m.mu.err, m.mu.ended
		m.mu.Unlock()
		s := m.Snapshot()
		ok, err := good(s)
		if err != nil {
			return nil, err
		}
		if ok {
			return s, nil
		}
		if ended > after && Refused(last) {
			return nil, last
		}
		m.Update()
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

// Renew asks for an update and waits for one that began no earlier than now, well or not: a wrong
// address is to be told at once and not tried again until ctx ends.
func (m *Metadata) Renew(ctx context.Context) (*Snapshot, error) {
	m.mu.Lock()
	after := m.mu.begun
	m.mu.Unlock()
	for {
		m.mu.Lock()
		changed, ended, err := m.mu.changed, m.mu.ended, m.mu.err
		m.mu.Unlock()
		if ended > after {
			return m.Snapshot(), err
		}
		m.Update()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-m.c.ctx.Done():
			return nil, ErrClosed
		}
	}
}
