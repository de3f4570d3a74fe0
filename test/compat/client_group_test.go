//go:build compat

package compat

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
	"barnabas/test/compat/rig"
)

// reading is what the members of a group have read, by partition and offset.
type reading struct {
	mu    sync.Mutex
	times map[int32]map[int64]int
	by    map[string]int
	seen  map[string]map[int32]map[int64]bool // by whom
}

func newReading() *reading {
	return &reading{times: map[int32]map[int64]int{}, by: map[string]int{}, seen: map[string]map[int32]map[int64]bool{}}
}

func (r *reading) add(who string, partition int32, offset int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.times[partition] == nil {
		r.times[partition] = map[int64]int{}
	}
	r.times[partition][offset]++
	if r.seen[who] == nil {
		r.seen[who] = map[int32]map[int64]bool{}
	}
	if r.seen[who][partition] == nil {
		r.seen[who][partition] = map[int64]bool{}
	}
	r.seen[who][partition][offset] = true
	r.by[who]++
}

// total gives how many records were read, and how many of them more than once.
func (r *reading) total() (read, again int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, offsets := range r.times {
		for _, n := range offsets {
			read++
			if n > 1 {
				again++
			}
		}
	}
	return read, again
}

// reads tells whether somebody has read an offset.
func (r *reading) reads(who string, partition int32, offset int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[who][partition][offset]
}

func (r *reading) of(who string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[who]
}

// fewest is what the one of them has read that has read least.
func (r *reading) fewest(names ...string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := r.by[names[0]]
	for _, name := range names {
		least = min(least, r.by[name])
	}
	return least
}

// librdkafkaMember is a member of a group on librdkafka, which leaves in the end.
func librdkafkaMember(t *testing.T, into *reading, addr, topic, group, protocol, assignor string) (end func()) {
	t.Helper()
	member := rig.Launch(t, "librdkafka", append(exchangePython(t), "member", addr, topic, group, protocol, assignor), func(line string) {
		var partition int32
		var offset int64
		if _, err := fmt.Sscanf(line, "record %d %d", &partition, &offset); err == nil {
			into.add("librdkafka", partition, offset)
		}
	})
	return func() {
		t.Helper()
		member.Terminate()
		member.Succeeds(patience)
	}
}

// commitAgain is when a member commits again what it could not while its group was being divided anew.
const commitAgain = 100 * time.Millisecond

// ourGroupMember reads a topic as a member of a group until stopped, and commits after every Poll, also after the last one. What
// is refused, since the group is being divided anew, it commits a little later, where it has kept the partition.
func ourGroupMember(t *testing.T, addr, topic, group, name string, into *reading, options ...client.GroupOption) (stop func()) {
	t.Helper()
	c := ourClient(t, addr, client.ID(name))
	options = append([]client.GroupOption{
		client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest),
		client.SessionTimeout(6 * time.Second), client.HeartbeatInterval(500 * time.Millisecond),
	}, options...)
	g, err := c.NewGroupConsumer(group, options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for refused := false; ctx.Err() == nil; {
			polling, cancel := ctx, context.CancelFunc(func() {})
			if refused {
				polling, cancel = context.WithTimeout(ctx, commitAgain)
			}
			records, err := g.Poll(polling)
			again := polling.Err() != nil
			cancel()
			if err != nil && !again {
				t.Errorf("%s: poll: %v", name, err)
				return
			}
			for _, r := range records {
				into.add(name, r.Partition, r.Offset)
			}
			if len(records) == 0 && !refused {
				continue
			}
			committing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			err = g.Commit(committing)
			cancel()
			if refused = err != nil; refused {
				t.Logf("%s: %v", name, err)
			}
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-ended
			leave, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := g.Close(leave); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// produceSlowly writes records until stopped, and then gives how many there are.
func produceSlowly(t *testing.T, addr, topic string) (stop func() int) {
	t.Helper()
	cl := kgoClient(t, addr, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.RecordDeliveryTimeout(time.Minute))
	ctx, cancel := context.WithCancel(context.Background())
	written := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Value: fmt.Append(nil, n)}).FirstErr(); err != nil {
				t.Errorf("produce: %v", err)
				break
			}
			n++
		}
		written <- n
	}()
	t.Cleanup(cancel)
	return func() int {
		cancel()
		return <-written
	}
}

func allRead(t *testing.T, into *reading, want int) {
	t.Helper()
	rig.Eventually(t, 2*patience, fmt.Sprintf("%d records are read", want), func() bool {
		read, _ := into.total()
		return read >= want
	})
	if read, _ := into.total(); read != want {
		t.Errorf("read %d records of %d", read, want)
	}
}

var groupTests = []clientTest{
	{name: "groups with others", run: groupsWithOthers},
	{name: "group survives the brokers", needs: []need{killable}, run: groupSurvives},
	{name: "member is killed", run: memberIsKilled},
}

// A group of our consumer, franz-go's, Java's and librdkafka's: partitions move between them while records are
// written, none is missed, and all is committed in the end.
func groupsWithOthers(t *testing.T, p *site) {
	addr := p.addr
	for _, c := range []struct {
		name, java string
		ours       []client.Assignor
		theirs     kgo.GroupBalancer
	}{
		{"cooperative-sticky", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor", []client.Assignor{client.CooperativeStickyAssignor}, kgo.CooperativeStickyBalancer()},
		{"range", "org.apache.kafka.clients.consumer.RangeAssignor", []client.Assignor{client.RangeAssignor}, kgo.RangeBalancer()},
		{"roundrobin", "org.apache.kafka.clients.consumer.RoundRobinAssignor", []client.Assignor{client.RoundRobinAssignor}, kgo.RoundRobinBalancer()},
		{"sticky", "org.apache.kafka.clients.consumer.StickyAssignor", []client.Assignor{client.StickyAssignor}, kgo.StickyBalancer()},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic, group := uniqueTopic("mixed"), uniqueTopic("group")
			createTopic(t, addr, topic, 6)
			into := newReading()
			stopWriting := produceSlowly(t, addr, topic)
			stopFirst := ourGroupMember(t, addr, topic, group, "ours", into, client.Assignors(c.ours...))
			theirs := kgoClient(t, addr, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(c.theirs),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))
			polling, endPolling := context.WithCancel(context.Background())
			defer endPolling()
			polled := make(chan struct{})
			go func() {
				defer close(polled)
				for polling.Err() == nil {
					theirs.PollFetches(polling).EachRecord(func(r *kgo.Record) { into.add("franz-go", r.Partition, r.Offset) })
				}
			}()
			java := rig.Launch(t, "java", rig.JavaCommand(t, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", addr,
				"--topic", topic, "--group", group, "--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true",
				"--formatter-property", "print.value=false",
				"--command-property", "partition.assignment.strategy="+c.java, "--command-property", "auto.offset.reset=earliest",
				"--command-property", "auto.commit.interval.ms=200"),
				func(line string) {
					var partition int32
					var offset int64
					if _, err := fmt.Sscanf(line, "Partition:%d\tOffset:%d", &partition, &offset); err == nil {
						into.add("java", partition, offset)
					}
				})
			members := []string{"ours", "franz-go", "java"}
			endLibrdkafka := func() {}
			if c.name != "sticky" { // librdkafka has no eager one
				members = append(members, "librdkafka")
				endLibrdkafka = librdkafkaMember(t, into, addr, topic, group, "classic", c.name)
			}
			rig.Eventually(t, 2*patience, "all have read", func() bool { return into.fewest(members...) > 20 })
			stopSecond := ourGroupMember(t, addr, topic, group, "ours too", into, client.Assignors(c.ours...))
			rig.Eventually(t, 2*patience, "the last one has read", func() bool { return into.of("ours too") > 20 })
			stopFirst()
			endLibrdkafka()
			java.Terminate()
			<-java.Ended() // Java's exit code after SIGTERM is 143, however well it went
			endPolling()
			<-polled
			theirs.LeaveGroup()
			allRead(t, into, stopWriting())
			stopSecond()
			committedAll(t, addr, topic, group)
		})
	}
}

// committedAll checks that a group has committed the end of every partition.
func committedAll(t *testing.T, addr, topic, group string) {
	t.Helper()
	lags, err := admin(t, addr).Lag(within(t, patience), group)
	if err != nil {
		t.Fatal(err)
	}
	lags.Each(func(l kadm.DescribedGroupLag) {
		for _, p := range l.Lag[topic] {
			if p.Lag != 0 {
				t.Errorf("partition %d: committed %d, the end is %d", p.Partition, p.Commit.At, p.End.Offset)
			}
		}
	})
}

// A broker is killed with -9 while a group reads: everything is read once, in order, since what a
// member read it commits before it reads on.
func groupSurvives(t *testing.T, p *site) {
	topic, group := uniqueTopic("restart"), uniqueTopic("group")
	createTopic(t, p.addr, topic, 4)
	into := newReading()
	stopWriting := produceSlowly(t, p.addr, topic)
	for _, name := range []string{"one", "two"} {
		// Nobody dies for the group, so nobody may be taken for dead.
		ourGroupMember(t, p.addr, topic, group, name, into, client.Assignors(client.CooperativeStickyAssignor), client.SessionTimeout(patience))
	}
	rig.Eventually(t, patience, "both read", func() bool { return into.of("one") > 50 && into.of("two") > 50 })
	for range 2 {
		p.bounce()
		before := into.of("one")
		rig.Eventually(t, 2*patience, "reading goes on", func() bool { return into.of("one") > before+50 })
	}
	allRead(t, into, stopWriting())
	if _, again := into.total(); again > 0 {
		t.Errorf("%d records were read again", again)
	}
	rig.Eventually(t, patience, "the last commits are there", func() bool {
		lags, err := admin(t, p.addr).Lag(within(t, patience), group)
		return err == nil && lags[group].Lag.Total() == 0
	})
}

// A member is killed with -9: the others go on exactly where it committed.
func memberIsKilled(t *testing.T, p *site) {
	addr := p.addr
	topic, group := uniqueTopic("killed"), uniqueTopic("group")
	createTopic(t, addr, topic, 4)
	program := filepath.Join(t.TempDir(), "group")
	build := exec.Command("go", "build", "-o", program, "./examples/group")
	build.Dir = rig.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stopWriting := produceSlowly(t, addr, topic)
	into := newReading()
	var mu sync.Mutex
	committed := map[int32]int64{} // by the member that is killed
	member := rig.Launch(t, "member", []string{program, "-brokers", addr, "-topic", topic, "-group", group, "-session", "6s"}, func(line string) {
		var partition int32
		var offset int64
		if _, err := fmt.Sscanf(line, "committed %d %d", &partition, &offset); err == nil {
			mu.Lock()
			committed[partition] = offset
			mu.Unlock()
		}
		if _, err := fmt.Sscanf(line, "record %d %d", &partition, &offset); err == nil {
			into.add("member", partition, offset)
		}
	})
	rig.Eventually(t, patience, "the member reads", func() bool { return into.of("member") > 200 })
	member.Kill()
	mu.Lock()
	defer mu.Unlock()
	after := newReading()
	stop := ourGroupMember(t, addr, topic, group, "successor", after, client.Assignors(client.CooperativeStickyAssignor), client.SessionTimeout(patience))
	rig.Eventually(t, 2*patience, "another goes on", func() bool { return after.of("successor") > 200 })
	total := stopWriting()
	want := total
	for _, offset := range committed {
		want -= int(offset)
	}
	rig.Eventually(t, 2*patience, "all is read", func() bool {
		lags, err := admin(t, addr).Lag(within(t, patience), group)
		return err == nil && lags[group].Lag.Total() == 0
	})
	stop()
	// What it had read and not told us that it committed may be committed nevertheless, by one Poll.
	if read, again := after.total(); read > want || read < want-500 || again > 0 {
		t.Errorf("%d records, of which %v were committed; the other read %d, %d of them twice", total, committed, read, again)
	}
	for partition, offsets := range after.times {
		for offset := range offsets {
			if offset < committed[partition] {
				t.Errorf("partition %d: offset %d was read again, %d was committed", partition, offset, committed[partition])
			}
		}
	}
}
