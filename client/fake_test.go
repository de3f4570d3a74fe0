package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/internal/batch"
	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

// fakeCluster is a scripted Kafka cluster on a memory network: logs in memory, the leader's checks
// of sequences, and a script that may interfere with any request. It answers a connection's
// requests in order, as brokers do.
type fakeCluster struct {
	t    testing.TB
	net  *netx.Mem
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	scripting sync.Mutex // one request at a time is shown to the script

	mu struct {
		sync.Mutex
		script     func(node int32, req kmsg.Request) interference
		topics     map[string]*fakeTopic
		nodes      []int32
		seen       []seenRequest
		nextID     int64
		flying     map[int32]int // Produce requests being handled, by node
		mostFlying int
		changed    chan struct{}
		maxVersion map[int16]int16
		autoCreate bool
		nearest    map[string]int32 // by rack: the replica that consumers there are to read
		dials      []time.Time

		groups        *fakeGroups
		consumerGroup *fakeConsumerGroup
		txns          *fakeTransactions
		sessions      map[int32]*fakeSession
		nextSession   int32
		noSessions    bool
		telemetry     *fakeTelemetry
	}
}

type seenRequest struct {
	at   time.Time
	node int32
	req  kmsg.Request
}

// interference is what the script does to a request.
type interference struct {
	drop    bool          // close the connection unanswered, before anything is done
	cut     bool          // do it, and close the connection unanswered
	silent  bool          // do nothing and never answer
	delay   time.Duration // answer later
	code    int16         // refuse each partition with it, without doing it
	after   int16         // do it, and answer each partition with this code
	message string
	edit    func(kmsg.Response)
}

type fakeTopic struct {
	name       string
	id         [16]byte
	err        int16
	partitions []*fakePartition
}

type fakePartition struct {
	leader, epoch int32
	start         int64
	next          int64
	batches       []batch.Batch
	outcomes      []fakeOutcome // of each batch
	producers     map[int64]*fakeProducer
	history       []string // of produced batches
	aborted       []kmsg.FetchResponseTopicPartitionAbortedTransaction
}

type fakeProducer struct {
	epoch int16
	last  []batchSpan
}

type batchSpan struct {
	sequence, count int32
	base            int64
}

const bootstrap = "n1:9092"

func newFake(t testing.TB, nodes int32) *fakeCluster {
	f := &fakeCluster{t: t, net: netx.NewMem(1)}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.mu.topics = map[string]*fakeTopic{}
	f.mu.flying = map[int32]int{}
	f.mu.changed = make(chan struct{})
	f.mu.sessions = map[int32]*fakeSession{}
	f.mu.maxVersion = map[int16]int16{0: 13, 1: 17, 2: 10, 3: 13, 18: 4, 22: 5, 23: 4}
	for n := int32(1); n <= nodes; n++ {
		f.mu.nodes = append(f.mu.nodes, n)
		f.listen(n)
	}
	return f
}

func (f *fakeCluster) listen(n int32) {
	l, err := f.net.Host(fmt.Sprintf("n%d", n)).Listen(f.ctx, fmt.Sprintf("n%d:9092", n))
	if err != nil {
		f.t.Fatal(err)
	}
	context.AfterFunc(f.ctx, func() { _ = l.Close() })
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(n, c) })
		}
	})
}

// end stops the cluster; everything it started has ended then.
func (f *fakeCluster) end() {
	f.stop()
	f.wg.Wait()
}

func (f *fakeCluster) dial(ctx context.Context, address string) (net.Conn, error) {
	f.mu.Lock()
	f.mu.dials = append(f.mu.dials, time.Now())
	f.mu.Unlock()
	return f.net.Host("client").Dial(ctx, address)
}

func (f *fakeCluster) client(options ...Option) *Client {
	c, err := New(append([]Option{Brokers(bootstrap), Dialer(f.dial)}, options...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fakeCluster) script(s func(node int32, req kmsg.Request) interference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.script = s
}

func (f *fakeCluster) topic(name string, partitions int) *fakeTopic {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.topicLocked(name, partitions)
}

func (f *fakeCluster) topicLocked(name string, partitions int) *fakeTopic {
	f.mu.nextID++
	t := &fakeTopic{name: name}
	binary.BigEndian.PutUint64(t.id[:], uint64(f.mu.nextID))
	for p := range partitions {
		t.partitions = append(t.partitions, &fakePartition{
			leader: f.mu.nodes[p%len(f.mu.nodes)], producers: map[int64]*fakeProducer{},
		})
	}
	f.mu.topics[name] = t
	return t
}

// lead makes a node the leader of a partition.
func (f *fakeCluster) lead(tp TopicPartition, node int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.mu.topics[tp.Topic].partitions[tp.Partition]
	p.leader = node
	p.epoch++
}

// requests gives those of a key that have come.
func (f *fakeCluster) requests(key int16) []seenRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []seenRequest
	for _, s := range f.mu.seen {
		if s.req.Key() == key {
			out = append(out, s)
		}
	}
	return out
}

func (f *fakeCluster) serve(node int32, c net.Conn) {
	stop := context.AfterFunc(f.ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		reply, ok := f.handle(node, frame)
		if !ok {
			return
		}
		if reply == nil {
			continue
		}
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}

func (f *fakeCluster) handle(node int32, frame []byte) (reply []byte, ok bool) {
	head, err := wire.ParseRequest(frame)
	if err != nil {
		f.t.Errorf("the client sent what is no request: %v", err)
		return nil, false
	}
	req := kmsg.RequestForKey(head.Key)
	req.SetVersion(head.Version)
	f.mu.Lock()
	most, known := f.mu.maxVersion[head.Key]
	script := f.mu.script
	f.mu.Unlock()
	if head.Key == 18 && head.Version > most {
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.ErrorCode = int16(ErrUnsupportedVersion)
		resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MaxVersion: most}}
		return frameReply(head, resp), true
	}
	if !known || head.Version > most {
		f.t.Errorf("the client sent key %d in version %d, %d is the newest here", head.Key, head.Version, most)
		return nil, false
	}
	if err := req.ReadFrom(append([]byte(nil), head.Body...)); err != nil {
		f.t.Errorf("key %d version %d: %v", head.Key, head.Version, err)
		return nil, false
	}
	f.mu.Lock()
	f.mu.seen = append(f.mu.seen, seenRequest{time.Now(), node, req})
	f.mu.Unlock()
	var i interference
	if script != nil {
		f.scripting.Lock()
		i = script(node, req)
		f.scripting.Unlock()
	}
	if i.delay > 0 && cluster.Sleep(f.ctx, i.delay) != nil {
		return nil, false
	}
	if i.drop {
		return nil, false
	}
	if i.silent {
		<-f.ctx.Done()
		return nil, false
	}
	resp := f.answer(node, req, i)
	if resp == nil {
		return nil, true
	}
	if i.cut {
		return nil, false
	}
	if i.edit != nil {
		i.edit(resp)
	}
	return frameReply(head, resp), true
}

func frameReply(head wire.Request, resp kmsg.Response) []byte {
	out := make([]byte, 4, 64) // room for the length
	out = binary.BigEndian.AppendUint32(out, uint32(head.CorrelationID))
	if wire.FlexibleResponse(head.Key, head.Version) {
		out = append(out, 0)
	}
	if resp.GetVersion() == 0 && head.Version > 0 && head.Key == 18 {
		resp.SetVersion(0) // the answer to an unknown version
	} else {
		resp.SetVersion(head.Version)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

func (f *fakeCluster) answer(node int32, req kmsg.Request, i interference) kmsg.Response {
	switch r := req.(type) {
	case *kmsg.ApiVersionsRequest:
		resp := kmsg.NewPtrApiVersionsResponse()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(f.mu.maxVersion)) {
			resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: f.mu.maxVersion[key]})
		}
		if f.mu.txns != nil {
			resp.FinalizedFeaturesEpoch = 1
			resp.FinalizedFeatures = []kmsg.ApiVersionsResponseFinalizedFeature{{Name: featureOfTransactions, MaxVersionLevel: f.mu.txns.level}}
		}
		resp.Version = 1
		return resp
	case *kmsg.MetadataRequest:
		return f.metadata(r)
	case *kmsg.InitProducerIDRequest:
		if r.TransactionalID != nil {
			return f.mu.txns.handle(node, req, i.code)
		}
		resp := kmsg.NewPtrInitProducerIDResponse()
		resp.ErrorCode = i.code
		f.mu.Lock()
		defer f.mu.Unlock()
		f.mu.nextID++
		resp.ProducerID, resp.ProducerEpoch = f.mu.nextID, 0
		return resp
	case *kmsg.GetTelemetrySubscriptionsRequest, *kmsg.PushTelemetryRequest:
		return f.mu.telemetry.handle(req)
	case *kmsg.ProduceRequest:
		return f.produce(node, r, i)
	case *kmsg.FetchRequest:
		return f.fetch(node, r, i)
	case *kmsg.ListOffsetsRequest:
		return f.listOffsets(node, r, i)
	case *kmsg.OffsetForLeaderEpochRequest:
		return f.endOfEpochs(node, r, i)
	case *kmsg.AddPartitionsToTxnRequest, *kmsg.AddOffsetsToTxnRequest, *kmsg.EndTxnRequest, *kmsg.TxnOffsetCommitRequest:
		return f.mu.txns.handle(node, req, i.code)
	case *kmsg.FindCoordinatorRequest:
		if f.mu.txns != nil {
			return f.mu.txns.handle(node, req, i.code)
		}
		return f.group(node, req, i)
	case *kmsg.JoinGroupRequest, *kmsg.SyncGroupRequest, *kmsg.HeartbeatRequest, *kmsg.LeaveGroupRequest,
		*kmsg.OffsetCommitRequest, *kmsg.OffsetFetchRequest, *kmsg.ConsumerGroupHeartbeatRequest:
		return f.group(node, req, i)
	default:
		f.t.Errorf("a request that the fake does not know: %T", req)
		return nil
	}
}

// group is for the coordinator of the protocol that the cluster has.
func (f *fakeCluster) group(node int32, req kmsg.Request, i interference) kmsg.Response {
	if f.mu.consumerGroup != nil {
		return f.mu.consumerGroup.handle(node, req, i)
	}
	return f.mu.groups.handle(node, req, i)
}

func (f *fakeCluster) metadata(r *kmsg.MetadataRequest) kmsg.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrMetadataResponse()
	resp.ClusterID = kmsg.StringPtr("fake")
	resp.ControllerID = f.mu.nodes[0]
	for _, n := range f.mu.nodes {
		resp.Brokers = append(resp.Brokers, kmsg.MetadataResponseBroker{NodeID: n, Host: fmt.Sprintf("n%d", n), Port: 9092})
	}
	if r.Topics == nil {
		for _, name := range slices.Sorted(maps.Keys(f.mu.topics)) {
			r.Topics = append(r.Topics, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr(name)})
		}
	}
	for _, want := range r.Topics {
		if want.Topic == nil {
			if t := f.find("", want.TopicID); t != nil {
				want.Topic = &t.name
			} else {
				resp.Topics = append(resp.Topics, kmsg.MetadataResponseTopic{TopicID: want.TopicID, ErrorCode: int16(ErrUnknownTopicID)})
				continue
			}
		}
		t := f.mu.topics[*want.Topic]
		if t == nil && r.AllowAutoTopicCreation && f.mu.autoCreate {
			t = f.topicLocked(*want.Topic, 2)
		}
		out := kmsg.NewMetadataResponseTopic()
		out.Topic = want.Topic
		switch {
		case t == nil:
			out.ErrorCode = int16(ErrUnknownTopicOrPartition)
		case t.err != 0:
			out.ErrorCode = t.err
		default:
			out.TopicID = t.id
			for n, p := range t.partitions {
				part := kmsg.NewMetadataResponseTopicPartition()
				part.Partition, part.Leader, part.LeaderEpoch = int32(n), p.leader, p.epoch
				part.Replicas, part.ISR = f.mu.nodes, f.mu.nodes
				out.Partitions = append(out.Partitions, part)
			}
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (f *fakeCluster) find(name string, id [16]byte) *fakeTopic {
	if id == [16]byte{} {
		return f.mu.topics[name]
	}
	for _, t := range f.mu.topics {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (f *fakeCluster) produce(node int32, r *kmsg.ProduceRequest, i interference) kmsg.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrProduceResponse()
	for _, in := range r.Topics {
		out := kmsg.NewProduceResponseTopic()
		out.Topic, out.TopicID = in.Topic, in.TopicID
		t := f.find(in.Topic, in.TopicID)
		for _, p := range in.Partitions {
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition, part.BaseOffset, part.LogAppendTime = p.Partition, -1, -1
			switch {
			case i.code != 0:
				part.ErrorCode = i.code
				if i.message != "" {
					part.ErrorMessage = kmsg.StringPtr(i.message)
				}
			case t == nil || int(p.Partition) >= len(t.partitions):
				part.ErrorCode = int16(ErrUnknownTopicOrPartition)
				if in.TopicID != [16]byte{} {
					part.ErrorCode = int16(ErrUnknownTopicID)
				}
			case t.partitions[p.Partition].leader != node:
				part.ErrorCode = int16(ErrNotLeaderOrFollower)
			default:
				b := batch.Batch(p.Records)
				if f.mu.txns != nil {
					part.ErrorCode = f.mu.txns.admit(r, TopicPartition{t.name, p.Partition}, b)
				}
				if part.ErrorCode == 0 {
					part.BaseOffset, part.ErrorCode = t.partitions[p.Partition].append(f.t, p.Records)
				}
				t.partitions[p.Partition].history = append(t.partitions[p.Partition].history, fmt.Sprintf(
					"%s node %d: id %d epoch %d sequence %d count %d: offset %d error %d (after %d, cut %v)",
					time.Now().Format("05.000000"), node, b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.Count(),
					part.BaseOffset, part.ErrorCode, i.after, i.cut))
				if part.ErrorCode == 0 && i.after != 0 {
					part.BaseOffset, part.ErrorCode = -1, i.after
				}
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	close(f.mu.changed)
	f.mu.changed = make(chan struct{})
	if r.Acks == 0 {
		return nil
	}
	return resp
}

// append does a leader's checks of sequences (KIP-98, KIP-360).
func (p *fakePartition) append(t testing.TB, records []byte) (base int64, code int16) {
	raw, rest, err := batch.Next(append([]byte(nil), records...))
	if err == nil {
		err = raw.CheckCRC()
	}
	if err != nil || len(rest) > 0 {
		t.Errorf("a batch that no leader would take: %v, %d bytes more", err, len(rest))
		return -1, int16(ErrCorruptMessage)
	}
	if id := raw.ProducerID(); id >= 0 {
		s := p.producers[id]
		switch {
		case s == nil:
			s = &fakeProducer{epoch: raw.ProducerEpoch()}
			p.producers[id] = s
		case raw.ProducerEpoch() < s.epoch:
			return -1, int16(ErrInvalidProducerEpoch)
		case raw.ProducerEpoch() > s.epoch:
			if raw.BaseSequence() != 0 {
				return -1, int16(ErrOutOfOrderSequenceNumber)
			}
			*s = fakeProducer{epoch: raw.ProducerEpoch()}
		default:
			for _, span := range s.last {
				if span.sequence == raw.BaseSequence() && span.count == raw.Count() {
					return span.base, 0
				}
			}
			if n := len(s.last); n > 0 && raw.BaseSequence() != batch.AddSequence(s.last[n-1].sequence, s.last[n-1].count) {
				return -1, int16(ErrOutOfOrderSequenceNumber)
			}
		}
		s.last = append(s.last, batchSpan{raw.BaseSequence(), raw.Count(), p.next})
		if len(s.last) > 5 {
			s.last = s.last[1:]
		}
	}
	raw.Assign(p.next, p.epoch)
	p.batches = append(p.batches, raw)
	outcome := counted
	if raw.IsTransactional() {
		outcome = undecided
	}
	p.outcomes = append(p.outcomes, outcome)
	base = p.next
	p.next += int64(raw.Count())
	return base, 0
}

func (f *fakeCluster) fetch(node int32, r *kmsg.FetchRequest, i interference) kmsg.Response {
	whole, session, id, code := f.openSession(node, r)
	if code != 0 {
		resp := kmsg.NewPtrFetchResponse()
		resp.ErrorCode = int16(code)
		return resp
	}
	resp := f.poll(node, whole, i)
	resp.SessionID = id
	if session != nil {
		f.onlyNews(session, resp)
	}
	return resp
}

// poll waits until there is something to answer.
func (f *fakeCluster) poll(node int32, r *kmsg.FetchRequest, i interference) *kmsg.FetchResponse {
	deadline := time.NewTimer(time.Duration(r.MaxWaitMillis) * time.Millisecond)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		resp, bytes := f.readLocked(node, r, i)
		changed := f.mu.changed
		f.mu.Unlock()
		if bytes >= int(r.MinBytes) {
			return resp
		}
		select {
		case <-changed:
		case <-deadline.C:
			return resp
		case <-f.ctx.Done():
			return resp
		}
	}
}

func (f *fakeCluster) readLocked(node int32, r *kmsg.FetchRequest, i interference) (resp *kmsg.FetchResponse, bytes int) {
	resp = kmsg.NewPtrFetchResponse()
	for _, in := range r.Topics {
		out := kmsg.NewFetchResponseTopic()
		out.Topic, out.TopicID = in.Topic, in.TopicID
		t := f.find(in.Topic, in.TopicID)
		for _, p := range in.Partitions {
			part := kmsg.NewFetchResponseTopicPartition()
			part.Partition = p.Partition
			part.HighWatermark, part.LastStableOffset, part.LogStartOffset = -1, -1, -1
			switch {
			case i.code != 0:
				part.ErrorCode = i.code
			case t == nil || int(p.Partition) >= len(t.partitions):
				part.ErrorCode = int16(ErrUnknownTopicID)
			case t.partitions[p.Partition].leader != node && (f.mu.nearest[r.Rack] != node || r.Rack == ""):
				part.ErrorCode = int16(ErrNotLeaderOrFollower)
			case t.partitions[p.Partition].leader == node && f.mu.nearest[r.Rack] > 0 && f.mu.nearest[r.Rack] != node:
				part.PreferredReadReplica = f.mu.nearest[r.Rack]
			case p.FetchOffset < t.partitions[p.Partition].start || p.FetchOffset > t.partitions[p.Partition].next:
				part.ErrorCode = int16(ErrOffsetOutOfRange)
			default:
				t.partitions[p.Partition].read(&part, p.FetchOffset, min(int(p.PartitionMaxBytes), int(r.MaxBytes)-bytes), bytes == 0)
			}
			if part.ErrorCode != 0 || part.PreferredReadReplica >= 0 {
				bytes += 1 << 20 // an error is answered at once
			}
			bytes += len(part.RecordBatches)
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, bytes
}

func (p *fakePartition) read(out *kmsg.FetchResponseTopicPartition, from int64, maxBytes int, first bool) {
	out.HighWatermark, out.LastStableOffset, out.LogStartOffset = p.next, p.next, p.start
	out.AbortedTransactions = p.aborted
	for _, b := range p.batches {
		if b.NextOffset() <= from {
			continue
		}
		if len(out.RecordBatches)+len(b) > maxBytes && (len(out.RecordBatches) > 0 || !first) {
			break
		}
		out.RecordBatches = append(out.RecordBatches, b...)
	}
}

func (f *fakeCluster) listOffsets(node int32, r *kmsg.ListOffsetsRequest, i interference) kmsg.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrListOffsetsResponse()
	for _, in := range r.Topics {
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = in.Topic
		t := f.mu.topics[in.Topic]
		for _, p := range in.Partitions {
			part := kmsg.NewListOffsetsResponseTopicPartition()
			part.Partition, part.Offset, part.Timestamp, part.ErrorCode = p.Partition, -1, -1, i.code
			switch {
			case i.code != 0:
			case t == nil:
				part.ErrorCode = int16(ErrUnknownTopicOrPartition)
			case t.partitions[p.Partition].leader != node:
				part.ErrorCode = int16(ErrNotLeaderOrFollower)
			case p.Timestamp == listEarliest:
				part.Offset = t.partitions[p.Partition].start
			case p.Timestamp == listLatest:
				part.Offset = t.partitions[p.Partition].next
			default:
				part.Offset = t.partitions[p.Partition].find(p.Timestamp)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (p *fakePartition) find(ms int64) int64 {
	checker := batch.NewChecker()
	for _, b := range p.batches {
		for r, err := range checker.Records(b) {
			if err == nil && b.TimestampOf(&r) >= ms {
				return b.OffsetOf(&r)
			}
		}
	}
	return -1
}

// values gives what a partition's log holds, in order.
func (f *fakeCluster) values(tp TopicPartition) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	checker := batch.NewChecker()
	for _, b := range f.mu.topics[tp.Topic].partitions[tp.Partition].batches {
		for r, err := range checker.Records(b) {
			if err != nil {
				f.t.Errorf("what the client wrote cannot be read: %v", err)
				break
			}
			out = append(out, string(r.Value))
		}
	}
	return out
}

// dump gives what was done to a partition, for failures.
func (f *fakeCluster) dump(tp TopicPartition) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.mu.topics[tp.Topic].partitions[tp.Partition].history, "\n")
}

// write puts a batch into a partition as some other producer would.
func (f *fakeCluster) write(tp TopicPartition, o batch.BuilderOptions, values ...string) {
	b := batch.NewBuilder(o)
	for i, v := range values {
		b.Append(int64(1000+i), nil, []byte(v), nil)
	}
	built, err := b.Build()
	if err != nil {
		f.t.Fatal(err)
	}
	f.writeBatch(tp, built)
}

func (f *fakeCluster) writeBatch(tp TopicPartition, built batch.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.mu.topics[tp.Topic].partitions[tp.Partition]
	built.Assign(p.next, p.epoch)
	p.batches = append(p.batches, built)
	p.next = built.NextOffset()
	close(f.mu.changed)
	f.mu.changed = make(chan struct{})
}
