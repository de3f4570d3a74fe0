package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// recorder is a Machine that keeps an image, and remembers what it was told.
type recorder struct {
	loader *metadata.Loader
	mu     sync.Mutex
	ids    map[uint64]int64 // proposal to offset
	last   int64
	lead   metadata.Leadership
	ready  chan metadata.Leadership
	taken  int                      // snapshots taken over
	saw    func(metadata.Committed) // optional, as is led
	led    func(metadata.Leadership)
}

func newRecorder() *recorder {
	return &recorder{
		loader: metadata.NewLoader(), ids: map[uint64]int64{}, last: -1,
		ready: make(chan metadata.Leadership, 64),
	}
}

func (r *recorder) Apply(c metadata.Committed) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Offset != r.last+1 {
		return fmt.Errorf("offset %d applied after %d", c.Offset, r.last)
	}
	r.last = c.Offset
	if r.saw != nil {
		r.saw(c)
	}
	if c.Proposal != 0 {
		r.ids[c.Proposal] = c.Offset
	}
	return r.loader.Apply(context.Background(), c)
}

func (r *recorder) Restore(s metadata.Snapshot) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = s.Offset
	r.taken++
	return r.loader.Restore(context.Background(), s)
}

func (r *recorder) Leadership(l metadata.Leadership) {
	r.mu.Lock()
	r.lead = l
	r.mu.Unlock()
	if r.led != nil {
		r.led(l)
	}
	if l.Mine {
		select {
		case r.ready <- l:
		default: // nobody waits for it
		}
	}
}

func (r *recorder) snapshots() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}

func (r *recorder) Snapshot() metadata.Snapshot { return r.loader.Image().Snapshot() }

func (r *recorder) offsetOf(id uint64) (int64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.ids[id]
	return at, ok
}

// node is one voter over a memory disk.
type node struct {
	t       *testing.T
	dir     *commitlog.Dir
	q       *Quorum
	machine *recorder
	lead    metadata.Leadership
	fatal   chan error
}

func start(t *testing.T, fs disk.FS, seed uint64, change func(*Options)) *node {
	t.Helper()
	n := &node{t: t, machine: newRecorder(), fatal: make(chan error, 1)}
	var err error
	n.dir, err = commitlog.OpenDir(t.Context(), commitlog.DirOptions{FS: fs, Path: "/meta", NodeID: 1, ClusterID: "c", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("seed %d: open directory: %v", seed, err)
	}
	o := Options{
		FS: fs, Dir: n.dir, Log: commitlog.DefaultConfig(), NodeID: 1, Machine: n.machine, Now: time.Now, Seed: seed,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { n.fatal <- err },
	}
	o.Log.Delete = false
	if change != nil {
		change(&o)
	}
	if n.q, err = Open(t.Context(), o); err != nil {
		t.Fatalf("seed %d: open quorum: %v", seed, err)
	}
	select {
	case n.lead = <-n.machine.ready:
	case err := <-n.fatal:
		t.Fatalf("seed %d: quorum failed: %v", seed, err)
	}
	return n
}

func (n *node) close() {
	n.t.Helper()
	if err := n.q.Close(); err != nil {
		n.t.Fatal(err)
	}
	if err := n.dir.Close(); err != nil && !errors.Is(err, disk.ErrPowerLost) && !errors.Is(err, commitlog.ErrOffline) {
		n.t.Fatal(err)
	}
}

func topicRecord(n int) metadata.Record {
	var id metadata.UUID
	id[0], id[1], id[2] = 7, byte(n>>8), byte(n)
	return &metadata.TopicRecord{Name: fmt.Sprintf("topic-%05d", n), Id: id.Bytes()}
}

func (n *node) propose(i int) uint64 {
	n.t.Helper()
	id, err := n.q.Propose(n.lead.Epoch, []metadata.Record{topicRecord(i)})
	if err != nil {
		select {
		case cause := <-n.fatal:
			n.t.Fatalf("propose %d: %v, because of %v", i, err, cause)
		default:
			n.t.Fatalf("propose %d: %v", i, err)
		}
	}
	return id
}

func TestProposalsAreAppliedInOrderUnderTheirIDs(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		n := start(t, disk.NewMem(), 1, nil)
		defer n.close()
		var ids []uint64
		for i := range 300 {
			ids = append(ids, n.propose(i))
		}
		synctest.Wait()
		before := int64(-1)
		for i, id := range ids {
			at, ok := n.machine.offsetOf(id)
			if !ok || at <= before {
				t.Fatalf("proposal %d (id %d): applied %v at offset %d, the one before at %d", i, id, ok, at, before)
			}
			before = at
		}
		if got := n.machine.loader.Image().TopicCount(); got != 300 {
			t.Fatalf("%d topics, want 300", got)
		}
		if s := n.q.Status(); s.Leader != 1 || s.HighWatermark != before+1 || s.Voters[0].LogEnd != before+1 {
			t.Fatalf("status %+v, want leader 1 and everything below %d committed", s, before+1)
		}
	})
}

func TestCommittedEntriesSurviveCrash(t *testing.T) {
	for seed := range uint64(150) {
		faketime.Test(t, func(t *testing.T) {
			mem := disk.NewMem()
			committed, next := 0, 0
			for round := range 4 {
				n := start(t, mem, seed, func(o *Options) { o.SnapshotBytes = 2000 + int64(seed%7)*4000 })
				if got := n.machine.loader.Image().TopicCount(); got < committed || got > next {
					t.Fatalf("seed %d round %d: %d topics after the crash, %d were committed and %d proposed", seed, round, got, committed, next)
				}
				next = n.machine.loader.Image().TopicCount() // topics are proposed in order: a prefix survived
				for range 5 + int(seed%40) {
					n.propose(next)
					next++
				}
				if round%2 == 0 {
					synctest.Wait()
				}
				committed = n.machine.loader.Image().TopicCount()
				mem = mem.Crash(seed*10 + uint64(round))
				n.close()
			}
		})
	}
}

func TestSnapshotReplacesTheLog(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		change := func(o *Options) { o.SnapshotBytes, o.Log.SegmentBytes = 4000, 2000 }
		n := start(t, mem, 3, change)
		for i := range 400 {
			n.propose(i)
			if i%20 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if start := n.q.st.log.Progress().Start; start == 0 {
			t.Fatalf("the log still begins at offset 0 after %d bytes", n.q.st.log.Size())
		}
		n.close()
		again := start(t, mem, 4, change)
		defer again.close()
		if got := again.machine.loader.Image().TopicCount(); got != 400 {
			t.Fatalf("%d topics after a restart from the snapshot, want 400", got)
		}
	})
}

func TestOnlyTheLeaderOfTheEpochMayPropose(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		n := start(t, disk.NewMem(), 5, nil)
		defer n.close()
		if _, err := n.q.Propose(n.lead.Epoch+1, []metadata.Record{topicRecord(1)}); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("propose in a later epoch: %v, want %v", err, ErrNotLeader)
		}
		if _, err := n.q.Propose(n.lead.Epoch-1, []metadata.Record{topicRecord(1)}); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("propose in an earlier epoch: %v, want %v", err, ErrNotLeader)
		}
	})
}

func TestFullDiskRefusesChangesAndRecovers(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		n := start(t, mem, 6, nil)
		defer n.close()
		n.propose(0)
		synctest.Wait()
		avail, total, err := mem.Free("/meta")
		if err != nil {
			t.Fatal(err)
		}
		mem.SetCapacity(int64(total - avail))
		var many []metadata.Record // more than what is left of the last page
		for i := range 300 {
			many = append(many, topicRecord(1+i))
		}
		if _, err := n.q.Propose(n.lead.Epoch, many); err != nil { // accepted by raft, and waits for space
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := n.q.Propose(n.lead.Epoch, []metadata.Record{topicRecord(301)}); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("propose on a full disk: %v, want %v", err, ErrNoSpace)
		}
		mem.SetCapacity(0)
		<-time.After(2 * fullDiskPause) // fake time
		synctest.Wait()
		n.propose(301)
		synctest.Wait()
		if got := n.machine.loader.Image().TopicCount(); got != 302 {
			t.Fatalf("%d topics once there is space, want 302", got)
		}
	})
}

func TestTrap08FailedFlushOfMetadataStopsTheNode(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		n := start(t, mem, 7, nil)
		defer n.close()
		broken := errors.New("I/O error")
		mem.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
				return broken
			}
			return nil
		})
		id := n.propose(0)
		synctest.Wait()
		if _, applied := n.machine.offsetOf(id); applied {
			t.Fatal("an entry whose flush failed was committed")
		}
		select {
		case err := <-n.fatal:
			if !errors.Is(err, commitlog.ErrOffline) && !errors.Is(err, broken) {
				t.Fatalf("stopped because of %v, want the failed flush", err)
			}
		default:
			t.Fatal("the node goes on after a failed flush of its metadata")
		}
	})
}

// Entries and a snapshot are written by different goroutines, which find a disk that is gone at one moment.
func TestTheNodeIsStoppedOnceHoweverManyFail(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		told := make(chan error, 2)
		n := start(t, disk.NewMem(), 10, func(o *Options) { o.Fatal = func(err error) { told <- err } })
		defer n.close()
		stop, together := n.q.stop, make(chan struct{})
		n.q.stop = func(err error) { <-together; stop(err) }
		var failing sync.WaitGroup
		for range 2 {
			failing.Go(func() { n.q.fail(errors.New("I/O error")) })
		}
		synctest.Wait() // both know that nobody has stopped the node yet
		close(together)
		failing.Wait()
		if len(told) != 1 {
			t.Fatalf("the node was told %d times", len(told))
		}
	})
}

func TestSnapshotComesAfterTheIntervalOnlyForNewEntries(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		n := start(t, mem, 6, func(o *Options) { o.SnapshotInterval = time.Minute })
		defer n.close()
		snapshots := func() (names []string) {
			entries, err := mem.List("/meta/__cluster_metadata-0")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if _, _, ok := parseSnapshotName(e.Name); ok {
					names = append(names, e.Name)
				}
			}
			return names
		}
		time.Sleep(90 * time.Second) // the entry that began the term is new to the first
		first := snapshots()
		time.Sleep(5 * time.Minute)
		if again := snapshots(); len(first) != 1 || len(again) != 1 || first[0] != again[0] {
			t.Fatalf("snapshots %v, then %v without new entries", first, again)
		}
		n.propose(0)
		time.Sleep(2 * time.Minute)
		if after := snapshots(); len(after) != 1 || after[0] == first[0] {
			t.Fatalf("snapshots %v although an entry followed %v two minutes ago", after, first)
		}
	})
}

// What a snapshot has made superfluous stays in the active segment for a while, and must not ask
// for the next snapshot at once.
func TestSnapshotsFollowWhatWasAppliedAndNotTheLogsSize(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		written := map[string]bool{}
		mem.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpRename && strings.HasSuffix(op.To, snapshotSuffix) {
				written[op.To] = true
			}
			return nil
		})
		n := start(t, mem, 8, func(o *Options) { o.SnapshotBytes = 20 << 10 })
		defer n.close()
		const entries = 1000
		for i := range entries {
			n.propose(i)
			synctest.Wait()
		}
		if most := entries*64/(20<<10) + 2; len(written) > most { // an entry is less than 64 bytes
			t.Fatalf("%d snapshots of %d small entries, at most %d expected", len(written), entries, most)
		}
	})
}

// The metadata directory is condemned by a failed flush of the small files too, and the next start
// does not take it for cleanly closed.
func TestTrap08FailedFlushOfASnapshotCondemnsTheDirectory(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		n := start(t, mem, 9, func(o *Options) { o.SnapshotBytes = 2000 })
		defer n.close()
		broken := errors.New("I/O error")
		mem.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync && strings.Contains(op.Path, snapshotSuffix) {
				return broken
			}
			return nil
		})
		for i := 0; n.dir.Offline() == nil; i++ {
			if i == 1000 {
				t.Fatal("the directory is still trusted")
			}
			if _, err := n.q.Propose(n.lead.Epoch, []metadata.Record{topicRecord(i)}); err != nil {
				break
			}
			synctest.Wait()
		}
		if err := n.dir.Offline(); !errors.Is(err, commitlog.ErrOffline) || !errors.Is(err, broken) {
			t.Fatalf("the directory says %v, want %v because of %v", err, commitlog.ErrOffline, broken)
		}
	})
}
