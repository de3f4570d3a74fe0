package quorum

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// changing asks for changes of the voters while everything else goes on.
type changing struct {
	w       *world
	running sync.WaitGroup
	mu      sync.Mutex
	pending int
	made    map[string]int
}

// begin asks a node that runs, whichever it is, to make a voter of a node that is none, or the reverse.
func (c *changing) begin() {
	w := c.w
	ask := w.nodes[w.ids[w.dice.IntN(len(w.ids))]]
	of := w.nodes[w.ids[w.dice.IntN(len(w.ids))]]
	voters := w.voters()
	if ask.running == nil || of.running == nil || voters == nil {
		return
	}
	asked, _ := ask.running.quorum()
	q, _ := of.running.quorum()
	if asked == nil || q == nil {
		return
	}
	change := VoterChange{Do: AddVoter, NodeID: of.id, Directory: q.o.Dir.ID(), Listeners: of.listeners()}
	name := "added"
	if directory, votes := voters[of.id]; votes {
		change, name = VoterChange{Do: RemoveVoter, NodeID: of.id, Directory: directory}, "removed"
	}
	patience := time.Duration(1+w.dice.IntN(8)) * time.Second
	c.mu.Lock()
	c.pending++
	c.mu.Unlock()
	c.running.Go(func() {
		err := asked.within(patience, change)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pending--
		if err == nil {
			c.made[name]++
		}
	})
}

// quiet tells whether no change is under way.
func (c *changing) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending == 0
}

// mayWipe tells whether a node's disk is no longer needed: it is no voter, and others know who is, or it is one of several of which all
// others have everything, and nothing is just changing.
func (c *changing) mayWipe(v *voter) bool {
	w := c.w
	voters, lead := w.voters(), w.leader()
	if voters == nil || !c.quiet() {
		return false
	}
	if q, _ := lead.running.quorum(); q.Status().Changing {
		return false
	}
	if _, votes := voters[v.id]; !votes {
		// One that others look for the leader at, by their configuration, has to know who votes by now.
		return slices.ContainsFunc(w.ids[:3], func(id int32) bool { return id != v.id && w.caughtUp(id) })
	}
	if len(voters) < 3 {
		return false
	}
	for id := range voters {
		if id != v.id && !w.whole(id) {
			return false
		}
	}
	return true
}

// The voters change while nodes crash, are wiped and cut off: never two leaders in one epoch, never different
// records at one offset, never a committed record lost, and in the end everybody has everything.
func TestTrap10NothingCommittedIsLostWhileTheVotersChange(t *testing.T) {
	counts, made, acked := map[string]int{}, map[string]int{}, 0
	for n := range max(1, *faultSeeds/2) {
		seed := *firstSeed + n
		inWorld(t, seed, 3, func(w *world) {
			w.add(4)
			w.add(5)
			c := &changing{w: w, made: made}
			w.startAll()
			w.mustPropose(3)
			w.mustFollow()
			var wiped *voter // has not come back whole since
			for range 16 {
				for range 2 + w.dice.IntN(8) {
					w.propose(200 * time.Millisecond)
				}
				time.Sleep(time.Duration(w.dice.IntN(900)) * time.Millisecond)
				v := w.nodes[w.ids[w.dice.IntN(len(w.ids))]]
				if wiped != nil && w.caughtUp(wiped.id) && (w.voters()[wiped.id].IsZero() || w.whole(wiped.id)) {
					wiped = nil
				}
				kind := []string{"change", "change", "change", "change", "crash", "kill", "wipe", "wipe", "isolate", "one way", "all", "heal"}[w.dice.IntN(12)]
				switch kind {
				case "change":
					if wiped != nil { // two disks of three may be needed for what is acknowledged
						continue
					}
					c.begin()
				case "crash":
					v.crash(w.dice.Uint64())
				case "kill":
					v.kill()
				case "wipe":
					if wiped != nil || !c.mayWipe(v) {
						continue
					}
					v.wipe()
					wiped = v
				case "isolate":
					w.net.Isolate(host(v.id))
				case "one way":
					w.net.CutOneWay(host(v.id), host(w.ids[w.dice.IntN(len(w.ids))]))
				case "all":
					for _, id := range w.ids {
						w.nodes[id].crash(w.dice.Uint64())
					}
				case "heal":
					w.net.HealAll()
				}
				counts[kind]++
				if w.dice.IntN(2) == 0 {
					w.net.HealAll()
				}
				if w.dice.IntN(3) > 0 {
					w.startAll()
				}
			}
			w.net.HealAll()
			w.startAll()
			c.running.Wait()
			synctest.Wait()
			w.mustPropose(3)
			w.eventually("the voters are whole", 2*time.Minute, func() bool {
				voters := w.voters()
				for id := range voters {
					if !w.whole(id) {
						return false
					}
				}
				return len(voters) > 0
			})
			w.mustFollow()
			acked += len(w.acked)
		})
	}
	t.Logf("%d acknowledged over %d seeds; %v; voters %v", acked, max(1, *faultSeeds/2), counts, made)
	for _, kind := range []string{"change", "crash", "kill", "wipe", "isolate", "one way", "all"} {
		if counts[kind] == 0 && *faultSeeds >= 20 {
			t.Errorf("no fault of kind %q", kind)
		}
	}
	if *faultSeeds >= 20 && slices.Contains([]int{made["added"], made["removed"]}, 0) {
		t.Errorf("voters %v", made)
	}
}
