package node_test

import (
	"crypto/rand"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"barnabas/internal/clustertest"
	"barnabas/internal/node"
)

// TestOpenFilesBoundConnections: with few descriptors fewer connections than max.connections are served,
// the others wait instead of failing, and the start says both numbers.
func TestOpenFilesBoundConnections(t *testing.T) {
	for _, c := range []struct {
		openFiles, most, served int
		warned                  string
	}{
		{100, 1 << 30, 19, "limit=100 connections=19 max.connections=1073741824"},
		{100, 7, 7, "limit=100 connections=7 max.connections=7"},
		{20_000, 7, 7, ""},
		{0, 7, 7, ""},
	} {
		world(t, func(w *clustertest.World, n *clustertest.Node) {
			set, err := n.Config()
			if err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			running, err := node.Start(w.Context(), node.Options{
				Config: set, FS: n.Disk(), Network: w.Net.Host(n.Name), Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Now: time.Now, Random: rand.Reader, Version: "test", OpenFiles: c.openFiles,
			})
			if err != nil {
				t.Fatal(err)
			}
			p := &probe{World: w, n: n}
			served := 0
			for p.outcome(p.dial("client", clustertest.Port)) == "served" && served < 100 {
				served++
			}
			if err := running.Close(w.Context()); err != nil {
				t.Error(err)
			}
			if served != c.served {
				t.Errorf("%d open files, max.connections %d: %d connections are served, want %d", c.openFiles, c.most, served, c.served)
			}
			if warned := strings.Contains(log.String(), "limit of open files"); warned != (c.warned != "") || !strings.Contains(log.String(), c.warned) {
				t.Errorf("%d open files, max.connections %d: logged\n%s", c.openFiles, c.most, log.String())
			}
		}, "max.connections="+strconv.Itoa(c.most))
	}
}
