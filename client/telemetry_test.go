package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/encoding/protowire"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/telemetry"
	"barnabas/internal/faketime"
)

// fakeTelemetry lets a fake cluster ask for metrics, as its edits want.
type fakeTelemetry struct {
	sync.Mutex
	wanted func(r *kmsg.GetTelemetrySubscriptionsResponse) // nil: all metrics every 10 seconds
	pushed func(r *kmsg.PushTelemetryRequest) int16        // gives the code
}

// takeTelemetry lets the cluster take telemetry from now on.
func (f *fakeCluster) takeTelemetry() *fakeTelemetry {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.telemetry = &fakeTelemetry{}
	f.mu.maxVersion[71], f.mu.maxVersion[72] = 0, 0
	return f.mu.telemetry
}

func (f *fakeTelemetry) handle(req kmsg.Request) kmsg.Response {
	f.Lock()
	defer f.Unlock()
	switch r := req.(type) {
	case *kmsg.GetTelemetrySubscriptionsRequest:
		resp := kmsg.NewPtrGetTelemetrySubscriptionsResponse()
		resp.ClientInstanceID, resp.SubscriptionID = r.ClientInstanceID, 7
		if r.ClientInstanceID == [16]byte{} {
			resp.ClientInstanceID = [16]byte{1, 2, 3}
		}
		resp.PushIntervalMillis, resp.TelemetryMaxBytes, resp.DeltaTemporality = 10_000, 1<<20, true
		resp.RequestedMetrics = []string{""}
		if f.wanted != nil {
			f.wanted(resp)
		}
		return resp
	case *kmsg.PushTelemetryRequest:
		resp := kmsg.NewPtrPushTelemetryResponse()
		if f.pushed != nil {
			resp.ErrorCode = f.pushed(r)
		}
		return resp
	}
	return nil
}

// pushes gives what was pushed, as numbers by name (labels are left out), and when.
func (f *fakeCluster) pushes(t *testing.T) (all []pushed) {
	t.Helper()
	for _, s := range f.requests(72) {
		r := s.req.(*kmsg.PushTelemetryRequest)
		all = append(all, pushed{s.node, s.at, r, telemetrySums(r.Metrics)})
	}
	return all
}

type pushed struct {
	node    int32
	at      time.Time
	request *kmsg.PushTelemetryRequest
	metrics map[string]float64 // by name: all points together
}

// telemetrySums reads uncompressed MetricsData.
func telemetrySums(data []byte) map[string]float64 {
	sums := map[string]float64{}
	for resource := range fields(data, 1) {
		for scope := range fields(resource, 2) {
			for metric := range fields(scope, 2) {
				for name := range fields(metric, 1) {
					sums[string(name)] += pointsOf(metric, 5) + pointsOf(metric, 7)
				}
			}
		}
	}
	return sums
}

// pointsOf adds up the points of a metric's gauge, or sum.
func pointsOf(metric []byte, number protowire.Number) (all float64) {
	for data := range fields(metric, number) {
		for point := range fields(data, 1) {
			for v := range fields(point, 4) {
				all += math.Float64frombits(binary.LittleEndian.Uint64(v))
			}
		}
	}
	return all
}

// fields gives the fields of a number, which are of any length or of 8 bytes.
func fields(b []byte, number protowire.Number) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n, kind, size := protowire.ConsumeTag(b)
			if size < 0 {
				return
			}
			b = b[size:]
			size = protowire.ConsumeFieldValue(n, kind, b)
			if size < 0 {
				return
			}
			v := b[:size]
			if kind == protowire.BytesType {
				v, _ = protowire.ConsumeBytes(b)
			}
			if n == number && !yield(v) {
				return
			}
			b = b[size:]
		}
	}
}

// requiredOfProducers and requiredOfConsumers are the metrics of KIP-714.
var (
	requiredOfProducers = []string{
		"connection.creation.rate", "connection.creation.total", "node.request.latency.avg", "node.request.latency.max",
		"produce.throttle.time.avg", "produce.throttle.time.max", "record.queue.time.avg", "record.queue.time.max",
	}
	requiredOfConsumers = []string{
		"connection.creation.rate", "connection.creation.total", "node.request.latency.avg", "node.request.latency.max",
		"poll.idle.ratio.avg", "coordinator.commit.latency.avg", "coordinator.commit.latency.max", "coordinator.assigned.partitions",
		"coordinator.rebalance.latency.avg", "coordinator.rebalance.latency.max", "coordinator.rebalance.latency.total",
		"fetch.manager.fetch.latency.avg", "fetch.manager.fetch.latency.max",
	}
)

// A client that finds the APIs at its brokers asks for its subscription, pushes what producers and members of groups have
// done, keeps to the interval and to one broker, and pushes once more when it is closed.
func TestTelemetryIsPushed(t *testing.T) {
	for _, protocol := range []Protocol{ClassicProtocol, ConsumerProtocol} {
		bubble(t, 2, func(t *testing.T, f *fakeCluster) { telemetryIsPushed(t, f, protocol) })
	}
}

func telemetryIsPushed(t *testing.T, f *fakeCluster, protocol Protocol) {
	f.topic("t", 2)
	if protocol == ConsumerProtocol {
		f.consumerGroup()
	} else {
		f.groups(quickGroups())
	}
	f.takeTelemetry()
	c := f.client(ID("teller"))
	if id, err := c.ClientInstanceID(t.Context()); err != nil || id != (UUID{1, 2, 3}) {
		t.Fatalf("client instance id %v, %v", id, err)
	}
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.NewGroupConsumer("g", GroupProtocol(protocol), AutoOffsetReset(Earliest))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe("t"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for read := 0; time.Since(began) < time.Minute; {
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		for sent := len(f.requests(0)); read < sent; {
			records, err := g.Poll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			read += len(records)
		}
		if err := g.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	closeProducer(t, p)
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	c.Close()
	if waited := time.Since(at); waited > time.Second {
		t.Errorf("Close has waited %v", waited)
	}
	checkPushes(t, f, len(f.requests(71)))
}

// checkPushes checks the pushes of telemetryIsPushed.
func checkPushes(t *testing.T, f *fakeCluster, asked int) {
	pushes := f.pushes(t)
	if asked != 1 || len(pushes) < 6 || len(pushes) > 9 {
		t.Fatalf("asked %d times, then %d pushes", asked, len(pushes))
	}
	names, brokers, sent := map[string]bool{}, map[int32]bool{}, 0.0
	for i, p := range pushes {
		r := p.request
		if r.ClientInstanceID != [16]byte{1, 2, 3} || r.SubscriptionID != 7 || r.CompressionType != 0 || r.Terminating != (i == len(pushes)-1) {
			t.Errorf("push %d: %x subscription %d codec %d terminating %v", i, r.ClientInstanceID, r.SubscriptionID, r.CompressionType, r.Terminating)
		}
		if i > 0 && !r.Terminating && p.at.Sub(pushes[i-1].at) < 10*time.Second {
			t.Errorf("push %d is %v after the one before", i, p.at.Sub(pushes[i-1].at))
		}
		for name := range p.metrics {
			names[name] = true
		}
		sent += p.metrics["org.apache.kafka.producer.record.send.total"]
		if idle := p.metrics["org.apache.kafka.consumer.poll.idle.ratio.avg"]; idle > 0.9 {
			t.Errorf("push %d: the program waits in Poll for %v of the time, and sleeps a second between polls", i, idle)
		}
		brokers[p.node] = true
	}
	if want := len(f.requests(0)); int(sent) != want {
		t.Errorf("%v records are told of, %d were sent", sent, want)
	}
	if first := pushes[0].at.Sub(f.requests(71)[0].at); first < 5*time.Second || first > 16*time.Second {
		t.Errorf("the first push comes after %v", first)
	}
	if len(brokers) != 1 {
		t.Errorf("pushed to brokers %v", brokers)
	}
	for _, name := range requiredOfProducers {
		if !names["org.apache.kafka.producer."+name] {
			t.Errorf("%s of producers is missing", name)
		}
	}
	for _, name := range requiredOfConsumers {
		if !names["org.apache.kafka.consumer."+name] {
			t.Errorf("%s of consumers is missing", name)
		}
	}
	if !names["org.apache.kafka.admin.client.connection.creation.total"] {
		t.Error("nothing is told of the client's own connections")
	}
}

// Where no broker asks, or the program does not want it, nothing is asked, and no goroutine is kept for it.
func TestNoTelemetryWhereNobodyAsks(t *testing.T) {
	for name, c := range map[string]struct {
		asks, off bool
		err       error
	}{
		"brokers that do not ask": {false, false, ErrUnsupported},
		"switched off":            {true, true, ErrMetricsPushOff},
		"both":                    {false, true, ErrMetricsPushOff},
	} {
		bubble(t, 2, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 1)
			if c.asks {
				f.takeTelemetry()
			}
			client := f.client(MetricsPush(!c.off))
			p, err := client.NewProducer()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := pushers(); n != 0 {
				t.Errorf("%s: %d goroutines are kept", name, n)
			}
			if _, err := client.ClientInstanceID(t.Context()); !errors.Is(err, c.err) {
				t.Errorf("%s: error %v", name, err)
			}
			closeProducer(t, p)
			at := time.Now()
			client.Close()
			if n := len(f.requests(71)) + len(f.requests(72)); n > 0 || time.Since(at) > 0 {
				t.Errorf("%s: %d requests; Close takes %v", name, n, time.Since(at))
			}
		})
	}
}

// pushers is how many goroutines there are that push.
func pushers() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("push.(*Pusher).run("))
}

// teller is a client whose metrics are pushed every ten seconds.
func teller(t *testing.T, f *fakeCluster, options ...Option) (c *Client, asked *fakeTelemetry) {
	t.Helper()
	f.topic("t", 1)
	asked = f.takeTelemetry()
	c = f.client(options...)
	if _, err := c.ClientInstanceID(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.RefreshMetadata(t.Context()); err != nil { // from now on brokers have numbers
		t.Fatal(err)
	}
	return c, asked
}

// What a broker refuses for good is not pushed again; the id stays what it was.
func TestTelemetryEndsWhenItIsRefused(t *testing.T) {
	for _, code := range []Error{ErrInvalidRecord, ErrInvalidRequest, ErrUnsupportedVersion} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			c, asked := teller(t, f)
			asked.Lock()
			asked.pushed = func(*kmsg.PushTelemetryRequest) int16 { return int16(code) }
			asked.Unlock()
			time.Sleep(10 * time.Minute)
			if err := c.RefreshMetadata(t.Context()); err != nil {
				t.Fatal(err)
			}
			if id, err := c.ClientInstanceID(t.Context()); err != nil || id != (UUID{1, 2, 3}) {
				t.Errorf("%v: client instance id %v, %v", code, id, err)
			}
			c.Close()
			if n := len(f.pushes(t)); n != 1 || len(f.requests(71)) != 1 {
				t.Errorf("%v: %d pushes, %d questions", code, n, len(f.requests(71)))
			}
		})
	}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.takeTelemetry().wanted = func(r *kmsg.GetTelemetrySubscriptionsResponse) { r.ErrorCode = int16(ErrInvalidRequest) }
		c := f.client()
		defer c.Close()
		if _, err := c.ClientInstanceID(t.Context()); !errors.Is(err, ErrMetricsPushOff) || !errors.Is(err, ErrInvalidRequest) {
			t.Errorf("client instance id: %v", err)
		}
	})
}

// A subscription that has changed is asked for again, under the id that the client has.
func TestTelemetryFollowsTheSubscription(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c, asked := teller(t, f)
		asked.Lock()
		current := int32(8)
		asked.wanted = func(r *kmsg.GetTelemetrySubscriptionsResponse) {
			r.SubscriptionID, r.RequestedMetrics = current, []string{"org.apache.kafka.admin.client.connection.creation.rate"}
			r.AcceptedCompressionTypes = []int8{4, 1}
		}
		asked.pushed = func(r *kmsg.PushTelemetryRequest) int16 {
			switch {
			case r.SubscriptionID != current:
				return int16(ErrUnknownSubscriptionID)
			case r.CompressionType == 4:
				return int16(ErrUnsupportedCompressionType)
			}
			return 0
		}
		asked.Unlock()
		time.Sleep(2 * time.Minute)
		c.Close()
		questions := f.requests(71)
		for _, q := range questions[1:] {
			if id := q.req.(*kmsg.GetTelemetrySubscriptionsRequest).ClientInstanceID; id != [16]byte{1, 2, 3} {
				t.Errorf("asked again as %x", id)
			}
		}
		pushes := f.pushes(t)
		if len(questions) != 3 || len(pushes) < 8 {
			t.Fatalf("%d questions, %d pushes", len(questions), len(pushes))
		}
		for i, p := range pushes[2:] {
			if r := p.request; r.SubscriptionID != 8 || r.CompressionType != 1 || !bytes.HasPrefix(r.Metrics, []byte{0x1f, 0x8b}) {
				t.Errorf("push %d: subscription %d, codec %d", i, r.SubscriptionID, r.CompressionType)
			}
		}
	})
}

// When a broker is lost another one gets the metrics, of the same client and subscription; none is connected to for it
// as long as some connection stands.
func TestTelemetryGoesToAnotherBroker(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		c, _ := teller(t, f, MetadataMaxAge(3*time.Second))
		time.Sleep(time.Minute)
		before := f.pushes(t)
		first := before[len(before)-1].node
		f.script(func(node int32, _ kmsg.Request) interference { return interference{drop: node == first} })
		time.Sleep(2 * time.Minute)
		later := f.pushes(t)[len(before):]
		others := slices.DeleteFunc(later, func(p pushed) bool { return p.node == first })
		if len(others) < 8 {
			t.Errorf("%d pushes to other brokers than %d", len(others), first)
		}
		for _, p := range others {
			if p.request.ClientInstanceID != [16]byte{1, 2, 3} || p.request.SubscriptionID != 7 {
				t.Errorf("pushed as %x of subscription %d", p.request.ClientInstanceID, p.request.SubscriptionID)
			}
		}
		f.script(nil)
		c.Close()
		if len(f.requests(71)) != 1 {
			t.Errorf("asked %d times", len(f.requests(71)))
		}
	})
}

// While brokers have ceased to ask nothing is kept running; once they ask again the client goes on as the one that it was.
func TestTelemetryRestsWhileNoBrokerAsks(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c, _ := teller(t, f, MetadataMaxAge(3*time.Second))
		time.Sleep(time.Minute)
		hangUp := func() {
			f.script(func(int32, kmsg.Request) interference { return interference{drop: true} })
			time.Sleep(4 * time.Second)
			f.script(nil)
		}
		f.mu.Lock()
		delete(f.mu.maxVersion, 71)
		delete(f.mu.maxVersion, 72)
		f.mu.Unlock()
		hangUp()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := pushers(); n != 0 {
			t.Errorf("%d goroutines push while nobody asks", n)
		}
		pushed := len(f.pushes(t))
		time.Sleep(time.Minute)
		if n := len(f.pushes(t)); n != pushed {
			t.Errorf("%d pushes to brokers that do not ask", n-pushed)
		}
		f.mu.Lock()
		f.mu.maxVersion[71], f.mu.maxVersion[72] = 0, 0
		f.mu.Unlock()
		hangUp()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := pushers(); n != 1 {
			t.Errorf("%d goroutines push", n)
		}
		if n := len(f.pushes(t)); n < pushed+4 {
			t.Errorf("%d pushes since brokers ask again", n-pushed)
		}
		c.Close()
		for _, q := range f.requests(71)[1:] {
			if id := q.req.(*kmsg.GetTelemetrySubscriptionsRequest).ClientInstanceID; id != [16]byte{1, 2, 3} {
				t.Errorf("asked again as %x", id)
			}
		}
	})
}

// Close is not held up for long by a broker that does not answer, and not at all by one that is gone.
func TestCloseIsNotHeldUpByTelemetry(t *testing.T) {
	for name, c := range map[string]struct {
		does   interference
		push   bool // one is on its way when Close begins
		within time.Duration
	}{
		"silent":             {interference{silent: true}, false, 2 * time.Second},
		"silent, on its way": {interference{silent: true}, true, 2 * time.Second},
		"slow":               {interference{delay: time.Second}, false, time.Second + 100*time.Millisecond},
		"hangs up":           {interference{drop: true}, false, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, f *fakeCluster) {
				client, _ := teller(t, f)
				if !c.push {
					time.Sleep(16 * time.Second)
				}
				f.script(func(_ int32, req kmsg.Request) interference {
					if req.Key() == 72 {
						return c.does
					}
					return interference{}
				})
				for c.push && len(f.requests(72)) == 0 {
					time.Sleep(time.Second)
				}
				at := time.Now()
				client.Close()
				client.Close()
				if took := time.Since(at); took > c.within || c.does.silent && took < c.within {
					t.Errorf("Close took %v", took)
				}
				if last := f.requests(72); !c.push && !last[len(last)-1].req.(*kmsg.PushTelemetryRequest).Terminating {
					t.Error("the last push does not say that it is the last")
				}
			})
		})
	}
}

// The last push is worth no new connection.
func TestCloseConnectsToNobody(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c, _ := teller(t, f)
		time.Sleep(time.Minute)
		before := len(f.pushes(t))
		f.script(func(int32, kmsg.Request) interference { return interference{drop: true} })
		if err := c.RefreshMetadata(t.Context()); err == nil {
			t.Error("the connection stands")
		}
		f.script(nil)
		f.mu.Lock()
		dials := len(f.mu.dials)
		f.mu.Unlock()
		at := time.Now()
		c.pusher.Close()
		if took := time.Since(at); took > 0 {
			t.Errorf("it takes %v", took)
		}
		f.mu.Lock()
		dials = len(f.mu.dials) - dials
		f.mu.Unlock()
		c.Close()
		if n := len(f.pushes(t)) - before; n != 0 || dials != 0 {
			t.Errorf("%d connections were made, %d pushes", dials, n)
		}
	})
}

// Who asks for the id waits for an answer only as long as it wants to.
func TestClientInstanceIDWaits(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.takeTelemetry()
		c := f.client()
		f.script(func(_ int32, req kmsg.Request) interference { return interference{silent: req.Key() == 71} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ClientInstanceID(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		waits := make(chan error)
		go func() {
			_, err := c.ClientInstanceID(context.Background())
			waits <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-waits; !errors.Is(err, ErrClosed) {
			t.Errorf("error %v", err)
		}
	})
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.takeTelemetry()
		c := f.client(Brokers("nowhere:1"))
		defer c.Close()
		if _, err := c.ClientInstanceID(t.Context()); !errors.Is(err, ErrNoBrokers) {
			t.Errorf("error %v", err)
		}
	})
}

// Telemetry that is pushed costs a request no memory.
func TestTelemetryAllocatesNothingForARequest(t *testing.T) {
	if faketime.RaceDetector {
		return
	}
	allocs := map[bool]float64{}
	for _, push := range []bool{false, true} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			c, _ := teller(t, f)
			if !push {
				c.Close()
				c = f.client(MetricsPush(false))
			}
			links := cluster.NewLinks(c.cluster, c.pusher.Meter(telemetry.Labels{}))
			if err := c.RefreshMetadata(t.Context()); err != nil {
				t.Fatal(err)
			}
			l, err := links.Node(1)
			if err != nil {
				t.Fatal(err)
			}
			allocs[push] = testing.AllocsPerRun(200, func() {
				if _, err := l.Request(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
					t.Error(err)
				}
			})
			links.Close()
			c.Close()
		})
	}
	if allocs[true] > allocs[false]+0.5 {
		t.Errorf("allocations of a request: %v", allocs)
	}
}

// BenchmarkTelemetry sends records in batches of a hundred and reads them, with brokers that ask for metrics and with a client
// that pushes none.
func BenchmarkTelemetry(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("push=%v", on), func(b *testing.B) {
			f := newFake(b, 1)
			defer f.end()
			f.topic("t", 1)
			f.takeTelemetry()
			c := f.client(MetricsPush(on))
			defer c.Close()
			if on {
				if _, err := c.ClientInstanceID(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			p, err := c.NewProducer(Linger(time.Second))
			if err != nil {
				b.Fatal(err)
			}
			k, err := c.NewConsumer()
			if err != nil {
				b.Fatal(err)
			}
			defer k.Close()
			if err := k.AssignTopic(b.Context(), "t", Earliest); err != nil {
				b.Fatal(err)
			}
			r := ProducerRecord{Topic: "t", Value: make([]byte, 100)}
			b.ReportAllocs()
			for read := 0; b.Loop(); {
				for range 100 {
					if err := p.Send(b.Context(), r, nil); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
				for most := read + 100; read < most; {
					records, err := k.Poll(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					read += len(records)
				}
			}
			if err := p.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
