package membership

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/errcode"
)

// Member is what both protocols of groups have in common, for whoever runs one.
type Member interface {
	Actions() []Action
	Deadline() (at time.Time, ok bool)
	Tick(now time.Time)

	PollBegan(now time.Time)
	PollEnded(now time.Time)
	TakeCall() (Call, bool)
	CallDone(now time.Time)
	Close(now time.Time)

	Found(now time.Time, f Flight, node int32, err error)
	Left(now time.Time, f Flight)
	CoordinatorLost(now time.Time, node int32)
	WantCoordinator(now time.Time)
	CommitAnswered(now time.Time, id string, generation int32, err error)

	Owned() []assignor.TopicPartition
	Generation() (id string, generation int32, ok bool)
	Subscribed() bool
	Coordinator() int32
	Settled() bool
	Watched() []string
	Trouble() error
}

// core is the part of a member that does not depend on the protocol: the way to the coordinator, what
// the program is told, and whether it polls.
type core struct {
	cfg     Config
	state   state
	actions []Action
	flights Flight

	closing     bool
	coordinator int32 // -1: unknown
	finding     Flight
	request     Flight // a request under way that is no heartbeat
	parting     Flight // a request under way that leaves
	beat        Flight // the heartbeat under way
	nextBeat    time.Time
	failures    int
	trouble     error     // of the latest request, where it may pass
	notBefore   time.Time // of the next attempt

	owned  []assignor.TopicPartition // sorted
	call   *Call                     // what the program is being told now
	then   []Call                    // what it is to be told next; void once the membership is lost
	polled pollTimer
}

// pollTimer is max.poll.interval.ms: a program that does not come back to Poll gives up what it owns.
type pollTimer struct {
	inside  bool
	last    time.Time
	expired bool
}

// Actions gives what is to be done since the last call, in order.
func (c *core) Actions() []Action {
	a := c.actions
	c.actions = nil
	return a
}

// Owned gives the partitions that the member owns, sorted. It must not be changed.
func (c *core) Owned() []assignor.TopicPartition { return c.owned }

// Coordinator gives the group's coordinator, -1 while it is not known.
func (c *core) Coordinator() int32 { return c.coordinator }

// Trouble is why the latest request failed that is being tried again; nil where it did not.
func (c *core) Trouble() error { return c.trouble }

// PollEnded says that the program works on records, and starts max.poll.interval.ms anew.
func (c *core) PollEnded(now time.Time) {
	c.polled.inside, c.polled.last = false, now
}

// WantCoordinator lets a coordinator be found although no membership needs one now.
func (c *core) WantCoordinator(now time.Time) {
	if c.coordinator < 0 && c.state != ended && !now.Before(c.notBefore) {
		c.find()
	}
}

func (c *core) pollMatters() bool {
	return !c.polled.inside && !c.polled.expired && !c.closing && c.state != out && c.state != leaving && c.state != ended
}

// pollTick notices that the program has stayed away for too long.
func (c *core) pollTick(now time.Time) {
	if c.pollMatters() && !now.Before(c.polled.last.Add(c.cfg.MaxPollInterval)) {
		c.polled.expired = true
	}
}

func (c *core) emit(a Action) { c.actions = append(c.actions, a) }

func (c *core) flight() Flight {
	c.flights++
	return c.flights
}

// parted ends a request that leaves; false where it is another one.
func (c *core) parted(f Flight) bool {
	if f == 0 || f != c.parting {
		return false
	}
	c.parting = 0
	if c.state == leaving {
		c.state = out
	}
	return true
}

// stepGone ends a member that has left and is closing, once nothing is under way that says so.
func (c *core) stepGone() bool {
	switch {
	case !c.closing:
	case c.parting != 0:
		c.state = leaving
	default:
		c.state = ended
		c.emit(Gone{})
	}
	return false
}

func (c *core) find() bool {
	if c.finding != 0 {
		return false
	}
	c.finding = c.flight()
	c.emit(FindCoordinator{c.finding})
	return true
}

// telling tells whether the program has yet to be told something, or to finish what it was told.
func (c *core) telling() bool { return c.call != nil || len(c.then) > 0 }

// TakeCall gives what the program is to be told now; CallDone must follow. There is one at a time.
// Assigned partitions are owned from now on, revoked and lost ones until CallDone.
func (c *core) TakeCall() (Call, bool) {
	if c.call != nil || len(c.then) == 0 {
		return Call{}, false
	}
	next := c.then[0]
	c.then = c.then[1:]
	c.call = &next
	if next.Kind == Assigned {
		c.owned = slices.SortedFunc(slices.Values(slices.Concat(c.owned, next.Partitions)), assignor.Compare)
	}
	return next, true
}

// told ends a call: what was revoked or lost is not owned any more, and cannot be lost again.
func (c *core) told(call *Call) {
	c.call = nil
	if call.Kind == Assigned {
		return
	}
	c.owned = without(c.owned, call.Partitions)
	for i := range c.then {
		if c.then[i].Kind == Lost {
			c.then[i].Partitions = c.owned
		}
	}
	c.then = slices.DeleteFunc(c.then, func(t Call) bool { return t.Kind == Lost && len(t.Partitions) == 0 })
}

// lose reports what is owned as lost, and whatever the program was to be told is void. What it is
// being told of is not: it hears of the loss when that has returned.
func (c *core) lose() {
	c.then = nil
	if len(c.owned) > 0 {
		c.then = append(c.then, Call{Kind: Lost, Partitions: c.owned})
	}
}

// found takes in who the coordinator is; true where it is known now.
func (c *core) found(now time.Time, f Flight, node int32, err error) (known, mine bool) {
	if f == 0 || f != c.finding {
		return false, false
	}
	c.finding = 0
	if c.trouble = err; err != nil {
		c.trouble = fmt.Errorf("find the coordinator: %w", err)
		c.backOff(now)
		return false, true
	}
	c.coordinator = node
	return true, true
}

func (c *core) forgetCoordinator(now time.Time) {
	c.coordinator, c.beat = -1, 0
	c.backOff(now)
}

func (c *core) backOff(now time.Time) {
	c.failures++
	wait := c.cfg.RetryBackoffMax
	if shift := c.failures - 1; shift < 20 && c.cfg.RetryBackoff<<shift < wait {
		wait = c.cfg.RetryBackoff << shift
	}
	c.notBefore = now.Add(time.Duration(float64(wait) * (0.8 + 0.4*c.cfg.Jitter())))
}

func (c *core) instance() *string {
	if c.cfg.InstanceID == "" {
		return nil
	}
	return &c.cfg.InstanceID
}

// aboutMembership leaves of the error of a commit what it says about the member: that the offsets
// were refused for another reason is between the program and the broker.
func aboutMembership(err error) error {
	for _, code := range []errcode.Error{
		errcode.UnknownMemberID, errcode.IllegalGeneration, errcode.FencedInstanceID, errcode.FencedMemberEpoch,
		errcode.StaleMemberEpoch, errcode.RebalanceInProgress, errcode.GroupAuthorizationFailed,
	} {
		if errors.Is(err, code) {
			return err
		}
	}
	return nil
}

// without gives what is in list and not in gone.
func without(list, gone []assignor.TopicPartition) []assignor.TopicPartition {
	set := make(map[assignor.TopicPartition]bool, len(gone))
	for _, tp := range gone {
		set[tp] = true
	}
	var left []assignor.TopicPartition
	for _, tp := range list {
		if !set[tp] {
			left = append(left, tp)
		}
	}
	return left
}

// lostCoordinator tells whether an error means that somebody else coordinates, or nobody we reach.
func lostCoordinator(err error) bool {
	var code errcode.Error
	if !errors.As(err, &code) {
		return true // not even sent
	}
	switch code {
	case errcode.NotCoordinator, errcode.CoordinatorNotAvailable, errcode.Network, errcode.RequestTimedOut:
		return true
	}
	return false
}

// fatal tells whether an error is one that trying again does not mend: every code that is not
// retriable and that the protocol gives no meaning to, and that client and broker do not believe each other, for which
// TLS has no code.
func fatal(err error) bool {
	if errors.Is(err, errcode.ErrAuthentication) {
		return true
	}
	var code errcode.Error
	if !errors.As(err, &code) || code.Retriable() {
		return false
	}
	switch code {
	case errcode.UnknownServerError, errcode.RebalanceInProgress, errcode.IllegalGeneration, errcode.UnknownMemberID, errcode.MemberIDRequired:
		return false
	}
	return true
}
