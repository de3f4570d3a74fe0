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
	epoch int32 // that the next request must carry; guarded by sessions.mu, as are used and charged
	used  time.Time
	// peer is the connection that used it last, 0 once that has ended: then it keeps its slot only as long as there is room.
	// Guarded like used.
	peer uint64
	// charged is what the session takes of sessions.maxBytes: its highest bytes since it has a slot, for
	// maps and slices do not shrink when partitions are forgotten.
	charged int64

	ids bool // partitions are named by topic id (version 13 on)

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
	bytes     int64                     // that they take, by sessionPartition.bytes
	nextKey   int
	newsOrder []*sessionPartition // partitions to read, the longest unread first; each at most once
}

type sessionKey struct {
	topic   string
	topicID metadata.UUID
	number  int32
}

// sessionPartition is one partition of a session. There may be hundreds of thousands, and most are
// idle, so the fields are in the order that packs them.
type sessionPartition struct {
	key     int
	topic   string // as named by the client; with ids, as found last
	topicID metadata.UUID

	offset    int64
	partition *replica.Partition // nil: not found yet

	// What the client was told last; incremental responses leave out what has not changed.
	toldWatermark, toldStart int64

	*outcome // of the request that reads the partition, nil unless answered

	number      int32
	leaderEpoch int32 // that the client believes in, -1: none
	lastEpoch   int32 // of the last record that the client has, -1: none
	maxBytes    int32

	toldAny  bool
	inNews   bool // may have something to read
	listed   bool // stands in newsOrder, perhaps only until the next pass over it
	held     bool // result holds records to be sent or closed
	moved    bool // since it was read
	answered bool // it is part of the response
}

// outcome is what one request has read of a partition.
type outcome struct {
	result    replica.Result
	aborted   []commitlog.AbortedTransaction
	err       error
	diverging *divergence
	nearest   int32 // the replica that the client should read from instead (KIP-392), noReplica for this one
}

// sessionPartitionBytes is what a partition takes in a session besides its topic's name: itself, its
// places in the session's maps and lists, and the watch on it. (The first watch on a partition takes
// some 200 bytes more, which grow with the node's partitions and not with its sessions.) Measured, and
// checked by a test.
const sessionPartitionBytes = 384

// bytes is what the partition takes; memory for names comes in sizes up to an eighth apart. Several
// may share one name, which is counted for each, so that forgetting one of them never gives back what
// the others hold on to. With ids the name is the image's.
func (k sessionKey) bytes() int64 { return sessionPartitionBytes + int64(len(k.topic))*9/8 }

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
				s.bytes += k.bytes()
				s.byName[k], s.byKey[p.key] = p, p
				s.list = append(s.list, p)
			}
			p.offset, p.maxBytes = asked.FetchOffset, asked.PartitionMaxBytes
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
				s.bytes -= k.bytes()
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
		if f.hasBeyond(partition, p.offset) {
			return true
		}
	}
	return missing == len(s.byName)
}

// sessions is the cache of all sessions.
type sessions struct {
	slots    int   // max.incremental.fetch.session.cache.slots: with all taken by others in use, readers go without
	maxBytes int64 // that all take together
	mu       sync.Mutex
	rand     *rand.Rand
	byID     map[int32]*session
	bytes    int64 // what the sessions in byID are charged with
}

// sessionIdle is how long a session that is not used keeps its slot against a newcomer (KIP-227), while its connection
// lasts.
const sessionIdle = 2 * time.Minute

// LeastFetchSessionBytes is the least that bounds the partitions of all sessions together, those that do
// not exist included: some 300,000 on a node with names of 40 characters. Where the process has much
// memory the bound is higher (Options.FetchSessionBytes). Past it, and with no session idle for so long
// that it may be ended, readers go without a session: a new one is not kept, and one that grows ends
// with the response (KIP-227: id 0 in it), so that the client names all its partitions in each
// request. Such a request holds its partitions only until it is answered, and no more of them than
// its frame has room for: 16 bytes each.
const LeastFetchSessionBytes = 128 << 20

func newSessions(slots int, bytes int64, r *rand.Rand) *sessions {
	return &sessions{slots: slots, maxBytes: bytes, rand: r, byID: map[int32]*session{}}
}

// joinSession gives f the session that the request belongs to, or the error that there is none.
func (h *Handler) joinSession(f *fetchRequest, q *kmsg.FetchRequest, peer uint64) {
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
		f.toRead = len(f.session.newsOrder)
		if q.Version >= 7 && q.SessionEpoch == initial {
			f.known = h.sessions.add(f.session, peer, now)
		}
		return
	}
	s, refused := h.sessions.next(q, peer, now)
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
	f.toRead = len(s.newsOrder)
	// Nothing is left to remember, or too much.
	if len(s.byName) == 0 || !h.sessions.charge(s, now) {
		h.sessions.remove(s.id)
		f.known = false
	}
	s.leave()
}

// add gives s a slot and an id, if there is room: free, or of sessions that nobody uses.
func (c *sessions) add(s *session, peer uint64, now time.Time) bool {
	c.mu.Lock()
	evicted, ok := c.makeRoomLocked(s, 1, s.bytes, now)
	if ok {
		for s.id == 0 || c.byID[s.id] != nil {
			s.id = c.rand.Int32()
		}
		s.epoch, s.used, s.peer, s.charged = 1, now, peer, s.bytes
		c.byID[s.id] = s
		c.bytes += s.charged
	}
	c.mu.Unlock()
	for _, other := range evicted {
		other.retire()
	}
	return ok
}

// charge counts what s has grown by. False: there is no room for that, and s has to be removed. The
// caller has the session's turn.
func (c *sessions) charge(s *session, now time.Time) bool {
	c.mu.Lock()
	var evicted []*session
	ok := true
	// A session that was evicted meanwhile is not charged any more; it ends with its last request.
	if grown := s.bytes - s.charged; grown > 0 && c.byID[s.id] == s {
		if evicted, ok = c.makeRoomLocked(s, 0, grown, now); ok {
			s.charged += grown
			c.bytes += grown
		}
	}
	c.mu.Unlock()
	for _, other := range evicted {
		other.retire()
	}
	return ok
}

// makeRoomLocked makes room for slots and bytes more, by ending as many sessions besides s as it
// takes that were idle for sessionIdle or lost their connection, the longest idle first. The caller retires them.
func (c *sessions) makeRoomLocked(s *session, slots int, bytes int64, now time.Time) (evicted []*session, ok bool) {
	fits := func() bool { return len(c.byID)+slots <= c.slots && c.bytes+bytes <= c.maxBytes }
	if fits() {
		return nil, true
	}
	if s.charged+bytes > c.maxBytes {
		return nil, false // not even alone
	}
	var idle []*session
	for _, other := range c.byID { // rare: only at the limit
		if other != s && (other.peer == 0 || now.Sub(other.used) >= sessionIdle) {
			idle = append(idle, other)
		}
	}
	slices.SortFunc(idle, func(a, b *session) int { return a.used.Compare(b.used) })
	for i, other := range idle {
		if c.forgetLocked(other); fits() {
			return idle[:i+1], true
		}
	}
	return idle, false
}

// forgetLocked gives back what s was charged with. Without a slot it is charged with nothing more.
func (c *sessions) forgetLocked(s *session) {
	delete(c.byID, s.id)
	c.bytes -= s.charged
	s.charged = 0
}

// next finds the session of an incremental request and checks that none was left out or doubled.
func (c *sessions) next(q *kmsg.FetchRequest, peer uint64, now time.Time) (*session, *kerr.Error) {
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
	s.used, s.peer = now, peer
	return s, nil
}

// abandon notes that a connection has ended: whoever needs room may end the sessions that it used last.
func (c *sessions) abandon(peer uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.byID { // at most slots, once for each connection
		if s.peer == peer {
			s.peer = 0
		}
	}
}

func (c *sessions) remove(id int32) {
	c.mu.Lock()
	s := c.byID[id]
	if s != nil {
		c.forgetLocked(s)
	}
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
