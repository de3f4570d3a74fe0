package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// pair is two brokers, of which the second follows the first. Metadata reaches both at once.
type pair struct {
	*stack
	second *Handler
	cut    *atomic.Bool // nothing passes between them
}

// between carries what two brokers say to each other.
type between struct {
	from int32
	all  *[3]*replica.Manager
	cut  *atomic.Bool
}

var errCut = errors.New("the link is cut")

func (b between) serve(ctx context.Context, to int32, kind replica.Kind, body []byte) ([]byte, error) {
	if b.cut.Load() {
		return nil, errCut
	}
	reply, _, err := b.all[to].Serve(b.from, kind, slices.Clone(body))
	if err != nil || reply == nil {
		return nil, err
	}
	var out wire.Out
	if err := reply(ctx, &out); err != nil {
		out.Reset()
		return nil, err
	}
	answer, err := out.Take(nil)
	if b.cut.Load() {
		return nil, errCut
	}
	return answer, err
}

func (b between) Call(ctx context.Context, to int32, kind replica.Kind, body []byte, _ func(n int) []byte) ([]byte, error) {
	return b.serve(ctx, to, kind, body)
}

func (b between) Post(to int32, kind replica.Kind, body []byte) bool {
	_, err := b.serve(context.Background(), to, kind, body)
	return err == nil
}

// noISRs is a controller that cannot be reached.
type noISRs struct{}

func (noISRs) Alter(context.Context, int64, []metadata.ISRProposal) ([]metadata.ISROutcome, error) {
	return nil, errCut
}

const secondBroker = 2

func newPair(t testing.TB, lines ...string) *pair {
	t.Helper()
	lines = append(lines, "broker.session.timeout.ms=86400000") // nobody sends heartbeats here
	p := &pair{cut: &atomic.Bool{}}
	var managers [3]*replica.Manager
	cluster := func(from int32) *replica.Cluster {
		return &replica.Cluster{
			Peers: between{from, &managers, p.cut}, ISRs: noISRs{},
			Jitter: func(most time.Duration) time.Duration { return most / 2 },
		}
	}
	settings, _, err := config.Load(config.Sources{File: strings.Join(append([]string{"node.id=2"}, lines...), "\n"), FileName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	second := replica.NewManager(replica.Options{
		NodeID: secondBroker, Incarnation: metadata.UUID{secondBroker}, Config: settings, Logger: logger, Cluster: cluster(secondBroker),
	})
	dir, err := commitlog.OpenDir(context.Background(), commitlog.DirOptions{
		FS: disk.NewMem(), Path: "/data", NodeID: secondBroker, ClusterID: "test-cluster", Logger: logger, Observer: second,
		Rand: io.Reader(rand.NewChaCha8([32]byte{7})),
	})
	if err != nil {
		t.Fatal(err)
	}
	second.Use([]*commitlog.Dir{dir})
	managers[secondBroker] = second
	t.Cleanup(func() {
		second.Close()
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	p.stack = newStackAmong(t, cluster(1), []metadata.Publisher{second}, lines...)
	managers[1] = p.replicas
	p.second = New(Options{
		NodeID: secondBroker, Images: p.controller, Replicas: second, Controller: p.controller, Quorum: p.log, Coordinator: p.groups,
		Config: second.Settings, Logger: logger, Now: time.Now, Rand: rand.New(rand.NewPCG(3, 4)),
	})
	p.otherBroker(secondBroker, false)
	return p
}

// askSecond asks the second broker.
func askSecond[R kmsg.Response](p *pair, req kmsg.Request) R {
	p.t.Helper()
	peer := &wire.Peer{ID: 2, Remote: &net.TCPAddr{}, Local: &net.TCPAddr{}, Listener: testListener}
	body := req.AppendTo(nil)
	r := &wire.Request{Header: wire.Header{Key: req.Key(), Version: req.GetVersion()}, Body: body, Bytes: len(body), ReceivedAt: time.Now()}
	reply, _, err := p.second.Handle(p.ctx, peer, r)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := p.finish(p.ctx, req, reply)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.(R)
}

func inRack(q *kmsg.FetchRequest, rack string) *kmsg.FetchRequest {
	q.Rack, q.MaxWaitMillis = rack, 5000
	return q
}

// TestNearestReplica: a consumer is sent to the replica in its rack, which answers it; whoever does not know of that, or
// is elsewhere, reads from the leader (KIP-392).
func TestNearestReplica(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPair(t, "replica.selector.class="+config.RackAwareReplicaSelector)
		id := p.createTopic("orders", 1)
		p.place(id, 0, 1, 1, []int32{1, 2}, []int32{1, 2}, nil)
		p.append("orders", 0, records(3, 10))
		time.Sleep(time.Second) // the follower hears that they are committed
		for version := int16(4); version <= maxFetchVersion; version++ {
			for _, rack := range []string{"", "rack-2", "rack-1", "nowhere"} {
				q := inRack(fetchOf(version), rack)
				want(q, "orders", id, 0, 1)
				began := time.Now()
				got := onePart(t, ask[*kmsg.FetchResponse](p.stack, q))
				elsewhere := version >= 11 && rack == "rack-2"
				if wanted := map[bool]int32{true: secondBroker, false: -1}[elsewhere]; got.ErrorCode != 0 || version >= 11 && got.PreferredReadReplica != wanted ||
					(len(got.RecordBatches) == 0) != elsewhere || got.HighWatermark != 3 || time.Since(began) > 0 {
					t.Errorf("version %d, rack %q: code %d, replica %d, %d bytes, watermark %d after %v", version, rack, got.ErrorCode,
						got.PreferredReadReplica, len(got.RecordBatches), got.HighWatermark, time.Since(began))
				}
				compareWithKmsg(t, p.stack, q, "rack "+rack)
			}
			q := inRack(fetchOf(version), "rack-2")
			want(q, "orders", id, 0, 1)
			got := onePart(t, askSecond[*kmsg.FetchResponse](p, q))
			if version < 11 {
				if got.ErrorCode != kerr.NotLeaderForPartition.Code {
					t.Errorf("version %d at the follower: %d", version, got.ErrorCode)
				}
				continue
			}
			if got.ErrorCode != 0 || got.HighWatermark != 3 || got.PreferredReadReplica != -1 || len(offsets(t, got.RecordBatches)) != 1 {
				t.Errorf("version %d at the follower: %+v", version, got)
			}
		}
	})
}

// TestFollowerServesWhatItKnowsToBeCommitted: at the end of that a reader waits, past the end of the follower's log it is
// sent back to the leader.
func TestFollowerServesWhatItKnowsToBeCommitted(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPair(t, "replica.selector.class="+config.RackAwareReplicaSelector)
		id := p.createTopic("orders", 1)
		p.place(id, 0, 1, 1, []int32{1, 2}, []int32{1, 2}, nil)
		p.append("orders", 0, records(3, 10))
		time.Sleep(time.Second)
		q := inRack(fetchOf(12), "rack-2")
		want(q, "orders", id, 0, 3)
		done := make(chan *kmsg.FetchResponse)
		began := time.Now()
		go func() { done <- askSecond[*kmsg.FetchResponse](p, q) }()
		time.Sleep(time.Second)
		p.append("orders", 0, records(2, 10))
		if got := onePart(t, <-done); got.ErrorCode != 0 || len(offsets(t, got.RecordBatches)) != 1 || time.Since(began) > 2*time.Second {
			t.Errorf("records that came while it waited: %+v after %v", got, time.Since(began))
		}
		for _, c := range []struct {
			offset int64
			epoch  int32
			code   *kerr.Error
		}{{9, -1, kerr.OffsetNotAvailable}, {-2, -1, kerr.OffsetOutOfRange}, {0, 0, kerr.FencedLeaderEpoch}, {0, 9, kerr.UnknownLeaderEpoch}} {
			q := inRack(fetchOf(12), "rack-2")
			want(q, "orders", id, 0, c.offset).CurrentLeaderEpoch = c.epoch
			if got := onePart(t, askSecond[*kmsg.FetchResponse](p, q)); got.ErrorCode != c.code.Code {
				t.Errorf("offset %d in epoch %d at the follower: %s, want %v", c.offset, c.epoch, named(got.ErrorCode), c.code)
			}
		}
		// A replica that is not in sync is nobody's nearest (trap 12, KAFKA-14372).
		p.place(id, 0, 2, 1, []int32{1, 2}, []int32{1}, nil)
		q = inRack(fetchOf(12), "rack-2")
		want(q, "orders", id, 0, 1)
		if got := onePart(t, ask[*kmsg.FetchResponse](p.stack, q)); got.PreferredReadReplica != -1 || len(got.RecordBatches) == 0 {
			t.Errorf("with the follower out of sync: %+v", got)
		}
	})
}

// TestLeaderServesAllWithoutASelector: as in Kafka, no rack is asked for where replica.selector.class is not set.
func TestLeaderServesAllWithoutASelector(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPair(t)
		id := p.createTopic("orders", 1)
		p.place(id, 0, 1, 1, []int32{1, 2}, []int32{1, 2}, nil)
		p.append("orders", 0, records(3, 10))
		time.Sleep(time.Second)
		q := inRack(fetchOf(12), "rack-2")
		want(q, "orders", id, 0, 1)
		if got := onePart(t, ask[*kmsg.FetchResponse](p.stack, q)); got.PreferredReadReplica != -1 || len(got.RecordBatches) == 0 {
			t.Errorf("%+v", got)
		}
	})
}

// TestWhatAFollowerAnswers: codes of requests that want the leader, as Apache Kafka 4.3.1 gives them, with the leader's
// name where the version has room for it (KIP-951), from a follower and from a broker without a replica.
func TestWhatAFollowerAnswers(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPair(t)
		id := p.createTopic("orders", 2)
		p.place(id, 0, 1, 1, []int32{1, 2}, []int32{1, 2}, nil)
		p.append("orders", 0, records(3, 10))
		p.append("orders", 1, records(3, 10)) // which the second broker has no replica of
		time.Sleep(time.Second)
		notLeader := kerr.NotLeaderForPartition.Code
		for number := range int32(2) {
			for _, replicaID := range []int32{-1, -2} {
				q := kmsg.NewPtrListOffsetsRequest()
				q.Version, q.ReplicaID = 6, replicaID
				q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: number, Timestamp: -1, CurrentLeaderEpoch: -1}}}}
				got := askSecond[*kmsg.ListOffsetsResponse](p, q).Topics[0].Partitions[0]
				if looks := replicaID == -2 && number == 0; (got.ErrorCode == 0) != looks || looks && got.Offset != 3 || !looks && got.ErrorCode != notLeader {
					t.Errorf("ListOffsets of %d by %d: %+v", number, replicaID, got)
				}
			}
			e := kmsg.NewPtrOffsetForLeaderEpochRequest()
			e.Version, e.ReplicaID = 4, -1
			e.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{Partition: number, CurrentLeaderEpoch: -1}}}}
			if got := askSecond[*kmsg.OffsetForLeaderEpochResponse](p, e).Topics[0].Partitions[0]; got.ErrorCode != notLeader {
				t.Errorf("OffsetForLeaderEpoch of %d: %+v", number, got)
			}
			d := kmsg.NewPtrDeleteRecordsRequest()
			d.Version, d.Topics = 2, []kmsg.DeleteRecordsRequestTopic{{Topic: "orders", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: number, Offset: -1}}}}
			if got := askSecond[*kmsg.DeleteRecordsResponse](p, d).Topics[0].Partitions[0]; got.ErrorCode != notLeader {
				t.Errorf("DeleteRecords of %d: %+v", number, got)
			}
			a := kmsg.NewPtrDescribeProducersRequest()
			a.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{number}}}
			if got := askSecond[*kmsg.DescribeProducersResponse](p, a).Topics[0].Partitions[0]; got.ErrorCode != []int16{0, notLeader}[number] {
				t.Errorf("DescribeProducers of %d: %+v", number, got)
			}
			p.producesElsewhere(id, number)
			p.fetchesElsewhere(id, number)
		}
	})
}

func (p *pair) producesElsewhere(id metadata.UUID, number int32) {
	p.t.Helper()
	for version := int16(3); version <= 13; version++ {
		q := kmsg.NewPtrProduceRequest()
		q.Version, q.Acks, q.TimeoutMillis = version, -1, 1000
		q.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: number, Records: records(1, 10)}}}}
		res := askSecond[*kmsg.ProduceResponse](p, q)
		got := res.Topics[0].Partitions[0]
		named := got.CurrentLeader.LeaderID == 1 && got.CurrentLeader.LeaderEpoch == 1-number && len(res.Brokers) == 1 && res.Brokers[0].Host == "broker.example"
		if got.ErrorCode != kerr.NotLeaderForPartition.Code || named != (version >= 10) {
			p.t.Errorf("Produce version %d to %d: %+v, %+v", version, number, got, res.Brokers)
		}
	}
}

func (p *pair) fetchesElsewhere(id metadata.UUID, number int32) {
	p.t.Helper()
	for version := int16(4); version <= maxFetchVersion; version++ {
		if version >= 11 && number == 0 {
			continue // the follower answers
		}
		q := inRack(fetchOf(version), "")
		want(q, "orders", id, number, 0)
		began := time.Now()
		res := askSecond[*kmsg.FetchResponse](p, q)
		got := onePart(p.t, res)
		named := got.CurrentLeader.LeaderID == 1 && len(res.Brokers) == 1 && res.Brokers[0].Port == 9092
		if got.ErrorCode != kerr.NotLeaderForPartition.Code || named != (version >= 16) || time.Since(began) > 0 {
			p.t.Errorf("Fetch version %d of %d: %+v, %+v after %v", version, number, got, res.Brokers, time.Since(began))
		}
	}
}

// TestListOffsetsRightAfterAnElection: until the new leader knows what is committed, consumers ask again about what may be
// (KIP-207); what is older is answered.
func TestListOffsetsRightAfterAnElection(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPair(t)
		id := p.createTopic("orders", 1)
		p.place(id, 0, 1, 1, []int32{1, 2}, []int32{1, 2}, nil)
		p.append("orders", 0, records(3, 10))
		old := time.Now().UnixMilli()
		time.Sleep(time.Hour)
		p.cut.Store(true)
		if _, err := p.partition("orders", 0).Append(records(2, 10), true, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		p.place(id, 0, 2, 1, []int32{1, 2}, []int32{1, 2}, nil) // elected again, before the follower has it
		ask := func(version int16, replicaID int32, at int64) kmsg.ListOffsetsResponseTopicPartition {
			q := kmsg.NewPtrListOffsetsRequest()
			q.Version, q.ReplicaID = version, replicaID
			q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: at, CurrentLeaderEpoch: -1}}}}
			return ask[*kmsg.ListOffsetsResponse](p.stack, q).Topics[0].Partitions[0]
		}
		for version := int16(1); version <= 11; version++ {
			notYet := kerr.OffsetNotAvailable.Code
			if version < 5 {
				notYet = kerr.LeaderNotAvailable.Code
			}
			for _, c := range []struct {
				replica    int32
				at, offset int64
				code       int16
			}{{-1, -1, -1, notYet}, {-1, -2, 0, 0}, {-1, old - 1000, 0, 0}, {-1, old + 60_000, -1, notYet}, {-2, -1, 5, 0}} {
				if got := ask(version, c.replica, c.at); got.ErrorCode != c.code || got.Offset != c.offset {
					t.Errorf("version %d, replica %d at %d: %+v, want %d with %d", version, c.replica, c.at, got, c.offset, c.code)
				}
			}
		}
		p.cut.Store(false)
		time.Sleep(time.Minute)
		if got := ask(11, -1, -1); got.ErrorCode != 0 || got.Offset != 5 {
			t.Errorf("once the follower has followed: %+v", got)
		}
	})
}
