package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// testMember is a program in a group: it polls, and writes down what it is told.
type testMember struct {
	t     *testing.T
	g     *GroupConsumer
	c     *Client
	stop  context.CancelFunc
	ended chan struct{}
	err   error // of the last Poll

	mu      sync.Mutex
	owned   map[TopicPartition]bool
	events  []string
	read    map[TopicPartition][]int64 // offsets
	dead    bool
	conns   []net.Conn
	commits bool // after every Poll
	journal *journal
}

// join starts a member that reads topic "t" from the earliest offset.
func (f *fakeCluster) join(t *testing.T, options ...GroupOption) *testMember {
	t.Helper()
	m := f.member(t, options...)
	if err := m.g.Subscribe("t"); err != nil {
		t.Fatal(err)
	}
	m.start()
	return m
}

func (f *fakeCluster) member(t *testing.T, options ...GroupOption) *testMember {
	t.Helper()
	m := &testMember{t: t, owned: map[TopicPartition]bool{}, read: map[TopicPartition][]int64{}, ended: make(chan struct{})}
	m.c = f.client(Dialer(m.dialer(f)), MetadataMaxAge(10*time.Second), RequestTimeout(10*time.Second))
	told := func(what string, add bool) Rebalance {
		return func(ctx context.Context, g *GroupConsumer, partitions []TopicPartition) {
			m.told(ctx, what, add, partitions)
		}
	}
	protocol := []GroupOption{SessionTimeout(6 * time.Second), HeartbeatInterval(time.Second)}
	if f.mu.consumerGroup != nil {
		protocol = []GroupOption{GroupProtocol(ConsumerProtocol)}
	}
	options = slices.Concat(protocol, []GroupOption{
		AutoOffsetReset(Earliest), OnAssigned(told("assigned", true)), OnRevoked(told("revoked", false)), OnLost(told("lost", false)),
	}, options)
	g, err := m.c.NewGroupConsumer("g", options...)
	if err != nil {
		t.Fatal(err)
	}
	m.g = g
	return m
}

func (m *testMember) dialer(f *fakeCluster) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := f.dial(ctx, address)
		m.mu.Lock()
		defer m.mu.Unlock()
		if err == nil && m.dead {
			c.Close()
			return nil, errors.New("cut off")
		}
		if err == nil {
			m.conns = append(m.conns, c)
		}
		return c, err
	}
}

func (m *testMember) told(ctx context.Context, what string, add bool, partitions []TopicPartition) {
	m.mu.Lock()
	m.events = append(m.events, fmt.Sprint(what, " ", partitions))
	commits := m.commits
	m.mu.Unlock()
	if what == "revoked" && commits {
		m.commit(ctx)
	}
	m.mu.Lock()
	for _, tp := range partitions {
		if add {
			m.owned[tp] = true
			m.read[tp] = nil
		} else {
			delete(m.owned, tp)
		}
		if add && m.journal != nil {
			m.journal.begins(tp)
		}
	}
	m.mu.Unlock()
}

func (m *testMember) start() {
	ctx, stop := context.WithCancel(m.t.Context())
	m.stop = stop
	go func() {
		defer close(m.ended)
		for {
			records, err := m.g.Poll(ctx)
			if err != nil {
				m.err = err
				return
			}
			m.take(records)
			m.mu.Lock()
			commits := m.commits
			m.mu.Unlock()
			if commits {
				m.commit(ctx)
			}
		}
	}()
}

func (m *testMember) take(records []Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range records {
		r := &records[i]
		tp := r.TopicPartition()
		if !m.owned[tp] {
			m.t.Errorf("a record of %v, which is not assigned", tp)
		}
		m.read[tp] = append(m.read[tp], r.Offset)
		if m.journal != nil {
			m.journal.delivered(m, tp, r.Offset, len(m.read[tp]) == 1)
		}
	}
}

func (m *testMember) commit(ctx context.Context) {
	offsets := m.g.positions(m.g.Assignment())
	if m.journal != nil {
		m.journal.attempted(offsets)
	}
	if err := m.g.CommitOffsets(ctx, offsets); err == nil && m.journal != nil {
		m.journal.committed(offsets)
	}
}

// end leaves the group.
func (m *testMember) end() {
	m.stop()
	<-m.ended
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.g.Close(ctx); err != nil && !m.dead {
		m.t.Errorf("close: %v", err)
	}
	_ = m.c.Close()
}

// kill cuts a member off for good, as kill -9 does; it goes on believing.
func (m *testMember) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	for _, c := range m.conns {
		c.Close()
	}
}

func (m *testMember) owns() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owned)
}

func (m *testMember) happened() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.events, "; ")
}

// A client that is closed under a member ends its connections, too.
func TestClientClosedBeforeItsMember(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.groups(quickGroups())
		f.topic("t", 1)
		m := f.join(t)
		settle(t, m, 1)
		_ = m.c.Close()
		for i, c := range m.conns {
			if _, err := c.Write([]byte{0}); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("connection %d of %d is open: %v", i, len(m.conns), err)
			}
		}
		<-m.ended
		if !errors.Is(m.err, ErrClosed) {
			t.Errorf("poll: %v", m.err)
		}
		if err := m.g.Close(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
}

// journal is what all members of a group together read and committed, for the check that each goes
// on exactly where the group committed.
type journal struct {
	t    *testing.T
	seed uint64
	mu   sync.Mutex
	sure map[TopicPartition]int64 // committed for certain
	most map[TopicPartition]int64 // perhaps committed
	from map[TopicPartition]int64 // sure when the partition was assigned last
	seen map[TopicPartition]map[int64]bool
}

func newJournal(t *testing.T, seed uint64) *journal {
	return &journal{
		t: t, seed: seed, sure: map[TopicPartition]int64{}, most: map[TopicPartition]int64{},
		from: map[TopicPartition]int64{}, seen: map[TopicPartition]map[int64]bool{},
	}
}

func (j *journal) begins(tp TopicPartition) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.from[tp] = j.sure[tp]
}

func (j *journal) attempted(offsets map[TopicPartition]OffsetAndMetadata) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for tp, o := range offsets {
		j.most[tp] = max(j.most[tp], o.Offset)
	}
}

func (j *journal) committed(offsets map[TopicPartition]OffsetAndMetadata) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for tp, o := range offsets {
		j.sure[tp] = max(j.sure[tp], o.Offset)
	}
}

func (j *journal) delivered(m *testMember, tp TopicPartition, offset int64, first bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if read := m.read[tp]; len(read) > 1 && offset != read[len(read)-2]+1 {
		j.t.Errorf("seed %d: %v: offset %d after %d", j.seed, tp, offset, read[len(read)-2])
	}
	if first && !m.dead && (offset < j.from[tp] || offset > j.most[tp]) {
		j.t.Errorf("seed %d: %v: begins at %d; committed is at least %d, at most %d", j.seed, tp, offset, j.from[tp], j.most[tp])
	}
	if j.seen[tp] == nil {
		j.seen[tp] = map[int64]bool{}
	}
	j.seen[tp][offset] = true
}

// Whatever happens to members, requests and the coordinator, every record is read, and each member
// begins exactly where the group has committed.
func TestGroupsGoOnWhereTheyCommitted(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) {
				sets := [][]Assignor{{CooperativeStickyAssignor}, {RangeAssignor, CooperativeStickyAssignor}, {StickyAssignor}, {RoundRobinAssignor, RangeAssignor}}
				goOnWhereCommitted(t, f, seed, f.groups(quickGroups()).move, Assignors(sets[seed%uint64(len(sets))]...))
			})
		})
	}
}

func goOnWhereCommitted(t *testing.T, f *fakeCluster, seed uint64, move func(node int32), options ...GroupOption) {
	rng := rand.New(rand.NewPCG(seed, 1))
	noise := rand.New(rand.NewPCG(seed, 2))
	const partitions = 6
	f.topic("t", partitions)
	codes := []Error{ErrCoordinatorNotAvailable, ErrCoordinatorLoadInProgress, ErrNotCoordinator, ErrUnknownServerError}
	quiet := time.Now().Add(time.Minute)
	f.script(func(_ int32, req kmsg.Request) interference {
		f.mu.Lock()
		draw, code := noise.IntN(60), codes[noise.IntN(len(codes))]
		f.mu.Unlock()
		group := req.Key() >= 8 && req.Key() <= 14 || req.Key() == 68
		switch {
		case time.Now().After(quiet) || req.Key() == 18:
		case draw == 0:
			return interference{drop: true}
		case draw == 1:
			return interference{cut: true}
		case draw == 2 && group:
			return interference{code: int16(code)}
		case draw == 3:
			return interference{delay: time.Duration(noise.IntN(2000)) * time.Millisecond}
		}
		return interference{}
	})
	j := newJournal(t, seed)
	options = append(options, NoAutoCommit(), MaxPollRecords(1+rng.IntN(20)), MaxPollInterval(20*time.Second))
	var live, all []*testMember
	enter := func() {
		m := f.member(t, options...)
		m.commits, m.journal = true, j
		if err := m.g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		m.start()
		live, all = append(live, m), append(all, m)
	}
	enter()
	written := 0
	for time.Now().Before(quiet) {
		for range rng.IntN(10) {
			v := values(written, written+1+rng.IntN(10))
			f.write(TopicPartition{"t", int32(rng.IntN(partitions))}, batch.BuilderOptions{}, v...)
			written += len(v)
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		switch i := rng.IntN(max(len(live), 1)); rng.IntN(8) {
		case 0, 1:
			if len(live) < 5 {
				enter()
			}
		case 2:
			if len(live) > 1 {
				live[i].end()
				live = slices.Delete(live, i, i+1)
			}
		case 3:
			if len(live) > 1 {
				live[i].kill()
				live = slices.Delete(live, i, i+1)
			}
		case 4:
			move(int32(1 + rng.IntN(3)))
		}
	}
	deadline := time.Now().Add(10 * time.Minute)
	for {
		time.Sleep(time.Second)
		count := 0
		j.mu.Lock()
		for _, offsets := range j.seen {
			count += len(offsets)
		}
		j.mu.Unlock()
		owned := 0
		for _, m := range live {
			owned += m.owns()
		}
		if count == written && owned == partitions {
			break
		}
		if time.Now().After(deadline) {
			for i, m := range live {
				t.Logf("member %d: %s; its poll: %v", i, m.happened(), m.err)
			}
			t.Fatalf("seed %d: %d of %d records read, %d of %d partitions owned", seed, count, written, owned, partitions)
		}
	}
	for _, m := range all {
		if m.dead || slices.Contains(live, m) {
			m.end()
		}
	}
}

// settle waits until members own so many partitions.
func settle(t *testing.T, want ...any) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		ok := true
		for i := 0; i < len(want); i += 2 {
			ok = ok && want[i].(*testMember).owns() == want[i+1].(int)
		}
		if ok {
			synctest.Wait()
			return
		}
		if time.Now().After(deadline) {
			for i := 0; i < len(want); i += 2 {
				t.Errorf("member %d owns %d, expected %d: %s", i/2, want[i].(*testMember).owns(), want[i+1], want[i].(*testMember).happened())
			}
			t.FailNow()
		}
	}
}

// A cooperative rebalance takes away what moves; an eager one everything.
func TestEagerAndCooperativeRebalances(t *testing.T) {
	for _, c := range []struct {
		assignors []Assignor
		want      string
	}{
		{[]Assignor{CooperativeStickyAssignor}, "assigned [t-0 t-1 t-2 t-3]; revoked [t-2 t-3]; assigned []; assigned []"},
		{[]Assignor{RangeAssignor, CooperativeStickyAssignor}, "assigned [t-0 t-1 t-2 t-3]; revoked [t-0 t-1 t-2 t-3]; assigned [t-0 t-1]"},
		{[]Assignor{StickyAssignor}, "assigned [t-0 t-1 t-2 t-3]; revoked [t-0 t-1 t-2 t-3]; assigned [t-0 t-1]"},
	} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 4)
			f.groups(quickGroups())
			a := f.join(t, Assignors(c.assignors...), InstanceID("a"))
			settle(t, a, 4)
			b := f.join(t, Assignors(c.assignors...), InstanceID("b"))
			settle(t, a, 2, b, 2)
			time.Sleep(5 * time.Second)
			if got := a.happened(); got != c.want {
				t.Errorf("%v: %s", c.assignors, got)
			}
			a.end()
			b.end()
		})
	}
}

// A running group changes from eager to cooperative: all members get both assignors, then it alone.
func TestGroupChangesOverToCooperative(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 4)
		f.groups(quickGroups())
		old, both, only := []Assignor{RangeAssignor}, []Assignor{CooperativeStickyAssignor, RangeAssignor}, []Assignor{CooperativeStickyAssignor}
		a, b := f.join(t, Assignors(old...)), f.join(t, Assignors(old...))
		settle(t, a, 2, b, 2)
		for _, next := range [][]Assignor{both, only} {
			a.end()
			a = f.join(t, Assignors(next...))
			settle(t, a, 2, b, 2)
			b.end()
			b = f.join(t, Assignors(next...))
			settle(t, a, 2, b, 2)
		}
		c := f.join(t, Assignors(only...))
		settle(t, a, 2, b, 1, c, 1)
		a.end()
		b.end()
		c.end()
	})
}

// Heartbeats go on while the program works, up to max.poll.interval.ms; then it gives its
// partitions up, and gets some again when it polls.
func TestStuckProgramGivesItsPartitionsUp(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		f.groups(quickGroups())
		f.write(TopicPartition{"t", 0}, batch.BuilderOptions{}, "v")
		stuck := f.member(t, MaxPollInterval(30*time.Second), NoAutoCommit())
		if err := stuck.g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		poll(t, stuck.g, 1)
		other := f.join(t, MaxPollInterval(30*time.Second))
		time.Sleep(25 * time.Second) // four sessions long
		if got := stuck.happened(); got != "assigned [t-0 t-1]" || other.owns() != 0 {
			t.Errorf("before the interval: %s; the other owns %d", got, other.owns())
		}
		time.Sleep(10 * time.Second)
		if other.owns() != 2 {
			t.Errorf("after the interval the other owns %d", other.owns())
		}
		if err := stuck.g.Commit(t.Context()); !errors.Is(err, ErrUnknownMemberID) {
			t.Errorf("commit of a member that has left: %v", err)
		}
		stuck.start()
		settle(t, stuck, 1, other, 1)
		if got := stuck.happened(); !strings.HasPrefix(got, "assigned [t-0 t-1]; lost [t-0 t-1]; assigned [t-") {
			t.Errorf("back again: %s", got)
		}
		stuck.end()
		other.end()
	})
}

// A static member that comes back within its session gets its partitions without a rebalance; a
// second one with its id ends the first.
func TestStaticMembers(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 4)
		f.groups(quickGroups())
		a := f.join(t, InstanceID("a"), SessionTimeout(30*time.Second))
		settle(t, a, 4)
		b := f.join(t, InstanceID("b"), SessionTimeout(30*time.Second))
		settle(t, a, 2, b, 2)
		before := a.happened()
		b.end()
		time.Sleep(10 * time.Second)
		b = f.join(t, InstanceID("b"), SessionTimeout(30*time.Second))
		settle(t, b, 2)
		time.Sleep(10 * time.Second)
		if got := a.happened(); got != before {
			t.Errorf("a heard of it: %s", got)
		}
		again := f.join(t, InstanceID("b"), SessionTimeout(30*time.Second))
		settle(t, again, 2)
		time.Sleep(5 * time.Second)
		select {
		case <-b.ended:
		default:
			t.Fatal("two members with one instance id")
		}
		if !errors.Is(b.err, ErrFencedInstanceID) || b.owns() != 0 {
			t.Errorf("the first one: %v, owns %d", b.err, b.owns())
		}
		b.end()
		again.end()
		a.end()
	})
}

// More partitions, and topics that are made later, come by themselves.
func TestNewPartitionsAndTopicsAreFound(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.groups(quickGroups())
		a := f.join(t)
		b := f.member(t)
		if err := b.g.SubscribeMatching(regexp.MustCompile("t|u.")); err != nil {
			t.Fatal(err)
		}
		b.start()
		time.Sleep(5 * time.Second)
		f.topic("t", 2)
		settle(t, a, 1, b, 1)
		f.mu.Lock()
		f.mu.topics["t"].partitions = append(f.mu.topics["t"].partitions,
			&fakePartition{leader: 1, producers: map[int64]*fakeProducer{}}, &fakePartition{leader: 1, producers: map[int64]*fakeProducer{}})
		f.mu.Unlock()
		settle(t, a, 2, b, 2)
		f.topic("u1", 3)
		f.topic("other", 3)
		settle(t, a, 2, b, 5)
		a.end()
		settle(t, b, 7)
		if err := b.g.Subscribe("u1"); err != nil {
			t.Fatal(err)
		}
		settle(t, b, 3)
		if err := b.g.Subscribe(); err != nil {
			t.Fatal(err)
		}
		settle(t, b, 0)
		b.end()
	})
}

// What a program is told to give up it may finish and commit first, and the next owner begins there.
func TestRevokedPartitionsAreCommittedFirst(t *testing.T) {
	for _, automatic := range []bool{true, false} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 2)
			f.groups(quickGroups())
			options := []GroupOption{AutoCommit(time.Hour), Assignors(CooperativeStickyAssignor)}
			if !automatic {
				options[0] = NoAutoCommit()
			}
			a := f.join(t, append(options, OnRevoked(func(ctx context.Context, g *GroupConsumer, partitions []TopicPartition) {
				time.Sleep(20 * time.Second) // longer than a session
				if automatic {
					return
				}
				if err := g.Commit(ctx); err != nil {
					t.Errorf("commit while revoked: %v", err)
				}
			}))...)
			for n := range int32(2) {
				f.write(TopicPartition{"t", n}, batch.BuilderOptions{}, values(0, 3)...)
			}
			time.Sleep(time.Second)
			b := f.join(t, options...)
			settle(t, b, 1)
			f.write(TopicPartition{"t", 0}, batch.BuilderOptions{}, "next")
			f.write(TopicPartition{"t", 1}, batch.BuilderOptions{}, "next")
			time.Sleep(time.Second)
			b.mu.Lock()
			for tp, read := range b.read {
				if !slices.Equal(read, []int64{3}) {
					t.Errorf("automatic %v: %v: the next owner read %v", automatic, tp, read)
				}
			}
			b.mu.Unlock()
			a.end()
			b.end()
		})
	}
}

func TestCommitsOfAllKinds(t *testing.T) {
	tp, other := TopicPartition{"t", 0}, TopicPartition{"t", 1}
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		groups := f.groups(quickGroups())
		a := f.member(t, NoAutoCommit())
		if err := a.g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		f.lead(tp, 2)
		f.lead(tp, 1)
		f.write(tp, batch.BuilderOptions{}, values(0, 5)...)
		poll(t, a.g, 5)
		groups.move(2) // the old coordinator says so
		if err := a.g.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := a.g.Committed(t.Context(), tp, other)
		if err != nil || got[tp] != (OffsetAndMetadata{Offset: 5, LeaderEpoch: InEpoch(2)}) {
			t.Errorf("%+v, %v", got, err)
		}
		want := OffsetAndMetadata{Offset: 3, Metadata: "by hand"}
		if err := a.g.CommitOffsets(t.Context(), map[TopicPartition]OffsetAndMetadata{tp: want}); err != nil {
			t.Fatal(err)
		}
		if got, err = a.g.Committed(t.Context(), tp); err != nil || got[tp] != want {
			t.Errorf("%+v, %v", got, err)
		}
		order := make(chan int64, 10)
		for n := range int64(10) {
			a.g.CommitAsync(map[TopicPartition]OffsetAndMetadata{tp: {Offset: n}}, func(o map[TopicPartition]OffsetAndMetadata, err error) {
				if err != nil {
					t.Errorf("async %d: %v", n, err)
				}
				order <- o[tp].Offset
			})
		}
		if err := a.g.Commit(t.Context()); err != nil { // behind them
			t.Fatal(err)
		}
		for n := range int64(10) {
			if got := <-order; got != n {
				t.Errorf("commit %d was done in the place of %d", got, n)
			}
		}
		if got, err = a.g.Committed(t.Context(), tp); err != nil || got[tp].Offset != 5 {
			t.Errorf("an older commit came after a newer one: %+v, %v", got, err)
		}
		var part *PartitionError
		long := OffsetAndMetadata{Offset: 1, Metadata: strings.Repeat("x", 5000)}
		err = a.g.CommitOffsets(t.Context(), map[TopicPartition]OffsetAndMetadata{tp: long, other: {Offset: 1}})
		if !errors.Is(err, ErrOffsetMetadataTooLarge) || !errors.As(err, &part) || part.TopicPartition != tp {
			t.Errorf("metadata that is too long: %v", err)
		}
		a.start()
		a.end()
	})
}

// Offsets are always asked for as stable ones: what a transaction is about to commit must not be
// read over during a rebalance.
func TestTrap25OffsetsAreFetchedStable(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		f.groups(quickGroups())
		first := true
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() == 9 && first {
				first = false
				return interference{edit: func(resp kmsg.Response) {
					p := resp.(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions
					p[0].ErrorCode, p[0].Offset = int16(ErrUnstableOffsetCommit), -1
				}}
			}
			return interference{}
		})
		a := f.join(t)
		f.write(TopicPartition{"t", 0}, batch.BuilderOptions{}, "v")
		time.Sleep(5 * time.Second)
		a.mu.Lock()
		if len(a.read[TopicPartition{"t", 0}]) != 1 {
			t.Errorf("read %v", a.read)
		}
		a.mu.Unlock()
		asked := f.requests(9)
		if len(asked) < 2 {
			t.Errorf("%d requests: an unstable offset was taken for none", len(asked))
		}
		for _, s := range asked {
			if !s.req.(*kmsg.OffsetFetchRequest).RequireStable {
				t.Error("not stable")
			}
		}
		a.end()
	})
}

func TestNoResetReportsThatNothingIsCommitted(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		a := f.join(t, NoAutoOffsetReset())
		<-a.ended
		var part *PartitionError
		if !errors.Is(a.err, ErrNoOffset) || !errors.As(a.err, &part) {
			t.Errorf("error %v", a.err)
		}
		a.end()
	})
}

// A member that was taken for dead hears that it lost what it had, and comes back.
func TestLostMembership(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		f.groups(quickGroups())
		a := f.join(t, NoAutoCommit())
		settle(t, a, 2)
		cut := time.Now()
		f.script(func(_ int32, req kmsg.Request) interference {
			return interference{drop: req.Key() == 12 && time.Since(cut) < 10*time.Second}
		})
		time.Sleep(15 * time.Second)
		settle(t, a, 2)
		if got := a.happened(); got != "assigned [t-0 t-1]; lost [t-0 t-1]; assigned [t-0 t-1]" {
			t.Errorf("%s", got)
		}
		a.end()
	})
}

func TestGroupOptionsThatDoNotFitAreRefused(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, o := range map[string]GroupOption{
		"heartbeat": HeartbeatInterval(time.Hour), "session": SessionTimeout(0), "assignor": Assignors("fair"), "no assignor": Assignors(),
		"instance": InstanceID(""), "auto commit": AutoCommit(0), "fetch": FetchMaxWait(-1),
	} {
		if _, err := c.NewGroupConsumer("g", o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := c.NewGroupConsumer(""); !errors.Is(err, ErrInvalidGroupID) {
		t.Errorf("no group: %v", err)
	}
}

// A topic that is made again while a group reads it is read from its own start; nobody has to decide.
func TestTrap26GroupsReadTheTopicThatWasMadeAgain(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		f.write(tp, batch.BuilderOptions{}, values(0, 9)...)
		a := f.join(t, Assignors(CooperativeStickyAssignor), NoAutoCommit())
		settle(t, a, 1)
		time.Sleep(5 * time.Second)
		f.topic("t", 1)
		f.write(tp, batch.BuilderOptions{}, values(9, 11)...)
		time.Sleep(30 * time.Second)
		a.mu.Lock()
		if got := a.read[tp]; len(got) < 2 || !slices.Equal(got[len(got)-2:], []int64{0, 1}) || a.err != nil {
			t.Errorf("read %v, then %v", got, a.err)
		}
		a.mu.Unlock()
		a.end()
	})
}
