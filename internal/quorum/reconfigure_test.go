package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// caughtUp tells whether a node has applied all that the leader has.
func (w *world) caughtUp(id int32) bool {
	lead, l := w.leader(), w.nodes[id].running
	if lead == nil || l == nil {
		return false
	}
	_, m := l.quorum()
	_, leads := lead.running.quorum()
	return m != nil && m.lastOffset() == leads.lastOffset()
}

// mustFollow waits until all nodes that run have everything, and compares them.
func (w *world) mustFollow() {
	w.t.Helper()
	w.eventually("all nodes have everything", 2*time.Minute, func() bool {
		for _, id := range w.ids {
			if w.nodes[id].running != nil && !w.caughtUp(id) {
				return false
			}
		}
		return true
	})
	w.compare()
}

// directory is that of a node's running process.
func (v *voter) directory() metadata.UUID {
	v.w.t.Helper()
	v.w.eventually(fmt.Sprintf("node %d has a quorum", v.id), time.Minute, func() bool { q, _ := v.running.quorum(); return q != nil })
	q, _ := v.running.quorum()
	return q.o.Dir.ID()
}

func (v *voter) listeners() []Listener { return []Listener{{"INTERNAL", host(v.id), 9093}} }

// change asks a node to change the voters.
func (w *world) change(at *voter, kind VoterChangeKind, of *voter, dir metadata.UUID, within time.Duration) error {
	q, _ := at.running.quorum()
	if q == nil {
		return ErrClosed
	}
	c := VoterChange{Do: kind, NodeID: of.id, Directory: dir}
	if kind != RemoveVoter {
		c.Listeners = of.listeners()
	}
	return q.within(within, c)
}

// within is ChangeVoters with an end.
func (q *Quorum) within(patience time.Duration, c VoterChange) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return q.ChangeVoters(ctx, c)
}

func (w *world) mustChange(at *voter, kind VoterChangeKind, of *voter, dir metadata.UUID) {
	w.t.Helper()
	if err := w.change(at, kind, of, dir, 20*time.Second); err != nil {
		w.fatalf("change %d of node %d, asked of node %d: %v\n%s", kind, of.id, at.id, err, w.story())
	}
}

func (w *world) mustVote(ids ...int32) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("the voters are %v", ids), 20*time.Second, func() bool {
		var got []int32
		for id := range w.voters() {
			got = append(got, id)
		}
		slices.Sort(got)
		return slices.Equal(got, ids)
	})
}

// A node that is none of the voters has everything that they have committed, whoever leads, however long it
// was away, and with whatever disk it comes back.
func TestObserverFollowsTheLeader(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, seed, 3, func(w *world) {
			four := w.add(4)
			w.startAll()
			w.mustPropose(10)
			w.mustFollow()
			w.mustVote(1, 2, 3)
			dead := w.leader()
			dead.kill()
			w.mustPropose(5)
			w.mustFollow()
			dead.start()
			four.crash(seed)
			w.mustPropose(80) // the log of before is a snapshot by now
			four.start()
			w.mustFollow()
			four.wipe()
			w.mustPropose(3)
			four.start()
			w.mustFollow()
			w.mustVote(1, 2, 3)
		})
	}
}

// The leader, and through it every node, knows who observes and how far it is.
func TestLeaderKnowsItsObservers(t *testing.T) {
	inWorld(t, 1, 3, func(w *world) {
		four := w.add(4)
		w.startAll()
		w.mustPropose(10)
		w.mustFollow()
		time.Sleep(2 * time.Second)
		for _, id := range w.ids {
			q, m := w.nodes[id].running.quorum()
			s := q.LeaderStatus(context.Background())
			if len(s.Voters) != 3 || len(s.Observers) != 1 {
				w.fatalf("node %d: %+v", id, s)
			}
			o := s.Observers[0]
			if o.NodeID != 4 || o.Directory != four.directory() || o.LogEnd != m.lastOffset()+1 || time.Since(o.LastFetch) > time.Second || time.Since(o.LastCaughtUp) > time.Second {
				w.fatalf("node %d says of the observer: %+v, %v ago", id, o, time.Since(o.LastFetch))
			}
			for _, v := range s.Voters {
				if v.LogEnd != m.lastOffset()+1 || time.Since(v.LastFetch) > time.Second || time.Since(v.LastCaughtUp) > time.Second {
					w.fatalf("node %d says of a voter: %+v", id, v)
				}
			}
		}
		four.kill()
		synctest.Wait()
		time.Sleep(observerPatience + time.Minute)
		q, _ := w.leader().running.quorum()
		if s := q.LeaderStatus(context.Background()); len(s.Observers) > 0 {
			w.fatalf("one that is gone for long still observes: %+v", s.Observers)
		}
		for _, id := range []int32{1, 2} { // nobody leads
			w.nodes[w.ids[id]].kill()
		}
		time.Sleep(10 * time.Second)
		q, _ = w.nodes[w.ids[0]].running.quorum()
		if s := q.LeaderStatus(context.Background()); s.Leader != -1 {
			w.fatalf("without a majority node 1 says %+v", s)
		}
	})
}

func TestVotersAreAddedRemovedAndRefused(t *testing.T) {
	for seed := range uint64(5) {
		inWorld(t, seed, 3, func(w *world) {
			four, one := w.add(4), w.nodes[1]
			for _, id := range []int32{1, 2, 3} {
				w.nodes[id].start()
			}
			w.mustPropose(10)
			ask := w.nodes[int32(seed%3)+1] // the leader or not
			refused := func(kind VoterChangeKind, of *voter, dir metadata.UUID, want error, text string) {
				w.t.Helper()
				if err := w.change(ask, kind, of, dir, 3*time.Second); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
					w.fatalf("change %d of node %d: %v, want %v", kind, of.id, err, want)
				}
			}
			refused(AddVoter, four, directory(9), ErrNotInTime, "does not follow")
			refused(AddVoter, one, directory(9), ErrDuplicateVoter, "1")
			refused(RemoveVoter, four, directory(9), ErrVoterNotFound, "4")
			refused(RemoveVoter, one, directory(9), ErrVoterNotFound, "1")
			refused(UpdateVoter, one, directory(9), ErrVoterNotFound, "1")
			four.start()
			w.mustFollow()
			w.mustChange(ask, AddVoter, four, four.directory())
			w.mustVote(1, 2, 3, 4)
			w.mustChange(ask, UpdateVoter, one, one.directory())
			for _, v := range []*voter{one, w.nodes[2]} {
				w.mustChange(four, RemoveVoter, v, v.directory())
				w.mustPropose(3)
			}
			w.mustVote(3, 4)
			w.mustFollow() // the removed too
			// The removed stay out, though they are configured, and count no more: the other two are a majority.
			one.crash(seed)
			one.start()
			w.mustPropose(3)
			w.mustFollow()
			time.Sleep(30 * time.Second)
			w.mustVote(3, 4)
			one.kill()
			w.nodes[2].kill()
			w.mustPropose(3)
			w.mustChange(four, RemoveVoter, w.nodes[3], w.nodes[3].directory())
			w.mustPropose(3)
			if err := w.change(four, RemoveVoter, four, four.directory(), 3*time.Second); !errors.Is(err, ErrLastVoter) {
				w.fatalf("the last voter: %v", err)
			}
			// And may return.
			one.start()
			w.mustFollow()
			w.mustChange(four, AddVoter, one, one.directory())
			w.mustVote(1, 4)
			w.mustPropose(3)
			w.mustFollow()
		})
	}
}

// A leader that is to be removed hands over first, so that there is no pause of an election's length.
func TestLeaderThatIsRemovedHandsOver(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(5)
			w.settle()
			old := w.leader()
			began := time.Now()
			w.mustChange(old, RemoveVoter, old, old.directory())
			if took := time.Since(began); took > 400*time.Millisecond {
				w.fatalf("removed after %v", took)
			}
			w.mustPropose(1)
			if took := time.Since(began); took > 500*time.Millisecond {
				w.fatalf("the next change of metadata is committed %v after the leader was asked to be removed", took)
			}
			if w.leader() == old {
				w.fatalf("a node that was removed leads")
			}
			w.mustFollow()
		})
	}
}

// The last change of a quorum's voters shows though nothing follows it, as in a quorum of one.
func TestLastChangeOfTheVotersShows(t *testing.T) {
	for seed := range uint64(6) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(5)
			w.settle()
			leader := w.leader()
			follower := w.nodes[leader.id%3+1]
			w.mustFollow()
			lost := follower.directory()
			follower.kill()
			w.mustChange(leader, RemoveVoter, follower, lost)
			w.mustChange(leader, RemoveVoter, leader, leader.directory())
			time.Sleep(5 * time.Second)
			for _, v := range w.nodes {
				if v == follower {
					continue
				}
				q, _ := v.running.quorum()
				if s := q.LeaderStatus(context.Background()); len(s.Voters) != 1 || s.Voters[0].NodeID != s.Leader {
					w.fatalf("node %d: one voter is left, and it says %+v", v.id, s)
				}
			}
		})
	}
}

// Voters that have lost the memory of a change of the voters, which they have acknowledged, must not elect a
// leader among those of before.
func TestTrap10RestartedVotersKnowWhoVotes(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, seed, 3, func(w *world) {
			w.snapshotBytes = 1 << 20
			w.startAll()
			w.mustPropose(5)
			w.settle()
			one := w.leader()
			var others []*voter
			for _, id := range w.ids {
				if w.nodes[id] != one {
					others = append(others, w.nodes[id])
				}
			}
			two, three := others[0], others[1]
			// Snapshots would remember it too, and come later.
			two.stop()
			two.fault = func(op disk.Op) error {
				if op.Kind == disk.OpRename && strings.HasSuffix(op.To, snapshotSuffix) {
					return syscall.ENOSPC
				}
				return nil
			}
			two.start()
			w.settle()
			if w.leader() != one {
				return // another story
			}
			twos, threes := two.directory(), three.directory()
			w.net.Isolate(host(three.id))
			w.mustChange(one, RemoveVoter, three, threes)
			w.mustChange(one, RemoveVoter, two, twos)
			w.net.Isolate(host(one.id))
			two.crash(seed)
			w.mustPropose(3) // it is a quorum by itself now
			w.net.Rejoin(host(three.id))
			two.start()
			for range 20 {
				time.Sleep(time.Second)
				for _, v := range others {
					if _, m := v.running.quorum(); m.leadership().Mine {
						w.fatalf("node %d leads voters of which two were removed\n%s", v.id, w.story())
					}
				}
			}
			w.net.HealAll()
			w.net.Rejoin(host(one.id))
			w.mustPropose(3)
			w.mustFollow()
		})
	}
}

// Who is a little behind when a snapshot is written gets the entries that it lacks, and not the whole state.
func TestNodeThatIsALittleBehindNeedsNoSnapshot(t *testing.T) {
	for seed := range uint64(2) {
		inWorld(t, seed, 3, func(w *world) {
			w.snapshotBytes = 4000
			w.add(4)
			w.startAll()
			w.mustPropose(40)
			w.mustFollow()
			restored := map[int32]int{}
			for _, id := range w.ids {
				restored[id] = w.nodes[id].running.machine.snapshots()
				w.net.SetLatency(host(id), host(4), 8*time.Millisecond, time.Millisecond)
				w.net.SetLatency(host(4), host(id), 8*time.Millisecond, time.Millisecond)
			}
			for range 80 {
				q, m := w.leader().running.quorum()
				for range 5 { // without waiting
					if _, err := q.Propose(m.leadership().Epoch, []metadata.Record{topicRecord(w.next)}); err != nil {
						w.fatalf("%v", err)
					}
					w.next++
				}
				time.Sleep(time.Duration(1+w.dice.IntN(5)) * time.Millisecond)
			}
			w.mustFollow()
			for _, id := range w.ids {
				if now := w.nodes[id].running.machine.snapshots(); now != restored[id] {
					w.fatalf("node %d, which was never away, took %d snapshots over", id, now-restored[id])
				}
			}
		})
	}
}

// slowState makes a node's quorum-state slow to reach its disk.
func (v *voter) slowState() {
	v.fault = func(op disk.Op) error {
		if op.Kind == disk.OpRename && strings.HasSuffix(op.To, stateFile) {
			time.Sleep(30 * time.Millisecond)
		}
		return nil
	}
}

// No node counts by a new set of voters that a power cut would make it forget.
func TestTrap10ChangeOfTheVotersIsRememberedBeforeItCounts(t *testing.T) {
	for seed := range uint64(4) {
		inWorld(t, seed, 3, func(w *world) {
			w.snapshotBytes = 1 << 20
			for _, id := range w.ids {
				w.nodes[id].slowState()
			}
			w.startAll()
			w.mustPropose(5)
			w.settle()
			lead, out := w.leader(), w.nodes[w.ids[0]]
			if out == lead {
				out = w.nodes[w.ids[1]]
			}
			dir, done := out.directory(), make(chan error, 1)
			go func() { done <- w.change(lead, RemoveVoter, out, dir, 20*time.Second) }()
			for over := false; !over; time.Sleep(time.Millisecond) {
				for _, id := range w.ids {
					v := w.nodes[id]
					q, _ := v.running.quorum()
					counts := q.votersChangedAt()
					state, _, err := loadState(v.disk, "/meta/"+logName)
					if err != nil || counts > state.GetCommit() {
						w.fatalf("node %d counts by the voters of entry %d, and its disk knows of what is committed up to %d (%v)", id, counts, state.GetCommit(), err)
					}
				}
				select {
				case err := <-done:
					if err != nil {
						w.fatalf("%v", err)
					}
					over = true
				default:
				}
			}
		})
	}
}

// votersChangedAt is the entry that made the newest configuration of raft's, 1 where the first has it all.
func (q *Quorum) votersChangedAt() uint64 {
	found := make(chan uint64, 1)
	q.do(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		at := uint64(0)
		if n := len(q.mu.confs); n > 1 {
			at = q.mu.confs[n-1].index
		}
		found <- at
	})
	return <-found
}

// TestNodeHasOneVote: a node whose directory of before votes gets no second vote for another one on request, also where the request
// was perhaps made before: what makes a new disk a voter takes the vote of the old one in the same step.
func TestNodeHasOneVote(t *testing.T) {
	inWorld(t, 1, 3, func(w *world) {
		four := w.add(4)
		w.startAll()
		w.mustPropose(10)
		w.mustFollow()
		w.mustChange(w.leader(), AddVoter, four, four.directory())
		w.mustVote(1, 2, 3, 4)
		four.kill()
		w.eventually("somebody leads", time.Minute, func() bool { return w.leader() != nil })
		q, _ := w.leader().running.quorum()
		other := Member{4, metadata.UUID{7, 7}}
		q.do(func() { q.noteObserver(other, q.raft.BasicStatus().GetCommit()) })
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		a, err := q.changeHere(ctx, VoterChange{Do: AddVoter, NodeID: 4, Directory: other.Directory, Listeners: four.listeners()}, true)
		if err != nil || a.Refused != "duplicate" {
			w.fatalf("the answer is %+v: %v", a, err)
		}
		w.mustVote(1, 2, 3, 4)
		if n := len(q.Status().Voters); n != 4 {
			w.fatalf("there are %d voters: %+v", n, q.Status().Voters)
		}
	})
}
