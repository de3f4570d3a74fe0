//go:build compat

package compat

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

// What strace -y prints, which tells the file behind a descriptor.
var (
	flushDone = regexp.MustCompile(`(?m)^.*\b(fsync|fdatasync|syncfs|sync_file_range|sync|msync)\(.*= 0$|<\.\.\. (fsync|fdatasync|syncfs) resumed>.*= 0$`)
	// What has to do with the topic cached: checkpoints of the whole broker come with time, however many records there are.
	flushOfCached = regexp.MustCompile(`(?m)\b(fsync|fdatasync|sync_file_range)\(\d+<[^>]*/cached-0[/>]|\b(syncfs|sync|msync)\(`)
)

// TestFlushes counts on the real kernel how often the broker makes its data durable: for each of
// 200 single sends that want every replica's word in a durable topic, and next to never where
// the page cache is enough.
func TestFlushes(t *testing.T) {
	if rig.System() != "barnabas" {
		t.Log("Apache Kafka does not flush before it acknowledges; what is counted here is ours")
		return
	}
	for _, c := range []struct {
		topic, setting string
		call           *regexp.Regexp
		atLeast, most  int
	}{
		{"durable", "flush.before.ack=true", flushDone, 200, 1 << 30},
		{"cached", "flush.before.ack=false", flushOfCached, 0, 10},
	} {
		t.Run(c.topic, func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "trace")
			b := rig.StartWith(t, rig.Options{Wrapper: []string{
				"strace", "-f", "-q", "-y", "-o", trace, "-e", "trace=fsync,fdatasync,syncfs,sync_file_range,sync,msync", "--seccomp-bpf",
			}})
			createTopic(t, b.Addr, c.topic, 1, c.setting)
			cl := kgoClient(t, b.Addr, kgo.RequiredAcks(kgo.AllISRAcks()))
			send := func() {
				if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: c.topic, Value: []byte("one")}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			send() // the first makes files and a producer id
			before := flushes(t, trace, c.call)
			for range 200 {
				send()
			}
			counted := flushes(t, trace, c.call) - before
			if counted < c.atLeast || counted > c.most {
				t.Errorf("200 sends with %s: %d flushes, want at least %d and at most %d", c.setting, counted, c.atLeast, c.most)
			}
			t.Logf("200 sends with %s: %d flushes", c.setting, counted)
		})
	}
}

func flushes(t *testing.T, trace string, call *regexp.Regexp) int {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return len(call.FindAllString(string(text), -1))
}
