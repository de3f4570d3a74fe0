package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
)

// told keeps what the hooks were told.
type told struct {
	sync.Mutex
	connected    int
	refused      int
	disconnected int
	sent         map[string]int // not yet answered, by api
	oneWay       int
	answered     []hooks.Answered
	written      []hooks.Written
	waited       []hooks.Waited
	read         []hooks.Read
	rebalanced   []hooks.Rebalanced
	committed    []hooks.Committed
	wrong        []string
}

func (w *told) hooks() hooks.Hooks {
	w.sent = map[string]int{}
	locked := func(f func()) {
		w.Lock()
		defer w.Unlock()
		f()
	}
	return hooks.Hooks{
		Connected: func(c hooks.Connected) {
			locked(func() {
				if c.Err != nil {
					w.refused++
				} else {
					w.connected++
				}
				if c.Address == "" {
					w.wrong = append(w.wrong, "connected to nowhere")
				}
			})
		},
		Disconnected: func(d hooks.Disconnected) {
			locked(func() {
				w.disconnected++
				if d.Err == nil {
					w.wrong = append(w.wrong, "disconnected for no reason")
				}
			})
		},
		Sent: func(s hooks.Sent) {
			locked(func() {
				if s.OneWay {
					w.oneWay++
				} else {
					w.sent[s.API()]++
				}
			})
		},
		Answered: func(a hooks.Answered) {
			locked(func() {
				w.sent[a.API()]--
				w.answered = append(w.answered, a)
				if w.sent[a.API()] < 0 || a.RequestBytes == 0 || (a.ResponseBytes == 0) != (a.Err != nil) {
					w.wrong = append(w.wrong, fmt.Sprintf("answered %+v", a))
				}
			})
		},
		Written:    func(b hooks.Written) { locked(func() { w.written = append(w.written, b) }) },
		Waited:     func(b hooks.Waited) { locked(func() { w.waited = append(w.waited, b) }) },
		Read:       func(b hooks.Read) { locked(func() { w.read = append(w.read, b) }) },
		Rebalanced: func(r hooks.Rebalanced) { locked(func() { w.rebalanced = append(w.rebalanced, r) }) },
		Committed:  func(c hooks.Committed) { locked(func() { w.committed = append(w.committed, c) }) },
	}
}

// check compares what must be even when everything has been closed.
func (w *told) check(t *testing.T) {
	t.Helper()
	w.Lock()
	defer w.Unlock()
	for _, wrong := range w.wrong {
		t.Error(wrong)
	}
	for api, n := range w.sent {
		if n != 0 {
			t.Errorf("%d requests of %s were sent and not told as answered", n, api)
		}
	}
	if w.connected == 0 || w.connected != w.disconnected {
		t.Errorf("%d connections, of which %d ended", w.connected, w.disconnected)
	}
}

// Whatever happens to requests, hooks are told of each once, of each connection that it ended, and of
// each record in one batch.
func TestHooksAreToldOfEverythingOnce(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) { toldOfEverythingOnce(t, f, seed) })
		})
	}
}

func toldOfEverythingOnce(t *testing.T, f *fakeCluster, seed uint64) {
	f.topic("t", 2)
	tps := []TopicPartition{{"t", 0}, {"t", 1}}
	f.script(chaos(f, rand.New(rand.NewPCG(seed, 2)), time.Now().Add(time.Minute), tps))
	var w told
	c := f.client(Hooks(w.hooks()))
	p, err := c.NewProducer(Linger(5*time.Millisecond), BatchSize(300), DeliveryTimeout(time.Hour), BufferMemory(5000), MaxBlock(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	const records = 300
	acked := 0
	for n := range records {
		r := ProducerRecord{Topic: "t", Partition: ToPartition(int32(n % 2)), Value: fmt.Appendf(nil, "%d", n)}
		if err := p.Send(t.Context(), r, func(_ RecordMetadata, err error) {
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			acked++
		}); err != nil {
			t.Fatal(err)
		}
	}
	closeProducer(t, p)
	k, err := c.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Assign(map[TopicPartition]Position{tps[0]: Earliest, tps[1]: Earliest}); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < records; {
		got, err := k.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n += len(got)
	}
	k.Close()
	c.Close()
	w.check(t)
	var wrote, bytes, read, again int
	for _, b := range w.written {
		wrote, bytes, again = wrote+b.Records, bytes+b.Bytes, again+b.Attempts-1
		if b.Err != nil || b.Bytes == 0 || b.Topic != "t" || b.Attempts < 1 || b.Memory < int64(b.Records*recordOverhead) {
			t.Errorf("seed %d: written %+v", seed, b)
		}
	}
	var lag [2]int64
	for _, b := range w.read {
		read, bytes = read+b.Records, bytes-b.Bytes
		lag[b.Number] = b.Lag
	}
	if wrote != records || acked != records || read != records || bytes != 0 || lag != [2]int64{} {
		t.Errorf("seed %d: told of %d records written and %d read, %d bytes more written, %v behind at the end; %d callbacks", seed, wrote, read, bytes, lag, acked)
	}
	if len(w.waited) == 0 {
		t.Errorf("seed %d: nobody waited for buffer.memory", seed)
	}
	if seed == 0 && again == 0 {
		t.Errorf("seed %d: no batch was sent again", seed)
	}
}

// Of what fails hooks are told too, with Kafka's name for it, and of how long a broker wants to be left alone.
func TestHooksAreToldOfFailures(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() != 0 {
				return interference{}
			}
			return interference{code: int16(ErrTopicAuthorizationFailed), edit: func(resp kmsg.Response) {
				resp.(*kmsg.ProduceResponse).ThrottleMillis = 250
			}}
		})
		var w told
		c := f.client(Hooks(w.hooks()))
		p, err := c.NewProducer(Linger(0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); !errors.Is(err, ErrTopicAuthorizationFailed) {
			t.Fatalf("error %v", err)
		}
		closeProducer(t, p)
		c.Close()
		w.check(t)
		if len(w.written) != 1 || !errors.Is(w.written[0].Err, ErrTopicAuthorizationFailed) || w.written[0].Attempts != 1 {
			t.Errorf("told of %+v", w.written)
		}
		throttled := time.Duration(0)
		for _, a := range w.answered {
			throttled += a.Throttled
		}
		if throttled != 250*time.Millisecond {
			t.Errorf("throttled for %v", throttled)
		}
	})
}

func TestHooksAreToldOfWhatIsNotAnswered(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		var w told
		c := f.client(Hooks(w.hooks()))
		p, err := c.NewProducer(WithAcks(AcksNone))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		closeProducer(t, p)
		c.Close()
		w.check(t)
		if w.oneWay != 1 {
			t.Errorf("told of %d requests without an answer", w.oneWay)
		}
	})
}

// A member's hooks are told of what it gets, commits and gives up.
func TestHooksAreToldOfAMembership(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.groups(quickGroups())
		f.topic("t", 3)
		var w told
		c := f.client(Hooks(w.hooks()))
		g, err := c.NewGroupConsumer("readers", NoAutoCommit(), AutoOffsetReset(Earliest))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeProducer(t, p)
		c.Close()
		w.check(t)
		if r := w.rebalanced; len(r) != 2 || r[0].What != hooks.Assigned || r[1].What != hooks.Revoked ||
			len(r[0].Partitions) != 3 || r[0].Partitions[2] != (hooks.Partition{Topic: "t", Number: 2}) || len(r[1].Partitions) != 3 || r[0].Group != "readers" {
			t.Errorf("rebalanced %+v", r)
		}
		if m := w.committed; len(m) != 1 || m[0].Err != nil || m[0].Group != "readers" || m[0].Partitions == 0 {
			t.Errorf("committed %+v", m)
		}
	})
}
