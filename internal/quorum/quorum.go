package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// Quorum is one node's part in the metadata quorum. Its methods are safe for concurrent use.
type Quorum struct {
	o    Options
	log  *slog.Logger
	self uint64 // this voter
	st   *storage

	ctx     context.Context // ends when the node stops, and is what every goroutine here watches
	stop    context.CancelCauseFunc
	running sync.WaitGroup
	failed  atomic.Bool // Fatal has been told

	inbox   chan func() // the owner's; everything that touches raft goes through it
	appends chan write
	applies chan func() error // the applier's: entries and leadership in raft's order

	// The owner's alone.
	raft       *raft.RawNode
	random     *rand.Rand
	leading    metadata.Leadership // as announced last
	snapped    time.Time           // when a snapshot was last due by time
	members    map[uint64]Member   // by raft's id; more than there are now, perhaps
	routes     map[uint64]int32    // where raft's ids are reached: node ids
	voices     map[uint64]*voice   // when they were last heard of
	sending    map[uint64]bool     // a snapshot is on its way to them
	received   *snapshotFile       // the last one that came, for raft to take or to leave
	standing   *time.Timer         // this node stands for election when it fires
	down       map[int32]bool      // nodes whose connection has broken and not been made again
	ticks      int
	alone      int        // ticks without a leader
	quiet      int        // ticks since a leader was last heard
	asking     bool       // to be taken in
	led        int        // ticks for which this node has led; 0 while it does not
	rivals     int        // answers in a row that spoke of another process of this node's number
	refused    Member     // the last that was
	confirming confirming // that this node leads (confirm.go)

	following bool                 // this node has no vote and fetches what is committed (follow.go)
	fetching  bool                 // a goroutine does
	apart     int                  // answers in a row that said that what it has is not the cluster's
	fed       *entryID             // the last entry that was fetched, nil: the last that is committed
	observers map[Member]*observed // who fetches here, while this node leads (observers.go)

	unobserve  func()        // ends what the transport tells of connections
	intake     chan struct{} // one slot: a piece of a snapshot is being taken
	arriving   arriving      // guarded by intake
	joined     chan struct{} // closed once there is a log
	leaving    bool          // Close has begun; the owner's
	handedOver chan struct{} // closed by the owner when another leads and has committed all there is, or nobody can

	// The proposer's ids count up from a random number, so that a restarted node does not take its
	// former self's entries for its own.
	firstID uint64
	lastID  atomic.Uint64 // written by the owner alone

	appliedBytes int64         // since the last snapshot was begun; the applier's
	snapshotting chan struct{} // one slot: a snapshot is being written
	notBefore    atomic.Int64  // when the next may be, in Unix nanoseconds
	mu           struct {
		sync.Mutex
		status Status
		seen   seen          // beside it, for those that fetch
		moved  chan struct{} // closed and replaced when that changes
		full   bool          // the disk has refused an entry, and none has been written since
		confs  []confAt      // the newest snapshot's configuration, and those since; never empty
	}
}

// Open starts this node's part in the quorum. The snapshot that it finds is restored into the
// Machine before Open returns; what was committed after it, and leadership, follow.
// Errors: ErrDamaged, and the disk's.
func Open(ctx context.Context, o Options) (*Quorum, error) {
	o.setDefaults()
	self := voterID(o.NodeID, o.Dir.ID())
	st, file, err := openStorage(&o, self)
	if err != nil {
		return nil, fmt.Errorf("open metadata quorum: %w", err)
	}
	if snapshot := file.snapshot(); snapshot.Offset >= 0 {
		if err := o.Machine.Restore(snapshot); err != nil {
			return nil, fmt.Errorf("open metadata quorum: %w", err)
		}
	}
	q := &Quorum{
		o: o, log: o.Logger, self: self, st: st,
		inbox: make(chan func(), maxInbox), appends: make(chan write, maxAppends),
		applies: make(chan func() error, maxApplies), snapshotting: make(chan struct{}, 1),
		random:  rand.New(rand.NewPCG(o.Seed, uint64(o.NodeID))),
		members: map[uint64]Member{}, routes: map[uint64]int32{}, voices: map[uint64]*voice{}, sending: map[uint64]bool{},
		observers: map[Member]*observed{},
		intake:    make(chan struct{}, 1), joined: make(chan struct{}), handedOver: make(chan struct{}),
		standing: time.NewTimer(0), down: map[int32]bool{},
	}
	q.standing.Stop()
	q.mu.moved = make(chan struct{})
	if o.Admission {
		q.alone = o.ElectionTicks * lostAfter
	}
	q.snapped = o.Now()
	q.firstID = q.random.Uint64()>>2 + 1
	q.lastID.Store(q.firstID - 1)
	q.learn(append(file.members.Members, q.me()))
	q.reach(file.members.Addresses)
	q.mu.confs = []confAt{{file.meta.GetIndex(), file.meta.GetConfState(), file.members}}
	q.mu.status = q.idleStatus()
	if o.Transport != nil && !q.votes() {
		q.alone = o.ElectionTicks * lostAfter
	}
	if file.meta.GetIndex() > 0 {
		close(q.joined)
	}
	if err := q.newRaft(); err != nil {
		return nil, err
	}
	q.ctx, q.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	q.running.Go(q.own)
	q.running.Go(q.appendAll)
	q.running.Go(q.applyAll)
	q.listen()
	return q, nil
}

func (q *Quorum) newRaft() (err error) {
	defer recoverAs(&err, "start raft")
	meta := q.st.snapshotMeta()
	q.raft, err = raft.NewRawNode(&raft.Config{
		ID: q.self, ElectionTick: q.o.ElectionTicks, HeartbeatTick: q.o.HeartbeatTicks,
		Storage: q.st, Applied: meta.GetIndex(), AsyncStorageWrites: true,
		MaxSizePerMsg: maxMessage, MaxInflightMsgs: maxInFlight, MaxInflightBytes: maxInFlightBytes,
		MaxUncommittedEntriesSize: maxUncommitted,
		CheckQuorum:               true, PreVote: true, StepDownOnRemoval: true, DisableProposalForwarding: true,
		Logger: raftLogger{q.log},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
}

// recoverAs turns a panic of raft's (its storage failed, or its log contradicts the leader's)
// into an error: the node stops, the process need not.
func recoverAs(err *error, doing string) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: %v: %w", doing, r, ErrDamaged)
	}
}

// Close stops the node's part and waits for it; a leader first hands over to another voter. What was
// proposed and not yet applied is unknown to the proposer.
func (q *Quorum) Close() error {
	q.handOver()
	q.deafen()
	q.stop(ErrClosed)
	q.running.Wait()
	return nil
}

// fail stops everything after an error that raft cannot go on from.
func (q *Quorum) fail(err error) {
	if q.ctx.Err() != nil || q.failed.Swap(true) {
		return // the first cause counts, and closing is none
	}
	q.stop(err)
	q.o.Fatal(err)
}

// do runs f on raft's owner; false: the node has stopped.
func (q *Quorum) do(f func()) bool {
	select {
	case q.inbox <- f:
		return true
	case <-q.ctx.Done():
		return false
	}
}

// own is the owner of raft's state.
func (q *Quorum) own() {
	var err error
	defer func() {
		if err != nil {
			q.fail(err)
		}
	}()
	defer recoverAs(&err, "metadata quorum")
	// Timers post into the one inbox: a select over two ready channels picks at random, and no
	// seed would replay that.
	var tick *time.Timer
	tick = time.AfterFunc(q.nextTick(), func() {
		q.do(func() {
			q.raft.Tick()
			if q.led++; q.raft.BasicStatus().RaftState != raft.StateLeader {
				q.led = 0
			}
			q.snapshotByTime()
			if q.o.Transport != nil {
				q.seekLeader()
				if q.ticks++; q.ticks%tendEvery == 0 {
					q.tend()
				}
				if q.ticks%observerEvery == 0 {
					q.forgetObservers()
				}
			}
			tick.Reset(q.nextTick())
		})
	})
	defer tick.Stop()
	defer func() { q.standing.Stop() }()
	if isAlone(q.st.snapshotMeta().GetConfState(), q.self) {
		if err = q.raft.Campaign(); err != nil { // nobody else could lead: no reason to wait for a timeout
			return
		}
		q.ready()
	}
	for {
		select {
		case <-q.ctx.Done():
			return
		case f := <-q.inbox:
			if q.ctx.Err() != nil { // both were ready: stopping wins, always
				return
			}
			f()
			for range len(q.inbox) { // all that waits shares one Ready, so one flush
				q.takeOne()
			}
		}
		q.ready()
	}
}

// takeOne runs what waits in the inbox, if it still does: what ran before may have had to take from
// it too (send).
func (q *Quorum) takeOne() {
	select {
	case f := <-q.inbox:
		f()
	default:
	}
}

// nextTick carries jitter, so that no two nodes tick at one instant.
func (q *Quorum) nextTick() time.Duration {
	return q.o.Tick + time.Duration(q.random.Int64N(int64(time.Microsecond)))
}

// ready hands on what raft wants done, until it wants nothing.
func (q *Quorum) ready() {
	for q.raft.HasReady() && q.ctx.Err() == nil {
		rd := q.raft.Ready()
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				w := write{Message: m}
				if m.GetSnapshot() != nil {
					w.file = q.received
				}
				send(q, q.appends, w)
			case raft.LocalApplyThread:
				q.apply(func() error { return q.applyEntries(m) })
			default:
				q.transmit(m)
			}
		}
		q.confirmed(rd.ReadStates)
		q.announce()
		q.publishStatus()
	}
}

// apply queues work for the applier. Owner only.
func (q *Quorum) apply(f func() error) { send(q, q.applies, f) }

// send hands work from the owner to another goroutine. While that one's queue is full the owner
// goes on taking from its inbox: the other may be waiting to post there.
func send[T any](q *Quorum, to chan<- T, work T) {
	for {
		select {
		case to <- work:
			return
		default:
		}
		select {
		case to <- work:
			return
		case f := <-q.inbox:
			f()
		case <-q.ctx.Done():
			return
		}
	}
}

// announce tells the Machine who leads. That this node leads is told later, by the entry with
// which it begins its term: by then everything before has been applied.
func (q *Quorum) announce() {
	s := q.raft.BasicStatus()
	q.unconfirmed(s)
	l := metadata.Leadership{Epoch: int32(s.GetTerm()), Leader: q.leaderNode(s.Lead)}
	if q.leaving && l.Leader >= 0 && l.Leader != q.o.NodeID && q.st.isCommitted(s.GetCommit(), s.GetTerm()) {
		q.release()
	}
	if l == q.leading || l.Leader == q.o.NodeID && q.leading.Mine && q.leading.Epoch == l.Epoch {
		return
	}
	q.leading = l
	q.apply(func() error { q.o.Machine.Leadership(l); return nil })
}

// leaderNode is the node behind raft's id of a leader, -1 where there is none or its node is not known.
func (q *Quorum) leaderNode(lead uint64) int32 {
	if lead == raft.None {
		return -1
	}
	if node, known := q.routes[lead]; known {
		return node
	}
	return -1
}

// Propose appends records to the metadata log as one entry, if this node leads in epoch. It
// returns once the entry has its place; whether it is committed, Machine.Apply tells under the
// same id, in the order of the proposals. A change of leadership before that leaves its fate open.
// Errors: ErrNotLeader, ErrNoSpace, ErrBusy, ErrTooLarge, ErrClosed; then nothing was written.
func (q *Quorum) Propose(epoch int32, records []metadata.Record) (id uint64, err error) {
	if q.isFull() {
		return 0, fmt.Errorf("propose metadata change: %w", ErrNoSpace)
	}
	type result struct {
		id  uint64
		err error
	}
	done := make(chan result, 1)
	if !q.do(func() {
		id, err := q.propose(epoch, records)
		done <- result{id, err}
	}) {
		return 0, fmt.Errorf("propose metadata change: %w", ErrClosed)
	}
	select {
	case r := <-done:
		if r.err != nil {
			return 0, fmt.Errorf("propose metadata change: %w", r.err)
		}
		return r.id, nil
	case <-q.ctx.Done():
		return 0, fmt.Errorf("propose metadata change: %w", ErrClosed)
	}
}

func (q *Quorum) propose(epoch int32, records []metadata.Record) (uint64, error) {
	if s := q.raft.BasicStatus(); s.RaftState != raft.StateLeader || int32(s.GetTerm()) != epoch {
		return 0, ErrNotLeader
	}
	id := q.lastID.Load() + 1
	data, err := encodeProposal(id, records)
	if err != nil {
		return 0, err
	}
	switch err := q.raft.Propose(data); {
	case errors.Is(err, raft.ErrProposalDropped) && q.raft.BasicStatus().LeadTransferee != raft.None:
		return 0, ErrNotLeader
	case errors.Is(err, raft.ErrProposalDropped):
		return 0, ErrBusy
	case err != nil:
		return 0, err
	}
	q.lastID.Store(id)
	return id, nil
}

// isOwn reports whether this process proposed the entry with the id.
func (q *Quorum) isOwn(id uint64) bool { return id >= q.firstID && id <= q.lastID.Load() }

func (q *Quorum) isFull() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.full
}

func (q *Quorum) setFull(full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.full = full
}

// isNoSpace tells a full disk, which passes, from a failed one, which does not.
func isNoSpace(err error) bool { return errors.Is(err, commitlog.ErrNoSpace) || disk.IsNoSpace(err) }
