package sharesession

import (
	"errors"
	"math"
	"slices"
	"time"

	"barnabas/client/internal/errcode"
)

// Answer is what a broker answered.
type Answer[R any] struct {
	Err   error         // of the request as a whole
	Lock  time.Duration // for which records are acquired from now on; 0: the broker does not say
	Parts []Part[R]
}

// Part is what an answer holds of a partition.
type Part[R any] struct {
	Partition Partition
	Err       error // of fetching
	AckErr    error // of acknowledging
	Catch     Catch[R]
}

// Catch is what was acquired.
type Catch[R any] struct {
	Records []R     // each with its offset in Offsets
	Offsets []int64 // ascending
	Runs    []Run   // what else was acquired: gaps, and what cannot be read
	Err     error   // why something cannot be read
}

// Failed says that a broker could not be reached, or has not answered what was claimed. It releases
// everything when a connection breaks, so whatever it has acquired for us counts as lost.
func (s *Store[R]) Failed(now time.Time, node int32, err error) {
	ss := s.sessions[node]
	if ss == nil {
		return
	}
	s.land(ss, lost(err))
	s.loseSession(ss, err)
	s.backOff(now, ss)
	s.signals.Metadata = true
}

// land ends the request under way, with all its acknowledgements refused.
func (s *Store[R]) land(ss *session, err error) {
	f := ss.flight
	ss.flight = nil
	if f == nil {
		return
	}
	for _, out := range f.acks {
		s.refuse(out, err)
	}
}

// Refuse says that what was claimed was not sent, because the broker is too old for renewals. What
// else was claimed is sent without them.
func (s *Store[R]) Refuse(node int32, err error) {
	ss := s.sessions[node]
	if ss == nil || ss.flight == nil {
		return
	}
	f := ss.flight
	ss.flight = nil
	for _, out := range f.acks {
		renewals, others := out, out
		renewals.acks, others.acks = nil, nil
		for _, a := range out.acks {
			if a.flying == Renew {
				renewals.acks = append(renewals.acks, a)
			} else {
				others.acks = append(others.acks, a)
			}
		}
		s.refuse(renewals, err)
		if why := out.tenure.lost; why != nil {
			s.refuse(others, lost(why))
		} else {
			s.sendAgain(others)
		}
	}
	s.signals.Brokers = true
}

func (s *Store[R]) backOff(now time.Time, ss *session) {
	ss.failures++
	ss.notUntil = now.Add(s.cfg.Backoff(ss.failures))
	s.signals.Brokers = true
}

// refuse ends acknowledgements that were not taken. What was said of a record while its renewal was
// under way is for nothing as well.
func (s *Store[R]) refuse(out sent, err error) {
	var gone []ack
	for _, a := range out.acks {
		a.state = a.state&^flying | done
	}
	out.cur.due = slices.DeleteFunc(out.cur.due, func(a ack) bool {
		if a.state&done != 0 {
			a.state &^= due
			gone = append(gone, a)
			return true
		}
		return false
	})
	s.answered(out.cur, slices.Concat(out.acks, gone), err)
}

// Answered takes in what a broker answered to what was claimed.
func (s *Store[R]) Answered(now time.Time, node int32, a *Answer[R]) {
	ss := s.sessions[node]
	if ss == nil || ss.flight == nil {
		return
	}
	if a.Err != nil {
		s.refused(now, ss, a.Err)
		return
	}
	f := ss.flight
	ss.flight = nil
	switch {
	case f.final:
		ss.epoch, ss.known, ss.over = initialEpoch, nil, s.closing
	case ss.epoch == math.MaxInt32:
		ss.epoch = 1
	default:
		ss.epoch++
	}
	parts := make(map[Partition]*Part[R], len(a.Parts))
	for i := range a.Parts {
		if p := a.Parts[i].Partition; parts[p] == nil {
			parts[p] = &a.Parts[i]
		}
	}
	again := false
	for _, out := range f.acks {
		err := errUnanswered
		if part := parts[out.cur.Partition]; part != nil {
			err = part.AckErr
		}
		again = s.acknowledged(now, out, err, a.Lock) || again
	}
	if again {
		s.backOff(now, ss)
	} else {
		ss.failures = 0
	}
	for i := range a.Parts {
		part := &a.Parts[i]
		if at := f.fetched[part.Partition]; at != nil && at.lost == nil && parts[part.Partition] == part { // else the leader is another
			s.fetched(now, part, a.Lock)
		}
	}
	s.signals.Brokers = true
}

// refused deals with a request that a broker refused as a whole. A session that it does not know is
// opened anew at once, unless that was the matter already.
func (s *Store[R]) refused(now time.Time, ss *session, err error) {
	sessionLost := errors.Is(err, errcode.ShareSessionNotFound) || errors.Is(err, errcode.InvalidShareSessionEpoch)
	opened := ss.epoch == initialEpoch
	s.land(ss, lost(err))
	s.loseSession(ss, err)
	if sessionLost && !opened && ss.failures == 0 {
		ss.failures++
		s.signals.Brokers = true
		return
	}
	s.backOff(now, ss)
	switch {
	case errcode.StaleMetadata(err):
		s.signals.Metadata = true
	case mayPass(err) || s.closing:
	default:
		s.Fail(Failure{Err: err})
	}
}

// loseTenure ends what was acquired of a partition, unless that is over already.
func (s *Store[R]) loseTenure(cur *cursor, of *tenure, why error) {
	if cur.tenure == of {
		s.lose(cur, why)
	}
}

// mayPass tells whether what a broker answered may be another answer later. Apache Kafka answers
// UNKNOWN_SERVER_ERROR, too, while a topic is being deleted.
func mayPass(err error) bool {
	return errcode.Retriable(err) || errors.Is(err, errcode.UnknownServerError)
}

// acknowledged takes in what a broker says about the acknowledgements of a partition, and tells
// whether they are to be sent again.
func (s *Store[R]) acknowledged(now time.Time, out sent, err error, lock time.Duration) (again bool) {
	switch {
	case err == nil:
		until := now.Add(lock)
		for _, a := range out.acks {
			a.state &^= flying
			if a.flying != Renew {
				a.state |= done
			} else if lock > 0 {
				a.until = until.UnixNano()
				out.cur.until = later(out.cur.until, until)
			}
		}
		s.answered(out.cur, out.acks, nil)
	case errcode.Retriable(err) && !errcode.StaleMetadata(err) && !s.closing && out.tenure.lost == nil:
		s.sendAgain(out)
		return true
	default:
		refused := err
		if errcode.StaleMetadata(err) || errors.Is(err, errcode.InvalidRecordState) {
			refused = lost(err)
		}
		s.refuse(out, refused)
		if errcode.StaleMetadata(err) {
			s.signals.Metadata = true
			s.loseTenure(out.cur, out.tenure, err) // with what the program still holds
		}
	}
	return false
}

// sendAgain puts back what was not taken and may be later, for as long as its lock lasts.
func (s *Store[R]) sendAgain(out sent) {
	cur := out.cur
	cur.dueRuns = append(cur.dueRuns, out.runs...)
	for _, a := range out.acks {
		a.state &^= flying
		if a.state&due != 0 { // something else has been said since, which counts
			s.answered(cur, []ack{a}, nil)
			continue
		}
		a.state |= due
		cur.due = append(cur.due, a)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// forever is the end of a lock of which the broker does not tell.
const forever = 24 * time.Hour

// fetched takes in what a broker answered about a partition that it was asked for.
func (s *Store[R]) fetched(now time.Time, part *Part[R], lock time.Duration) {
	cur := s.cursors[part.Partition]
	if cur == nil {
		return
	}
	if part.Err != nil {
		cur.failures++
		cur.notUntil = now.Add(s.cfg.Backoff(cur.failures))
		switch {
		case errors.Is(part.Err, errcode.NotLeaderOrFollower), errors.Is(part.Err, errcode.FencedLeaderEpoch):
			s.lose(cur, part.Err)
			s.signals.Metadata = true
		case errcode.StaleMetadata(part.Err):
			s.signals.Metadata = true
		case !mayPass(part.Err):
			s.Fail(Failure{cur.topic, cur.Number, part.Err})
		}
		return
	}
	cur.failures, cur.notUntil = 0, time.Time{}
	c := &part.Catch
	if len(c.Offsets)+len(c.Runs) == 0 {
		return
	}
	if lock <= 0 {
		lock = forever
	}
	until := now.Add(lock)
	cur.until = later(cur.until, until)
	cur.dueRuns = append(cur.dueRuns, c.Runs...)
	if c.Err != nil {
		s.Fail(Failure{cur.topic, cur.Number, c.Err})
	}
	if len(c.Records) == 0 {
		return
	}
	helds := make([]Held, len(c.Records))
	for i := range helds {
		helds[i] = Held{cur: cur, tenure: cur.tenure, offset: c.Offsets[i], until: until.UnixNano()}
		s.attach(&c.Records[i], &helds[i])
	}
	s.ready = append(s.ready, chunk[R]{cur: cur, tenure: cur.tenure, records: c.Records, helds: helds})
	if !cur.assigned || s.closing {
		s.releaseReady(now, cur)
	}
	s.signals.Poll = true
}
