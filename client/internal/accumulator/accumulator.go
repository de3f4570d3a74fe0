// Package accumulator holds what a producer has taken and not yet delivered: for each partition a
// locked queue of batches, in the order of Send. It decides when a batch is full, which batch of a
// partition may be sent next and with which sequence number, whether one that failed is sent
// again, split or given up, and how many bytes all of them may occupy. It is for package client.
//
// It refuses to know brokers, requests and callbacks: senders take batches and say what became of
// them, and what is to be told of each record travels through as a D. Time is an argument, but for
// the one timer of linger.ms and those of retries.
package accumulator

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"barnabas/internal/batch"
)

// Config says how batches are made. Names and units are those of the producer's settings.
type Config struct {
	BatchBytes      int
	Linger          time.Duration
	DeliveryTimeout time.Duration
	Idempotent      bool
	Transactional   bool // with Idempotent: epochs are the transaction coordinator's to raise
	Codec           batch.Codec
	Levels          batch.Levels
	Backoff         func(failures int) time.Duration // before a batch is sent again
	Log             *slog.Logger
}

// Hooks are what the accumulator asks of the rest of the producer. Those marked so are called with
// a queue's lock held: they must be quick and must not call a queue.
type Hooks[D any] struct {
	// Route is told that a queue has something to send. The queue is marked as scheduled until it
	// is given to Take, so it is in one place only.
	Route func(q *Queue[D])

	// Identity gives the producer id and epoch in which the queue's batches go out, other than
	// notThis, which has proved useless (batch.NoProducerID: any will do); false where they have to
	// be had first. Locked.
	Identity func(q *Queue[D], notThis int64) (id int64, epoch int16, ok bool)

	// AwaitIdentity keeps a scheduled queue until Identity has something for it, then routes it.
	AwaitIdentity func(q *Queue[D])

	// Admits, where it is not nil, tells whether a record that was given to Send in a transaction
	// (Record.Transaction) still belongs to one that takes records. Locked.
	Admits func(transaction int64) bool

	// Ended takes a batch whose outcome is known, in the partition's order. Locked.
	Ended func(b *Batch[D])

	// Failed is told, before Ended, of a batch that will not be delivered. Locked.
	Failed func(err error)

	// AfterFailed follows on Failed with no lock held.
	AfterFailed func()

	// Closing tells that nothing is to be tried again. Locked.
	Closing func() bool
}

// Accumulator is what the queues of one producer share. It is safe for concurrent use.
type Accumulator[D any] struct {
	cfg      Config
	hooks    Hooks[D]
	checker  *batch.Checker
	builders spares[*batch.Builder]
	records  spares[[]Sent[D]]
	headers  sync.Pool // of *Headers
	linger   lingering[D]
	ended    atomic.Bool // no record is taken any more
}

// New makes an accumulator. Stop ends its timers.
func New[D any](cfg Config, hooks Hooks[D]) *Accumulator[D] {
	return &Accumulator[D]{cfg: cfg, hooks: hooks, checker: batch.NewChecker()}
}

// Refuse makes Append take no more records. A Flush that follows sees all that were taken.
func (a *Accumulator[D]) Refuse() { a.ended.Store(true) }

// Stop ends the timer of linger.ms.
func (a *Accumulator[D]) Stop() { a.linger.stop() }

// NewQueue makes the queue of a partition.
func (a *Accumulator[D]) NewQueue(topic string, partition int32) *Queue[D] {
	q := &Queue[D]{acc: a, Topic: topic, Partition: partition}
	q.mu.sequencer = newSequencer()
	return q
}

func (a *Accumulator[D]) newBatch(q *Queue[D], now time.Time) *Batch[D] {
	return &Batch[D]{
		Queue: q, Records: a.records.take(), builder: a.builder(),
		born: now, deadline: now.Add(a.cfg.DeliveryTimeout), number: noNumber,
	}
}

// builder gives an empty builder, one that has been used where there is one.
func (a *Accumulator[D]) builder() *batch.Builder {
	if b := a.builders.take(); b != nil {
		return b
	}
	return batch.NewBuilder(batch.BuilderOptions{Codec: a.cfg.Codec, Levels: a.cfg.Levels, Checker: a.checker, ExpectedBytes: a.cfg.BatchBytes})
}

// recycle gives back the builder of a batch that has been built or given up.
func (a *Accumulator[D]) recycle(b *Batch[D]) {
	if worthKeeping(b.builder.Capacity(), b.builder.UncompressedSize(), 1) {
		b.builder.Reset()
		a.builders.put(b.builder)
	}
	b.builder = nil
}

// Forget ends what was told of a batch's records: whoever got the batch from Hooks.Ended has no more use for it.
func (a *Accumulator[D]) Forget(b *Batch[D]) {
	if worthKeeping(cap(b.Records), len(b.Records), int(unsafe.Sizeof(Sent[D]{}))) {
		clear(b.Records)
		a.records.put(b.Records[:0])
	}
	b.Records = nil
}

// Trim lets go of memory that has not been needed lately. It is to be called from time to time.
func (a *Accumulator[D]) Trim(now time.Time) {
	a.builders.trim(now)
	a.records.trim(now)
}

// lingering are the batches that wait for company, in the order in which their time (linger.ms)
// will be up; one timer serves all partitions.
type lingering[D any] struct {
	mu      sync.Mutex
	batches []*Batch[D]
	timer   *time.Timer
	stopped bool
}

func (l *lingering[D]) add(b *Batch[D]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.batches = append(l.batches, b)
	if len(l.batches) == 1 {
		l.armLocked(b.lingersUntil())
	}
}

func (b *Batch[D]) lingersUntil() time.Time { return b.born.Add(b.Queue.acc.cfg.Linger) }

func (l *lingering[D]) armLocked(due time.Time) {
	wait := max(time.Until(due), 0)
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.fire)
	} else {
		l.timer.Reset(wait)
	}
}

func (l *lingering[D]) fire() {
	now := time.Now()
	l.mu.Lock()
	n := 0
	for n < len(l.batches) && !l.batches[n].lingersUntil().After(now) {
		n++
	}
	due := l.batches[:n:n]
	if l.batches = l.batches[n:]; len(l.batches) == 0 {
		l.batches = nil
	} else if !l.stopped {
		l.armLocked(l.batches[0].lingersUntil())
	}
	l.mu.Unlock()
	for _, b := range due {
		b.Queue.lingered(b, now)
	}
}

func (l *lingering[D]) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped, l.batches = true, nil
	if l.timer != nil {
		l.timer.Stop()
	}
}
