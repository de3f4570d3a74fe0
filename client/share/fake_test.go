package share

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	"barnabas/internal/batch"
	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

// model is a cluster with share groups, as small as it can be: one topic, logs in memory, and for each
// offset whether it is available, acquired by whom and until when, or done with. It answers as Apache
// Kafka does, and holds the consumer to the rules of the protocol.
type model struct {
	t    testing.TB
	net  *netx.Mem
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	rude     func(node int32, req kmsg.Request) bool // hang up instead of answering
	leaders  []int32                                 // of each partition
	epoch    int32                                   // of all leaders
	logs     [][]*state
	sessions map[session]*opened
	members  map[string]int32 // epochs
	asked    []string
	lock     time.Duration
	newest   map[int16]int16
	without  bool // share groups
	damaged  map[int64]bool
	changed  chan struct{}
}

type session struct {
	node   int32
	member string
}

type opened struct {
	epoch int32
	reads map[int32]bool
	conn  net.Conn
}

// state is that of an offset.
type state struct {
	value      string // "": there is no record
	owner      session
	until      time.Time // while it is acquired
	acquired   bool
	deliveries int16
	verdict    int8 // 0 while it is not done with
}

const (
	modelTopic = "t"
	modelNodes = 3
)

var modelID = [16]byte{7}

func newModel(t testing.TB, leaders ...int32) *model {
	m := &model{
		t: t, net: netx.NewMem(1), leaders: leaders, epoch: 1, logs: make([][]*state, len(leaders)),
		sessions: map[session]*opened{}, members: map[string]int32{}, lock: 30 * time.Second, changed: make(chan struct{}),
		damaged: map[int64]bool{},
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	for node := int32(1); node <= modelNodes; node++ {
		l, err := m.net.Host(fmt.Sprintf("n%d", node)).Listen(m.ctx, fmt.Sprintf("n%d:9092", node))
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(m.ctx, func() { _ = l.Close() })
		m.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				m.wg.Go(func() { m.serve(node, c) })
			}
		})
	}
	return m
}

func (m *model) end() {
	m.stop()
	m.wg.Wait()
}

func (m *model) client() *client.Client {
	c, err := client.New(client.Brokers("n1:9092"), client.Dialer(m.net.Host("client").Dial))
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// write adds records to a partition; "" is an offset without one.
func (m *model) write(partition int, values ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range values {
		m.logs[partition] = append(m.logs[partition], &state{value: v})
	}
	m.news()
}

func (m *model) news() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// move gives a partition another leader, to whom nothing is acquired.
func (m *model) move(partition int, node int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaders[partition] = node
	m.epoch++
	for _, s := range m.logs[partition] {
		s.acquired = false
	}
	m.news()
}

// forget ends the sessions of a node without a word; what was acquired stays acquired.
func (m *model) forget(node int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.sessions, func(s session, _ *opened) bool { return s.node == node })
}

func (m *model) serve(node int32, c net.Conn) {
	defer context.AfterFunc(m.ctx, func() { c.Close() })()
	defer m.hungUp(node, c)
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		head, err := wire.ParseRequest(frame)
		if err != nil {
			m.t.Error(err)
			return
		}
		req := kmsg.RequestForKey(head.Key)
		req.SetVersion(head.Version)
		if err := req.ReadFrom(head.Body); err != nil {
			m.t.Error(err)
			return
		}
		resp := m.answer(node, c, req)
		if resp == nil {
			return
		}
		resp.SetVersion(head.Version)
		out := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(head.CorrelationID))
		if wire.FlexibleResponse(head.Key, head.Version) {
			out = append(out, 0)
		}
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// hungUp ends the sessions of a connection, which releases what was acquired through them.
func (m *model) hungUp(node int32, c net.Conn) {
	c.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.sessions {
		if s.conn == c {
			delete(m.sessions, key)
			m.release(key)
		}
	}
}

func (m *model) release(owner session) {
	for _, log := range m.logs {
		for _, s := range log {
			if s.acquired && s.owner == owner {
				s.acquired = false
			}
		}
	}
	m.news()
}

func (m *model) answer(node int32, c net.Conn, req kmsg.Request) kmsg.Response {
	m.mu.Lock()
	rude := m.rude
	m.mu.Unlock()
	if rude != nil && rude(node, req) {
		return nil
	}
	switch r := req.(type) {
	case *kmsg.ApiVersionsRequest:
		return m.versions()
	case *kmsg.MetadataRequest:
		return m.metadata(r)
	case *kmsg.FindCoordinatorRequest:
		resp := kmsg.NewPtrFindCoordinatorResponse()
		resp.Coordinators = []kmsg.FindCoordinatorResponseCoordinator{{Key: r.CoordinatorKeys[0], NodeID: 1, Host: "n1", Port: 9092}}
		return resp
	case *kmsg.ShareGroupHeartbeatRequest:
		return m.heartbeat(r)
	case *kmsg.ShareFetchRequest:
		return m.fetch(node, c, r)
	case *kmsg.ShareAcknowledgeRequest:
		return m.acknowledge(node, r)
	}
	m.t.Errorf("a %T came", req)
	return nil
}

func (m *model) versions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	for _, k := range []int16{3, 10, 18, 76, 78, 79} {
		if m.without && k > 18 {
			continue
		}
		newest, limited := m.newest[k]
		if !limited {
			newest = kmsg.RequestForKey(k).MaxVersion()
		}
		resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: newest})
	}
	return resp
}

func (m *model) metadata(r *kmsg.MetadataRequest) kmsg.Response {
	m.mu.Lock()
	defer m.mu.Unlock()
	resp := kmsg.NewPtrMetadataResponse()
	resp.ControllerID = 1
	for n := range int32(modelNodes) {
		resp.Brokers = append(resp.Brokers, kmsg.MetadataResponseBroker{NodeID: n + 1, Host: fmt.Sprintf("n%d", n+1), Port: 9092})
	}
	for _, t := range r.Topics {
		out := kmsg.NewMetadataResponseTopic()
		if out.Topic, out.TopicID = t.Topic, t.TopicID; t.TopicID == modelID || t.Topic != nil && *t.Topic == modelTopic {
			name := modelTopic
			out.Topic, out.TopicID = &name, modelID
			for n, leader := range m.leaders {
				out.Partitions = append(out.Partitions, kmsg.MetadataResponseTopicPartition{Partition: int32(n), Leader: leader, LeaderEpoch: m.epoch})
			}
		} else {
			out.ErrorCode = client.ErrUnknownTopicOrPartition.Code()
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// heartbeat assigns everything to everybody.
func (m *model) heartbeat(r *kmsg.ShareGroupHeartbeatRequest) kmsg.Response {
	m.mu.Lock()
	defer m.mu.Unlock()
	resp := kmsg.NewPtrShareGroupHeartbeatResponse()
	resp.MemberID, resp.HeartbeatIntervalMillis = &r.MemberID, 3000
	if r.MemberEpoch < 0 {
		delete(m.members, r.MemberID)
		resp.MemberEpoch = -1
		return resp
	}
	if r.MemberEpoch != 0 && m.members[r.MemberID] == 0 {
		resp.ErrorCode = client.ErrUnknownMemberID.Code()
		return resp
	}
	m.members[r.MemberID] = max(r.MemberEpoch, 1)
	resp.MemberEpoch = m.members[r.MemberID]
	if r.SubscribedTopicNames != nil {
		resp.Assignment = &kmsg.ShareGroupHeartbeatResponseAssignment{}
		if slices.Contains(r.SubscribedTopicNames, modelTopic) {
			var all []int32
			for n := range m.leaders {
				all = append(all, int32(n))
			}
			resp.Assignment.TopicPartitions = []kmsg.ShareGroupHeartbeatResponseAssignmentTopicPartition{{TopicID: modelID, Partitions: all}}
		}
	}
	return resp
}

// enterLocked checks a session's number and counts it on; nil where it is refused.
func (m *model) enterLocked(node int32, c net.Conn, member string, epoch int32, what string) (s *opened, code int16) {
	m.asked = append(m.asked, fmt.Sprintf("%s %d@%d", what, epoch, node))
	key := session{node, member}
	s = m.sessions[key]
	switch {
	case epoch == 0 && what == "fetch":
		s = &opened{reads: map[int32]bool{}, conn: c}
		m.sessions[key] = s
	case s == nil:
		return nil, client.ErrShareSessionNotFound.Code()
	case epoch == -1:
		return s, 0
	case s.epoch != epoch:
		return nil, client.ErrInvalidShareSessionEpoch.Code()
	}
	s.epoch++
	return s, 0
}

func (m *model) fetch(node int32, c net.Conn, r *kmsg.ShareFetchRequest) kmsg.Response {
	resp := kmsg.NewPtrShareFetchResponse()
	resp.AcquisitionLockTimeoutMillis = int32(m.lock.Milliseconds())
	m.mu.Lock()
	s, code := m.enterLocked(node, c, *r.MemberID, r.ShareSessionEpoch, "fetch")
	if code != 0 {
		m.mu.Unlock()
		resp.ErrorCode = code
		return resp
	}
	acked := map[int32]int16{}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			s.reads[p.Partition] = true
			if len(p.AcknowledgementBatches) > 0 {
				if r.ShareSessionEpoch == 0 {
					m.t.Error("the first fetch of a session carries acknowledgements")
				}
				var runs []ackRun
				for _, b := range p.AcknowledgementBatches {
					runs = append(runs, ackRun{b.FirstOffset, b.LastOffset, b.AcknowledgeTypes})
				}
				acked[p.Partition] = m.takeLocked(session{node, *r.MemberID}, p.Partition, runs, false)
			}
		}
	}
	for _, t := range r.ForgottenTopicsData {
		for _, p := range t.Partitions {
			if !s.reads[p] {
				m.t.Errorf("partition %d is to be forgotten and was not known", p)
			}
			delete(s.reads, p)
		}
	}
	deadline := time.Now().Add(time.Duration(r.MaxWaitMillis) * time.Millisecond)
	topic := kmsg.NewShareFetchResponseTopic()
	topic.TopicID = modelID
	for {
		topic.Partitions = m.acquireLocked(node, *r.MemberID, s, int(r.MaxRecords), acked)
		useful := slices.ContainsFunc(topic.Partitions, func(p kmsg.ShareFetchResponseTopicPartition) bool {
			return p.ErrorCode != 0 || len(p.AcquiredRecords) > 0
		})
		wait := min(time.Until(deadline), 10*time.Millisecond) // locks run out meanwhile
		if useful || wait <= 0 || m.ctx.Err() != nil {
			break
		}
		changed := m.changed
		m.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		m.mu.Lock()
	}
	m.mu.Unlock()
	if len(topic.Partitions) > 0 {
		resp.Topics = append(resp.Topics, topic)
	}
	for n := range int32(modelNodes) {
		resp.NodeEndpoints = append(resp.NodeEndpoints, kmsg.ShareFetchResponseNodeEndpoint{NodeID: n + 1, Host: fmt.Sprintf("n%d", n+1), Port: 9092})
	}
	return resp
}

// acquireLocked acquires what is there for a session.
func (m *model) acquireLocked(node int32, member string, s *opened, most int, acked map[int32]int16) (parts []kmsg.ShareFetchResponseTopicPartition) {
	for _, n := range slices.Sorted(maps.Keys(s.reads)) {
		p := kmsg.NewShareFetchResponseTopicPartition()
		p.Partition = n
		code, wasAcked := acked[n]
		p.AcknowledgeErrorCode = code
		if m.leaders[n] != node {
			p.ErrorCode = client.ErrNotLeaderOrFollower.Code()
			p.CurrentLeader = kmsg.ShareFetchResponseTopicPartitionCurrentLeader{LeaderID: m.leaders[n], LeaderEpoch: m.epoch}
			parts = append(parts, p)
			continue
		}
		for o, st := range m.logs[n] {
			if st.verdict != 0 || st.acquired && time.Now().Before(st.until) || most <= 0 {
				continue
			}
			most--
			st.acquired, st.owner, st.until = true, session{node, member}, time.Now().Add(m.lock)
			st.deliveries++
			at := int64(o)
			if last := len(p.AcquiredRecords) - 1; last >= 0 && p.AcquiredRecords[last].LastOffset == at-1 && p.AcquiredRecords[last].DeliveryCount == st.deliveries {
				p.AcquiredRecords[last].LastOffset = at
			} else {
				p.AcquiredRecords = append(p.AcquiredRecords, kmsg.ShareFetchResponseTopicPartitionAcquiredRecord{FirstOffset: at, LastOffset: at, DeliveryCount: st.deliveries})
			}
		}
		if len(p.AcquiredRecords) > 0 {
			p.Records = m.batchesLocked(n)
		}
		if wasAcked || len(p.AcquiredRecords) > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}

// batchesLocked gives a log in batches of one record each, and none where there is no record.
func (m *model) batchesLocked(n int32) (raw []byte) {
	for o, st := range m.logs[n] {
		if st.value == "" && o+1 < len(m.logs[n]) {
			continue
		}
		b := batch.NewBuilder(batch.BuilderOptions{})
		if st.value != "" {
			b.Append(0, nil, []byte(st.value), nil)
		} else {
			b.Append(0, nil, []byte("marker"), nil)
		}
		built, err := b.Build()
		if err != nil {
			m.t.Fatal(err)
		}
		if st.value == "" {
			built = batch.BuildEndTransaction(batch.EndTransaction{ProducerID: 3})
		}
		built.Assign(int64(o), 1)
		if m.damaged[int64(o)] {
			built = slices.Clone(built)
			built[len(built)-1] ^= 0xff
		}
		raw = append(raw, built...)
	}
	return raw
}

type ackRun struct {
	first, last int64
	types       []int8
}

// takeLocked takes in what is said of a partition, all or nothing.
func (m *model) takeLocked(who session, n int32, runs []ackRun, renews bool) int16 {
	if m.leaders[n] != who.node {
		return client.ErrNotLeaderOrFollower.Code()
	}
	next := int64(0)
	for _, r := range runs {
		if r.first < next || r.last < r.first || len(r.types) != 1 || r.types[0] == 4 && !renews {
			m.t.Errorf("%+v in %+v is against the protocol", r, runs)
			return client.ErrInvalidRequest.Code()
		}
		next = r.last + 1
		for o := r.first; o <= r.last; o++ {
			if o >= int64(len(m.logs[n])) {
				return client.ErrInvalidRequest.Code()
			}
			st := m.logs[n][o]
			if st.verdict != 0 || !st.acquired || st.owner != who || !time.Now().Before(st.until) {
				return client.ErrInvalidRecordState.Code()
			}
		}
	}
	for _, r := range runs {
		for o := r.first; o <= r.last; o++ {
			st := m.logs[n][o]
			switch kind := r.types[0]; kind {
			case 4:
				st.until = time.Now().Add(m.lock)
				continue
			case 2:
			case 0:
				if st.value != "" {
					m.t.Errorf("%q at %d is said to be a gap", st.value, o)
				}
				st.verdict = 9
			default:
				st.verdict = kind
			}
			st.acquired = false
		}
	}
	m.news()
	return 0
}

func (m *model) acknowledge(node int32, r *kmsg.ShareAcknowledgeRequest) kmsg.Response {
	m.mu.Lock()
	defer m.mu.Unlock()
	resp := kmsg.NewPtrShareAcknowledgeResponse()
	resp.AcquisitionLockTimeoutMillis = int32(m.lock.Milliseconds())
	if _, code := m.enterLocked(node, nil, *r.MemberID, r.ShareSessionEpoch, "acknowledge"); code != 0 {
		resp.ErrorCode = code
		return resp
	}
	for _, t := range r.Topics {
		topic := kmsg.NewShareAcknowledgeResponseTopic()
		topic.TopicID = t.TopicID
		for _, p := range t.Partitions {
			var runs []ackRun
			for _, b := range p.AcknowledgementBatches {
				runs = append(runs, ackRun{b.FirstOffset, b.LastOffset, b.AcknowledgeTypes})
			}
			out := kmsg.NewShareAcknowledgeResponseTopicPartition()
			out.Partition = p.Partition
			out.ErrorCode = m.takeLocked(session{node, *r.MemberID}, p.Partition, runs, r.IsRenewAck)
			topic.Partitions = append(topic.Partitions, out)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	if r.ShareSessionEpoch == -1 {
		key := session{node, *r.MemberID}
		delete(m.sessions, key)
		m.release(key)
	}
	return resp
}

// verdicts counts offsets by what became of them.
func (m *model) verdicts() (count map[int8]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	count = map[int8]int{}
	for _, log := range m.logs {
		for _, st := range log {
			count[st.verdict]++
		}
	}
	return count
}
