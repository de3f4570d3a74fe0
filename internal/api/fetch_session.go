package api

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
)

// session is what the broker remembers of a reader (KIP-227): the partitions, where each is read
// from, what it was told last, and which of them may have news. What a request costs then follows
// from what moved, not from what the session holds.
type session struct {
	id    int32
	epoch int32 // that the next request must carry; guarded by sessions.mu
	used  time.Time
	ids   bool // partitions are named by topic id (version 13 on)

	turn  chan struct{} // one slot: a request works on the session only while it holds it
	watch *replica.Watch

	// unanswered counts requests between phase one and their answers. One whose connection ended
	// before its turn is counted for ever, which costs no more than the promise to answer at once.
	unanswered atomic.Int32

	// retired: nobody will use the session again. Whoever has the turn then ends its watches.
	retired atomic.Bool

	byName    map[sessionKey]*sessionPartition
	byKey     map[int]*sessionPartition // keys of the watch
	list      []*sessionPartition       // all of them, in the order in which the client named them
	nextKey   int
	newsOrder []*sessionPartition // partitions to read, the longest unread first; each at most once
}

type sessionKey struct {
	topic   string
	topicID metadata.UUID
	number  int32
}

// sessionPartition is one partition of a session.
type sessionPartition struct {
	key     int
	topic   string // as named by the client; with ids, as found last
	topicID metadata.UUID
	number  int32

	offset      int64
	leaderEpoch int32 // that the client believes in, -1: none
	lastEpoch   int32 // of the last record that the client has, -1: none
	maxBytes    int

	partition *replica.Partition // nil: not found yet
	inNews    bool               // may have something to read
	listed    bool               // stands in newsOrder, perhaps only until the next pass over it

	// What the client was told last; incremental responses leave out what has not changed.
	toldWatermark, toldStart int64
	toldAny                  bool

	// One request's result.
	result    replica.Result
	aborted   []commitlog.AbortedTransaction
	held      bool // result holds records to be sent or closed
	moved     bool // since it was read
	answered  bool // it is part of the response
	err       error
	diverging *divergence
}

// divergence tells a reader where the log it has seen parts from this one (KIP-595).
type divergence struct {
	epoch int32
	end   int64
}

func newSession() *session {
	return &session{
		turn: make(chan struct{}, 1), watch: replica.NewWatch(),
		byName: map[sessionKey]*sessionPartition{}, byKey: map[int]*sessionPartition{},
	}
}

// enter waits for the requests before: a client may pipeline within its session.
func (s *session) enter(ctx context.Context) bool {
	select {
	case s.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave gives the turn back, and ends the watches of a session that nobody will use again.
func (s *session) leave() {
	for {
		ended := s.retired.Load()
		if ended {
			for _, p := range s.list {
				p.unwatch(s)
			}
		}
		<-s.turn
		// Retired between the two lines above: who retired it found the turn taken and relies on us.
		if ended || !s.retired.Load() || !s.tryEnter() {
			return
		}
	}
}

func (s *session) tryEnter() bool {
	select {
	case s.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// retire ends the session's watches, now or when the request that works on it is done.
func (s *session) retire() {
	s.retired.Store(true)
	if s.tryEnter() {
		s.leave()
	}
}

func (p *sessionPartition) unwatch(s *session) {
	if p.partition != nil {
		p.partition.Unwatch(s.watch)
		p.partition = nil
	}
}

// update takes over what a request says of its partitions, and forgets those it names.
func (s *session) update(q *kmsg.FetchRequest) {
	for i := range q.Topics {
		t := &q.Topics[i]
		for j := range t.Partitions {
			asked := &t.Partitions[j]
			k := sessionKey{t.Topic, t.TopicID, asked.Partition}
			p, ok := s.byName[k]
			if !ok {
				p = &sessionPartition{key: s.nextKey, topic: t.Topic, topicID: t.TopicID, number: asked.Partition}
				s.nextKey++
				s.byName[k], s.byKey[p.key] = p, p
				s.list = append(s.list, p)
			}
			p.offset, p.maxBytes = asked.FetchOffset, int(asked.PartitionMaxBytes)
			p.leaderEpoch, p.lastEpoch = asked.CurrentLeaderEpoch, asked.LastFetchedEpoch
			if q.Version < 9 {
				p.leaderEpoch = -1
			}
			if q.Version < 12 {
				p.lastEpoch = -1
			}
			s.addNews(p)
		}
	}
	for _, t := range q.ForgottenTopics {
		for _, number := range t.Partitions {
			k := sessionKey{t.Topic, t.TopicID, number}
			if p, ok := s.byName[k]; ok {
				p.unwatch(s)
				s.quiet(p)
				delete(s.byName, k)
				delete(s.byKey, p.key)
			}
		}
	}
	if len(s.list) > len(s.byName) {
		s.list = slices.DeleteFunc(s.list, func(p *sessionPartition) bool { return s.byKey[p.key] == nil })
	}
}

// addNews puts p at the end of those to be read.
func (s *session) addNews(p *sessionPartition) {
	p.inNews = true
	if !p.listed {
		p.listed = true
		s.newsOrder = append(s.newsOrder, p)
	}
}

// quiet takes p from those to be read, until it moves or the client asks for it again.
func (s *session) quiet(p *sessionPartition) { p.inNews = false }

// collectMoves adds the partitions that moved since the last time.
func (s *session) collectMoves() {
	for _, key := range s.watch.Take() {
		if p, ok := s.byKey[key]; ok {
			p.moved = true
			s.addNews(p)
		}
	}
	// Whatever was quieted since is dropped here, in one pass over the news alone.
	kept := s.newsOrder[:0]
	for _, p := range s.newsOrder {
		if p.listed = p.inNews; p.listed {
			kept = append(kept, p)
		}
	}
	clear(s.newsOrder[len(kept):])
	s.newsOrder = kept
}

// news iterates over the partitions to be read.
func (s *session) news() iter.Seq[*sessionPartition] {
	return func(yield func(*sessionPartition) bool) {
		for _, p := range s.newsOrder {
			if p.inNews && !yield(p) {
				return
			}
		}
	}
}

// rotate moves those that were answered with records behind those that were not: with more to read
// than one response holds, everyone gets a turn.
func (s *session) rotate(answered []*sessionPartition) {
	for _, p := range answered {
		p.inNews = false
	}
	s.collectMoves()
	for _, p := range answered {
		s.addNews(p)
	}
}

// hasNews reports, without reading, whether a read would find what is answered at once: records, or
// an error. Only a request that no other works on the session with may ask.
func (s *session) hasNews(h *Handler, f *fetchRequest) bool {
	if !s.tryEnter() {
		return false
	}
	defer s.leave()
	s.collectMoves()
	image := h.o.Images.Image()
	missing := 0
	for p := range s.news() {
		partition := p.partition
		if partition == nil {
			var err error
			if partition, err = p.find(h, image, f); err != nil {
				missing++
				continue
			}
		}
		if partition.HasBeyond(p.offset, f.isolation) {
			return true
		}
	}
	return missing == len(s.byName)
}

// sessions is the cache of all sessions.
type sessions struct {
	slots int // max.incremental.fetch.session.cache.slots: with all taken by others in use, readers go without
	mu    sync.Mutex
	rand  *rand.Rand
	byID  map[int32]*session
}

// sessionIdle is how long a session that is not used keeps its slot against a newcomer (KIP-227).
const sessionIdle = 2 * time.Minute

func newSessions(slots int, r *rand.Rand) *sessions {
	return &sessions{slots: slots, rand: r, byID: map[int32]*session{}}
}

// joinSession gives f the session that the request belongs to, or the error that there is none.
func (h *Handler) joinSession(f *fetchRequest, q *kmsg.FetchRequest) {
	now := h.o.Now()
	const initial, final = 0, -1
	f.full = q.Version < 7 || q.SessionEpoch == initial || q.SessionEpoch == final
	if f.full {
		if q.Version >= 7 && q.SessionID != 0 {
			h.sessions.remove(q.SessionID)
		}
		f.session = newSession()
		f.session.ids = q.Version >= 13
		f.session.unanswered.Add(1)
		f.session.update(q)
		if q.Version >= 7 && q.SessionEpoch == initial {
			f.known = h.sessions.add(f.session, now)
		}
		return
	}
	s, refused := h.sessions.next(q, now)
	if refused != nil {
		f.code = refused.Code
		return
	}
	f.session, f.known = s, true
	if s.unanswered.Add(1) > 1 || !s.tryEnter() {
		f.late = q
		return
	}
	s.update(q)
	if len(s.byName) == 0 { // nothing is left to remember
		h.sessions.remove(s.id)
		f.known = false
	}
	s.leave()
}

// add gives s a slot and an id, if there is a slot: a free one, or one whose session nobody uses.
func (c *sessions) add(s *session, now time.Time) bool {
	c.mu.Lock()
	var evicted *session
	if len(c.byID) >= c.slots {
		for _, other := range c.byID { // rare: only with every slot taken
			if evicted == nil || other.used.Before(evicted.used) {
				evicted = other
			}
		}
		if evicted == nil || now.Sub(evicted.used) < sessionIdle {
			c.mu.Unlock()
			return false
		}
		delete(c.byID, evicted.id)
	}
	for s.id == 0 || c.byID[s.id] != nil {
		s.id = c.rand.Int32()
	}
	s.epoch, s.used = 1, now
	c.byID[s.id] = s
	c.mu.Unlock()
	if evicted != nil {
		evicted.retire()
	}
	return true
}

// next finds the session of an incremental request and checks that none was left out or doubled.
func (c *sessions) next(q *kmsg.FetchRequest, now time.Time) (*session, *kerr.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.byID[q.SessionID]
	switch {
	case !ok:
		return nil, kerr.FetchSessionIDNotFound
	case s.epoch != q.SessionEpoch:
		return nil, kerr.InvalidFetchSessionEpoch
	case s.ids != (q.Version >= 13):
		return nil, kerr.FetchSessionTopicIDError
	}
	if s.epoch++; s.epoch < 0 {
		s.epoch = 1
	}
	s.used = now
	return s, nil
}

func (c *sessions) remove(id int32) {
	c.mu.Lock()
	s := c.byID[id]
	delete(c.byID, id)
	c.mu.Unlock()
	if s != nil {
		s.retire()
	}
}

// count is how many sessions there are.
func (c *sessions) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}
