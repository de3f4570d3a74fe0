package node_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world runs a test in a bubble with one node that has not been started.
func world(t *testing.T, f func(w *clustertest.World, n *clustertest.Node), settings ...string) {
	clustertest.Run(t, 1, func(w *clustertest.World) { f(w, w.Node("broker", settings...)) })
}

// expectRefusal starts the node and demands an error that holds all of these.
func expectRefusal(w *clustertest.World, n *clustertest.Node, is error, words ...string) {
	w.T.Helper()
	err := n.Start(w.Context())
	if err == nil {
		w.Fatalf("the node starts")
	}
	if is != nil && !errors.Is(err, is) {
		w.Errorf("refused with %v, want %v", err, is)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.Errorf("the refusal does not say %q: %v", word, err)
		}
	}
}

func mustStop(w *clustertest.World, n *clustertest.Node) {
	w.T.Helper()
	if err := n.Stop(); err != nil {
		w.Fatalf("stop: %v", err)
	}
}

// write makes a topic and a record, and returns what check demands.
func write(w *clustertest.World, n *clustertest.Node, topic, value string) {
	w.T.Helper()
	c := w.MustDial("client", n)
	if _, err := c.CreateTopic(w.Context(), topic, 1); err != nil {
		w.Fatalf("create: %v", err)
	}
	if _, err := c.Produce(w.Context(), -1, topic, 0, clustertest.Batch(time.Now().UnixMilli(), batch.None, value)); err != nil {
		w.Fatalf("produce: %v", err)
	}
}

func check(w *clustertest.World, n *clustertest.Node, topic, value string) {
	w.T.Helper()
	got, err := w.MustDial("client", n).ReadAll(w.Context(), topic, 0, 0)
	if err != nil || len(got) != 1 || got[0].Value != value {
		w.Fatalf("%s holds %v (%v), want %q", topic, got, err, value)
	}
}

func TestPortInUseIsSaidBeforeAnythingIsTouched(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		l, err := w.Net.Host("broker").Listen(w.Context(), "127.0.0.1:9092")
		if err != nil {
			t.Fatal(err)
		}
		n.Record()
		expectRefusal(w, n, syscall.EADDRINUSE, "9092", "--listen", "listeners")
		if ops := n.Record(); len(ops) > 0 {
			w.Errorf("the disk was touched: %v", ops)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		n.MustStart()
	})
}

func TestAdminPortInUseIsSaid(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		if _, err := w.Net.Host("broker").Listen(w.Context(), "127.0.0.1:9644"); err != nil {
			t.Fatal(err)
		}
		expectRefusal(w, n, syscall.EADDRINUSE, "9644", "admin")
	}, "admin.listener=127.0.0.1:9644")
}

func TestUnreadableDirectoryIsRefusedOrLeftOut(t *testing.T) {
	unreadable := func(op disk.Op) error {
		if strings.HasPrefix(op.Path, "/bad") {
			return syscall.EACCES
		}
		return nil
	}
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.Fault(unreadable)
		expectRefusal(w, n, syscall.EACCES, "/bad")
	}, "log.dirs=/bad")
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.Fault(unreadable)
		expectRefusal(w, n, syscall.EACCES, "/bad") // the metadata's
	}, "log.dirs=/bad,/good")
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.Fault(unreadable)
		n.MustStart()
		write(w, n, "t", "a")
		if !strings.Contains(n.Log(), "left out") || !strings.Contains(n.Log(), "/bad") {
			w.Errorf("the log does not say that /bad is left out:\n%s", n.Log())
		}
		if got, want := logDirs(w.Context(), t, w.MustDial("client", n)), "/bad: KAFKA_STORAGE_ERROR /good: 1 topics"; got != want {
			w.Errorf("described as %q, want %q", got, want)
		}
		mustStop(w, n)
		n.Fault(nil)
		n.MustStart()
		check(w, n, "t", "a")
	}, "log.dirs=/good,/bad")
}

// logDirs is what clients are told of the data directories.
func logDirs(ctx context.Context, t *testing.T, c *clustertest.Client) string {
	t.Helper()
	res, err := clustertest.Call[*kmsg.DescribeLogDirsResponse](ctx, c, kmsg.NewPtrDescribeLogDirsRequest())
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, d := range res.Dirs {
		state := fmt.Sprint(len(d.Topics), " topics")
		if d.ErrorCode != 0 {
			state = kerr.TypedErrorForCode(d.ErrorCode).Message
		}
		told = append(told, d.Dir+": "+state)
	}
	slices.Sort(told)
	return strings.Join(told, " ")
}

// TestLeftOutDirectoryIsNotGivenUp: as long as a directory cannot be used its partitions wait for it, whatever
// unclean.leader.election.enable says, for their records may be there.
func TestLeftOutDirectoryIsNotGivenUp(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.MustStart()
		for _, topic := range []string{"a", "b", "c", "d"} {
			write(w, n, topic, topic)
		}
		mustStop(w, n)
		n.Fault(func(op disk.Op) error {
			if strings.HasPrefix(op.Path, "/bad") {
				return syscall.EACCES
			}
			return nil
		})
		n.MustStart()
		time.Sleep(time.Hour)
		waiting, c := 0, w.MustDial("client", n)
		for _, topic := range []string{"a", "b", "c", "d"} {
			t, err := c.Topic(w.Context(), topic)
			if err != nil {
				w.Fatalf("describe: %v", err)
			}
			if t.Partitions[0].Leader < 0 {
				waiting++
				continue
			}
			check(w, n, topic, topic)
		}
		if waiting == 0 {
			w.Errorf("nothing waits for the directory")
		}
		mustStop(w, n)
		n.Fault(nil)
		n.MustStart()
		for _, topic := range []string{"a", "b", "c", "d"} {
			check(w, n, topic, topic)
		}
	}, "log.dirs=/good,/bad", "unclean.leader.election.enable=true", "unclean.leader.election.interval.ms=1000")
}

func TestDirectoryOfAnotherNodeOrClusterIsRefused(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.MustStart()
		mustStop(w, n)
		n.Set("node.id=2")
		expectRefusal(w, n, commitlog.ErrForeign, "/data", "node 1")
	})
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		for _, dir := range []string{"/one", "/two"} { // two clusters
			n.Set("log.dirs=" + dir)
			n.MustStart()
			mustStop(w, n)
		}
		n.Set("log.dirs=/one,/two")
		expectRefusal(w, n, nil, "/one", "/two", "cluster", "log.dirs")
	})
}

func TestNewerFormatIsRefused(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.MustStart()
		mustStop(w, n)
		const name = "/data/meta.properties"
		data, err := disk.ReadFile(n.Disk(), name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		newer := strings.Replace(string(data), "version=1", "version=2", 1)
		if err := disk.WriteFileAtomic(n.Disk(), name, []byte(newer)); err != nil {
			t.Fatal(err)
		}
		expectRefusal(w, n, commitlog.ErrNewerFormat, name, "version 2")
	})
}

func TestSecondStartOnADirectoryNamesTheHolder(t *testing.T) {
	world(t, func(w *clustertest.World, n *clustertest.Node) {
		n.MustStart()
		write(w, n, "t", "a")
		set, err := n.Config()
		if err != nil {
			t.Fatal(err)
		}
		second, err := node.Start(w.Context(), node.Options{
			Config: set, FS: n.Disk(), Network: w.Net.Host("other"), Logger: slog.New(slog.DiscardHandler),
			Now: time.Now, Random: rand.Reader, Version: "test",
		})
		var locked *disk.LockedError
		if !errors.As(err, &locked) || !strings.Contains(err.Error(), "pid ") {
			w.Fatalf("second start: %v, %v", second, err)
		}
		check(w, n, "t", "a") // the first has not noticed
	})
}

func TestListeningForOthersNeedsInsecure(t *testing.T) {
	for host, allowed := range map[string]bool{
		"127.0.0.1": true, "localhost": true, "[::1]": true, "": false, "broker": false, "10.1.2.3": false,
	} {
		world(t, func(w *clustertest.World, n *clustertest.Node) {
			set, err := n.Config()
			if err != nil {
				t.Fatal(err)
			}
			o := node.Options{
				Config: set, FS: n.Disk(), Network: w.Net.Host("broker"), Logger: slog.New(slog.DiscardHandler),
				Now: time.Now, Random: rand.Reader, Version: "test",
			}
			for _, o.Insecure = range []bool{false, true} {
				running, err := node.Start(w.Context(), o)
				refused := errors.Is(err, node.ErrInsecure)
				if refused != (!allowed && !o.Insecure) {
					w.Errorf("listen on %q, insecure %v: %v", host, o.Insecure, err)
				}
				if refused && !strings.Contains(err.Error(), "--insecure") {
					w.Errorf("the refusal does not name --insecure: %v", err)
				}
				if err == nil {
					if err := running.Close(w.Context()); err != nil {
						w.Errorf("close: %v", err)
					}
				}
			}
		}, "listeners=PLAINTEXT://"+host+":9092")
	}
}

// Where the metadata log is looked for in the wrong place, every topic looks deleted. Nothing of it may be.
func TestMissingMetadataLogIsNoReasonToDeleteData(t *testing.T) {
	for _, c := range []struct {
		name     string
		mistake  func(w *clustertest.World, n *clustertest.Node)
		undo     []string
		complain []string
	}{
		{
			"directories in another order", func(_ *clustertest.World, n *clustertest.Node) { n.Set("log.dirs=/more,/data") },
			[]string{"log.dirs=/data,/more"},
			[]string{"/data", "metadata.log.dir"},
		},
		{
			"metadata.log.dir forgotten", func(_ *clustertest.World, n *clustertest.Node) { n.Set("metadata.log.dir=/elsewhere") },
			[]string{"metadata.log.dir"},
			[]string{"metadata.log.dir"},
		},
		{"the metadata's directory replaced by an empty one", func(_ *clustertest.World, n *clustertest.Node) {
			n.Set("log.dirs=/new,/more")
		}, []string{"log.dirs=/data,/more"}, []string{"metadata.log.dir"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			world(t, func(w *clustertest.World, n *clustertest.Node) {
				n.MustStart()
				for i := range 4 {
					write(w, n, fmt.Sprint("t", i), fmt.Sprint(i))
				}
				mustStop(w, n)
				c.mistake(w, n)
				expectRefusal(w, n, nil, c.complain...)
				n.Set(c.undo...)
				n.MustStart()
				for i := range 4 {
					check(w, n, fmt.Sprint("t", i), fmt.Sprint(i))
				}
			}, "log.dirs=/data,/more")
		})
	}
}

// A start that is cancelled, whatever it is doing, ends, gives everything back, and the next one finds all in order.
func TestStartCancelledAnywhere(t *testing.T) {
	for k, over := int64(1), false; !over; k += 3 {
		world(t, func(w *clustertest.World, n *clustertest.Node) {
			n.MustStart()
			write(w, n, "t", "a")
			n.Kill()
			ctx, cancel := context.WithCancel(w.Context())
			defer cancel()
			var left atomic.Int64
			left.Store(k)
			n.Fault(func(disk.Op) error {
				if left.Add(-1) == 0 {
					cancel()
				}
				return nil
			})
			err := n.Start(ctx)
			over = left.Load() > 0
			if err != nil && !errors.Is(err, context.Canceled) {
				w.Errorf("cancelled before operation %d: %v", k, err)
			}
			n.Fault(nil)
			mustStop(w, n)
			n.MustStart()
			check(w, n, "t", "a")
		})
	}
}

// Close in the middle of load: who was answered finds the record again, and nothing is left running.
func TestCloseUnderLoad(t *testing.T) {
	for seed := range clustertest.Seeds(20) {
		clustertest.Run(t, seed, func(w *clustertest.World) {
			n := w.Node("broker")
			n.MustStart()
			c := w.MustDial("client", n)
			if _, err := c.CreateTopic(w.Context(), "t", 1); err != nil {
				w.Fatalf("create: %v", err)
			}
			answered := make(chan []string)
			go func() {
				var values []string
				for i := 0; ; i++ {
					v := fmt.Sprint(i)
					if _, err := c.Produce(w.Context(), -1, "t", 0, clustertest.Batch(time.Now().UnixMilli(), batch.None, v)); err != nil {
						answered <- values
						return
					}
					values = append(values, v)
				}
			}()
			time.Sleep(100*time.Millisecond + time.Duration(seed)*777*time.Microsecond)
			mustStop(w, n)
			want := <-answered
			n.MustStart()
			all, err := w.MustDial("client", n).ReadAll(w.Context(), "t", 0, 0)
			if err != nil || len(all) < len(want) || len(all) > len(want)+1 {
				w.Fatalf("%d records after %d answers: %v", len(all), len(want), err)
			}
			for i, v := range want {
				if all[i].Value != v {
					w.Fatalf("record %d is %q", i, all[i].Value)
				}
			}
		})
	}
}

// The real thing, small: files, sockets and the system's clock.
func TestNodeOnFilesAndSockets(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	set, warnings, err := config.Load(config.Sources{Flags: []config.Setting{
		{Key: "log.dirs", Value: dir + "/one,./two"},
		{Key: "listeners", Value: "PLAINTEXT://127.0.0.1:0"},
		{Key: "admin.listener", Value: "127.0.0.1:0"},
	}})
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	start := func() *node.Node {
		n, err := node.Start(t.Context(), node.Options{
			Config: set, FS: disk.OS, Network: netx.TCP, Logger: slog.New(slog.DiscardHandler),
			Now: time.Now, Random: rand.Reader, Version: "test",
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	dial := func(n *node.Node) *clustertest.Client {
		conn, err := net.Dial("tcp", n.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := clustertest.NewClient(t.Context(), "client", conn)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	n := start()
	c := dial(n)
	if _, err := c.CreateTopic(t.Context(), "t", 4); err != nil {
		t.Fatal(err)
	}
	if got, want := logDirs(t.Context(), t, c), dir+"/one: 1 topics "+dir+"/two: 1 topics"; got != want {
		t.Errorf("described as %q, want %q", got, want)
	}
	var want []string
	for i := range 40 {
		v := fmt.Sprint("value ", i)
		if _, err := c.Produce(t.Context(), -1, "t", 2, clustertest.Batch(time.Now().UnixMilli(), batch.Codec(i%5), v)); err != nil {
			t.Fatal(err)
		}
		want = append(want, v)
	}
	for range 2 {
		if err := n.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = c.Close() // the broker has closed it
		n = start()
		c = dial(n)
		var got []string
		all, err := c.ReadAll(t.Context(), "t", 2, 0)
		for _, r := range all {
			got = append(got, r.Value)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("read %v: %v", got, err)
		}
	}
	if err := errors.Join(c.Close(), n.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}
