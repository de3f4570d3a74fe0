package group

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// phase is where a client stands in the protocol.
type phase uint8

const (
	outside phase = iota
	joins
	syncs
	assigned // has an assignment
)

const (
	simSession   = 10 * time.Second
	simRebalance = 20 * time.Second
	simPatience  = 3 * time.Second // with answers that do not wait for other members
)

// client is a model of a consumer: one request at a time, tried again when no answer comes.
type client struct {
	world    *world
	n        int
	group    string
	topics   []string
	instance string

	gone       bool // killed, fenced, or left
	id         string
	generation int32
	phase      phase
	owned      []partitionOf
	request    int // the one whose answer is awaited; others come too late
}

func (c *client) choose() []string {
	n := 1 + c.world.rnd.IntN(len(simTopics))
	return sortedCopy(simTopics[:n])
}

func (c *client) start() { c.join() }

// ask sends a request through the network. on gets the answer, late what happens without one.
func (c *client) ask(req kmsg.Request, patience time.Duration, on func(kmsg.Response), late func()) {
	w := c.world
	c.request++
	number := c.request
	copies := 1
	switch {
	case w.fault(20):
		copies = 0
	case w.fault(30):
		copies = 2
	}
	from := Client{ID: "c" + strconv.Itoa(c.n), Host: "/10.0.0.1"}
	for range copies {
		w.after(w.delay(), func() {
			w.note("%d %T", c.n, req)
			w.arrive(req, from, func(r kmsg.Response) {
				if sync, ok := req.(*kmsg.SyncGroupRequest); ok && r.(*kmsg.SyncGroupResponse).ErrorCode == 0 {
					w.owns(sync, r.(*kmsg.SyncGroupResponse).MemberAssignment)
				}
				if w.fault(20) {
					return
				}
				w.after(w.delay(), func() {
					if c.request == number && !c.gone {
						c.request++
						on(r)
					}
				})
			})
			w.look(c.group)
		})
	}
	w.after(patience, func() {
		if c.request == number && !c.gone {
			c.request++
			late()
		}
	})
}

func (w *world) delay() time.Duration {
	if w.fault(20) {
		return w.between(time.Second, 6*time.Second)
	}
	return w.between(100*time.Microsecond, 20*time.Millisecond)
}

func (c *client) backOff(next func()) {
	number := c.request
	c.world.after(c.world.between(20*time.Millisecond, 200*time.Millisecond), func() {
		if !c.gone && c.request == number {
			next()
		}
	})
}

// lose forgets membership and joins as somebody new.
func (c *client) lose() {
	c.id, c.generation, c.owned, c.phase = "", -1, nil, outside
	c.backOff(c.join)
}

func (c *client) join() {
	c.phase = joins
	r := joining(c.group, c.id, c.topics...)
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = int32(simSession.Milliseconds()), int32(simRebalance.Milliseconds())
	if r.Version = int16(5 + c.n%5); c.n%7 == 0 {
		r.Version = 3
	}
	if c.instance != "" {
		static(r, c.instance)
		r.Version = max(r.Version, 5)
	}
	c.ask(r, simRebalance+simSession, func(resp kmsg.Response) { c.joined(resp.(*kmsg.JoinGroupResponse)) }, c.join)
}

func (c *client) joined(r *kmsg.JoinGroupResponse) {
	switch r.ErrorCode {
	case 0:
		c.id, c.generation = r.MemberID, r.Generation
		c.sync(r)
	case kerr.MemberIDRequired.Code:
		c.id = r.MemberID
		c.join()
	case kerr.UnknownMemberID.Code:
		c.lose()
	case kerr.FencedInstanceID.Code:
		c.end(&c.world.stats.fenced)
	case kerr.RebalanceInProgress.Code, kerr.NotCoordinator.Code, kerr.CoordinatorNotAvailable.Code:
		c.backOff(c.join)
	default:
		c.world.failf("client %d joins: %v", c.n, kerr.ErrorForCode(r.ErrorCode))
	}
}

func (c *client) sync(r *kmsg.JoinGroupResponse) {
	c.phase = syncs
	s := syncing(c.group, c.id, c.generation)
	if s.Version = int16(3 + c.n%3); s.Version < firstSyncProtocol {
		s.ProtocolType, s.Protocol = nil, nil
	}
	if c.instance != "" {
		s.InstanceID = &c.instance
	}
	if r.LeaderID == c.id && !r.SkipAssignment {
		s.GroupAssignment = c.world.assignment(r.Members)
	}
	c.ask(s, simRebalance, func(resp kmsg.Response) { c.synced(resp.(*kmsg.SyncGroupResponse)) }, c.join)
}

// assignment is the leader's: each topic's partitions in turn to those who subscribe to it.
func (w *world) assignment(members []kmsg.JoinGroupResponseMember) (all []kmsg.SyncGroupRequestGroupAssignment) {
	given := make(map[string]string)
	for _, topic := range simTopics {
		var subscribed []string
		for _, m := range members {
			topics := make(map[string]bool)
			if !readSubscription(m.ProtocolMetadata, topics) {
				w.failf("the leader is handed %x", m.ProtocolMetadata)
			}
			if topics[topic] {
				subscribed = append(subscribed, m.MemberID)
			}
		}
		if len(subscribed) == 0 {
			continue
		}
		slices.Sort(subscribed)
		_, n, _ := w.topics.Topic(topic)
		for p := range n {
			m := subscribed[int(p)%len(subscribed)]
			given[m] += fmt.Sprintf("%s:%d,", topic, p)
		}
	}
	for _, m := range members {
		all = append(all, kmsg.SyncGroupRequestGroupAssignment{MemberID: m.MemberID, MemberAssignment: []byte(given[m.MemberID])})
	}
	return all
}

func (c *client) synced(r *kmsg.SyncGroupResponse) {
	switch r.ErrorCode {
	case 0:
		c.phase, c.owned = assigned, c.world.partitions(r.MemberAssignment)
		c.world.stats.synced++
		c.world.note("%d owns %v in %d", c.n, c.owned, c.generation)
		c.live()
	case kerr.FencedInstanceID.Code:
		c.end(&c.world.stats.fenced)
	case kerr.UnknownMemberID.Code, kerr.IllegalGeneration.Code:
		c.lose()
	case kerr.RebalanceInProgress.Code, kerr.NotCoordinator.Code, kerr.CoordinatorNotAvailable.Code:
		c.backOff(c.join)
	default:
		c.world.failf("client %d syncs: %v", c.n, kerr.ErrorForCode(r.ErrorCode))
	}
}

// live is what a member does from now and then.
func (c *client) live() {
	number := c.request
	c.world.after(c.world.between(time.Second, 3*time.Second), func() {
		if c.gone || c.request != number {
			return
		}
		w := c.world
		switch {
		case w.fault(12):
			c.kill()
		case w.fault(8):
			c.leave()
		case w.fault(8):
			c.topics = c.choose()
			c.join()
		case w.fault(5):
			c.join() // partitions were added, or so it believes
		case len(c.owned) > 0 && w.chance(300):
			c.commit()
		default:
			c.beat()
		}
	})
}

func (c *client) beat() {
	r := beating(c.group, c.id, c.generation)
	if c.instance != "" {
		r.InstanceID = &c.instance
	}
	c.ask(r, simPatience, func(resp kmsg.Response) { c.told(resp.(*kmsg.HeartbeatResponse).ErrorCode) }, c.live)
}

func (c *client) commit() {
	at := c.owned[c.world.rnd.IntN(len(c.owned))]
	r := committing(c.group, c.id, c.generation, at.topic, at.partition, int64(c.world.steps))
	if c.instance != "" {
		r.InstanceID = &c.instance
	}
	c.ask(r, simPatience, func(resp kmsg.Response) {
		code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
		if code == 0 {
			c.world.stats.commits++
		}
		c.told(code)
	}, c.live)
}

func (c *client) told(code int16) {
	switch code {
	case 0, kerr.NotCoordinator.Code, kerr.CoordinatorNotAvailable.Code:
		c.live()
	case kerr.RebalanceInProgress.Code:
		c.join()
	case kerr.FencedInstanceID.Code:
		c.end(&c.world.stats.fenced)
	case kerr.UnknownMemberID.Code, kerr.IllegalGeneration.Code, kerr.GroupIDNotFound.Code:
		c.lose()
	default:
		c.world.failf("client %d is told %v", c.n, kerr.ErrorForCode(code))
	}
}

func (c *client) end(count *int) {
	c.gone = true
	*count++
	c.world.note("%d ends", c.n)
}

// kill ends the process; mostly it is started again, and a static member sometimes while the old
// process still lives.
func (c *client) kill() {
	w := c.world
	if c.instance == "" || !w.chance(300) {
		c.end(&w.stats.killed)
	} else {
		c.live()
	}
	if w.chance(850) {
		w.after(w.between(100*time.Millisecond, 15*time.Second), c.again)
	}
}

// again is the same program, started anew.
func (c *client) again() {
	w := c.world
	w.stats.restarted++
	next := &client{world: w, n: c.n, group: c.group, topics: c.topics, instance: c.instance}
	w.clients = append(w.clients, next)
	next.join()
}

func (c *client) leave() {
	w := c.world
	r := leaving(c.group, c.id)
	if c.instance != "" {
		r.Members[0].InstanceID = &c.instance
	}
	c.ask(r, simPatience, func(kmsg.Response) {}, func() {})
	c.end(&w.stats.left)
	if w.chance(700) {
		w.after(w.between(100*time.Millisecond, 15*time.Second), c.again)
	}
}
