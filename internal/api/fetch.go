package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// Fetch, key 1, versions 4 to 18. Version 7 brings sessions (KIP-227), 9 leader epochs (KIP-320),
// 10 zstd (KIP-110), 12 flexible encoding and diverging epochs (KIP-595), 13 topic ids (KIP-516),
// 16 names new leaders (KIP-951), 17 and 18 concern replicas. From version 11 on followers answer consumers too, and a
// leader may send a consumer to a replica in its rack (KIP-392).
//
// A fetch belongs to a session, which remembers the partitions, where each is read from, and which
// of them have nothing to read. Requests without a session get one that lives as long as they do.
// Phase one finds the session and tells it what the request changes; reading happens when the reply
// is due.

// fetchRequest is one request with its session.
type fetchRequest struct {
	version int16
	session *session
	code    int16 // an error of the whole request
	known   bool  // the session is kept after the reply
	full    bool  // every partition is answered, moved or not
	ready   bool  // the reply was promised not to wait
	// late is what the request tells its session, where requests before it have not been answered
	// yet: it is told in its turn, after them.
	late      *kmsg.FetchRequest
	toRead    int // partitions that it reads, as far as is known before
	minBytes  int
	maxBytes  int
	deadline  time.Time // of waiting for minBytes
	isolation replica.Isolation
	rack      string // that the consumer is in, where the nearest replica is to be chosen; "" where not
}

// fromFollowers: the client knows that followers may answer (KIP-392).
func (f *fetchRequest) fromFollowers() bool { return f.version >= 11 }

func (h *Handler) fetch(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := decoded(c, kmsg.NewPtrFetchRequest())
	if err != nil {
		return nil, false, err
	}
	f := &fetchRequest{version: q.Version, minBytes: int(q.MinBytes)}
	f.maxBytes = min(int(q.MaxBytes), h.o.Config().Int("fetch.max.bytes"))
	f.deadline = c.now.Add(time.Duration(max(q.MaxWaitMillis, 0)) * time.Millisecond)
	if q.IsolationLevel == 1 {
		f.isolation = replica.ReadCommitted
	}
	if f.fromFollowers() && h.o.Config().String("replica.selector.class") == config.RackAwareReplicaSelector {
		f.rack = q.Rack
	}
	if isFollower(q) {
		return f.refuse(q, errFollower), true, nil
	}
	h.joinSession(f, q, c.peer.ID)
	if f.code != 0 {
		return f.failed, true, nil
	}
	// Whoever waits for more than a byte, or finds nothing now, waits in the connection's writer.
	f.ready = f.late == nil && (!c.now.Before(f.deadline) || f.minBytes <= 1 && f.session.hasNews(h, f))
	c.req.AnnouncesWait = true
	c.req.HoldsBytes = f.holdsBytes()
	c.req = nil // its memory is not ours any more once phase one has ended
	return func(ctx context.Context, out *wire.Out) error { return h.answerFetch(ctx, c, f, out) }, f.ready, nil
}

// holdsBytes is what f holds until it is answered, besides what its session is charged with.
func (f *fetchRequest) holdsBytes() int64 {
	held := int64(fetchBytes) + int64(f.toRead)*readPartitionBytes
	if !f.known {
		held += f.session.bytes
	}
	if f.late != nil {
		for _, t := range f.late.Topics {
			held += lateTopicBytes + int64(len(t.Topic)) + int64(len(t.Partitions))*(latePartitionBytes+readPartitionBytes)
		}
		for _, t := range f.late.ForgottenTopics {
			held += lateTopicBytes + int64(len(t.Topic)) + int64(len(t.Partitions))*4
		}
	}
	return held
}

// What a fetch takes while it waits: itself, its session without partitions, timer and reply; what it has
// read of each partition; and, where it is told to its session later, each topic and partition that it
// names, as decoded.
const (
	fetchBytes         = 1 << 10
	readPartitionBytes = 192
	lateTopicBytes     = 96
	latePartitionBytes = 96
)

// isFollower says whether a request claims to come from a replica. Replicas use a listener and
// messages of their own.
func isFollower(q *kmsg.FetchRequest) bool {
	if q.Version >= 15 {
		return q.ReplicaState.ID >= 0
	}
	return q.ReplicaID >= 0
}

// answerFetch reads until there is enough or the wait is over, and writes the response.
func (h *Handler) answerFetch(ctx context.Context, c *call, f *fetchRequest, out *wire.Out) error {
	s := f.session
	if !s.tryEnter() {
		out.Waiting()
		if !s.enter(ctx) {
			return fmt.Errorf("fetch: %w", ctx.Err())
		}
	}
	defer s.leave()
	defer s.unanswered.Add(-1)
	if f.late != nil {
		s.update(f.late)
		f.late = nil
		if !h.sessions.charge(s, h.o.Now()) {
			h.sessions.remove(s.id)
			f.known = false
		}
	}
	if !f.known {
		defer s.retired.Store(true)
	}
	round := &fetchRound{h: h, f: f, peer: c.peer, image: h.o.Images.Image()}
	defer round.discard()
	round.readSurely(ctx, out)
	for !round.enough() {
		if !round.waitForNews(ctx, out) {
			break
		}
		round.readSurely(ctx, out)
	}
	round.readRest(ctx, out)
	if ctx.Err() != nil {
		return fmt.Errorf("fetch: %w", ctx.Err())
	}
	round.write(out)
	return nil
}

// fetchRound is the reading of one request.
type fetchRound struct {
	h     *Handler
	f     *fetchRequest
	peer  *wire.Peer
	image *metadata.Image
	bytes int
	mind  bool // something besides bytes has to be told at once: an error, a diverging epoch
	// missing counts the partitions that do not exist: no reason to answer at once, as long as there
	// are others to wait for.
	missing int
	full    bool                // something readable has no room any more
	unsure  []*sessionPartition // left unanswered, for another broker may lead them by now
	asked   bool                // the controller was asked whether this one does
	sure    error               // nil, or why it is not known
	timer   *time.Timer
	read    []*sessionPartition // those with a result, in the session's order of reading
}

func (r *fetchRound) enough() bool {
	return r.mind || r.full || r.f.ready || r.bytes >= r.f.minBytes || r.missing == len(r.f.session.byName) ||
		!r.h.o.Now().Before(r.f.deadline)
}

// readSurely reads what is new. Where something is asked for that this leader does not have, and another may, the controller is
// asked first.
func (r *fetchRound) readSurely(ctx context.Context, out *wire.Out) {
	r.readNews()
	r.makeSure(ctx, out)
}

// readRest reads the partitions for which there was no room: after a full request all are answered.
func (r *fetchRound) readRest(ctx context.Context, out *wire.Out) {
	if !r.f.full {
		return
	}
	for _, p := range r.f.session.list {
		if !p.answered {
			r.readOne(p, 0)
		}
	}
	r.makeSure(ctx, out)
}

// makeSure asks the controller, once in a request, and reads what was left for that.
func (r *fetchRound) makeSure(ctx context.Context, out *wire.Out) {
	if len(r.unsure) == 0 {
		return
	}
	out.Waiting()
	r.sure, r.asked = r.h.confirm(ctx, out.Hurried()), true
	if ctx.Err() != nil {
		return // nobody is told anything
	}
	r.image = r.h.o.Images.Image()
	for _, p := range r.unsure {
		r.readOne(p, r.f.maxBytes-r.bytes)
	}
	r.unsure = nil
}

// readNews reads the partitions of the session that may have something new.
func (r *fetchRound) readNews() {
	s := r.f.session
	s.collectMoves()
	r.missing = 0
	for p := range s.news() {
		if p.held {
			if !p.moved {
				continue // read already in an earlier turn of this request: its bytes wait in p.result
			}
			r.release(p) // there is more by now
		}
		left := r.f.maxBytes - r.bytes
		if left <= 0 && r.bytes > 0 {
			r.full = true
			break // it stays among the news, and comes first the next time
		}
		r.readOne(p, left)
	}
}

// release gives back what was read of p.
func (r *fetchRound) release(p *sessionPartition) {
	r.bytes -= int(p.result.Records.Len())
	_ = p.result.Records.Close() // it was only read
	p.held, p.result, p.aborted = false, replica.Result{}, nil
}

// readOne reads p, for which the response has left bytes of room.
func (r *fetchRound) readOne(p *sessionPartition, left int) {
	p.moved = false
	wasThere := p.answered && p.err == nil
	if p.outcome == nil {
		p.outcome = &outcome{}
	}
	p.nearest = noReplica
	p.err = p.resolve(r.h, r.image, r.f)
	if p.err == nil {
		p.err = r.readResolved(p, left)
	}
	unsure := errors.Is(p.err, replica.ErrOffsetOutOfRange) && p.offset >= p.result.Progress.Start && p.partition.OthersMayLead()
	if unsure && r.asked {
		p.err, unsure = cmp.Or(r.sure, p.err), false
	}
	switch n := int(p.result.Records.Len()); {
	case unsure:
		p.err, r.unsure = nil, append(r.unsure, p) // it stays among the news
	case isMissing(p.err) && !wasThere:
		r.missing++
	case p.err != nil:
		r.mind = true
		if unexpected(p.err) {
			r.h.log.Error("fetch failed", "topic", p.topic, "partition", p.number, "err", p.err)
		}
	case p.diverging != nil, p.nearest != noReplica:
		r.mind = true
	case n > 0:
		p.held = true
		r.bytes += n
	case r.f.hasBeyond(p.partition, p.offset):
		r.full = true // there are records, but the first batch is larger than what is left
	default:
		r.f.session.quiet(p) // at the end of what may be read: nothing to do until it moves
	}
	if !p.answered {
		p.answered = true
		r.read = append(r.read, p)
	}
}

// isMissing: there is no such partition, for all that this broker knows.
func isMissing(err error) bool {
	return errors.Is(err, errUnknownTopicID) || errors.Is(err, replica.ErrUnknownPartition)
}

func (r *fetchRound) readResolved(p *sessionPartition, left int) error {
	if p.lastEpoch >= 0 && r.f.version >= 12 {
		found, end, err := p.partition.EpochEndHere(p.lastEpoch, p.leaderEpoch)
		if err != nil {
			return err
		}
		if found < 0 {
			return fmt.Errorf("nothing is known of epoch %d of %v: %w", p.lastEpoch, p.partition.ID(), replica.ErrOffsetOutOfRange)
		}
		if found < p.lastEpoch || end < p.offset {
			p.diverging = &divergence{epoch: found, end: end}
			p.result = replica.Result{Progress: p.partition.Progress()}
			return nil
		}
	}
	if r.f.version < 10 && p.partition.Log().Config().Codec == batch.Zstd {
		return fmt.Errorf("Fetch version %d: %w", r.f.version, errZstdTooNew)
	}
	if r.sendElsewhere(p) {
		return nil
	}
	read := p.partition.Read
	if r.f.fromFollowers() {
		read = p.partition.ReadHere
	}
	result, err := read(p.offset, p.leaderEpoch, min(left, int(p.maxBytes)), r.bytes == 0, r.f.isolation)
	p.result = result
	if errors.Is(err, replica.ErrOffsetNotAvailable) && p.offset <= result.Progress.End {
		return nil // this follower has it, and will soon know that it is committed: the reader waits as at a log's end
	}
	if err != nil || r.f.isolation != replica.ReadCommitted {
		return err
	}
	p.aborted, err = p.partition.Log().AbortedTransactions(p.offset, max(result.Records.Next, p.offset))
	if err != nil {
		_ = p.result.Records.Close()
		p.result.Records = commitlog.Range{}
	}
	return err
}

// noReplica stands for a replica where none is meant.
const noReplica int32 = -1

// sendElsewhere finds whether the consumer should read p from another replica than this one, its leader. It is told at
// once, without records.
func (r *fetchRound) sendElsewhere(p *sessionPartition) bool {
	if r.f.rack == "" {
		return false
	}
	if _, err := p.partition.LeaderEpoch(p.leaderEpoch); err != nil {
		return false // reading says what is wrong
	}
	nearest, err := p.partition.NearestReplica(r.f.rack, p.offset)
	if err != nil || nearest == r.h.o.NodeID {
		return false
	}
	p.nearest, p.result = nearest, replica.Result{Progress: p.partition.Progress()}
	return true
}

// hasBeyond reports whether reading p at an offset would find records or an error.
func (f *fetchRequest) hasBeyond(p *replica.Partition, offset int64) bool {
	if f.fromFollowers() {
		return p.HasBeyondHere(offset, f.isolation)
	}
	return p.HasBeyond(offset, f.isolation)
}

// waitForNews waits until a partition of the session moves. False: the time is up.
func (r *fetchRound) waitForNews(ctx context.Context, out *wire.Out) bool {
	left := r.f.deadline.Sub(r.h.o.Now())
	if left <= 0 {
		return false
	}
	select {
	case <-out.Hurried():
		return false
	default:
	}
	out.Waiting()
	if r.timer == nil {
		r.timer = time.NewTimer(left)
	}
	select {
	case <-r.f.session.watch.Moved:
		r.image = r.h.o.Images.Image()
		return true
	case <-r.timer.C:
	case <-out.Hurried():
	case <-ctx.Done():
	}
	return false
}

// discard gives back what was read and not handed on.
func (r *fetchRound) discard() {
	if r.timer != nil {
		r.timer.Stop()
	}
	for _, p := range r.read {
		if p.held {
			_ = p.result.Records.Close()
		}
		p.held, p.moved, p.answered, p.outcome = false, false, false, nil
	}
}

// resolve finds the partition that the session means, again whenever the last one ended.
func (p *sessionPartition) resolve(h *Handler, image *metadata.Image, f *fetchRequest) error {
	if p.partition != nil {
		if _, err := p.partition.EpochHere(-1); err == nil {
			return nil
		}
		p.unwatch(f.session)
	}
	partition, err := p.find(h, image, f)
	if err != nil {
		return err
	}
	p.partition = partition
	partition.Watch(f.session.watch, p.key)
	return nil
}

// find looks the partition up, by name or from version 13 on by topic id.
func (p *sessionPartition) find(h *Handler, image *metadata.Image, f *fetchRequest) (*replica.Partition, error) {
	name := p.topic
	if f.version >= 13 {
		topic, ok := image.TopicByID(p.topicID)
		if !ok {
			return nil, fmt.Errorf("topic %v: %w", p.topicID, errUnknownTopicID)
		}
		name, p.topic = topic.Name, topic.Name
	}
	partition, err := h.partition(image, name, p.number)
	if err == nil && f.version >= 13 && partition.TopicID() != p.topicID {
		// Deleted and made again since the image was taken: another topic.
		return nil, fmt.Errorf("topic %v: %w", p.topicID, errUnknownTopicID)
	}
	return partition, err
}

// refuse answers every partition of a request with an error.
func (f *fetchRequest) refuse(q *kmsg.FetchRequest, err error) wire.Reply {
	return func(_ context.Context, out *wire.Out) error {
		res := kmsg.NewPtrFetchResponse()
		res.Version = f.version
		for _, t := range q.Topics {
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				part := kmsg.NewFetchResponseTopicPartition()
				part.Partition, part.ErrorCode, part.HighWatermark = p.Partition, codeOf(err), -1
				part.LastStableOffset, part.LogStartOffset = -1, -1
				topic.Partitions = append(topic.Partitions, part)
			}
			res.Topics = append(res.Topics, topic)
		}
		out.Append(res.AppendTo)
		return nil
	}
}

// failed answers a request whose session is not what the client believes.
func (f *fetchRequest) failed(_ context.Context, out *wire.Out) error {
	res := kmsg.NewPtrFetchResponse()
	res.Version, res.ErrorCode = f.version, f.code
	out.Append(res.AppendTo)
	return nil
}
