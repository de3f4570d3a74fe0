package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"barnabas/client"
)

const (
	copyAtMost   = 200                    // records in a transaction
	copyPatience = 500 * time.Millisecond // for records, until the copier looks whether it is done
	copierDies   = 25                     // one in so many transactions is the copier's last, and stays open
	copyAborts   = 7                      // one in so many is aborted first
)

// copyAll copies the topic, exactly once, until everything has been copied that there is once writing is over: each copier
// begins where the one before it committed, however that one ended.
func (r *run) copyAll(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(r.o.Seed, 7))
	for ctx.Err() == nil {
		done, err := r.copier(ctx, rng)
		r.mu.Lock()
		r.mu.copierLives++
		r.mu.Unlock()
		if done {
			return nil
		}
		if err != nil {
			r.say("copier: %v", err)
		}
	}
	return context.Cause(ctx)
}

// errDead is how a copier ends that was to die.
var errDead = errors.New("dead, with a transaction open")

// copier copies until it dies, has failed for good, or all is copied.
func (r *run) copier(ctx context.Context, rng *rand.Rand) (done bool, err error) {
	c, err := r.client()
	if err != nil {
		return false, err
	}
	g, err := c.NewGroupConsumer(r.copyTopic(), client.NoAutoCommit(), client.IsolationLevel(client.ReadCommitted), client.AutoOffsetReset(client.Earliest),
		client.MaxPollRecords(copyAtMost), client.SessionTimeout(sessionTimeout), client.HeartbeatInterval(500*time.Millisecond),
		client.InstanceID("copier")) // static, so that the next one need not wait for this one's session
	if err != nil {
		return false, err
	}
	p, err := c.NewProducer(client.TransactionalID(r.copyTopic()), client.Linger(0), client.TransactionTimeout(transactionFor), client.BatchSize(4000))
	if err != nil {
		return false, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		c.Close() // with all that it has, unsent or not, as if the program had died
		_ = p.Close(ending)
		_ = g.Close(ending)
	}()
	if err := p.InitTransactions(ctx); err != nil {
		return false, fmt.Errorf("init: %w", err)
	}
	if err := g.Subscribe(r.o.Topic); err != nil {
		return false, err
	}
	for {
		polling, cancel := context.WithTimeout(ctx, copyPatience)
		records, err := g.Poll(polling)
		cancel()
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil && polling.Err() == nil:
			return false, fmt.Errorf("poll: %w", err)
		case len(records) == 0:
			if r.writingIsOver() && r.committedAll(ctx, g) {
				return true, nil
			}
			continue
		}
		if err := r.copyOnce(ctx, rng, p, g, records); err != nil {
			return false, err
		}
	}
}

func (r *run) writingIsOver() bool {
	select {
	case <-r.over:
		return true
	default:
		return false
	}
}

// committedAll looks whether the group has committed the end of every partition.
func (r *run) committedAll(ctx context.Context, g *client.GroupConsumer) bool {
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ends, err := r.ends(asking, r.o.Topic, client.ReadUncommitted)
	if err != nil {
		return false
	}
	var all []client.TopicPartition
	for p := range r.o.Partitions {
		all = append(all, client.TopicPartition{Topic: r.o.Topic, Partition: p})
	}
	at, err := g.Committed(asking, all...)
	if err != nil {
		return false
	}
	for _, tp := range all {
		if at[tp].Offset < ends[tp.Partition] {
			return false
		}
	}
	return true
}

// copyOnce copies records in a transaction. What failed is aborted and read again; where it cannot be, the copier is done for.
func (r *run) copyOnce(ctx context.Context, rng *rand.Rand, p *client.Producer, g *client.GroupConsumer, records []client.Record) error {
	if err := p.Begin(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	first, last := records[0], records[len(records)-1]
	var failed error
	for _, record := range records {
		out := client.ProducerRecord{Topic: r.copyTopic(), Partition: client.ToPartition(record.Partition), Value: record.Value}
		if failed = p.Send(ctx, out, nil); failed != nil {
			break
		}
	}
	if failed == nil {
		failed = p.SendOffsets(ctx, map[client.TopicPartition]client.OffsetAndMetadata{
			last.TopicPartition(): {Offset: last.Offset + 1, LeaderEpoch: client.InEpoch(last.LeaderEpoch)},
		}, g.Membership())
	}
	switch fate := rng.IntN(copierDies * copyAborts); {
	case failed != nil:
	case fate%copierDies == 0:
		return errDead
	case fate%copyAborts == 0:
		failed = client.ErrTransactionAborted
	default:
		failed = p.Commit(ctx)
	}
	if failed == nil {
		r.mu.Lock()
		r.mu.copies++
		r.mu.Unlock()
		return nil
	}
	r.say("aborting: %v", failed)
	if err := p.Abort(ctx); err != nil {
		return fmt.Errorf("abort: %w, after %w", err, failed)
	}
	if err := g.Seek(first.TopicPartition(), client.AtOffset(first.Offset)); err != nil && !errors.Is(err, client.ErrNotAssigned) {
		return fmt.Errorf("seek: %w", err)
	}
	return nil
}

// countCopies compares the copy, as who reads committed sees it, with what was copied.
func (r *run) countCopies(ctx context.Context, source *reader, ends map[int32]int64, c *Counts) error {
	r.mu.Lock()
	c.Transactions, c.CopierLives = r.mu.copies, r.mu.copierLives
	r.mu.Unlock()
	var stable map[int32]int64
	err := eventually(ctx, func() (err error) { // what a dead copier left open is aborted by and by
		if stable, err = r.ends(ctx, r.copyTopic(), client.ReadCommitted); err != nil {
			return err
		}
		logs, err := r.ends(ctx, r.copyTopic(), client.ReadUncommitted)
		for p := range logs {
			if err == nil && stable[p] < logs[p] {
				err = fmt.Errorf("partition %d of the copy has an open transaction at %d of %d", p, stable[p], logs[p])
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	copies := newReader(r.o.Seed)
	if err := r.readTo(ctx, copies, client.ReadCommitted, r.copyTopic(), stable); err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	c.Copied = int64(len(copies.seen))
	c.wrong["copied too early"] += copies.changed
	order := map[id]int64{} // where the source has each record
	for at, what := range source.seen {
		order[what] = at.offset
	}
	seen := map[id]bool{}
	last := map[int32]int64{}
	for _, at := range sorted(copies.seen) {
		what := copies.seen[at]
		offset, known := order[what]
		before, any := last[at.partition]
		switch {
		case !known:
			c.wrong["copied too early"]++
		case seen[what]:
			c.wrong["copy duplicated"]++
		case any && offset < before:
			c.wrong["copy reordered"]++
		}
		last[at.partition], seen[what] = offset, true
	}
	for at, what := range source.seen {
		if !seen[what] && at.offset < ends[at.partition] {
			c.wrong["copy lost"]++
		}
	}
	return nil
}
