package controller

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// TestSessions is what a controller makes of silence and of broken connections, as scripts: at so many milliseconds
// something happens, or so many milliseconds are the first at which broker 2 is overdue. It is "held" while another process under
// its id has to wait, and "free" when it need not.
func TestSessions(t *testing.T) {
	for name, script := range map[string]string{
		"silence":                                "0 begin, 400 heard, 2399 alive, 2400 dead",
		"a new controller waits":                 "0 begin, 1999 alive, 2000 dead",
		"broken":                                 "0 begin, 400 heard, 500 broken, 799 alive, 800 dead",
		"broken and made again":                  "0 begin, 400 heard, 500 broken, 790 made, 2399 alive, 2400 dead",
		"broken, and heard":                      "0 begin, 500 broken, 700 heard, 2699 alive, 2700 dead",
		"broken, and heard what was sent before": "0 begin, 500 broken, 549 heard, 799 alive, 800 dead",
		"broken before":                          "0 broken, 600 begin, 899 alive, 900 dead",
		"broken twice":                           "0 begin, 500 broken, 600 made, 700 broken, 999 alive, 1000 dead",
		"broken on its way out":                  "0 begin, 400 heard, 450 leaving, 500 broken, 500 dead",
		"the controller stood still":             "0 begin, 400 heard, 3000 again, 4999 alive, 5000 dead",
		"it stood still, and is broken":          "0 begin, 400 heard, 500 broken, 3000 again, 3299 alive, 3300 dead",
		"the controller before is silent":        "0 begin, 0 succeeds, 799 alive, 800 dead",
		"the controller before is heard":         "0 begin, 0 succeeds, 700 heard, 2699 alive, 2700 dead",
		"its session ends before that":           "0 begin, 1900 broken, 1999 alive, 2000 dead",
		"its place is held for a session":        "0 begin, 400 heard, 2399 held, 2400 free",
		"its place is free without it":           "0 begin, 400 heard, 500 broken, 799 held, 800 free",
		"another is connected":                   "0 begin, 400 heard, 500 broken, 520 made, 999 held, 1000 free",
		"it is connected again":                  "0 begin, 400 heard, 500 broken, 520 made, 900 heard, 1000 held, 2899 held, 2900 free",
		"it was connected again long ago":        "0 broken, 20 made, 9000 begin, 9499 held, 9500 free",
		"it was, and the controller stood still": "0 begin, 0 heard, 500 broken, 520 made, 700 again, 1199 held, 1200 free",
		"its heartbeats are rare":                "0 beat1500, 0 begin, 400 heard, 500 broken, 520 made, 1899 held, 1900 heard, 3899 held, 3900 free",
		"its heartbeats were rare":               "0 beat1500, 0 begin, 400 heard, 500 broken, 520 made, 2099 held, 2100 free",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Unix(1000, 0)
			image, _, err := metadata.Empty().With(0, 1, []metadata.Record{(&metadata.Broker{ID: 2, Epoch: 7}).Record()})
			if err != nil {
				t.Fatal(err)
			}
			s := sessions{timeout: 2 * time.Second, beat: 400 * time.Millisecond}
			for step := range strings.SplitSeq(script, ", ") {
				var at int
				var what string
				if _, err := fmt.Sscan(step, &at, &what); err != nil {
					t.Fatal(err)
				}
				now := start.Add(time.Duration(at) * time.Millisecond)
				switch what {
				case "beat1500":
					s.beat = 1500 * time.Millisecond
				case "begin":
					s.begin(image, now)
				case "again":
					s.again(now)
				case "succeeds":
					s.succeed(2, 800*time.Millisecond)
				case "heard":
					s.heardOf(&metadata.Heartbeat{Broker: 2, Epoch: 7}, now, 0)
				case "broken", "made":
					s.connection(2, what == "made", now)
				case "leaving":
					image, _, _ = image.With(1, 1, []metadata.Record{&metadata.BrokerChangeRecord{Id: 2, Epoch: 7, ShuttingDown: new(true)}})
				case "held", "free":
					b, _ := image.Broker(2)
					if held := s.alive(b, now); held != (what == "held") {
						t.Fatalf("%s: held %t", step, held)
					}
				case "alive", "dead":
					ids, next := s.overdue(image, now)
					if dead := slices.Contains(ids, 2); dead != (what == "dead") || !dead && next.Sub(now) > time.Millisecond {
						t.Fatalf("%s: overdue %v, next in %v", step, ids, next.Sub(now))
					}
				default:
					t.Fatal(step)
				}
			}
		})
	}
}

// TestBehindBrokersAreFenced: who takes over no metadata for long does not take part, and who is only late does.
func TestBehindBrokersAreFenced(t *testing.T) {
	now := time.Unix(1000, 0)
	s := sessions{timeout: 2 * time.Second}
	s.begin(metadata.Empty(), now)
	s.registered(&Registration{ID: 2}, 7, now, 11)
	h := &metadata.Heartbeat{Broker: 2, Epoch: 7, MetadataOffset: 9}
	for step := range int64(100) {
		now = now.Add(time.Second)
		h.MetadataOffset++
		if ready, stuck := s.heardOf(h, now, 1000+100*step); ready != (step > 0) || stuck {
			t.Fatalf("step %d: ready %t, stuck %t", step, ready, stuck)
		}
	}
	for step := range 60 {
		now = now.Add(time.Second)
		ready, stuck := s.heardOf(h, now, 100_000)
		if late := step >= 30; ready == late || stuck != late {
			t.Fatalf("%d s after it moved last: ready %t, stuck %t", step+1, ready, stuck)
		}
	}
	h.MetadataOffset = 100_000
	if ready, stuck := s.heardOf(h, now.Add(time.Second), 100_000); !ready || stuck {
		t.Fatalf("ready %t, stuck %t with everything", ready, stuck)
	}
}

// beats has a broker that another process runs registered, and beating.
type beats struct {
	t  *testing.T
	c  *Controller
	id int32
	h  metadata.Heartbeat
}

func register(t *testing.T, c *Controller, id int32) *beats {
	t.Helper()
	r := registration(id)
	r.Fenced, r.Complete = true, true
	epoch, err := c.RegisterBroker(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return &beats{t: t, c: c, id: id, h: metadata.Heartbeat{Broker: id, Epoch: epoch, MetadataOffset: 1 << 40, Directories: r.Directories, Complete: true}}
}

func (b *beats) once() metadata.HeartbeatAnswer {
	b.t.Helper()
	answer, err := b.c.Heartbeat(b.t.Context(), b.h)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer
}

func (b *beats) registration() *metadata.Broker {
	is, _ := b.c.Image().Broker(b.id)
	return is
}

// beating keeps brokers alive for a while.
func beating(d time.Duration, brokers ...*beats) {
	for until := time.Now().Add(d); time.Now().Before(until); {
		for _, b := range brokers {
			b.once()
		}
		time.Sleep(399 * time.Millisecond)
	}
}

// crowd is a controller with the brokers 2, 3 and 4 of other processes, which take part.
func crowd(t *testing.T, lines ...string) (*Controller, *fakeLog, []*beats) {
	t.Helper()
	lines = append([]string{"broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=400"}, lines...)
	c, l := start(t, testOptions(t, 1, lines...))
	l.setAuto()
	if _, err := c.RegisterBroker(t.Context(), registration(1)); err != nil {
		t.Fatal(err)
	}
	var all []*beats
	for id := int32(2); id <= 4; id++ {
		b := register(t, c, id)
		b.once()
		all = append(all, b)
	}
	synctest.Wait()
	for _, b := range all {
		if b.registration().Fenced {
			t.Fatalf("broker %d is fenced", b.id)
		}
	}
	return c, l, all
}

// assigned creates a topic on chosen brokers.
func assigned(t *testing.T, c *Controller, name string, partitions int, replicas ...int32) {
	t.Helper()
	req := createRequest(-1, name)
	req.Topics[0].ReplicationFactor = -1
	for n := range partitions {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(n), replicas
		req.Topics[0].ReplicaAssignment = append(req.Topics[0].ReplicaAssignment, a)
	}
	resp, err := c.CreateTopics(t.Context(), req)
	if err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
}

// TestHeartbeatsDoNotWaitForCommits: while the disks of the quorum stand still nobody is taken for dead, and nobody waits.
func TestHeartbeatsDoNotWaitForCommits(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l, all := crowd(t)
		l.mu.Lock()
		l.mu.auto = false
		l.mu.Unlock()
		go func() { _, _ = c.CreateTopics(t.Context(), createRequest(1, "stuck")) }()
		synctest.Wait()
		began := time.Now()
		for range 50 {
			at := time.Now()
			for _, b := range all {
				b.once()
			}
			if waited := time.Since(at); waited > 0 {
				t.Fatalf("a heartbeat took %v", waited)
			}
			time.Sleep(400 * time.Millisecond)
		}
		if n := l.pending(); n != 1 {
			t.Fatalf("%d proposals after %v", n, time.Since(began))
		}
		l.setAuto()
		synctest.Wait()
		c.Close()
	})
}

// TestHeartbeatsJudgeByWhatIsCommitted: what may yet be lost neither turns a broker away nor lets it go.
func TestHeartbeatsJudgeByWhatIsCommitted(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l, all := crowd(t)
		l.mu.Lock()
		l.mu.auto = false
		l.mu.Unlock()
		all[0].h.WantShutDown = true
		all[0].once()
		if answer := all[0].once(); answer.MayShutDown {
			t.Fatal("let go before its partitions are led by others")
		}
		l.commit(1)
		synctest.Wait()
		if b, _ := c.Image().Broker(all[0].h.Broker); !b.ShuttingDown || b.Fenced {
			t.Fatalf("after the first entry: %+v", b)
		}
		if answer := all[0].once(); answer.MayShutDown {
			t.Fatal("let go before it is away in the metadata, which may need its own vote")
		}
		var wait sync.WaitGroup
		wait.Go(func() {
			r := registration(3)
			r.Incarnation, r.Fenced = metadata.UUID{1: 77}, true
			if _, err := c.RegisterBroker(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		all[1].once()
		l.setAuto()
		wait.Wait()
		if answer := all[0].once(); !answer.MayShutDown {
			t.Fatal("not let go")
		}
		if _, err := c.Heartbeat(t.Context(), all[1].h); !errors.Is(err, ErrStaleBrokerEpoch) {
			t.Fatal(err)
		}
		c.Close()
	})
}

// TestControllerThatStoodStillFencesNobody: it has not heard those who spoke meanwhile.
func TestControllerThatStoodStillFencesNobody(t *testing.T) {
	for pause := 50 * time.Millisecond; pause < 500*time.Millisecond; pause += 50 * time.Millisecond {
		faketime.Test(t, func(t *testing.T) {
			c, l, all := crowd(t)
			var wait sync.WaitGroup
			for i, b := range all {
				wait.Go(func() {
					time.Sleep(time.Duration(i) * 50 * time.Millisecond)
					beating(20*time.Second, b)
				})
			}
			before := len(l.committedEntries())
			time.Sleep(2*time.Second + pause)
			l.mu.Lock()
			l.mu.stall = 5 * time.Second
			l.mu.Unlock()
			if resp, err := c.CreateTopics(t.Context(), createRequest(1, "slow")); err != nil || resp.Topics[0].ErrorCode != 0 {
				t.Fatalf("%+v, %v", resp, err)
			}
			wait.Wait()
			for _, e := range l.committedEntries()[before:] {
				for _, r := range e.Records {
					if change, ok := r.(*metadata.BrokerChangeRecord); ok {
						t.Fatalf("pause %v: %v", pause, change)
					}
				}
			}
			c.Close()
		})
	}
}

// TestDeadBrokersShareAnEntry: brokers that die together are fenced together, and each partition changes once.
func TestDeadBrokersShareAnEntry(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l, all := crowd(t, "min.insync.replicas=2")
		assigned(t, c, "orders", 200, 2, 3, 4)
		beating(time.Second, all...)
		before := len(l.committedEntries())
		c.Connection(2, false)
		c.Connection(3, false)
		beating(2*time.Second, all[2])
		entries := l.committedEntries()[before:]
		if len(entries) != 1 || len(entries[0].Records) != 202 {
			t.Fatalf("%d entries", len(entries))
		}
		for n := range int32(200) {
			p, _ := c.Image().Partition("orders", n)
			if p.Leader != 4 || !slices.Equal(p.ISR, []int32{4}) || !slices.Equal(p.ELR, []int32{2, 3}) || p.LeaderEpoch != 1 {
				t.Fatalf("partition %d: %+v", n, p)
			}
		}
		c.Close()
	})
}

// TestPreferredLeadersComeBack: leadership goes back by itself, in time, and not where it is switched off; and a controller
// that is not one any more does nothing of the kind.
func TestPreferredLeadersComeBack(t *testing.T) {
	for _, enabled := range []bool{true, false} {
		faketime.Test(t, func(t *testing.T) {
			c, l, all := crowd(t, "leader.imbalance.check.interval.seconds=60", fmt.Sprint("auto.leader.rebalance.enable=", enabled))
			assigned(t, c, "orders", electionsPerChore+10, 2, 3)
			leave := all[0]
			leave.h.WantShutDown = true
			for range 2 { // its partitions are handed over, then it is away
				leave.once()
				synctest.Wait()
			}
			if answer := leave.once(); !answer.MayShutDown {
				t.Fatalf("%+v", answer)
			}
			again := registration(2)
			again.Incarnation, again.Fenced = metadata.UUID{0: 77}, true
			epoch, err := c.RegisterBroker(t.Context(), again)
			if err != nil {
				t.Fatal(err)
			}
			leave.h.Epoch, leave.h.WantShutDown = epoch, false
			leave.once()
			synctest.Wait()
			third, _ := c.Image().Broker(3)
			var proposals []metadata.ISRProposal
			topic, _ := c.Image().Topic("orders")
			for n, p := range topic.Partitions {
				if p.Leader != 3 {
					t.Fatalf("partition %d: %+v", n, p)
				}
				proposals = append(proposals, metadata.ISRProposal{
					Topic: topic.ID, Partition: int32(n), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
					ISR: []metadata.Member{{Broker: 3}, {Broker: 2, Epoch: epoch}},
				})
			}
			outcomes, err := c.AlterISR(t.Context(), 3, third.Epoch, proposals)
			if err != nil || slices.ContainsFunc(outcomes, func(o metadata.ISROutcome) bool { return o != metadata.ISRAccepted }) {
				t.Fatalf("%v, %v", outcomes, err)
			}
			led := func() (n int) {
				n, _ = DecidePartitions(c.Image(), loadConfig(t)).LedBy(2)
				return n
			}
			beating(58*time.Second, all...)
			if n := led(); n != 0 {
				t.Fatalf("leads %d already", n)
			}
			beating(8*time.Second, all...)
			if n := led(); enabled != (n == electionsPerChore+10) {
				t.Fatalf("enabled %t, leads %d", enabled, n)
			}
			l.lose(0)
			before := len(l.committedEntries())
			time.Sleep(time.Hour)
			if n := len(l.committedEntries()); n != before {
				t.Fatalf("%d changes without leadership", n-before)
			}
			c.Close()
		})
	}
}

// TestLostDirectoriesLeaveTheISR: a heartbeat that lacks a directory takes what was in it out of the in-sync replicas and
// gives it other leaders, once.
func TestLostDirectoriesLeaveTheISR(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l, all := crowd(t)
		assigned(t, c, "orders", 10, 2, 3)
		before := len(l.committedEntries())
		lost := all[0].h.Directories[0]
		all[0].h.Directories = all[0].h.Directories[1:]
		beating(5*time.Second, all...)
		if n := len(l.committedEntries()) - before; n != 1 {
			t.Fatalf("%d entries", n)
		}
		for n := range int32(10) {
			p, _ := c.Image().Partition("orders", n)
			if in := p.Directories[0] == lost; in == slices.Contains(p.ISR, 2) || in == (p.Leader == 2) {
				t.Fatalf("partition %d: %+v", n, p)
			}
		}
		c.Close()
	})
}

// TestUncleanElectionFollowsItsSetting: partitions that nobody may lead are led in time once their topic allows it.
func TestUncleanElectionFollowsItsSetting(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, _, all := crowd(t, "unclean.leader.election.interval.ms=60000")
		assigned(t, c, "orders", 3, 2, 3)
		c.Connection(2, false)
		beating(time.Second, all[1:]...)
		c.Connection(3, false)
		again := all[0]
		for range 3 {
			time.Sleep(400 * time.Millisecond)
			again.once() // 2 is back, and lacks what 3 took since
			beating(400*time.Millisecond, again)
		}
		partition := func() *metadata.Partition {
			p, _ := c.Image().Partition("orders", 0)
			return p
		}
		if p := partition(); p.Leader != metadata.NoLeader || !slices.Equal(p.ELR, []int32{3}) {
			t.Fatalf("%+v", p)
		}
		req := parseAlter([]string{"topic:orders", "set", "unclean.leader.election.enable=true"}).(*kmsg.IncrementalAlterConfigsRequest)
		if resp, err := c.IncrementalAlterConfigs(t.Context(), req); err != nil || resp.Resources[0].ErrorCode != 0 {
			t.Fatalf("%+v, %v", resp, err)
		}
		beating(62*time.Second, again)
		if p := partition(); p.Leader != 2 || !slices.Equal(p.ISR, []int32{2}) || len(p.ELR) > 0 {
			t.Fatalf("%+v", p)
		}
		c.Close()
	})
}

// TestUnregisterBroker: errors and effects as in Apache Kafka 4.3.1.
func TestUnregisterBroker(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, _, all := crowd(t)
		assigned(t, c, "orders", 1, 2, 3)
		for _, want := range []int16{0, kerr.BrokerIDNotRegistered.Code} {
			req := kmsg.NewPtrUnregisterBrokerRequest()
			req.BrokerID = 2
			if resp, err := c.UnregisterBroker(t.Context(), req); err != nil || resp.ErrorCode != want {
				t.Fatalf("%+v, %v", resp, err)
			}
		}
		if p, _ := c.Image().Partition("orders", 0); p.Leader != 3 || !slices.Equal(p.Replicas, []int32{2, 3}) || !slices.Equal(p.ISR, []int32{3}) || len(p.ELR) > 0 {
			t.Fatalf("%+v", p)
		}
		if _, err := c.Heartbeat(t.Context(), all[0].h); err == nil || !strings.Contains(err.Error(), ErrUnknownBroker.Error()) {
			t.Fatal(err)
		}
		c.Close()
	})
}

// TestPlacementLeavesOutWhoGoes: brokers that shut down get no new replicas; fenced ones count, and do not lead.
func TestPlacementLeavesOutWhoGoes(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, _, all := crowd(t)
		all[0].h.WantShutDown, all[1].h.WantFence = true, true
		all[0].once()
		all[1].once()
		synctest.Wait()
		req := createRequest(30, "orders")
		req.Topics[0].ReplicationFactor = 4
		if resp, err := c.CreateTopics(t.Context(), req); err != nil || resp.Topics[0].ErrorCode != kerr.InvalidReplicationFactor.Code {
			t.Fatalf("%+v, %v", resp, err)
		}
		req.Topics[0].ReplicationFactor = 3
		if resp, err := c.CreateTopics(t.Context(), req); err != nil || resp.Topics[0].ErrorCode != 0 {
			t.Fatalf("%+v, %v", resp, err)
		}
		topic, _ := c.Image().Topic("orders")
		for n, p := range topic.Partitions {
			if slices.Contains(p.Replicas, 2) || !slices.Contains(p.Replicas, 3) || p.Leader == 3 || slices.Contains(p.ISR, 3) {
				t.Fatalf("partition %d: %+v", n, p)
			}
		}
		c.Close()
	})
}

// TestTrap05LargeBrokersLeaveFirst: where a registration takes more than one entry, whatever part of them is committed, no
// broker in its new life is in sync.
func TestTrap05LargeBrokersLeaveFirst(t *testing.T) {
	for seed := range uint64(20) {
		dice := rand.New(rand.NewPCG(seed, 5))
		partitions := make([]metadata.Record, recordsPerBrokerEntry-1+dice.IntN(3))
		for i := range partitions {
			partitions[i] = &metadata.PartitionChangeRecord{Partition: int32(i)}
		}
		broker := &metadata.BrokerRecord{Id: 2}
		all := withBrokers([]metadata.Record{broker}, slices.Clone(partitions))
		if len(all) != len(partitions)+1 {
			t.Fatalf("seed %d: %d records of %d", seed, len(all), len(partitions)+1)
		}
		if at := slices.IndexFunc(all, func(r metadata.Record) bool { return r == broker }); at != 0 && (len(all) <= recordsPerBrokerEntry || at != len(all)-1) {
			t.Fatalf("seed %d: the broker is number %d of %d", seed, at, len(all))
		}
	}
}

// TestLargestBrokerEntryFits: an entry about a broker with as many partitions as one may hold is within what the quorum takes.
func TestLargestBrokerEntryFits(t *testing.T) {
	const mostBytes = 7 << 20 // quorum.ErrTooLarge beyond
	d := metadata.DirectoryBytes([]metadata.UUID{{1: 0xff}, {1: 0xff}, {1: 0xff}})
	nodes := func() *metadata.Nodes { return &metadata.Nodes{Ids: []int32{1, 2, 3}} }
	change := &metadata.PartitionChangeRecord{
		TopicId: metadata.UUID{1: 0xff}.Bytes(), Partition: 100_000, Replicas: nodes(), Directories: &metadata.Directories{Ids: d},
		Isr: nodes(), Elr: nodes(), Leader: proto.Int32(3),
	}
	encoded, err := metadata.Encode([]metadata.Record{change})
	if err != nil {
		t.Fatal(err)
	}
	if size := len(encoded) * recordsPerBrokerEntry; size > mostBytes {
		t.Fatalf("%d bytes a record, %d bytes in all", len(encoded), size)
	}
}
