package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

func TestPing(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		// The first address does not exist, the second does.
		c := f.client(Brokers("nowhere:9092", bootstrap))
		defer func() { _ = c.Close() }()
		for range 5 {
			if err := c.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		}
		lost := f.client(Brokers("nowhere:9092"), ConnectionSetupTimeout(time.Second))
		defer func() { _ = lost.Close() }()
		if err := lost.Ping(t.Context()); !errors.Is(err, ErrNoBrokers) || !errors.Is(err, ErrNetwork) {
			t.Errorf("error %v", err)
		}
		_ = lost.Close()
		if err := lost.Ping(t.Context()); err == nil {
			t.Error("a closed client answered")
		}
	})
}

// A connection stays, and requests of many callers share it.
func TestConnectionsAreKept(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f)
		defer func() { _ = c.Close() }()
		for range 20 {
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		// One to the address given, one for metadata, one for the producer.
		if n := len(f.mu.dials); n > 3 {
			t.Errorf("%d connections were made", n)
		}
	})
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client(ConnectionsMaxIdle(time.Minute), MetadataMaxAge(time.Hour))
		defer func() { _ = c.Close() }()
		ask := func() {
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		time.Sleep(30 * time.Second)
		ask()
		before := len(f.mu.dials)
		time.Sleep(2 * time.Minute)
		if before != 1 {
			t.Errorf("%d dials before the idle minutes", before)
		}
		ask()
		if len(f.mu.dials) != 2 {
			t.Errorf("%d dials", len(f.mu.dials))
		}
	})
}

// Attempts to reach a broker that is away come ever more slowly, up to reconnect.backoff.max.ms.
func TestReconnectBackOff(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c := f.client(ReconnectBackoff(100*time.Millisecond, 2*time.Second))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		f.net.Kill("n1")
		var attempts []time.Time
		f.mu.Lock()
		f.mu.dials = nil
		f.mu.Unlock()
		done := make(chan error, 1)
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, func(_ RecordMetadata, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Second)
		f.mu.Lock()
		attempts = slices.Clone(f.mu.dials)
		f.mu.Unlock()
		// The producer's connection, the metadata's, and the given address: each on its own.
		if n := len(attempts); n < 3*60/4 || n > 3*60 {
			t.Errorf("%d attempts in a minute", n)
		}
		f.mu.Lock()
		nodes := f.mu.nodes
		f.mu.Unlock()
		f.listen(nodes[0])
		start := time.Now()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("found again after %v", took)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A host that is gone is tried last as long as others answer: each attempt at it takes as long as it may.
func TestHostsThatAreGoneAreTriedLast(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		c := f.client(Dialer(func(ctx context.Context, address string) (net.Conn, error) {
			if address == "n2:9092" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return f.dial(ctx, address)
		}), ConnectionSetupTimeout(10*time.Second))
		defer c.Close()
		began := time.Now()
		const calls = 30
		for range calls {
			if err := c.RefreshMetadata(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 10*time.Second+calls*time.Second {
			t.Errorf("%d refreshes took %v", calls, took)
		}
	})
}

// A broker that leaves a request unanswered costs it the connection, and the request is tried again.
func TestRequestTimeoutBreaksTheConnection(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		silent := true
		f.script(func(_ int32, req kmsg.Request) interference {
			i := interference{silent: silent && req.Key() == 0}
			silent = silent && !i.silent
			return i
		})
		c := f.client(RequestTimeout(7 * time.Second))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		m, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"})
		if took := time.Since(start); err != nil || m.Offset != 0 || took < 7*time.Second || took > 8*time.Second {
			t.Errorf("%+v, %v after %v", m, err, took)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestUnsupportedRequests(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		_, err := c.Request(t.Context(), AnyBroker, kmsg.NewPtrDescribeClusterRequest())
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("error %v", err)
		}
		if _, err := c.Request(t.Context(), ToBroker(17), kmsg.NewPtrMetadataRequest()); !errors.Is(err, ErrUnknownBroker) {
			t.Errorf("error %v", err)
		}
		for _, to := range []Target{Controller, ToBroker(1)} {
			resp, err := c.Request(t.Context(), to, kmsg.NewPtrMetadataRequest())
			if err != nil || resp.GetVersion() != 13 {
				t.Errorf("%v, %v", resp, err)
			}
		}
	})
}

// A frame that is no answer breaks the connection and nothing else.
func TestGarbageFromABroker(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		bad := 3
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() != 0 || bad == 0 {
				return interference{}
			}
			bad--
			return interference{edit: func(resp kmsg.Response) {
				r := resp.(*kmsg.ProduceResponse)
				r.Topics = r.Topics[:0] // leaves the partition out
				if bad == 1 {
					r.Topics = append(r.Topics, kmsg.NewProduceResponseTopic())
				}
			}}
		})
		c, p := newTestProducer(t, f)
		defer c.Close()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("a")}); !errors.Is(err, errNoAnswer) {
			t.Errorf("error %v", err)
		}
		bad = 0
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("b")}); err != nil {
			t.Error(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestMetadataIsRefreshedByAge(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c := f.client(MetadataMaxAge(time.Minute))
		defer c.Close()
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = k.Close() }()
		if err := k.Assign(map[TopicPartition]Position{{"t", 0}: Earliest}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		before := len(f.requests(3))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(f.requests(3)) - before; n < 9 || n > 11 {
			t.Errorf("%d times in ten minutes", n)
		}
	})
}

// A leader that has moved is found at once when the old one says so.
func TestStaleMetadataIsRefreshedAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		c, p := newTestProducer(t, f)
		defer c.Close()
		for i := range 9 {
			f.lead(tp, int32(1+i%3))
			time.Sleep(time.Second)
			start := time.Now()
			if m, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil || m.Offset != int64(i) {
				t.Fatalf("%+v, %v", m, err)
			}
			if took := time.Since(start); took > 300*time.Millisecond {
				t.Errorf("move %d took %v", i, took)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The old leader may name the new one (KIP-951): no metadata is asked for, and nobody waits.
func TestLeaderHints(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		c, p := newTestProducer(t, f, Linger(0))
		defer c.Close()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = k.Close() }()
		if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
			t.Fatal(err)
		}
		poll(t, k, 1)
		f.script(func(node int32, req kmsg.Request) interference {
			if req.Key() == 3 {
				return interference{silent: true} // whoever asks for metadata waits for ever
			}
			return interference{edit: func(resp kmsg.Response) {
				switch r := resp.(type) {
				case *kmsg.ProduceResponse:
					if part := &r.Topics[0].Partitions[0]; part.ErrorCode == int16(ErrNotLeaderOrFollower) {
						part.CurrentLeader.LeaderID, part.CurrentLeader.LeaderEpoch = 2, 1
						r.Brokers = []kmsg.ProduceResponseBroker{{NodeID: 2, Host: "n2", Port: 9092}}
					}
				case *kmsg.FetchResponse:
					if part := &r.Topics[0].Partitions[0]; part.ErrorCode == int16(ErrNotLeaderOrFollower) {
						part.CurrentLeader.LeaderID, part.CurrentLeader.LeaderEpoch = 2, 1
						r.Brokers = []kmsg.FetchResponseBroker{{NodeID: 2, Host: "n2", Port: 9092}}
					}
				}
			}}
		})
		f.lead(tp, 2)
		start := time.Now()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("the producer took %v", took)
		}
		poll(t, k, 1)
		if took := time.Since(start); took > time.Second {
			t.Errorf("the consumer took %v", took)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOlderMetadataDoesNotGoBack(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		f.lead(tp, 2)
		f.lead(tp, 2)
		c, p := newTestProducer(t, f)
		defer c.Close()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		topic.partitions[0].leader, topic.partitions[0].epoch = 1, 1 // a broker that lags says so
		f.mu.Unlock()
		if err := c.RefreshMetadata(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, part := c.meta.Snapshot().Partition(tp.Topic, tp.Partition); part.Leader != 2 || part.LeaderEpoch != 2 {
			t.Errorf("the leader is %d in epoch %d", part.Leader, part.LeaderEpoch)
		}
		f.mu.Lock()
		topic.id[0] = 9 // another topic starts again
		f.mu.Unlock()
		if err := c.RefreshMetadata(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, part := c.meta.Snapshot().Partition(tp.Topic, tp.Partition); part.Leader != 1 || part.LeaderEpoch != 1 {
			t.Errorf("the leader is %d in epoch %d", part.Leader, part.LeaderEpoch)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Only a producer's topic may be created, and only by a request that names no other topic.
func TestAutoCreation(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.mu.autoCreate = true
		c, p := newTestProducer(t, f)
		defer c.Close()
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = k.Close() }()
		if err := k.Assign(map[TopicPartition]Position{{"not made", 0}: Earliest}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "made", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		f.mu.Lock()
		if f.mu.topics["made"] == nil || f.mu.topics["not made"] != nil {
			t.Errorf("topics %v", f.mu.topics)
		}
		f.mu.Unlock()
		if _, err := c.Partitions(t.Context(), "not made"); !errors.Is(err, ErrUnknownTopicOrPartition) {
			t.Errorf("error %v", err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestTopicsThatCannotBeWrittenTo(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("secret", 1).err = int16(ErrTopicAuthorizationFailed)
		c := f.client()
		defer c.Close()
		p, err := c.NewProducer(MaxBlock(5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := p.Send(t.Context(), ProducerRecord{Topic: "secret"}, nil); !errors.Is(err, ErrTopicAuthorizationFailed) || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		start = time.Now()
		if err := p.Send(t.Context(), ProducerRecord{Topic: "none"}, nil); !errors.Is(err, ErrUnknownTopicOrPartition) || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := p.Send(t.Context(), ProducerRecord{}, nil); !errors.Is(err, ErrInvalidTopic) {
			t.Errorf("no topic: %v", err)
		}
		f.topic("t", 2)
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(2)}, nil); !errors.Is(err, ErrNoSuchPartition) {
			t.Errorf("partition 2 of 2: %v", err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A producer forgets topics that it no longer writes to (metadata.max.idle.ms).
func TestIdleTopicsLeaveTheMetadata(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("once", 1)
		f.topic("always", 1)
		c := f.client(MetadataMaxIdle(time.Minute), MetadataMaxAge(20*time.Second))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "once"}); err != nil {
			t.Fatal(err)
		}
		for range 12 {
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "always"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		last := f.requests(3)
		asked := last[len(last)-1].req.(*kmsg.MetadataRequest)
		if len(asked.Topics) != 1 || *asked.Topics[0].Topic != "always" {
			t.Errorf("asked for %v", asked.Topics)
		}
		if m, err := p.SendSync(t.Context(), ProducerRecord{Topic: "once"}); err != nil || m.Offset != 1 {
			t.Errorf("%+v, %v", m, err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// REBOOTSTRAP_REQUIRED sends the client back to the addresses that it was given (KIP-1102).
func TestRebootstrap(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		if err := c.RefreshMetadata(t.Context()); err != nil {
			t.Fatal(err)
		}
		refuse := true
		var asked []int32
		f.script(func(node int32, req kmsg.Request) interference {
			if req.Key() != 3 {
				return interference{}
			}
			asked = append(asked, node)
			if !refuse {
				return interference{}
			}
			refuse = false
			return interference{edit: func(resp kmsg.Response) {
				resp.(*kmsg.MetadataResponse).ErrorCode = int16(ErrRebootstrapRequired)
			}}
		})
		if err := c.RefreshMetadata(t.Context()); !errors.Is(err, ErrRebootstrapRequired) {
			t.Errorf("error %v", err)
		}
		if err := c.RefreshMetadata(t.Context()); err != nil {
			t.Error(err)
		}
		if len(asked) < 2 || asked[1] != 1 {
			t.Errorf("asked nodes %v, the one given is 1", asked)
		}
	})
}

// With throttling a broker asks to be left alone for a while (KIP-219).
func TestThrottledClientsWait(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(int32, kmsg.Request) interference {
			return interference{edit: func(resp kmsg.Response) {
				if r, ok := resp.(kmsg.SetThrottleResponse); ok && resp.Key() <= 1 {
					r.SetThrottle(5000)
				}
			}}
		})
		c, p := newTestProducer(t, f, Linger(0))
		defer c.Close()
		for range 3 {
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
				t.Fatal(err)
			}
		}
		sent := f.requests(0)
		if d := sent[2].at.Sub(sent[0].at); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("three requests in %v", d)
		}
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := k.Assign(map[TopicPartition]Position{{"t", 0}: Earliest}); err != nil {
			t.Fatal(err)
		}
		poll(t, k, 3)
		f.write(TopicPartition{"t", 0}, batch.BuilderOptions{}, "later")
		start := time.Now()
		poll(t, k, 1)
		if d := time.Since(start); d < 4*time.Second {
			t.Errorf("fetched again after %v", d)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestProducerIDThatCannotBeHad(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() == 22 {
				return interference{code: int16(ErrClusterAuthorizationFailed)}
			}
			return interference{}
		})
		c, p := newTestProducer(t, f)
		defer c.Close()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); !errors.Is(err, ErrClusterAuthorizationFailed) {
			t.Errorf("error %v", err)
		}
		f.script(nil)
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Error(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
