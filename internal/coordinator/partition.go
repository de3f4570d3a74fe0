package coordinator

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/batch"
	"barnabas/internal/coordinator/group"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
)

const (
	// shortestTimer keeps a deadline that has just passed from becoming a busy loop.
	shortestTimer = time.Millisecond
	// timerJitter spreads the timers of the partitions, so that not all wake at one instant.
	timerJitter = 100 * time.Microsecond
	// refusedPause is how long what follows from a refused append waits to be written itself.
	refusedPause = 100 * time.Millisecond
	// recordOverhead is more than a record in a batch takes beside its key and value.
	recordOverhead = 32
)

// partition is a led partition of __consumer_offsets. Its goroutine owns all below inbox.
type partition struct {
	c       *Coordinator
	number  int32
	topicID metadata.UUID
	epoch   int32 // in which this broker leads it
	replica *replica.Partition
	stop    context.CancelFunc
	inbox   inbox

	shard    *group.Shard
	calls    map[group.Token]*Call // those that wait for the shard's answer
	last     group.Token
	events   []event        // memory of the last queue
	builder  *batch.Builder // the batch being gathered; nil while there is none
	heldAt   time.Time      // when its first record came
	pending  []group.Reply  // those that tell of what is in the batch, or came after it began
	end      int64          // everything replayed is below this offset of the log, or in the batch
	isLoaded bool
	failing  bool // the last append was refused

	timer   *time.Timer
	timerAt time.Time // when it fires; zero while it does not
	dice    *rand.PCG
}

func newPartition(c *Coordinator, n int32, r *replica.Partition) *partition {
	return &partition{
		c: c, number: n, replica: r, inbox: newInbox(&c.queued), calls: map[group.Token]*Call{}, dice: rand.NewPCG(0, 0),
	}
}

func (p *partition) String() string { return fmt.Sprintf("%s-%d", OffsetsTopic, p.number) }

// run is the life of the goroutine.
func (p *partition) run(ctx context.Context) {
	defer p.unload()
	if !p.loadAtLast(ctx) {
		return
	}
	p.inbox.rouse() // the shard may have deadlines
	for {
		select {
		case <-p.inbox.wake:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		p.round()
	}
}

// round deals with all that has come.
func (p *partition) round() {
	now := p.c.o.Now()
	p.events = p.inbox.take(p.events)
	for i := range p.events {
		if e := &p.events[i]; e.call != nil {
			p.handle(now, e.call)
		} else {
			e.do(p)
		}
		if p.c.linger == 0 {
			p.append(now)
		}
	}
	if at, wanted := p.shard.Deadline(); wanted && !at.After(now) {
		p.apply(now, p.shard.Tick(now, topics{p.c.image.Load()}), false)
	}
	if p.c.linger <= 0 || p.builder == nil || now.Sub(p.heldAt) >= p.c.linger {
		p.append(now)
	}
	p.schedule(now)
}

func (p *partition) handle(now time.Time, c *Call) {
	if p.builder != nil && p.builder.UncompressedSize()+c.mostRecordBytes() > p.mostBytes() {
		p.append(now)
	}
	if p.replica.InDoubt() { // since it was let in
		c.complete(group.Reply{}, 0, p.inDoubt())
		return
	}
	p.last++
	c.token = p.last
	p.calls[c.token] = c
	p.apply(now, p.shard.Handle(now, c.token, c.from, topics{p.c.image.Load()}, c.request), true)
}

// forget tells the shard that nobody waits for an answer any more.
func (p *partition) forget(c *Call) {
	p.inbox.post(func(p *partition) {
		if _, waits := p.calls[c.token]; waits {
			delete(p.calls, c.token)
			p.shard.Forget(p.c.o.Now(), c.token)
		}
	})
}

// sendAway lets everybody go who waits for the shard's answer while others may coordinate the groups: what is waited for may
// happen there. The members stay what they are, as where a connection breaks. Answers that wait for an append are not among
// these: it is refused.
func (p *partition) sendAway() {
	if !p.replica.InDoubt() {
		return
	}
	for _, t := range slices.Sorted(maps.Keys(p.calls)) {
		if slices.ContainsFunc(p.pending, func(r group.Reply) bool { return r.Token == t }) {
			continue
		}
		c := p.calls[t]
		delete(p.calls, t)
		p.shard.Forget(p.c.o.Now(), t)
		c.complete(group.Reply{}, 0, p.inDoubt())
	}
}

func (p *partition) inDoubt() error {
	return fmt.Errorf("%v: %w: %w", p, ErrNotCoordinator, replica.ErrCutOff)
}

// apply replays what the shard has decided and adds it to the batch. The records stay together
// where they are the effect of one request; those of housekeeping may be several batches.
func (p *partition) apply(now time.Time, e group.Effects, together bool) {
	var failure error
	if together && !p.fits(e.Records) {
		// Rare: handle has made room for all that a request usually leads to. What was gathered before is
		// written by itself; if it is refused, so is this, which was decided on its ground.
		failure = p.write(now)
	}
	nowMs, commits := now.UnixMilli(), int64(0)
	for _, r := range e.Records {
		if !together && p.builder != nil && p.builder.SizeWith(nowMs, r.Key, r.Value, nil) > p.mostBytes() && !p.append(now) {
			return // the rest was decided on the ground of what has just been refused; the next check decides anew
		}
		if err := p.shard.Replay(r, now); err != nil {
			failure = fmt.Errorf("replay a record just made: %w", err)
			break
		}
		p.batch(now).Append(nowMs, r.Key, r.Value, nil)
		if isCommit(r) {
			commits++
		}
	}
	p.c.stats.commits.Add(commits)
	p.reply(e.Replies)
	switch {
	case failure != nil:
		p.refuse(now, failure)
	case p.builder == nil:
		p.shard.Appended() // these answers are on their way: what is refused later must not change them any more
	}
	p.shard.Recycle(e)
}

// fits tells whether records may join the batch being gathered.
func (p *partition) fits(records []group.Record) bool {
	if p.builder == nil || len(records) == 0 {
		return true
	}
	size := p.builder.UncompressedSize()
	for i := range records {
		size += len(records[i].Key) + len(records[i].Value) + recordOverhead
	}
	return size <= p.mostBytes()
}

// reply lets answers go, those that tell of records once these are in the log.
func (p *partition) reply(replies []group.Reply) {
	for _, r := range replies {
		switch {
		case !r.Committed:
			p.answer(r, 0)
		case p.builder == nil:
			p.answer(r, p.end)
		default:
			p.pending = append(p.pending, r)
		}
	}
}

func (p *partition) answer(r group.Reply, needs int64) {
	if c, waits := p.calls[r.Token]; waits {
		delete(p.calls, r.Token)
		c.complete(r, needs, nil)
	}
}

// mostBytes is how large a batch may be in this topic.
func (p *partition) mostBytes() int {
	c := p.replica.Log().Config()
	return int(min(c.MaxMessageBytes, c.SegmentBytes))
}

// batch is the one being gathered.
func (p *partition) batch(now time.Time) *batch.Builder {
	if p.builder == nil {
		p.heldAt = now
		if b, ok := p.c.builders.Get().(*batch.Builder); ok {
			p.builder = b
		} else {
			p.builder = batch.NewBuilder(batch.BuilderOptions{Codec: p.c.codec, Checker: p.c.checker})
		}
	}
	return p.builder
}

// append writes the batch that has been gathered, if there is one. Nobody waits here for the disk:
// the answers do. False: it was refused, and is undone.
func (p *partition) append(now time.Time) bool {
	if p.builder == nil {
		p.shard.Appended() // there was nothing
		return true
	}
	if err := p.write(now); err != nil {
		p.refuse(now, err)
		return false
	}
	return true
}

// write appends the batch and lets its answers go. After an error nothing of it has been written, and
// it is still there.
func (p *partition) write(now time.Time) error {
	b, err := p.builder.BuildInPlace()
	if err != nil {
		return err
	}
	a, err := p.replica.AppendOwn(b, p.epoch, now.UnixMilli())
	if err != nil {
		return err
	}
	p.end = a.Next
	p.c.stats.perBatch.Observe(float64(p.builder.Count()))
	p.release()
	p.shard.Appended()
	if p.failing {
		p.failing = false
		p.c.log.Info("groups can be written again", "partition", p.String())
	}
	pending := p.pending
	p.pending = p.pending[:0]
	for _, r := range pending {
		p.answer(r, p.end)
	}
	clear(pending)
	return nil
}

// release gives the batch's memory back.
func (p *partition) release() {
	p.builder.Reset()
	p.c.builders.Put(p.builder)
	p.builder = nil
}

// refuse undoes what was gathered: nothing of it has been written, so nothing of it has happened.
func (p *partition) refuse(now time.Time, err error) {
	code := failureCode(err)
	if !p.failing {
		p.c.log.Error("records of groups are refused", "partition", p.String(), "err", err)
	}
	p.failing = true
	if p.builder != nil {
		p.release()
	}
	pending := p.pending
	p.pending = nil
	e := p.shard.Failed(now, code)
	p.reply(e.Replies)
	for _, r := range pending { // those that the shard has not answered anew
		p.answer(r.Refused(code), 0)
	}
	if len(e.Records) > 0 {
		p.apply(now, group.Effects{Records: e.Records}, false)
	}
}

// schedule sets the timer for the shard's next deadline, or for the batch that is held. A timer that
// fires too early costs less than moving it at every heartbeat.
func (p *partition) schedule(now time.Time) {
	at, wanted := p.shard.Deadline()
	if p.builder != nil {
		held := p.heldAt.Add(p.c.linger)
		if p.failing {
			held = now.Add(refusedPause)
		}
		if !wanted || held.Before(at) {
			at, wanted = held, true
		}
	}
	if !p.timerAt.IsZero() && !p.timerAt.After(now) {
		p.timerAt = time.Time{} // it has fired, or is about to
	}
	switch {
	case !wanted, !p.timerAt.IsZero() && !at.Before(p.timerAt):
		return
	}
	d := max(at.Sub(now), shortestTimer) + time.Duration(p.dice.Uint64()%uint64(timerJitter))
	p.timerAt = now.Add(d)
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.inbox.rouse)
		return
	}
	p.timer.Reset(d)
}

// unload ends the partition: everybody who waits looks for the coordinator anew.
func (p *partition) unload() {
	p.inbox.become(lost)
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.builder != nil {
		p.release()
	}
	why := fmt.Errorf("%v: %w", p, ErrNotCoordinator)
	for _, e := range p.inbox.take(nil) {
		if e.call != nil {
			e.call.complete(group.Reply{}, 0, why)
		}
	}
	for _, r := range p.shard.Unload(kerr.NotCoordinator.Code) {
		p.answer(r, 0)
	}
	for t, c := range p.calls {
		delete(p.calls, t)
		c.complete(group.Reply{}, 0, why)
	}
}

// isCommit tells the records of committed offsets from those of groups, and from tombstones.
func isCommit(r group.Record) bool {
	return len(r.Key) >= 2 && r.Key[0] == 0 && r.Key[1] <= newestOffsetKey && r.Value != nil
}

// newestOffsetKey is the last version of a key in __consumer_offsets that means a committed offset.
const newestOffsetKey = 1
