package membership

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/errcode"
)

// ConsumerHeartbeat is joining, living, acknowledging and changing the subscription in one, by the
// consumer protocol. It is answered with Reconciler.Answered. A Leave of that protocol is one too.
type ConsumerHeartbeat struct {
	Flight  Flight
	To      int32
	Request *kmsg.ConsumerGroupHeartbeatRequest
	Leaves  bool // answered with Left, whatever becomes of it
}

func (ConsumerHeartbeat) action() {}

// Epochs that a heartbeat carries and that are no epochs (KIP-848).
const (
	epochToJoin        = 0
	epochToLeave       = -1
	epochToLeaveStatic = -2 // and to come back: the partitions stay reserved
)

// Reconciler is a member by the consumer protocol (KIP-848). The coordinator says what is to be
// owned, and the Reconciler brings it about: what is not to be owned any more is given up first, then
// acknowledged, and what is new is taken over. It is not safe for concurrent use. After each event
// the caller takes the actions, and sees to it that Tick comes at the Deadline.
type Reconciler struct {
	core

	wanted subscription // what the program wants now
	last   subscription // what it wanted last that was something: a member that goes does not change it

	id       string
	epoch    int32 // epochToJoin while it is no member
	joins    bool  // a heartbeat that joins may have reached the coordinator
	interval time.Duration

	target    []topicPartitions // what the coordinator wants to be owned, as it said last
	hasTarget bool
	names     map[[16]byte]string // of the topics of the target, where they are known
	ids       map[string][16]byte // of the topics that are owned
	looked    bool                // the target and what is owned have been compared since either changed
	claims    []topicPartitions   // what claimed gave last; nil when it has to be made anew
	sent      sentState
}

// subscription is to topics, by name and by the coordinator's expression, which is for RE2/J.
type subscription struct {
	topics  []string // sorted
	pattern string
}

func (s subscription) none() bool { return len(s.topics) == 0 && s.pattern == "" }

func (s subscription) equal(o subscription) bool {
	return slices.Equal(s.topics, o.topics) && s.pattern == o.pattern
}

// sentState is what the coordinator has been told, as far as it is certain to know.
type sentState struct {
	certain bool
	subscription
	usedPattern bool // it must be told that there is none
	claimed     []topicPartitions
}

// topicPartitions are partitions of a topic, by id, sorted.
type topicPartitions struct {
	id         [16]byte
	partitions []int32
}

func equalTopics(a, b topicPartitions) bool {
	return a.id == b.id && slices.Equal(a.partitions, b.partitions)
}

// NewReconciler makes a member that waits for Subscribe.
func NewReconciler(cfg Config) *Reconciler {
	return &Reconciler{
		core: core{cfg: cfg, coordinator: -1}, id: cfg.MemberID,
		names: map[[16]byte]string{}, ids: map[string][16]byte{},
	}
}

// Generation gives the identity to commit under; false where there is none. The generation is the
// member's epoch.
func (r *Reconciler) Generation() (id string, epoch int32, ok bool) {
	return r.id, r.epoch, r.state == member
}

// Subscribed tells whether the program wants to be a member.
func (r *Reconciler) Subscribed() bool { return !r.wanted.none() }

// Settled tells whether the member owns what the coordinator wants, and has told so.
func (r *Reconciler) Settled() bool {
	gone, added, unresolved := r.difference()
	return r.state == member && r.hasTarget && !r.telling() && !unresolved && len(gone)+len(added) == 0 && !r.hasNews()
}

// Watched gives the topics whose metadata matters, by name.
func (r *Reconciler) Watched() []string {
	topics := slices.Clone(r.wanted.topics)
	for name := range r.ids {
		topics = append(topics, name)
	}
	for _, name := range r.names { // which are about to be owned
		topics = append(topics, name)
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// Unresolved gives the ids of topics that are to be owned and whose names are not known: the brokers
// may know a topic before we do (trap 24).
func (r *Reconciler) Unresolved() [][16]byte {
	var ids [][16]byte
	for _, t := range r.target {
		if r.names[t.id] == "" {
			ids = append(ids, t.id)
		}
	}
	return ids
}

// Deadline gives when Tick is wanted next; false where only other events matter.
func (r *Reconciler) Deadline() (at time.Time, ok bool) {
	if r.state == member || r.state == unjoined && !r.telling() {
		switch {
		case r.coordinator < 0 && r.finding == 0:
			at, ok = r.notBefore, true
		case r.coordinator >= 0 && r.beat == 0:
			at, ok = r.nextBeat, true
		}
	}
	if r.pollMatters() {
		if limit := r.polled.last.Add(r.cfg.MaxPollInterval); !ok || limit.Before(at) {
			at, ok = limit, true
		}
	}
	return at, ok
}

// Subscribe says which topics the program wants, by name and by an expression that the coordinator
// matches whole names with; nothing means that it wants to be no member.
func (r *Reconciler) Subscribe(now time.Time, topics []string, pattern string) {
	if r.closing || r.state == ended {
		return
	}
	wanted := subscription{slices.Compact(slices.Sorted(slices.Values(topics))), pattern}
	if wanted.equal(r.wanted) {
		return
	}
	r.wanted = wanted
	if r.Subscribed() {
		r.last = wanted
		if r.state == out {
			r.polled.last = now
		}
	}
	r.advance(now)
}

// Metadata says what topics of the target are called, by id: those that the caller knows.
func (r *Reconciler) Metadata(now time.Time, names map[[16]byte]string) {
	for _, t := range r.target {
		if name := names[t.id]; name != "" && name != r.names[t.id] {
			r.names[t.id] = name
			r.looked = false
		}
	}
	r.advance(now)
}

// PollBegan says that the program waits for records.
func (r *Reconciler) PollBegan(now time.Time) {
	r.polled.inside, r.polled.last = true, now
	r.polled.expired = false
	r.advance(now)
}

// Close ends the membership: what is owned is given up, then the member leaves; a static one says
// that it comes back. Gone follows.
func (r *Reconciler) Close(now time.Time) {
	if r.closing || r.state == ended {
		return
	}
	r.closing = true
	r.wanted = subscription{}
	r.advance(now)
}

// Tick does what is due.
func (r *Reconciler) Tick(now time.Time) {
	r.pollTick(now)
	r.advance(now)
}

// CallDone says that the program has been told.
func (r *Reconciler) CallDone(now time.Time) {
	c := r.call
	if c == nil {
		return
	}
	r.told(c)
	r.moved()
	for name := range r.ids {
		if !slices.ContainsFunc(r.owned, func(tp assignor.TopicPartition) bool { return tp.Topic == name }) {
			delete(r.ids, name)
		}
	}
	r.advance(now)
}

// TakeCall gives what the program is to be told now; CallDone must follow. There is one at a time.
// Assigned partitions are owned from now on, revoked and lost ones until CallDone.
func (r *Reconciler) TakeCall() (Call, bool) {
	c, ok := r.core.TakeCall()
	if ok && c.Kind == Assigned {
		for name, id := range c.TopicIDs {
			r.ids[name] = id
		}
		r.moved()
	}
	return c, ok
}

func (r *Reconciler) wants() bool { return r.Subscribed() && !r.closing && !r.polled.expired }

// advance takes every step that can be taken now.
func (r *Reconciler) advance(now time.Time) {
	for r.step(now) {
	}
	if r.call == nil && len(r.then) > 0 {
		r.emit(Tell{})
	}
}

// step takes one step; false where there is none.
func (r *Reconciler) step(now time.Time) bool {
	if r.state == ended || r.state == leaving {
		return false
	}
	if !r.wants() {
		return r.stepOut(now)
	}
	switch r.state {
	case out:
		if r.parting != 0 {
			return false // the member keeps its id: what leaves must not overtake what joins
		}
		r.state = unjoined
		return true
	case unjoined:
		return !r.telling() && r.stepSession(now)
	default:
		return r.reconcile() || r.stepSession(now)
	}
}

// reconcile takes the next step towards the target: first what is given up, so that others can have
// it, then what is new.
func (r *Reconciler) reconcile() bool {
	if r.looked || r.telling() || !r.hasTarget {
		return false
	}
	gone, added, _ := r.difference()
	switch {
	case len(gone) > 0:
		r.then = append(r.then, Call{Kind: Revoked, Partitions: gone})
	case len(added) > 0:
		ids := map[string][16]byte{}
		for _, t := range r.target {
			if name := r.names[t.id]; name != "" {
				ids[name] = t.id
			}
		}
		r.then = append(r.then, Call{Kind: Assigned, Partitions: added, TopicIDs: ids})
	default:
		r.looked = true
		return false
	}
	return true
}

// moved has everything looked at again that depends on what is owned or is to be.
func (r *Reconciler) moved() { r.looked, r.claims = false, nil }

// difference gives what is owned and not to be, what is to be owned and is not, and whether there is
// something of which not even the name is known. A topic that was made anew is another: its
// partitions are gone, and added.
func (r *Reconciler) difference() (gone, added []assignor.TopicPartition, unresolved bool) {
	wanted := map[assignor.TopicPartition][16]byte{}
	for _, t := range r.target {
		name := r.names[t.id]
		unresolved = unresolved || name == ""
		if name == "" {
			continue
		}
		for _, n := range t.partitions {
			wanted[assignor.TopicPartition{Topic: name, Partition: n}] = t.id
		}
	}
	for _, tp := range r.owned {
		if id, ok := wanted[tp]; ok && id == r.ids[tp.Topic] {
			delete(wanted, tp)
			continue
		}
		gone = append(gone, tp)
	}
	for tp := range wanted {
		added = append(added, tp)
	}
	slices.SortFunc(added, assignor.Compare)
	return gone, added, unresolved
}

// stepSession keeps the session alive, whatever the program does meanwhile.
func (r *Reconciler) stepSession(now time.Time) bool {
	if r.coordinator < 0 {
		return !now.Before(r.notBefore) && r.find()
	}
	if r.beat != 0 || now.Before(r.nextBeat) && (now.Before(r.notBefore) || r.state != member || !r.hasNews()) {
		return false
	}
	r.beat = r.flight()
	r.joins = r.joins || r.epoch == epochToJoin
	r.emit(ConsumerHeartbeat{Flight: r.beat, To: r.coordinator, Request: r.heartbeatRequest()})
	return true
}

// hasNews tells whether there is something that the coordinator is to hear at once.
func (r *Reconciler) hasNews() bool {
	return r.sent.certain && (!r.last.equal(r.sent.subscription) || !slices.EqualFunc(r.claimed(), r.sent.claimed, equalTopics))
}

// stepOut gives everything up and leaves. A program that does not poll loses its partitions at
// once: nobody is there to hear of it before.
func (r *Reconciler) stepOut(now time.Time) bool {
	if r.polled.expired && !r.closing {
		if r.state == out {
			return false
		}
		r.leave()
		r.lose()
		r.state = out
		return true
	}
	if r.telling() {
		return r.state == member && r.stepSession(now) // the program finishes its work
	}
	if len(r.owned) > 0 {
		r.then = append(r.then, Call{Kind: Revoked, Partitions: r.owned})
		return true
	}
	if r.state != out {
		r.state = out
		r.leave()
		return true
	}
	return r.stepGone()
}

// leave tells the coordinator, and forgets the membership.
func (r *Reconciler) leave() {
	if r.joins && r.coordinator >= 0 {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = r.cfg.Group, r.id, epochToLeave
		if req.InstanceID = r.instance(); req.InstanceID != nil {
			req.MemberEpoch = epochToLeaveStatic
		}
		r.parting = r.flight()
		r.emit(ConsumerHeartbeat{Flight: r.parting, To: r.coordinator, Request: req, Leaves: true})
	}
	r.forgetEpoch()
	r.joins = false
}

// forgetEpoch begins anew, as one that joins.
func (r *Reconciler) forgetEpoch() {
	r.epoch, r.beat, r.nextBeat = epochToJoin, 0, time.Time{}
	r.target, r.hasTarget = nil, false
	r.moved()
	r.uncertain()
}

// uncertain has the next heartbeat tell everything.
func (r *Reconciler) uncertain() { r.sent = sentState{usedPattern: r.sent.usedPattern} }

// Left answers a heartbeat that leaves.
func (r *Reconciler) Left(now time.Time, f Flight) {
	if r.parted(f) {
		r.advance(now)
	}
}

// Found answers FindCoordinator: the coordinator's node, or why there is none.
func (r *Reconciler) Found(now time.Time, f Flight, node int32, err error) {
	known, mine := r.found(now, f, node, err)
	switch {
	case !mine:
		return
	case known:
		r.nextBeat = now
	case fatal(err):
		r.fail(fmt.Errorf("find the coordinator: %w", err))
		return
	}
	r.advance(now)
}

// CoordinatorLost says that whoever talked to this coordinator found it not to be one any more, or
// out of reach.
func (r *Reconciler) CoordinatorLost(now time.Time, node int32) {
	if r.coordinator == node {
		r.uncertain()
		r.forgetCoordinator(now)
		r.advance(now)
	}
}

// Answered answers a heartbeat.
func (r *Reconciler) Answered(now time.Time, f Flight, resp *kmsg.ConsumerGroupHeartbeatResponse, err error) {
	if f == 0 || f != r.beat {
		return
	}
	r.beat = 0
	if err == nil {
		err = errcode.Of(resp.ErrorCode, resp.ErrorMessage)
	}
	if err == nil && resp.MemberEpoch <= epochToJoin {
		err = errcode.UnknownServerError // taken over, it would have the next heartbeat leave
	}
	if err != nil {
		r.refused(now, err)
		r.advance(now)
		return
	}
	r.failures, r.trouble = 0, nil
	r.state, r.epoch = member, resp.MemberEpoch
	if resp.MemberID != nil && *resp.MemberID != "" {
		r.id = *resp.MemberID
	}
	if d := time.Duration(resp.HeartbeatIntervalMillis) * time.Millisecond; d > 0 {
		r.interval = d
	}
	r.nextBeat = now.Add(max(r.interval, r.cfg.RetryBackoff))
	if resp.Assignment != nil {
		// What the program has not heard of yet may not be meant any more.
		r.then = slices.DeleteFunc(r.then, func(c Call) bool { return c.Kind != Lost })
		r.target, r.hasTarget = nil, true
		r.moved()
		for _, t := range resp.Assignment.Topics {
			r.target = append(r.target, topicPartitions{t.TopicID, tidy(t.Partitions)})
		}
		for id := range r.names {
			if !slices.ContainsFunc(r.target, func(t topicPartitions) bool { return t.id == id }) {
				delete(r.names, id)
			}
		}
		for name, id := range r.ids {
			r.names[id] = name // what is owned has its name, whatever the metadata has just now
		}
	}
	r.advance(now)
}

// tidy sorts numbers of partitions, and drops what cannot be one.
func tidy(list []int32) []int32 {
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	return slices.DeleteFunc(list, func(n int32) bool { return n < 0 })
}

// refused deals with a heartbeat that failed.
func (r *Reconciler) refused(now time.Time, err error) {
	// What the coordinator has taken in is not certain, and it may be another one.
	r.uncertain()
	switch {
	case errors.Is(err, errcode.UnknownMemberID), errors.Is(err, errcode.FencedMemberEpoch), errors.Is(err, errcode.StaleMemberEpoch),
		errors.Is(err, errcode.GroupIDNotFound) && r.epoch != epochToJoin:
		if r.epoch == epochToJoin {
			r.backOff(now)
		}
		r.fence()
		r.nextBeat = r.notBefore
	case fatal(err):
		r.fail(fmt.Errorf("heartbeat to group %q: %w", r.cfg.Group, err))
	default:
		r.trouble = err
		if lostCoordinator(err) {
			r.coordinator = -1
		}
		r.backOff(now)
		r.nextBeat = r.notBefore
	}
}

// fence takes in that the coordinator has taken the partitions away.
func (r *Reconciler) fence() {
	r.state = unjoined
	r.forgetEpoch()
	r.lose()
}

// CommitAnswered takes in what the answer to a commit under the identity says about it; nil is a
// sign of life.
func (r *Reconciler) CommitAnswered(now time.Time, id string, epoch int32, err error) {
	err = aboutMembership(err)
	if r.state != member || id != r.id || err == nil {
		return
	}
	switch {
	case errors.Is(err, errcode.StaleMemberEpoch):
		if epoch == r.epoch && r.beat == 0 && !now.Before(r.notBefore) {
			r.nextBeat = now // the coordinator has moved on, and its answer tells to which epoch
		}
	case epoch != r.epoch:
	case errors.Is(err, errcode.UnknownMemberID), errors.Is(err, errcode.FencedMemberEpoch):
		r.fence()
	case fatal(err):
		r.fail(fmt.Errorf("commit to group %q: %w", r.cfg.Group, err))
	}
	r.advance(now)
}

// fail ends the membership. The program hears first what it has lost.
func (r *Reconciler) fail(err error) {
	r.forgetEpoch()
	r.lose()
	r.state = ended
	r.emit(Fail{err})
	if r.closing {
		r.emit(Gone{})
	}
}

// heartbeatRequest tells what has changed, and everything where it is not certain what is known.
func (r *Reconciler) heartbeatRequest() *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch, req.InstanceID = r.cfg.Group, r.id, r.epoch, r.instance()
	whole := r.epoch == epochToJoin || !r.sent.certain
	if whole {
		req.RebalanceTimeoutMillis = int32(r.cfg.MaxPollInterval.Milliseconds())
		if r.cfg.RemoteAssignor != "" {
			req.ServerAssignor = &r.cfg.RemoteAssignor
		}
		if r.cfg.Rack != "" {
			req.RackID = &r.cfg.Rack
		}
	}
	if whole || !slices.Equal(r.last.topics, r.sent.topics) {
		req.SubscribedTopicNames = append([]string{}, r.last.topics...) // empty is not the same as none
	}
	usedPattern := r.sent.usedPattern || r.last.pattern != ""
	if usedPattern && (whole || r.last.pattern != r.sent.pattern) {
		pattern := r.last.pattern
		req.SubscribedTopicRegex = &pattern // "" takes the one before back
	}
	claimed := r.claimed() // nothing where it joins
	if whole || !slices.EqualFunc(claimed, r.sent.claimed, equalTopics) {
		req.Topics = make([]kmsg.ConsumerGroupHeartbeatRequestTopic, len(claimed))
		for i, t := range claimed {
			req.Topics[i] = kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.id, Partitions: t.partitions}
		}
	}
	r.sent = sentState{certain: true, subscription: r.last, usedPattern: usedPattern, claimed: claimed}
	return req
}

// claimed gives what the coordinator is told to be owned, in the order of the ids: also what is about
// to be, since it gives to others at once whatever it thinks that nobody owns.
func (r *Reconciler) claimed() []topicPartitions {
	if r.claims != nil {
		return r.claims
	}
	byID := map[[16]byte][]int32{}
	for _, tp := range r.owned {
		id := r.ids[tp.Topic]
		byID[id] = append(byID[id], tp.Partition)
	}
	for _, t := range r.target {
		byID[t.id] = append(byID[t.id], t.partitions...)
	}
	list := make([]topicPartitions, 0, len(byID))
	for id, partitions := range byID {
		list = append(list, topicPartitions{id, tidy(partitions)})
	}
	slices.SortFunc(list, func(a, b topicPartitions) int { return bytes.Compare(a.id[:], b.id[:]) })
	r.claims = list
	return list
}
