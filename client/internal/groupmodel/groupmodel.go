// Package groupmodel is a coordinator of one group of the consumer protocol (KIP-848), as plain as it
// can be while it keeps the protocol's rules: what a member owns is taken from it only when it has
// acknowledged, and given to another only then. It is for the tests of members, and decides what
// those may rely on. It keeps no offsets, and knows no disk and no network; time is an argument.
package groupmodel

import (
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
)

// Partition is a partition of a topic.
type Partition struct {
	Topic  [16]byte
	Number int32
}

// Topic is a topic that members may subscribe to.
type Topic struct {
	Name       string
	Partitions int32
}

// Coordinator is the group. It is not safe for concurrent use.
type Coordinator struct {
	Session  time.Duration // after which a member that is not heard of is gone
	Interval time.Duration // of heartbeats
	Topics   map[[16]byte]Topic

	epoch       int32
	targetEpoch int32
	target      map[Partition]string // by member
	members     map[string]*member
	made        int // members so far, which gives them an order
}

type member struct {
	id, instance    string
	order           int
	epoch, previous int32
	away            bool // a static one that said it comes back
	names           []string
	pattern         string
	state           state
	assigned        map[Partition]bool
	revoking        map[Partition]bool // not acknowledged yet
	seen            time.Time
	timeout         time.Duration
	revokeUntil     time.Time
}

type state int8

const (
	stable state = iota
	unrevoked
	unreleased
)

// New makes an empty group.
func New(session, interval time.Duration) *Coordinator {
	return &Coordinator{
		Session: session, Interval: interval, Topics: map[[16]byte]Topic{}, target: map[Partition]string{}, members: map[string]*member{},
	}
}

// Epoch gives a member's epoch; false where there is no such member.
func (c *Coordinator) Epoch(id string) (epoch int32, ok bool) {
	m := c.members[id]
	if m == nil {
		return 0, false
	}
	return m.epoch, true
}

// Assigned gives what a member is assigned, without what it has yet to give up.
func (c *Coordinator) Assigned(id string) map[Partition]bool {
	if m := c.members[id]; m != nil {
		return m.assigned
	}
	return nil
}

// TopicsChanged lets the group be divided anew.
func (c *Coordinator) TopicsChanged() { c.epoch++ }

// Expire takes out who has not been heard of, or does not give up what it should.
func (c *Coordinator) Expire(now time.Time) {
	for id, m := range c.members {
		if !now.Before(m.seen.Add(c.Session)) || m.state == unrevoked && !now.Before(m.revokeUntil) {
			c.Remove(id)
		}
	}
}

// Remove takes a member out.
func (c *Coordinator) Remove(id string) {
	if c.members[id] != nil {
		delete(c.members, id)
		c.epoch++
	}
}

// Heartbeat answers a member.
func (c *Coordinator) Heartbeat(now time.Time, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	c.Expire(now)
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	refuse := func(code errcode.Error) *kmsg.ConsumerGroupHeartbeatResponse {
		resp.ErrorCode = code.Code()
		return resp
	}
	if req.MemberEpoch < 0 {
		return c.leave(req, resp)
	}
	m, code := c.admit(req)
	if code != 0 {
		return refuse(code)
	}
	m.seen = now
	c.subscribe(m, req)
	c.divide()
	before := maps.Clone(m.assigned)
	c.reconcile(now, m, req.Topics)
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &m.id, m.epoch, int32(c.Interval.Milliseconds())
	whole := req.MemberEpoch == 0 || req.RebalanceTimeoutMillis >= 0 && req.SubscribedTopicNames != nil && req.Topics != nil
	if whole || !maps.Equal(before, m.assigned) {
		resp.Assignment = assignment(m.assigned)
	}
	return resp
}

func (c *Coordinator) leave(req *kmsg.ConsumerGroupHeartbeatRequest, resp *kmsg.ConsumerGroupHeartbeatResponse) *kmsg.ConsumerGroupHeartbeatResponse {
	resp.MemberEpoch = req.MemberEpoch
	m := c.members[req.MemberID]
	switch {
	case m == nil:
		resp.ErrorCode = errcode.UnknownMemberID.Code()
	case req.MemberEpoch == -2:
		m.away = true
		m.epoch = -2
	default:
		c.Remove(req.MemberID)
	}
	return resp
}

// admit finds or makes the member.
func (c *Coordinator) admit(req *kmsg.ConsumerGroupHeartbeatRequest) (*member, errcode.Error) {
	m := c.members[req.MemberID]
	if req.MemberEpoch == 0 {
		if len(req.Topics) > 0 || req.Topics == nil || req.RebalanceTimeoutMillis < 0 || req.SubscribedTopicNames == nil && req.SubscribedTopicRegex == nil || req.MemberID == "" {
			return nil, errcode.InvalidRequest
		}
		return c.join(m, req)
	}
	if m == nil {
		return nil, errcode.UnknownMemberID
	}
	if req.MemberEpoch > m.epoch || req.MemberEpoch < m.epoch && !(req.MemberEpoch == m.previous && c.within(m, req.Topics)) {
		return nil, errcode.FencedMemberEpoch
	}
	return m, 0
}

// within tells whether a member owns nothing but what it is assigned: then it has only missed an answer.
func (c *Coordinator) within(m *member, owned []kmsg.ConsumerGroupHeartbeatRequestTopic) bool {
	if owned == nil {
		return false
	}
	for p := range partitions(owned) {
		if !m.assigned[p] {
			return false
		}
	}
	return true
}

func (c *Coordinator) join(m *member, req *kmsg.ConsumerGroupHeartbeatRequest) (*member, errcode.Error) {
	if m != nil {
		return m, 0
	}
	c.made++
	m = &member{id: req.MemberID, order: c.made, assigned: map[Partition]bool{}, revoking: map[Partition]bool{}}
	if req.InstanceID != nil {
		m.instance = *req.InstanceID
		for id, other := range c.members {
			if other.instance != m.instance {
				continue
			}
			if !other.away {
				return nil, errcode.UnreleasedInstanceID
			}
			m.order, m.assigned, m.names, m.pattern = other.order, other.assigned, other.names, other.pattern
			for p, owner := range c.target {
				if owner == id {
					c.target[p] = m.id
				}
			}
			delete(c.members, id)
			c.members[m.id] = m
			return m, 0
		}
	}
	c.members[m.id] = m
	c.epoch++
	return m, 0
}

func (c *Coordinator) subscribe(m *member, req *kmsg.ConsumerGroupHeartbeatRequest) {
	if req.RebalanceTimeoutMillis >= 0 {
		m.timeout = time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond
	}
	if req.SubscribedTopicNames != nil && !slices.Equal(req.SubscribedTopicNames, m.names) {
		m.names = req.SubscribedTopicNames
		c.epoch++
	}
	if req.SubscribedTopicRegex != nil && *req.SubscribedTopicRegex != m.pattern {
		m.pattern = *req.SubscribedTopicRegex
		c.epoch++
	}
}

func (m *member) wants(name string) bool {
	if slices.Contains(m.names, name) {
		return true
	}
	whole, err := regexp.Compile("^(?:" + m.pattern + ")$")
	return m.pattern != "" && err == nil && whole.MatchString(name)
}

// divide gives every partition to the one with the least of those that want it, and leaves where it
// is what is nowhere too many.
func (c *Coordinator) divide() {
	if c.targetEpoch == c.epoch {
		return
	}
	c.targetEpoch = c.epoch
	members := slices.SortedFunc(maps.Values(c.members), func(a, b *member) int { return a.order - b.order })
	before := c.target
	c.target = map[Partition]string{}
	count := map[string]int{}
	for _, p := range c.partitions() {
		var least *member
		for _, m := range members {
			if m.wants(c.Topics[p.Topic].Name) && (least == nil || count[m.id] < count[least.id]) {
				least = m
			}
		}
		if least == nil {
			continue
		}
		if m := c.members[before[p]]; m != nil && m.wants(c.Topics[p.Topic].Name) && count[m.id] <= count[least.id] {
			least = m
		}
		c.target[p] = least.id
		count[least.id]++
	}
}

func (c *Coordinator) partitions() (all []Partition) {
	ids := slices.SortedFunc(maps.Keys(c.Topics), func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	for _, id := range ids {
		for n := range c.Topics[id].Partitions {
			all = append(all, Partition{id, n})
		}
	}
	return all
}

// reconcile moves a member towards the target: it learns of nothing new before it has acknowledged
// what it is to give up, and of nothing that another one has not given up.
func (c *Coordinator) reconcile(now time.Time, m *member, owned []kmsg.ConsumerGroupHeartbeatRequestTopic) {
	switch {
	case m.state == unrevoked:
		if owned == nil {
			return
		}
		for p := range partitions(owned) {
			if m.revoking[p] {
				return
			}
		}
		m.revoking = map[Partition]bool{}
	case m.state == stable && m.epoch == c.targetEpoch:
		return
	}
	keep, revoke := map[Partition]bool{}, map[Partition]bool{}
	for p := range m.assigned {
		if c.target[p] == m.id {
			keep[p] = true
		} else {
			revoke[p] = true
		}
	}
	if len(revoke) > 0 && m.epoch != 0 && m.epoch != -2 {
		m.state, m.assigned, m.revoking, m.revokeUntil = unrevoked, keep, revoke, now.Add(m.timeout)
		return
	}
	m.state = stable
	for p, owner := range c.target {
		switch {
		case owner != m.id || keep[p]:
		case c.taken(p, m):
			m.state = unreleased
		default:
			keep[p] = true
		}
	}
	m.assigned = keep
	if m.epoch != c.targetEpoch {
		m.previous = max(m.epoch, 0)
	}
	m.epoch, m.away = c.targetEpoch, false
}

// taken tells whether a partition is another member's still.
func (c *Coordinator) taken(p Partition, by *member) bool {
	for _, m := range c.members {
		if m != by && (m.assigned[p] || m.revoking[p]) {
			return true
		}
	}
	return false
}

// partitions yields what a member says that it owns.
func partitions(owned []kmsg.ConsumerGroupHeartbeatRequestTopic) func(yield func(Partition) bool) {
	return func(yield func(Partition) bool) {
		for _, t := range owned {
			for _, n := range t.Partitions {
				if !yield(Partition{t.TopicID, n}) {
					return
				}
			}
		}
	}
}

func assignment(assigned map[Partition]bool) *kmsg.ConsumerGroupHeartbeatResponseAssignment {
	byTopic := map[[16]byte][]int32{}
	for p := range assigned {
		byTopic[p.Topic] = append(byTopic[p.Topic], p.Number)
	}
	out := &kmsg.ConsumerGroupHeartbeatResponseAssignment{}
	for _, id := range slices.SortedFunc(maps.Keys(byTopic), func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) }) {
		out.Topics = append(out.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{TopicID: id, Partitions: byTopic[id]})
	}
	return out
}
