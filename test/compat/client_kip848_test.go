//go:build compat

package compat

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
	"barnabas/test/compat/rig"
)

// The consumer protocol of groups (KIP-848) against brokers that have it. What a member is told by one that has it not is
// the last test here.
var consumerProtocolTests = []clientTest{
	{name: "consumer protocol, groups with others", needs: []need{consumerProtocol}, run: consumerGroupsWithOthers},
	{name: "consumer protocol, members are killed", needs: []need{consumerProtocol, killable}, run: consumerMembersAreKilled, shorter: nowhere},
	{name: "consumer protocol, patterns, topics made again", needs: []need{consumerProtocol}, run: consumerPatterns},
	{name: "consumer protocol, static member", needs: []need{consumerProtocol}, run: consumerStaticMember},
	{name: "consumer protocol, stuck program", needs: []need{consumerProtocol}, run: consumerStuckProgram},
	{name: "consumer protocol where it is not", run: consumerProtocolIsNotThere, shorter: []siteOf{oneBarnabas, kafka391}},
}

var byConsumerProtocol = client.GroupProtocol(client.ConsumerProtocol)

// nextMember is ourGroupMember by the consumer protocol.
func nextMember(t *testing.T, addr, topic, group, name string, into *reading, options ...client.GroupOption) (g *client.GroupConsumer, stop func()) {
	t.Helper()
	options = append([]client.GroupOption{byConsumerProtocol, client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest)}, options...)
	g, err := ourClient(t, addr, client.ID(name)).NewGroupConsumer(group, options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	return g, pollAndCommit(t, g, name, into)
}

// pollAndCommit reads until stopped, and commits after every Poll.
func pollAndCommit(t *testing.T, g *client.GroupConsumer, name string, into *reading) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			records, err := g.Poll(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("%s: poll: %v", name, err)
				return
			}
			for _, r := range records {
				into.add(name, r.Partition, r.Offset)
			}
			committing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			if err := g.Commit(committing); err != nil {
				t.Logf("%s: %v", name, err)
			}
			cancel()
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		leave, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(leave); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// Our members, franz-go's, Java's and librdkafka's in one group, by both assignors: partitions move between them
// while records are written, none is missed, what nobody died for is read once, and all is committed
// in the end.
func consumerGroupsWithOthers(t *testing.T, p *site) {
	addr := p.addr
	for _, remote := range []string{client.UniformRemoteAssignor, client.RangeRemoteAssignor} {
		t.Run(remote, func(t *testing.T) {
			topic, group := uniqueTopic("mixed"), uniqueTopic("group")
			createTopic(t, addr, topic, 6)
			into := newReading()
			stopWriting := produceSlowly(t, addr, topic)
			_, stopFirst := nextMember(t, addr, topic, group, "ours", into, client.RemoteAssignor(remote))
			balancer := kgo.StickyBalancer()
			if remote == client.RangeRemoteAssignor {
				balancer = kgo.RangeBalancer()
			}
			theirs := kgoClient(t, addr, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ServerSideBalancer(), kgo.Balancers(balancer),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
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
				"--formatter-property", "print.value=false", "--command-property", "group.protocol=consumer",
				"--command-property", "group.remote.assignor="+remote, "--command-property", "auto.offset.reset=earliest",
				"--command-property", "auto.commit.interval.ms=200"),
				func(line string) {
					var partition int32
					var offset int64
					if _, err := fmt.Sscanf(line, "Partition:%d\tOffset:%d", &partition, &offset); err == nil {
						into.add("java", partition, offset)
					}
				})
			endLibrdkafka := librdkafkaMember(t, into, addr, topic, group, "consumer", remote)
			rig.Eventually(t, 2*patience, "all have read", func() bool { return into.fewest("ours", "franz-go", "java", "librdkafka") > 20 })
			_, stopSecond := nextMember(t, addr, topic, group, "ours too", into, client.RemoteAssignor(remote))
			rig.Eventually(t, 2*patience, "the fifth has read", func() bool { return into.of("ours too") > 20 })
			stopFirst()
			endLibrdkafka()
			java.Terminate()
			<-java.Ended()
			endPolling()
			<-polled
			theirs.LeaveGroup()
			allRead(t, into, stopWriting())
			stopSecond()
			committedAll(t, addr, topic, group)
		})
	}
}

// Members come, leave and are killed with -9, and so is the broker, while records are written: all
// are read, and after the kills those that are left own everything.
func consumerMembersAreKilled(t *testing.T, p *site) {
	topic, group := uniqueTopic("killed"), uniqueTopic("group")
	createTopic(t, p.addr, topic, 6)
	program := filepath.Join(t.TempDir(), "member")
	build := exec.Command("go", "build", "-tags", "compat", "-o", program, "./test/compat/member")
	build.Dir = rig.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	into := newReading()
	stopWriting := produceSlowly(t, p.addr, topic)
	stays, stopStays := nextMember(t, p.addr, topic, group, "stays", into)
	for round := range 3 {
		name := fmt.Sprint("killed ", round)
		var mu sync.Mutex
		committed := map[int32]int64{} // by the member that is killed, as it told
		member := rig.Launch(t, name, []string{program, "-brokers", p.addr, "-topic", topic, "-group", group}, func(line string) {
			var partition int32
			var offset int64
			if _, err := fmt.Sscanf(line, "committed %d %d", &partition, &offset); err == nil {
				mu.Lock()
				committed[partition] = offset
				mu.Unlock()
			}
			if _, err := fmt.Sscanf(line, "record %d %d", &partition, &offset); err == nil {
				into.add(name, partition, offset)
			}
		})
		rig.Eventually(t, patience, name+" reads", func() bool { return into.of(name) > 100 })
		member.Kill()
		<-member.Ended()
		if round == 1 {
			p.bounce()
		}
		rig.Eventually(t, patience, "the one that stays owns everything", func() bool { return len(stays.Assignment()) == 6 })
		mu.Lock()
		rig.Eventually(t, patience, "it has gone on where was committed", func() bool {
			for partition, offset := range committed {
				if at, known := stays.Position(client.TopicPartition{Topic: topic, Partition: partition}); !known || at < offset {
					return false
				}
			}
			return true
		})
		for partition, offset := range committed {
			for o := range offset {
				if into.reads(name, partition, o) && into.reads("stays", partition, o) {
					t.Errorf("round %d: offset %d of partition %d was committed (up to %d) and read again", round, o, partition, offset)
				}
			}
		}
		mu.Unlock()
	}
	allRead(t, into, stopWriting())
	stopStays()
	committedAll(t, p.addr, topic, group)
}

// A coordinator matches topics itself: one that is made later is read, one that is deleted given up,
// and one of that name that is made again is another, read from its start.
func consumerPatterns(t *testing.T, p *site) {
	addr := p.addr
	prefix, group := uniqueTopic("pattern"), uniqueTopic("group")
	first, second := prefix+"-first", prefix+"-second"
	createTopic(t, addr, first, 2)
	createTopic(t, addr, prefix+"x", 1) // whole names are matched
	var mu sync.Mutex
	read := map[string][]int64{}
	var told []string
	tell := func(what string) client.Rebalance {
		return func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(what, partitions))
		}
	}
	g, err := ourClient(t, addr, client.MetadataMaxAge(time.Hour)).NewGroupConsumer(group, byConsumerProtocol, client.AutoOffsetReset(client.Earliest),
		client.OnAssigned(tell("assigned")), client.OnRevoked(tell("revoked")), client.OnLost(tell("lost")))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SubscribeMatching(regexp.MustCompile(regexp.QuoteMeta(prefix) + "-(first|second)")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			records, err := g.Poll(ctx)
			if err != nil && ctx.Err() == nil {
				t.Errorf("poll: %v", err)
				return
			}
			mu.Lock()
			for _, r := range records {
				read[r.Topic] = append(read[r.Topic], r.Offset)
			}
			mu.Unlock()
		}
	}()
	has := func(topic string, want ...int64) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(read[topic], want)
		}
	}
	write := func(topic string, n int) {
		cl := kgoClient(t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for range n {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(first, 2)
	rig.Eventually(t, patience, "the first topic is read", has(first, 0, 1))
	createTopic(t, addr, second, 1)
	write(second, 1)
	rig.Eventually(t, patience, "a topic that is made later is read", has(second, 0))
	remove := func(topic string) {
		if _, err := admin(t, addr).DeleteTopics(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, patience, topic+" is gone", func() bool {
			details, err := admin(t, addr).ListTopics(t.Context())
			return err == nil && !details.Has(topic)
		})
	}
	remove(second)
	rig.Eventually(t, patience, "the topic that is gone is given up", func() bool {
		return !slices.ContainsFunc(g.Assignment(), func(tp client.TopicPartition) bool { return tp.Topic == second })
	})
	createTopic(t, addr, second, 1)
	write(second, 3)
	rig.Eventually(t, patience, "the topic that was made again is read from its start", has(second, 0, 0, 1, 2))
	cancel()
	<-ended
	leave, cancelLeave := context.WithTimeout(context.Background(), patience)
	defer cancelLeave()
	if err := g.Close(leave); err != nil {
		t.Error(err)
	}
	if len(read[prefix+"x"]) > 0 || has(first, 0, 1)() == false {
		t.Errorf("read %v", read)
	}
	t.Log(told)
}

// A static member that goes keeps its partitions reserved, and gets them back when it returns; a
// second one under its id is refused while it is there.
func consumerStaticMember(t *testing.T, p *site) {
	addr := p.addr
	topic, group := uniqueTopic("static"), uniqueTopic("group")
	createTopic(t, addr, topic, 6)
	into := newReading()
	other, _ := nextMember(t, addr, topic, group, "other", into)
	static, stop := nextMember(t, addr, topic, group, "static", into, client.InstanceID("one"))
	rig.Eventually(t, patience, "both own three", func() bool { return len(other.Assignment()) == 3 && len(static.Assignment()) == 3 })
	owned := static.Assignment()

	double, err := ourClient(t, addr).NewGroupConsumer(group, byConsumerProtocol, client.InstanceID("one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := double.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	if _, err := double.Poll(within(t, patience)); !errors.Is(err, client.ErrUnreleasedInstanceID) {
		t.Errorf("a second member of that id: %v", err)
	}
	if err := double.Close(within(t, patience)); err != nil {
		t.Error(err)
	}

	stop()
	back, _ := nextMember(t, addr, topic, group, "back", into, client.InstanceID("one"))
	rig.Eventually(t, patience, "it is back", func() bool { return len(back.Assignment()) == 3 })
	if got := back.Assignment(); !slices.Equal(got, owned) || len(other.Assignment()) != 3 {
		t.Errorf("it owned %v and comes back to %v; the other has %v", owned, got, other.Assignment())
	}
}

// A program that stays away from Poll loses its partitions to the others, and gets some back when it
// polls again; one whose session ends is told that it has lost them.
func consumerStuckProgram(t *testing.T, p *site) {
	addr := p.addr
	topic, group := uniqueTopic("stuck"), uniqueTopic("group")
	createTopic(t, addr, topic, 4)
	lost := make(chan int, 1)
	g, err := ourClient(t, addr).NewGroupConsumer(group, byConsumerProtocol, client.MaxPollInterval(2*time.Second),
		client.OnLost(func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
			lost <- len(partitions)
		}))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	poll := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _ = g.Poll(ctx)
	}
	rig.Eventually(t, patience, "it owns all", func() bool { poll(); return len(g.Assignment()) == 4 })
	other, _ := nextMember(t, addr, topic, group, "other", newReading())
	rig.Eventually(t, patience, "the other owns all", func() bool { return len(other.Assignment()) == 4 })
	rig.Eventually(t, patience, "both own two", func() bool { poll(); return len(g.Assignment()) == 2 && len(other.Assignment()) == 2 })
	select {
	case n := <-lost:
		if n == 0 {
			t.Error("it lost nothing")
		}
	default:
		t.Error("it was not told of its loss")
	}
	if err := g.Close(within(t, patience)); err != nil {
		t.Error(err)
	}
}

// A broker without the protocol is told apart from one that is away.
func consumerProtocolIsNotThere(t *testing.T, p *site) {
	addr, served := p.addr, p.lacks(consumerProtocol) == ""
	topic := uniqueTopic("without")
	createTopic(t, addr, topic, 1)
	g, err := ourClient(t, addr).NewGroupConsumer(uniqueTopic("group"), byConsumerProtocol, client.AutoOffsetReset(client.Earliest))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	cl := kgoClient(t, addr)
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	records, err := g.Poll(within(t, patience))
	if served && (err != nil || len(records) != 1) || !served && !errors.Is(err, client.ErrUnsupportedVersion) {
		t.Errorf("the protocol is served: %v; read %d records, %v", served, len(records), err)
	}
	if err := g.Close(within(t, patience)); err != nil {
		t.Error(err)
	}
}
