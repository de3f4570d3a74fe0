package clustertest

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// How many operations a start may need, all kinds together: for each partition that stands on disk, and for
// everything else. A ratchet: the time of a start follows from these counts.
const (
	opsPerPartition = 22
	opsBesides      = 150
	flushesBesides  = 25
)

// partitionOps counts what a start does below the directories of partitions, by kind and file.
func partitionOps(ops []disk.Op) map[string]int {
	count := map[string]int{}
	for _, op := range ops {
		inPartition := strings.HasPrefix(path.Base(path.Dir(op.Path)), "many-") || strings.HasPrefix(path.Base(op.Path), "many-")
		if inPartition {
			file := path.Ext(op.Path)
			if file == "" {
				file = path.Base(op.Path)
				if strings.HasPrefix(file, "many-") {
					file = "directory"
				}
			}
			count[string(op.Kind)+" "+file]++
		}
	}
	return count
}

func TestStartTouchesNoMoreThanItMust(t *testing.T) {
	for _, c := range []struct {
		name       string
		partitions int
		end        func(w *World, n *Node)
	}{
		{"after a clean stop", 1000, func(w *World, n *Node) {
			if err := n.Stop(); err != nil {
				w.Fatalf("stop: %v", err)
			}
		}},
		{"after a kill", 1000, func(_ *World, n *Node) { n.Kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			Run(t, 1, func(w *World) {
				n := w.Node("broker")
				n.MustStart()
				client := w.MustDial("client", n)
				w.mustCreate(client, "many", c.partitions)
				for p := range int32(c.partitions) {
					if _, err := client.Produce(w.Context(), 1, "many", p, Batch(now(), batch.None, fmt.Sprint(p))); err != nil {
						w.Fatalf("produce: %v", err)
					}
				}
				w.mustProduce(client, "many", 0, "last")
				c.end(w, n)
				for range 2 { // the second start finds what the first has left
					n.Record()
					n.MustStart()
					ops := n.Record()
					count := partitionOps(ops)
					sum := 0
					for kind, times := range count {
						sum += times
						if strings.HasPrefix(kind, "sync") {
							w.Fatalf("%s %d times: a start flushes no partition by itself", kind, times)
						}
					}
					flushes := 0
					for _, op := range ops {
						if isFlush(op, "/") {
							flushes++
						}
					}
					if sum > opsPerPartition*c.partitions || len(ops)-sum > opsBesides || flushes > flushesBesides {
						w.Fatalf("%d operations below %d partitions, %d besides, %d flushes: %v", sum, c.partitions, len(ops)-sum, flushes, count)
					}
					c.end(w, n)
				}
			})
		})
	}
}
