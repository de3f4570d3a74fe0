package controller

import (
	"time"

	"barnabas/internal/metadata"
)

const (
	// brokenPatience is how long the connection to a broker may be broken before the broker is fenced. A process that has
	// died breaks it at once and does not come back within that time; one that is alive is connected again, or
	// sends a heartbeat on its own connection: it hurries to when its own connection breaks.
	brokenPatience = 300 * time.Millisecond
	// lateHeartbeat is how long after its connection broke a heartbeat may still be one that was on its way before.
	lateHeartbeat = 50 * time.Millisecond
	// beyondHeartbeat is how much longer than one that lives is between two heartbeats (broker.heartbeat.interval.ms) a broker
	// may be silent after its connection broke, whoever is connected now, and still be taken for the process that it was.
	beyondHeartbeat = 100 * time.Millisecond
	// behindPatience is how long a broker may be told of metadata and take none of it before it is fenced.
	behindPatience = 30 * time.Second
	// leastSession keeps a session that is configured to be nothing from making a loop of the clock.
	leastSession = 100 * time.Millisecond
	// stallsPerSession: a controller whose clock is late by more than this part of a session has stood still itself and
	// heard nobody, so it cannot tell who is dead.
	stallsPerSession = 4
)

// sessions is what a controller knows of brokers being alive: who was heard of when, and whose connection is broken. It
// decides who is overdue. It is pure: time comes in.
type sessions struct {
	timeout time.Duration // broker.session.timeout.ms
	beat    time.Duration // broker.heartbeat.interval.ms
	own     metadata.UUID // the incarnation of the broker in this process, which lives as long as anything is decided here
	brokers map[int32]*session
	// broken says since when there is no connection to a node that there was one to. It is kept by those too who do not
	// decide.
	broken map[int32]time.Time
	// broke says when that was last, also where there is one again.
	broke map[int32]time.Time
	began time.Time // when this controller began to listen, or to listen again
}

// session is one broker's, in one of its lives.
type session struct {
	epoch int64
	heard time.Time // when its session began anew; zero: it was fenced when this controller took over, and silent since
	spoke time.Time // when it was really heard of; zero: not yet
	// complete: all log directories that it is configured with are online.
	complete bool
	least    int64 // the broker takes part once its metadata has this offset
	// Its metadata as of its last heartbeat, what there was to be had then that it has not reached yet, and when it
	// last moved or had all.
	offset, due int64
	moved       time.Time
}

// begin gives every broker a fresh session: a new controller has heard of nobody yet, and none of them is dead for that.
func (t *sessions) begin(image *metadata.Image, now time.Time) {
	t.brokers, t.began = map[int32]*session{}, now
	for _, b := range image.Brokers() {
		s := &session{epoch: b.Epoch, least: image.Offset(), offset: -1, moved: now}
		if !b.Fenced {
			s.heard = now
		}
		t.brokers[b.ID] = s
	}
}

// succeed shortens the fresh session of the broker beside the controller before: that a majority has elected another is a
// sign that nobody hears it, and if it is alive it hurries to be heard.
func (t *sessions) succeed(before int32, patience time.Duration) {
	if s := t.brokers[before]; s != nil && !s.heard.IsZero() && patience < t.timeout {
		s.heard = s.heard.Add(patience - t.timeout)
	}
}

// again gives those who are alive a fresh session after this process has stood still.
func (t *sessions) again(now time.Time) {
	t.began = now
	for _, s := range t.brokers {
		if !s.heard.IsZero() {
			s.heard, s.moved = now, now
		}
	}
}

// registered begins the session of a broker's new life. least is the offset that its metadata has to reach.
func (t *sessions) registered(r *Registration, epoch int64, now time.Time, least int64) {
	t.brokers[r.ID] = &session{epoch: epoch, complete: r.Complete, heard: now, spoke: now, least: least, offset: -1, moved: now}
}

// heardOf takes a heartbeat. committed is the offset of what is committed. ready: the broker has taken over enough of it to take part;
// stuck: it has not moved for too long.
func (t *sessions) heardOf(h *metadata.Heartbeat, now time.Time, committed int64) (ready, stuck bool) {
	s := t.brokers[h.Broker]
	if s == nil || s.epoch != h.Epoch {
		s = &session{epoch: h.Epoch, least: committed, offset: -1, moved: now}
		t.brokers[h.Broker] = s
	}
	s.heard, s.spoke, s.complete = now, now, h.Complete
	if h.MetadataOffset > s.offset || h.MetadataOffset >= s.due {
		s.moved = now
	}
	if h.MetadataOffset >= s.due {
		s.due = committed
	}
	s.offset = h.MetadataOffset
	stuck = now.Sub(s.moved) > behindPatience
	return s.offset >= s.least && !stuck, stuck
}

// connection notes that the connection to a node was made, or has broken.
func (t *sessions) connection(node int32, up bool, now time.Time) {
	if t.broken == nil {
		t.broken, t.broke = map[int32]time.Time{}, map[int32]time.Time{}
	}
	if up {
		delete(t.broken, node)
	} else {
		t.broken[node], t.broke[node] = now, now // also where it was broken: what came between has been left out
	}
}

// alive reports whether the process that a broker was registered by may be alive: it has been heard of within its session, and
// is not gone with its connection. That there is a connection again says nothing of it, for another process may have been
// started in its place, which can only be told by its silence.
func (t *sessions) alive(b *metadata.Broker, now time.Time) bool {
	if t.isOwn(b) {
		return true
	}
	s := t.brokers[b.ID]
	if s == nil || s.epoch != b.Epoch || s.heard.IsZero() || !now.Before(t.deadline(s, b)) {
		return false
	}
	since, broke := t.broke[b.ID]
	if since.Before(t.began) {
		since = t.began
	}
	return !broke || s.spoke.After(since.Add(lateHeartbeat)) || now.Before(since.Add(t.beat+beyondHeartbeat))
}

// hasSpoken reports whether the process that a broker was registered by has been heard of since this node became the controller.
func (t *sessions) hasSpoken(b *metadata.Broker) bool {
	s := t.brokers[b.ID]
	return t.isOwn(b) || s != nil && s.epoch == b.Epoch && !s.spoke.IsZero()
}

// isComplete reports whether a broker has said that every log directory that it is configured with is online.
func (t *sessions) isComplete(b *metadata.Broker) bool {
	s := t.brokers[b.ID]
	return s != nil && s.epoch == b.Epoch && s.complete
}

func (t *sessions) isOwn(b *metadata.Broker) bool { return b.Incarnation == t.own && !t.own.IsZero() }

// deadline is when a broker is taken for dead unless it is heard of before.
func (t *sessions) deadline(s *session, b *metadata.Broker) time.Time {
	at := s.heard.Add(t.timeout)
	since, broken := t.broken[b.ID]
	if !broken || s.spoke.After(since.Add(lateHeartbeat)) {
		return at
	}
	if since.Before(t.began) {
		since = t.began
	}
	if !b.ShuttingDown { // one that has said that it goes has gone
		since = since.Add(brokenPatience)
	}
	if since.Before(at) {
		return since
	}
	return at
}

// overdue lists the brokers to be fenced now, and says when to look again: zero if nobody is watched.
func (t *sessions) overdue(image *metadata.Image, now time.Time) (ids []int32, next time.Time) {
	for _, b := range image.Brokers() {
		if b.Fenced || t.isOwn(b) {
			continue
		}
		s := t.brokers[b.ID]
		if s == nil || s.epoch != b.Epoch { // its registration was under way when this controller took over
			s = &session{epoch: b.Epoch, heard: now, least: image.Offset(), offset: -1, moved: now}
			t.brokers[b.ID] = s
		}
		at := t.deadline(s, b)
		if !now.Before(at) {
			ids = append(ids, b.ID)
			continue
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return ids, next
}
