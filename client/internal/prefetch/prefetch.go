// Package prefetch holds what a consumer has fetched and not yet returned from Poll, and where it
// stands in each partition. It decides which partitions a broker is to be asked for and from which
// offset, where a position that is a name or a time begins, what becomes of a partition after each
// answer and error, when a position has to be confirmed by a new leader (KIP-320), which replica is
// read (KIP-392), and how many bytes wait for Poll. It is for package client.
//
// It refuses to know connections, requests and groups: fetchers claim partitions, and say what the
// broker answered. Time is an argument, it never waits, and nothing in it is safe for concurrent
// use: whoever owns a Store guards it. Records travel through as an R.
package prefetch

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// What ends the reading of a partition until the program decides.
var (
	ErrTopicRecreated = errors.New("the topic was deleted and made again")
	ErrNoOffset       = errors.New("the group has committed no offset of the partition")
	ErrLogTruncated   = errors.New("the log was cut below the position")
)

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Compare orders by topic, then by number.
func Compare(a, b TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// Config says how partitions are read. Names and units are those of the consumer's settings.
type Config struct {
	MaxBytes          int // fetched ahead of Poll in all
	MaxPartitionBytes int // fetched ahead of Poll of one partition
	MaxPollRecords    int
	ReadCommitted     bool
	Reset             Reset
	ReplicaLease      time.Duration                    // how long a replica that the leader named is read
	Backoff           func(failures int) time.Duration // before a partition that failed is asked for again
	Log               *slog.Logger
}

// Spot is an offset, and the leader epoch of the record before it (-1 where unknown).
type Spot struct {
	Offset      int64
	LeaderEpoch int32
}

// Leader says who leads a partition, in which epoch (-1 where unknown), and which topic it is: zero
// where the brokers are too old to tell.
type Leader struct {
	TopicID [16]byte
	Node    int32
	Epoch   int32
}

// Signals say whom the latest events concern.
type Signals struct {
	Poll     bool // there may be something for Poll
	Fetchers bool // a broker can be asked for something that it could not be asked for before
	Sources  bool // there may be nodes among the Sources that were not before
	Metadata bool // what is known of leaders has proved out of date
	Begin    bool // a partition waits again to hear where the group has committed
}

// Store is what a consumer has and where it stands.
type Store[R any] struct {
	cfg     Config
	spotOf  func(*R) Spot // of a record: its own offset
	cursors map[TopicPartition]*cursor[R]
	sorted  []*cursor[R]     // of cursors; nil when it has to be made anew
	ready   line[*cursor[R]] // with chunks, in turn
	pending int              // bytes of all cursors
	parked  int              // of which those of paused cursors
	turns   map[int32]int
	signals Signals
}

// cursor is a partition that is being read. One whose position is set anew is replaced by another,
// so what is under way for the old one is recognised and dropped.
type cursor[R any] struct {
	tp      TopicPartition
	topicID [16]byte
	anew    recreated
	leader  int32 // -1: none known
	epoch   int32 // of the leader, as the metadata has it
	behind  int   // how often in a row the metadata had an epoch before that of what was read

	replica      int32 // that the leader has named to read from; -1: the leader itself
	replicaUntil time.Time

	start     Start // to be resolved by asking the leader; Known once it has been
	next      int64 // offset to fetch
	nextEpoch int32 // leader epoch of the batch before next; -1 unknown
	validate  bool  // a new leader is to confirm that it has what lies before next
	position  int64 // offset that Poll returns next; -1 until known
	lastRead  int32 // leader epoch of the record before position; -1 unknown
	committed int64 // position as last committed by a group; -1 unknown
	chunks    []chunk[R]
	pending   int   // bytes fetched and not yet returned by Poll, decoded or not
	holder    int32 // node with an answer that is not decoded yet; -1: none
	waiting   bool  // in Store.ready
	busy      bool  // in a request
	paused    bool
	stopped   bool // an error was reported; Seek or Assign starts it again
	dropped   bool // not assigned any more
	failures  int
	notUntil  time.Time

	logStart      int64
	highWatermark int64
}

// recreated says what becomes of a partition when its topic is another one of the name.
type recreated int8

const (
	stops    recreated = iota // the program decides
	restarts                  // it is read from where the group has committed of the new one
	waits                     // the group says which topic it is: the other is waited out
)

// chunk is what one answer held of a partition.
type chunk[R any] struct {
	records []R
	bytes   int
	next    int64 // offset behind it; -1 where the position is not known any more
	err     error // what was found wrong behind the records
}

// New makes a store that reads nothing. spotOf gives a record's offset and leader epoch.
func New[R any](cfg Config, spotOf func(*R) Spot) *Store[R] {
	return &Store[R]{cfg: cfg, spotOf: spotOf, cursors: map[TopicPartition]*cursor[R]{}, turns: map[int32]int{}}
}

// Signals gives whom the events since the last call concern.
func (s *Store[R]) Signals() Signals {
	out := s.signals
	s.signals = Signals{}
	return out
}

// Clear reads nothing any more.
func (s *Store[R]) Clear() {
	for _, cur := range s.cursors {
		s.drop(cur)
	}
	clear(s.cursors)
	s.sorted = nil
}

// Add reads a partition from there, unless it is read already. id is the topic that a group means:
// one of the same name that is another is not read (the group is going to give the partition up).
// Without an id it is the first one seen, and when that is another a partition that began where a
// group has committed does so again, in the new topic; any other stops with ErrTopicRecreated.
func (s *Store[R]) Add(tp TopicPartition, id [16]byte, at Start) {
	if s.cursors[tp] != nil {
		return
	}
	cur := newCursor[R](tp, at)
	switch cur.topicID = id; {
	case id != [16]byte{}:
		cur.anew = waits
	case at.Kind == Committed:
		cur.anew = restarts
	}
	s.put(cur)
}

func (s *Store[R]) put(cur *cursor[R]) {
	s.cursors[cur.tp] = cur
	s.sorted = nil
}

func newCursor[R any](tp TopicPartition, at Start) *cursor[R] {
	cur := &cursor[R]{
		tp: tp, leader: -1, epoch: -1, replica: -1, position: -1, nextEpoch: -1, lastRead: -1, committed: -1,
		holder: -1, start: at, logStart: -1, highWatermark: -1,
	}
	if at.Kind == Offset {
		epoch := int32(-1)
		if at.InEpoch {
			epoch = at.Epoch
		}
		cur.begin(Spot{Offset: at.Number, LeaderEpoch: epoch})
	}
	return cur
}

// begin lets a partition be read from there on.
func (cur *cursor[R]) begin(at Spot) {
	cur.start = Start{}
	cur.next, cur.position = at.Offset, at.Offset
	cur.nextEpoch, cur.lastRead = at.LeaderEpoch, at.LeaderEpoch
	cur.validate = at.LeaderEpoch >= 0
}

// Remove reads a partition no longer.
func (s *Store[R]) Remove(tp TopicPartition) {
	if cur := s.cursors[tp]; cur != nil {
		s.drop(cur)
		delete(s.cursors, tp)
		s.sorted = nil
		s.signals.Fetchers = true // there is room
	}
}

// drop forgets what a cursor holds.
func (s *Store[R]) drop(cur *cursor[R]) {
	cur.dropped = true
	s.empty(cur)
}

func (s *Store[R]) empty(cur *cursor[R]) {
	s.hold(cur, -cur.pending)
	cur.chunks = nil
	if cur.waiting {
		cur.waiting = false
		s.ready.remove(func(other *cursor[R]) bool { return other == cur })
	}
}

// Seek goes on reading a partition from another position; false where it is not read. What was
// fetched of it is dropped.
func (s *Store[R]) Seek(tp TopicPartition, at Start) bool {
	old := s.cursors[tp]
	if old == nil {
		return false
	}
	s.drop(old)
	cur := newCursor[R](tp, at)
	s.succeed(old, cur)
	return true
}

// succeed puts a cursor in the place of another.
func (s *Store[R]) succeed(old, cur *cursor[R]) {
	cur.paused, cur.anew = old.paused, old.anew
	if old.anew == waits {
		cur.topicID = old.topicID
	}
	s.put(cur)
}

// hold counts bytes that have come to a partition, or gone.
func (s *Store[R]) hold(cur *cursor[R], bytes int) {
	cur.pending += bytes
	s.pending += bytes
	if cur.paused {
		s.parked += bytes
	}
}

// room tells whether more may be fetched ahead. What paused partitions have waiting does not count, or enough of it
// would stop the others for good; MaxPartitionBytes bounds it, since nothing more is fetched of them.
func (s *Store[R]) room() bool { return s.pending-s.parked < s.cfg.MaxBytes }

// SetPaused says whether Take passes over a partition.
func (s *Store[R]) SetPaused(tp TopicPartition, paused bool) {
	if cur := s.cursors[tp]; cur != nil {
		if paused && !cur.paused {
			s.parked += cur.pending
		} else if !paused && cur.paused {
			s.parked -= cur.pending
		}
		cur.paused = paused
		s.enlist(cur)
		s.signals.Fetchers = true
	}
}

// Partitions gives what is read, sorted.
func (s *Store[R]) Partitions() []TopicPartition {
	return slices.SortedFunc(maps.Keys(s.cursors), Compare)
}

// Leaderless gives a partition that nobody is known to lead, the first; false where there is none.
func (s *Store[R]) Leaderless() (TopicPartition, bool) {
	for _, cur := range s.inOrder() {
		if cur.leader < 0 && !cur.stopped {
			return cur.tp, true
		}
	}
	return TopicPartition{}, false
}

// Reads tells whether a partition is read.
func (s *Store[R]) Reads(tp TopicPartition) bool { return s.cursors[tp] != nil }

// TopicID is which topic it is that is read; zero where nothing is, or it is not known yet.
func (s *Store[R]) TopicID(tp TopicPartition) (id [16]byte) {
	if cur := s.cursors[tp]; cur != nil {
		id = cur.topicID
	}
	return id
}

// Pending is how many bytes were fetched and wait for Take.
func (s *Store[R]) Pending() int { return s.pending }

// Watermarks gives the first offset that a partition has and the one behind the last that may be
// read, as of the latest answer; false before the first.
func (s *Store[R]) Watermarks(tp TopicPartition) (low, high int64, known bool) {
	cur := s.cursors[tp]
	if cur == nil || cur.highWatermark < 0 {
		return -1, -1, false
	}
	return cur.logStart, cur.highWatermark, true
}

// Spot gives where Take goes on with a partition; false while that is not known.
func (s *Store[R]) Spot(tp TopicPartition) (Spot, bool) {
	cur := s.cursors[tp]
	if cur == nil || cur.position < 0 {
		return Spot{-1, -1}, false
	}
	return Spot{cur.position, cur.lastRead}, true
}

// Committed says that a group has committed an offset of a partition.
func (s *Store[R]) Committed(tp TopicPartition, offset int64) {
	if cur := s.cursors[tp]; cur != nil {
		cur.committed = offset
	}
}

// Uncommitted yields the spots that have moved since they were committed, until it is told to end.
func (s *Store[R]) Uncommitted(yield func(TopicPartition, Spot) bool) {
	for tp, cur := range s.cursors {
		if cur.position >= 0 && cur.position != cur.committed && !yield(tp, Spot{cur.position, cur.lastRead}) {
			return
		}
	}
}

// inOrder gives the cursors by topic and number.
func (s *Store[R]) inOrder() []*cursor[R] {
	if s.sorted == nil {
		s.sorted = slices.SortedFunc(maps.Values(s.cursors), func(a, b *cursor[R]) int { return Compare(a.tp, b.tp) })
	}
	return s.sorted
}
