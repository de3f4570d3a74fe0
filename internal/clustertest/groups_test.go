package clustertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/disk"
)

// quick are the settings of a broker whose groups do not wait for members that nobody expects.
var quick = []string{"group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=4"}

// mustMeet finds a group's coordinator, and makes the topic of groups.
func (w *World) mustMeet(c *Client, group string) {
	w.T.Helper()
	if node, err := c.Coordinator(w.Context(), group); err != nil || node != 1 {
		w.Fatalf("coordinator of %s: %d, %v", group, node, err)
	}
}

func (w *World) mustCommit(c *Client, group, topic string, offsets map[int32]int64) {
	w.T.Helper()
	if err := c.Commit(w.Context(), group, topic, offsets); err != nil {
		w.Fatalf("commit for %s: %v", group, err)
	}
}

// committed reads what a group has committed, once its partition is loaded.
func (w *World) committed(c *Client, group, topic string) map[int32]int64 {
	w.T.Helper()
	for {
		offsets, err := c.Committed(w.Context(), group, topic)
		switch {
		case errors.Is(err, kerr.CoordinatorLoadInProgress):
			time.Sleep(10 * time.Millisecond)
		case err != nil:
			w.Fatalf("what %s has committed: %v", group, err)
		default:
			return offsets
		}
	}
}

// form joins members until all are of one generation and have their work.
func (w *World) form(members ...*Member) {
	w.T.Helper()
	var joining sync.WaitGroup
	errs := make([]error, len(members))
	for i, m := range members {
		joining.Go(func() { errs[i] = w.settle(m, len(members)) })
	}
	joining.Wait()
	if err := errors.Join(errs...); err != nil {
		w.Fatalf("form a group: %v", err)
	}
}

// settle joins until the generation has so many members, and takes its work.
func (w *World) settle(m *Member, members int) error {
	for {
		err := m.Join(w.Context())
		if err == nil {
			err = m.Sync(w.Context())
		}
		switch {
		case err == nil:
			if g, err := m.DescribeGroup(w.Context(), m.Group); err != nil || g.State == "Stable" && len(g.Members) == members {
				return err
			}
			time.Sleep(100 * time.Millisecond)
		case !errors.Is(err, kerr.RebalanceInProgress) && !errors.Is(err, kerr.IllegalGeneration):
			return err
		}
	}
}

// A group's life on one node: members share the work, commits are read back, one who leaves is replaced at once, and all
// of it is there after a clean restart: the same generation goes on.
func TestGroupLivesThroughARestart(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker", quick...)
		n.MustStart()
		setup := w.MustDial("setup", n)
		w.mustCreate(setup, "orders", 3)
		w.mustMeet(setup, "readers")
		work := []string{"a", "b", "c", "d", "e"}
		var members []*Member
		for i := range 3 {
			members = append(members, w.MustDial(fmt.Sprint("member-", i), n).NewMember("readers", work...))
		}
		w.form(members...)
		var all []string
		for _, m := range members {
			if m.Generation != members[0].Generation {
				w.Fatalf("generations %d and %d", m.Generation, members[0].Generation)
			}
			all = append(all, m.Assigned...)
		}
		if slices.Sort(all); !slices.Equal(all, work) {
			w.Fatalf("the work %v is shared as %v", work, all)
		}
		if err := members[1].CommitAs(w.Context(), "orders", map[int32]int64{0: 7, 2: 9}); err != nil {
			w.Fatalf("commit: %v", err)
		}
		if err := n.Stop(); err != nil {
			w.Fatalf("stop: %v", err)
		}
		n.MustStart()
		setup = w.MustDial("setup", n)
		if got := w.committed(setup, "readers", "orders"); len(got) != 2 || got[0] != 7 || got[2] != 9 {
			w.Fatalf("committed %v", got)
		}
		for i, m := range members {
			m.Client = w.MustDial(fmt.Sprint("member-", i), n)
			if err := m.Heartbeat(w.Context()); err != nil {
				w.Fatalf("member %d of generation %d: %v", i, m.Generation, err)
			}
		}
		if err := members[0].Leave(w.Context()); err != nil {
			w.Fatalf("leave: %v", err)
		}
		left := time.Now()
		if err := members[1].Heartbeat(w.Context()); !errors.Is(err, kerr.RebalanceInProgress) {
			w.Fatalf("after one left: %v", err)
		}
		w.form(members[1:]...)
		if took := time.Since(left); took > time.Second {
			w.Fatalf("the others took %v to share the work anew", took)
		}
		if len(members[1].Assigned)+len(members[2].Assigned) != len(work) {
			w.Fatalf("%v and %v are not all the work", members[1].Assigned, members[2].Assigned)
		}
	})
}

// Whatever a crash does to the disk, a commit that was acknowledged is there afterwards, nothing that nobody has sent is,
// and members whose generation was acknowledged go on in it or are told to join again.
func TestAcknowledgedCommitsSurviveCrashes(t *testing.T) {
	for seed := range Seeds(60) {
		Run(t, seed, func(w *World) {
			dice := w.Dice("fate")
			n := w.Node("broker", append(quick, "log.flush.offset.checkpoint.interval.ms=700")...)
			n.MustStart()
			setup := w.MustDial("setup", n)
			w.mustCreate(setup, "orders", 3)
			w.mustMeet(setup, "g0")
			const groups = 6
			var acknowledged, sent [groups]int64
			for life := range 4 {
				var users sync.WaitGroup
				for g := range groups {
					users.Go(func() { w.commitUntilCrash(n, g, &acknowledged[g], &sent[g]) })
				}
				time.Sleep(time.Duration(20+dice.IntN(300)) * time.Millisecond)
				if dice.IntN(3) == 0 {
					n.Kill()
				} else {
					n.Crash(seed<<8 | uint64(life))
				}
				users.Wait()
				n.MustStart()
				setup = w.MustDial("setup", n)
				for g := range groups {
					got, has := w.committed(setup, fmt.Sprint("g", g), "orders")[int32(g%3)]
					if acknowledged[g] > 0 && (!has || got < acknowledged[g]) || got > sent[g] {
						w.Fatalf("life %d, group %d: %d (%v) is committed, acknowledged was %d, sent %d", life, g, got, has, acknowledged[g], sent[g])
					}
					sent[g], acknowledged[g] = max(got, acknowledged[g]), max(got, acknowledged[g])
				}
			}
		})
	}
}

// commitUntilCrash commits rising offsets for one group until its connection ends.
func (w *World) commitUntilCrash(n *Node, g int, acknowledged, sent *int64) {
	dice := w.Dice(fmt.Sprint("committer-", g))
	c, err := w.Dial(w.Context(), fmt.Sprint("committer-", g), n)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		next := *sent + 1
		*sent = next
		err := c.Commit(w.Context(), fmt.Sprint("g", g), "orders", map[int32]int64{int32(g % 3): next})
		var refused *kerr.Error
		switch {
		case err == nil:
			*acknowledged = next
		case !errors.As(err, &refused):
			return
		case !errors.Is(err, kerr.CoordinatorLoadInProgress):
			w.Errorf("commit %d of group %d: %v", next, g, err)
			return
		}
		Jitter(dice, 2*time.Millisecond)
	}
}

// While a partition is being read its groups are told so, but for heartbeats, which have nothing to fear; then
// everything is there.
func TestLoadingIsAnswered(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker", append(quick, "offsets.topic.num.partitions=1")...)
		n.MustStart()
		c := w.MustDial("client", n)
		w.mustCreate(c, "orders", 3)
		w.mustMeet(c, "readers")
		m := c.NewMember("readers", "a")
		w.form(m)
		w.mustCommit(c, "other", "orders", map[int32]int64{1: 5})
		n.Kill()
		var serving atomic.Bool
		n.Fault(func(op disk.Op) error {
			if op.Kind == disk.OpRead && serving.Load() && strings.Contains(op.Path, "__consumer_offsets") {
				time.Sleep(3 * time.Second)
			}
			return nil
		})
		serving.Store(true)
		n.MustStart()
		began := time.Now()
		c = w.MustDial("client", n)
		m.Client = c
		if err := c.Commit(w.Context(), "other", "orders", map[int32]int64{1: 6}); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			w.Fatalf("commit: %v", err)
		}
		if _, err := c.Committed(w.Context(), "other", "orders"); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			w.Fatalf("fetch: %v", err)
		}
		if _, err := c.DescribeGroup(w.Context(), "readers"); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			w.Fatalf("describe: %v", err)
		}
		if err := m.Join(w.Context()); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			w.Fatalf("join: %v", err)
		}
		if err := m.Heartbeat(w.Context()); err != nil {
			w.Fatalf("heartbeat: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			w.Fatalf("these answers took %v", took)
		}
		if got := w.committed(c, "other", "orders"); got[1] != 5 {
			w.Fatalf("committed %v", got)
		}
		if err := m.Heartbeat(w.Context()); err != nil {
			w.Fatalf("heartbeat once loaded: %v", err)
		}
	})
}

// A full disk refuses commits and changes nothing: what was committed before stays, is read, and is added to as soon as
// there is space. The member is still one.
func TestFullDiskRefusesCommits(t *testing.T) {
	for seed := range Seeds(20) {
		Run(t, seed, func(w *World) {
			n := w.Node("broker", quick...)
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 3)
			w.mustMeet(c, "readers")
			m := c.NewMember("readers", "a")
			w.form(m)
			commit := func(offset int64) error { return m.CommitAs(w.Context(), "orders", map[int32]int64{0: offset}) }
			if err := commit(1); err != nil {
				w.Fatalf("commit: %v", err)
			}
			n.Disk().SetCapacity(1)
			refused := int64(0)
			for offset := int64(2); offset < 500 && refused == 0; offset++ { // a page that is begun takes some
				switch err := commit(offset); {
				case errors.Is(err, kerr.NotCoordinator):
					refused = offset
				case err != nil:
					w.Fatalf("commit %d on a full disk: %v", offset, err)
				}
			}
			if refused == 0 {
				w.Fatalf("a full disk took every commit")
			}
			if got := w.committed(c, "readers", "orders"); got[0] != refused-1 {
				w.Fatalf("committed %v after %d was refused", got, refused)
			}
			if err := m.Heartbeat(w.Context()); err != nil {
				w.Fatalf("heartbeat: %v", err)
			}
			n.Disk().SetCapacity(0)
			if err := commit(refused + 10); err != nil {
				w.Fatalf("commit once there is space: %v", err)
			}
			n.Crash(seed)
			n.MustStart()
			c = w.MustDial("client", n)
			if got := w.committed(c, "readers", "orders"); got[0] != refused+10 {
				w.Fatalf("committed %v after a crash", got)
			}
		})
	}
}

// Offsets expire, and stay so after a restart.
func TestOffsetsExpire(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker", append(quick, "offsets.retention.minutes=2", "offsets.retention.check.interval.ms=1000")...)
		n.MustStart()
		c := w.MustDial("client", n)
		w.mustCreate(c, "orders", 3)
		w.mustMeet(c, "readers")
		w.mustCommit(c, "readers", "orders", map[int32]int64{0: 7, 1: 8})
		time.Sleep(time.Minute)
		w.mustCommit(c, "readers", "orders", map[int32]int64{1: 9})
		time.Sleep(time.Minute + 2*time.Second)
		for life := range 2 {
			if got := w.committed(c, "readers", "orders"); len(got) != 1 || got[1] != 9 {
				w.Fatalf("life %d: %v is committed", life, got)
			}
			n.Crash(1)
			n.MustStart()
			c = w.MustDial("client", n)
		}
	})
}

// TestTrap26ATopicMadeAgainInheritsNoOffsets: whether the broker lived through the deletion or crashed right after it,
// and however soon the topic is there again.
func TestTrap26ATopicMadeAgainInheritsNoOffsets(t *testing.T) {
	for seed := range Seeds(40) {
		Run(t, seed, func(w *World) {
			dice := w.Dice("fate")
			n := w.Node("broker", quick...)
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 3)
			w.mustCreate(c, "kept", 1)
			w.mustMeet(c, "readers")
			for g := range 10 {
				w.mustCommit(c, fmt.Sprint("readers-", g), "orders", map[int32]int64{0: 7, 1: 8})
				w.mustCommit(c, fmt.Sprint("readers-", g), "kept", map[int32]int64{0: 3})
			}
			crash := func() {
				if dice.IntN(2) == 0 {
					n.Crash(dice.Uint64())
					n.MustStart()
					c = w.MustDial("client", n)
				}
			}
			crash()
			if err := c.DeleteTopic(w.Context(), "orders"); err != nil {
				w.Fatalf("delete: %v", err)
			}
			crash()
			w.mustCreate(c, "orders", 3)
			crash()
			for g := range 10 {
				if got := w.committed(c, fmt.Sprint("readers-", g), "orders"); len(got) != 0 {
					w.Fatalf("group %d has committed %v in a topic that is new", g, got)
				}
				if got := w.committed(c, fmt.Sprint("readers-", g), "kept"); got[0] != 3 {
					w.Fatalf("group %d has committed %v in the topic that was kept", g, got)
				}
			}
		})
	}
}

// A JoinGroup that waits for others does not keep the requests behind it on its connection from taking effect, and a
// client that goes meanwhile leaves no trace but a member that will be found dead.
func TestAWaitingJoinHoldsNothingUp(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker", append(quick, "group.initial.rebalance.delay.ms=3000")...)
		n.MustStart()
		c, other := w.MustDial("client", n), w.MustDial("other", n)
		w.mustCreate(c, "orders", 3)
		w.mustMeet(c, "readers")
		m := c.NewMember("readers", "a")
		p, err := m.StartJoin(w.Context())
		if err != nil {
			w.Fatalf("%v", err)
		}
		if err := m.Joined(w.Context(), p); !errors.Is(err, kerr.MemberIDRequired) {
			w.Fatalf("a member without an id: %v", err)
		}
		began := time.Now()
		if p, err = m.StartJoin(w.Context()); err != nil {
			w.Fatalf("%v", err)
		}
		commit, err := Start(w.Context(), c, CommitRequest("somebody", "orders", map[int32]int64{0: 4}))
		if err != nil {
			w.Fatalf("%v", err)
		}
		time.Sleep(100 * time.Millisecond)
		if got := w.committed(other, "somebody", "orders"); got[0] != 4 {
			w.Fatalf("the commit behind a JoinGroup has not happened: %v", got)
		}
		if err := m.Joined(w.Context(), p); err != nil {
			w.Fatalf("join: %v", err)
		}
		if took := time.Since(began); took < 3*time.Second {
			w.Fatalf("the first generation came after %v", took)
		}
		if _, err := commit.Wait(w.Context()); err != nil {
			w.Fatalf("commit: %v", err)
		}
		gone := w.MustDial("gone", n).NewMember("readers", "a")
		if err := errors.Join(m.Sync(w.Context())); err != nil {
			w.Fatalf("sync: %v", err)
		}
		for range 2 {
			if p, err = gone.StartJoin(w.Context()); err != nil {
				w.Fatalf("%v", err)
			}
			if gone.ID == "" {
				_ = gone.Joined(w.Context(), p) // gives it its id
			}
		}
		if err := gone.Close(); err != nil {
			w.Fatalf("close: %v", err)
		}
		w.form(m) // until it is alone again
	})
}

// Who asks before there is anything to coordinate is sent to look for the coordinator, which makes the topic.
func TestFirstLookMakesTheTopicOfGroups(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker")
		n.MustStart()
		c := w.MustDial("client", n)
		w.mustCreate(c, "orders", 1)
		if err := c.Commit(w.Context(), "readers", "orders", map[int32]int64{0: 1}); !errors.Is(err, kerr.NotCoordinator) {
			w.Fatalf("commit: %v", err)
		}
		w.mustMeet(c, "readers")
		topic, err := c.Topic(w.Context(), "__consumer_offsets")
		if err != nil || !topic.IsInternal || len(topic.Partitions) != 50 {
			w.Fatalf("%+v, %v", topic, err)
		}
		for key, want := range map[string]string{"cleanup.policy": "compact", "segment.bytes": "104857600", "compression.type": "producer"} {
			if got, _, err := c.Describe(w.Context(), 2, "__consumer_offsets", key); got != want {
				w.Fatalf("%s is %s: %v", key, got, err)
			}
		}
		w.mustCommit(c, "readers", "orders", map[int32]int64{0: 1})
		if _, err := c.Produce(w.Context(), -1, "__consumer_offsets", 0, Batch(now(), 0, "key=value")); !errors.Is(err, kerr.InvalidTopicException) {
			w.Fatalf("produce to it: %v", err)
		}
		// Deleted, it takes the groups with it, and comes again when it is looked for.
		if err := c.DeleteTopic(w.Context(), "__consumer_offsets"); err != nil {
			w.Fatalf("delete: %v", err)
		}
		if _, err := c.Committed(w.Context(), "readers", "orders"); !errors.Is(err, kerr.NotCoordinator) {
			w.Fatalf("after the deletion: %v", err)
		}
		w.mustMeet(c, "readers")
		if got := w.committed(c, "readers", "orders"); len(got) != 0 {
			w.Fatalf("committed %v in a new topic", got)
		}
	})
}

// What compaction leaves of __consumer_offsets is all that was committed last, and much less to load.
func TestCompactedOffsetsLoad(t *testing.T) {
	for seed := range Seeds(6) {
		Run(t, seed, func(w *World) {
			dice := w.Dice("fate")
			n := w.Node("broker", append(quick, "offsets.topic.num.partitions=1", "offsets.topic.segment.bytes=1048576",
				"log.cleaner.backoff.ms=500", "log.initial.task.delay.ms=100")...)
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 10)
			w.mustMeet(c, "readers")
			want := map[string]map[int32]int64{}
			for i := range 100 {
				group := fmt.Sprint("g", dice.IntN(5))
				q := CommitRequest(group, "orders", map[int32]int64{})
				if want[group] == nil {
					want[group] = map[int32]int64{}
				}
				for p := range int32(10) {
					one := kmsg.NewOffsetCommitRequestTopicPartition()
					one.Partition, one.Offset, one.Metadata = p, int64(i), kmsg.StringPtr(strings.Repeat("x", 4000))
					q.Topics[0].Partitions = append(q.Topics[0].Partitions, one)
					want[group][p] = int64(i)
				}
				res, err := Call[*kmsg.OffsetCommitResponse](w.Context(), c, q)
				if err == nil {
					err = CommitRefusal(res)
				}
				if err != nil {
					w.Fatalf("commit: %v", err)
				}
			}
			before := w.logBytes(n, "__consumer_offsets-0")
			time.Sleep(2 * time.Minute)
			if after := w.logBytes(n, "__consumer_offsets-0"); after > before*2/3 {
				w.Fatalf("the log has %d bytes, and had %d", after, before)
			}
			n.Crash(seed)
			n.MustStart()
			c = w.MustDial("client", n)
			for group, offsets := range want {
				if got := w.committed(c, group, "orders"); !maps.Equal(got, offsets) {
					w.Fatalf("%s has committed %v, want %v", group, got, offsets)
				}
			}
		})
	}
}

// logBytes is how much the segments of a log take.
func (w *World) logBytes(n *Node, log string) (total int64) {
	entries, err := n.Disk().List("/data/" + log)
	if err != nil {
		w.Fatalf("%v", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".log") {
			total += e.Size
		}
	}
	return total
}
