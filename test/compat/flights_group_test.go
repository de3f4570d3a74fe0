//go:build compat

package compat

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

// The group that counts flights. Its members print, beside what every member of a group prints:
//
//	{"took":{"partition":p,"committed":c,"next":n},"at":t}
//	{"saved":{"partition":p,"next":n}}
//	{"committed":{"p":n,..},"at":t}
//
// took: the member has been given a partition; the group had committed c (-1: nothing), asked not
// before t, and the partition's file goes up to n. saved: the file has been replaced. committed: the
// broker has acknowledged offsets, not after t. t is in milliseconds of this machine's clock. A member
// that finds a gap, or an airport's flights out of order, says so and ends with another code than 0.
const (
	flightsTopic      = "flights-counted"
	flightsGroup      = "counters"
	flightsPartitions = 12
	flightsAssignor   = "range" // what all three libraries know

	// countPatience is how long the counters may take: for all that has gathered while they were killed, on a slow machine.
	countPatience = 2 * patience

	// spareParts of the flights follow where a part was counted before anybody could be killed over it.
	spareParts = 6
)

// flightsKills is who is killed, one after the other, while there are flights left to count. A
// member is replaced at once by another one in its language.
var flightsKills = []string{"Go", "broker", "Java", "JavaScript", "broker", "Go", "Java", "broker", "JavaScript"}

// flightsToCount is how many of the flights TestFlightsGroup sends: all, or as many as
// BARNABAS_TEST_FLIGHTS says where time is short.
func flightsToCount(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("BARNABAS_TEST_FLIGHTS")
	if text == "" {
		return flightsRows
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > flightsRows {
		t.Fatalf("BARNABAS_TEST_FLIGHTS=%s: a number of flights up to %d", text, flightsRows)
	}
	return n
}

// TestFlightsGroup has members in three languages count flights and sum their delays per airport,
// while they and the broker are killed. Every member keeps the next offset and the sums of a
// partition in one file, replaced in one stroke; so a flight counts once, however often it comes.
func TestFlightsGroup(t *testing.T) {
	file, err := os.Open(fetchFlights(t))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	flights := flightsToCount(t)
	parts := cut(t, file, flights, len(flightsKills)+spareParts+1)
	whole := parts[len(parts)-1].end
	want := tallyOf(t, "the file", io.NewSectionReader(file, 0, whole))

	b := rig.Start(t, groupSettings...)
	createTopic(t, b.Addr, flightsTopic, flightsPartitions)
	c := newCount(t, b)
	began := time.Now()
	for _, language := range []string{"Go", "Java", "JavaScript"} {
		c.join(language)
	}
	producer := startFeeding(t, b.Addr, file)
	fed := 0
	for _, whom := range flightsKills {
		for busy := false; !busy; fed++ {
			if fed == len(parts)-1 {
				t.Fatalf("before %s could be killed everything was counted", whom)
			}
			producer.feed(parts[fed])
			busy = c.awaitBusy(whom, parts[fed].flights)
		}
		c.kill(whom, b)
	}
	for _, p := range parts[fed:] {
		producer.feed(p)
	}
	producer.finish()
	ends := endOffsets(t, b.Addr, flightsTopic)
	c.await("every flight is counted", func() bool { return maps.Equal(c.next, ends) })
	c.leave()
	t.Logf("%d flights counted in %v, with %d kills", flights, time.Since(began).Round(time.Millisecond), len(flightsKills))

	c.check()
	if total := sum(ends); total != flights {
		t.Errorf("%d flights are in the topic, %d were sent", total, flights)
	}
	if at := committedOffsets(t, b.Addr, flightsGroup, flightsTopic); !maps.Equal(at, ends) {
		t.Errorf("the group has committed %v, the partitions end at %v", at, ends)
	}
	compareSums(t, c.state, ends, want)
}

func sum(offsets map[int32]int64) (total int64) {
	for _, o := range offsets {
		total += o
	}
	return total
}

// part is a run of lines in the file of flights.
type part struct {
	start, end int64
	flights    int64 // up to the end, from the first part on
}

// cut divides the first lines of a file into parts of nearly the same number of lines.
func cut(t *testing.T, file io.ReaderAt, lines int64, n int) []part {
	t.Helper()
	in := bufio.NewReaderSize(io.NewSectionReader(file, 0, 1<<62), 1<<20)
	parts := make([]part, 0, n)
	at, start := int64(0), int64(0)
	for line := int64(1); line <= lines; line++ {
		text, err := in.ReadSlice('\n')
		if err != nil {
			t.Fatalf("line %d of the flights: %v", line, err)
		}
		at += int64(len(text))
		if line == lines*int64(len(parts)+1)/int64(n) {
			parts = append(parts, part{start, at, line})
			start = at
		}
	}
	return parts
}

// feeding is our command line, which sends what it is given on standard input: the flights, part by part.
type feeding struct {
	t     *testing.T
	file  io.ReaderAt
	parts chan part
	fed   chan error // of the writer, once
	gone  chan error // of the process, once
}

func startFeeding(t *testing.T, addr string, file io.ReaderAt) *feeding {
	t.Helper()
	f := &feeding{t: t, file: file, parts: make(chan part, len(flightsKills)+spareParts+1), fed: make(chan error, 1), gone: make(chan error, 1)}
	cmd := barnabas(t, "produce", flightsTopic, "-b", addr, "--json", "origin", "--quiet", "--timeout", "2m")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the producer: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended where the test has passed
	go func() {
		var failed error
		for p := range f.parts {
			if _, err := io.Copy(in, io.NewSectionReader(file, p.start, p.end-p.start)); err != nil && failed == nil {
				failed = err
			}
		}
		_ = in.Close()
		f.fed <- failed
		f.gone <- cmd.Wait()
	}()
	return f
}

func (f *feeding) feed(p part) { f.parts <- p }

// finish waits until everything that was fed has been acknowledged.
func (f *feeding) finish() {
	f.t.Helper()
	close(f.parts)
	deadline := time.After(2 * patience)
	for _, what := range []chan error{f.fed, f.gone} {
		select {
		case err := <-what:
			if err != nil {
				f.t.Fatalf("the producer: %v", err)
			}
		case <-deadline:
			f.t.Fatal("the producer is not done")
		}
	}
}

// counted is a line that a member prints.
type counted struct {
	Saved *struct {
		Partition int32
		Next      int64
	}
	Took *struct {
		Partition int32
		Committed int64
	}
	Committed map[int32]int64
	At        int64 // milliseconds
	Left      bool
}

// counter is a member of the group.
type counter struct {
	*rig.Program

	// Guarded by counting's lock.
	saves int // since the last kill
	left  bool
}

// counting follows the members.
type counting struct {
	t        *testing.T
	broker   *rig.Broker
	state    string // the folder with a file for each partition
	commands map[string][]string
	members  map[string]*counter // those that live, by language
	started  map[string]int

	mu        sync.Mutex
	next      map[int32]int64 // how far each partition's file goes
	saves     int             // since the last kill
	committed []commitment
	took      []commitment
	changed   chan struct{} // closed and replaced at every line
}

// commitment is what the group has committed of a partition, as somebody was told.
type commitment struct {
	who       string
	partition int32
	offset    int64
	at        int64 // milliseconds
}

func newCount(t *testing.T, b *rig.Broker) *counting {
	t.Helper()
	return &counting{
		t: t, broker: b, state: t.TempDir(), commands: buildCounters(t), members: map[string]*counter{}, started: map[string]int{},
		next: map[int32]int64{}, changed: make(chan struct{}),
	}
}

// buildCounters builds the programs: one on our own client, and those of two client libraries, which
// know the verb flights.
func buildCounters(t *testing.T) map[string][]string {
	t.Helper()
	cache := clientsCache(t)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "counter")
	build := exec.Command("go", "build", "-o", own, ".")
	build.Dir = filepath.Join(rig.Root(), "test", "compat", "counter")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the counter: %v\n%s", err, out)
	}
	commands := map[string][]string{"Go": {own}}
	for language, l := range map[string]*library{
		"Java": {name: "java-4.3.1", dir: "java", version: "4.3.1"}, "JavaScript": {name: "kafkajs", dir: "kafkajs"},
	} {
		if err := l.build(cache); err != nil {
			t.Fatalf("build %s: %v", l.name, err)
		}
		commands[language] = append(l.command, "flights")
	}
	return commands
}

// join starts a member.
func (c *counting) join(language string) {
	c.t.Helper()
	c.started[language]++
	m := &counter{}
	name := fmt.Sprintf("%s %d", language, c.started[language])
	command := append(append([]string{}, c.commands[language]...), "--brokers", c.broker.Addr, "--topic", flightsTopic,
		"--group", flightsGroup, "--assignor", flightsAssignor, "--state", c.state)
	c.members[language] = m
	m.Program = rig.Launch(c.t, name, command, func(text string) {
		var line counted
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			c.t.Errorf("%s printed what is no line of its language: %v\n%s", name, err, text)
			return
		}
		c.note(name, m, line)
	})
}

func (c *counting) note(name string, m *counter, line counted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case line.Saved != nil:
		p := line.Saved.Partition
		c.next[p] = max(c.next[p], line.Saved.Next) // a line of the owner before may arrive later
		c.saves++
		m.saves++
	case line.Took != nil:
		c.took = append(c.took, commitment{name, line.Took.Partition, line.Took.Committed, line.At})
	case line.Committed != nil:
		for p, o := range line.Committed {
			c.committed = append(c.committed, commitment{name, p, o, line.At})
		}
	case line.Left:
		m.left = true
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until something holds that the members' lines bring about.
func (c *counting) await(what string, holds func() bool) {
	c.t.Helper()
	deadline := time.After(countPatience)
	for {
		c.mu.Lock()
		done, changed := holds(), c.changed
		c.mu.Unlock()
		if done {
			return
		}
		for _, m := range c.members {
			select {
			case <-m.Ended():
				c.t.Fatalf("before %s: %s", what, m.Said())
			default:
			}
		}
		select {
		case <-changed:
		case <-deadline:
			c.t.Fatalf("not within %v: %s\n%s", countPatience, what, c.said())
		}
	}
}

func (c *counting) said() (all string) {
	c.mu.Lock()
	all = fmt.Sprintf("counted so far: %v\n", c.next)
	c.mu.Unlock()
	for _, m := range c.members {
		all += m.Said() + "\n"
	}
	return all
}

// awaitBusy waits until whoever is to be killed is at work on the flights that have just come, and
// says whether there are some left.
func (c *counting) awaitBusy(whom string, flights int64) (left bool) {
	c.t.Helper()
	c.await(whom+" is at work", func() bool {
		if m := c.members[whom]; m != nil {
			return m.saves > 0
		}
		return c.saves > 0
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if left = sum(c.next) < flights; !left {
		c.forgetSavesLocked()
	}
	return left
}

func (c *counting) forgetSavesLocked() {
	c.saves = 0
	for _, m := range c.members {
		m.saves = 0
	}
}

// kill kills the broker or a member, and puts another in its place.
func (c *counting) kill(whom string, b *rig.Broker) {
	c.t.Helper()
	if m := c.members[whom]; m != nil {
		m.Kill()
		c.join(whom)
	} else {
		b.Kill()
		b.Restart()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetSavesLocked()
}

// leave has every member end as it should.
func (c *counting) leave() {
	c.t.Helper()
	for _, m := range c.members {
		m.Terminate()
	}
	for _, m := range c.members {
		m.Succeeds(patience)
		if !m.left {
			c.t.Errorf("%s ended and did not say that it has left", m.Name)
		}
	}
}

// check compares what the members were told: an offset whose commit was acknowledged is there for
// whoever asks later, whatever was killed in between.
func (c *counting) check() {
	c.t.Helper()
	acknowledged, asked := len(c.committed), len(c.took)
	for _, took := range c.took {
		for _, done := range c.committed {
			if done.partition == took.partition && done.at < took.at && done.offset > took.offset {
				c.t.Errorf("%s was told that %d is committed of partition %d, after %s had committed %d",
					took.who, took.offset, took.partition, done.who, done.offset)
			}
		}
	}
	if asked < 2*flightsPartitions || acknowledged < 3*flightsPartitions {
		c.t.Errorf("partitions were taken %d times and committed %d times: too rarely to prove something", asked, acknowledged)
	}
}

// compareSums adds up the partitions' files.
func compareSums(t *testing.T, state string, ends map[int32]int64, want tally) {
	t.Helper()
	seen := map[string]bool{}
	for p, end := range ends {
		text, err := os.ReadFile(filepath.Join(state, fmt.Sprintf("%d.json", p)))
		if err != nil {
			t.Fatal(err)
		}
		file := decodeJSON[struct {
			Next     int64
			Airports map[string]struct{ Flights, Delays int64 }
		}](t, fmt.Sprintf("the file of partition %d", p), string(text))
		if file.Next != end {
			t.Errorf("the file of partition %d goes up to %d, the partition up to %d", p, file.Next, end)
		}
		for name, a := range file.Airports {
			if seen[name] {
				t.Errorf("%s is in two partitions", name)
			}
			seen[name] = true
			if w := want[name]; a.Flights != w.flights || a.Delays != w.delays {
				t.Errorf("%s has %d flights and %d minutes of delay, want %d and %d", name, a.Flights, a.Delays, w.flights, w.delays)
			}
		}
	}
	if len(seen) != len(want) {
		t.Errorf("%d airports, want %d", len(seen), len(want))
	}
}
