package share

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	"barnabas/client/hooks"
	"barnabas/internal/faketime"
)

// within runs a test against a model in a bubble with fake time.
func within(t *testing.T, leaders []int32, test func(t *testing.T, m *model, c *client.Client)) {
	t.Helper()
	faketime.Test(t, func(t *testing.T) {
		m := newModel(t, leaders...)
		c := m.client()
		test(t, m, c)
		c.Close()
		m.end()
	})
}

func consume(t *testing.T, c *client.Client, options ...Option) *Consumer {
	t.Helper()
	k, err := NewConsumer(c, "g", options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Subscribe(modelTopic); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *Consumer) mustPoll(t *testing.T) []Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	records, err := k.Poll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// empty expects that nothing comes for a while.
func (k *Consumer) empty(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if records, err := k.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Poll returns %d records, %v", len(records), err)
	}
}

func (k *Consumer) mustClose(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := k.Close(ctx); err != nil {
		t.Error(err)
	}
}

func values(records []Record) (list []string) {
	for _, r := range records {
		list = append(list, string(r.Value))
	}
	return list
}

// Without Explicit what a Poll returned is accepted by the next Poll, or by Commit; Close accepts nothing.
func TestImplicit(t *testing.T) {
	within(t, []int32{1, 2}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a", "b", "c", "d", "e")
		told := 0
		k := consume(t, c, MaxPollRecords(2), OnAcknowledged(func(results []Result) {
			for _, r := range results {
				told += len(r.Offsets)
			}
		}))
		if got := values(k.mustPoll(t)); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("got %q", got)
		}
		if got := values(k.mustPoll(t)); !slices.Equal(got, []string{"c", "d"}) {
			t.Errorf("got %q", got)
		}
		if _, err := k.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if got := m.verdicts(); got[1] != 4 || told != 4 {
			t.Errorf("after Commit: %v, told of %d", got, told)
		}
		if err := k.Acknowledge(Reject); !errors.Is(err, ErrImplicit) {
			t.Error(err)
		}
		last := k.mustPoll(t)
		if got := values(last); !slices.Equal(got, []string{"e"}) || last[0].DeliveryCount != 1 {
			t.Errorf("got %q", got)
		}
		k.mustClose(t)
		if got := m.verdicts(); got[1] != 4 || len(m.members)+len(m.sessions) != 0 {
			t.Errorf("after Close: %v; members %v, sessions %v", got, m.members, m.sessions)
		}
		next := consume(t, c)
		if again := next.mustPoll(t); !slices.Equal(values(again), []string{"e"}) || again[0].DeliveryCount != 2 {
			t.Errorf("what was not accepted comes as %+v", again)
		}
		next.mustClose(t)
	})
}

func TestExplicit(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a", "b", "c", "", "d")
		k := consume(t, c, Explicit())
		records := k.mustPoll(t)
		if got := values(records); !slices.Equal(got, []string{"a", "b", "c", "d"}) || !records[0].LockedUntil.Equal(time.Now().Add(m.lock)) {
			t.Errorf("got %q, locked until %v", got, records[0].LockedUntil)
		}
		if err := k.Acknowledge(Accept, &records[0], &Record{}); !errors.Is(err, ErrNotDelivered) {
			t.Error(err)
		}
		if _, err := k.Poll(t.Context()); !errors.Is(err, ErrUnacknowledged) || !strings.Contains(err.Error(), "3") {
			t.Error(err)
		}
		if err := errors.Join(k.Acknowledge(Release, &records[1]), k.Acknowledge(Reject, &records[2]), k.Acknowledge(Accept, &records[3])); err != nil {
			t.Error(err)
		}
		results, err := k.Commit(t.Context())
		if err != nil || len(results) != 1 || !slices.Equal(results[0].Offsets, []int64{0, 1, 2, 4}) {
			t.Errorf("%+v, %v", results, err)
		}
		if err := k.Acknowledge(Accept, &records[0]); !errors.Is(err, ErrAcknowledged) {
			t.Error(err)
		}
		if got := m.verdicts(); got[1] != 2 || got[3] != 1 || got[9] != 1 || got[0] != 1 {
			t.Errorf("the model has %v", got)
		}
		again := k.mustPoll(t)
		if !slices.Equal(values(again), []string{"b"}) || again[0].DeliveryCount != 2 {
			t.Errorf("what was released comes as %+v", again)
		}
		if err := k.Acknowledge(Accept, &again[0]); err != nil {
			t.Error(err)
		}
		k.mustClose(t) // which sends it
		if got := m.verdicts(); got[1] != 3 {
			t.Errorf("after Close the model has %v", got)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		m.write(0, "e")
		for _, closing := range []context.Context{t.Context(), ended} {
			k := consume(t, c, Explicit())
			held := k.mustPoll(t)
			_ = k.Close(closing)
			if err := k.Acknowledge(Accept, &held[0]); !errors.Is(err, ErrLost) || !errors.Is(err, client.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

// A renewed record is asked for and returned by no Poll, and outlasts its first lock.
func TestRenewed(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a")
		k := consume(t, c, Explicit())
		records := k.mustPoll(t)
		for range 5 {
			if err := k.Acknowledge(Renew, &records[0]); err != nil {
				t.Fatal(err)
			}
			k.CommitAsync()
			k.empty(t, 20*time.Second)
		}
		if err := k.Acknowledge(Accept, &records[0]); err != nil {
			t.Error(err)
		}
		if _, err := k.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if got := m.verdicts(); got[1] != 1 {
			t.Errorf("the model has %v", got)
		}
		k.mustClose(t)
	})
}

// A broker that is too old for renewals says so, and nothing else is harmed.
func TestRenewalNeedsNewerBroker(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.newest = map[int16]int16{78: 1, 79: 1}
		m.write(0, "a", "b")
		k := consume(t, c, Explicit(), RecordLimit())
		records := k.mustPoll(t)
		if err := errors.Join(k.Acknowledge(Renew, &records[0]), k.Acknowledge(Accept, &records[1])); err != nil {
			t.Error(err)
		}
		results, err := k.Commit(t.Context())
		if !errors.Is(err, client.ErrUnsupportedVersion) || len(results) != 2 {
			t.Errorf("%+v, %v", results, err)
		}
		for _, r := range results {
			if accepted := slices.Equal(r.Offsets, []int64{1}); accepted != (r.Err == nil) {
				t.Errorf("%+v", r)
			}
		}
		if got := m.verdicts(); got[1] != 1 {
			t.Errorf("the model has %v", got)
		}
		k.mustClose(t)
	})
}

// A record whose lock has run out belongs to somebody else.
func TestLockRunsOut(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a")
		slow, other := consume(t, c, Explicit()), consume(t, c, Explicit())
		records := slow.mustPoll(t)
		other.empty(t, 20*time.Second)
		again := other.mustPoll(t)
		if again[0].DeliveryCount != 2 {
			t.Errorf("delivery %d", again[0].DeliveryCount)
		}
		if err := slow.Acknowledge(Accept, &records[0]); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		slow.empty(t, time.Second) // which may be called: what is lost is not to be acknowledged
		if err := other.Acknowledge(Accept, &again[0]); err != nil {
			t.Error(err)
		}
		other.mustClose(t)
		slow.mustClose(t)
		if got := m.verdicts(); got[1] != 1 {
			t.Errorf("the model has %v", got)
		}
	})
}

// The old leader tells where the new one is; what it had acquired is lost.
func TestLeaderMoves(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a", "b")
		k := consume(t, c, Explicit())
		records := k.mustPoll(t)
		m.move(0, 2)
		if err := k.Acknowledge(Accept, &records[0]); err != nil {
			t.Error(err)
		}
		results, err := k.Commit(t.Context())
		if !errors.Is(err, ErrLost) || !errors.Is(err, client.ErrNotLeaderOrFollower) || len(results) != 1 {
			t.Errorf("%+v, %v", results, err)
		}
		if again := k.mustPoll(t); again[0].DeliveryCount != 2 || len(again) != 2 {
			t.Errorf("from the new leader comes %+v", again)
		}
		k.mustClose(t)
	})
}

// A session that a broker has forgotten is opened anew, and the records come again when their locks have run out.
func TestSessionIsForgotten(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a")
		k := consume(t, c, Explicit())
		records := k.mustPoll(t)
		m.forget(1)
		if err := k.Acknowledge(Accept, &records[0]); err != nil {
			t.Error(err)
		}
		if _, err := k.Commit(t.Context()); !errors.Is(err, ErrLost) || !errors.Is(err, client.ErrShareSessionNotFound) {
			t.Error(err)
		}
		if again := k.mustPoll(t); again[0].DeliveryCount != 2 {
			t.Errorf("delivery %d", again[0].DeliveryCount)
		}
		k.mustClose(t)
	})
}

// What cannot be read is told and released; its neighbours are returned.
func TestDamagedBatch(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.damaged[1] = true
		m.write(0, "a", "b", "c")
		k := consume(t, c, Explicit())
		records := k.mustPoll(t)
		if !slices.Equal(values(records), []string{"a", "c"}) {
			t.Errorf("got %q", values(records))
		}
		if err := k.Acknowledge(Accept, &records[0], &records[1]); err != nil {
			t.Error(err)
		}
		var bad *client.PartitionError
		if _, err := k.Poll(t.Context()); !errors.As(err, &bad) || bad.Topic != modelTopic || !errors.Is(err, client.ErrCorruptMessage) {
			t.Error(err)
		}
		m.mu.Lock()
		m.damaged = nil
		m.mu.Unlock()
		for {
			got, err := k.Poll(t.Context())
			if errors.Is(err, client.ErrCorruptMessage) {
				continue // it was acquired again before
			}
			if err != nil || !slices.Equal(values(got), []string{"b"}) || got[0].DeliveryCount < 2 {
				t.Errorf("got %+v, %v", got, err)
			}
			break
		}
		k.mustClose(t)
	})
}

func TestWithoutShareGroups(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.without = true
		k := consume(t, c)
		for range 2 {
			if _, err := k.Poll(t.Context()); !errors.Is(err, client.ErrUnsupportedVersion) {
				t.Error(err)
			}
		}
		k.mustClose(t)
	})
}

// A member that its group has forgotten joins anew; one whose program stays away leaves.
func TestMembership(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		k := consume(t, c, MaxPollInterval(time.Minute))
		k.empty(t, 10*time.Second)
		members := func() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.members) }
		if members() != 1 || len(k.Assignment()) != 1 || !slices.Equal(k.Subscription(), []string{modelTopic}) {
			t.Errorf("%d members; it reads %v", members(), k.Assignment())
		}
		m.mu.Lock()
		clear(m.members)
		m.mu.Unlock()
		k.empty(t, 10*time.Second)
		if members() != 1 {
			t.Errorf("%d members", members())
		}
		time.Sleep(2 * time.Minute) // of the bubble: the program is busy
		if members() != 0 || len(k.Assignment()) != 0 {
			t.Errorf("%d members; it reads %v", members(), k.Assignment())
		}
		m.write(0, "a")
		k.mustPoll(t)
		if members() != 1 {
			t.Errorf("%d members", members())
		}
		if err := k.Subscribe(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if members() != 0 {
			t.Errorf("%d members", members())
		}
		k.mustClose(t)
	})
}

func TestMisuse(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		for name, o := range map[string]Option{
			"max.poll.records": MaxPollRecords(0), "fetch.min.bytes": FetchMinBytes(-1), "fetch.max.bytes": FetchMaxBytes(-1),
			"fetch.max.wait.ms": FetchMaxWait(-1), "max.poll.interval.ms": MaxPollInterval(0),
		} {
			if _, err := NewConsumer(c, "g", o); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := NewConsumer(c, ""); !errors.Is(err, client.ErrInvalidGroupID) {
			t.Error(err)
		}
		k := consume(t, c, CheckCRCs(true), Rack("r"), FetchMinBytes(1), FetchMaxBytes(1000), FetchMaxWait(time.Second))
		if err := k.Subscribe("a", ""); !errors.Is(err, client.ErrInvalidTopic) {
			t.Error(err)
		}
		polling, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := k.Poll(polling)
			ended <- err
		}()
		synctest.Wait()
		if _, err := k.Poll(t.Context()); !errors.Is(err, client.ErrConcurrentPoll) {
			t.Error(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		go func() {
			_, err := k.Poll(t.Context())
			ended <- err
		}()
		synctest.Wait()
		k.mustClose(t)
		if err := <-ended; !errors.Is(err, client.ErrClosed) {
			t.Error(err)
		}
		k.mustClose(t)
		_, polled := k.Poll(t.Context())
		_, committed := k.Commit(t.Context())
		for _, err := range []error{polled, committed, k.Subscribe("a")} {
			if !errors.Is(err, client.ErrClosed) {
				t.Error(err)
			}
		}
		for a, want := range map[Acknowledgement]string{Accept: "accept", Release: "release", Reject: "reject", Renew: "renew", 0: "unknown"} {
			if a.String() != want {
				t.Errorf("%d is %q", a, a)
			}
		}
	})
}

// Close does not wait longer than it may, whatever hangs.
func TestCloseEndsWithItsContext(t *testing.T) {
	within(t, []int32{1}, func(t *testing.T, m *model, c *client.Client) {
		m.write(0, "a")
		k := consume(t, c)
		k.mustPoll(t)
		m.mu.Lock()
		m.rude = func(int32, kmsg.Request) bool { <-m.ctx.Done(); return true }
		m.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestHooksAreTold(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		var mu sync.Mutex
		read := 0
		c, err := client.New(client.Brokers("n1:9092"), client.Dialer(m.net.Host("client").Dial), client.Hooks(hooks.Hooks{
			Read: func(r hooks.Read) { mu.Lock(); read += r.Records; mu.Unlock() },
		}))
		if err != nil {
			t.Fatal(err)
		}
		m.write(0, "a", "b")
		k := consume(t, c)
		k.mustPoll(t)
		k.mustClose(t)
		if read != 2 {
			t.Errorf("told of %d records", read)
		}
		c.Close()
		m.end()
	})
}

// Members with minds of their own, brokers that hang up, forget and lose their leadership: every record is
// accepted or rejected in the end, once; what a member was told to be taken was taken from it, and nothing
// is said against the protocol.
func TestSimulation(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { simulate(t, seed) })
	}
}

const simulated = 60 // records of each partition

func simulate(t *testing.T, seed uint64) {
	within(t, []int32{1, 2, 3, 1}, func(t *testing.T, m *model, c *client.Client) {
		m.lock = 5 * time.Second
		var rng struct {
			sync.Mutex
			*rand.Rand
		}
		rng.Rand = rand.New(rand.NewPCG(seed, 9))
		draw := func(n int) int { rng.Lock(); defer rng.Unlock(); return rng.IntN(n) }
		calm := false // no more trouble; under m.mu
		m.rude = func(int32, kmsg.Request) bool {
			m.mu.Lock()
			quiet := calm
			m.mu.Unlock()
			return !quiet && draw(40) == 0
		}
		var taken struct {
			sync.Mutex
			final map[string]int
		}
		taken.final = map[string]int{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for range 3 {
			options := []Option{Explicit(), MaxPollRecords(1 + draw(20))}
			if draw(2) == 0 {
				options = append(options, RecordLimit())
			}
			k := consume(t, c, options...)
			wg.Go(func() {
				moody(ctx, t, k, draw, func(r Result, as map[int64]Acknowledgement) {
					taken.Lock()
					defer taken.Unlock()
					for _, o := range r.Offsets {
						if a := as[o]; r.Err == nil && (a == Accept || a == Reject) {
							taken.final[fmt.Sprint(r.TopicPartition, o)]++
						}
					}
				})
			})
		}
		for n := range simulated {
			for p := range 4 {
				v := fmt.Sprint(p, " ", n)
				if n%7 == 3 {
					v = ""
				}
				m.write(p, v)
			}
			switch time.Sleep(time.Duration(draw(400)) * time.Millisecond); draw(12) {
			case 0:
				m.move(draw(4), int32(1+draw(3)))
			case 1:
				m.forget(int32(1 + draw(3)))
			}
		}
		m.mu.Lock()
		calm = true
		m.mu.Unlock()
		for began := time.Now(); m.verdicts()[0] > 0; time.Sleep(time.Second) {
			if time.Since(began) > 10*time.Minute {
				t.Fatalf("seed %d: after ten minutes %v", seed, m.verdicts())
			}
		}
		cancel()
		wg.Wait()
		for what, n := range taken.final {
			if n > 1 {
				t.Errorf("seed %d: %s was taken %d times", seed, what, n)
			}
		}
		if got := m.verdicts(); got[9] != 4*9 || got[1]+got[3] != 4*(simulated-9) || len(taken.final) > got[1]+got[3] {
			t.Errorf("seed %d: the model has %v, %d are known to be taken", seed, got, len(taken.final))
		}
		if len(m.members)+len(m.sessions) > 0 {
			t.Errorf("seed %d: members %v and sessions %v are left", seed, m.members, m.sessions)
		}
	})
}

// moody polls until ctx ends, and says now this, now that.
func moody(ctx context.Context, t *testing.T, k *Consumer, draw func(int) int, told func(Result, map[int64]Acknowledgement)) {
	for {
		records, err := k.Poll(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			t.Error(err)
			return
		}
		said := map[client.TopicPartition]map[int64]Acknowledgement{}
		for i := range records {
			r := &records[i]
			verdicts := []Acknowledgement{Accept, Accept, Accept, Release, Reject, Renew}
			a := verdicts[draw(len(verdicts))]
			if err := k.Acknowledge(a, r); err != nil && !errors.Is(err, ErrLost) {
				t.Error(err)
			}
			if said[r.TopicPartition()] == nil {
				said[r.TopicPartition()] = map[int64]Acknowledgement{}
			}
			said[r.TopicPartition()][r.Offset] = a
		}
		if draw(4) == 0 {
			time.Sleep(time.Duration(draw(6000)) * time.Millisecond)
		}
		if draw(3) == 0 {
			continue // the next Poll sends it
		}
		results, err := k.Commit(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		for _, r := range results {
			told(r, said[r.TopicPartition])
		}
	}
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := k.Close(leave); err != nil {
		t.Error(err)
	}
}
