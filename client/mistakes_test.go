package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/sasl"
)

// These tests are a new user's first mistakes: each error names what is wrong, and where.

// asked are the calls that need a broker, each with a deadline.
func asked(t *testing.T, c *Client, topic string) map[string]error {
	t.Helper()
	ctx := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		return ctx
	}
	tp := TopicPartition{topic, 0}
	errs := map[string]error{"ping": c.Ping(ctx())}
	_, errs["partitions"] = c.Partitions(ctx(), topic)

	p, err := c.NewProducer(MaxBlock(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	_, errs["send"] = p.SendSync(t.Context(), ProducerRecord{Topic: topic})
	closeProducer(t, p)

	k, err := c.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
		t.Fatal(err)
	}
	_, errs["poll"] = k.Poll(ctx())
	k.Close()

	g, err := c.NewGroupConsumer("g")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	_, errs["poll of a group"] = g.Poll(ctx())
	errs["commit"] = g.CommitOffsets(ctx(), map[TopicPartition]OffsetAndMetadata{tp: {Offset: 1}})
	if err := g.Close(ctx()); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close of a group: %v", err)
	}
	return errs
}

func TestErrorsNameTheBroker(t *testing.T) {
	silent := func(ctx context.Context, f *fakeCluster, address string) (net.Conn, error) {
		c, other := net.Pipe()
		go func() {
			defer other.Close()
			for buf := make([]byte, 100); ; {
				if _, err := other.Read(buf); err != nil {
					return
				}
			}
		}()
		return c, nil
	}
	plain := func(ctx context.Context, f *fakeCluster, address string) (net.Conn, error) {
		return f.dial(ctx, address)
	}
	for what, mistake := range map[string]struct {
		dial  func(context.Context, *fakeCluster, string) (net.Conn, error)
		also  Option
		wants []string
		is    error
	}{
		"nobody there":       {plain, Brokers("nowhere:9092"), []string{"nowhere:9092"}, ErrNetwork},
		"nobody answers":     {silent, Brokers("silent:9092"), []string{"silent:9092", "perhaps no broker is at this port"}, ErrNetwork},
		"SASL where is none": {plain, SASL(sasl.Plain("user", "secret")), []string{bootstrap, "no SASL at this port", "security.protocol"}, ErrAuthentication},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, f *fakeCluster) {
				f.topic("t", 1)
				f.groups(quickGroups())
				c := f.client(mistake.also, Dialer(func(ctx context.Context, address string) (net.Conn, error) { return mistake.dial(ctx, f, address) }))
				defer c.Close()
				for call, err := range asked(t, c, "t") {
					if !errors.Is(err, mistake.is) || slices.ContainsFunc(mistake.wants, func(w string) bool { return !strings.Contains(err.Error(), w) }) {
						t.Errorf("%s: %v", call, err)
					}
				}
			})
		})
	}
}

func TestErrorsNameTheTopic(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		c := f.client()
		defer c.Close()
		errs := asked(t, c, "nope")
		delete(errs, "ping")
		delete(errs, "commit") // of whatever topic
		for call, err := range errs {
			if !errors.Is(err, ErrUnknownTopicOrPartition) || !strings.Contains(err.Error(), "nope") {
				t.Errorf("%s: %v", call, err)
			}
		}
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		defer closeProducer(t, p)
		if err := p.Send(t.Context(), ProducerRecord{}, nil); !errors.Is(err, ErrInvalidTopic) || !strings.Contains(err.Error(), "names none") {
			t.Errorf("a record without a topic: %v", err)
		}
	})
}

func TestPollNamesWhatIsMissing(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		c, k := newTestConsumer(t, f)
		defer c.Close()
		defer k.Close()
		poll := func(p poller, want string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := p.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v, expected %q", err, want)
			}
		}
		poll(k, "no partitions are assigned (Assign, AssignTopic)")
		if err := k.Assign(map[TopicPartition]Position{{"t", 3}: Earliest}); err != nil {
			t.Fatal(err)
		}
		poll(k, "t-3: UNKNOWN_TOPIC_OR_PARTITION (3)")
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		poll(k, "context deadline exceeded") // nothing is wrong
		f.net.Kill("n1")
		poll(k, "dial mem n1:9092: connection refused")
		f.listen(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		poll(k, "context deadline exceeded")

		g, err := c.NewGroupConsumer("g")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = g.Close(t.Context()) }()
		poll(g, "nothing is subscribed to (Subscribe)")
		if err := g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		poll(g, "context deadline exceeded")
	})
}

func TestDeliveryTimeoutNamesTheReason(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f)
		defer c.Close()
		defer closeProducer(t, p)
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		f.net.Kill("n1")
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); !errors.Is(err, ErrDeliveryTimeout) || !errors.Is(err, ErrNetwork) || !strings.Contains(err.Error(), "n1:9092") {
			t.Errorf("a broker that is gone: %v", err)
		}
		f.listen(1)
		f.lead(TopicPartition{"t", 0}, -1)
		if err := c.RefreshMetadata(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); !errors.Is(err, ErrDeliveryTimeout) || !errors.Is(err, ErrLeaderNotAvailable) {
			t.Errorf("no leader: %v", err)
		}
	})
}

// Whatever has been closed says so.
func TestClosedThingsSaySo(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		f.transactions(2)
		tp, ctx := TopicPartition{"t", 0}, t.Context()
		x := transactional(t, f, "x")
		closeProducer(t, x)
		c, p := newTestProducer(t, f)
		closeProducer(t, p)
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		g, err := c.NewGroupConsumer("g")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Close(ctx); err != nil {
			t.Fatal(err)
		}
		closed := f.client()
		closed.Close()
		for what, call := range map[string]func() error{
			"begin":             x.Begin,
			"commit":            func() error { return x.Commit(ctx) },
			"send":              func() error { return p.Send(ctx, ProducerRecord{Topic: "t"}, nil) },
			"flush":             func() error { return p.Flush(ctx) },
			"poll":              func() error { _, err := k.Poll(ctx); return err },
			"assign":            func() error { return k.Assign(map[TopicPartition]Position{tp: Earliest}) },
			"seek":              func() error { return k.Seek(tp, Earliest) },
			"poll of a group":   func() error { _, err := g.Poll(ctx); return err },
			"subscribe":         func() error { return g.Subscribe("t") },
			"group's seek":      func() error { return g.Seek(tp, Earliest) },
			"commit of a group": func() error { return g.Commit(ctx) },
			"commit offsets":    func() error { return g.CommitOffsets(ctx, map[TopicPartition]OffsetAndMetadata{tp: {}}) },
			"committed":         func() error { _, err := g.Committed(ctx, tp); return err },
			"ping":              func() error { return closed.Ping(ctx) },
			"partitions":        func() error { _, err := closed.Partitions(ctx, "t"); return err },
			"refresh":           func() error { return closed.RefreshMetadata(ctx) },
			"any":               func() error { _, err := closed.Request(ctx, AnyBroker, kmsg.NewPtrMetadataRequest()); return err },
			"controller":        func() error { _, err := closed.Request(ctx, Controller, kmsg.NewPtrMetadataRequest()); return err },
			"producer":          func() error { _, err := closed.NewProducer(); return err },
			"consumer":          func() error { _, err := closed.NewConsumer(); return err },
			"group":             func() error { _, err := closed.NewGroupConsumer("g"); return err },
		} {
			if err := call(); !errors.Is(err, ErrClosed) || strings.Contains(err.Error(), "%!") {
				t.Errorf("%s: %v", what, err)
			}
		}
		c.Close()
	})
}

// Close tells of its ctx only where it has cost something.
func TestCloseInAHurryWithNothingToDo(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f)
		defer c.Close()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Close(over); err != nil {
			t.Error(err)
		}
	})
}

// Options that make no sense are refused under Kafka's name of the setting.
func TestWrongOptionsAreNamed(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ofClient := func(o Option) func() error { return func() error { _, err := New(o); return err } }
	ofProducer := func(o ...ProducerOption) func() error {
		return func() error { _, err := c.NewProducer(o...); return err }
	}
	ofConsumer := func(o ...ConsumerOption) func() error {
		return func() error { _, err := c.NewConsumer(o...); return err }
	}
	for _, mistake := range []struct {
		make func() error
		want string
	}{
		{ofClient(Brokers("localhost")), "bootstrap.servers"},
		{ofClient(Brokers("localhost:")), "a port is a number from 1 to 65535"},
		{ofClient(Brokers("localhost:99999")), "a port is a number from 1 to 65535"},
		{ofClient(Brokers("localhost:kafka")), "a port is a number from 1 to 65535"},
		{ofClient(Brokers("a:9092,b:9092")), "each is an argument of its own"},
		{ofClient(Brokers("SASL_SSL://a:9092")), "leave SASL_SSL:// away"},
		{ofClient(RequestTimeout(100 * 24 * time.Hour)), "request.timeout.ms"},
		{ofClient(RequestTimeout(30)), "request.timeout.ms"},
		{ofClient(SASL(nil)), "sasl.mechanism"},
		{ofProducer(Compression(Gzip), CompressionLevel(99)), "compression.gzip.level: 99 is not between 1 and 9"},
		{ofProducer(CompressionLevel(9)), "compression.type none has no levels"},
		{ofProducer(PartitionBy(nil)), "partitioner.class"},
		{ofProducer(TransactionalID("x"), WithAcks(AcksLeader)), "acks=all"},
		{ofProducer(DeliveryTimeout(time.Second)), "delivery.timeout.ms (1s) must be at least linger.ms + request.timeout.ms"},
		{ofConsumer(FetchMaxBytes(0)), "fetch.max.bytes"},
		{ofConsumer(MaxPartitionFetchBytes(0)), "max.partition.fetch.bytes"},
		{ofConsumer(MaxPollRecords(0)), "max.poll.records"},
		{ofConsumer(AutoOffsetReset(AtOffset(3))), "auto.offset.reset"},
	} {
		if err := mistake.make(); err == nil || !strings.Contains(err.Error(), mistake.want) {
			t.Errorf("%v, expected %q", err, mistake.want)
		}
	}
}
