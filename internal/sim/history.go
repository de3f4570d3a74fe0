package sim

import (
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// History is what the clients of one world have asked and been told, as plain data for the checkers. Client
// actors append to it, each for itself; it is safe for concurrent use, and takes no time.
//
// What may take effect although nobody hears of it (an Attempt, a Commit, a Change) is noted when it is asked, with
// outcome Unknown, and told its outcome later. What cannot (a Read and the like) is noted when it is answered.
type History struct {
	mu     sync.Mutex // short
	began  time.Time
	moment Moment

	attempts []*Attempt
	reads    []*Read
	ends     []*End
	commits  []*Commit
	fetches  []*Committed
	changes  []*Change
	sights   []*Sight
	trims    []*Trim
	answers  int // produce requests that were acknowledged
	finished bool
}

// Moment orders everything that clients have seen: of two events the one with the lower number came first, also
// where both have the same time. 0: never.
type Moment int64

// Span is when something was asked and answered. Returned is 0 as long as there is no answer.
type Span struct {
	Invoked, Returned Moment
	Since, Until      time.Duration // of the world's life
}

// before reports that s had its answer when o was asked.
func (s *Span) before(o *Span) bool { return s.Returned != 0 && s.Returned < o.Invoked }

// Outcome is what the one who asked knows.
type Outcome int8

const (
	Unknown Outcome = iota // it may have taken effect, or do so yet
	Done
	Refused // it has not taken effect, and never will
)

func (o Outcome) String() string { return [...]string{"unknown", "done", "refused"}[o] }

// Place is a partition of one topic, which keeps its identity while names are used again.
type Place struct {
	Topic     string
	ID        [16]byte // zero: the actor does not know it, and its topic is never deleted
	Partition int32
}

// Attempt is one produce request for one batch. A batch sent again is another Attempt with the same values.
type Attempt struct {
	h *History
	Span
	Place
	Outcome Outcome

	Client   string // who sends
	Node     int32  // who was asked
	Acks     int16
	Producer int64 // -1: none, then Epoch and Sequence are -1 too
	Epoch    int16
	Sequence int32    // of the first record
	Values   []string // of the records; no other batch in the world has the same
	Offset   int64    // of the first record, as was answered; -1 where it was not
	Err      error
}

// Read is one answer to a fetch.
type Read struct {
	Span
	Place
	Reader      string
	Node        int32
	Follower    bool  // the reader went to a replica that does not lead (KIP-392)
	LeaderEpoch int32 // that the reader named in its request, so that only who leads in it has answered; -1: none
	From        int64
	Records     []Record
	Watermark   int64
	LogStart    int64
	// Final: all nodes are well, all replicas in sync, nobody writes, and the read is one of those that go from the
	// log's start to its end.
	Final bool
}

// Record is what a reader saw of one.
type Record struct {
	Offset int64
	Epoch  int32 // leader epoch of its batch
	Value  string
}

// End is an answer to ListOffsets for the end that consumers see (-1).
type End struct {
	Span
	Place
	Reader      string
	Node        int32
	LeaderEpoch int32 // that the reader named; -1: none
	Offset      int64
}

// Trim says that records below an offset may be gone from now on: DeleteRecords was asked, or retention may take them.
type Trim struct {
	Place
	Before int64
}

// Commit is one attempt of a group to commit one offset.
type Commit struct {
	h *History
	Span
	Place
	Outcome Outcome

	Group  string
	Client string
	Node   int32
	Offset int64
	Err    error
}

// Committed is an answer to OffsetFetch for one partition.
type Committed struct {
	Span
	Place
	Group  string
	Client string
	Node   int32
	Offset int64 // -1: none
	Final  bool  // as with Read
}

// ChangeKind is what a Change changes.
type ChangeKind int8

const (
	CreateTopic ChangeKind = iota
	DeleteTopic
	GrowTopic // CreatePartitions
	AlterTopic
)

func (k ChangeKind) String() string { return [...]string{"create", "delete", "grow", "alter"}[k] }

// Change is one attempt to change topics, decided by the controller whichever node was asked.
type Change struct {
	h *History
	Span
	Kind    ChangeKind
	Outcome Outcome
	Err     error // of Kafka's codes (kerr), where it was refused

	Client     string
	Node       int32
	Topic      string
	ID         [16]byte // of the created topic, once it is known
	Partitions int32    // of CreateTopic and GrowTopic: how many there shall be
	Value      string   // of AlterTopic and CreateTopic: what the one config that is watched shall be; each value is set once only
}

// Sight is what one node has told of one topic: by Metadata, by DescribeConfigs, or both asked of one node.
type Sight struct {
	Span
	Client string
	Node   int32
	Topic  string
	Exists bool

	ID         [16]byte // zero: not asked
	Partitions int32    // 0: not asked
	Value      string   // "": not asked
	Final      bool     // as with Read
}

// NewHistory begins a history now.
func NewHistory() *History { return &History{began: time.Now()} }

// Now is the moment of something that is asked now, for the Invoked of what is noted when it is answered.
func (h *History) Now() Span {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now()
}

func (h *History) now() Span {
	h.moment++
	return Span{Invoked: h.moment, Since: time.Since(h.began)}
}

func (h *History) ended(s *Span) {
	h.moment++
	s.Returned, s.Until = h.moment, time.Since(h.began)
}

// Attempt notes a batch that is about to be sent.
func (h *History) Attempt(a Attempt) *Attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.h, a.Span, a.Offset = h, h.now(), -1
	h.attempts = append(h.attempts, &a)
	return &a
}

// End notes what came of it: err is nil, a *kerr.Error somewhere inside, or what became of the connection.
func (a *Attempt) End(offset int64, err error) Outcome {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.h.ended(&a.Span)
	a.Outcome, a.Err = produced(err), err
	if a.Outcome == Done {
		a.Offset = offset
		a.h.answers++
	}
	return a.Outcome
}

// produced says what an answer to a produce request means. Codes that are given both before an append and
// after one leave it open.
func produced(err error) Outcome {
	if err == nil {
		return Done
	}
	for _, definite := range []error{
		kerr.NotEnoughReplicas, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.MessageTooLarge, kerr.CorruptMessage,
		kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.RecordListTooLarge,
	} {
		if errors.Is(err, definite) {
			return Refused
		}
	}
	return Unknown
}

// Commit notes an offset that is about to be committed.
func (h *History) Commit(c Commit) *Commit {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.h, c.Span = h, h.now()
	h.commits = append(h.commits, &c)
	return &c
}

// End notes what came of it.
func (c *Commit) End(err error) Outcome {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.ended(&c.Span)
	c.Outcome, c.Err = committed(err), err
	return c.Outcome
}

func committed(err error) Outcome {
	if err == nil {
		return Done
	}
	for _, definite := range []error{
		kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.FencedInstanceID, kerr.StaleMemberEpoch, kerr.CoordinatorLoadInProgress,
		kerr.InvalidGroupID, kerr.GroupIDNotFound, kerr.OffsetMetadataTooLarge, kerr.RebalanceInProgress,
	} {
		if errors.Is(err, definite) {
			return Refused
		}
	}
	return Unknown
}

// Change notes a change of topics that is about to be asked for.
func (h *History) Change(c Change) *Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.h, c.Span = h, h.now()
	h.changes = append(h.changes, &c)
	return &c
}

// End notes what came of it. id is that of a created topic.
func (c *Change) End(id [16]byte, err error) Outcome {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.ended(&c.Span)
	c.Outcome, c.Err = changed(err), err
	if c.Outcome == Done && c.Kind == CreateTopic {
		c.ID = id
	}
	return c.Outcome
}

func changed(err error) Outcome {
	if err == nil {
		return Done
	}
	for _, definite := range []error{
		kerr.TopicAlreadyExists, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidPartitions, kerr.InvalidReplicationFactor,
		kerr.InvalidConfig, kerr.InvalidTopicException, kerr.InvalidRequest, kerr.PolicyViolation,
	} {
		if errors.Is(err, definite) {
			return Refused
		}
	}
	return Unknown
}

// Read notes an answer; asked is what Now returned before the question.
func (h *History) Read(asked Span, r Read) {
	h.answered(asked, func(s Span) { r.Span, h.reads = s, append(h.reads, &r) })
}

// EndOffset notes an answer; asked as with Read.
func (h *History) EndOffset(asked Span, e End) {
	h.answered(asked, func(s Span) { e.Span, h.ends = s, append(h.ends, &e) })
}

// Committed notes an answer; asked as with Read.
func (h *History) Committed(asked Span, c Committed) {
	h.answered(asked, func(s Span) { c.Span, h.fetches = s, append(h.fetches, &c) })
}

// Sight notes an answer; asked as with Read.
func (h *History) Sight(asked Span, seen Sight) {
	h.answered(asked, func(s Span) { seen.Span, h.sights = s, append(h.sights, &seen) })
}

// answered ends the span of a question now, and has the answer kept with it.
func (h *History) answered(asked Span, keep func(Span)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended(&asked)
	keep(asked)
}

// Trim is to be called before records are deleted.
func (h *History) Trim(t Trim) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trims = append(h.trims, &t)
}

// Finish says that everything has been read that there was in the end. Of a history that breaks off before that nobody can say
// what is lost.
func (h *History) Finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished = true
}

// Answers counts the batches that have been acknowledged.
func (h *History) Answers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answers
}

// Acknowledged counts the records that have been.
func (h *History) Acknowledged() (records int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.attempts {
		if a.Outcome == Done {
			records += len(a.Values)
		}
	}
	return records
}
