//go:build compat

package compat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/test/compat/rig"
)

// TestFiles has Apache Kafka's DumpLogSegments read what a broker left on disk: segments with
// every record, both kinds of index, producer snapshots. After a clean stop, after kill -9 as the
// files then lie there, and after the recovery from it.
func TestFiles(t *testing.T) {
	b := rig.Start(t)
	// Small segments and a dense index, so that there is something of everything.
	createTopic(t, b.Addr, "files", 1, "segment.bytes=1048576", "index.interval.bytes=2000", "segment.index.bytes=20000")
	dir := filepath.Join(b.Data, "files-0")
	var expected []string
	seed := rig.Seed(t)
	for round := range 3 {
		expected = append(expected, fillSegments(t, b.Addr, seed+uint64(round))...)
		switch round {
		case 0:
			b.Stop()
			checkFiles(t, "after a clean stop", dir, expected, true)
			checkSnapshots(t, dir, len(expected))
			b.Restart()
		case 1:
			b.Kill()
			checkFiles(t, "after kill -9", dir, expected, false)
			dump(t, glob(t, dir, "*.snapshot"))
			b.Restart()
		case 2:
			b.Stop()
			checkFiles(t, "after recovery and a clean stop", dir, expected, true)
			checkSnapshots(t, dir, len(expected))
		}
	}
}

// fillSegments produces some three segments with every codec, idempotent and not, and says how
// DumpLogSegments has to show each record.
func fillSegments(t *testing.T, addr string, seed uint64) (expected []string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx := within(t, patience)
	for i, codec := range codecs {
		opts := []kgo.Opt{kgo.ProducerBatchCompression(kgoCodecs[codec]), kgo.ProducerBatchMaxBytes(20_000)}
		if i%2 == 1 {
			opts = append(opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
		}
		cl := kgoClient(t, addr, opts...)
		for range 12 {
			var records []*kgo.Record
			for range 50 {
				r := &kgo.Record{Topic: "files", Key: fmt.Appendf(nil, "%d", rng.IntN(1000)), Timestamp: yesterday.Add(time.Duration(rng.Int64N(int64(24 * time.Hour)))).Truncate(time.Millisecond)}
				if rng.IntN(10) > 0 {
					r.Value = make([]byte, 500+rng.IntN(1000))
					for j := range r.Value {
						r.Value[j] = "0123456789abcdef"[rng.IntN(16)]
					}
				}
				valueSize := len(r.Value)
				if r.Value == nil {
					valueSize = -1
				}
				var headers []string
				for h := range rng.IntN(3) {
					r.Headers = append(r.Headers, kgo.RecordHeader{Key: fmt.Sprintf("h%d", h), Value: []byte("v")})
					headers = append(headers, fmt.Sprintf("h%d", h))
				}
				expected = append(expected, fmt.Sprintf("CreateTime: %d keySize: %d valueSize: %d headerKeys: [%s]", r.Timestamp.UnixMilli(), len(r.Key), valueSize, strings.Join(headers, ",")))
				records = append(records, r)
			}
			if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
				t.Fatalf("seed %d: produce: %v", seed, err)
			}
		}
	}
	return expected
}

var (
	batchLine  = regexp.MustCompile(`^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .*partitionLeaderEpoch: (\d+) .*isvalid: (\w+)$`)
	recordLine = regexp.MustCompile(`^\| offset: (\d+) (CreateTime: \d+ keySize: -?\d+ valueSize: -?\d+) sequence: -?\d+ (headerKeys: \[.*\])$`)
	// It reports -1 as the offset before every segment's first, so "non-consecutive" is looked at apart.
	complaints = regexp.MustCompile(`(?i)mismatch|out of order|invalid|corrupt|exception|not found|failed`)
)

func glob(t *testing.T, dir string, patterns ...string) []string {
	t.Helper()
	var names []string
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	return names
}

func dump(t *testing.T, files []string, flags ...string) string {
	t.Helper()
	out, err := rig.TryJava(t, nil, dumpSegments, append(flags, "--files", strings.Join(files, ","))...)
	if err != nil {
		t.Fatalf("DumpLogSegments %v: %v\n%.4000s", flags, err, out)
	}
	return out
}

func checkFiles(t *testing.T, when, dir string, expected []string, clean bool) {
	t.Helper()
	segments := glob(t, dir, "*.log")
	if len(segments) < 3 {
		t.Fatalf("%s: %d segments, the test wants several", when, len(segments))
	}
	var got []string
	next := 0
	for _, line := range lines(dump(t, segments, "--deep-iteration")) {
		if m := batchLine.FindStringSubmatch(line); m != nil {
			if m[5] != "true" || m[1] != strconv.Itoa(next) {
				t.Fatalf("%s: a batch from %d on is expected and valid, not %s", when, next, line)
			}
			last, _ := strconv.Atoi(m[2])
			next = last + 1
		} else if m := recordLine.FindStringSubmatch(line); m != nil {
			if m[1] != strconv.Itoa(len(got)) {
				t.Fatalf("%s: record %d is expected, not %s", when, len(got), line)
			}
			got = append(got, m[2]+" "+m[3])
		} else if gap := strings.TrimSpace(line); strings.Contains(gap, " is followed by ") && !strings.HasPrefix(gap, "-1 ") {
			t.Fatalf("%s: DumpLogSegments: offsets are not consecutive: %s", when, gap)
		} else if complaints.MatchString(line) {
			t.Fatalf("%s: DumpLogSegments: %s", when, line)
		}
	}
	equalLines(t, when, got, expected)
	if !clean && rig.System() == "kafka" {
		return // its live index files are preallocated, and only its own recovery mends that
	}
	files := glob(t, dir, "*.index", "*.timeindex")
	want := 2 * len(segments)
	if !clean {
		want -= 2 // what the last segment's will hold may be in memory still
	}
	if len(files) < want {
		t.Errorf("%s: %d indexes for %d segments", when, len(files), len(segments))
	}
	sane := dump(t, files, "--index-sanity-check")
	for _, f := range files {
		if !strings.Contains(sane, f+" passed sanity check.") {
			t.Errorf("%s: %s did not pass the sanity check:\n%s", when, filepath.Base(f), sane)
		}
	}
	entries := dump(t, files)
	if n := strings.Count(entries, "offset: "); n < 100 {
		t.Errorf("%s: only %d entries in %d indexes:\n%.2000s", when, n, len(files), entries)
	}
	for _, line := range lines(entries) {
		if complaints.MatchString(line) {
			t.Errorf("%s: DumpLogSegments: %s", when, line)
		}
	}
}

// checkSnapshots wants one for every later segment and one at the end, each as of its own offset.
func checkSnapshots(t *testing.T, dir string, end int) {
	t.Helper()
	segments, snapshots := glob(t, dir, "*.log"), glob(t, dir, "*.snapshot")
	var want []string
	for _, s := range segments[1:] {
		want = append(want, strings.TrimSuffix(s, ".log")+".snapshot")
	}
	if last := filepath.Join(dir, fmt.Sprintf("%020d.snapshot", end)); !slices.Contains(want, last) {
		want = append(want, last)
	}
	for _, w := range want {
		if !slices.Contains(snapshots, w) {
			t.Errorf("no snapshot %s among %d", filepath.Base(w), len(snapshots))
		}
	}
	var at int
	producers := map[int]int{}
	for _, line := range lines(dump(t, snapshots)) {
		if name, ok := strings.CutPrefix(line, "Dumping "); ok {
			at, _ = strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".snapshot"))
			continue
		}
		m := regexp.MustCompile(`^producerId: \d+ producerEpoch: 0 coordinatorEpoch: -1 currentTxnFirstOffset: OptionalLong.empty lastTimestamp: \d+ firstSequence: (\d+) lastSequence: (\d+) lastOffset: (\d+) offsetDelta: (\d+) timestamp: \d+$`).FindStringSubmatch(line)
		if m == nil {
			t.Errorf("DumpLogSegments: %s", line)
			continue
		}
		first, _ := strconv.Atoi(m[1])
		lastSequence, _ := strconv.Atoi(m[2])
		lastOffset, _ := strconv.Atoi(m[3])
		delta, _ := strconv.Atoi(m[4])
		if lastOffset >= at || lastSequence-first != delta {
			t.Errorf("snapshot at %d: %s", at, line)
		}
		producers[at]++
	}
	if producers[end]%3 != 0 || producers[end] == 0 { // three of five clients a round are idempotent
		t.Errorf("the snapshot at the end names %d producers", producers[end])
	}
}

// TestLeaderEpochCheckpoint lets Apache Kafka and the broker under test live the same story, with
// restarts between records, and compares the leader-epoch checkpoint with the history that the
// batches tell, byte for byte; Apache Kafka's shows that the rendering is right.
func TestLeaderEpochCheckpoint(t *testing.T) {
	story := func(b *rig.Broker) (epochs string, checkpoint []byte) {
		createTopic(t, b.Addr, "epochs", 1)
		for round, count := range []int{5, 7, 3} {
			cl := kgoClient(t, b.Addr)
			for range count {
				if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: "epochs", Value: []byte("x")}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			cl.Close()
			if round == 1 {
				b.Kill()
			} else {
				b.Stop()
			}
			if round < 2 {
				b.Restart()
			}
		}
		dir := filepath.Join(b.Data, "epochs-0")
		checkpoint, err := os.ReadFile(filepath.Join(dir, "leader-epoch-checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		return epochHistory(t, dir), checkpoint
	}
	kafkaHistory, kafkas := story(rig.StartKafka(t))
	if string(kafkas) != kafkaHistory {
		t.Fatalf("Apache Kafka writes %q where this test expects %q: the test is wrong", kafkas, kafkaHistory)
	}
	history, ours := story(rig.Start(t))
	if string(ours) != history {
		t.Errorf("the checkpoint is %q, the batches say %q", ours, history)
	}
	if history == kafkaHistory && !bytes.Equal(ours, kafkas) {
		t.Errorf("the same history: %q, Apache Kafka writes %q", ours, kafkas)
	}
	t.Logf("Apache Kafka: %q, ours: %q", kafkas, ours)
}

// epochHistory renders where each epoch's first batch stands as Apache Kafka renders it.
func epochHistory(t *testing.T, dir string) string {
	t.Helper()
	var entries []string
	last := ""
	for _, line := range lines(dump(t, glob(t, dir, "*.log"), "--deep-iteration")) {
		if m := batchLine.FindStringSubmatch(line); m != nil && m[4] != last {
			last = m[4]
			entries = append(entries, m[4]+" "+m[1]+"\n")
		}
	}
	return fmt.Sprintf("0\n%d\n%s", len(entries), strings.Join(entries, ""))
}
