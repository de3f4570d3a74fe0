package clustertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
)

func now() int64 { return time.Now().UnixMilli() }

// isFlush tells whether op flushes something below dir.
func isFlush(op disk.Op, dir string) bool {
	flush := op.Kind == disk.OpSync || op.Kind == disk.OpSyncDir || op.Kind == disk.OpSyncFS
	return flush && strings.HasPrefix(op.Path, dir)
}

// mustProduce writes one record with acks=all.
func (w *World) mustProduce(c *Client, topic string, partition int32, value string) int64 {
	w.T.Helper()
	at, err := c.Produce(w.Context(), -1, topic, partition, Batch(now(), batch.None, value))
	if err != nil {
		w.Fatalf("produce to %s-%d: %v", topic, partition, err)
	}
	return at
}

func (w *World) mustCreate(c *Client, name string, partitions int, configs ...string) {
	w.T.Helper()
	if _, err := c.CreateTopic(w.Context(), name, partitions, configs...); err != nil {
		w.Fatalf("create %s: %v", name, err)
	}
}

// values reads a whole partition.
func (w *World) values(c *Client, topic string, partition int32) (values []string) {
	w.T.Helper()
	all, err := c.ReadAll(w.Context(), topic, partition, 0)
	if err != nil {
		w.Fatalf("%v", err)
	}
	for _, r := range all {
		values = append(values, r.Value)
	}
	return values
}

// What the page cache alone has kept through a kill is shown to readers, so it has to be on disk before.
func TestTrap07WhatOutlivedAKillIsFlushedBeforeItIsServed(t *testing.T) {
	for seed := range Seeds(60) {
		Run(t, seed, func(w *World) {
			n := w.Node("broker")
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 1)
			w.mustProduce(c, "orders", 0, "flushed")
			n.Fault(func(op disk.Op) error { // from now on no flush ends in this life
				if isFlush(op, "/data/orders-0") || op.Kind == disk.OpSyncFS {
					time.Sleep(time.Hour)
				}
				return nil
			})
			for i := range 5 {
				if _, err := c.Produce(w.Context(), 1, "orders", 0, Batch(now(), batch.None, fmt.Sprint("cached-", i))); err != nil {
					w.Fatalf("produce with acks=1: %v", err)
				}
			}
			n.Kill()
			n.Fault(nil)
			n.MustStart()
			read := w.values(w.MustDial("client", n), "orders", 0)
			n.Crash(seed)
			n.MustStart()
			again := w.values(w.MustDial("client", n), "orders", 0)
			if len(read) < 1 || len(again) < len(read) || !slices.Equal(read, again[:len(read)]) {
				w.Fatalf("%v was served after the kill, %v is left after the power cut", read, again)
			}
		})
	}
}

// With one directory a failed flush ends the process: nothing is flushed again, and nothing is acknowledged after it.
func TestTrap08FailedFlushIsNotRetried(t *testing.T) {
	for seed := range Seeds(60) {
		Run(t, seed, func(w *World) {
			n := w.Node("broker")
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 3)
			fuse := atomic.Int64{}
			fuse.Store(int64(1 + seed%17))
			var flushesAfter, failedAt atomic.Int64
			n.Fault(func(op disk.Op) error {
				if !isFlush(op, "/data") {
					return nil
				}
				switch left := fuse.Add(-1); {
				case left == 0:
					failedAt.Store(time.Now().UnixNano())
					return syscall.EIO
				// Those that were under way end within two milliseconds.
				case left < 0 && time.Now().UnixNano()-failedAt.Load() > int64(5*time.Millisecond):
					flushesAfter.Add(1)
				}
				return nil
			})
			acknowledged := map[int32][]string{}
			for i := range 60 {
				p, v := int32(i%3), fmt.Sprint("v", i)
				if i%10 == 9 {
					_, _ = c.CreateTopic(w.Context(), fmt.Sprint("more-", i), 1) // the metadata's flushes fail too
				}
				if _, err := c.Produce(w.Context(), -1, "orders", p, Batch(now(), batch.None, v)); err != nil {
					break
				}
				acknowledged[p] = append(acknowledged[p], v)
			}
			select {
			case <-n.Broker().Failed():
			case <-time.After(time.Minute):
				w.Fatalf("the node goes on after a failed flush")
			}
			if err := n.Broker().Failure(); !errors.Is(err, commitlog.ErrOffline) {
				w.Fatalf("failed with %v", err)
			}
			if err := n.Stop(); !errors.Is(err, commitlog.ErrOffline) {
				w.Fatalf("stopped with %v", err)
			}
			if after := flushesAfter.Load(); after > 0 {
				w.Fatalf("%d flushes after one had failed", after)
			}
			n.Fault(nil)
			n.Crash(seed)
			n.MustStart()
			c = w.MustDial("client", n)
			for p, want := range acknowledged {
				if got := w.values(c, "orders", p); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
					w.Fatalf("orders-%d holds %v, acknowledged was %v", p, got, want)
				}
			}
		})
	}
}

// With two directories the failure of one costs its partitions and no others, until the operator removes the mark.
func TestTrap08FailedDirectoryStaysClosedUntilItsMarkIsRemoved(t *testing.T) {
	for seed := range Seeds(30) {
		Run(t, seed, func(w *World) {
			n := w.Node("broker", "log.dirs=/data,/more")
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 6)
			want, lost := map[int32][]string{}, map[int32]bool{}
			for p := range int32(6) {
				want[p] = []string{fmt.Sprint("first of ", p)}
				w.mustProduce(c, "orders", p, want[p][0])
				if _, err := n.Disk().Stat(fmt.Sprintf("/more/orders-%d", p)); err == nil {
					lost[p] = true
				}
			}
			if len(lost) == 0 || len(lost) == 6 {
				w.Fatalf("partitions are not spread: %v", lost)
			}
			n.Fault(func(op disk.Op) error {
				if isFlush(op, "/more") {
					return syscall.EIO
				}
				return nil
			})
			expect := func(what string) {
				for p := range int32(6) {
					v := fmt.Sprint(what, " ", p)
					_, err := c.Produce(w.Context(), -1, "orders", p, Batch(now(), batch.None, v))
					if lost[p] != (err != nil) {
						w.Fatalf("%s: produce to orders-%d (lost: %v): %v", what, p, lost[p], err)
					}
					if err == nil {
						want[p] = append(want[p], v)
					} else if !errors.Is(err, kerr.KafkaStorageError) && !errors.Is(err, kerr.NotLeaderForPartition) {
						w.Fatalf("%s: produce to orders-%d: %v", what, p, err)
					}
				}
			}
			expect("failing")
			time.Sleep(time.Second)
			expect("failed")
			checkLeaders(w, c, lost)
			n.Fault(nil)
			n.Crash(seed)
			n.MustStart()
			c = w.MustDial("client", n)
			expect("after a restart")
			checkLeaders(w, c, lost)
			if err := n.Stop(); err != nil {
				w.Fatalf("stop: %v", err)
			}
			removeMark(w, n)
			n.MustStart()
			c = w.MustDial("client", n)
			for p, v := range want {
				if got := w.values(c, "orders", p); len(got) < len(v) || !slices.Equal(got[:len(v)], v) {
					w.Fatalf("orders-%d holds %v after the mark was removed, acknowledged was %v", p, got, v)
				}
			}
			clear(lost)
			expect("mended")
		})
	}
}

func checkLeaders(w *World, c *Client, lost map[int32]bool) {
	w.T.Helper()
	topic, err := c.Topic(w.Context(), "orders")
	if err != nil {
		w.Fatalf("metadata: %v", err)
	}
	for _, p := range topic.Partitions {
		if (p.Leader < 0) != lost[p.Partition] {
			w.Fatalf("orders-%d (lost: %v) is led by %d", p.Partition, lost[p.Partition], p.Leader)
		}
	}
}

func removeMark(w *World, n *Node) {
	w.T.Helper()
	entries, err := n.Disk().List("/data")
	if err != nil {
		w.Fatalf("%v", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name, "failed-directory-") {
			if err := n.Disk().Remove("/data/" + e.Name); err != nil {
				w.Fatalf("%v", err)
			}
			return
		}
	}
	w.Fatalf("there is no mark among %v", entries)
}

// Rotten bits below the recovery point: whoever reads gets what was written or an error, the node lives on, and the
// partition beside it does not notice.
func TestTrap09RottenBitsAreNeverServedAsRecords(t *testing.T) {
	for seed := range Seeds(60) {
		Run(t, seed, func(w *World) {
			dice := w.Dice("rot")
			n := w.Node("broker")
			n.MustStart()
			c := w.MustDial("client", n)
			w.mustCreate(c, "orders", 2, "internal.segment.bytes", "2000", "index.interval.bytes", "200")
			var want []string
			for i := range 80 {
				v := valueOf("p", i)
				w.mustProduce(c, "orders", 0, v)
				w.mustProduce(c, "orders", 1, v)
				want = append(want, v)
			}
			if err := n.Stop(); err != nil {
				w.Fatalf("stop: %v", err)
			}
			rotten := flipBits(w, n, "/data/orders-0", 1+dice.IntN(3), dice.IntN)
			n.MustStart()
			c = w.MustDial("client", n)
			for from := range int64(80) {
				got, err := c.Fetch(w.Context(), "orders", 0, from, FetchOptions{MaxBytes: 1500})
				if c.Err() != nil { // damage found while it is sent ends the connection
					c = w.MustDial("client", n)
					got, err = c.Fetch(w.Context(), "orders", 0, from, FetchOptions{MaxBytes: 1500})
				}
				if err != nil && from < rotten {
					w.Fatalf("offset %d, and %d is the first that is rotten: %v", from, rotten, err)
				}
				if err != nil {
					continue
				}
				records, _, err := Records(got.RecordBatches, from) // what the client's checksum refuses is no record
				if len(records) == 0 && from < rotten {
					w.Fatalf("nothing is served at offset %d (%v), and %d is the first that is rotten", from, err, rotten)
				}
				for _, r := range records {
					if r.Value != want[r.Offset] {
						w.Fatalf("offset %d is served as %q, written was %q", r.Offset, r.Value, want[r.Offset])
					}
				}
			}
			if got := w.values(c, "orders", 1); !slices.Equal(got, want) {
				w.Fatalf("orders-1 has suffered: %d of %d records", len(got), len(want))
			}
			if err := n.Broker().Failure(); err != nil {
				w.Fatalf("the node has failed: %v", err)
			}
		})
	}
}

// flipBits rots a log's segments where a checksum covers them: from the batch's magic on. Its offset, in the eight bytes
// before its length, is covered by none, here as in Kafka.
// It returns the offset of the first batch that is hit.
func flipBits(w *World, n *Node, dir string, bits int, draw func(int) int) (first int64) {
	w.T.Helper()
	first = 1 << 62
	entries, err := n.Disk().List(dir)
	if err != nil {
		w.Fatalf("%v", err)
	}
	var segments []disk.Entry
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".log") && e.Size > 0 {
			segments = append(segments, e)
		}
	}
	for range bits {
		s := segments[draw(len(segments))]
		data, err := disk.ReadFile(n.Disk(), dir+"/"+s.Name, 1<<20)
		if err != nil {
			w.Fatalf("%v", err)
		}
		var covered, offsets []int64
		for at := int64(0); at < int64(len(data)); {
			b, _, err := batch.Next(data[at:])
			if err != nil {
				break // hit before
			}
			for i := int64(16); i < b.Size(); i++ {
				covered, offsets = append(covered, at+i), append(offsets, b.BaseOffset())
			}
			at += b.Size()
		}
		if len(covered) == 0 {
			continue
		}
		hit := draw(len(covered))
		first = min(first, offsets[hit])
		if err := n.Disk().FlipBit(dir+"/"+s.Name, covered[hit], uint8(draw(8))); err != nil {
			w.Fatalf("%v", err)
		}
	}
	return first
}

// A crash at any moment of a start, after a clean stop too, loses nothing (KAFKA-10471).
func TestTrap11CrashWhileStartingIsUnclean(t *testing.T) {
	for seed := range Seeds(3) {
		for k, over := 1, false; !over; k++ {
			Run(t, seed, func(w *World) {
				n := w.Node("broker", "internal.metadata.log.segment.bytes=4096", "metadata.log.max.record.bytes.between.snapshots=1500")
				n.MustStart()
				c := w.MustDial("client", n)
				w.mustCreate(c, "orders", 2, "internal.segment.bytes", "600")
				var want []string
				for i := range 12 {
					v := valueOf("p", i)
					w.mustProduce(c, "orders", 0, v)
					want = append(want, v)
				}
				switch seed % 3 {
				case 0:
					if err := n.Stop(); err != nil {
						w.Fatalf("stop: %v", err)
					}
				case 1:
					n.Kill()
				default:
					n.Crash(seed)
				}
				over = crashAtStart(w, n, int64(k), seed+uint64(k))
				n.Fault(nil)
				n.MustStart()
				if got := w.values(w.MustDial("client", n), "orders", 0); !slices.Equal(got, want) {
					w.Fatalf("crash before operation %d of the start: %d of %d records are left", k, len(got), len(want))
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// crashAtStart starts the node and cuts its power before the k-th operation of its disk; over tells that there were
// fewer.
func crashAtStart(w *World, n *Node, k int64, seed uint64) (over bool) {
	var left atomic.Int64
	left.Store(k)
	after := make(chan *disk.Mem, 1)
	dying := n.Disk()
	n.Fault(func(disk.Op) error {
		if left.Add(-1) == 0 {
			after <- dying.Crash(seed)
		}
		return nil
	})
	err := n.Start(w.Context())
	select {
	case d := <-after:
		n.Fault(nil)
		n.CrashedDisk(d)
		return false
	default:
		if err != nil {
			w.Fatalf("start: %v", err)
		}
		n.Kill()
		return true
	}
}

// History is not the present: a name that was made and deleted again and again has the files of its last topic, and
// replaying how it came to that removes none of them.
func TestReplayedHistoryRemovesNothing(t *testing.T) {
	for seed := range Seeds(30) {
		Run(t, seed, func(w *World) {
			n := w.Node("broker", "metadata.log.max.record.bytes.between.snapshots=100000000")
			n.MustStart()
			c := w.MustDial("client", n)
			dice := w.Dice("history")
			rounds := 3 + dice.IntN(12)
			for i := range rounds {
				w.mustCreate(c, "orders", 1+dice.IntN(3))
				w.mustProduce(c, "orders", 0, fmt.Sprint("incarnation ", i))
				if i < rounds-1 {
					if err := c.DeleteTopic(w.Context(), "orders"); err != nil {
						w.Fatalf("delete: %v", err)
					}
				}
			}
			want := []string{fmt.Sprint("incarnation ", rounds-1)}
			for life := range 3 {
				switch dice.IntN(3) {
				case 0:
					n.Kill()
				case 1:
					n.Crash(seed + uint64(life))
				default:
					if err := n.Stop(); err != nil {
						w.Fatalf("stop: %v", err)
					}
				}
				n.Record()
				n.MustStart()
				for _, op := range n.Record() {
					if (op.Kind == disk.OpRemove || op.Kind == disk.OpRename) && op.To == "" && op.Path == "/data/orders-0" ||
						op.Kind == disk.OpRename && op.Path == "/data/orders-0" {
						w.Fatalf("life %d: the start does %s %s", life, op.Kind, op.Path)
					}
				}
				if got := w.values(w.MustDial("client", n), "orders", 0); !slices.Equal(got, want) {
					w.Fatalf("life %d: orders holds %v, want %v", life, got, want)
				}
			}
		})
	}
}

// A start on a full disk waits for space and then serves what was there.
func TestStartOnAFullDiskWaitsForSpace(t *testing.T) {
	Run(t, 1, func(w *World) {
		n := w.Node("broker")
		n.MustStart()
		c := w.MustDial("client", n)
		w.mustCreate(c, "orders", 1)
		w.mustProduce(c, "orders", 0, "a")
		n.Kill()
		n.Disk().SetCapacity(1)
		d := n.Disk()
		time.AfterFunc(10*time.Second, func() { d.SetCapacity(0) })
		n.MustStart()
		if got := w.values(w.MustDial("client", n), "orders", 0); !slices.Equal(got, []string{"a"}) {
			w.Fatalf("read %v", got)
		}
	})
}
