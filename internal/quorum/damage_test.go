package quorum

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"barnabas/internal/disk"
)

// rot flips a bit inside the value of the record that names a topic, in a node's metadata log.
func (v *voter) rot(topic int) {
	v.w.t.Helper()
	dir := "/meta/" + logName
	entries, err := v.disk.List(dir)
	if err != nil {
		v.w.fatalf("%v", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name, ".log") {
			continue
		}
		data, err := disk.ReadFile(v.disk, dir+"/"+e.Name, 1<<30)
		if err != nil {
			v.w.fatalf("%v", err)
		}
		if at := strings.Index(string(data), fmt.Sprintf("topic-%05d", topic)); at >= 0 {
			if err := v.disk.FlipBit(dir+"/"+e.Name, int64(at)+2, 1); err != nil {
				v.w.fatalf("%v", err)
			}
			return
		}
	}
	v.w.fatalf("node %d has no topic %d in its log", v.id, topic)
}

// ended waits for a process that ends by itself, and returns why.
func (v *voter) ended() error {
	v.w.t.Helper()
	l := v.running
	v.w.eventually(fmt.Sprintf("node %d ends", v.id), 30*time.Second, func() bool {
		select {
		case <-l.done:
			return true
		default:
			return false
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	v.running = nil
	return l.err
}

// A voter whose metadata log has rotten while it was down does not come back with it, though it was closed
// well and nobody has asked for the place yet: it would vote, and could lead. Emptied, it is made whole.
func TestTrap09RottenMetadataKeepsAVoterOut(t *testing.T) {
	for seed := range uint64(6) {
		inWorld(t, seed, 3, func(w *world) {
			w.snapshotBytes = 1 << 20
			w.startAll()
			w.mustPropose(40)
			w.settle()
			victim := w.nodes[w.ids[seed%3]]
			victim.stop()
			const rotten = 20
			victim.rot(rotten)
			victim.start()
			machine := victim.running.machine
			if err := victim.ended(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "empty the data directories") {
				w.fatalf("node %d with a rotten metadata log: %v", victim.id, err)
			}
			if image := machine.loader.Image(); image.TopicCount() > rotten {
				w.fatalf("%d topics were applied from a log that is rotten at topic %d", image.TopicCount(), rotten)
			}
			w.mustPropose(5)
			victim.wipe()
			victim.start()
			w.settle()
		})
	}
}

// A leader that finds a rotten entry when a follower needs it gives nothing of it away and stops. Whoever
// leads then has it whole.
func TestTrap09LeaderWithRottenMetadataStops(t *testing.T) {
	for seed := range uint64(6) {
		inWorld(t, seed, 3, func(w *world) {
			w.snapshotBytes = 1 << 20
			w.startAll()
			w.mustPropose(5)
			w.settle()
			behind := w.nodes[w.ids[0]]
			if behind == w.leader() {
				behind = w.nodes[w.ids[1]]
			}
			behind.kill()
			w.mustPropose(30)
			leader := w.leader()
			leader.rot(20)
			behind.start()
			if err := leader.ended(); !errors.Is(err, ErrDamaged) {
				w.fatalf("the leader with a rotten metadata log: %v", err)
			}
			w.mustPropose(5)
			for _, id := range w.ids {
				if v := w.nodes[id]; v != leader {
					w.eventually("the others are whole", 30*time.Second, func() bool { return w.whole(id) })
				}
			}
			leader.wipe()
			leader.start()
			w.settle()
		})
	}
}

// rotSnapshot flips a bit in the middle of a node's newest snapshot.
func (v *voter) rotSnapshot() {
	v.w.t.Helper()
	dir := "/meta/" + logName
	name, err := newestSnapshot(v.disk, dir)
	if err != nil || name == "" {
		v.w.fatalf("node %d has no snapshot: %v", v.id, err)
	}
	data, err := disk.ReadFile(v.disk, dir+"/"+name, 1<<30)
	if err == nil {
		err = v.disk.FlipBit(dir+"/"+name, int64(len(data)/2), 1)
	}
	if err != nil {
		v.w.fatalf("%v", err)
	}
}

// A rotten snapshot keeps a voter out that starts with it; a leader that is to give one away writes another.
func TestTrap09RottenSnapshotIsNotTaken(t *testing.T) {
	for seed := range uint64(6) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(40)
			w.settle()
			victim := w.nodes[w.ids[seed%3]]
			victim.stop()
			victim.rotSnapshot()
			victim.start()
			if err := victim.ended(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "empty the data directories") {
				w.fatalf("node %d with a rotten snapshot: %v", victim.id, err)
			}
			victim.wipe()
			w.mustPropose(40)
			w.leader().rotSnapshot()
			victim.start()
			w.mustPropose(1)
			w.settle()
		})
	}
}
