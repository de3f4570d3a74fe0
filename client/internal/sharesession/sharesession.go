// Package sharesession keeps what a share consumer holds: which records each broker has acquired for
// it, what the program said about each, and what the broker's share session knows (KIP-932). It
// decides what a broker is asked for next, which acknowledgements travel with it, what Poll may
// return, and what is lost when a session ends, a partition gets another leader or a lock runs out.
// It is for package client/share.
//
// It refuses to know connections, requests and the group: whoever owns a Store asks what a broker is
// to be sent (Claim), sends it, and gives back what was answered (Answered, Failed). Time is an
// argument, it never waits, and nothing in it is safe for concurrent use: the owner guards it.
// Records travel through as an R.
package sharesession

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"time"
)

// What an acknowledgement is refused with, where no broker was asked or none can be.
var (
	// ErrLost says that the records are not held any more: the lock has run out, the session with the
	// broker has ended, or another broker leads the partition. Whoever is next gets them again.
	ErrLost = errors.New("the record is not held by this consumer any more")
	// ErrAcknowledged says that the record has been acknowledged before.
	ErrAcknowledged = errors.New("the record has been acknowledged already")
	// errLock is why a record was lost whose lock has run out.
	errLock = errors.New("the acquisition lock has timed out")
	// errUnanswered says that an answer leaves out a partition that was asked about.
	errUnanswered = errors.New("the broker's answer does not name the partition")
)

// Partition names a partition as the requests of share groups do.
type Partition struct {
	TopicID [16]byte
	Number  int32
}

// Compare orders by topic id, then by number.
func Compare(a, b Partition) int {
	return cmp.Or(bytes.Compare(a.TopicID[:], b.TopicID[:]), cmp.Compare(a.Number, b.Number))
}

// Kind is what is said about a record; the numbers are those of the protocol.
type Kind int8

// The kinds of acknowledgement.
const (
	Gap     Kind = 0 // there is no record at the offset
	Accept  Kind = 1
	Release Kind = 2
	Reject  Kind = 3
	Renew   Kind = 4 // the lock begins anew (KIP-1222)
)

// Run says one thing about the offsets from First to Last.
type Run struct {
	First, Last int64
	Kind        Kind
}

// Config says how records are acquired.
type Config struct {
	MaxPollRecords int
	RecordLimit    bool                             // share.acquire.mode=record_limit: one broker at a time, so that the limit is strict
	Backoff        func(failures int) time.Duration // before what failed is tried again
}

// Signals say whom the latest events concern.
type Signals struct {
	Poll     bool // there may be something for Poll
	Brokers  bool // a broker may be asked for something
	Metadata bool // what is known of leaders has proved out of date
	Answers  bool // acknowledgements were answered
}

// Result is what became of acknowledgements of one partition.
type Result struct {
	Topic     string
	Partition Partition
	Offsets   []int64 // ascending
	Err       error   // nil: they are acknowledged
}

// Store is what a consumer holds and what its sessions know.
type Store[R any] struct {
	cfg      Config
	attach   func(*R, *Held)
	cursors  map[Partition]*cursor
	sessions map[int32]*session
	ready    []chunk[R]
	handed   []*Held // by the latest Take that gave any
	marks    []*Held // marked and not yet to be sent
	failures []Failure
	wanting  bool
	closing  bool
	closed   error // with closing: why nothing can be said any more
	turn     int32 // the broker that was asked for records last, with RecordLimit
	signals  Signals

	flush       int64 // number of the latest flush
	outstanding int   // acknowledgements that are to be sent or are on their way
	watches     []*Watch
	results     []Result
}

// Failure is an error that Poll is to return.
type Failure struct {
	Topic     string // "" where it is of no partition
	Partition int32
	Err       error
}

// cursor is a partition that is or was assigned.
type cursor struct {
	Partition
	topic    string
	assigned bool
	node     int32 // that leads, and whose session holds what was acquired; -1: none known
	tenure   *tenure
	due      []ack
	dueRuns  []Run     // gaps, and what the program never sees
	until    time.Time // when the last lock ends
	failures int
	notUntil time.Time
}

// tenure is the time for which what was acquired of a partition may be acknowledged: one session with
// one leader.
type tenure struct{ lost error }

// session is what a broker knows of us.
type session struct {
	node     int32
	epoch    int32 // of the next request; initialEpoch opens a session
	known    map[Partition]bool
	flight   *flight
	failures int
	notUntil time.Time
	over     bool // Close has ended it
}

// Epochs of a session that are none.
const (
	initialEpoch = 0
	finalEpoch   = -1
)

// flight is a request under way.
type flight struct {
	acks    []sent
	fetched map[Partition]*tenure // nil where nothing is fetched
	final   bool
}

// ack is an acknowledgement that is to be sent or is under way.
type ack struct {
	*Held
	flush int64 // that it belongs to
}

// sent are acknowledgements under way.
type sent struct {
	cur    *cursor
	tenure *tenure
	acks   []ack
	runs   []Run
}

// chunk is what one answer held of a partition and Poll has not returned.
type chunk[R any] struct {
	cur     *cursor
	tenure  *tenure
	records []R
	helds   []Held
}

// Held is a record that was acquired for this consumer.
type Held struct {
	cur    *cursor
	tenure *tenure
	offset int64
	until  int64 // ns since 1970 when its lock ends
	mark   Kind  // that the program wants
	flying Kind  // that is on its way, while it is
	state  held
}

// held are facts about a Held.
type held uint8

const (
	touched held = 1 << iota // it has been acknowledged somehow
	marked                   // in Store.marks
	due                      // in cursor.due
	flying
	done
)

// New makes a store that reads nothing. attach tells a record how it is held.
func New[R any](cfg Config, attach func(*R, *Held)) *Store[R] {
	return &Store[R]{cfg: cfg, attach: attach, cursors: map[Partition]*cursor{}, sessions: map[int32]*session{}, turn: -1}
}

// Signals gives whom the events since the last call concern.
func (s *Store[R]) Signals() Signals {
	out := s.signals
	s.signals = Signals{}
	return out
}

// Nodes gives the brokers that may be asked for something, sorted.
func (s *Store[R]) Nodes() []int32 {
	nodes := make([]int32, 0, len(s.sessions))
	for n := range s.sessions {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	return nodes
}

// Assign replaces what is read. The names are those of the topics. What was acquired of a partition
// that is not read any more may still be acknowledged; what Poll has not returned of it is released.
func (s *Store[R]) Assign(now time.Time, partitions map[Partition]string) {
	for p, cur := range s.cursors {
		if _, stays := partitions[p]; cur.assigned && !stays {
			cur.assigned = false
			s.releaseReady(now, cur)
		}
	}
	for p, topic := range partitions {
		cur := s.cursors[p]
		if cur == nil {
			cur = &cursor{Partition: p, node: -1, tenure: &tenure{}}
			s.cursors[p] = cur
		}
		cur.topic, cur.assigned = topic, true
	}
	s.sweep(now)
	s.signals.Brokers = true
}

// sweep forgets partitions that are not read and of which nothing can be acknowledged any more.
func (s *Store[R]) sweep(now time.Time) {
	for p, cur := range s.cursors {
		if !cur.assigned && len(cur.due)+len(cur.dueRuns) == 0 && !now.Before(cur.until) && !s.asked(cur) {
			delete(s.cursors, p)
		}
	}
}

// asked tells whether a partition is in a fetch under way.
func (s *Store[R]) asked(cur *cursor) bool {
	ss := s.sessions[cur.node]
	return ss != nil && ss.flight != nil && ss.flight.fetched[cur.Partition] != nil
}

// releaseReady gives back what Poll has not returned of a partition.
func (s *Store[R]) releaseReady(now time.Time, cur *cursor) {
	s.ready = slices.DeleteFunc(s.ready, func(c chunk[R]) bool {
		if c.cur != cur {
			return false
		}
		for i := range c.helds {
			h := &c.helds[i]
			h.state |= done
			if s.lostOf(now, h) == nil {
				cur.dueRuns = append(cur.dueRuns, Run{h.offset, h.offset, Release})
			}
		}
		return true
	})
	s.signals.Brokers = true
}

// Route says who leads what. What was acquired through another broker is lost with its leadership.
func (s *Store[R]) Route(leader func(topic string, p Partition) (node int32, known bool)) {
	missing := false
	for _, cur := range s.cursors {
		node, known := leader(cur.topic, cur.Partition)
		if !known {
			missing = missing || cur.assigned
			continue
		}
		if s.sessions[node] == nil && cur.assigned && !s.closing {
			s.sessions[node] = &session{node: node}
		}
		if node != cur.node {
			s.lose(cur, errMoved)
			cur.node, cur.notUntil, cur.failures = node, time.Time{}, 0
		}
	}
	s.signals.Brokers = true
	s.signals.Metadata = s.signals.Metadata || missing
}

var errMoved = errors.New("another broker leads the partition")

// Topic gives the name of a topic of which something is read; "" where it is none.
func (s *Store[R]) Topic(p Partition) string {
	if cur := s.cursors[p]; cur != nil {
		return cur.topic
	}
	return ""
}

// Partitions gives what is read, with the names of the topics.
func (s *Store[R]) Partitions() map[Partition]string {
	out := make(map[Partition]string, len(s.cursors))
	for p, cur := range s.cursors {
		if cur.assigned {
			out[p] = cur.topic
		}
	}
	return out
}

// Want says whether Poll waits for records: only then is any broker asked for some, since a record's
// lock runs from when it is acquired.
func (s *Store[R]) Want(wanting bool) {
	s.signals.Brokers = s.signals.Brokers || wanting && !s.wanting
	s.wanting = wanting
}

// Fail has Poll return an error.
func (s *Store[R]) Fail(f Failure) {
	if len(s.failures) < maxFailures {
		s.failures = append(s.failures, f)
	}
	s.signals.Poll = true
}

// maxFailures bounds the errors that wait for Poll. What fails goes on failing, and is told again.
const maxFailures = 16

// Take gives what Poll is to return: records, at most max.poll.records, or else an error. Records
// whose lock has run out meanwhile are passed over.
func (s *Store[R]) Take(now time.Time) ([]R, *Failure) {
	var records []R
	var handed []*Held
	had := len(s.ready) > 0
	for len(s.ready) > 0 && len(records) < s.cfg.MaxPollRecords {
		c := &s.ready[0]
		if c.tenure.lost != nil || now.UnixNano() >= c.helds[0].until {
			s.ready = s.ready[1:]
			continue
		}
		n := min(len(c.records), s.cfg.MaxPollRecords-len(records))
		records = append(records, c.records[:n]...)
		for i := range n {
			handed = append(handed, &c.helds[i])
		}
		if c.records, c.helds = c.records[n:], c.helds[n:]; len(c.records) == 0 {
			s.ready = s.ready[1:]
		}
	}
	if len(s.ready) == 0 {
		s.ready = nil
	}
	if len(records) == 0 && had {
		s.signals.Brokers = true // all of it was too late
	}
	if len(records) > 0 {
		s.handed = handed
		return records, nil
	}
	if len(s.failures) > 0 {
		f := s.failures[0]
		s.failures = s.failures[1:]
		return nil, &f
	}
	return nil, nil
}

// Unacknowledged counts the records of the latest Take that are held and of which nothing has been said.
func (s *Store[R]) Unacknowledged(now time.Time) (n int) {
	for _, h := range s.handed {
		if h.state&(touched|done) == 0 && s.lostOf(now, h) == nil {
			n++
		}
	}
	return n
}

// AcceptHanded accepts the records of the latest Take of which nothing has been said.
func (s *Store[R]) AcceptHanded(now time.Time) {
	for _, h := range s.handed {
		if h.state&touched == 0 {
			_ = s.Mark(now, h, Accept) // what is lost comes again, to whomever
		}
	}
	s.handed = nil
}

// Mark says something about a record; Flush has it sent. What is said twice before it is sent counts
// as said last.
func (s *Store[R]) Mark(now time.Time, h *Held, kind Kind) error {
	switch {
	case h.state&done != 0, h.state&flying != 0 && h.flying != Renew:
		if h.tenure.lost == nil || h.state&touched != 0 {
			return ErrAcknowledged
		}
		return lost(h.tenure.lost)
	case s.lostOf(now, h) != nil:
		return lost(s.lostOf(now, h))
	case s.closing: // which has released it
		return lost(s.closed)
	}
	h.mark = kind
	h.state |= touched
	if h.state&(marked|due) == 0 {
		h.state |= marked
		s.marks = append(s.marks, h)
	}
	return nil
}

// lostOf tells why a record is not held any more. Past the end of its lock an acknowledgement could
// only meet a later delivery of the same record.
func (s *Store[R]) lostOf(now time.Time, h *Held) error {
	if h.tenure.lost != nil {
		return h.tenure.lost
	}
	if now.UnixNano() >= h.until {
		return errLock
	}
	return nil
}

func lost(why error) error { return &lostError{why} }

// lostError is ErrLost with its reason.
type lostError struct{ why error }

func (e *lostError) Error() string   { return ErrLost.Error() + ": " + e.why.Error() }
func (e *lostError) Unwrap() []error { return []error{ErrLost, e.why} }

// Flush has what was said until now sent.
func (s *Store[R]) Flush(now time.Time) {
	s.flush++
	for _, h := range s.marks {
		h.state &^= marked
		s.outstanding++
		if why := s.lostOf(now, h); why != nil {
			h.state |= done
			s.answered(h.cur, []ack{{h, s.flush}}, lost(why))
			continue
		}
		h.state |= due
		h.cur.due = append(h.cur.due, ack{h, s.flush})
	}
	s.marks = s.marks[:0]
	s.signals.Brokers = true
}

// Watch waits for the answers to what has been flushed until now.
type Watch struct {
	upTo    int64
	left    int
	results []Result
}

// Done tells whether all answers are there.
func (w *Watch) Done() bool { return w.left == 0 }

// Results gives the answers so far.
func (w *Watch) Results() []Result { return w.results }

// Watch begins one. Unwatch ends it.
func (s *Store[R]) Watch() *Watch {
	w := &Watch{upTo: s.flush, left: s.outstanding}
	s.watches = append(s.watches, w)
	s.signals.Brokers = true
	return w
}

// Unwatch forgets a Watch.
func (s *Store[R]) Unwatch(w *Watch) {
	s.watches = slices.DeleteFunc(s.watches, func(o *Watch) bool { return o == w })
}

// Results gives what acknowledgements were answered since the last call.
func (s *Store[R]) Results() []Result {
	r := s.results
	s.results = nil
	return r
}

// answered ends acknowledgements of one partition that were flushed.
func (s *Store[R]) answered(cur *cursor, acks []ack, err error) {
	if len(acks) == 0 {
		return
	}
	s.outstanding -= len(acks)
	s.results = append(s.results, result(cur, acks, err))
	for _, w := range s.watches {
		mine := slices.DeleteFunc(slices.Clone(acks), func(a ack) bool { return a.flush > w.upTo })
		if len(mine) > 0 {
			w.left -= len(mine)
			w.results = append(w.results, result(cur, mine, err))
		}
	}
	s.signals.Answers = true
}

func result(cur *cursor, acks []ack, err error) Result {
	offsets := make([]int64, len(acks))
	for i, a := range acks {
		offsets[i] = a.offset
	}
	slices.Sort(offsets)
	return Result{Topic: cur.topic, Partition: cur.Partition, Offsets: offsets, Err: err}
}

// lose ends what was acquired of a partition.
func (s *Store[R]) lose(cur *cursor, why error) {
	gone := cur.tenure
	gone.lost = why
	cur.tenure, cur.dueRuns = &tenure{}, nil
	s.ready = slices.DeleteFunc(s.ready, func(c chunk[R]) bool { return c.tenure == gone })
	waiting := cur.due
	cur.due = nil
	for _, a := range waiting {
		a.state = a.state&^due | done
	}
	s.answered(cur, waiting, lost(why))
}

// loseSession ends everything that one broker has acquired for us.
func (s *Store[R]) loseSession(ss *session, why error) {
	ss.epoch, ss.known = initialEpoch, nil
	ss.over = ss.over || s.closing // nobody waits for a broker that does not answer
	for _, cur := range s.cursors {
		if cur.node == ss.node {
			s.lose(cur, why)
		}
	}
}

// Close has every session end: what was said is sent, and everything else is released, which the end
// of a session does by itself. What is said from now on is lost, and why is the reason.
func (s *Store[R]) Close(now time.Time, why error) {
	s.Flush(now)
	s.closed = why
	s.closing, s.ready, s.wanting = true, nil, false
	for _, ss := range s.sessions {
		ss.over = ss.epoch == initialEpoch && ss.flight == nil
	}
	s.signals.Brokers = true
}

// Closed tells whether every session has ended after Close.
func (s *Store[R]) Closed() bool {
	for _, ss := range s.sessions {
		if !ss.over {
			return false
		}
	}
	return s.closing
}
