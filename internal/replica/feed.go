package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

const (
	// watermarkDelay is how long a follower's fetch goes on waiting when only the watermark has moved: mostly records
	// come within that time, and take the news with them.
	watermarkDelay = 10 * time.Millisecond
	// maxFetchWait bounds the wait that a follower can ask for.
	maxFetchWait = 10 * time.Second
	// maxFetchBytes bounds the records of one answer, whatever a follower asks for; one batch may be larger.
	maxFetchBytes = 16 << 20
)

// Serve takes a message of another broker, which its connection has proven to be it. Messages of one connection are
// handed in in the order of their arrival; what they say takes effect before Serve returns. A fetch is answered by
// the reply, which may wait unless ready, for as long as the connection lives. body is not kept.
// An error means that the other end does not speak this language: its connection should be closed.
func (m *Manager) Serve(broker int32, kind Kind, body []byte) (reply wire.Reply, ready bool, err error) {
	switch kind {
	case KindFetch:
		return m.serveFetch(broker, body)
	case KindFlushed:
		var msg flushedMessage
		if err := msg.parse(body); err != nil {
			return nil, false, err
		}
		if f := m.feed(broker); f != nil {
			f.flushed(&msg)
		}
		return nil, true, nil
	case KindNudge:
		if f := m.feed(broker); f != nil {
			select {
			case f.nudged <- struct{}{}:
			default:
			}
		}
		return nil, true, nil
	}
	return nil, false, fmt.Errorf("message of kind %d: %w", kind, errMalformed)
}

func (m *Manager) feed(broker int32) *feed {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.feeds[broker]
}

// feed is the leader's side of one follower's session: what it follows, and what it has to be told. There is one for
// each broker; a new session ends the one before.
type feed struct {
	m       *Manager
	broker  int32
	life    int64 // of the follower's process
	session uint64
	watch   *Watch
	nudged  chan struct{} // holds one token
	ended   chan struct{} // closed by the next session

	// Of the fetch that is being answered: there is at most one.
	busy     chan struct{} // one slot
	request  fetchRequest
	sequence uint32
	queue    []*fed // those that may have news
	hurry    bool   // the follower waits to hear that it is welcome
	// Held back by the throttle, and until when. Who is held may be in the queue too, with other news.
	held      []*fed
	heldUntil time.Time
	changed   atomic.Bool   // the throttle is another
	latest    atomic.Uint32 // sequence of the fetch that came last

	mu struct { // short
		sync.Mutex
		slots map[uint32]*fed
	}
}

// fed is one partition of a session.
type fed struct {
	p        *Partition // nil while this broker has no such replica; changed under the feed's mu
	topic    metadata.UUID
	number   int32
	slot     uint32
	epoch    int32
	end      int64 // what the follower has
	verdict  part  // of its last ask
	accepted bool  // its log has been found to be a part of this one
	asked    bool  // it waits for records from end on; false once they were sent
	verify   bool  // what was sent before was corrupt there
	unsaid   bool  // the verdict has not been told
	queued   bool
	held     bool // in the feed's held
	told     part // the offsets told last
}

func (m *Manager) serveFetch(broker int32, body []byte) (wire.Reply, bool, error) {
	var head fetchRequest
	if err := head.parse(body); err != nil {
		return nil, false, err
	}
	if known, _ := m.registered(broker); known > head.brokerEpoch {
		return refuseFetch(answerStaleBroker), true, nil
	}
	var f *feed
	if head.session == 0 {
		if f = m.newFeed(broker, head.brokerEpoch, head.sequence); f == nil {
			return refuseFetch(answerNoSession), true, nil
		}
	} else if f = m.feed(broker); f == nil || f.session != head.session || f.life != head.brokerEpoch {
		return refuseFetch(answerNoSession), true, nil
	}
	select {
	case f.busy <- struct{}{}:
	default: // it has given up waiting for the one before, and with it the session
		return refuseFetch(answerNoSession), true, nil
	}
	if head.session != 0 && head.sequence != f.sequence {
		<-f.busy
		return refuseFetch(answerNoSession), true, nil
	}
	f.request, f.sequence = head, head.sequence+1
	f.latest.Store(head.sequence)
	f.take()
	return f.answer, f.hasNews(), nil
}

func refuseFetch(code answerCode) wire.Reply {
	return func(_ context.Context, out *wire.Out) error {
		out.Append(func(dst []byte) []byte { return appendAnswerHead(dst, code, 0) })
		return nil
	}
}

// newFeed begins a session, unless the fetch that asks for it was sent before one that has come already: on a connection that the
// follower has given up, what it said may stand around for long, and be more than what it has now.
func (m *Manager) newFeed(broker int32, life int64, sequence uint32) *feed {
	f := &feed{
		m: m, broker: broker, life: life, watch: NewWatch(), nudged: make(chan struct{}, 1), ended: make(chan struct{}), busy: make(chan struct{}, 1),
	}
	f.mu.slots = map[uint32]*fed{}
	f.session = m.sessions.Add(1)
	f.latest.Store(sequence)
	m.mu.Lock()
	old := m.mu.feeds[broker]
	if old != nil && (old.life > life || old.life == life && int32(sequence-old.latest.Load()) <= 0) {
		m.mu.Unlock()
		return nil
	}
	m.mu.feeds[broker] = f
	m.mu.Unlock()
	if old != nil {
		old.end()
	}
	return f
}

// end lets go of everything that the session watched.
func (f *feed) end() {
	close(f.ended)
	f.mu.Lock()
	slots := f.mu.slots
	f.mu.slots = map[uint32]*fed{}
	f.mu.Unlock()
	for _, d := range slots {
		f.untap(d)
	}
}

func (f *feed) untap(d *fed) {
	f.mu.Lock()
	p := d.p
	f.mu.Unlock()
	if p != nil {
		p.untap(f.watch, int(d.slot))
	}
}

// take takes what a fetch says, in the order of arrival.
func (f *feed) take() {
	f.mu.Lock()
	var gone []*fed
	for _, slot := range f.request.gone {
		if d := f.mu.slots[slot]; d != nil {
			gone = append(gone, d)
			delete(f.mu.slots, slot)
		}
	}
	f.mu.Unlock()
	for _, d := range gone {
		f.untap(d)
		f.queue = slices.DeleteFunc(f.queue, func(q *fed) bool { return q == d })
		if d.held {
			f.held = slices.DeleteFunc(f.held, func(h *fed) bool { return h == d })
		}
	}
	for i := range f.request.asks {
		f.ask(&f.request.asks[i])
	}
}

func (f *feed) ask(a *ask) {
	f.mu.Lock()
	d := f.mu.slots[a.slot]
	f.mu.Unlock()
	if d == nil {
		d = &fed{slot: a.slot, topic: a.topic, number: a.partition}
		f.mu.Lock()
		f.mu.slots[a.slot] = d
		f.mu.Unlock()
	}
	if d.p == nil { // the metadata may have come since it was asked for first
		if p := f.m.byID(d.topic, d.number); p != nil {
			p.tap(f.watch, int(d.slot)) // before the log is looked at, so that no append is missed
			f.mu.Lock()
			d.p = p
			f.mu.Unlock()
			select {
			case <-f.ended: // by the next session, which may not have seen the tap
				f.untap(d)
			default:
			}
		}
	}
	d.epoch, d.end, d.verify = a.epoch, a.end, a.flags&askCorrupt != 0
	if d.p == nil {
		d.verdict = part{slot: a.slot, code: answerUnknown}
	} else if d.verdict = d.p.fetched(f.broker, f.life, a); d.verdict.code == answerNotLeader {
		f.replaced(d)
	}
	good := d.verdict.code == answerOK && d.verdict.flags == 0
	whole := good && a.flags&askDamaged == 0
	if whole && !d.accepted {
		// Until it is answered it does not tell how far its disk comes.
		f.hurry = true
	}
	if a.start < d.told.start { // it was told, and could not follow: it has to be told again
		d.told = part{}
	}
	d.unsaid, d.asked, d.accepted = !good, whole, whole
	f.enqueue(d)
}

// replaced looks whether this broker has another replica of the partition by now, which is then found by the next ask: one was
// taken away and came back.
func (f *feed) replaced(d *fed) {
	if f.m.byID(d.topic, d.number) == d.p {
		return
	}
	f.untap(d)
	f.mu.Lock()
	d.p = nil
	f.mu.Unlock()
}

func (f *feed) enqueue(d *fed) {
	if !d.queued {
		d.queued = true
		f.queue = append(f.queue, d)
	}
}

// flushed takes word of the follower's disk.
func (f *feed) flushed(msg *flushedMessage) {
	if msg.session != f.session || msg.brokerEpoch != f.life {
		return
	}
	for _, place := range msg.places {
		var p *Partition
		f.mu.Lock()
		if d := f.mu.slots[place.slot]; d != nil {
			p = d.p
		}
		f.mu.Unlock()
		if p != nil {
			p.flushedAt(f.broker, f.life, place)
		}
	}
}

// answer waits for news and tells them. It is the reply to the fetch that f.request holds.
func (f *feed) answer(ctx context.Context, out *wire.Out) error {
	defer func() { <-f.busy }()
	timer := time.NewTimer(min(time.Duration(f.request.waitMs)*time.Millisecond, maxFetchWait))
	defer timer.Stop()
	room := time.NewTimer(maxFetchWait)
	defer room.Stop()
	for armed := false; !f.hasNews(); {
		if len(f.queue) > 0 && !armed {
			armed = true
			timer.Reset(watermarkDelay)
			f.watch.hush(true)
			defer f.watch.hush(false)
		}
		if len(f.held) > 0 {
			room.Reset(time.Until(f.heldUntil))
		}
		select {
		case <-f.watch.Moved:
			continue
		case <-room.C:
			continue
		case <-f.nudged:
		case <-timer.C:
		case <-f.ended:
			return refuseFetch(answerNoSession)(ctx, out)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		f.hasNews() // what has come meanwhile goes with the rest
		break
	}
	f.hurry = false
	return f.write(out)
}

// listen queues what has moved.
func (f *feed) listen() {
	keys := f.watch.Take()
	slices.Sort(keys)
	for _, key := range keys {
		f.mu.Lock()
		d := f.mu.slots[uint32(key)]
		f.mu.Unlock()
		if d != nil {
			f.enqueue(d)
		}
	}
}

// hasNews reports whether the follower should be answered now. What stays in the queue without that has moved its
// watermark or its start, which can wait a little.
func (f *feed) hasNews() bool {
	now := time.Now()
	f.listen()
	f.release(now)
	news := f.hurry
	kept := f.queue[:0]
	for _, d := range f.queue {
		urgent, any := f.news(d, now)
		news = news || urgent
		if d.queued = any; any {
			kept = append(kept, d)
		}
	}
	clear(f.queue[len(kept):])
	f.queue = kept
	return news
}

// news looks whether the follower of a partition has to be told something, and whether at once.
func (f *feed) news(d *fed, now time.Time) (urgent, any bool) {
	if d.unsaid {
		return true, true
	}
	if !d.accepted || d.p == nil {
		return false, false
	}
	if !d.led() {
		return true, true
	}
	at := d.p.log.Progress()
	if d.asked && d.end < at.End && !f.holds(d, now) {
		return true, true
	}
	return false, d.stale(at)
}

// led reports whether this broker leads the partition in the epoch that the follower knows; if not, that is what the follower
// has to be told. What was seen of the log before is a leader's, for its role ends before anything else is done to the log.
func (d *fed) led() bool {
	_, err := d.p.LeaderEpoch(d.epoch)
	if err == nil {
		return true
	}
	d.accepted, d.asked, d.unsaid = false, false, true
	d.verdict = part{slot: d.slot, code: answerNotLeader}
	if errors.Is(err, ErrFencedEpoch) {
		d.verdict.code = answerFenced
	}
	return false
}

func (d *fed) stale(at commitlog.Progress) bool {
	return d.told.highWatermark != at.HighWatermark || d.told.start != at.Start
}

// write answers with what is in the queue. What does not fit stays there, at the front.
func (f *feed) write(out *wire.Out) error {
	out.Append(func(dst []byte) []byte { return appendAnswerHead(dst, answerOK, f.session) })
	left := min(int64(f.request.maxBytes), maxFetchBytes)
	sent, now := false, time.Now()
	kept := f.queue[:0]
	for _, d := range f.queue {
		d.queued = false
		if d.unsaid {
			d.unsaid = false
			tell(out, &d.verdict, nil)
			continue
		}
		at := d.p.log.Progress()
		p := part{slot: d.slot, highWatermark: at.HighWatermark, start: at.Start, everywhere: d.p.everywhere()}
		var records commitlog.Range
		due := d.asked && d.end < at.End && !f.holds(d, now)
		if due && left > 0 {
			records = f.next(d, at, left, !sent, now, &p)
		}
		n := records.Len()
		switch {
		case !d.led(): // since it was looked at whether it has news
			d.unsaid = false
			tell(out, &d.verdict, nil)
			if err := records.Close(); err != nil {
				return err
			}
			continue
		case n > 0:
			left, sent, d.asked = left-n, true, false
		case due && d.asked: // nothing fits any more; the next answer begins with it
			d.queued = true
			kept = append(kept, d)
			continue
		}
		tell(out, &p, records)
		d.told = p
	}
	clear(f.queue[len(kept):])
	f.queue = kept
	return nil
}

// next reads the next records of a partition, within what is left of the answer and of the throttle.
func (f *feed) next(d *fed, at commitlog.Progress, left int64, atLeastOne bool, now time.Time, p *part) commitlog.Range {
	most := min(left, int64(f.request.partBytes))
	if d.p.mayHold(f.broker) {
		// One batch at least, or a low rate would never let a large one pass.
		if room, _ := f.m.sending.room(now); room < most {
			most, atLeastOne = room, true
		}
	}
	records := f.read(d, at, most, atLeastOne, p)
	if n := records.Len(); n > 0 && d.p.throttledLeader.Load() {
		f.m.sending.spend(now, int(n), d.p.outOfSync(f.broker))
	}
	return records
}

// read finds what the follower gets. It is not looked at, but for the part that came to it corrupt.
func (f *feed) read(d *fed, at commitlog.Progress, maxBytes int64, atLeastOne bool, p *part) commitlog.Range {
	records, err := d.p.log.Read(d.end, int(maxBytes), at.End, atLeastOne)
	if err == nil && d.verify {
		if _, err = records.AppendTo(nil); err != nil {
			err = errors.Join(err, records.Close())
			records = commitlog.Range{}
		}
	}
	if err == nil {
		return records
	}
	p.code = answerFailed
	d.p.damageFound(err)
	if start := d.p.log.Progress().Start; errors.Is(err, commitlog.ErrOutOfRange) && d.end < start { // retention was quicker
		p.code, p.start = answerOutOfRange, start
	}
	d.asked = false
	return commitlog.Range{}
}

// everywhere is what followers are told of tombstones.
func (p *Partition) everywhere() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, leads := p.mu.role.(*leading); leads {
		return r.everywhere(p.log.Progress().Flushed)
	}
	return 0
}

// byID finds a replica by its topic's id; nil where there is none.
func (m *Manager) byID(topic metadata.UUID, number int32) *Partition {
	img := m.image.Load()
	if img == nil {
		return nil
	}
	t, ok := img.TopicByID(topic)
	if !ok {
		return nil
	}
	p, err := m.Partition(t.Name, number)
	if err != nil || p.topicID != topic {
		return nil
	}
	return p
}
