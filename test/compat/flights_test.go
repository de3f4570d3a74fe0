//go:build compat

package compat

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

const (
	flightsPackage = "vega-datasets@3.2.1"
	flightsFile    = "package/data/flights-3m.parquet"
	flightsRows    = 3_000_000
)

// airport is what is compared of one key: how many, how late, and every line in its order.
type airport struct {
	flights, delays int64
	order           uint64 // a hash chained over the lines in their order
}

// tally reads flights and counts them by airport of origin.
type tally map[string]airport

func (t tally) add(origin string, line []byte, delay int64) {
	a := t[origin]
	h := fnv.New64a()
	fmt.Fprintf(h, "%x\n", a.order)
	h.Write(line)
	a.flights, a.delays, a.order = a.flights+1, a.delays+delay, h.Sum64()
	t[origin] = a
}

// tallyOf counts lines of JSON. Within one airport the running number must go up by one.
func tallyOf(t *testing.T, what string, r io.Reader) tally {
	t.Helper()
	all := tally{}
	in := bufio.NewScanner(r)
	for in.Scan() {
		var f struct {
			Origin string
			N      int64
			Delay  int64
		}
		if err := json.Unmarshal(in.Bytes(), &f); err != nil {
			t.Fatalf("%s: %v in %q", what, err, in.Bytes())
		}
		if want := all[f.Origin].flights + 1; f.N != want {
			t.Fatalf("%s: flight %d of %s stands where %d should", what, f.N, f.Origin, want)
		}
		all.add(f.Origin, in.Bytes(), f.Delay)
	}
	if err := in.Err(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return all
}

func (t tally) compare(tt *testing.T, what string, want tally) {
	tt.Helper()
	total := int64(0)
	for origin, a := range t {
		total += a.flights
		if a != want[origin] {
			tt.Errorf("%s: %s has %d flights and %d minutes of delay (chain %x), want %d and %d (%x)", what, origin,
				a.flights, a.delays, a.order, want[origin].flights, want[origin].delays, want[origin].order)
		}
	}
	if len(t) != len(want) || total != flightsRows {
		tt.Errorf("%s: %d flights from %d airports, want %d from %d", what, total, len(t), flightsRows, len(want))
	}
}

// fetchFlights gets the package with npm, once per machine, and makes JSON lines of it.
func fetchFlights(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "barnabas", strings.ReplaceAll(flightsPackage, "@", "-"))
	parquet := filepath.Join(dir, flightsFile)
	if _, err := os.Stat(parquet); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		packed := rig.Run(t, nil, "npm", "pack", "--silent", "--pack-destination", dir, flightsPackage)
		names := lines(packed)
		rig.Run(t, nil, "tar", "-xzf", filepath.Join(dir, names[len(names)-1]), "-C", dir, flightsFile)
	}
	home := t.TempDir()
	convert := filepath.Join(home, "flights")
	build := exec.Command("go", "build", "-o", convert, ".")
	build.Dir = filepath.Join(rig.Root(), "test", "compat", "flights")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the converter: %v\n%s", err, out)
	}
	text := filepath.Join(home, "flights.jsonl")
	out, err := os.Create(text)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(convert, parquet)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("convert: %v", err)
	}
	return text
}

// TestFlights sends three million real flights through the command line, kills the broker in the
// middle of it and again before the last reading, and compares what two clients read back.
func TestFlights(t *testing.T) {
	file := fetchFlights(t)
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	want := tallyOf(t, "the file", in)
	b := rig.Start(t)
	createTopic(t, b.Addr, "flights", 12)

	began := time.Now()
	producer := flightProducer(t, b.Addr)
	killed := make(chan struct{})
	producer.Stdin, producer.Stderr = withheld(t, file, killed), os.Stderr
	if err := producer.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- producer.Wait() }()
	rig.Eventually(t, 2*patience, "a third of the flights is there", func() bool {
		select {
		case err := <-done:
			t.Fatalf("the producer ended before the broker was killed: %v", err)
		default:
		}
		return flightsThere(t, b.Addr) > flightsRows/3
	})
	b.Kill()
	close(killed)
	b.Restart()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("the producer: %v", err)
		}
	case <-time.After(2 * patience):
		t.Fatal("the producer is not done")
	}
	t.Logf("produced in %v, with one kill", time.Since(began).Round(time.Millisecond))

	readFlights(t, "kcat", want, exec.Command("kcat", "-b", b.Addr, "-C", "-t", "flights", "-o", "beginning", "-e", "-q"))
	b.Kill()
	b.Restart()
	if rig.System() == "barnabas" {
		readFlights(t, "barnabas consume", want, barnabas(t, "consume", "flights", "-b", b.Addr, "--from", "beginning", "-o", "value", "--timeout", "5m"))
	}
	sameKeySamePartition(t, b.Addr, want)
}

// barnabas is our own command line.
func barnabas(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(rig.Binary(t), args...)
	cmd.Env = rig.Environment()
	return cmd
}

// flightProducer is our command line, or kcat where an Apache Kafka judges the test itself. It reads the flights.
func flightProducer(t *testing.T, addr string) *exec.Cmd {
	t.Helper()
	if rig.System() == "barnabas" {
		return barnabas(t, "produce", "flights", "-b", addr, "--json", "origin", "--file", "/dev/stdin", "--timeout", "5m")
	}
	script := `sed -E 's/^\{"origin":"([^"]*)"/\1\t&/' | kcat -E -b "$1" -P -t flights -K '\t' -X enable.idempotence=true`
	return exec.Command("bash", "-c", script, "flights", addr)
}

// withheld reads a file, but its last third only once a channel is closed: until then nobody is done with it.
func withheld(t *testing.T, file string, until <-chan struct{}) io.Reader {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	about, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return io.MultiReader(io.LimitReader(f, about.Size()/3*2), &gate{f, until})
}

// gate reads nothing before a channel is closed.
type gate struct {
	io.Reader
	open <-chan struct{}
}

func (g *gate) Read(p []byte) (int, error) {
	<-g.open
	return g.Reader.Read(p)
}

func flightsThere(t *testing.T, addr string) int64 {
	t.Helper()
	ends, err := admin(t, addr).ListEndOffsets(within(t, patience), "flights")
	if err != nil {
		t.Fatalf("end offsets: %v", err)
	}
	total := int64(0)
	for _, o := range ends["flights"] {
		total += o.Offset
	}
	return total
}

// readFlights compares what a consumer prints, one flight per line.
func readFlights(t *testing.T, who string, want tally, cmd *exec.Cmd) {
	t.Helper()
	began := time.Now()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	tallyOf(t, who, out).compare(t, who, want)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	t.Logf("%s read them in %v", who, time.Since(began).Round(time.Millisecond))
}

// sameKeySamePartition reads keys alone: each airport's flights lie in one partition.
func sameKeySamePartition(t *testing.T, addr string, want tally) {
	t.Helper()
	cmd := exec.Command("kcat", "-b", addr, "-C", "-t", "flights", "-o", "beginning", "-e", "-q", "-f", "%p %k\n")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	home := map[string]string{}
	in := bufio.NewScanner(out)
	for in.Scan() {
		partition, key, _ := strings.Cut(in.Text(), " ")
		if at, seen := home[key]; seen && at != partition {
			t.Fatalf("flights from %s lie in partitions %s and %s", key, at, partition)
		}
		home[key] = partition
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("kcat: %v", err)
	}
	if len(home) != len(want) {
		t.Errorf("%d keys, want %d", len(home), len(want))
	}
}
