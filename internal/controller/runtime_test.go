package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
)

func createRequest(partitions int32, names ...string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, 30_000
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
		req.Topics = append(req.Topics, t)
	}
	return req
}

func deleteRequest(names ...string) *kmsg.DeleteTopicsRequest {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis = 5, 30_000
	req.TopicNames = names
	return req
}

// world drives a controller with a seed: requests at any time, commits late or never, refusals,
// changes of leadership.
type world struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	c      *Controller
	log    *fakeLog
	wait   sync.WaitGroup
	mu     sync.Mutex
	blocks map[int64]bool // first ids of the producer id blocks that were answered
	made   int
}

func (w *world) failf(format string, args ...any) {
	w.t.Errorf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

// request sends one request of a random kind and checks its answer when it comes.
func (w *world) request(ctx context.Context) {
	name := fmt.Sprintf("topic-%d", w.random.IntN(8))
	partitions := 1 + w.random.Int32N(3)
	value := fmt.Sprint(1 + w.random.IntN(3))
	kind := w.random.IntN(5)
	w.wait.Go(func() {
		switch kind {
		case 0, 1:
			w.create(ctx, name, partitions)
		case 2:
			if _, err := w.c.DeleteTopics(ctx, deleteRequest(name)); err != nil {
				w.failf("delete: %v", err)
			}
		case 3:
			req := parseAlter([]string{"topic:" + name, "set", "retention.ms=" + value}).(*kmsg.IncrementalAlterConfigsRequest)
			if _, err := w.c.IncrementalAlterConfigs(ctx, req); err != nil {
				w.failf("alter: %v", err)
			}
		case 4:
			w.allocate(ctx)
		}
	})
}

func (w *world) create(ctx context.Context, name string, partitions int32) {
	resp, err := w.c.CreateTopics(ctx, createRequest(partitions, name))
	if err != nil {
		w.failf("create: %v", err)
		return
	}
	topic := resp.Topics[0]
	switch topic.ErrorCode {
	case 0:
		w.mu.Lock()
		w.made++
		w.mu.Unlock()
		offset, found := w.committedTopic(topic.TopicID)
		if !found || w.c.Image().Offset() < offset {
			w.failf("topic %s was answered before it was committed (%t) and published", name, found)
		}
	case kerr.TopicAlreadyExists.Code, kerr.NotController.Code, kerr.KafkaStorageError.Code, kerr.RequestTimedOut.Code:
	default:
		w.failf("create %s: %s", name, code(topic.ErrorCode))
	}
}

func (w *world) committedTopic(id metadata.UUID) (offset int64, found bool) {
	for _, e := range w.log.committedEntries() {
		for _, r := range e.Records {
			if t, ok := r.(*metadata.TopicRecord); ok && metadata.UUID(t.Id) == id {
				return e.Offset, true
			}
		}
	}
	return 0, false
}

func (w *world) allocate(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, ErrTimedOut)
	defer cancel()
	b, ok := w.c.Image().Broker(1)
	if !ok {
		return
	}
	block, err := w.c.AllocateProducerIDs(ctx, 1, b.Epoch)
	if err != nil {
		if !errors.Is(err, ErrNotController) && !errors.Is(err, quorum.ErrNoSpace) && !errors.Is(err, ErrTimedOut) && !errors.Is(err, quorum.ErrNotLeader) {
			w.failf("allocate: %v", err)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocks[block.First] {
		w.failf("producer ids from %d were given out twice", block.First)
	}
	w.blocks[block.First] = true
}

func (w *world) step() {
	switch n := w.random.IntN(20); {
	case n < 12:
		for range 1 + w.random.IntN(4) {
			w.request(context.Background())
		}
	case n < 17:
		w.log.commit(1 + w.random.IntN(5))
	case n == 17:
		if w.random.IntN(2) == 0 {
			w.log.refuse(quorum.ErrNoSpace)
		} else {
			w.log.refuse(nil)
		}
	case n == 18:
		w.log.lose(w.random.IntN(4))
	default:
		w.log.lead(w.random.IntN(4))
	}
	if w.random.IntN(2) == 0 {
		synctest.Wait()
	}
}

func TestRandomHistories(t *testing.T) {
	made := 0
	for seed := range uint64(150) {
		faketime.Test(t, func(t *testing.T) {
			c, log := start(t, testOptions(t, seed))
			w := &world{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 2)), c: c, log: log, blocks: make(map[int64]bool)}
			w.wait.Go(func() {
				if _, err := c.RegisterBroker(context.Background(), registration(1)); err != nil {
					w.failf("register: %v", err)
				}
			})
			synctest.Wait()
			log.commit(2)
			synctest.Wait()
			for range 60 {
				w.step()
			}
			log.refuse(nil)
			log.lead(1)
			synctest.Wait()
			log.setAuto()
			w.wait.Wait()
			w.settle()
			made += w.made
			c.Close()
		})
	}
	if made < 100 {
		t.Errorf("only %d topics were made in all histories", made)
	}
}

// settle checks that a log read from its start gives the state that the controller has.
func (w *world) settle() {
	fresh := metadata.NewLoader()
	for _, e := range w.log.committedEntries() {
		if err := fresh.Apply(context.Background(), e); err != nil {
			w.failf("replay: %v", err)
		}
	}
	if d := metadata.Diff(fresh.Image(), w.c.Image()); !d.Empty() {
		w.failf("replayed and live image differ: %+v", d)
	}
	if w.c.Image().ClusterID() != "c" {
		w.failf("the cluster was not formed")
	}
	other := metadata.NewLoader()
	if err := other.Restore(context.Background(), w.c.Snapshot()); err != nil {
		w.failf("restore: %v", err)
	}
	if d := metadata.Diff(other.Image(), w.c.Image()); !d.Empty() {
		w.failf("restored and live image differ: %+v", d)
	}
}

// ready is a controller with a registered broker, on a log that commits when told.
func ready(t *testing.T, lines ...string) (*Controller, *fakeLog) {
	t.Helper()
	c, l := start(t, testOptions(t, 1, lines...))
	l.setAuto()
	if _, err := c.RegisterBroker(context.Background(), registration(1)); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.mu.auto = false
	l.mu.Unlock()
	return c, l
}

func TestAnswersWaitForTheCommit(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		ctx := context.Background()
		var order []string
		var mu sync.Mutex
		ask := func(what string, want *kerr.Error) {
			go func() {
				resp, err := c.CreateTopics(ctx, createRequest(1, "a"))
				if err != nil || kerr.TypedErrorForCode(resp.Topics[0].ErrorCode) != want {
					t.Errorf("%s: %v, %v", what, resp, err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, what)
			}()
			synctest.Wait()
		}
		ask("first", nil)
		ask("second", kerr.TopicAlreadyExists) // says so because of what is not committed yet
		if len(order) > 0 || l.pending() != 1 {
			t.Fatalf("answered before the commit: %v; %d proposals", order, l.pending())
		}
		if _, exists := c.Image().Topic("a"); exists {
			t.Error("the image has what is not committed")
		}
		l.commit(1)
		synctest.Wait()
		if !slices.Equal(order, []string{"first", "second"}) && !slices.Equal(order, []string{"second", "first"}) {
			t.Errorf("answered: %v", order)
		}
		// With nothing in flight there is nothing to wait for.
		ask("third", kerr.TopicAlreadyExists)
		if len(order) != 3 {
			t.Error("an answer waits for nothing")
		}
	})
}

// Who is told that the metadata here is the newest was told so by the others: a controller that was replaced, and has not heard of
// it, does not know what the next one has decided.
func TestSyncAsksWhetherThisNodeDecides(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		if err := c.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = c.CreateTopics(context.Background(), createRequest(1, "a")) }()
		synctest.Wait()
		var err error
		done := make(chan struct{})
		go func() { defer close(done); err = c.Sync(context.Background()) }()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("what has been decided was not waited for")
		default:
		}
		l.commit(1)
		if <-done; err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		l.mu.epoch++ // another's
		l.mu.Unlock()
		if err := c.Sync(context.Background()); !errors.Is(err, ErrNotController) {
			t.Fatalf("of a controller that was replaced: %v", err)
		}
	})
}

func TestRefusedProposalChangesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		before := c.Image()
		for cause, want := range map[error]*kerr.Error{
			quorum.ErrNoSpace:  kerr.KafkaStorageError,
			quorum.ErrBusy:     kerr.ThrottlingQuotaExceeded,
			quorum.ErrTooLarge: kerr.PolicyViolation,
			errors.New("odd"):  kerr.UnknownServerError,
		} {
			l.refuse(cause)
			resp, err := c.CreateTopics(context.Background(), createRequest(1, "a", "b"))
			if err != nil || len(resp.Topics) != 2 || kerr.TypedErrorForCode(resp.Topics[1].ErrorCode) != want {
				t.Errorf("%v: %+v, %v", cause, resp, err)
			}
		}
		l.refuse(nil)
		go func() { l.commit(1) }()
		l.setAuto()
		resp, err := c.CreateTopics(context.Background(), createRequest(1, "a"))
		if err != nil || resp.Topics[0].ErrorCode != 0 {
			t.Errorf("after refusals: %+v, %v", resp, err)
		}
		if got := c.Image().TopicCount() - before.TopicCount(); got != 1 {
			t.Errorf("%d topics more", got)
		}
	})
}

func TestLostLeadershipFailsWaiters(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		answered := make(chan int16, 2)
		for _, name := range []string{"a", "b"} {
			go func() {
				resp, err := c.CreateTopics(context.Background(), createRequest(1, name))
				if err != nil {
					t.Error(err)
				}
				answered <- resp.Topics[0].ErrorCode
			}()
			synctest.Wait()
		}
		l.lose(1) // the first reached the others and is committed there
		for range 2 {
			if got := <-answered; got != kerr.NotController.Code {
				t.Errorf("answer: %s", code(got))
			}
		}
		resp, err := c.CreateTopics(context.Background(), createRequest(1, "c"))
		if err != nil || resp.Topics[0].ErrorCode != kerr.NotController.Code {
			t.Errorf("without leadership: %+v, %v", resp, err)
		}
		l.lead(0)
		l.setAuto()
		for name, want := range map[string]int16{"a": kerr.TopicAlreadyExists.Code, "b": 0} {
			resp, err := c.CreateTopics(context.Background(), createRequest(1, name))
			if err != nil || resp.Topics[0].ErrorCode != want {
				t.Errorf("%s after the lost leadership: %+v, %v", name, resp, err)
			}
		}
	})
}

func TestTimeouts(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		req := createRequest(1, "a")
		req.TimeoutMillis = 250
		began := time.Now()
		resp, err := c.CreateTopics(context.Background(), req)
		if err != nil || resp.Topics[0].ErrorCode != kerr.RequestTimedOut.Code || time.Since(began) != 250*time.Millisecond {
			t.Errorf("%+v, %v after %v", resp, err, time.Since(began))
		}
		// It was proposed, so it takes effect when it is committed.
		l.commit(1)
		synctest.Wait()
		if _, exists := c.Image().Topic("a"); !exists {
			t.Error("an effect was cancelled with its wait")
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			synctest.Wait()
			cancel()
		}()
		if resp, err := c.CreateTopics(ctx, createRequest(1, "b")); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %+v, %v", resp, err)
		}
		// What nobody waits for any more is not begun.
		proposals, release := l.pending(), make(chan struct{})
		c.inbox.post(func(*shard) { <-release })
		req.Topics[0].Topic = "c"
		if resp, err := c.CreateTopics(context.Background(), req); err != nil || resp.Topics[0].ErrorCode != kerr.RequestTimedOut.Code {
			t.Errorf("while the controller is busy: %+v, %v", resp, err)
		}
		close(release)
		synctest.Wait()
		if l.pending() != proposals {
			t.Error("begun although its time was over")
		}
	})
}

func TestRequestsBeyondTheLimitWait(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		var wait sync.WaitGroup
		ask := func(name string, millis int32, want int16) {
			wait.Go(func() {
				req := createRequest(1, name)
				req.TimeoutMillis = millis
				resp, err := c.CreateTopics(context.Background(), req)
				if err != nil || resp.Topics[0].ErrorCode != want {
					t.Errorf("%s: %+v, %v", name, resp, err)
				}
			})
			synctest.Wait()
		}
		for n := range maxPendingRequests {
			ask(fmt.Sprintf("topic-%d", n), 30_000, 0)
		}
		ask("late", 100, kerr.RequestTimedOut.Code)
		ask("patient", 30_000, 0)
		time.Sleep(time.Second)
		if l.pending() != maxPendingRequests {
			t.Errorf("%d proposals", l.pending())
		}
		l.setAuto()
		wait.Wait()
		if n := c.Image().TopicCount(); n != maxPendingRequests+1 {
			t.Errorf("%d topics", n)
		}
	})
}

func TestCloseAnswersWaiters(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, _ := ready(t)
		answered := make(chan error, 2)
		for _, name := range []string{"a", "b"} {
			go func() {
				resp, err := c.CreateTopics(context.Background(), createRequest(1, name))
				if err == nil && resp.Topics[0].ErrorCode != kerr.NotController.Code {
					err = fmt.Errorf("answer %s", code(resp.Topics[0].ErrorCode))
				}
				answered <- err
			}()
		}
		synctest.Wait()
		c.Close()
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if _, err := c.AllocateProducerIDs(context.Background(), 1, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		never := New(context.Background(), testOptions(t, 1))
		never.Close()
	})
}

func TestFormingIsTriedAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := start(t, testOptions(t, 1))
		defer c.Close()
		l.refuse(quorum.ErrNoSpace)
		l.lead(0)
		synctest.Wait()
		if _, err := c.RegisterBroker(context.Background(), registration(1)); !errors.Is(err, quorum.ErrNoSpace) {
			t.Errorf("register on a full disk: %v", err)
		}
		l.refuse(nil)
		l.setAuto()
		if _, err := c.RegisterBroker(context.Background(), registration(1)); err != nil {
			t.Error(err)
		}
		if image := c.Image(); image.ClusterID() != "c" || image.Feature("metadata.version") != metadataVersion {
			t.Errorf("cluster %q at %d", image.ClusterID(), image.Feature("metadata.version"))
		}
	})
}

func TestDynamicSettingsHoldForDecisions(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := ready(t)
		defer c.Close()
		l.setAuto()
		b := &ownBroker{t, c}
		play(t, b, "alter broker:'' set log.retention.ms=5000")
		resp, err := c.CreateTopics(context.Background(), createRequest(1, "a"))
		if err != nil {
			t.Fatal(err)
		}
		for _, config := range resp.Topics[0].Configs {
			if config.Name == "retention.ms" && (*config.Value != "5000" || config.Source != int8(kmsg.ConfigSourceDynamicDefaultBrokerConfig)) {
				t.Errorf("retention.ms=%s from %d", *config.Value, config.Source)
			}
		}
	})
}
