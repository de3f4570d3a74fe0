package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

var (
	noon   = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	anyone = func(id int32) (int64, bool) { return int64(id) * 10, true }
)

// ledBy1 is a partition of three replicas with the given ones in sync.
func ledBy1(epoch int32, isr ...int32) *metadata.Partition {
	return &metadata.Partition{Replicas: []int32{1, 2, 3}, ISR: isr, Leader: 1, PartitionEpoch: epoch}
}

func ends(end int64) commitlog.Progress { return commitlog.Progress{Flushed: end, End: end} }

func (l *leading) proposeAt(now time.Time, at commitlog.Progress, registered func(int32) (int64, bool)) *metadata.ISRProposal {
	return l.propose(metadata.UUID{1}, 0, 1, at, true, patience{lag: time.Second}, now, registered)
}

// TestWatermarkWaitsForTheDisk: in a durable topic a follower counts with what is on its disk, elsewhere with its log's end.
func TestWatermarkWaitsForTheDisk(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	at := ends(100)
	if got := l.reach(100, true, 2); got != -1 {
		t.Fatalf("reached %d before anybody has reported", got)
	}
	l.report(2, 20, 100, 60, at, true, noon)
	l.report(3, 30, 90, 70, at, true, noon)
	if durable, cached := l.reach(100, true, 2), l.reach(100, false, 2); durable != 60 || cached != 90 {
		t.Fatalf("durable %d, page cache %d", durable, cached)
	}
	l.advance(2, 20, 100, at, true, noon)
	if got := l.reach(100, true, 2); got != 70 {
		t.Fatalf("reached %d", got)
	}
	l.advance(3, 29, 100, at, true, noon) // of a life that is over
	if got := l.reach(100, true, 2); got != 70 {
		t.Fatalf("reached %d", got)
	}
	if got := l.reach(100, true, 4); got != -1 {
		t.Fatalf("reached %d below min.insync.replicas", got)
	}
}

// TestProposedMembersCount: whom the leader has proposed holds the watermark back at once, and goes on to do so for as
// long as some attempt may yet be accepted (KIP-497).
func TestProposedMembersCount(t *testing.T) {
	l := lead(1, ledBy1(5, 1, 2), 0, noon)
	at := ends(100)
	at.HighWatermark = 50
	l.report(2, 20, 100, 100, at, true, noon)
	l.report(3, 30, 60, 60, at, true, noon)
	asked := l.proposeAt(noon, at, anyone)
	if asked == nil || len(asked.ISR) != 3 || l.reach(100, true, 2) != 60 {
		t.Fatalf("%+v, reached %d", asked, l.reach(100, true, 2))
	}
	first := *asked
	if l.proposeAt(noon, at, anyone) != nil {
		t.Fatal("proposed twice at a time")
	}
	l.settle(&first, 0, noon, time.Second, anyone) // nobody knows whether it arrived
	if l.proposeAt(noon, at, anyone) != nil {
		t.Fatal("proposed again without a rest")
	}
	later := noon.Add(2 * time.Second)
	again := l.proposeAt(later, at, anyone)
	if again == nil || !slices.Equal(again.ISR, first.ISR) || again.PartitionEpoch != 5 {
		t.Fatalf("%+v", again)
	}
	second := *again
	l.settle(&second, metadata.ISRIneligible, later, time.Second, anyone)
	if got := l.reach(100, true, 2); got != 60 {
		t.Fatalf("the first attempt may arrive yet, and %d was reached", got)
	}
	later = later.Add(2 * time.Second)
	closing := l.proposeAt(later, at, anyone)
	if closing == nil || fmt.Sprint(closing.ISR) != "[{1 0} {2 20}]" || closing.PartitionEpoch != 5 {
		t.Fatalf("%+v", closing)
	}
	l.settle(closing, metadata.ISRAccepted, later, time.Second, anyone)
	if got := l.reach(100, true, 2); got != 60 {
		t.Fatalf("the metadata has not said so, and %d was reached", got)
	}
	l.follow(ledBy1(6, 1, 2), later)
	if got := l.reach(100, true, 2); got != 100 {
		t.Fatalf("reached %d", got)
	}
}

// TestRefusedMembersAreForgotten: where every attempt was answered nothing can come late.
func TestRefusedMembersAreForgotten(t *testing.T) {
	l := lead(1, ledBy1(5, 1, 2), 0, noon)
	at := ends(100)
	l.report(2, 20, 100, 100, at, true, noon)
	l.report(3, 30, 60, 60, at, true, noon)
	asked := *l.proposeAt(noon, at, anyone)
	l.settle(&asked, metadata.ISRIneligible, noon, time.Second, anyone)
	if got := l.reach(100, true, 2); got != 100 {
		t.Fatalf("reached %d", got)
	}
	l.report(3, 31, 60, 60, at, true, noon)
	if l.proposeAt(noon.Add(2*time.Second), at, anyone) != nil {
		t.Fatal("proposed in a life that is not the registered one")
	}
}

// TestCaughtUpUnderLoad: a follower that is always a little behind, because there is always more, stays; one that has
// stopped goes after replica.lag.time.max.ms, and one too many records behind at once where that is asked for.
func TestCaughtUpUnderLoad(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	now := noon
	for step := range int64(100) {
		now = now.Add(100 * time.Millisecond)
		at := ends(step * 10)
		l.report(2, 20, max(step*10-25, 0), max(step*10-25, 0), at, true, now)
		if step < 50 {
			l.report(3, 30, step*10, step*10, at, true, now)
		}
	}
	asked := l.proposeAt(now, ends(1000), anyone)
	if asked == nil || fmt.Sprint(asked.ISR) != "[{1 0} {2 20}]" || len(asked.Lost) != 0 {
		t.Fatalf("%+v", asked)
	}
	for limit, want := range map[int64]bool{0: false, 9: true, 10: false} {
		f := follower{flushed: 90, caughtUp: noon}
		if got := f.tooFar(100, true, false, patience{lag: time.Hour, messages: limit}, noon); got != want {
			t.Errorf("10 behind with replica.lag.max.messages=%d: %v", limit, got)
		}
	}
}

// TestShorterMemberIsLost: a member that comes back with less than what is committed leaves at once, and not as one that
// has everything.
func TestShorterMemberIsLost(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	at := ends(100)
	at.HighWatermark = 100
	l.report(2, 20, 100, 100, at, true, noon)
	if !l.report(3, 30, 99, 99, at, true, noon) {
		t.Fatal("nobody is told")
	}
	asked := l.proposeAt(noon, at, anyone)
	if asked == nil || fmt.Sprint(asked.ISR, asked.Lost) != "[{1 0} {2 20}] [3]" {
		t.Fatalf("%+v", asked)
	}
}

// TestWatermarkIsNeverAboveAMember: whatever followers, the controller and the network do, and in whatever order, the
// watermark that a leader would take never passes what a member of any in-sync set has, that the controller
// has accepted or may yet accept.
func TestWatermarkIsNeverAboveAMember(t *testing.T) {
	for seed := range uint64(2000) {
		dice := rand.New(rand.NewPCG(seed, 3))
		committed := ledBy1(0, 1, 2, 3) // the controller's
		l := lead(1, committed, 0, noon)
		var end, high int64
		has := map[int32]int64{1: 0, 2: 0, 3: 0}
		var flying []metadata.ISRProposal
		now := noon
		for step := range 200 {
			now = now.Add(time.Duration(dice.IntN(300)) * time.Millisecond)
			at := commitlog.Progress{HighWatermark: high, Flushed: end, End: end}
			switch id := int32(2 + dice.IntN(2)); dice.IntN(8) {
			case 0, 1:
				end += dice.Int64N(5)
				has[1] = end
			case 2, 3, 4:
				has[id] += dice.Int64N(end - has[id] + 1)
				l.report(id, int64(id)*10, has[id], has[id], at, true, now)
			case 5:
				asked := l.proposeAt(now, at, anyone)
				if asked == nil {
					break
				}
				p := *asked
				flying = append(flying, p)
				if dice.IntN(3) == 0 {
					l.settle(&p, metadata.ISRIneligible, now, time.Millisecond, anyone)
					flying = flying[:len(flying)-1]
				} else {
					l.settle(&p, 0, now, time.Millisecond, anyone)
				}
			case 6: // one arrives, sooner or later
				if len(flying) == 0 {
					break
				}
				n := dice.IntN(len(flying))
				p := flying[n]
				flying = slices.Delete(flying, n, n+1)
				if p.PartitionEpoch == committed.PartitionEpoch {
					next := ledBy1(committed.PartitionEpoch + 1)
					for _, m := range p.ISR {
						next.ISR = append(next.ISR, m.Broker)
					}
					committed = next
				}
			case 7:
				l.follow(committed, now)
			}
			high = max(high, l.reach(has[1], true, 1))
			for _, id := range committed.ISR {
				if has[id] < high {
					t.Fatalf("seed %d, step %d: watermark %d, member %d has %d of %d", seed, step, high, id, has[id], end)
				}
			}
		}
	}
}

// TestIdleMembersStay: a member that has had everything for longer than replica.lag.time.max.ms, because nothing was
// written, is not late with the record that is on its way to it.
func TestIdleMembersStay(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	for _, id := range []int32{2, 3} {
		l.report(id, int64(id)*10, 100, 100, ends(100), true, noon)
	}
	now := noon
	for range 20 { // the keeper looks at everybody every half replica.lag.time.max.ms
		now = now.Add(500 * time.Millisecond)
		if asked := l.proposeAt(now, ends(100), anyone); asked != nil {
			t.Fatalf("idle: %+v", asked)
		}
	}
	now = now.Add(499 * time.Millisecond) // and a millisecond after the next record has been written
	if asked := l.proposeAt(now, ends(101), anyone); asked != nil {
		t.Fatalf("a record is on its way: %+v", asked)
	}
	if asked := l.proposeAt(now.Add(time.Second), ends(101), anyone); asked == nil || len(asked.ISR) != 1 {
		t.Fatalf("late: %+v", asked)
	}
}

// TestReportsOfALifeThatIsOverCountForNothing: a fetch that a process sent before it was started anew arrives after the first
// of the new one, which has lost what that had (KIP-903).
func TestReportsOfALifeThatIsOverCountForNothing(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	at := ends(100)
	l.report(2, 21, 5, 5, at, true, noon)
	l.report(2, 20, 90, 90, at, true, noon)
	if f := l.follower(2); f.life != 21 || f.end != 5 || f.flushed != 5 {
		t.Fatalf("%+v", *f)
	}
}

// TestStandstillIsNobodysFault: a leader that was suspended, and finds all its followers silent for as long, does not throw
// them out for that; it does when they stay silent while it runs.
func TestStandstillIsNobodysFault(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	at := ends(100)
	for id := int32(2); id <= 3; id++ {
		l.report(id, int64(id)*10, 90, 90, at, true, noon)
	}
	resumed := noon.Add(10 * time.Second)
	l.excuse(10*time.Second, resumed)
	if asked := l.proposeAt(resumed, at, anyone); asked != nil {
		t.Fatalf("thrown out for the leader's own standstill: %+v", asked)
	}
	if late := resumed.Add(1100 * time.Millisecond); l.follower(2).caughtUp.After(resumed) || l.proposeAt(late, at, anyone) == nil {
		t.Fatal("silent for longer than replica.lag.time.max.ms since, and still in sync")
	}
}

// TestDamagedStandbyIsReported: a replica that may be elected without being in sync, and says that it is damaged, or is
// shorter than what is committed, is put to the controller as lost; wherever the damage lies (KIP-966).
func TestDamagedStandbyIsReported(t *testing.T) {
	for name, says := range map[string]func(l *leading, at commitlog.Progress) bool{
		"damaged": func(l *leading, _ commitlog.Progress) bool { return l.broken(2) },
		"shorter": func(l *leading, at commitlog.Progress) bool { return l.report(2, 20, 40, 40, at, true, noon) },
		"beyond":  func(l *leading, at commitlog.Progress) bool { return l.shorter(2, 0, at) },
	} {
		p := ledBy1(0, 1)
		p.ELR = []int32{2}
		l := lead(1, p, 0, noon)
		at := ends(100)
		at.HighWatermark = 50
		if !says(l, at) || !l.wants(at, true, anyone) {
			t.Fatalf("%s: nothing to propose", name)
		}
		if asked := l.proposeAt(noon, at, anyone); asked == nil || !slices.Equal(asked.Lost, []int32{2}) || len(asked.ISR) != 1 {
			t.Fatalf("%s: %+v", name, asked)
		}
		l.follow(&metadata.Partition{Replicas: []int32{1, 2, 3}, ISR: []int32{1}, Leader: 1, PartitionEpoch: 1}, noon)
		if l.wants(at, true, anyone) || l.follower(2).lost {
			t.Fatalf("%s: proposed for ever", name)
		}
	}
}

// TestMarkOfWhatIsNotOnDisk: it is proposed before records count that are on no disk, and taken away once every member has on
// disk what counted before; as long as the controller may yet say that all is on disk, disks count.
func TestMarkOfWhatIsNotOnDisk(t *testing.T) {
	at := commitlog.Progress{HighWatermark: 80, Flushed: 100, End: 100}
	asks := func(l *leading) string {
		p := l.proposeAt(noon, at, anyone)
		switch {
		case p == nil:
			return "nothing"
		case p.Unflushed == nil:
			return fmt.Sprint("other members: ", len(p.ISR))
		}
		return fmt.Sprint("unflushed: ", *p.Unflushed)
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: proposes %s, want %s", what, got, want)
		}
	}
	l := lead(1, ledBy1(0, 1, 2), 0, noon)
	want("durable from the first", asks(l), "nothing")
	l.durable = false
	if !l.byDisk() {
		t.Fatal("what is not on disk counts before the metadata says that it may")
	}
	want("not durable any more", asks(l), "unflushed: true")
	said := ledBy1(1, 1, 2)
	said.Unflushed = true
	l.follow(said, noon)
	if l.byDisk() {
		t.Fatal("disks count in a topic that is not durable")
	}
	want("said", asks(l), "nothing")
	l.durable = true
	want("nobody has reported", asks(l), "nothing")
	l.report(2, 20, 100, 79, at, true, noon)
	want("a member's disk lags", asks(l), "nothing")
	l.advance(2, 20, 80, at, true, noon)
	at.Flushed = 79
	want("its own does", asks(l), "nothing")
	at.Flushed = 80
	want("all have what is committed", asks(l), "unflushed: false")
	l.durable = false
	if !l.byDisk() {
		t.Fatal("what is not on disk counts while the metadata may yet say that all is")
	}
	l.settle(&l.proposal.ISRProposal, 0, noon, time.Second, anyone)
	l.settle(&l.proposal.ISRProposal, metadata.ISRIneligible, noon, time.Second, anyone)
	if l.proposal == nil || l.proposal.Unflushed != nil {
		t.Fatalf("what has had no answer is not closed: %+v", l.proposal)
	}
	if !l.byDisk() {
		t.Fatal("what is not on disk counts while an earlier attempt may yet be accepted")
	}
	said = ledBy1(2, 1, 2)
	said.Unflushed = true
	l.follow(said, noon)
	if l.byDisk() {
		t.Fatal("disks count although no attempt can be accepted any more")
	}
}
