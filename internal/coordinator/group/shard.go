package group

import (
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Token names a request that may have to wait for its answer. The runtime chooses it, unique in the
// Shard's life.
type Token uint64

// Client is who sent a request, as DescribeGroups shows it.
type Client struct {
	ID   string // the client id of the request's header
	Host string // as Kafka writes it: "/127.0.0.1"
}

// Reply is the answer to the request with its Token. Response has its version set. Committed says
// that it must be held until everything replayed so far is committed.
type Reply struct {
	Token     Token
	Response  kmsg.Response
	Committed bool
}

// Effects are what an event leads to: Records to replay and to append, in order, and Replies to send.
// The caller owns the slices, and may give back those of the Records with Shard.Recycle.
type Effects struct {
	Records []Record
	Replies []Reply

	memory writer // of the Records
}

// Topics is what a Shard may know of the cluster's topics: one unchanging image of them.
type Topics interface {
	Topic(name string) (id [16]byte, partitions int32, ok bool)
	Name(id [16]byte) (string, bool)
}

// Shard holds the classic groups of one partition of __consumer_offsets. It is not safe for use by
// several goroutines.
type Shard struct {
	config  Config
	random  *rand.Rand
	groups  map[string]*group
	loading bool
	timers  timers
	waiting map[Token]*member // whose JoinGroup or SyncGroup that is

	journal   []change // what Failed would take back
	undecided []Reply  // what was promised since: Committed replies
	replaced  []replacement

	pending map[string]map[partitionOf]*unstable // by group: offsets of transactions still open
	expiry  expiry

	now time.Time // of the event under way
	out Effects
	w   writer
}

// New returns an empty Shard that is loading: Replay what the log holds, then call Loaded. seed feeds
// the member ids; two Shards with equal seeds and equal events do equal things.
func New(c Config, seed rand.Source) *Shard {
	return &Shard{
		config: c, random: rand.New(seed), loading: true,
		groups: make(map[string]*group), waiting: make(map[Token]*member),
	}
}

// Replay applies one record: one of the Shard's own Effects, before the next event, or one that the
// log held, before Loaded. It is the only way in which durable state changes. An error wraps
// ErrMalformed or is a *KindError; then nothing has changed and the record can be passed over.
func (s *Shard) Replay(r Record, now time.Time) error {
	kind, err := kindOf(r.Key)
	if err != nil {
		return err
	}
	s.now = now
	switch kind {
	case offsetKeyV0, offsetKeyV1:
		return s.replayOffset(r)
	case groupKeyV2:
		return s.replayGroup(r)
	}
	return &KindError{Kind: kind}
}

// Handle takes one request. Its answer is among the Effects, or comes with those of a later call: a
// JoinGroup waits for the other members, a SyncGroup for the leader's assignment. Strings and bytes of
// req that the Shard keeps are copied.
func (s *Shard) Handle(now time.Time, t Token, from Client, topics Topics, req kmsg.Request) Effects {
	s.begin(now)
	switch req := req.(type) {
	case *kmsg.JoinGroupRequest:
		s.joinGroup(t, from, req)
	case *kmsg.SyncGroupRequest:
		s.syncGroup(t, req)
	case *kmsg.HeartbeatRequest:
		s.heartbeat(t, req)
	case *kmsg.LeaveGroupRequest:
		s.leaveGroup(t, req)
	case *kmsg.OffsetDeleteRequest:
		s.offsetDelete(t, topics, req)
	case *kmsg.DescribeGroupsRequest:
		s.describeGroups(t, req)
	case *kmsg.ListGroupsRequest:
		s.listGroups(t, req)
	case *kmsg.DeleteGroupsRequest:
		s.deleteGroups(t, req)
	case *kmsg.OffsetCommitRequest:
		s.offsetCommit(t, topics, req)
	case *kmsg.OffsetFetchRequest:
		s.offsetFetch(t, topics, req)
	default:
		panic("BUG: not a request of the group coordinator")
	}
	return s.take()
}

// begin starts an event.
func (s *Shard) begin(now time.Time) {
	s.now, s.out = now, Effects{}
}

// take ends it.
func (s *Shard) take() Effects {
	out := s.out
	out.Records, out.memory = s.w.records, s.w
	s.out, s.w = Effects{}, writer{}
	return out
}

// recycledBytes is the most memory of an event's keys and values that is kept for the next event, beside that of the list
// of its records.
const recycledBytes = 64 << 10

// Recycle gives the memory of the event's Records back, after which nobody may look at them.
func (s *Shard) Recycle(e Effects) {
	if m := &e.memory; cap(m.buf) <= recycledBytes && len(s.w.records) == 0 {
		clear(m.records)
		s.w = writer{buf: m.buf[:0], records: m.records[:0]}
	}
}

// answer replies at once.
func (s *Shard) answer(t Token, r kmsg.Response) {
	s.out.Replies = append(s.out.Replies, Reply{Token: t, Response: r})
}

// promise replies once all that was replayed so far is committed.
func (s *Shard) promise(t Token, r kmsg.Response) {
	reply := Reply{Token: t, Response: r, Committed: true}
	s.out.Replies = append(s.out.Replies, reply)
	s.undecided = append(s.undecided, reply)
}

// create makes an empty group.
func (s *Shard) create(id string) *group {
	g := &group{id: id, since: never}
	s.groups[id] = g
	return g
}
