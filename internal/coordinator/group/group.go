package group

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// State is where a classic group stands.
type State uint8

// A group goes from Empty or Stable to PreparingRebalance (members join), to CompletingRebalance (the
// leader assigns), to Stable; without members back to Empty. Dead is what is said of a group that
// does not exist.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
)

// String is Kafka's name of the state.
func (s State) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}[s]
}

// consumerType is the protocol type of consumers, the only one whose metadata is looked into.
const consumerType = "consumer"

// group is one classic group. A group without a record of its own, members and offsets does not
// exist, but for the time in which its first member is on the way.
type group struct {
	id string

	// Durable: changed by Replay alone, and by Failed, which takes it back.
	stored []byte // the value of the group's last record; nil: none
	topics map[string]*topicOffsets

	// From here on: this incarnation's. After a load it starts from stored.
	state        State
	before       State // the state before this one
	since        int64 // Unix milliseconds of the last change of state; never: not known
	generation   int32
	protocolType string // "": none yet
	protocol     string // chosen for this generation; "": none
	leader       *member
	members      map[string]*member
	order        []*member // as they joined
	static       map[string]*member
	pending      map[string]*member // have been given an id and have not come back with it
	supported    map[string]int     // how many members know a protocol
	joining      int                // members whose JoinGroup waits
	unsynced     int                // members that have not sent the SyncGroup of this generation
	subscribed   map[string]bool    // topics of the members of a consumer group
	readable     bool               // whether the subscriptions could be read

	joinTimer timer // when the join phase ends whoever is missing
	syncTimer timer // when members without a SyncGroup are dropped
	delay     initialDelay
}

// initialDelay is what an empty group's first rebalance waits for more members.
type initialDelay struct {
	current   time.Duration
	remaining time.Duration
	another   bool // one has joined, or was given an id to join with, since the timer was set
}

// member is a member of a group, or is pending.
type member struct {
	group     *group
	id        string
	instance  *string // of a static member
	client    Client
	session   time.Duration
	rebalance time.Duration
	protocols []protocol // most wanted first

	assignment []byte
	fresh      bool // has not yet completed a join
	owesSync   bool // of this generation
	join, sync request

	alive time.Time // the session ends here
	timer timer
}

type protocol struct {
	name     string
	metadata []byte
}

// request is a request that waits.
type request struct {
	on      bool
	deaf    bool // nobody waits for the answer
	token   Token
	version int16
}

// listens tells whether a client waits for the answer.
func (r *request) listens() bool { return r.on && !r.deaf }

func (m *member) metadata(name string) []byte {
	for i := range m.protocols {
		if m.protocols[i].name == name {
			return m.protocols[i].metadata
		}
	}
	return nil
}

func protocolsOf(req []kmsg.JoinGroupRequestProtocol) []protocol {
	n := 0
	for i := range req {
		n += len(req[i].Metadata)
	}
	all, room := make([]protocol, len(req)), make([]byte, 0, n)
	for i := range req {
		at := len(room)
		room = append(room, req[i].Metadata...)
		all[i] = protocol{name: strings.Clone(req[i].Name), metadata: room[at:len(room):len(room)]}
	}
	return all
}

// offers reports whether the member's protocols are exactly those of req, in the same order.
func (m *member) offers(req []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(m.protocols, req, func(p protocol, r kmsg.JoinGroupRequestProtocol) bool {
		return p.name == r.Name && bytes.Equal(p.metadata, r.Metadata)
	})
}

func (g *group) to(next State, now time.Time) {
	g.before, g.state, g.since = g.state, next, now.UnixMilli()
}

func (g *group) size() int { return len(g.order) }

func (g *group) allJoined() bool { return g.joining == g.size() && len(g.pending) == 0 }

// bare reports whether nothing of the group is left that would have to be remembered.
func (g *group) bare() bool {
	return g.stored == nil && len(g.topics) == 0 && len(g.order) == 0 && len(g.pending) == 0
}

// supports reports whether a member with these protocols can be in the group.
func (g *group) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == g.protocolType && slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return g.supported[p.Name] == g.size()
	})
}

func (g *group) count(m *member, by int) {
	if g.supported == nil {
		g.supported = make(map[string]int)
	}
	for i := range m.protocols {
		name := m.protocols[i].name
		if g.supported[name] += by; g.supported[name] == 0 {
			delete(g.supported, name)
		}
	}
}

func (g *group) add(m *member, protocolType string) {
	if g.members == nil {
		g.members = make(map[string]*member)
	}
	if m.instance != nil {
		if g.static == nil {
			g.static = make(map[string]*member)
		}
		g.static[*m.instance] = m
	}
	if g.size() == 0 {
		g.protocolType = protocolType
	}
	if g.leader == nil {
		g.leader = m
	}
	delete(g.pending, m.id)
	g.members[m.id] = m
	g.order = append(g.order, m)
	g.count(m, 1)
}

func (g *group) addPending(m *member) {
	if g.pending == nil {
		g.pending = make(map[string]*member)
	}
	g.pending[m.id] = m
}

// selectProtocol lets each member vote for the first of its protocols that all of them know. Of
// several with the most votes it takes the one that was first to have them.
func (g *group) selectProtocol() string {
	votes, best := make(map[string]int), ""
	for _, m := range g.order {
		i := slices.IndexFunc(m.protocols, func(p protocol) bool { return g.supported[p.name] == g.size() })
		if i < 0 {
			continue
		}
		name := m.protocols[i].name
		if votes[name]++; best == "" || votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// known checks who says to be a member.
func (g *group) known(id string, instance *string) int16 {
	if instance != nil {
		switch m := g.static[*instance]; {
		case m == nil:
			return kerr.UnknownMemberID.Code
		case m.id != id:
			return kerr.FencedInstanceID.Code
		}
	}
	if g.members[id] == nil {
		return kerr.UnknownMemberID.Code
	}
	return 0
}

// rebalanceTimeout is the longest of the members'.
func (g *group) rebalanceTimeout() (longest time.Duration) {
	for _, m := range g.order {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// readSubscriptions notes which topics the members of a consumer group have subscribed to.
func (g *group) readSubscriptions() {
	g.subscribed, g.readable = nil, false
	if g.protocolType != consumerType || (g.size() > 0 && g.protocol == "") {
		return
	}
	topics := make(map[string]bool)
	for _, m := range g.order {
		if !readSubscription(m.metadata(g.protocol), topics) {
			return
		}
	}
	g.subscribed, g.readable = topics, true
}

// readSubscription adds the topics of a consumer's subscription. Version 0 is the beginning of all
// versions: the version, and an array of names.
func readSubscription(b []byte, topics map[string]bool) bool {
	if len(b) < 6 {
		return false
	}
	n, b := int32(binary.BigEndian.Uint32(b[2:])), b[6:]
	for ; n > 0; n-- {
		if len(b) < 2 {
			return false
		}
		size := int(int16(binary.BigEndian.Uint16(b)))
		if b = b[2:]; size < 0 || len(b) < size {
			return false
		}
		if name := b[:size]; !topics[string(name)] {
			topics[string(name)] = true
		}
		b = b[size:]
	}
	return true
}

// subscribedTo reports whether a member of a consumer group uses the topic. Where the subscriptions
// cannot be read it must be assumed.
func (g *group) subscribedTo(topic string) bool {
	if g.readable {
		return g.subscribed[topic]
	}
	return g.protocolType == consumerType
}

// value is the group's record as it would be written now. assignments may be nil: then the members
// keep theirs.
func (g *group) value(assignments map[string][]byte) *kmsg.GroupMetadataValue {
	v := &kmsg.GroupMetadataValue{
		ProtocolType: g.protocolType, Generation: g.generation, CurrentStateTimestamp: g.since,
		Members: make([]kmsg.GroupMetadataValueMember, len(g.order)),
	}
	if g.protocol != "" {
		v.Protocol = &g.protocol
	}
	if g.leader != nil {
		v.Leader = &g.leader.id
	}
	for i, m := range g.order {
		assignment := m.assignment
		if assignments != nil {
			assignment = assignments[m.id]
		}
		v.Members[i] = kmsg.GroupMetadataValueMember{
			MemberID: m.id, InstanceID: m.instance, ClientID: m.client.ID, ClientHost: m.client.Host,
			RebalanceTimeoutMillis: int32(m.rebalance.Milliseconds()), SessionTimeoutMillis: int32(m.session.Milliseconds()),
			Subscription: m.metadata(g.protocol), Assignment: assignment,
		}
	}
	return v
}
