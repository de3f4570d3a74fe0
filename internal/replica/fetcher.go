package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/planted"
	"barnabas/internal/wire"
)

const (
	// firstRetry and lastRetry bound how soon a partition whose leader refused is asked for again: its leader may
	// hear of its office a moment later than we.
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
	// lastConnect bounds how soon a broker that did not answer is asked again.
	lastConnect = 250 * time.Millisecond
	// answerPatience is how much longer than the wait asked for an answer may take until it begins to come. Then it has as long
	// again, and what its bytes buy on a thin line (wire.Patience). After that the session is begun again. That
	// nothing comes any more in the midst of it is for Peers to notice.
	answerPatience = 10 * time.Second
)

// fetcher copies all partitions that one other broker leads, with one fetch at a time for all of them.
type fetcher struct {
	links  *links
	leader int32
	wake   chan struct{} // holds one token: something to follow has come

	mu struct { // short
		sync.Mutex
		pulls    map[*Partition]*pull
		come     []*pull  // since the last fetch was built
		gone     []uint32 // slots, likewise
		back     []returned
		noted    []*pull // whose disk has come further
		nextSlot uint32
		session  uint64
		life     int64 // broker epoch that it was begun with
		waiting  bool  // a fetch is under way
		nudge    bool  // and should be answered
	}

	// Of the goroutine.
	life     int64 // broker epoch that the fetches carry
	sequence uint32
	bySlot   map[uint32]*pull
	due      []*pull // to be asked for
	later    []*pull // refused, to be asked for at their time
	held     []*pull // put off by the throttle, first come first served
	full     map[*commitlog.Dir]*fullDisk
	asked    []*pull // in the fetch under way
	failures int     // exchanges without an answer, in a row
	request  fetchRequest
	body     []byte
	memory   *answerMemory
	pace     pace
}

// pull is one partition in one leader epoch.
type pull struct {
	p     *Partition
	slot  uint32
	epoch int32

	// Of the goroutine.
	begun    bool // the log knows that it follows in this epoch
	named    bool // the leader knows the slot
	queued   bool // in due
	held     bool // in the fetcher's held
	rests    bool // in later
	away     bool // its log is being dealt with aside; what the leader told meanwhile is in missed
	missed   *part
	full     bool      // its disk had no room for what came last,
	waits    bool      // and it waits until another partition finds some
	tried    time.Time // when it was asked for last to see whether there is
	corrupt  bool      // what came last was
	damaged  bool      // the log was when it was asked for
	failures int
	retryAt  time.Time
	// What the log was told: why it cannot be followed, and how it is made one that can be.
	trouble, change said
	// As the leader was told.
	start, flushed int64

	// Guarded by the fetcher's mu.
	valid bool // the leader has found the log to be a part of its own: it believes what is said of the disk
	note  bool // in noted
	ended bool
}

// said is what the log was told last about something. A cause that lasts is told once, however often it is met.
type said struct {
	text string
	met  time.Time // last
}

// sayAgain is how long a cause has to be away until it is told once more.
const sayAgain = 10 * time.Minute

// new reports whether a cause has to be told.
func (s *said) new(text string, now time.Time) bool {
	told := s.text == text && now.Sub(s.met) < sayAgain
	s.text, s.met = text, now
	return !told
}

func newFetcher(l *links, leader int32) *fetcher {
	f := &fetcher{
		links: l, leader: leader, wake: make(chan struct{}, 1), bySlot: map[uint32]*pull{},
		full: map[*commitlog.Dir]*fullDisk{}, memory: new(answerMemory),
	}
	f.mu.pulls = map[*Partition]*pull{}
	return f
}

// add begins to follow a partition in an epoch, in the place of the epoch before.
func (f *fetcher) add(p *Partition, epoch int32) {
	f.mu.Lock()
	if old := f.mu.pulls[p]; old != nil {
		if old.epoch == epoch {
			f.mu.Unlock()
			return
		}
		f.endLocked(old)
	}
	f.mu.nextSlot++
	n := &pull{p: p, slot: f.mu.nextSlot, epoch: epoch}
	f.mu.pulls[p] = n
	f.mu.come = append(f.mu.come, n)
	nudge := f.mu.waiting
	f.mu.nudge = f.mu.nudge || nudge
	f.mu.Unlock()
	f.signal()
	if nudge {
		f.links.signal()
	}
}

// drop ends following a partition.
func (f *fetcher) drop(p *Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.mu.pulls[p]; old != nil {
		f.endLocked(old)
		delete(f.mu.pulls, p)
	}
}

func (f *fetcher) endLocked(old *pull) {
	old.ended, old.valid = true, false
	f.mu.gone = append(f.mu.gone, old.slot)
}

func (f *fetcher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// askAgain has the leader told where a partition stands, at once.
func (f *fetcher) askAgain(p *Partition) {
	f.mu.Lock()
	n := f.mu.pulls[p]
	if n != nil {
		f.mu.come = append(f.mu.come, n)
		f.mu.nudge = f.mu.nudge || f.mu.waiting
	}
	f.mu.Unlock()
	if n != nil {
		f.links.signal()
	}
}

// note is told that the disk has come further in a partition.
func (f *fetcher) note(p *Partition) {
	f.mu.Lock()
	n := f.mu.pulls[p]
	noted := n != nil && n.valid && !n.note
	if noted {
		n.note = true
		f.mu.noted = append(f.mu.noted, n)
	}
	f.mu.Unlock()
	if noted {
		f.links.signal()
	}
}

// post sends what must not wait behind the fetch.
func (f *fetcher) post() {
	f.mu.Lock()
	noted, nudge := f.mu.noted, f.mu.nudge
	f.mu.noted, f.mu.nudge = nil, false
	msg := flushedMessage{session: f.mu.session, brokerEpoch: f.mu.life}
	for _, n := range noted {
		n.note = false
		if n.valid {
			flushed := n.p.log.Progress().Flushed
			if from, damaged := n.p.log.Damaged(); damaged {
				flushed = min(flushed, from)
			}
			msg.places = append(msg.places, flushedPlace{slot: n.slot, epoch: n.epoch, flushed: flushed})
		}
	}
	f.mu.Unlock()
	lost := false
	if len(msg.places) > 0 {
		lost = !f.links.peers.Post(f.leader, KindFlushed, msg.append(nil))
	}
	if lost {
		// The next fetch has to say it.
		f.mu.Lock()
		f.mu.come = append(f.mu.come, noted...)
		f.mu.Unlock()
	}
	if nudge {
		f.links.peers.Post(f.leader, KindNudge, []byte{messageVersion})
	}
}

// run is the life of the goroutine.
func (f *fetcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.collect(time.Now())
		if len(f.bySlot) == 0 {
			select {
			case <-f.wake:
			case <-ctx.Done():
			}
			continue
		}
		err := f.exchange(ctx)
		if err == nil {
			f.failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		f.links.m.log.Debug("a fetch from another broker has failed", "broker", f.leader, "err", err)
		f.begin()
		f.links.rest(ctx, min(backoff(&f.failures), lastConnect))
	}
}

// backoff is how long to wait after so many failures, one more from now on.
func backoff(failures *int) time.Duration {
	d := min(firstRetry<<min(*failures, 10), lastRetry)
	*failures++
	return d
}

// begin forgets the session: the leader is told of everything again.
func (f *fetcher) begin() {
	f.mu.Lock()
	f.mu.session = 0
	for _, n := range f.mu.pulls {
		n.valid = false
	}
	f.mu.Unlock()
	for _, n := range f.inOrder() {
		n.named = false
		f.enqueue(n)
	}
	for _, n := range f.later {
		n.rests = false
	}
	f.later = f.later[:0]
}

// inOrder returns what is followed in the order in which it came: a map's order is another each time.
func (f *fetcher) inOrder() []*pull {
	all := make([]*pull, 0, len(f.bySlot))
	for _, n := range f.bySlot {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *pull) int { return int(a.slot) - int(b.slot) })
	return all
}

func (f *fetcher) enqueue(n *pull) {
	if !n.queued && !n.held && !n.waits && !n.away {
		n.queued = true
		f.due = append(f.due, n)
	}
}

// collect takes over what has come and gone, and what is due again.
func (f *fetcher) collect(now time.Time) {
	f.mu.Lock()
	come, gone, back := f.mu.come, f.mu.gone, f.mu.back
	f.mu.come, f.mu.gone, f.mu.back = nil, nil, nil
	come = slices.DeleteFunc(come, func(n *pull) bool { return n.ended })
	f.mu.Unlock()
	for _, n := range come {
		f.bySlot[n.slot] = n
		f.enqueue(n)
	}
	f.resume(back, now)
	for _, slot := range gone {
		n := f.bySlot[slot]
		delete(f.bySlot, slot)
		if n == nil {
			continue
		}
		is := func(o *pull) bool { return o == n }
		if n.queued {
			f.due = slices.DeleteFunc(f.due, is)
		}
		f.later = slices.DeleteFunc(f.later, is)
		if n.held {
			f.held = slices.DeleteFunc(f.held, is)
		}
		f.pass(n)
		if n.named {
			f.request.gone = append(f.request.gone, slot)
		}
	}
	f.later = slices.DeleteFunc(f.later, func(n *pull) bool {
		if now.Before(n.retryAt) {
			return false
		}
		n.rests = false
		f.enqueue(n)
		return true
	})
}

// errImpatient: the leader has not answered a fetch in time.
var errImpatient = errors.New("no answer in time")

// exchange is one fetch and what its answer brings.
func (f *fetcher) exchange(ctx context.Context) error {
	wait := f.build(time.Now())
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(wait+answerPatience, func() { cancel(errImpatient) })
	defer patience.Stop()
	memory := f.memory
	var began atomic.Int64 // when the answer did
	sent := time.Now()
	f.body = f.request.append(f.body[:0])
	f.waiting(true)
	answered, err := f.links.peers.Call(limited, f.leader, KindFetch, f.body, func(n int) []byte {
		patience.Reset(wire.Patience(answerPatience, int64(n)))
		began.Store(int64(time.Since(sent)))
		return memory.take(n)
	})
	f.waiting(false)
	if err != nil {
		f.body, f.memory = nil, new(answerMemory) // somebody may still be sending the one, and receiving into the other
		return err
	}
	defer f.memory.used(len(answered))
	f.pace.took(len(answered), time.Since(sent)-time.Duration(began.Load()))
	answer, err := parseAnswer(answered)
	if err != nil {
		return err
	}
	switch answer.code {
	case answerOK:
	case answerNoSession:
		f.begin()
		return nil
	default:
		return fmt.Errorf("broker %d refuses to be followed: code %d", f.leader, answer.code)
	}
	f.request.gone = f.request.gone[:0]
	f.mu.Lock()
	f.mu.session, f.mu.life = answer.session, f.life
	f.mu.Unlock()
	return f.take(&answer)
}

func (f *fetcher) waiting(is bool) {
	f.mu.Lock()
	f.mu.waiting = is
	again := is && len(f.mu.come)+len(f.mu.back) > 0
	f.mu.nudge = again
	f.mu.Unlock()
	if again { // it came since the fetch was built
		f.links.signal()
	}
}

// build makes the next request, and returns how long the leader may wait.
func (f *fetcher) build(now time.Time) time.Duration {
	settings := f.links.m.Settings()
	wait := settings.Millis("replica.fetch.wait.max.ms")
	f.mu.Lock()
	session := f.mu.session
	f.mu.Unlock()
	if session == 0 {
		f.life, f.request.gone = f.links.m.brokerEpoch(), f.request.gone[:0]
	}
	r := &f.request
	f.sequence++ // whether it is answered or not
	r.session, r.sequence, r.brokerEpoch = session, f.sequence, f.life
	r.maxBytes = uint32(f.pace.bound(int64(settings.Int("replica.fetch.response.max.bytes"))))
	r.partBytes = uint32(settings.Int("replica.fetch.max.bytes"))
	r.asks, f.asked = r.asks[:0], f.asked[:0]
	f.tryOthers(now)
	n := 0
	for ; n < len(f.due) && len(r.asks) < maxAsks; n++ {
		next := f.due[n]
		next.queued = false
		if next.p.mayHoldItself() {
			next.held = true
			f.held = append(f.held, next)
			continue
		}
		f.askFor(next, now)
	}
	f.due = slices.Delete(f.due, 0, n)
	if len(f.due) > 0 {
		wait = 0
	}
	if len(f.held) > 0 {
		wait = min(wait, f.putOff(now))
	}
	for _, p := range f.later {
		wait = min(wait, p.retryAt.Sub(now))
	}
	wait = max(wait, 0)
	r.waitMs = uint32((wait + time.Millisecond - 1) / time.Millisecond)
	return wait
}

// askFor adds a partition to the request, once its log is ready to follow.
func (f *fetcher) askFor(n *pull, now time.Time) {
	l := n.p.log
	if err := l.Dir().Offline(); err != nil { // it could not take what it asks for
		f.failed(n, now, err)
		return
	}
	if !n.begun {
		if l.AtWork() { // it may still be cut, as the leader before said
			f.aside(n, func() error { return l.Follow(n.epoch) }, func() {
				n.begun = true
				f.enqueue(n)
			})
			return
		}
		if err := l.Follow(n.epoch); err != nil {
			f.failed(n, now, err)
			return
		}
		if planted.TruncateByWatermark {
			_ = l.TruncateFollowing(l.Progress().HighWatermark, n.epoch)
		}
		n.begun = true
	}
	a := ask{slot: n.slot, epoch: n.epoch, lastEpoch: l.LastEpoch()}
	at := l.Progress()
	a.start, a.end, a.flushed = at.Start, at.End, at.Flushed
	n.damaged = false
	if from, damaged := l.Damaged(); damaged {
		if !n.p.counted() {
			f.aside(n, func() error { return f.repair(n, from) }, func() { f.renew(n) })
			return
		}
		a.flags |= askDamaged
		n.damaged = true
		a.end = min(a.end, from)
		a.start, a.flushed = min(a.start, a.end), min(a.flushed, a.end)
		f.retry(n, now)
	}
	if !n.named {
		a.flags |= askNamed
		a.topic, a.partition = n.p.topicID, n.p.id.Partition
	}
	if n.corrupt {
		a.flags |= askCorrupt
	}
	n.start, n.flushed, n.tried = a.start, a.flushed, now
	f.request.asks = append(f.request.asks, a)
	f.asked = append(f.asked, n)
}

// renew gives a partition another slot, for its log has been cut: what the leader was told of the disk under the old one, or
// is about to be, does not hold any more.
func (f *fetcher) renew(n *pull) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.pulls[n.p] != n {
		return
	}
	f.endLocked(n)
	f.mu.nextSlot++
	next := &pull{p: n.p, slot: f.mu.nextSlot, epoch: n.epoch, trouble: n.trouble, change: n.change}
	f.mu.pulls[n.p] = next
	f.mu.come = append(f.mu.come, next)
}

// repair cuts a damaged log where the damage begins, to fetch again from there. What others count on is not given
// up before the controller has taken this replica out of the in-sync and the eligible ones: until then
// nobody may take it for complete. How far that goes this replica does not know: after a start its watermark may be an
// old one.
func (f *fetcher) repair(n *pull, from int64) error {
	if n.p.counted() { // since it was looked at
		return nil
	}
	if n.change.new(fmt.Sprint("repair", from), time.Now()) {
		f.links.m.log.Warn("a damaged log is cut and fetched again", "partition", n.p.id, "from", from)
	}
	if from <= n.p.log.Progress().Start {
		return n.p.log.RestartFollowing(n.p.log.Progress().Start, n.epoch)
	}
	return n.p.log.TruncateFollowing(from, n.epoch)
}

// counted: others rely on what this replica has.
func (p *Partition) counted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, follows := p.mu.role.(*following)
	return follows && f.counted
}

// take deals with an answer, part by part.
func (f *fetcher) take(answer *fetchAnswer) error {
	for _, n := range f.asked {
		n.named = true
	}
	var bad map[uint32]bool
	now := time.Now()
	for {
		told, more, err := answer.next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		n := f.bySlot[told.slot]
		if n == nil || f.over(n) {
			continue
		}
		if told.code != answerOK || told.flags != 0 {
			if bad == nil {
				bad = map[uint32]bool{}
			}
			bad[told.slot] = true
		}
		f.apply(n, &told, now)
	}
	f.validate(bad)
	return nil
}

func (f *fetcher) over(n *pull) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return n.ended
}

// validate notes whose logs the leader has found to be parts of its own: all that were asked for, and not refused.
func (f *fetcher) validate(bad map[uint32]bool) {
	var moved []*pull
	f.mu.Lock()
	for _, n := range f.asked {
		n.valid = !bad[n.slot] && !n.ended && !n.damaged
		if n.valid {
			moved = append(moved, n)
		}
	}
	f.mu.Unlock()
	for _, n := range moved {
		if n.p.log.Progress().Flushed > n.flushed { // since it was asked for
			f.note(n.p)
		}
	}
}

// apply does what the leader says of one partition.
func (f *fetcher) apply(n *pull, told *part, now time.Time) {
	var err error
	switch {
	case n.away:
		if told.code == answerOK && told.flags == 0 {
			n.missed = told.withoutRecords()
		}
		return
	case told.code == answerOutOfRange:
		if !f.startAgain(n, told) {
			f.retry(n, now)
			return
		}
	case told.code != answerOK:
		f.retry(n, now)
		return
	case told.flags&partDiverged != 0:
		f.truncate(n, told)
	default:
		err = f.append(n, told)
	}
	switch {
	case err == nil:
		n.failures = 0
		switch {
		case !n.full || n.waits || n.rests: // it was not asked for
		case len(told.records) > 0:
			f.room(n, now)
		default:
			f.pass(n)
		}
	case errors.Is(err, commitlog.ErrEpochOver): // the metadata was quicker
	default:
		f.failed(n, now, err)
	}
}

// append writes what was fetched, after the leader's word on start and watermark has been taken as far as it goes now.
func (f *fetcher) append(n *pull, told *part) error {
	if len(told.records) > 0 {
		f.enqueue(n)
		if n.p.throttledFollower.Load() {
			f.links.m.taking.spend(time.Now(), len(told.records), !n.p.inSyncHere())
		}
		_, err := n.p.log.Replicate(told.records, n.epoch)
		if errors.Is(err, commitlog.ErrOutOfRange) && f.beginBefore(n, told.records) {
			_, err = n.p.log.Replicate(told.records, n.epoch)
		}
		n.corrupt = errors.Is(err, batch.ErrCorrupt)
		if err != nil {
			return fmt.Errorf("copy %v from broker %d: %w", n.p.id, f.leader, err)
		}
	}
	if told.start > n.p.log.Progress().Start {
		told = told.withoutRecords()
		f.aside(n, func() error { return n.p.followed(n.epoch, told) }, func() {
			f.enqueue(n) // somebody may wait to hear that it is here too
		})
		return nil
	}
	if told.start > n.start {
		// This log began there or beyond already, which the leader has not heard: its own retention was quicker.
		f.enqueue(n)
	}
	return n.p.followed(n.epoch, told)
}

// withoutRecords is what can be kept: the records are in the memory of the answer.
func (p *part) withoutRecords() *part {
	kept := *p
	kept.records = nil
	return &kept
}

// beginBefore lets an empty log begin with the batch that was fetched, if its beginning lies inside of that: so it is
// when the leader's start does, after records were deleted by offset.
func (f *fetcher) beginBefore(n *pull, records []byte) bool {
	at := n.p.log.Progress()
	b, _, err := batch.Next(records)
	if err != nil || at.Start != at.End || b.BaseOffset() >= at.End || b.NextOffset() <= at.End {
		return false
	}
	return n.p.log.RestartFollowing(b.BaseOffset(), n.epoch) == nil
}

// startAgain empties a log that has nothing to go on from: it ends before its leader's begins, or holds no record. Of any other
// nothing is given up at a word: false.
func (f *fetcher) startAgain(n *pull, told *part) bool {
	end, start := n.p.log.Progress().End, told.start
	if start <= end && n.p.log.LastEpoch() >= 0 {
		return false
	}
	if n.change.new(fmt.Sprint("empty", end, start), time.Now()) {
		f.links.m.log.Warn("a log does not reach its leader's and is fetched whole", "partition", n.p.id, "end", end, "leader_start", start)
	}
	f.aside(n, func() error { return n.p.log.RestartFollowing(start, n.epoch) }, func() { f.enqueue(n) })
	return true
}

// truncate cuts the log back to where it and its leader's are of one history. The leader says where its last epoch
// that is not above ours ended; what we have of later epochs it has not, and what we have of that
// one beyond that end neither (KIP-101). Where we do not have that epoch at all, it is asked again from
// there (KIP-279).
func (f *fetcher) truncate(n *pull, told *part) {
	l := n.p.log
	at := l.Progress()
	to := min(told.divergedEnd, at.End)
	if found, end := l.EpochEnd(told.divergedEpoch); told.divergedEpoch >= 0 && found >= 0 {
		to = min(to, end)
	}
	if n.change.new(fmt.Sprint("cut", at.End, to), time.Now()) {
		f.links.m.log.Info("a log leaves its leader's and is cut", "partition", n.p.id, "end", at.End, "to", to, "high_watermark", at.HighWatermark)
	}
	start := told.start
	f.aside(n, func() error {
		if to < at.Start {
			return l.RestartFollowing(start, n.epoch)
		}
		return l.TruncateFollowing(to, n.epoch)
	}, func() { f.enqueue(n) })
}

// failed notes that a partition cannot be followed now.
func (f *fetcher) failed(n *pull, now time.Time, err error) {
	if errors.Is(err, commitlog.ErrEpochOver) || errors.Is(err, commitlog.ErrClosed) {
		return
	}
	if errors.Is(err, commitlog.ErrNoSpace) {
		f.noRoom(n, now, err)
		return
	}
	// That a directory is offline has been told.
	if text := err.Error(); !errors.Is(err, commitlog.ErrOffline) && n.trouble.new(text, now) {
		f.links.m.log.Warn("a partition cannot be followed for now", "partition", n.p.id, "leader", f.leader, "epoch", n.epoch, "err", err)
	}
	f.retry(n, now)
}

// retry asks for a partition again after a while. Until then it shows nobody whether a full disk has room.
func (f *fetcher) retry(n *pull, now time.Time) {
	if n.full && !n.waits {
		f.pass(n)
	}
	f.unqueue(n)
	f.restUntil(n, now.Add(backoff(&n.failures)))
}

func (f *fetcher) unqueue(n *pull) {
	if n.queued {
		f.due = slices.DeleteFunc(f.due, func(o *pull) bool { return o == n })
		n.queued = false
	}
}

func (f *fetcher) restUntil(n *pull, at time.Time) {
	n.retryAt = at
	if !n.rests {
		n.rests = true
		f.later = append(f.later, n)
	}
}
