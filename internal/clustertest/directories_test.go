package clustertest

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"barnabas/internal/commitlog/identity"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// TestFailedDirectoryCostsItsReplicasAndNoMore: of two directories of one broker one fails. The replicas in it leave the in-sync
// replicas and lead nothing, all others stay as they are, and writers notice next to nothing. It holds too for a
// replica that has been moved from one directory to the other while the broker was down, for the broker says so
// (KIP-858), and it is all mended once the disk is.
func TestFailedDirectoryCostsItsReplicasAndNoMore(t *testing.T) {
	for seed := range Seeds(6) {
		Run(t, seed, func(w *World) {
			const partitions = 6
			nodes := w.Cluster(3, "log.dirs=/data,/more")
			w.StartAll(nodes...)
			c := w.MustDial("client", nodes[0])
			if err := c.PlaceTopic(w.Context(), "orders", partitions, 2, 1, 3); err != nil {
				w.Fatalf("%v", err)
			}
			w.whole(nodes, 5*time.Second, "orders")
			end := w.startWriting(nodes, "orders", partitions)
			time.Sleep(500 * time.Millisecond)
			victim := nodes[1]
			if err := victim.Stop(); err != nil {
				w.Fatalf("stop: %v", err)
			}
			moved := w.moveReplicas(victim, "orders")
			victim.MustStart()
			w.whole(nodes, 10*time.Second, "orders")
			places := func(p int32) metadata.UUID {
				state := w.partition(nodes[0], "orders", p)
				return state.Directories[slices.Index(state.Replicas, 2)]
			}
			own, _ := nodes[0].Broker().Image().Broker(2)
			ids := w.directoryIDs(victim)
			for p, dir := range moved {
				w.Eventually(fmt.Sprintf("orders-%d is known to lie in %s", p, dir), 5*time.Second, func() bool { return places(p) == ids[dir] })
			}
			if len(own.Directories) != 2 {
				w.Fatalf("the broker has %d directories", len(own.Directories))
			}
			before, lost := map[int32]metadata.Partition{}, map[int32]bool{}
			for p := range int32(partitions) {
				before[p], lost[p] = w.partition(nodes[0], "orders", p), places(p) == ids["/more"]
			}
			if count := len(slices.DeleteFunc(slices.Collect(maps.Values(lost)), func(l bool) bool { return !l })); count != partitions/2 {
				w.Fatalf("%d of %d lie in one directory", count, partitions)
			}
			victim.Fault(func(op disk.Op) error {
				if isFlush(op, "/more") {
					return syscall.EIO
				}
				return nil
			})
			time.Sleep(3 * time.Second)
			for p, old := range before {
				now := w.partition(nodes[0], "orders", p)
				in := slices.Contains(now.ISR, 2)
				if in == lost[p] || lost[p] && now.Leader == 2 || !lost[p] && (now.Leader != old.Leader || now.LeaderEpoch != old.LeaderEpoch) {
					w.Fatalf("orders-%d, in the directory that failed: %v: %+v, before %+v", p, lost[p], now, old)
				}
			}
			if b, _ := nodes[0].Broker().Image().Broker(2); b.Fenced || !slices.Equal(b.Directories, []metadata.UUID{ids["/data"]}) {
				w.Fatalf("the broker is registered as %+v", b)
			}
			w.wroteOn(c, nodes, end())
			victim.Fault(nil)
			victim.Crash(seed)
			removeMark(w, victim)
			victim.MustStart()
			w.whole(nodes, 10*time.Second, "orders")
		})
	}
}

// moveReplicas moves, on the disk of a stopped node, two of a topic's partitions to the other directory, and says where those are now.
func (w *World) moveReplicas(n *Node, topic string) map[int32]string {
	w.T.Helper()
	moved := map[int32]string{}
	for p := range int32(2) { // they are spread in turn: one of each
		from, to := "/data", "/more"
		name := fmt.Sprintf("/%s-%d", topic, p)
		if _, err := n.Disk().Stat(from + name); err != nil {
			from, to = to, from
		}
		if err := n.Disk().Rename(from+name, to+name); err != nil {
			w.Fatalf("move %s: %v", name, err)
		}
		moved[p] = to
	}
	for _, dir := range []string{"/data", "/more"} {
		if err := n.Disk().SyncDir(dir); err != nil {
			w.Fatalf("flush %s: %v", dir, err)
		}
	}
	return moved
}

// directoryIDs are the ids of a node's data directories.
func (w *World) directoryIDs(n *Node) map[string]metadata.UUID {
	w.T.Helper()
	ids := map[string]metadata.UUID{}
	for _, dir := range []string{"/data", "/more"} {
		text, err := disk.ReadFile(n.Disk(), dir+"/"+identity.MetaFile, identity.MaxBytes)
		if err != nil {
			w.Fatalf("%v", err)
		}
		p, err := identity.Parse(text)
		if err != nil {
			w.Fatalf("%s: %v", dir, err)
		}
		ids[dir] = p.DirectoryID
	}
	return ids
}
