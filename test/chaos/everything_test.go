//go:build chaos

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	everythingNodes = 5
	everythingLasts = 75 * time.Second // of faults, times longer: as many as come in that time, and half of the kinds
	everythingEnds  = 4 * time.Minute  // however few have come, times longer

	slowLink = 100 * time.Millisecond

	// smallNode has a small disk.
	smallNode     = everythingNodes
	smallDiskSize = "400m"
	everyRound    = 2 * time.Second // between the end of one fault and the next
)

// fault is something that is done to at most two of five nodes, and undone. Both are called with the
// nodes that the seed has chosen, the first of which has what the fault wants: it leads, or has a small disk.
type fault struct {
	name  string
	first func(e *everything) int // nil: any
	harm  func(e *everything, ids []int)
	cure  func(e *everything, ids []int)
	lasts time.Duration // at most
	most  int           // nodes
}

// everything is a run of the test of that name.
type everything struct {
	*cluster
	rng    *rand.Rand
	mount  string
	filler string // on the small disk, where that is full
}

func theController(e *everything) int { return e.controller() }
func aLeader(e *everything) int       { return e.leaderOf(torturedTopic, e.rng.Int32N(6)) }
func theSmallOne(*everything) int     { return smallNode }

func (e *everything) killAll(ids []int) {
	for _, id := range ids {
		e.kill(id)
	}
}

func (e *everything) startAll(ids []int) {
	for _, id := range ids {
		e.start(id)
	}
	for _, id := range ids {
		e.awaitReady(e.node(id))
	}
}

func (e *everything) healLinks([]int) { e.healAll() }

func (e *everything) worsenAll(ids []int) {
	for _, id := range ids {
		e.worsen(id, link{loss: 0.02 + 0.08*e.rng.Float64(), delay: time.Duration(e.rng.IntN(30)) * time.Millisecond})
	}
}

// killBehind kills a node while what it has written is still on its way to the others: were anything of
// that acknowledged, it would be lost.
func (e *everything) killBehind(ids []int) {
	e.note("links from %d to other nodes: delay %v", ids[0], slowLink)
	for _, other := range e.others(ids[0], false) {
		e.set(ids[0], other, link{delay: slowLink})
	}
	pause(e.t, 10*slowLink)
	e.kill(ids[0])
}

func (e *everything) startHealed(ids []int) {
	e.healAll()
	e.startAll(ids)
}

// fill takes all that is left of the small disk.
func (e *everything) fill([]int) {
	e.note("fill the disk of %d", smallNode)
	e.filler = fillUp(e.t, e.mount)
}

// empty gives the room back. A directory that has failed stays so until its process starts anew.
func (e *everything) empty([]int) {
	e.note("empty the disk of %d", smallNode)
	if err := os.Remove(e.filler); err != nil {
		e.t.Fatal(err)
	}
	e.finishAnyhow(e.node(smallNode))
	e.start(smallNode)
	e.awaitReady(e.node(smallNode))
}

var faults = []fault{
	{"kill", nil, (*everything).killAll, (*everything).startAll, 4 * time.Second, 2},
	{"kill the controller", theController, (*everything).killAll, (*everything).startAll, 4 * time.Second, 2},
	{"kill a leader", aLeader, (*everything).killAll, (*everything).startAll, 4 * time.Second, 1},
	{"kill behind slow links", aLeader, (*everything).killBehind, (*everything).startHealed, 4 * time.Second, 1},
	{"freeze", nil, func(e *everything, ids []int) { e.each(ids, e.freeze) }, func(e *everything, ids []int) { e.each(ids, e.thaw) }, 6 * time.Second, 2},
	{"freeze the controller", theController, func(e *everything, ids []int) { e.each(ids, e.freeze) }, func(e *everything, ids []int) { e.each(ids, e.thaw) }, 6 * time.Second, 1},
	{"isolate the controller", theController, func(e *everything, ids []int) { e.cutOff(ids[0], false) }, (*everything).healLinks, 6 * time.Second, 1},
	{"isolate a leader", aLeader, func(e *everything, ids []int) { e.cutOff(ids[0], true) }, (*everything).healLinks, 6 * time.Second, 1},
	{"part a minority", nil, func(e *everything, ids []int) { e.part(ids) }, (*everything).healLinks, 6 * time.Second, 2},
	{"cut inbound", aLeader, func(e *everything, ids []int) { e.cutOneWay(ids[0], true) }, (*everything).healLinks, 6 * time.Second, 1},
	{"cut outbound", theController, func(e *everything, ids []int) { e.cutOneWay(ids[0], false) }, (*everything).healLinks, 6 * time.Second, 1},
	{"loss and delay", aLeader, (*everything).worsenAll, (*everything).healLinks, 6 * time.Second, 2},
	{"full disk", theSmallOne, (*everything).fill, (*everything).empty, 4 * time.Second, 1},
	{"wipe", nil, func(e *everything, ids []int) { e.killAll(ids); e.each(ids, e.wipe) }, (*everything).startAll, 2 * time.Second, 1},
	{"restart", nil, func(e *everything, ids []int) { e.each(ids, e.stop) }, (*everything).startAll, time.Second, 1},
}

// each does something to nodes.
func (e *everything) each(ids []int, do func(int)) {
	for _, id := range ids {
		do(id)
	}
}

// finishAnyhow stops a process whose disk was full: it has to end, and may say that not all was well.
func (e *everything) finishAnyhow(m *member) {
	e.t.Helper()
	select {
	case <-m.gone:
		e.t.Errorf("node %d has ended on a full disk: %v", m.id, m.cmd.ProcessState)
		m.cmd = nil
	default:
		e.stop(m.id)
	}
}

// choose names the nodes of a fault.
func (e *everything) choose(f fault) []int {
	ids := e.rng.Perm(everythingNodes)[:1+e.rng.IntN(f.most)]
	for i := range ids {
		ids[i]++
	}
	if f.first == nil {
		return ids
	}
	first := f.first(e)
	for i, id := range ids {
		if id == first {
			ids[i] = ids[0]
		}
	}
	ids[0] = first
	return ids
}

// part parts nodes, which still see each other, from the rest; clients see all.
func (e *everything) part(ids []int) {
	e.note("part %v from the rest", ids)
	inside := map[int]bool{}
	for _, id := range ids {
		inside[id] = true
	}
	for _, id := range ids {
		for _, other := range e.others(id, false) {
			if !inside[other] {
				e.set(id, other, link{cut: true})
				e.set(other, id, link{cut: true})
			}
		}
	}
}

// allAtOnce kills every process, and starts them again.
func (e *everything) allAtOnce() {
	var all []int
	for _, m := range e.nodes {
		all = append(all, m.id)
		e.note("kill -9 %d, with all", m.id)
		_ = m.cmd.Process.Kill()
	}
	for _, m := range e.nodes {
		<-m.gone
		m.cmd = nil
	}
	e.startAll(all)
}

// TestFiveNodesUnderEverything does to five nodes, a minority at a time and once to all, what a seed
// says, under the yardstick's torture, and a producer and a group on our own client. In the end all
// are in sync again, nothing acknowledged is lost, and the group has gone on exactly where it committed.
func TestFiveNodesUnderEverything(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	mount := smallDisk(t, smallDiskSize)
	e := &everything{rng: rng, mount: mount}
	e.cluster = newCluster(t, everythingNodes, map[int]string{smallNode: filepath.Join(mount, "data")})
	lasts := time.Duration(longer(t)) * everythingLasts
	writing := tortureBegins(t, torturedTopic, lasts+15*time.Second, "-b", e.addresses(), "-r", "3", "-min-isr", "2", "-c", "4", "-settle", "120s")
	e.awaitTopic(torturedTopic)
	work := workBegins(t, e.cluster, rng.Uint64())
	pause(t, 2*time.Second)

	done := map[string]int{}
	var order []int
	began := time.Now()
	all := began.Add(lasts / 2)
	// On a slow machine the yardstick may be done before; our own client works on to the end.
	enough := func() bool { return time.Since(began) > lasts && len(done) >= len(faults)/2 }
	for !enough() && time.Since(began) < time.Duration(longer(t))*everythingEnds {
		if !all.IsZero() && time.Now().After(all) {
			all = time.Time{}
			e.allAtOnce()
			done["all at once"]++
			e.awaitInSync(patience)
			continue
		}
		if len(order) == 0 {
			order = rng.Perm(len(faults)) // every fault's turn comes
		}
		f := faults[order[0]]
		order = order[1:]
		ids := e.choose(f)
		e.note("%s: %v; the controller is %d", f.name, ids, e.controller())
		f.harm(e, ids)
		pause(t, f.lasts/4+time.Duration(rng.Int64N(int64(f.lasts*3/4))))
		f.cure(e, ids)
		done[f.name]++
		e.awaitInSync(patience)
		pause(t, time.Duration(rng.Int64N(int64(everyRound))))
	}
	took := e.awaitInSync(patience)
	t.Logf("faults: %v; all in sync %v after the last", done, took)
	work.verdict()
	gap := writing.verdict()
	t.Logf("%s: longest gap %v", t.Name(), gap)
	e.logHistory()
	if len(done) < len(faults)/2 {
		t.Errorf("only these faults came: %v", fmt.Sprint(done))
	}
}
