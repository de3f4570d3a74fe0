package share

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"barnabas/client"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/inside"
	"barnabas/client/internal/sharemember"
	"barnabas/client/internal/sharesession"
	"barnabas/internal/batch"
)

// Consumer is a member of a share group. Subscribe says what is read; Poll returns records that are
// held for this member until they are acknowledged or their locks run out.
//
// Heartbeats go on by themselves. Records are acquired only while Poll waits and has none, since a
// lock runs from when its record is acquired.
//
// All methods are safe for concurrent use, so that several goroutines may work on the records of one
// Poll; Poll itself is for one goroutine at a time. Close it.
type Consumer struct {
	group   string
	cfg     config
	in      *cluster.Cluster
	set     cluster.Config
	user    *cluster.User
	checker *batch.Checker
	member  string // id

	beats   *cluster.Links // a heartbeat must not wait behind a fetch
	links   *cluster.Links
	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	news    chan struct{} // one slot: Poll may find something
	polls   chan struct{} // one slot, taken while Poll runs; Close takes it for good
	closing chan struct{} // closed when Close begins
	gone    chan struct{} // closed when the member has left

	mu struct { // never held while asking, decoding, calling the program or waiting
		sync.Mutex
		store    *sharesession.Store[Record]
		machine  *sharemember.Member
		brokers  map[int32]*broker
		failed   error // ended the membership for good
		lock     time.Duration
		timer    *time.Timer
		answered chan struct{} // closed and replaced whenever acknowledgements were answered
		closed   bool
		ended    bool // no goroutine may be started any more
	}
}

// NewConsumer makes a member of a share group. It waits for nothing and fails only on a wrong option;
// it joins the group once Subscribe says what for. Kafka: KafkaShareConsumer with group.id.
func NewConsumer(c *client.Client, group string, options ...Option) (*Consumer, error) {
	cfg := defaultConfig()
	for _, o := range options {
		if err := o(&cfg); err != nil {
			return nil, fmt.Errorf("share consumer: %w", err)
		}
	}
	if group == "" {
		return nil, fmt.Errorf("share consumer: group.id is empty: %w", client.ErrInvalidGroupID)
	}
	in := c.Inside(inside.Pass{})
	if in.Context().Err() != nil {
		return nil, fmt.Errorf("share consumer: %w", client.ErrClosed)
	}
	k := &Consumer{
		group: group, cfg: cfg, in: in, set: in.Settings(), checker: batch.NewChecker(), member: newMemberID(),
		beats: cluster.NewLinks(in, nil), links: cluster.NewLinks(in, nil),
		news: make(chan struct{}, 1), polls: make(chan struct{}, 1), closing: make(chan struct{}), gone: make(chan struct{}),
	}
	k.ctx, k.cancel = context.WithCancelCause(in.Context())
	k.mu.brokers = map[int32]*broker{}
	k.mu.answered = make(chan struct{})
	k.mu.store = sharesession.New(sharesession.Config{
		MaxPollRecords: cfg.maxPoll, RecordLimit: cfg.recordLimit,
		Backoff: func(failures int) time.Duration { return k.set.RetryBackoff.After(failures, in.Random) },
	}, func(r *Record, h *sharesession.Held) { r.held = h })
	k.mu.machine = sharemember.New(sharemember.Config{
		Group: group, MemberID: k.member, Rack: cfg.rack, MaxPollInterval: cfg.maxPollInterval,
		RetryBackoff: k.set.RetryBackoff.First, RetryBackoffMax: k.set.RetryBackoff.Most, Jitter: in.Random.Float,
	})
	k.user = &cluster.User{Wanted: k.wanted, Changed: func(*cluster.Snapshot) { k.learn() }, Refused: k.refuse}
	in.Metadata.Register(k.user)
	return k, nil
}

// newMemberID makes an id as Kafka's clients make it: brokers take nothing else.
func newMemberID() string {
	var id client.UUID
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // no leading '-' in the text, which tools would take for an option
	return id.String()
}

// change lets something happen to what is held, and tells whom it concerns.
func (k *Consumer) change(do func(s *sharesession.Store[Record], now time.Time)) {
	k.mu.Lock()
	do(k.mu.store, time.Now())
	signals := k.mu.store.Signals()
	if signals.Brokers {
		for _, node := range k.mu.store.Nodes() {
			if k.mu.brokers[node] == nil && !k.mu.ended {
				b := &broker{k: k, node: node, wake: make(chan struct{}, 1)}
				k.mu.brokers[node] = b
				k.wg.Go(b.run)
			}
		}
		for _, b := range k.mu.brokers {
			b.signal()
		}
	}
	if signals.Answers || signals.Brokers {
		close(k.mu.answered)
		k.mu.answered = make(chan struct{})
	}
	k.mu.Unlock()
	if signals.Metadata {
		k.in.Metadata.Update()
	}
	if signals.Poll || signals.Answers {
		k.tell()
	}
}

// tell lets Poll look again.
func (k *Consumer) tell() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// refuse lets Poll tell that client and brokers do not believe each other.
func (k *Consumer) refuse(err error) {
	k.change(func(s *sharesession.Store[Record], _ time.Time) { s.Fail(sharesession.Failure{Err: err}) })
}

func (k *Consumer) isClosing() bool {
	select {
	case <-k.closing:
		return true
	case <-k.ctx.Done():
		return true
	default:
		return false
	}
}

// Subscribe replaces what is read: these topics. Those that do not exist are read once they do.
// Without any the member leaves the group. It does not wait. Errors: client.ErrInvalidTopic, client.ErrClosed.
// Kafka: subscribe and unsubscribe; share groups know no patterns.
func (k *Consumer) Subscribe(topics ...string) error {
	if slices.Contains(topics, "") {
		return fmt.Errorf("subscribe: %w", client.ErrInvalidTopic)
	}
	if k.isClosing() {
		return fmt.Errorf("subscribe: %w", client.ErrClosed)
	}
	k.event(func(m *sharemember.Member, now time.Time) { m.Subscribe(now, topics) })
	k.in.Metadata.Update()
	return nil
}

// Subscription gives the topics of Subscribe, sorted. Kafka: subscription.
func (k *Consumer) Subscription() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.mu.machine.Topics())
}

// Assignment gives the partitions that this member reads now, sorted. Other members may read the same.
func (k *Consumer) Assignment() []client.TopicPartition {
	k.mu.Lock()
	partitions := k.mu.store.Partitions()
	k.mu.Unlock()
	out := make([]client.TopicPartition, 0, len(partitions))
	for p, topic := range partitions {
		out = append(out, client.TopicPartition{Topic: topic, Partition: p.Number})
	}
	slices.SortFunc(out, compareTP)
	return out
}

// MemberID gives the id that this member has in its group, over all its memberships.
func (k *Consumer) MemberID() string { return k.member }

// AcquisitionLockTimeout gives for how long records are held, as a broker said last; false before it has.
// Kafka: acquisitionLockTimeoutMs; the brokers' group.share.record.lock.duration.ms or the group's
// share.record.lock.duration.ms, 30 seconds by default.
func (k *Consumer) AcquisitionLockTimeout() (time.Duration, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.lock, k.mu.lock > 0
}

// Poll returns records, at least one and at most MaxPollRecords, waiting until there are some. They
// may be of several partitions; those of one are in the order of their offsets, but what others have released
// comes again in any order. The slice and what it holds are the caller's to keep.
//
// It begins by sending what was acknowledged since the last Poll; a consumer that is not Explicit
// accepts the records of the last Poll.
//
// Errors: ErrUnacknowledged; ctx's when it ends first; client.ErrClosed; client.ErrConcurrentPoll; a
// *client.PartitionError for a partition of which something cannot be read, with client.ErrCorruptMessage,
// client.ErrUnsupportedCompressionType (those records are released) or client.ErrTopicAuthorizationFailed: later calls
// go on; client.ErrAuthentication; and what ends the membership for good, then from every Poll, for
// instance client.ErrGroupAuthorizationFailed, client.ErrGroupMaxSizeReached, client.ErrUnsupportedVersion.
// Whatever may pass is retried and not returned.
func (k *Consumer) Poll(ctx context.Context) ([]Record, error) {
	select {
	case k.polls <- struct{}{}:
		defer func() { <-k.polls }()
	default:
		if k.isClosing() {
			return nil, fmt.Errorf("poll: %w", client.ErrClosed)
		}
		return nil, fmt.Errorf("poll: %w", client.ErrConcurrentPoll)
	}
	if err := k.settle(); err != nil {
		return nil, fmt.Errorf("poll: share group %q: %w", k.group, err)
	}
	k.event(func(m *sharemember.Member, now time.Time) { m.PollBegan(now) })
	defer func() {
		k.change(func(s *sharesession.Store[Record], _ time.Time) { s.Want(false) })
		k.event(func(m *sharemember.Member, now time.Time) { m.PollEnded(now) })
	}()
	for {
		k.tellAcknowledged()
		if k.isClosing() {
			return nil, fmt.Errorf("poll: %w", client.ErrClosed)
		}
		records, err := k.take()
		if records != nil || err != nil {
			return records, err
		}
		select {
		case <-k.news:
		case <-ctx.Done():
			return nil, fmt.Errorf("poll: %w", context.Cause(ctx))
		case <-k.closing:
		case <-k.ctx.Done():
		}
	}
}

// settle deals with the records of the Poll before. What is to be sent then goes with the next
// fetches, which leave only now that somebody waits.
func (k *Consumer) settle() (err error) {
	k.change(func(s *sharesession.Store[Record], now time.Time) {
		if k.cfg.explicit {
			if n := s.Unacknowledged(now); n > 0 {
				err = fmt.Errorf("%d: %w", n, ErrUnacknowledged)
				return
			}
		} else {
			s.AcceptHanded(now)
		}
		s.Flush(now)
		s.Want(true)
	})
	return err
}

// take gives what there is, without waiting.
func (k *Consumer) take() (records []Record, err error) {
	k.change(func(s *sharesession.Store[Record], now time.Time) {
		if err = k.mu.failed; err != nil {
			err = fmt.Errorf("poll: share group %q: %w", k.group, err)
			return
		}
		var f *sharesession.Failure
		records, f = s.Take(now)
		switch {
		case records != nil:
			s.Want(false) // now, or the next would be acquired while the program works on these
		case f == nil:
		case f.Topic == "":
			err = fmt.Errorf("poll: share group %q: %w", k.group, f.Err)
		default:
			err = &client.PartitionError{TopicPartition: client.TopicPartition{Topic: f.Topic, Partition: f.Partition}, Err: f.Err}
		}
	})
	return records, err
}

// Acknowledge says something about records that Poll has returned. It is sent by the next Poll, Commit,
// CommitAsync or Close; until then what is said last counts. Several goroutines may call it.
//
// Errors, for all of the records that have one joined, each with its partition: ErrLost, ErrAcknowledged,
// ErrNotDelivered; ErrLost with client.ErrClosed once Close has begun; ErrImplicit, of a consumer that is not Explicit. Kafka: acknowledge.
func (k *Consumer) Acknowledge(as Acknowledgement, records ...*Record) error {
	if !k.cfg.explicit {
		return fmt.Errorf("acknowledge: %w", ErrImplicit)
	}
	if as < Accept || as > Renew {
		return fmt.Errorf("acknowledge: %d is no acknowledgement: %w", as, client.ErrInvalidRequest)
	}
	var wrong []error
	k.change(func(s *sharesession.Store[Record], now time.Time) {
		for _, r := range records {
			err := ErrNotDelivered
			if r.held != nil {
				err = s.Mark(now, r.held, sharesession.Kind(as))
			}
			if err != nil {
				wrong = append(wrong, &client.PartitionError{TopicPartition: r.TopicPartition(), Err: fmt.Errorf("acknowledge offset %d: %w", r.Offset, err)})
			}
		}
	})
	return errors.Join(wrong...)
}

// Commit sends what was acknowledged and waits for the answers; a consumer that is not Explicit first
// accepts the records of the last Poll. It gives what became of every acknowledgement that was not answered when it was called.
// A fetch under way goes first, see FetchMaxWait.
//
// Errors: those of the results, each as a *client.PartitionError; ctx's when it ends before the last of
// them: the rest may be taken nevertheless; client.ErrClosed. Kafka: commitSync.
func (k *Consumer) Commit(ctx context.Context) ([]Result, error) {
	var w *sharesession.Watch
	k.change(func(s *sharesession.Store[Record], now time.Time) {
		if k.mu.closed {
			return
		}
		if !k.cfg.explicit {
			s.AcceptHanded(now)
		}
		s.Flush(now)
		w = s.Watch()
	})
	if w == nil {
		return nil, fmt.Errorf("commit: %w", client.ErrClosed)
	}
	err := k.awaitAnswers(ctx, func(*sharesession.Store[Record]) bool { return w.Done() })
	var results []Result
	k.change(func(s *sharesession.Store[Record], _ time.Time) {
		s.Unwatch(w)
		results = public(w.Results())
	})
	k.tellAcknowledged()
	var wrong []error
	for _, r := range results {
		if r.Err != nil {
			wrong = append(wrong, &client.PartitionError{TopicPartition: r.TopicPartition, Err: r.Err})
		}
	}
	if err = errors.Join(append(wrong, err)...); err != nil {
		return results, fmt.Errorf("commit: share group %q: %w", k.group, err)
	}
	return results, nil
}

// CommitAsync is Commit without waiting: what becomes of it OnAcknowledged is told. Kafka: commitAsync.
func (k *Consumer) CommitAsync() {
	k.change(func(s *sharesession.Store[Record], now time.Time) {
		if !k.cfg.explicit {
			s.AcceptHanded(now)
		}
		s.Flush(now)
	})
}

// awaitAnswers waits until good finds what it waits for.
func (k *Consumer) awaitAnswers(ctx context.Context, good func(s *sharesession.Store[Record]) bool) error {
	for {
		k.mu.Lock()
		done, answered := good(k.mu.store), k.mu.answered
		k.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.ctx.Done():
			return client.ErrClosed
		}
	}
}

// tellAcknowledged tells the program what became of acknowledgements.
func (k *Consumer) tellAcknowledged() {
	k.mu.Lock()
	results := public(k.mu.store.Results())
	k.mu.Unlock()
	if f := k.cfg.onAcknowledged; f != nil {
		if len(results) > 0 {
			f(results)
		}
		return
	}
	for _, r := range results {
		if r.Err != nil {
			k.set.Logger.Info("acknowledgements were refused", "group", k.group, "partition", r.TopicPartition.String(),
				"records", len(r.Offsets), "error", r.Err)
		}
	}
}

func public(in []sharesession.Result) []Result {
	out := make([]Result, len(in))
	for i, r := range in {
		tp := client.TopicPartition{Topic: r.Topic, Partition: r.Partition.Number}
		out[i] = Result{TopicPartition: tp, Offsets: r.Offsets, Err: r.Err}
	}
	return out
}

// Close sends what was acknowledged, releases everything else that is held, and leaves the group. A Poll
// that waits returns client.ErrClosed. When ctx ends first the rest is left undone: locks and the member's
// session run out. Kafka: close(timeout).
func (k *Consumer) Close(ctx context.Context) error {
	k.mu.Lock()
	already := k.mu.closed
	k.mu.closed = true
	k.mu.Unlock()
	if already {
		return nil
	}
	close(k.closing)
	err := k.depart(ctx)
	k.mu.Lock()
	k.mu.ended = true
	if k.mu.timer != nil {
		k.mu.timer.Stop()
	}
	k.mu.Unlock()
	k.in.Metadata.Unregister(k.user)
	k.cancel(client.ErrClosed)
	k.beats.Close()
	k.links.Close()
	k.wg.Wait()
	k.tellAcknowledged()
	if err != nil {
		return fmt.Errorf("close: share group %q: %w", k.group, err)
	}
	return nil
}

// depart ends the sessions, and then the membership.
func (k *Consumer) depart(ctx context.Context) error {
	var late error
	select {
	case k.polls <- struct{}{}: // a Poll that runs has ended
	case <-ctx.Done():
		late = context.Cause(ctx)
	}
	k.change(func(s *sharesession.Store[Record], now time.Time) { s.Close(now, client.ErrClosed) })
	if late != nil {
		return late
	}
	if err := k.awaitAnswers(ctx, (*sharesession.Store[Record]).Closed); err != nil {
		return err
	}
	k.event(func(m *sharemember.Member, now time.Time) { m.Close(now) })
	select {
	case <-k.gone:
		return nil
	case <-k.ctx.Done():
		return client.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
