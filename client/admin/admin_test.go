package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"barnabas/client"
	"barnabas/internal/faketime"
	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a cluster of two brokers, 1 and 2, that answer with what a test says.
type fake struct {
	t       *testing.T
	net     *netx.Mem
	keys    []int16
	newest  map[int16]int16 // what it offers less of than kmsg knows
	answers func(node int32, req kmsg.Request) kmsg.Response
	mu      sync.Mutex
	asked   []string // "key@node"
}

// serving runs a test against a fake in a bubble with fake time.
func serving(t *testing.T, keys []int16, answers func(node int32, req kmsg.Request) kmsg.Response, test func(context.Context, *fake, *Admin)) {
	t.Helper()
	faketime.Test(t, func(t *testing.T) {
		f := &fake{t: t, net: netx.NewMem(1), keys: append(keys, 3, 18), answers: answers}
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(context.Background())
		for node := range int32(2) {
			l, err := f.net.Host(fmt.Sprintf("n%d", node+1)).Listen(ctx, fmt.Sprintf("n%d:9092", node+1))
			if err != nil {
				t.Fatal(err)
			}
			context.AfterFunc(ctx, func() { _ = l.Close() })
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { f.serve(ctx, node+1, c) })
				}
			})
		}
		c, err := client.New(client.Brokers("n1:9092"), client.Dialer(f.net.Host("client").Dial))
		if err != nil {
			t.Fatal(err)
		}
		test(t.Context(), f, New(c, Timeout(10*time.Second)))
		c.Close()
		stop()
		wg.Wait()
	})
}

func (f *fake) serve(ctx context.Context, node int32, c net.Conn) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
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
		head, err := wire.ParseRequest(frame)
		if err != nil {
			f.t.Error(err)
			return
		}
		req := kmsg.RequestForKey(head.Key)
		req.SetVersion(head.Version)
		if err := req.ReadFrom(head.Body); err != nil {
			f.t.Error(err)
			return
		}
		resp := f.answer(node, req)
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

func (f *fake) answer(node int32, req kmsg.Request) kmsg.Response {
	if _, ok := req.(*kmsg.ApiVersionsRequest); ok {
		resp := kmsg.NewPtrApiVersionsResponse()
		for _, k := range f.keys {
			newest, limited := f.newest[k]
			if !limited {
				newest = kmsg.RequestForKey(k).MaxVersion()
			}
			resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: newest})
		}
		return resp
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%d@%d", req.Key(), node))
	if resp := f.answers(node, req); resp != nil {
		return resp
	}
	if r, ok := req.(*kmsg.MetadataRequest); ok {
		return metadataOf(r, func(string, int32) int32 { return 1 })
	}
	return nil // hangs up
}

// metadataOf describes the topics that are asked for, with two partitions each; "none" is not there.
func metadataOf(r *kmsg.MetadataRequest, leader func(topic string, partition int32) int32) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	resp.ControllerID = 1
	for n := range int32(2) {
		resp.Brokers = append(resp.Brokers, kmsg.MetadataResponseBroker{NodeID: n + 1, Host: fmt.Sprintf("n%d", n+1), Port: 9092})
	}
	for _, t := range r.Topics {
		out := kmsg.NewMetadataResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		if text(t.Topic) == "none" {
			out.ErrorCode = int16(client.ErrUnknownTopicOrPartition)
		} else {
			for p := range int32(2) {
				out.Partitions = append(out.Partitions, kmsg.MetadataResponseTopicPartition{Partition: p, Leader: leader(text(t.Topic), p), Replicas: []int32{1, 2}})
			}
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func TestItemsAreAnsweredInTheirOrder(t *testing.T) {
	attempts := 0
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.CreateTopicsRequest)
		if !ok {
			return nil
		}
		resp := kmsg.NewPtrCreateTopicsResponse()
		attempts++
		for _, topic := range slices.Backward(r.Topics) {
			out := kmsg.NewCreateTopicsResponseTopic()
			out.Topic, out.NumPartitions = topic.Topic, topic.NumPartitions
			switch {
			case attempts == 1:
				out.ErrorCode = int16(client.ErrNotController)
			case topic.Topic == "b":
				out.ErrorCode, out.ErrorMessage = int16(client.ErrInvalidPartitions), kmsg.StringPtr("too many")
			case topic.Topic == "c":
				continue
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp
	}
	serving(t, []int16{19}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		made, err := a.CreateTopics(ctx, []NewTopic{{Name: "a", Partitions: 3}, {Name: "b"}, {Name: "c"}})
		if err != nil || attempts != 2 {
			t.Fatalf("%v after %d attempts", err, attempts)
		}
		if made[0].Name != "a" || made[0].Err != nil || made[0].Partitions != 3 {
			t.Errorf("a: %+v", made[0])
		}
		var said *client.BrokerError
		if !errors.Is(made[1].Err, client.ErrInvalidPartitions) || !errors.As(made[1].Err, &said) || said.Message != "too many" {
			t.Errorf("b: %+v", made[1])
		}
		if !errors.Is(made[2].Err, errLeftOut) || made[2].Name != "c" {
			t.Errorf("c: %+v", made[2])
		}
		if _, err := a.CreateTopic(ctx, NewTopic{Name: "b"}); !errors.Is(err, client.ErrInvalidPartitions) {
			t.Errorf("one alone: %v", err)
		}
	})
}

// Each leader is asked for its own partitions; those whose leader has moved are asked for again,
// the others are not.
func TestLeadersAreAskedForTheirPartitions(t *testing.T) {
	moved := false
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.MetadataRequest:
			return metadataOf(r, func(_ string, p int32) int32 {
				if moved {
					return 2
				}
				return p + 1
			})
		case *kmsg.DeleteRecordsRequest:
			resp := kmsg.NewPtrDeleteRecordsResponse()
			for _, t := range r.Topics {
				out := kmsg.NewDeleteRecordsResponseTopic()
				out.Topic = t.Topic
				for _, p := range t.Partitions {
					part := kmsg.NewDeleteRecordsResponseTopicPartition()
					part.Partition, part.LowWatermark = p.Partition, p.Offset
					if node == 1 {
						moved = true
						part.ErrorCode = int16(client.ErrNotLeaderOrFollower)
					}
					out.Partitions = append(out.Partitions, part)
				}
				resp.Topics = append(resp.Topics, out)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{21}, answers, func(ctx context.Context, f *fake, a *Admin) {
		before := map[client.TopicPartition]int64{
			{Topic: "t", Partition: 0}: 10, {Topic: "t", Partition: 1}: 11,
			{Topic: "t", Partition: 7}: 12, {Topic: "none", Partition: 0}: 13,
		}
		start := time.Now()
		got, err := a.DeleteRecords(ctx, before)
		if err != nil || len(got) != 4 {
			t.Fatalf("%+v, %v", got, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		for i, want := range []struct {
			tp  client.TopicPartition
			low int64
			err error
		}{
			{client.TopicPartition{Topic: "none", Partition: 0}, -1, client.ErrUnknownTopicOrPartition},
			{client.TopicPartition{Topic: "t", Partition: 0}, 10, nil},
			{client.TopicPartition{Topic: "t", Partition: 1}, 11, nil},
			{client.TopicPartition{Topic: "t", Partition: 7}, -1, client.ErrUnknownTopicOrPartition},
		} {
			if got[i].TopicPartition != want.tp || got[i].LowWatermark != want.low || !errors.Is(got[i].Err, want.err) {
				t.Errorf("%+v, expected %+v", got[i], want)
			}
		}
		var asked []string
		for _, s := range f.asked {
			if s == "21@1" || s == "21@2" {
				asked = append(asked, s)
			}
		}
		slices.Sort(asked)
		if !slices.Equal(asked, []string{"21@1", "21@2", "21@2"}) {
			t.Errorf("asked %v", asked)
		}
	})
}

// A cursor goes on where an answer ended, also within a topic; one that stands still ends the call.
func TestDescribeTopicsFollowsTheCursor(t *testing.T) {
	stuck := false
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.DescribeTopicPartitionsRequest)
		if !ok {
			return nil
		}
		// Topics a and b have three partitions; an answer holds two.
		var all []client.TopicPartition
		for _, t := range r.Topics {
			for p := range int32(3) {
				tp := client.TopicPartition{Topic: t.Topic, Partition: p}
				if c := r.Cursor; c == nil || c.Topic < tp.Topic || c.Topic == tp.Topic && c.Partition <= p {
					all = append(all, tp)
				}
			}
		}
		resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
		for i, tp := range all {
			if i == 2 || stuck {
				next := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
				next.Topic, next.Partition = tp.Topic, tp.Partition
				resp.NextCursor = &next
				break
			}
			if n := len(resp.Topics); n == 0 || *resp.Topics[n-1].Topic != tp.Topic {
				out := kmsg.NewDescribeTopicPartitionsResponseTopic()
				out.Topic = kmsg.StringPtr(tp.Topic)
				resp.Topics = append(resp.Topics, out)
			}
			part := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
			part.Partition, part.EligibleLeaderReplicas = tp.Partition, []int32{9}
			last := &resp.Topics[len(resp.Topics)-1]
			last.Partitions = append(last.Partitions, part)
		}
		return resp
	}
	serving(t, []int16{75}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeTopics(ctx, "b", "a")
		if err != nil || len(got) != 2 || got[0].Name != "b" || len(got[0].Partitions) != 3 || len(got[1].Partitions) != 3 ||
			got[0].Partitions[2].Partition != 2 || !slices.Equal(got[1].Partitions[0].Eligible, []int32{9}) {
			t.Errorf("%+v, %v", got, err)
		}
		stuck = true
		if _, err := a.DescribeTopics(ctx, "a"); err == nil {
			t.Error("a cursor that stands still was followed to an end")
		}
	})
}

// Brokers without DescribeTopicPartitions are asked for Metadata instead.
func TestDescribeTopicsOfOlderBrokers(t *testing.T) {
	serving(t, nil, func(int32, kmsg.Request) kmsg.Response { return nil }, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeTopics(ctx, "t", "none")
		if err != nil || len(got[0].Partitions) != 2 || got[0].Partitions[1].Leader != 1 || !errors.Is(got[1].Err, client.ErrUnknownTopicOrPartition) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := a.DescribeQuorum(ctx); !errors.Is(err, client.ErrUnsupported) {
			t.Errorf("error %v", err)
		}
	})
}

// A broker's own configuration is asked of that broker; one that cannot be asked fails alone.
func TestBrokersAnswerForTheirOwnConfiguration(t *testing.T) {
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.DescribeConfigsRequest)
		if !ok {
			return nil
		}
		resp := kmsg.NewPtrDescribeConfigsResponse()
		for _, in := range r.Resources {
			out := kmsg.NewDescribeConfigsResponseResource()
			out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
			e := kmsg.NewDescribeConfigsResponseResourceConfig()
			e.Name, e.Value = "node", kmsg.StringPtr(fmt.Sprint(node))
			out.Configs = append(out.Configs, e)
			resp.Resources = append(resp.Resources, out)
		}
		return resp
	}
	serving(t, []int16{32}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeConfigs(ctx, []Resource{Broker(2), Topic("t"), Broker(1), Broker(9), {BrokerResource, "x"}})
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Entries[0].Value != "2" || got[2].Entries[0].Value != "1" || got[1].Err != nil {
			t.Errorf("%+v", got)
		}
		if !errors.Is(got[3].Err, client.ErrUnknownBroker) || !errors.Is(got[4].Err, client.ErrInvalidRequest) {
			t.Errorf("%v, %v", got[3].Err, got[4].Err)
		}
	})
}

// What fails and may pass is tried until default.api.timeout.ms, and the last reason is told.
func TestCallsEndWithTheirTimeout(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		if req.Key() != 60 {
			return nil
		}
		resp := kmsg.NewPtrDescribeClusterResponse()
		resp.ErrorCode = int16(client.ErrCoordinatorLoadInProgress)
		return resp
	}
	serving(t, []int16{60}, answers, func(ctx context.Context, f *fake, a *Admin) {
		start := time.Now()
		_, err := a.DescribeCluster(ctx)
		if !errors.Is(err, errTimeout) || !errors.Is(err, client.ErrCoordinatorLoadInProgress) || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if n := len(f.asked); n < 10 || n > 15 {
			t.Errorf("asked %d times in 10 seconds", n)
		}
		lost, err := client.New(client.Brokers("nowhere:1"), client.Dialer(f.net.Host("client").Dial))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lost.Close() }()
		if _, err := New(lost).ListTopics(ctx); !errors.Is(err, client.ErrNoBrokers) {
			t.Errorf("a wrong address: %v", err)
		}
	})
}

// Whatever bytes come as an answer, they are refused or taken, without a panic.
func FuzzAdminResponses(f *testing.F) {
	for _, key := range []int16{3, 9, 15, 19, 29, 31, 32, 35, 41, 48, 50, 55, 61, 65, 69, 77, 89, 90} {
		resp := kmsg.ResponseForKey(key)
		for version := range resp.MaxVersion() + 1 {
			resp.SetVersion(version)
			f.Add(key, version, resp.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		resp := kmsg.ResponseForKey(key)
		if resp == nil || version < 0 || version > resp.MaxVersion() {
			return
		}
		resp.SetVersion(version)
		if resp.ReadFrom(body) != nil {
			return
		}
		readAnything(resp)
	})
}

// readAnything takes a response apart as the calls do.
func readAnything(resp kmsg.Response) {
	switch r := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		each(r.Topics, func(t *kmsg.CreateTopicsResponseTopic) { readCreatedTopic(t) })
	case *kmsg.MetadataResponse:
		each(r.Topics, func(t *kmsg.MetadataResponseTopic) { (&Admin{authorized: true}).readTopic(t) })
	case *kmsg.OffsetFetchResponse:
		each(r.Groups, func(g *kmsg.OffsetFetchResponseGroup) { readOffsets(g) })
	case *kmsg.DescribeGroupsResponse:
		each(r.Groups, func(g *kmsg.DescribeGroupsResponseGroup) { readGroup(g) })
	case *kmsg.ConsumerGroupDescribeResponse:
		each(r.Groups, func(g *kmsg.ConsumerGroupDescribeResponseGroup) { readConsumerGroup(g) })
	case *kmsg.ShareGroupDescribeResponse:
		each(r.Groups, func(g *kmsg.ShareGroupDescribeResponseGroup) { readShareGroup(g) })
	case *kmsg.StreamsGroupDescribeResponse:
		each(r.Groups, func(g *kmsg.StreamsGroupDescribeResponseGroup) { readStreamsGroup(g) })
	case *kmsg.DescribeShareGroupOffsetsResponse:
		each(r.Groups, func(g *kmsg.DescribeShareGroupOffsetsResponseGroup) { readShareOffsets(r.Version, g) })
	case *kmsg.DescribeConfigsResponse:
		each(r.Resources, func(c *kmsg.DescribeConfigsResponseResource) { readConfigs(c) })
	case *kmsg.DescribeLogDirsResponse:
		each(r.Dirs, func(d *kmsg.DescribeLogDirsResponseDir) { readLogDir(1, d) })
	case *kmsg.DescribeQuorumResponse:
		each(r.Topics, func(t *kmsg.DescribeQuorumResponseTopic) {
			each(t.Partitions, func(p *kmsg.DescribeQuorumResponseTopicPartition) { readQuorum(p.CurrentVoters) })
		})
	case *kmsg.DescribeProducersResponse:
		readPartitionProducers(r, func(client.TopicPartition, PartitionProducers, error) {})
	case *kmsg.DescribeTransactionsResponse:
		each(r.TransactionStates, func(s *kmsg.DescribeTransactionsResponseTransactionState) { readTransaction(s) })
	case *kmsg.DescribeACLsResponse:
		readACLs(r)
	case *kmsg.DeleteACLsResponse:
		each(r.Results, func(d *kmsg.DeleteACLsResponseResult) { readDeletedACLs(d) })
	case *kmsg.DescribeClientQuotasResponse:
		readQuotas(r)
	case *kmsg.DescribeUserSCRAMCredentialsResponse:
		readScramCredentials(r)
	case *kmsg.DescribeDelegationTokenResponse:
		readTokens(r)
	}
}

func each[T any](of []T, read func(*T)) {
	for i := range of {
		read(&of[i])
	}
}
