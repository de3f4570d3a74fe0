package client

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

	"barnabas/internal/batch"
)

var protocols = []struct {
	name  string
	level int16
}{{"first protocol", 0}, {"second protocol", 2}}

// transactionalCluster is a broker that speaks one of the protocols, and a producer with the id x.
type transactionalCluster struct {
	*fakeCluster
	level       int16
	only        *fakeTopic // t, with one partition
	coordinator *fakeTransactions
	producer    *Producer
}

func inEachProtocol(t *testing.T, test func(t *testing.T, f *transactionalCluster)) {
	t.Helper()
	for _, protocol := range protocols {
		t.Run(protocol.name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, f *fakeCluster) {
				c := &transactionalCluster{fakeCluster: f, level: protocol.level, only: f.topic("t", 1), coordinator: f.transactions(protocol.level)}
				c.producer = transactional(t, f, "x")
				defer closeProducer(t, c.producer)
				test(t, c)
			})
		})
	}
}

// Whatever happens to requests, consumers that read committed see of each transaction either all
// records once and in order or none, according to what Commit and Abort said, and the group's
// position goes with them; nothing is left open.
func TestTransactionsAreAllOrNothing(t *testing.T) {
	for _, protocol := range protocols {
		for seed := range uint64(16) {
			t.Run(fmt.Sprintf("%s, seed %d", protocol.name, seed), func(t *testing.T) {
				bubble(t, 3, func(t *testing.T, f *fakeCluster) { allOrNothing(t, f, protocol.level, seed) })
			})
		}
	}
}

// troubleOfTransactions interferes with what goes to coordinators.
func troubleOfTransactions(f *fakeCluster, x *fakeTransactions, rng *rand.Rand, quiet time.Time) func(kmsg.Request) interference {
	refusals := []Error{ErrConcurrentTransactions, ErrNotCoordinator, ErrCoordinatorLoadInProgress, ErrCoordinatorNotAvailable}
	var mu sync.Mutex
	return func(req kmsg.Request) interference {
		mu.Lock()
		defer mu.Unlock()
		if !time.Now().Before(quiet) {
			return interference{}
		}
		switch req.Key() {
		case 10, 22, 24, 25, 26, 28:
			switch rng.IntN(10) {
			case 0:
				return interference{drop: true}
			case 1:
				return interference{cut: true}
			case 2:
				return interference{code: int16(refusals[rng.IntN(len(refusals))])}
			case 3:
				f.mu.Lock()
				x.node = int32(1 + rng.IntN(3))
				f.mu.Unlock()
			}
		}
		return interference{}
	}
}

func allOrNothing(t *testing.T, f *fakeCluster, level int16, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	const partitions = 3
	f.topic("t", partitions)
	var tps []TopicPartition
	for n := range int32(partitions) {
		tps = append(tps, TopicPartition{"t", n})
	}
	x := f.transactions(level)
	quiet := time.Now().Add(time.Minute)
	records := chaos(f, rand.New(rand.NewPCG(seed, 4)), quiet, tps)
	others := troubleOfTransactions(f, x, rand.New(rand.NewPCG(seed, 5)), quiet)
	f.script(func(node int32, req kmsg.Request) interference {
		if i := others(req); i.drop || i.cut || i.code != 0 {
			return i
		}
		if req.Key() == 22 {
			return interference{}
		}
		return records(node, req)
	})
	c := f.client(RequestTimeout(time.Second))
	defer c.Close()
	// Half of the seeds have deliveries time out, so that transactions fail.
	timeout := time.Hour
	if seed%2 == 1 {
		timeout = 1200 * time.Millisecond
	}
	p, err := c.NewProducer(TransactionalID("x"), Linger(time.Duration(rng.IntN(3))*time.Millisecond), BatchSize(200), DeliveryTimeout(timeout))
	if err != nil {
		t.Fatal(err)
	}
	defer closeProducer(t, p)
	if err := p.InitTransactions(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	want := make([][]string, partitions)
	group := TopicPartition{"in", 0}
	var position int64
	failures := 0
	for n := range 40 {
		sent, offset := transact(t, p, rng, n, partitions, group)
		err := p.Commit(t.Context())
		if rng.IntN(4) == 0 && err == nil || err != nil {
			// what failed is aborted; now and then the next one is, on purpose
			if err != nil {
				failures++
				if !errors.Is(err, ErrTransactionAborted) {
					t.Fatalf("seed %d: transaction %d: %v", seed, n, err)
				}
			} else {
				want, position = kept(want, sent), max(position, offset)
				_, _ = transact(t, p, rng, 1000+n, partitions, group)
			}
			if err := p.Abort(t.Context()); err != nil {
				t.Fatalf("seed %d: abort transaction %d: %v", seed, n, err)
			}
			continue
		}
		want, position = kept(want, sent), max(position, offset)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	synctest.Wait()
	for n, tp := range tps {
		got, open := f.committed(tp)
		if !slices.Equal(got, want[n]) || open > 0 {
			t.Errorf("seed %d: partition %d: %s; %d batches undecided\n%s", seed, n, difference(got, want[n]), open, f.dump(tp))
		}
	}
	if got := x.commits["g"][group]; got != position {
		t.Errorf("seed %d: the group's position is %d, committed %d", seed, got, position)
	}
	if timeout < time.Hour && failures == 0 && seed == 1 {
		t.Errorf("seed %d: no transaction failed: the test tests little", seed)
	}
}

// transact sends the records of one transaction and, in most, an offset; 0: none.
func transact(t *testing.T, p *Producer, rng *rand.Rand, n, partitions int, group TopicPartition) (sent [][]string, offset int64) {
	t.Helper()
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	sent = make([][]string, partitions)
	for i := range rng.IntN(20) {
		at := rng.IntN(partitions)
		value := fmt.Sprintf("%d-%d", n, i)
		sent[at] = append(sent[at], value)
		err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(int32(at)), Value: []byte(value)}, nil)
		if err != nil && !errors.Is(err, ErrTransactionAborted) {
			t.Fatal(err)
		}
		if rng.IntN(5) == 0 {
			time.Sleep(time.Duration(rng.IntN(int(200 * time.Millisecond))))
		}
	}
	if rng.IntN(3) == 0 {
		return sent, 0
	}
	offset = int64(n + 1)
	err := p.SendOffsets(t.Context(), map[TopicPartition]OffsetAndMetadata{group: {Offset: offset}}, Membership{Group: "g", Generation: -1})
	if err != nil && !errors.Is(err, ErrTransactionAborted) {
		t.Fatal(err)
	}
	return sent, offset
}

func kept(all, more [][]string) [][]string {
	for n := range all {
		all[n] = append(all[n], more[n]...)
	}
	return all
}

func transactional(t *testing.T, f *fakeCluster, id string, options ...ProducerOption) *Producer {
	t.Helper()
	c := f.client()
	p, err := c.NewProducer(append([]ProducerOption{TransactionalID(id)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := p.InitTransactions(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// A record that waits in Send while its transaction ends belongs to no other.
func TestRecordsDoNotSlipIntoTheNextTransaction(t *testing.T) {
	for _, commit := range []bool{true, false} {
		for _, protocol := range protocols {
			t.Run(fmt.Sprintf("%s, commit %v", protocol.name, commit), func(t *testing.T) {
				bubble(t, 1, func(t *testing.T, f *fakeCluster) { sendDuringTheEnd(t, f, protocol.level, commit) })
			})
		}
	}
}

func sendDuringTheEnd(t *testing.T, f *fakeCluster, level int16, commit bool) {
	f.topic("t", 1)
	f.transactions(level)
	record := func(value string) ProducerRecord { return ProducerRecord{Topic: "t", Value: []byte(value)} }
	early := record("early")
	p := transactional(t, f, "x", Linger(time.Second), BufferMemory(recordBytes(&early)*3/2)) // one at a time
	defer closeProducer(t, p)
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := p.Send(t.Context(), early, nil); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Send(t.Context(), record("late"), func(_ RecordMetadata, err error) { t.Errorf("late is told of: %v", err) }); !errors.Is(err, ErrTransactionState) {
			t.Errorf("late: %v", err)
		}
	})
	synctest.Wait()
	end, want := p.Abort, []string{"next"}
	if commit {
		end, want = p.Commit, []string{"early", "next"}
	}
	if err := end(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := p.Send(t.Context(), record("next"), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, open := f.committed(TopicPartition{"t", 0}); !slices.Equal(got, want) || open > 0 {
		t.Errorf("committed is %q, expected %q; %d batches undecided", got, want, open)
	}
}

func TestCallsThatDoNotFitTheTransaction(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.transactions(2)
		c, plain := newTestProducer(t, f)
		defer c.Close()
		if err := plain.Begin(); !errors.Is(err, ErrNotTransactional) {
			t.Errorf("begin without an id: %v", err)
		}
		if err := plain.Commit(t.Context()); !errors.Is(err, ErrNotTransactional) {
			t.Errorf("commit without an id: %v", err)
		}
		closeProducer(t, plain)
		p, err := c.NewProducer(TransactionalID("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer closeProducer(t, p)
		record := ProducerRecord{Topic: "t", Value: []byte("v")}
		for what, call := range map[string]func() error{
			"begin":        p.Begin,
			"send":         func() error { return p.Send(t.Context(), record, nil) },
			"commit":       func() error { return p.Commit(t.Context()) },
			"send offsets": func() error { return p.SendOffsets(t.Context(), nil, Membership{Group: "g"}) },
		} {
			if err := call(); !errors.Is(err, ErrTransactionState) {
				t.Errorf("%s before InitTransactions: %v", what, err)
			}
		}
		if err := p.InitTransactions(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.InitTransactions(t.Context()); !errors.Is(err, ErrTransactionState) {
			t.Errorf("initialised twice: %v", err)
		}
		if err := p.Send(t.Context(), record, nil); !errors.Is(err, ErrTransactionState) {
			t.Errorf("send outside of a transaction: %v", err)
		}
		if err := p.Abort(t.Context()); !errors.Is(err, ErrTransactionState) {
			t.Errorf("abort outside of a transaction: %v", err)
		}
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		if err := p.Begin(); !errors.Is(err, ErrTransactionState) {
			t.Errorf("begun twice: %v", err)
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Errorf("commit of nothing: %v", err)
		}
		if n := len(f.requests(26)); n != 0 {
			t.Errorf("%d EndTxn for a transaction in which nothing was done", n)
		}
	})
}

// Who initialises an id later fences the one before, whose transaction is undone.
func TestLaterProducerFencesTheOneBefore(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		old := f.producer
		if err := old.Begin(); err != nil {
			t.Fatal(err)
		}
		if _, err := old.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("old")}); err != nil {
			t.Fatal(err)
		}
		young := transactional(t, f.fakeCluster, "x")
		defer closeProducer(t, young)
		if err := young.Begin(); err != nil {
			t.Fatal(err)
		}
		if _, err := young.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("young")}); err != nil {
			t.Fatal(err)
		}
		if err := old.Commit(t.Context()); !errors.Is(err, ErrProducerFenced) {
			t.Errorf("the fenced one commits: %v", err)
		}
		if err := old.Abort(t.Context()); !errors.Is(err, ErrProducerFenced) {
			t.Errorf("the fenced one aborts: %v", err)
		}
		if err := old.Begin(); !errors.Is(err, ErrProducerFenced) {
			t.Errorf("the fenced one begins: %v", err)
		}
		if err := young.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if got, open := f.committed(TopicPartition{"t", 0}); !slices.Equal(got, []string{"young"}) || open > 0 {
			t.Errorf("committed are %v, %d undecided", got, open)
		}
	})
}

// A late answer to a commit must not lose the transaction: called again, Commit tells the outcome.
func TestCommitIsCalledAgainForItsOutcome(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}, nil); err != nil {
			t.Fatal(err)
		}
		f.script(func(_ int32, req kmsg.Request) interference { return interference{cut: req.Key() == 26} })
		short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := p.Commit(short); err == nil {
			t.Fatal("committed without an answer")
		}
		if err := p.Abort(t.Context()); !errors.Is(err, ErrTransactionState) {
			t.Errorf("abort of what may be committed: %v", err)
		}
		f.script(nil)
		if err := p.Commit(t.Context()); err != nil {
			t.Errorf("commit again: %v", err)
		}
		if got, open := f.committed(TopicPartition{"t", 0}); !slices.Equal(got, []string{"v"}) || open > 0 {
			t.Errorf("committed are %v, %d undecided", got, open)
		}
	})
}

// An abort whose end the coordinator has answered, and that was given up while it waited for the epoch, goes on with the epoch: told
// of the end in the old one again the coordinator would take the producer for a fenced one.
func TestAbortIsCalledAgainForTheEpoch(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		defer f.script(nil)                           // or the producer's Close would wait for an epoch
		for round, trouble := range []int16{24, -1} { // the coordinator hears nothing of the first transaction
			f.script(func(_ int32, req kmsg.Request) interference {
				switch req.Key() {
				case 22: // each answer is lost
					return interference{cut: true}
				case trouble:
					return interference{code: int16(ErrConcurrentTransactions)}
				}
				return interference{}
			})
			if err := p.Begin(); err != nil {
				t.Fatal(err)
			}
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for range 2 {
				short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				err := p.Abort(short)
				cancel()
				if lacksEpoch := f.level < 2 && round == 0; (err != nil) != lacksEpoch {
					t.Fatalf("round %d: aborted without an epoch: %v", round, err)
				}
				if err == nil {
					break
				}
			}
			f.script(nil)
			if f.level < 2 && round == 0 {
				if err := p.Abort(t.Context()); err != nil {
					t.Fatalf("abort again: %v", err)
				}
			}
		}
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("w")}, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, open := f.committed(TopicPartition{"t", 0}); !slices.Equal(got, []string{"w"}) || open > 0 {
			t.Errorf("committed are %v, %d undecided", got, open)
		}
	})
}

// A member that the group has put out cannot commit through a transaction: it can only be aborted,
// and the next one is fine.
func TestOffsetsOfAStrangerFailTheTransaction(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		at := map[TopicPartition]OffsetAndMetadata{{"in", 0}: {Offset: 7}}
		if err := p.SendOffsets(t.Context(), at, Membership{Group: "g", MemberID: "m", Generation: 99}); !errors.Is(err, ErrIllegalGeneration) {
			t.Errorf("offsets of an old generation: %v", err)
		}
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, nil); !errors.Is(err, ErrTransactionAborted) {
			t.Errorf("send into a failed transaction: %v", err)
		}
		if err := p.Commit(t.Context()); !errors.Is(err, ErrTransactionAborted) || !errors.Is(err, ErrIllegalGeneration) {
			t.Errorf("commit of a failed transaction: %v", err)
		}
		if err := p.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		if err := p.SendOffsets(t.Context(), at, Membership{Group: "g", MemberID: "m", Generation: 3}); err != nil {
			t.Error(err)
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if got := f.coordinator.commits["g"][TopicPartition{"in", 0}]; got != 7 {
			t.Errorf("committed offset %d", got)
		}
	})
}

// Positions of which nobody knows whether they were added are not left out by a Commit.
func TestOffsetsOfUnknownOutcomeFailTheTransaction(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		f.script(func(_ int32, req kmsg.Request) interference { return interference{silent: req.Key() == 28} })
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, nil); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		at := map[TopicPartition]OffsetAndMetadata{{"in", 0}: {Offset: 7}}
		if err := p.SendOffsets(short, at, Membership{Group: "g", Generation: -1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("offsets: %v", err)
		}
		f.script(nil)
		if err := p.Commit(t.Context()); !errors.Is(err, ErrTransactionAborted) {
			t.Errorf("commit: %v", err)
		}
		if err := p.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		if got, open := f.committed(TopicPartition{"t", 0}); len(got) > 0 || open > 0 {
			t.Errorf("committed is %q, %d batches undecided", got, open)
		}
	})
}

// A record that Send does not take is missing in the transaction, which therefore cannot be committed.
func TestRecordsThatAreNotTakenFailTheTransaction(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		over, cancel := context.WithCancel(t.Context())
		cancel()
		for what, send := range map[string]func() error{
			"too large":     func() error { return p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 2<<20)}, nil) },
			"no partition":  func() error { return p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(7)}, nil) },
			"no topic":      func() error { return p.Send(t.Context(), ProducerRecord{}, nil) },
			"ctx has ended": func() error { return p.Send(over, ProducerRecord{Topic: "t"}, nil) },
		} {
			if err := p.Begin(); err != nil {
				t.Fatal(err)
			}
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("one of two")}, nil); err != nil {
				t.Fatal(err)
			}
			why := send()
			if why == nil {
				t.Errorf("%s: it was taken", what)
			}
			if err := p.Commit(t.Context()); !errors.Is(err, ErrTransactionAborted) || !strings.Contains(err.Error(), errors.Unwrap(why).Error()) {
				t.Errorf("%s (%v): commit: %v", what, why, err)
			}
			if err := p.Abort(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got, open := f.committed(TopicPartition{"t", 0}); len(got) > 0 || open > 0 {
			t.Errorf("committed is %q, %d batches undecided", got, open)
		}
	})
}

// A consumer that the group has put out, and that has not heard of it in Poll yet, adds nothing to a transaction: others
// may have read its records already. Without an identity the coordinator would not look who it is.
func TestOffsetsOfALostMemberFailTheTransaction(t *testing.T) {
	for _, next := range []bool{false, true} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			tp := TopicPartition{"t", 0}
			f.topic("t", 1)
			x := f.transactions(2)
			if next {
				f.consumerGroup()
			} else {
				f.groups(quickGroups())
			}
			p := transactional(t, f, "x")
			defer closeProducer(t, p)
			m := f.member(t, NoAutoCommit())
			if err := m.g.Subscribe("t"); err != nil {
				t.Fatal(err)
			}
			f.write(tp, batch.BuilderOptions{}, values(0, 3)...)
			poll(t, m.g, 3)
			at := map[TopicPartition]OffsetAndMetadata{tp: {Offset: 3}}
			begin := func() {
				t.Helper()
				if err := p.Begin(); err != nil {
					t.Fatal(err)
				}
			}
			begin()
			if err := p.SendOffsets(t.Context(), at, m.g.Membership()); err != nil {
				t.Fatal(err)
			}
			if err := p.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			begin()
			f.script(func(_ int32, req kmsg.Request) interference {
				if req.Key() == 12 || req.Key() == 68 {
					return interference{code: int16(ErrUnknownMemberID)}
				}
				return interference{}
			})
			time.Sleep(time.Minute)
			synctest.Wait()
			at[tp] = OffsetAndMetadata{Offset: 9}
			if err := p.SendOffsets(t.Context(), at, m.g.Membership()); !errors.Is(err, ErrUnknownMemberID) {
				t.Errorf("offsets of a member that is none: %v", err)
			}
			if err := p.Commit(t.Context()); !errors.Is(err, ErrTransactionAborted) {
				t.Errorf("commit: %v", err)
			}
			if err := p.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			if got := x.commits["g"][tp]; got != 3 {
				t.Errorf("the group's position is %d", got)
			}
			f.script(nil)
			m.start()
			m.end()
		})
	}
}

// Trap 20: numbers that the leader refuses fail the transaction; they never begin anew within it,
// which would commit it with a hole.
func TestTrap20RefusedNumbersFailTheTransaction(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		send := func(v string) error {
			_, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)})
			return err
		}
		if err := errors.Join(p.Begin(), send("a")); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		for _, s := range f.only.partitions[0].producers {
			s.last = []batchSpan{{sequence: 700, count: 1}} // the leader has lost what it knew
		}
		f.mu.Unlock()
		if err := send("b"); !errors.Is(err, ErrOutOfOrderSequenceNumber) || errors.Is(err, ErrDeliveryTimeout) {
			t.Errorf("the refused record: %v", err)
		}
		if err := p.Commit(t.Context()); !errors.Is(err, ErrTransactionAborted) {
			t.Errorf("commit: %v", err)
		}
		if err := p.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		if err := errors.Join(p.Begin(), send("c"), p.Commit(t.Context())); err != nil {
			t.Error(err)
		}
		log := f.only.partitions[0].batches
		last := log[len(log)-1]
		if got, _ := f.committed(TopicPartition{"t", 0}); !slices.Equal(got, []string{"c"}) || last.BaseSequence() != 0 || last.ProducerEpoch() <= log[0].ProducerEpoch() {
			t.Errorf("committed are %v; the last batch has sequence %d of epoch %d", got, last.BaseSequence(), last.ProducerEpoch())
		}
	})
}

// Close undoes a transaction that a program has left open, so that nobody waits for its timeout.
func TestCloseAbortsTheOpenTransaction(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		f.transactions(2)
		p := transactional(t, f, "x", Linger(time.Hour), DeliveryTimeout(2*time.Hour))
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		for _, v := range []string{"sent", "waiting"} {
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)}, nil); err != nil {
				t.Fatal(err)
			}
			if v == "sent" {
				if err := p.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		closeProducer(t, p)
		got, open := f.committed(TopicPartition{"t", 0})
		if len(got) > 0 || open > 0 || len(topic.partitions[0].batches) != 1 {
			t.Errorf("committed are %v, %d undecided of %d batches", got, open, len(topic.partitions[0].batches))
		}
	})
}

// In the first protocol the epoch and the numbers go on from one transaction to the next; in the
// second each transaction has an epoch of its own (KIP-890).
func TestEpochOfTransactions(t *testing.T) {
	inEachProtocol(t, func(t *testing.T, f *transactionalCluster) {
		p := f.producer
		for range 3 {
			err := p.Begin()
			if err == nil {
				_, err = p.SendSync(t.Context(), ProducerRecord{Topic: "t"})
			}
			if err == nil {
				err = p.Commit(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, b := range f.only.partitions[0].batches {
			got = append(got, fmt.Sprintf("%d/%d", b.ProducerEpoch(), b.BaseSequence()))
		}
		want := []string{"0/0", "0/1", "0/2"}
		if f.level >= 2 {
			want = []string{"0/0", "1/0", "2/0"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("epochs and sequences %v, expected %v", got, want)
		}
		told := len(f.requests(24))
		if (told > 0) != (f.level < 2) {
			t.Errorf("%d requests that name partitions", told)
		}
	})
}
