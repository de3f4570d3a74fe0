package group

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// began is when every test begins.
var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// image is a fixed set of topics.
type image map[string]struct {
	id         [16]byte
	partitions int32
}

func (i image) Topic(name string) ([16]byte, int32, bool) {
	t, ok := i[name]
	return t.id, t.partitions, ok
}

func (i image) Name(id [16]byte) (string, bool) {
	for name, t := range i {
		if t.id == id {
			return name, true
		}
	}
	return "", false
}

func (i image) add(name string, id byte, partitions int32) {
	i[name] = struct {
		id         [16]byte
		partitions int32
	}{[16]byte{15: id}, partitions}
}

// bench is a shard with what its runtime does around it: it replays, appends and commits at once,
// unless a test holds that back.
type bench struct {
	t       *testing.T
	s       *Shard
	now     time.Time
	topics  image
	log     []Record
	answers map[Token]kmsg.Response
	next    Token
	hold    bool // neither append nor commit: a test calls appended or failed
	batch   []Record
	held    []Reply
}

func newBench(t *testing.T, change func(*Config)) *bench {
	c := Defaults()
	if change != nil {
		change(&c)
	}
	b := &bench{t: t, now: began, topics: image{}, answers: make(map[Token]kmsg.Response)}
	b.topics.add("flights", 1, 4)
	b.topics.add("airports", 2, 4)
	b.s = New(c, rand.NewPCG(1, 2))
	b.s.Loaded(b.now)
	return b
}

func (b *bench) take(e Effects) {
	b.t.Helper()
	for _, r := range e.Records {
		if err := b.s.Replay(r, b.now); err != nil {
			b.t.Fatalf("replay its own record: %v", err)
		}
	}
	b.batch = append(b.batch, keep(b.s, e)...)
	for _, r := range e.Replies {
		if r.Committed {
			b.held = append(b.held, r)
			continue
		}
		b.deliver(r)
	}
	if !b.hold {
		b.appended()
	}
}

// keep copies the event's records, as a log does, and gives their memory back with something else in it.
func keep(s *Shard, e Effects) []Record {
	records := make([]Record, len(e.Records))
	for i, r := range e.Records {
		records[i] = Record{bytes.Clone(r.Key), bytes.Clone(r.Value)}
	}
	for _, r := range e.Records {
		scribble(r)
	}
	s.Recycle(e)
	return records
}

// scribble overwrites a record's memory, which its owner uses again.
func scribble(r Record) {
	for _, b := range [][]byte{r.Key, r.Value} {
		for i := range b {
			b[i] = '!'
		}
	}
}

func (b *bench) deliver(r Reply) {
	b.t.Helper()
	if b.answers[r.Token] != nil {
		b.t.Fatalf("request %d is answered twice: %#v", r.Token, r.Response)
	}
	b.answers[r.Token] = r.Response
}

func (b *bench) appended() {
	b.t.Helper()
	b.log = append(b.log, b.batch...)
	b.s.Appended()
	for _, r := range b.held {
		b.deliver(r)
	}
	b.batch, b.held = nil, nil
}

func (b *bench) failed(code int16) {
	b.t.Helper()
	b.batch, b.held = nil, nil
	b.take(b.s.Failed(b.now, code))
}

// send hands in a request; the answer, if it is there, is in answers.
func (b *bench) send(req kmsg.Request) Token {
	b.t.Helper()
	b.next++
	req, scribble := overTheWire(b.t, req)
	e := b.s.Handle(b.now, b.next, Client{ID: "app", Host: "/127.0.0.1"}, b.topics, req)
	scribble()
	b.take(e)
	return b.next
}

// overTheWire is the request as a broker decodes it from memory that something else is written to
// once it has been handled.
func overTheWire(t testing.TB, req kmsg.Request) (decoded kmsg.Request, scribble func()) {
	t.Helper()
	frame := req.AppendTo(nil)
	decoded = kmsg.RequestForKey(req.Key())
	decoded.SetVersion(req.GetVersion())
	if err := decoded.ReadFrom(frame); err != nil {
		t.Fatalf("decode %T: %v", req, err)
	}
	return decoded, func() {
		for i := range frame {
			frame[i] = '!'
		}
	}
}

// ask is send for requests that are answered at once.
func ask[R kmsg.Response](b *bench, req kmsg.Request) R {
	b.t.Helper()
	t := b.send(req)
	r, ok := b.answers[t].(R)
	if !ok {
		b.t.Fatalf("%T is answered by %#v", req, b.answers[t])
	}
	return r
}

// answer is what the request with the token got; it must have.
func answer[R kmsg.Response](b *bench, t Token) R {
	b.t.Helper()
	r, ok := b.answers[t].(R)
	if !ok {
		b.t.Fatalf("request %d has got %#v", t, b.answers[t])
	}
	return r
}

func (b *bench) waits(tokens ...Token) {
	b.t.Helper()
	for _, t := range tokens {
		if r := b.answers[t]; r != nil {
			b.t.Fatalf("request %d should wait and has got %#v", t, r)
		}
	}
}

// pass lets time go by, with a Tick at each deadline on the way.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	end := b.now.Add(d)
	for {
		due, ok := b.s.Deadline()
		if !ok || due.After(end) {
			b.now = end
			return
		}
		if due.After(b.now) {
			b.now = due
		}
		b.take(b.s.Tick(b.now, b.topics))
	}
}

// reload is a restart: a new shard that has nothing but the log.
func (b *bench) reload() {
	b.t.Helper()
	s := New(b.s.config, rand.NewPCG(uint64(b.next), 3))
	for _, r := range b.log {
		r = Record{bytes.Clone(r.Key), bytes.Clone(r.Value)}
		if err := s.Replay(r, b.now); err != nil {
			b.t.Fatalf("replay: %v", err)
		}
		scribble(r)
	}
	s.Loaded(b.now)
	b.s, b.batch, b.held = s, nil, nil
}

func (b *bench) state(group string) State {
	if g := b.s.groups[group]; g != nil {
		return g.state
	}
	return Dead
}

func subscription(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

// joining is a JoinGroup of a consumer of the newest version.
func joining(group, member string, topics ...string) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID, r.ProtocolType = 9, group, member, consumerType
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10_000, 60_000
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription(topics...)}}
	return r
}

func static(r *kmsg.JoinGroupRequest, instance string) *kmsg.JoinGroupRequest {
	r.InstanceID = &instance
	return r
}

// enter gets a member id and joins with it; the join waits.
func (b *bench) enter(group string, topics ...string) (id string, t Token) {
	b.t.Helper()
	r := ask[*kmsg.JoinGroupResponse](b, joining(group, "", topics...))
	if r.ErrorCode != codeMemberIDRequired || r.MemberID == "" {
		b.t.Fatalf("a new member is answered %#v", r)
	}
	return r.MemberID, b.send(joining(group, r.MemberID, topics...))
}

const codeMemberIDRequired = 79 // Kafka's number

func syncing(group, member string, generation int32, assignments ...string) *kmsg.SyncGroupRequest {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 5, group, member, generation
	protocolType, protocol := consumerType, "range"
	r.ProtocolType, r.Protocol = &protocolType, &protocol
	for i := 0; i+1 < len(assignments); i += 2 {
		r.GroupAssignment = append(r.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{
			MemberID: assignments[i], MemberAssignment: []byte(assignments[i+1]),
		})
	}
	return r
}

func beating(group, member string, generation int32) *kmsg.HeartbeatRequest {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 4, group, member, generation
	return r
}

func (b *bench) beat(group, member string, generation int32) int16 {
	b.t.Helper()
	return ask[*kmsg.HeartbeatResponse](b, beating(group, member, generation)).ErrorCode
}

func leaving(group string, members ...string) *kmsg.LeaveGroupRequest {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Version, r.Group = 5, group
	for _, m := range members {
		r.Members = append(r.Members, kmsg.LeaveGroupRequestMember{MemberID: m})
	}
	return r
}

func committing(group, member string, generation int32, topic string, partition int32, offset int64) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 9, group, member, generation
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch = partition, offset, 3
	r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	return r
}

func (b *bench) commit(group, member string, generation int32, topic string, partition int32, offset int64) int16 {
	b.t.Helper()
	r := ask[*kmsg.OffsetCommitResponse](b, committing(group, member, generation, topic, partition, offset))
	return r.Topics[0].Partitions[0].ErrorCode
}

// offset is what a fetch says is committed.
func (b *bench) offset(group, topic string, partition int32) int64 {
	b.t.Helper()
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Version = 9
	r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{partition}}}}}
	got := ask[*kmsg.OffsetFetchResponse](b, r)
	return got.Groups[0].Topics[0].Partitions[0].Offset
}

// stable makes a group of n members in its first generation and returns their ids, the leader first.
func (b *bench) stable(group string, n int, topics ...string) []string {
	b.t.Helper()
	ids, tokens := make([]string, n), make([]Token, n)
	for i := range ids {
		ids[i], tokens[i] = b.enter(group, topics...)
	}
	b.pass(b.s.config.GroupInitialRebalanceDelay * 2) // once more, because another one came
	b.syncAll(group, ids, tokens)
	return ids
}

// syncAll takes a group whose joins have been answered to Stable.
func (b *bench) syncAll(group string, ids []string, tokens []Token) int32 {
	b.t.Helper()
	generation := int32(0)
	var syncs []Token
	for i, id := range ids {
		r := answer[*kmsg.JoinGroupResponse](b, tokens[i])
		if r.ErrorCode != 0 || r.MemberID != id {
			b.t.Fatalf("member %s joins: %#v", id, r)
		}
		generation = r.Generation
		var assignments []string
		if r.LeaderID == id {
			for _, m := range r.Members {
				assignments = append(assignments, m.MemberID, fmt.Sprintf("of %s in %d", m.MemberID, generation))
			}
		}
		syncs = append(syncs, b.send(syncing(group, id, generation, assignments...)))
	}
	for i, t := range syncs {
		r := answer[*kmsg.SyncGroupResponse](b, t)
		if want := fmt.Sprintf("of %s in %d", ids[i], generation); r.ErrorCode != 0 || string(r.MemberAssignment) != want {
			b.t.Fatalf("sync of %s: code %d, assignment %q, want %q", ids[i], r.ErrorCode, r.MemberAssignment, want)
		}
	}
	if b.state(group) != Stable {
		b.t.Fatalf("group is %v", b.state(group))
	}
	return generation
}
