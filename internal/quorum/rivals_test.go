package quorum

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"barnabas/internal/disk"
)

// A second process under a voter's number, with an empty disk, is refused as long as the first is alive, whether that leads or
// not; it stops and says what to do, and the first keeps its vote and its place.
func TestTrap10SecondProcessUnderAVotersNumberIsRefused(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(20)
			w.settle()
			before, epoch := w.voters(), w.leader().running.machine.leadership().Epoch
			first := w.nodes[w.ids[seed%3]]
			if seed%2 == 0 {
				first = w.leader()
			}
			twin := &voter{w: w, id: first.id, host: "elsewhere", disk: disk.NewMem(), life: 50} // with other random numbers
			twin.failed = true                                                                   // it is meant to
			defer twin.kill()
			twin.start()
			select {
			case <-twin.running.done:
			case <-time.After(time.Minute):
				q, _ := twin.running.quorum()
				w.fatalf("the second process under number %d runs on: waits for %q, %v, %+v", first.id, twin.running.waiting, q != nil, w.voters())
			}
			if err := twin.running.err; !errors.Is(err, ErrRival) || !strings.Contains(err.Error(), "directory "+before[first.id].String()) || !strings.Contains(err.Error(), "node.id") {
				w.fatalf("it ended with %v", err)
			}
			w.mustPropose(5)
			if after := w.voters(); !maps.Equal(before, after) {
				w.fatalf("the voters were %v and are %v", before, after)
			}
			if now := w.leader().running.machine.leadership().Epoch; now != epoch {
				w.fatalf("an election: epoch %d, %d before", now, epoch)
			}
			q, _ := w.leader().running.quorum()
			if observers := q.Status().Observers; len(observers) > 0 {
				w.fatalf("taken in: %v", observers)
			}
		})
	}
}

// One that had only stood still while its second was taken in keeps its vote when it goes on in time.
func TestTrap10VoterThatComesBackKeepsItsVote(t *testing.T) {
	for seed := range uint64(10) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(20)
			w.settle()
			before := w.voters()
			leader := w.leader()
			first := w.nodes[w.ids[0]]
			if first == leader {
				first = w.nodes[w.ids[1]]
			}
			w.net.Isolate(first.host)
			twin := &voter{w: w, id: first.id, host: "elsewhere", disk: disk.NewMem(), life: 50} // with other random numbers
			twin.failed = true                                                                   // it is meant to
			defer twin.kill()
			twin.start()
			q, _ := leader.running.quorum()
			w.eventually("the second is taken in", 20*time.Second, func() bool { return len(q.Status().Observers) > 0 })
			w.net.HealAll()
			w.eventually("the second ends", time.Minute, func() bool {
				twin.running.mu.Lock()
				defer twin.running.mu.Unlock()
				return errors.Is(twin.running.err, ErrRival)
			})
			if after := w.voters(); !maps.Equal(before, after) {
				w.fatalf("the voters were %v and are %v", before, after)
			}
			w.mustPropose(5)
		})
	}
}
