package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/transaction"
	"barnabas/internal/batch"
)

// featureOfTransactions names the feature whose level says which protocol transactions use.
const featureOfTransactions = "transaction.version"

// The newest versions that a transaction of the first protocol may use: with newer ones a broker
// takes the second one for granted.
const (
	lastProduceTold         = 11
	lastEndTxnTold          = 4
	lastTxnOffsetCommitTold = 4
)

// transactions is what a Producer with a TransactionalID has beside others: the state, which the
// machine decides, and the coordinator to talk to.
type transactions struct {
	p     *Producer
	id    string
	asks  *cluster.Coordinators
	calls chan struct{} // one slot: the calls that ask the coordinator come one after another

	mu struct { // never held while asking or waiting; a queue's lock may be held when it is taken, not the reverse
		sync.Mutex
		machine *transaction.Machine
		waiting []*queue // scheduled, until the coordinator has been told of their partitions
		telling *telling
		dropped bool // what the failed transaction had left is being given up
	}
}

// telling is the goroutine that names partitions to the coordinator.
type telling struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
}

func newTransactions(p *Producer, id string) *transactions {
	t := &transactions{p: p, id: id, asks: cluster.NewCoordinators(p.c.cluster, p.meter), calls: make(chan struct{}, 1)}
	t.mu.machine = transaction.New()
	return t
}

// with does something to the machine.
func (t *transactions) with(f func(m *transaction.Machine) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f(t.mu.machine)
}

// InitTransactions gets the transactional id ready, and is to be called once before anything is
// sent: it fences whoever else uses the id, whose transaction is aborted if it is still open, or
// waits until it has ended. It waits as long as ctx allows. Kafka: initTransactions.
//
// Errors: ErrNotTransactional, ErrTransactionState, ErrInvalidTransactionTimeout,
// ErrTransactionalIDAuthorizationFailed, ErrUnsupportedVersion, ctx's.
func (p *Producer) InitTransactions(ctx context.Context) error {
	return p.inTransactions(ctx, "initialise transactions", func(ctx context.Context, t *transactions) error {
		if err := t.with((*transaction.Machine).MayInitialise); err != nil {
			return err
		}
		return t.initialise(ctx)
	})
}

// Begin opens a transaction: what is sent from now on becomes visible to consumers that read
// committed with Commit, all of it or nothing. It asks nobody. Kafka: beginTransaction.
//
// Errors: ErrNotTransactional; ErrTransactionState where there is a transaction already, or
// InitTransactions is missing; ErrProducerFenced and others after which the producer cannot go on.
func (p *Producer) Begin() error {
	if p.txn == nil {
		return fmt.Errorf("begin a transaction: %w", ErrNotTransactional)
	}
	protocol := transaction.Told
	if p.c.cluster.Feature(featureOfTransactions) >= int16(transaction.Inform) {
		protocol = transaction.Inform
	}
	if p.ctx.Err() != nil {
		return fmt.Errorf("begin a transaction: %w", ErrClosed)
	}
	t := p.txn
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.mu.machine.Begin(protocol); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	t.mu.dropped = false
	return nil
}

// Commit flushes, and makes what the transaction has sent visible. It waits as long as ctx allows;
// where that ends the wait, call it again to learn the outcome. Where records of the transaction
// were lost, or the coordinator will not commit it, it fails with ErrTransactionAborted and why, and
// Abort is to be called. Kafka: commitTransaction.
//
// Errors: ErrNotTransactional; ErrTransactionState outside of a transaction; ErrTransactionAborted;
// ErrProducerFenced and others after which the producer cannot go on; ctx's.
func (p *Producer) Commit(ctx context.Context) error {
	return p.inTransactions(ctx, "commit a transaction", func(ctx context.Context, t *transactions) error {
		return t.end(ctx, true)
	})
}

// Abort ends the transaction without a trace for consumers that read committed. What has not been
// sent yet is given up, with ErrTransactionAborted for its callbacks. It waits as long as ctx
// allows; where that ends the wait, call it again. Kafka: abortTransaction.
//
// Errors: as Commit's, but for ErrTransactionAborted.
func (p *Producer) Abort(ctx context.Context) error {
	return p.inTransactions(ctx, "abort a transaction", func(ctx context.Context, t *transactions) error {
		return t.end(ctx, false)
	})
}

// SendOffsets adds a group's commit to the transaction: the positions count from Commit on, so what
// was read and what was written because of it belong together. of is GroupConsumer.Membership of
// the consumer that read, which is to have NoAutoCommit; with it a member that the group
// has put out cannot commit any more. A Membership with Group alone is not checked.
// Kafka: sendOffsetsToTransaction.
//
// Errors: as Commit's, and ErrIllegalGeneration, ErrUnknownMemberID, ErrFencedInstanceID,
// ErrGroupAuthorizationFailed. After any of them, and when ctx ends first, Abort is to be called: Commit will not leave
// the positions out.
func (p *Producer) SendOffsets(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata, of Membership) error {
	return p.inTransactions(ctx, "add offsets to a transaction", func(ctx context.Context, t *transactions) error {
		if of.Group == "" {
			return fmt.Errorf("group.id is empty: %w", ErrInvalidGroupID)
		}
		if err := t.with((*transaction.Machine).MayAdd); err != nil || len(offsets) == 0 {
			return err
		}
		if of.lost { // the coordinator takes offsets of nobody in particular from anybody
			return t.failed(fmt.Errorf("the consumer has lost its place in group %q: %w", of.Group, ErrUnknownMemberID))
		}
		return t.sendOffsets(ctx, offsets, of)
	})
}

// inTransactions lets one call after the other ask the coordinator.
func (p *Producer) inTransactions(ctx context.Context, what string, call func(context.Context, *transactions) error) error {
	if p.txn == nil {
		return fmt.Errorf("%s: %w", what, ErrNotTransactional)
	}
	if p.ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	select {
	case p.txn.calls <- struct{}{}:
		defer func() { <-p.txn.calls }()
	case <-p.ctx.Done():
		return fmt.Errorf("%s: %w", what, ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()
	if err := call(ctx, p.txn); err != nil {
		return fmt.Errorf("%s of %q: %w", what, p.txn.id, err)
	}
	return nil
}

// initialise asks for a producer id, or for the next epoch of the one that there is.
func (t *transactions) initialise(ctx context.Context) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = kmsg.StringPtr(t.id)
	req.TransactionTimeoutMillis = int32(t.p.cfg.transactionTimeout.Milliseconds())
	t.mu.Lock()
	req.ProducerID, req.ProducerEpoch = t.mu.machine.Identity()
	t.mu.Unlock()
	resp, err := t.ask(ctx, req, -1, func(resp kmsg.Response) error {
		return CodeError(resp.(*kmsg.InitProducerIDResponse).ErrorCode, nil)
	})
	if err != nil {
		return t.refused(ctx, err)
	}
	answer := resp.(*kmsg.InitProducerIDResponse)
	return t.with(func(m *transaction.Machine) error {
		m.Initialised(answer.ProducerID, answer.ProducerEpoch)
		return nil
	})
}

// ask sends a request to the coordinator of the transactional id.
func (t *transactions) ask(ctx context.Context, req kmsg.Request, limit int16, check func(kmsg.Response) error) (kmsg.Response, error) {
	return t.asks.Ask(ctx, cluster.TransactionCoordinator, t.id, req, limit, check)
}

// refused lets the machine draw its conclusions from an error, unless the caller gave up.
func (t *transactions) refused(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return t.failed(err)
}

// failed does the same whoever gave up.
func (t *transactions) failed(err error) error {
	err = t.with(func(m *transaction.Machine) error { return m.RequestFailed(unsupported(err)) })
	t.drop()
	return err
}

// end commits or aborts.
func (t *transactions) end(ctx context.Context, commit bool) error {
	if err := t.with(func(m *transaction.Machine) error { return m.Close(commit) }); err != nil {
		return err
	}
	if err := t.settle(ctx, commit); err != nil {
		return err
	}
	var finish transaction.Finish
	err := t.with(func(m *transaction.Machine) (err error) { finish, err = m.Finish(); return err })
	if err != nil {
		return err
	}
	next := transactionIdentity{batch.NoProducerID, batch.NoProducerEpoch}
	if finish.Tell {
		next, err = t.tellEnd(ctx, commit)
		if err := t.with(func(m *transaction.Machine) error { finish.Raise, err = m.EndTold(err); return err }); err != nil {
			return t.refused(ctx, err)
		}
	}
	if finish.Raise {
		return t.initialise(ctx)
	}
	return t.with(func(m *transaction.Machine) error { m.Ended(next.id, next.epoch); return nil })
}

// settle waits until nothing of the transaction is on its way: for a commit it has been sent, for an
// abort it is given up.
func (t *transactions) settle(ctx context.Context, commit bool) error {
	p := t.p
	if commit {
		if err := p.Flush(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	err := t.mu.machine.Settle() // whatever still comes is refused
	running := t.mu.telling
	t.mu.Unlock()
	if err != nil {
		return err
	}
	if running != nil { // its request must not come after the one that ends the transaction
		running.cancel(ErrTransactionAborted)
		select {
		case <-running.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !commit {
		p.eachQueue(func(q *queue) { q.Abandon(ErrTransactionAborted) })
	}
	broken := false
	for _, q := range p.allQueues() {
		if landed := q.Landed(); landed != nil {
			select {
			case <-landed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		broken = broken || q.Broken()
	}
	if broken {
		_ = t.with(func(m *transaction.Machine) error { m.Broken(); return nil })
	}
	return p.callbacks.await(ctx)
}

type transactionIdentity struct {
	id    int64
	epoch int16
}

// tellEnd tells the coordinator how the transaction ends.
func (t *transactions) tellEnd(ctx context.Context, commit bool) (next transactionIdentity, err error) {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.Commit = t.id, commit
	t.mu.Lock()
	req.ProducerID, req.ProducerEpoch = t.mu.machine.Identity()
	limit := t.limitLocked(lastEndTxnTold)
	t.mu.Unlock()
	resp, err := t.ask(ctx, req, limit, func(resp kmsg.Response) error {
		return CodeError(resp.(*kmsg.EndTxnResponse).ErrorCode, nil)
	})
	if err != nil {
		return transactionIdentity{}, err
	}
	answer := resp.(*kmsg.EndTxnResponse) // before version 5 it says -1 for both: none
	return transactionIdentity{answer.ProducerID, answer.ProducerEpoch}, nil
}

// limitLocked gives the version limit of a request: told in the first protocol, none in the second.
func (t *transactions) limitLocked(told int16) int16 {
	if t.mu.machine.Protocol() == transaction.Inform {
		return -1
	}
	return told
}

// produceLimit is the version limit of Produce.
func (t *transactions) produceLimit() int16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limitLocked(lastProduceTold)
}

func (t *transactions) sendOffsets(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata, of Membership) error {
	t.mu.Lock()
	id, epoch := t.mu.machine.Identity()
	limit := t.limitLocked(lastTxnOffsetCommitTold)
	t.mu.machine.OffsetsGo()
	t.mu.Unlock()
	if limit >= 0 {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = t.id, id, epoch, of.Group
		if _, err := t.ask(ctx, add, -1, func(resp kmsg.Response) error {
			return CodeError(resp.(*kmsg.AddOffsetsToTxnResponse).ErrorCode, nil)
		}); err != nil {
			return t.failed(err)
		}
		_ = t.with(func(m *transaction.Machine) error { m.OffsetsTold(); return nil })
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = t.id, id, epoch, of.Group
	if of.MemberID != "" {
		req.MemberID, req.Generation = of.MemberID, of.Generation
	}
	if of.InstanceID != "" {
		req.InstanceID = kmsg.StringPtr(of.InstanceID)
	}
	addTransactionOffsets(req, offsets)
	if _, err := t.asks.Ask(ctx, cluster.GroupCoordinator, of.Group, req, limit, transactionOffsetsError); err != nil {
		return t.failed(err)
	}
	return nil
}

func addTransactionOffsets(req *kmsg.TxnOffsetCommitRequest, offsets map[TopicPartition]OffsetAndMetadata) {
	for _, tp := range slices.SortedFunc(maps.Keys(offsets), compareTP) {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != tp.Topic {
			req.Topics = append(req.Topics, kmsg.TxnOffsetCommitRequestTopic{Topic: tp.Topic})
		}
		o := offsets[tp]
		part := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset, part.Metadata = tp.Partition, o.Offset, kmsg.StringPtr(o.Metadata)
		if epoch, known := o.LeaderEpoch.Get(); known {
			part.LeaderEpoch = epoch
		}
		topic := &req.Topics[len(req.Topics)-1]
		topic.Partitions = append(topic.Partitions, part)
	}
}

// transactionOffsetsError gives the first error of an answer; one that does not pass by itself
// comes before those that do.
func transactionOffsetsError(resp kmsg.Response) error {
	var passing error
	for _, topic := range resp.(*kmsg.TxnOffsetCommitResponse).Topics {
		for _, part := range topic.Partitions {
			code := CodeError(part.ErrorCode, nil)
			if code == nil {
				continue
			}
			err := &PartitionError{TopicPartition{topic.Topic, part.Partition}, code}
			if !retriable(code) {
				return err
			}
			passing = err
		}
	}
	return passing
}

// current names the transaction that a Send begins in.
func (t *transactions) current() (serial int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.machine.Serial(), t.mu.machine.MayAdd()
}

// late is why a record was not taken whose transaction has ended, or failed, while Send waited.
func (t *transactions) late() error {
	if _, err := t.current(); err != nil {
		return err
	}
	return fmt.Errorf("its transaction ended while Send waited: %w", ErrTransactionState)
}

// notTaken fails the transaction of a record that Send refused.
func (t *transactions) notTaken(serial int64, err error) {
	t.mu.Lock()
	if t.mu.machine.Admits(serial) {
		t.mu.machine.BatchFailed(err)
	}
	t.mu.Unlock()
	t.drop()
}

// The accumulator's hooks.

// admits tells whether a record may still be added to the transaction. A queue's lock is held, so what is admitted is in
// its queue before the end of the transaction looks there.
func (t *transactions) admits(serial int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.machine.Admits(serial)
}

// identity lets a batch leave, under the transaction's number. A queue's lock is held.
func (t *transactions) identity(q *queue, _ int64) (id int64, epoch int16, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.machine.Admit(transaction.Partition{Topic: q.Topic, Number: q.Partition}) != transaction.Admitted {
		return batch.NoProducerID, batch.NoProducerEpoch, false
	}
	id, epoch = t.mu.machine.Identity()
	return id, epoch, true
}

// park keeps a queue until the coordinator knows of its partition. What belongs to no transaction
// any more is given up.
func (t *transactions) park(q *queue) {
	t.mu.Lock()
	admission := t.mu.machine.Admit(transaction.Partition{Topic: q.Topic, Number: q.Partition})
	if admission == transaction.TellFirst {
		t.mu.waiting = append(t.mu.waiting, q)
		if t.mu.telling == nil {
			ctx, cancel := context.WithCancelCause(t.p.ctx)
			running := &telling{cancel: cancel, done: make(chan struct{})}
			t.mu.telling = running
			t.mu.Unlock()
			if !t.p.goRun(func() { t.tell(ctx, running) }) {
				close(running.done) // Close gives up what is left
			}
			return
		}
	}
	t.mu.Unlock()
	switch admission {
	case transaction.Admitted:
		t.p.route(q)
	case transaction.Rejected:
		q.Abandon(ErrTransactionAborted)
		t.p.route(q)
	case transaction.TellFirst:
	}
}

// tell names partitions to the coordinator until there are none to be named.
func (t *transactions) tell(ctx context.Context, running *telling) {
	defer close(running.done)
	defer running.cancel(nil)
	for {
		t.mu.Lock()
		names := t.mu.machine.Untold()
		if len(names) == 0 || ctx.Err() != nil {
			waiting := t.mu.waiting
			t.mu.waiting, t.mu.telling = nil, nil
			t.mu.Unlock()
			for _, q := range waiting {
				t.p.route(q) // to be parked again, or given up
			}
			return
		}
		id, epoch := t.mu.machine.Identity()
		t.mu.Unlock()
		if err := t.addPartitions(ctx, names, id, epoch); err != nil {
			if ctx.Err() == nil {
				_ = t.refused(ctx, err)
			}
			continue
		}
		t.mu.Lock()
		t.mu.machine.Told(names)
		waiting := t.mu.waiting
		t.mu.waiting = nil
		t.mu.Unlock()
		for _, q := range waiting {
			t.p.route(q)
		}
	}
}

func (t *transactions) addPartitions(ctx context.Context, names []transaction.Partition, id int64, epoch int16) error {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = t.id, id, epoch
	at := map[string]int{}
	for _, p := range names {
		i, ok := at[p.Topic]
		if !ok {
			i = len(req.Topics)
			at[p.Topic] = i
			req.Topics = append(req.Topics, kmsg.AddPartitionsToTxnRequestTopic{Topic: p.Topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p.Number)
	}
	_, err := t.ask(ctx, req, -1, func(resp kmsg.Response) error {
		var found error
		for _, topic := range resp.(*kmsg.AddPartitionsToTxnResponse).Topics {
			for _, part := range topic.Partitions {
				err := CodeError(part.ErrorCode, nil)
				// The others of a request of which one is refused are said to have been passed over.
				if err == nil || found != nil && errors.Is(err, ErrOperationNotAttempted) {
					continue
				}
				if found == nil || retriable(found) || errors.Is(found, ErrOperationNotAttempted) {
					found = &PartitionError{TopicPartition{topic.Topic, part.Partition}, err}
				}
			}
		}
		return found
	})
	return err
}

// batchFailed is told before the callbacks run, with a queue's lock held.
func (t *transactions) batchFailed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.machine.BatchFailed(err)
}

// drop gives up what a failed transaction has left: it would be sent for nothing.
func (t *transactions) drop() {
	t.mu.Lock()
	err := t.mu.machine.Failure()
	if err == nil || t.mu.dropped {
		t.mu.Unlock()
		return
	}
	t.mu.dropped = true
	running := t.mu.telling
	t.mu.Unlock()
	if running != nil {
		running.cancel(err)
	}
	t.p.eachQueue(func(q *queue) { q.Abandon(err) })
}

// close ends the transaction that a program left open when it closed the producer.
func (t *transactions) close(ctx context.Context) {
	open := false
	_ = t.with(func(m *transaction.Machine) error { open = m.InTransaction(); return nil })
	if !open {
		return
	}
	if err := t.p.Abort(ctx); err != nil {
		t.p.c.log.Warn("transaction left open; the coordinator aborts it after transaction.timeout.ms", "transactional.id", t.id, "error", err)
	}
}
