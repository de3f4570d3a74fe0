//go:build compat

package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

var kgoCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

const patience = 3 * time.Minute // a machine that is slow and busy with others

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// kgoClient makes a client of the brokers at addr, which may be several with commas between them.
func kgoClient(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(addr, ",")...), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, opts...)...)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func admin(t *testing.T, addr string) *kadm.Client {
	t.Helper()
	return kadm.NewClient(kgoClient(t, addr))
}

func createTopic(t *testing.T, addr, topic string, partitions int32, configs ...string) {
	t.Helper()
	set := map[string]*string{}
	for _, c := range configs {
		k, v, _ := strings.Cut(c, "=")
		set[k] = &v
	}
	adm, ctx := admin(t, addr), within(t, patience)
	if _, err := adm.CreateTopic(ctx, partitions, 1, set, topic); err != nil {
		t.Fatalf("create %s: %v", topic, err)
	}
	// Apache Kafka answers before its leaders are there, and then drops what asks for no acknowledgement.
	rig.Eventually(t, patience, "every partition of "+topic+" has a leader", func() bool {
		ends, err := adm.ListEndOffsets(ctx, topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == int(partitions)
	})
}

// readAll consumes a topic from its start to the ends as they stand now, in the order of each partition.
func readAll(t *testing.T, addr, topic string) map[int32][]*kgo.Record {
	t.Helper()
	ctx := within(t, patience)
	want := endOffsets(t, addr, topic)
	maps.DeleteFunc(want, func(_ int32, end int64) bool { return end == 0 })
	cl := kgoClient(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	read := map[int32][]*kgo.Record{}
	missing := func() bool {
		for p, end := range want {
			if len(read[p]) == 0 || read[p][len(read[p])-1].Offset < end-1 {
				return true
			}
		}
		return false
	}
	for missing() {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { read[r.Partition] = append(read[r.Partition], r) })
	}
	return read
}

func inOrder(read map[int32][]*kgo.Record) []*kgo.Record {
	var all []*kgo.Record
	for p := range int32(len(read)) + 64 {
		all = append(all, read[p]...)
	}
	return all
}

func describe(r *kgo.Record) string {
	var headers []string
	for _, h := range r.Headers {
		headers = append(headers, fmt.Sprintf("%s=%s", h.Key, shown(h.Value)))
	}
	return fmt.Sprintf("%s|%s|%s|%d", shown(r.Key), shown(r.Value), strings.Join(headers, ","), r.Timestamp.UnixMilli())
}

// shown tells null from empty, and keeps large values short.
func shown(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 64:
		return fmt.Sprintf("%d bytes of %q", len(b), b[:8])
	}
	return fmt.Sprintf("%q", b)
}

func lines(s string) []string {
	s = strings.TrimRight(s, "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func equalLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("%s: %d lines, want %d; line %d is missing: %s", what, len(got), len(want), i, want[i])
		case i >= len(want):
			t.Fatalf("%s: %d lines, want %d; line %d is too many: %s", what, len(got), len(want), i, got[i])
		case got[i] != want[i]:
			t.Fatalf("%s: line %d:\n got %s\nwant %s", what, i, got[i], want[i])
		}
	}
}

func contains(t *testing.T, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s does not contain %q:\n%s", what, want, got)
		}
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func decodeJSON[T any](t *testing.T, what, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s is not JSON: %v\n%s", what, err, text)
	}
	return v
}

// yesterday is the time of the first of records that bear times of their own: a whole second, and not so long ago that retention
// would delete them, which it does from half a minute after a broker's start on.
var yesterday = time.Now().Add(-36 * time.Hour).Truncate(time.Second)
