package replica

import (
	"math"
	"slices"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
	"barnabas/internal/planted"
)

// leading: this broker is the partition's leader in this epoch. It is a state machine without clock or lock: the
// partition's mutex guards it, time comes in.
//
// A follower counts with what it has told in this epoch: in a durable topic with what is on its disk, elsewhere with
// the end of its log. The high watermark is the smallest of these, and of the leader's own, over
// every replica that may be in sync as far as the controller's last word goes: the members that are known, and
// those proposed and not answered yet (KIP-497's maximal ISR). While fewer than min.insync.replicas are in
// sync it stands still, so that whoever was in sync then has all that was ever acknowledged (KIP-966).
type leading struct {
	epoch, partitionEpoch int32
	start                 int64   // the log's end when the epoch began
	inSync                []int32 // node ids, this broker's among them: what the metadata says
	followers             []follower
	proposal              *proposal // until the metadata answers it; nil: none
	notBefore             time.Time // no proposal before, for the last one was refused
	damaged               bool      // the log cannot be served whole: somebody else has to lead
	durable               bool      // the topic's setting, as it was looked at last
	unflushed             bool      // what the metadata says: see unflushedChange
}

// follower is what the leader knows of another replica.
type follower struct {
	id      int32
	life    int64 // broker epoch of the process that reported last; 0: none has in this leader epoch
	end     int64 // of its log; -1: not known
	flushed int64 // everything below is on its disk; -1: not known
	start   int64 // of its log; -1: not known
	inSync  bool  // as the metadata says
	joining bool  // proposed to be; it counts already
	standby bool  // it may be elected without being in sync (KIP-966's ELR)
	lost    bool  // it no longer has what it had, and has to leave
	// caughtUp is when it last had everything that the leader had then. mark is a moment of the leader's log
	// that it has not reached yet: when it does, it was caught up at that time.
	caughtUp time.Time
	mark     struct {
		end int64
		at  time.Time
	}
}

// proposal is what the controller has been asked, or is about to be.
type proposal struct {
	metadata.ISRProposal
	unsure  bool // an attempt had no answer: it may take effect yet, however late
	settled bool // the controller has answered that something newer is committed: the metadata will say what
	sending bool
	// promises: an attempt says that all that is committed is on disk, and may be accepted yet.
	promises bool
}

// lead begins a leader epoch. Members that have not reported count as having nothing.
func lead(self int32, p *metadata.Partition, start int64, now time.Time) *leading {
	l := &leading{epoch: p.LeaderEpoch, start: start, durable: !p.Unflushed}
	for _, id := range p.Replicas {
		if id != self {
			l.followers = append(l.followers, newFollower(id))
		}
	}
	l.follow(p, now)
	return l
}

func newFollower(id int32) follower { return follower{id: id, end: -1, flushed: -1, start: -1} }

// follow takes over what the metadata says of the epoch that goes on.
func (l *leading) follow(p *metadata.Partition, now time.Time) {
	if l.inSync != nil && p.PartitionEpoch == l.partitionEpoch {
		return // said before: what was proposed since is still open
	}
	l.partitionEpoch, l.inSync, l.unflushed = p.PartitionEpoch, p.ISR, p.Unflushed
	l.proposal, l.notBefore = nil, time.Time{}
	l.followers = slices.DeleteFunc(l.followers, func(f follower) bool { return !slices.Contains(p.Replicas, f.id) })
	for _, id := range p.Replicas {
		known := func(f follower) bool { return f.id == id }
		if id != p.Leader && !slices.ContainsFunc(l.followers, known) {
			l.followers = append(l.followers, newFollower(id))
		}
	}
	for i := range l.followers {
		f := &l.followers[i]
		before := f.inSync
		f.inSync, f.joining = slices.Contains(p.ISR, f.id), false
		f.standby = slices.Contains(p.ELR, f.id)
		f.lost = f.lost && f.reliedOn()
		if f.inSync && !before {
			f.caughtUp = now
		}
	}
}

func (l *leading) follower(id int32) *follower {
	for i := range l.followers {
		if l.followers[i].id == id {
			return &l.followers[i]
		}
	}
	return nil
}

// reliedOn: it has everything that is committed, as far as others know.
func (f *follower) reliedOn() bool { return f.inSync || f.joining || f.standby }

// reliesOnOthers: another replica may be elected without this one.
func (l *leading) reliesOnOthers() bool {
	return slices.ContainsFunc(l.followers, func(f follower) bool { return f.reliedOn() })
}

// byDisk: records count once they are on disk: the topic is durable, or the metadata promises it still, or may do so by a proposal
// that is under way.
func (l *leading) byDisk() bool {
	return l.durable || !l.unflushed || l.proposal != nil && l.proposal.promises
}

// unflushedChange is what to propose for the metadata's mark of the partition, nil for nothing. In a topic that is no longer
// durable it is set before anything counts that is not on disk. In one that has become durable it is taken away, and an in-sync
// replica trusted after a crash, once all that was committed before is on the disk of every member; who is eligible to lead
// without being one has not been asked.
func (l *leading) unflushedChange(at commitlog.Progress) *bool {
	if l.durable != l.unflushed || l.proposal != nil || l.damaged {
		return nil
	}
	committed := max(at.HighWatermark, l.start)
	if l.durable && at.Flushed < committed {
		return nil
	}
	for i := range l.followers {
		if f := &l.followers[i]; l.durable && (f.standby || f.lost || f.inSync && f.flushed < committed) {
			return nil
		}
	}
	return new(!l.durable)
}

func (f *follower) counts(durable bool) int64 {
	if durable && !planted.CountUnflushed {
		return f.flushed
	}
	return f.end
}

// reach is how far the high watermark may move, -1 for nowhere. own is what the leader itself counts with.
func (l *leading) reach(own int64, durable bool, least int32) int64 {
	if int32(len(l.inSync)) < least {
		return -1
	}
	for i := range l.followers {
		if f := &l.followers[i]; f.inSync || f.joining {
			own = min(own, f.counts(durable))
		}
	}
	return own
}

// everywhere is the offset below which every replica has everything on disk.
func (l *leading) everywhere(own int64) int64 {
	for i := range l.followers {
		own = min(own, l.followers[i].flushed)
	}
	return max(own, 0)
}

// report takes what a follower says: its log is the leader's up to end, and on its disk up to flushed. It returns
// whether the in-sync replicas may have to change.
func (l *leading) report(id int32, life, end, flushed int64, at commitlog.Progress, durable bool, now time.Time) (isrMayChange bool) {
	f := l.follower(id)
	if f == nil || life < f.life {
		return false
	}
	end = min(end, at.End)
	if life == f.life && end >= f.end { // word of its disk, which goes beside the fetch, may have been quicker
		flushed = max(flushed, f.flushed)
	}
	flushed = min(flushed, end)
	f.life, f.end, f.flushed = life, end, flushed
	if f.reliedOn() && end < at.HighWatermark && !f.lost {
		f.lost = true
		return true
	}
	has := f.counts(durable)
	switch {
	case has >= at.End:
		f.caughtUp, f.mark.at = now, time.Time{}
	case f.mark.at.IsZero():
		f.mark.end, f.mark.at = at.End, now
	case has >= f.mark.end:
		f.caughtUp = f.mark.at
		f.mark.end, f.mark.at = at.End, now
	}
	return l.mayJoin(f, at.HighWatermark, durable)
}

// starts takes where a follower's log begins.
func (l *leading) starts(id int32, life, start int64) {
	if f := l.follower(id); f != nil && f.life == life {
		f.start = start
	}
}

// lowest is the offset below which no replica has anything any more, of those whose brokers take part; -1 while one of them
// has not told.
func (l *leading) lowest(own int64, alive func(id int32) bool) int64 {
	for i := range l.followers {
		if f := &l.followers[i]; f.start < own && alive(f.id) {
			own = f.start
		}
	}
	return own
}

// advance is report for a disk that has come further.
func (l *leading) advance(id int32, life, flushed int64, at commitlog.Progress, durable bool, now time.Time) (isrMayChange bool) {
	f := l.follower(id)
	if f == nil || f.life != life || flushed <= f.flushed {
		return false
	}
	return l.report(id, life, max(f.end, flushed), flushed, at, durable, now)
}

// mayJoin: a follower belongs to the in-sync replicas again once it has what is committed. A new leader does not
// know how far that goes, but its log's end when it was elected is beyond.
func (l *leading) mayJoin(f *follower, highWatermark int64, durable bool) bool {
	return !f.inSync && !f.joining && f.counts(durable) >= max(highWatermark, l.start)
}

// patience says when a follower has fallen too far behind.
type patience struct {
	lag      time.Duration // replica.lag.time.max.ms
	messages int64         // replica.lag.max.messages; 0: any number
}

// tooFar: a member has not been caught up for too long, or by too much. What was committed without disks (unflushed) no member
// need have on its own at once when they begin to count.
func (f *follower) tooFar(end int64, durable, unflushed bool, p patience, now time.Time) bool {
	if end <= f.counts(durable) {
		return false
	}
	return now.Sub(f.caughtUp) > p.lag || p.messages > 0 && end-f.counts(durable && !unflushed) > p.messages
}

// propose decides what to ask of the controller; nil: nothing, or what was asked waits for its answer. registered gives
// the life in which a broker is registered, and whether it can be a member as far as the metadata goes.
func (l *leading) propose(id metadata.UUID, number, self int32, at commitlog.Progress, durable bool, wait patience, now time.Time,
	registered func(id int32) (life int64, eligible bool),
) *metadata.ISRProposal {
	for i := range l.followers {
		// Followers say nothing while nothing is written, so who has everything now is noted here.
		if f := &l.followers[i]; f.counts(durable) >= at.End {
			f.caughtUp, f.mark.at = now, time.Time{}
		}
	}
	if l.proposal != nil {
		if l.proposal.sending || l.proposal.settled || now.Before(l.notBefore) {
			return nil
		}
		l.proposal.sending = true
		return &l.proposal.ISRProposal
	}
	if now.Before(l.notBefore) {
		return nil
	}
	p := &proposal{ISRProposal: metadata.ISRProposal{
		Topic: id, Partition: number, LeaderEpoch: l.epoch, PartitionEpoch: l.partitionEpoch,
	}, sending: true}
	if l.damaged {
		p.Lost = append(p.Lost, self)
	} else {
		p.ISR = append(p.ISR, metadata.Member{Broker: self})
	}
	changed := l.damaged
	for i := range l.followers {
		f := &l.followers[i]
		life, eligible := registered(f.id)
		m := f.member(life)
		switch {
		case f.lost:
			p.Lost, changed = append(p.Lost, f.id), true
		case f.inSync && f.tooFar(at.End, durable, l.unflushed, wait, now):
			changed = true
		case f.inSync:
			p.ISR = append(p.ISR, m)
		case !l.damaged && l.mayJoin(f, at.HighWatermark, durable) && eligible && life == f.life:
			p.ISR, changed = append(p.ISR, m), true
			f.joining = true
		}
	}
	if !changed {
		if p.Unflushed = l.unflushedChange(at); p.Unflushed == nil {
			return nil
		}
		p.promises = !*p.Unflushed
	}
	l.proposal = p
	return &p.ISRProposal
}

// member names a follower in the life that it reported in. One that has not reported yet in this epoch is what the
// metadata says: if it had begun another life, that would have taken it out.
func (f *follower) member(registered int64) metadata.Member {
	if f.life == 0 {
		return metadata.Member{Broker: f.id, Epoch: registered}
	}
	return metadata.Member{Broker: f.id, Epoch: f.life}
}

// settle takes the controller's answer to a proposal, 0 for none.
func (l *leading) settle(asked *metadata.ISRProposal, outcome metadata.ISROutcome, now time.Time, rest time.Duration, registered func(id int32) (int64, bool)) {
	p := l.proposal
	if p == nil || asked.LeaderEpoch != l.epoch || asked.PartitionEpoch != l.partitionEpoch {
		return // the metadata has answered already
	}
	p.sending = false
	switch outcome {
	case metadata.ISRAccepted, metadata.ISRStale:
		p.settled = true
	case 0:
		p.unsure = true
		l.notBefore = now.Add(rest)
	case metadata.ISRBehind:
		l.notBefore = now.Add(rest)
	default:
		l.notBefore = now.Add(rest)
		if !p.unsure {
			l.forget()
			return
		}
		// An earlier attempt may arrive yet and be accepted. What is proposed now changes nothing but the partition
		// epoch, and with that makes every earlier one stale; until then those proposed count.
		p.ISRProposal = l.closing(asked, registered)
	}
}

// closing is a proposal of what is.
func (l *leading) closing(asked *metadata.ISRProposal, registered func(id int32) (int64, bool)) metadata.ISRProposal {
	same := *asked
	same.ISR, same.Lost, same.Unflushed = nil, nil, nil
	for _, id := range l.inSync {
		m := metadata.Member{Broker: id}
		if f := l.follower(id); f != nil {
			life, _ := registered(id)
			m = f.member(life)
		}
		same.ISR = append(same.ISR, m)
	}
	return same
}

func (l *leading) forget() {
	l.proposal = nil
	for i := range l.followers {
		l.followers[i].joining = false
	}
}

// nearest chooses whom a consumer in rack should read from, at an offset: in-sync replicas that have it and are
// in its rack, the one that has most, and among equals the leader (KIP-392). A follower that lags, or has not reported in
// this epoch, is none of them (KAFKA-14372).
func (l *leading) nearest(self int32, rack string, offset int64, at commitlog.Progress, durable bool, rackOf func(id int32) (string, bool)) int32 {
	if own, ok := rackOf(self); rack == "" || ok && own == rack {
		return self
	}
	best, most := self, int64(math.MinInt64)
	for i := range l.followers {
		f := &l.followers[i]
		own, ok := rackOf(f.id)
		if !ok || own != rack || !f.inSync || f.lost || f.counts(durable) < max(offset, at.HighWatermark) {
			continue
		}
		if f.end > most {
			best, most = f.id, f.end
		}
	}
	return best
}

// shorter is told that a follower's log does not reach the leader's: a member of the in-sync replicas has lost
// what it had.
func (l *leading) shorter(id int32, end int64, at commitlog.Progress) (isrMayChange bool) {
	f := l.follower(id)
	if f == nil || end >= at.HighWatermark || f.lost || !f.reliedOn() {
		return false
	}
	f.lost = true
	return true
}

// broken is told that what a follower has is damaged. It cuts that away, and fetches it again, when nobody relies on it
// any more, wherever the damage lies.
func (l *leading) broken(id int32) (isrMayChange bool) {
	f := l.follower(id)
	if f == nil || f.lost || !f.reliedOn() {
		return false
	}
	f.lost = true
	return true
}

// excuse takes a time in which this process did not run out of the account of its followers: nobody looked at what
// they had to say.
func (l *leading) excuse(stood time.Duration, now time.Time) {
	for i := range l.followers {
		f := &l.followers[i]
		f.caughtUp = earlier(f.caughtUp.Add(stood), now)
		if !f.mark.at.IsZero() {
			f.mark.at = earlier(f.mark.at.Add(stood), now)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// wants reports whether there is something to propose now, or again: not how long members have been behind, which
// is looked at from time to time.
func (l *leading) wants(at commitlog.Progress, durable bool, registered func(id int32) (life int64, eligible bool)) bool {
	if l.proposal != nil {
		return !l.proposal.settled && !l.proposal.sending
	}
	for i := range l.followers {
		f := &l.followers[i]
		if f.lost {
			return true
		}
		if l.mayJoin(f, at.HighWatermark, durable) {
			if life, eligible := registered(f.id); eligible && life == f.life {
				return true
			}
		}
	}
	return l.damaged || l.unflushedChange(at) != nil
}
