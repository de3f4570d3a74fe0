package api

import (
	"encoding/binary"
	"errors"

	"barnabas/internal/commitlog"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// write answers with what was read. Records go out as ranges of files, undecoded, between the
// fields that are written here; kmsg is the oracle of this file's tests.
func (r *fetchRound) write(out *wire.Out) {
	s := r.f.session
	told := r.toBeTold()
	w := &fetchWriter{version: r.f.version, out: out}
	w.e.flexible = w.version >= 12
	w.open()
	w.e.int32(0) // throttle
	if w.version >= 7 {
		w.e.int16(0)
		w.e.int32(s.idOf(r.f))
	}
	groups := groupByTopic(told, w.version)
	w.e.arrayLen(len(groups))
	var leaders leaderHints
	var answered []*sessionPartition
	for _, group := range groups {
		if w.version >= 13 {
			w.e.dst = append(w.e.dst, group[0].topicID[:]...)
		} else {
			w.e.string(group[0].topic)
		}
		w.e.arrayLen(len(group))
		for _, p := range group {
			if p.held {
				answered = append(answered, p)
			}
			w.partition(r, p, &leaders)
			p.told(p.result.Progress)
		}
		w.e.noTags()
	}
	w.nodes(leaders.brokersFor(r.image, r.peer))
	w.close()
	s.rotate(answered)
}

// toBeTold chooses the partitions of the response: all of them after a full request, otherwise
// those with records, an error, or other offsets than the client knows.
func (r *fetchRound) toBeTold() []*sessionPartition {
	if !r.f.full {
		told := make([]*sessionPartition, 0, len(r.read))
		for _, p := range r.read {
			if p.held || p.err != nil || p.diverging != nil || p.nearest != noReplica || p.hasOtherOffsets() {
				told = append(told, p)
			}
		}
		return told
	}
	return r.f.session.list
}

func (p *sessionPartition) hasOtherOffsets() bool {
	now := p.result.Progress
	return !p.toldAny || now.HighWatermark != p.toldWatermark || now.Start != p.toldStart
}

func (p *sessionPartition) told(now commitlog.Progress) {
	p.toldAny, p.toldWatermark, p.toldStart = p.err == nil, now.HighWatermark, now.Start
}

// idOf is the session id for the response: 0 where the session ends with it.
func (s *session) idOf(f *fetchRequest) int32 {
	if f.known {
		return s.id
	}
	return 0
}

// groupByTopic splits partitions into runs of the same topic.
func groupByTopic(all []*sessionPartition, version int16) [][]*sessionPartition {
	var groups [][]*sessionPartition
	same := func(a, b *sessionPartition) bool {
		if version >= 13 {
			return a.topicID == b.topicID
		}
		return a.topic == b.topic
	}
	for start := 0; start < len(all); {
		end := start + 1
		for end < len(all) && same(all[start], all[end]) {
			end++
		}
		groups = append(groups, all[start:end])
		start = end
	}
	return groups
}

// fetchWriter writes fields into out's buffer, handing the buffer over wherever a file range comes in between.
type fetchWriter struct {
	version int16
	out     *wire.Out
	e       encoder
}

// open borrows out's buffer; close gives it back. Nothing else may use out in between.
func (w *fetchWriter) open() {
	w.out.Append(func(dst []byte) []byte { w.e.dst = dst; return dst })
}

func (w *fetchWriter) close() {
	w.out.Append(func([]byte) []byte { return w.e.dst })
	w.e.dst = nil
}

func (w *fetchWriter) partition(r *fetchRound, p *sessionPartition, leaders *leaderHints) {
	at := p.result.Progress
	if p.err != nil {
		at = commitlog.Progress{HighWatermark: -1, LastStable: -1, Start: -1}
	}
	w.e.int32(p.number)
	w.e.int16(codeOf(p.err))
	w.e.int64(at.HighWatermark)
	w.e.int64(at.LastStable)
	if w.version >= 5 {
		w.e.int64(at.Start)
	}
	w.abortedTransactions(r, p)
	if w.version >= 11 {
		w.e.int32(p.nearest)
	}
	w.e.bytesLen(int(p.result.Records.Len()))
	if p.held {
		p.held = false // out closes it from here on
		w.close()
		w.out.File(p.result.Records)
		w.open()
	}
	if w.version >= 12 {
		w.partitionTags(r, p, leaders)
	}
}

// abortedTransactions is null for a reader that wants them all the same.
func (w *fetchWriter) abortedTransactions(r *fetchRound, p *sessionPartition) {
	if r.f.isolation != replica.ReadCommitted && !isMissing(p.err) {
		w.e.nullArray()
		return
	}
	w.e.arrayLen(len(p.aborted))
	for _, a := range p.aborted {
		w.e.int64(a.ProducerID)
		w.e.int64(a.First)
		w.e.noTags()
	}
}

// Tags of a partition: where the logs part, and who leads instead.
const (
	tagDivergingEpoch = 0
	tagCurrentLeader  = 1
)

func (w *fetchWriter) partitionTags(r *fetchRound, p *sessionPartition, leaders *leaderHints) {
	switch {
	case p.diverging != nil:
		w.e.dst = append(w.e.dst, 1, tagDivergingEpoch, 13) // one tag of 13 bytes
		w.e.int32(p.diverging.epoch)
		w.e.int64(p.diverging.end)
		w.e.noTags()
	case errors.Is(p.err, replica.ErrCutOff): // that this broker leads is all that it knows
		w.e.noTags()
	case w.version >= 16 && (errors.Is(p.err, replica.ErrNotLeader) || errors.Is(p.err, replica.ErrFencedEpoch)):
		leader, epoch := leaders.add(r.image, p.topic, p.number)
		w.e.dst = append(w.e.dst, 1, tagCurrentLeader, 9)
		w.e.int32(leader)
		w.e.int32(epoch)
		w.e.noTags()
	default:
		w.e.noTags()
	}
}

// nodes ends the response, with the addresses of the leaders that it named (KIP-951).
func (w *fetchWriter) nodes(brokers []brokerAddress) {
	if w.version < 16 || len(brokers) == 0 {
		w.e.noTags()
		return
	}
	inner := encoder{flexible: true}
	inner.arrayLen(len(brokers))
	for _, b := range brokers {
		inner.int32(b.id)
		inner.string(b.host)
		inner.int32(b.port)
		if b.rack == nil {
			inner.nullString()
		} else {
			inner.string(*b.rack)
		}
		inner.noTags()
	}
	w.e.dst = append(w.e.dst, 1, 0) // one tag, number 0
	w.e.dst = binary.AppendUvarint(w.e.dst, uint64(len(inner.dst)))
	w.e.dst = append(w.e.dst, inner.dst...)
}
