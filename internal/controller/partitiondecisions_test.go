package controller

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// cluster is an image under decisions, without a runtime around them.
type cluster struct {
	t        testing.TB
	image    *metadata.Image
	settings *config.Set
	heard    map[int32]bool // of whom the controller has heard; nil: of all
}

var ordersID = metadata.UUID{3, 3, 3}

func dirOf(broker int32, disk byte) metadata.UUID { return metadata.UUID{9, byte(broker), disk} }

// newCluster has brokers 1 to n, unfenced, and a topic of one partition on the given replicas, all in sync.
func newCluster(t testing.TB, n int32, configs map[string]string, replicas ...int32) *cluster {
	t.Helper()
	settings, _, err := config.Load(config.Sources{File: "node.id=1", FileName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, image: metadata.Empty(), settings: settings}
	for id := int32(1); id <= n; id++ {
		c.apply(c.registration(id, false).Record())
	}
	var dirs []metadata.UUID
	for _, r := range replicas {
		dirs = append(dirs, dirOf(r, 1))
	}
	p := &metadata.Partition{Replicas: replicas, Directories: dirs, ISR: replicas, Leader: replicas[0]}
	c.apply(&metadata.TopicRecord{Name: "orders", Id: ordersID.Bytes()}, p.Record(ordersID, 0))
	for k, v := range configs {
		c.apply(&metadata.ConfigRecord{Kind: int32(metadata.TopicResource), Name: "orders", Key: k, Value: proto.String(v)})
	}
	return c
}

func (c *cluster) registration(id int32, fenced bool) *metadata.Broker {
	return &metadata.Broker{
		ID: id, Epoch: c.image.LastBrokerEpoch() + 1, Incarnation: metadata.UUID{byte(id), byte(c.image.LastBrokerEpoch() + 1)},
		Directories: []metadata.UUID{dirOf(id, 1)}, Fenced: fenced,
	}
}

func (c *cluster) apply(records ...metadata.Record) {
	c.t.Helper()
	next, _, err := c.image.With(c.image.Offset()+1, 1, records)
	if err != nil {
		c.t.Fatalf("the decision contradicts the image: %v", err)
	}
	c.image = next
}

func (c *cluster) decide() Partitions {
	d := DecidePartitions(c.image, c.settings)
	if c.heard != nil {
		d.Heard = func(b *metadata.Broker) bool { return c.heard[b.ID] }
	}
	return d
}

// hear is a word of a broker's, perhaps its first to this controller.
func (c *cluster) hear(id int32) {
	if c.heard == nil || c.heard[id] {
		return
	}
	c.apply(c.decide().FirstHeard(id)...)
	c.heard[id] = true
}

func (c *cluster) partition() *metadata.Partition {
	p, _ := c.image.Partition("orders", 0)
	return p
}

func (c *cluster) epoch(id int32) int64 {
	b, _ := c.image.Broker(id)
	return b.Epoch
}

func (c *cluster) change(id int32, fenced, shutting *bool) *metadata.BrokerChangeRecord {
	return &metadata.BrokerChangeRecord{Id: id, Epoch: c.epoch(id), Fenced: fenced, ShuttingDown: shutting}
}

func (c *cluster) fence(ids ...int32) {
	var records []metadata.Record
	for _, id := range ids {
		records = append(records, c.change(id, new(true), nil))
	}
	c.apply(append(records, c.decide().Fence(ids...)...)...)
}

func (c *cluster) unfence(id int32) {
	c.hear(id)
	c.apply(append([]metadata.Record{c.change(id, new(false), nil)}, c.decide().Unfence(id)...)...)
}

func (c *cluster) shutDown(id int32) {
	c.apply(append([]metadata.Record{c.change(id, nil, new(true))}, c.decide().ShutDown(id)...)...)
}

func (c *cluster) restart(id int32, how Comeback) {
	next := c.registration(id, true)
	c.apply(append([]metadata.Record{next.Record()}, c.decide().Restart(next, how)...)...)
	if c.heard != nil {
		c.heard[id] = true
	}
}

func (c *cluster) members(ids ...int32) (all []metadata.Member) {
	for _, id := range ids {
		all = append(all, metadata.Member{Broker: id, Epoch: c.epoch(id)})
	}
	return all
}

// propose is a proposal of the leader as the image has it.
func (c *cluster) propose(isr ...int32) metadata.ISRProposal {
	p := c.partition()
	return metadata.ISRProposal{Topic: ordersID, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: c.members(isr...)}
}

func (c *cluster) alter(p metadata.ISRProposal) metadata.ISROutcome {
	c.t.Helper()
	leader := c.partition().Leader
	records, outcomes, err := c.decide().AlterISR(leader, c.epoch(leader), []metadata.ISRProposal{p})
	if err != nil {
		c.t.Fatal(err)
	}
	c.apply(records...)
	return outcomes[0]
}

// want compares the partition with leader/epoch isr elr.
func (c *cluster) want(what, want string) {
	c.t.Helper()
	p := c.partition()
	if got := fmt.Sprintf("%d/%d isr=%v elr=%v", p.Leader, p.LeaderEpoch, p.ISR, p.ELR); got != want {
		c.t.Fatalf("%s: %s, want %s", what, got, want)
	}
}

// TestTrap04LastReplicaStanding: while fewer than min.insync.replicas are in sync, those who were stay eligible, and
// the partition is led by one of them or by nobody: not by a replica that was out of sync before, and in
// a topic that is not durable not by one that crashed (KIP-966).
func TestTrap04LastReplicaStanding(t *testing.T) {
	t.Run("durable", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{"min.insync.replicas": "2"}, 1, 2, 3)
		c.fence(3)
		c.want("one of three is gone", "1/0 isr=[1 2] elr=[]")
		c.fence(2)
		c.want("two are gone", "1/0 isr=[1] elr=[2]")
		c.fence(1)
		c.want("all are gone", "-1/1 isr=[] elr=[1 2]")
		c.unfence(3)
		c.want("the one that may lack records is back", "-1/1 isr=[] elr=[1 2]")
		c.restart(2, Comeback{})
		c.want("one with everything registers", "-1/1 isr=[] elr=[1 2]")
		c.unfence(2)
		c.want("and is back", "2/2 isr=[2] elr=[1]")
		c.unfence(1)
		if got := c.alter(c.propose(2, 1)); got != metadata.ISRAccepted {
			t.Fatal(got)
		}
		c.want("two are in sync again", "2/2 isr=[2 1] elr=[]")
	})
	t.Run("page cache", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{"min.insync.replicas": "2", "flush.before.ack": "false"}, 1, 2, 3)
		c.fence(3)
		c.fence(1)
		c.fence(2)
		c.want("all are gone", "-1/2 isr=[] elr=[1 2]")
		c.restart(1, Comeback{})
		c.want("one has crashed", "-1/2 isr=[] elr=[2]")
		c.unfence(1)
		c.want("and waits for the other", "-1/2 isr=[] elr=[2]")
		c.restart(2, Comeback{Clean: true})
		c.unfence(2)
		c.want("which is back from a clean end", "2/3 isr=[2] elr=[]")
		c.fence(2)
		c.restart(2, Comeback{})
		c.want("nobody has everything", "-1/4 isr=[] elr=[]")
		c.unfence(2)
		c.want("the last known leader takes over", "2/5 isr=[2] elr=[]")
	})
	t.Run("durable, but not for long enough", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{"min.insync.replicas": "2"}, 1, 2, 3)
		mark := func(unflushed bool, isr ...int32) metadata.ISRProposal {
			p := c.propose(isr...)
			p.Unflushed = &unflushed
			return p
		}
		late := mark(false, 1, 2, 3)
		if got := c.alter(mark(true, 1, 2, 3)); got != metadata.ISRAccepted || !c.partition().Unflushed {
			t.Fatal(got, c.partition())
		}
		if got := c.alter(late); got != metadata.ISRStale || !c.partition().Unflushed {
			t.Fatal(got, c.partition())
		}
		c.fence(3)
		c.fence(2)
		c.want("one is left", "1/0 isr=[1] elr=[2]")
		if got := c.alter(mark(false, 1)); got != metadata.ISRAccepted || !c.partition().Unflushed {
			t.Fatal("it spoke for the eligible one, which it has not asked", got, c.partition())
		}
		c.restart(2, Comeback{})
		c.want("the eligible one has crashed", "1/0 isr=[1] elr=[]")
		c.unfence(2)
		if got := c.alter(c.propose(1, 2)); got != metadata.ISRAccepted {
			t.Fatal(got)
		}
		if got := c.alter(mark(false, 1)); got != metadata.ISRAccepted || !c.partition().Unflushed {
			t.Fatal("it spoke for others than those in sync", got, c.partition())
		}
		c.want("who was put out is eligible", "1/0 isr=[1] elr=[2]")
		if got := c.alter(c.propose(1, 2)); got != metadata.ISRAccepted {
			t.Fatal(got)
		}
		if got := c.alter(mark(false, 1, 2)); got != metadata.ISRAccepted || c.partition().Unflushed {
			t.Fatal(got, c.partition())
		}
		c.fence(2)
		c.restart(2, Comeback{})
		c.want("a crash takes nothing now", "1/0 isr=[1] elr=[2]")
	})
	t.Run("min.insync.replicas is lowered", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{"min.insync.replicas": "2"}, 1, 2, 3)
		c.fence(3)
		c.fence(2)
		c.want("two are gone", "1/0 isr=[1] elr=[2]")
		topic, _ := c.image.Topic("orders")
		c.apply(MinISRLowered(topic, func(*metadata.Partition) int { return 2 }, func(*metadata.Partition) int { return 1 })...)
		c.want("the watermark moves with one", "1/0 isr=[1] elr=[]")
	})
}

// TestPowerCutOfAll: where all lost power at once, those who are back lead once the others' sessions are over: nothing was
// acknowledged without them, whoever the others are, for they were in sync to the end. In a topic that is not durable only one whose
// process may not have ended can still have everything, so it is waited for, however few in-sync replicas are asked for.
func TestPowerCutOfAll(t *testing.T) {
	const one = "min.insync.replicas"
	cut := func(t *testing.T, configs map[string]string) *cluster {
		c := newCluster(t, 3, configs, 3, 1, 2)
		c.heard = map[int32]bool{} // a new controller
		c.restart(1, Comeback{})
		return c
	}
	t.Run("before the sessions end", func(t *testing.T) {
		c := cut(t, map[string]string{one: "1"})
		c.want("one is back, and the leader may live", "3/0 isr=[3 1 2] elr=[]")
		c.restart(2, Comeback{})
		c.unfence(1)
		c.want("two are back", "3/0 isr=[3 1 2] elr=[]")
		c.fence(3)
		c.want("the third's session is over", "1/1 isr=[1] elr=[]")
		c.unfence(2)
		if got := c.alter(c.propose(1, 2)); got != metadata.ISRAccepted {
			t.Fatal(got)
		}
	})
	t.Run("the leader comes first", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{one: "1"}, 1, 2, 3)
		c.heard = map[int32]bool{}
		c.restart(1, Comeback{})
		c.want("another may live", "2/1 isr=[1 2 3] elr=[]")
		c.unfence(1)
		c.fence(2, 3)
		c.want("none does", "1/2 isr=[1] elr=[]")
	})
	t.Run("after the sessions have ended", func(t *testing.T) {
		c := cut(t, map[string]string{one: "1"})
		c.fence(2, 3)
		c.want("nobody takes part", "-1/1 isr=[] elr=[3 1 2]")
		c.restart(2, Comeback{})
		c.unfence(2)
		c.want("one does", "2/2 isr=[2] elr=[]")
	})
	t.Run("the leader lives", func(t *testing.T) {
		c := cut(t, map[string]string{one: "1"})
		c.hear(3)
		c.want("it goes on without the one that begins", "3/0 isr=[3 2] elr=[]")
		c.restart(2, Comeback{})
		c.want("and the next one", "3/0 isr=[3] elr=[]")
		c.fence(3)
		c.unfence(1)
		c.unfence(2)
		c.want("now it may have acknowledged something alone", "-1/1 isr=[] elr=[3]")
	})
	t.Run("another in-sync replica lives", func(t *testing.T) {
		c := cut(t, map[string]string{one: "1"})
		c.hear(2)
		c.want("it may lead", "3/0 isr=[3 2] elr=[]")
		c.fence(3)
		c.want("it leads", "2/1 isr=[2] elr=[]")
	})
	t.Run("the page cache is lost", func(t *testing.T) {
		c := cut(t, map[string]string{one: "1", "flush.before.ack": "false"})
		c.restart(2, Comeback{})
		c.unfence(1)
		c.unfence(2)
		c.want("the third may live, and have all", "3/0 isr=[3] elr=[]")
		c.fence(3)
		c.want("and is waited for", "-1/1 isr=[] elr=[3]")
		c.restart(3, Comeback{})
		c.unfence(3)
		c.want("until it is known not to", "3/2 isr=[3] elr=[]")
	})
	t.Run("the page cache was written", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{one: "1", "flush.before.ack": "false"}, 3, 1, 2)
		c.heard = map[int32]bool{}
		c.restart(1, Comeback{Clean: true})
		c.unfence(1)
		c.fence(2, 3)
		c.want("it ended in peace while it was in sync", "1/1 isr=[1] elr=[]")
	})
	t.Run("a disk is gone", func(t *testing.T) {
		c := newCluster(t, 3, map[string]string{one: "1"}, 3, 1, 2)
		c.heard = map[int32]bool{}
		next := c.registration(1, true)
		next.Directories = []metadata.UUID{dirOf(1, 2)}
		c.apply(append([]metadata.Record{next.Record()}, c.decide().Restart(next, Comeback{Complete: true})...)...)
		c.want("it has nothing", "3/0 isr=[3 2] elr=[]")
	})
}

// TestTrap05StaleMembers: a broker that is fenced, shutting down, or not the one that was meant does not join the
// in-sync replicas, however late the proposal comes (KIP-841, KIP-903).
func TestTrap05StaleMembers(t *testing.T) {
	for name, c := range map[string]struct {
		between func(c *cluster)
		want    metadata.ISROutcome
	}{
		"fenced":        {func(c *cluster) { c.fence(3) }, metadata.ISRIneligible},
		"shutting down": {func(c *cluster) { c.shutDown(3) }, metadata.ISRIneligible},
		"rebooted":      {func(c *cluster) { c.restart(3, Comeback{Complete: true}); c.unfence(3) }, metadata.ISRIneligible},
		"another disk": {func(c *cluster) {
			next := c.registration(3, true)
			next.Directories = []metadata.UUID{dirOf(3, 2)}
			c.apply(append([]metadata.Record{next.Record()}, c.decide().Restart(next, Comeback{Complete: true})...)...)
			c.unfence(3)
		}, metadata.ISRStale}, // its directory was replaced, which is a change of the partition
		"still there": {func(*cluster) {}, metadata.ISRAccepted},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCluster(t, 3, nil, 1, 2, 3)
			w.fence(3)
			w.unfence(3)
			late := w.propose(1, 2, 3)
			c.between(w)
			if got := w.alter(late); got != c.want {
				t.Fatalf("%v, want %v", got, c.want)
			}
			if in := slices.Contains(w.partition().ISR, 3); in != (c.want == metadata.ISRAccepted) {
				t.Fatalf("in-sync replicas %v", w.partition().ISR)
			}
			if c.want == metadata.ISRAccepted {
				if got := w.alter(late); got != metadata.ISRStale {
					t.Fatalf("the same again: %v", got)
				}
			}
		})
	}
	c := newCluster(t, 3, nil, 1, 2, 3)
	if _, _, err := c.decide().AlterISR(1, c.epoch(1)-1, nil); !errors.Is(err, ErrStaleBrokerEpoch) {
		t.Fatal(err)
	}
	if _, _, err := c.decide().AlterISR(7, 1, nil); !errors.Is(err, ErrUnknownBroker) {
		t.Fatal(err)
	}
	for _, bad := range [][]int32{{}, {2, 3}, {1, 1}, {1, 7}} {
		p := c.propose(1)
		p.ISR = nil
		for _, id := range bad {
			p.ISR = append(p.ISR, metadata.Member{Broker: id, Epoch: 1})
		}
		if got := c.alter(p); got != metadata.ISRInvalid {
			t.Errorf("in-sync replicas %v: %v", bad, got)
		}
	}
	ahead := c.propose(1, 2, 3)
	ahead.PartitionEpoch++
	if got := c.alter(ahead); got != metadata.ISRBehind {
		t.Errorf("a proposal from the future: %v", got)
	}
	closing := c.propose(1, 2, 3)
	if got := c.alter(closing); got != metadata.ISRAccepted || c.partition().PartitionEpoch != closing.PartitionEpoch+1 {
		t.Errorf("a proposal of what is: %v, partition epoch %d", got, c.partition().PartitionEpoch)
	}
}

// TestResign: a leader whose log is damaged hands over to one that has everything, and is not eligible any more.
func TestResign(t *testing.T) {
	c := newCluster(t, 3, map[string]string{"min.insync.replicas": "2"}, 1, 2, 3)
	c.fence(3)
	p := c.propose(2)
	p.Lost = []int32{1}
	if got := c.alter(p); got != metadata.ISRAccepted {
		t.Fatal(got)
	}
	c.want("handed over", "2/1 isr=[2] elr=[]")
	p = c.propose()
	p.Lost = []int32{2}
	if got := c.alter(p); got != metadata.ISRIneligible {
		t.Fatal(got)
	}
	c.want("nobody else is there", "2/1 isr=[2] elr=[]")
}

// TestShutDownMovesLeaders: a broker that stops gives away what others can lead, keeps what only it can, and
// is not missed when it goes.
func TestShutDownMovesLeaders(t *testing.T) {
	c := newCluster(t, 3, nil, 1, 2)
	c.shutDown(1)
	c.want("shutting down", "2/1 isr=[2] elr=[]")
	if led, movable := c.decide().LedBy(1); led+movable != 0 {
		t.Fatalf("leads %d, of which %d could move", led, movable)
	}
	c.shutDown(2)
	c.want("nobody else", "2/1 isr=[2] elr=[]")
	if got := c.alter(c.propose(2)); got != metadata.ISRAccepted {
		t.Fatal(got)
	}
	c.want("nobody else, and it proposes what is", "2/1 isr=[2] elr=[]")
	if led, movable := c.decide().LedBy(2); led != 1 || movable != 0 {
		t.Fatalf("leads %d, of which %d could move", led, movable)
	}
	c.fence(2)
	c.want("gone", "-1/2 isr=[] elr=[2]")

	c = newCluster(t, 3, map[string]string{"unclean.leader.election.enable": "true"}, 1, 2)
	c.alter(c.propose(1))
	c.shutDown(1)
	c.alter(c.propose(1))
	c.want("the other lacks records", "1/0 isr=[1] elr=[]")
}

// TestWipedDisk: a broker that comes back without its directory begins anew where others have its records, and
// where it was the only one the partition waits.
func TestWipedDisk(t *testing.T) {
	for name, c := range map[string]struct {
		replicas []int32
		dir      metadata.UUID
	}{"others have it": {[]int32{3, 1, 2}, dirOf(3, 2)}, "nobody else has it": {[]int32{3}, dirOf(3, 1)}} {
		t.Run(name, func(t *testing.T) {
			w := newCluster(t, 3, nil, c.replicas...)
			next := w.registration(3, true)
			next.Directories = []metadata.UUID{dirOf(3, 2)}
			w.apply(append([]metadata.Record{next.Record()}, w.decide().Restart(next, Comeback{Complete: true})...)...)
			w.unfence(3)
			p := w.partition()
			if p.Directories[0] != c.dir || slices.Contains(p.ISR, 3) || p.Leader == 3 {
				t.Fatalf("%+v", p)
			}
			if slices.Contains(p.ELR, 3) != (len(c.replicas) == 1) {
				t.Fatalf("eligible %v", p.ELR)
			}
		})
	}
}

// TestTrap04WipedReplicaIsNotEligible: who has lost its disk is not an eligible leader for having been in sync, however few
// in-sync replicas are left.
func TestTrap04WipedReplicaIsNotEligible(t *testing.T) {
	for name, assigned := range map[string]metadata.UUID{"assigned": dirOf(3, 1), "unassigned": metadata.UnassignedDirectory} {
		t.Run(name, func(t *testing.T) {
			w := newCluster(t, 3, map[string]string{"min.insync.replicas": "2"}, 3, 1)
			w.apply(&metadata.PartitionChangeRecord{
				TopicId: ordersID.Bytes(), Replicas: &metadata.Nodes{Ids: []int32{3, 1}},
				Directories: &metadata.Directories{Ids: metadata.DirectoryBytes([]metadata.UUID{assigned, dirOf(1, 1)})},
			})
			next := w.registration(3, true)
			next.Directories = []metadata.UUID{dirOf(3, 2)}
			w.apply(append([]metadata.Record{next.Record()}, w.decide().Restart(next, Comeback{Complete: true})...)...)
			w.want("wiped", "1/1 isr=[1] elr=[]")
			w.unfence(3)
			w.fence(1)
			w.want("alone", "-1/2 isr=[] elr=[1]")
		})
	}
}

// TestAssignedDirectories: a replica that its broker finds elsewhere stays what it is, one in no directory that works is out of
// the in-sync replicas, and one that works again may lead what nobody leads.
func TestAssignedDirectories(t *testing.T) {
	c := newCluster(t, 3, nil, 1)
	say := func(id int32, directory metadata.UUID, what, want string) {
		t.Helper()
		records, strangers := c.decide().AssignDirectories(id, []metadata.ReplicaDirectory{{Topic: ordersID, Directory: directory}})
		if (strangers > 0) != (id != 1) {
			t.Fatalf("%s: %d strangers", what, strangers)
		}
		c.apply(records...)
		c.want(what, want)
	}
	say(1, dirOf(1, 1), "as it was", "1/0 isr=[1] elr=[]")
	say(1, metadata.LostDirectory, "lost", "-1/1 isr=[] elr=[1]")
	say(2, dirOf(2, 1), "not a replica", "-1/1 isr=[] elr=[1]")
	say(1, dirOf(1, 1), "found", "1/2 isr=[1] elr=[]")
	if p := c.partition(); p.Directories[0] != dirOf(1, 1) {
		t.Fatalf("%+v", p)
	}
}

// TestPreferLeaders: partitions go back to their first replicas once those are in sync, beyond the imbalance allowed.
func TestPreferLeaders(t *testing.T) {
	c := newCluster(t, 3, nil, 1, 2, 3)
	c.fence(1)
	c.want("moved", "2/1 isr=[2 3] elr=[]")
	c.unfence(1)
	if records, more := c.decide().PreferLeaders(10, 100); len(records) != 0 || more {
		t.Fatalf("%d changes for one that is not in sync", len(records))
	}
	c.alter(c.propose(2, 3, 1))
	if records, more := c.decide().PreferLeaders(100, 100); len(records) != 0 || more {
		t.Fatalf("%d changes within the imbalance allowed", len(records))
	}
	if records, more := c.decide().PreferLeaders(10, 0); len(records) != 0 || !more {
		t.Fatalf("%d changes at a limit of none", len(records))
	}
	records, _ := c.decide().PreferLeaders(10, 100)
	c.apply(records...)
	c.want("back", "1/2 isr=[2 3 1] elr=[]")
}

// TestPartitionInvariants: whatever brokers do, in any order: who leads is in sync and takes part; nobody fenced is in
// sync beside a leader who was heard of; nobody is eligible beside enough in-sync replicas; and unless the topic allows it, or a
// replica that is not durable crashed, who leads has every committed record.
func TestPartitionInvariants(t *testing.T) {
	for seed := range uint64(2000) {
		dice := rand.New(rand.NewPCG(seed, 11))
		durable := dice.IntN(2) == 0
		c := newCluster(t, 4, map[string]string{
			"min.insync.replicas": fmt.Sprint(1 + dice.IntN(3)), "flush.before.ack": fmt.Sprint(durable),
		}, 1, 2, 3)
		if dice.IntN(2) == 0 {
			c.heard = map[int32]bool{}
		}
		least, _ := metadata.EffectiveMinISR(c.decide().rules(mustTopic(c)).configured, 3)
		committed := map[int32]bool{1: true, 2: true, 3: true} // who has everything
		for step := range 60 {
			did := c.stir(dice, durable, committed)
			p := c.partition()
			fail := func(why string) {
				t.Fatalf("seed %d, step %d (%s): %s: leader %d isr %v elr %v, complete %v", seed, step, did, why, p.Leader, p.ISR, p.ELR, committed)
			}
			if p.Leader != metadata.NoLeader && !slices.Contains(p.ISR, p.Leader) {
				fail("the leader is not in sync")
			}
			stands := func(id int32) bool { return c.decide().active(id) && (c.heard == nil || c.heard[id]) }
			for _, id := range p.ISR {
				if b, _ := c.image.Broker(id); b.Fenced && stands(p.Leader) || !committed[id] && durable {
					fail("a member is fenced or lacks records")
				}
			}
			if p.Leader == metadata.NoLeader && durable && slices.ContainsFunc(append(slices.Clone(p.ISR), p.ELR...), c.decide().active) {
				fail("somebody who has everything does not lead")
			}
			for _, id := range p.ELR {
				if len(p.ISR) >= least || slices.Contains(p.ISR, id) || !committed[id] && durable {
					fail("wrongly eligible")
				}
			}
			if p.Leader != metadata.NoLeader && len(p.ISR) >= least {
				// The watermark moves on: who is not in sync falls behind.
				for id := range committed {
					committed[id] = slices.Contains(p.ISR, id)
				}
			}
		}
	}
}

func mustTopic(c *cluster) *metadata.Topic {
	t, _ := c.image.Topic("orders")
	return t
}

// stir does something to a broker.
func (c *cluster) stir(dice *rand.Rand, durable bool, committed map[int32]bool) string {
	id := int32(1 + dice.IntN(3))
	b, _ := c.image.Broker(id)
	p := c.partition()
	if c.heard != nil {
		switch dice.IntN(8) {
		case 0:
			c.heard = map[int32]bool{}
			return "another controller"
		case 1:
			c.hear(id)
			return fmt.Sprintf("hear %d", id)
		}
	}
	switch dice.IntN(7) {
	case 0:
		if other := id%3 + 1; dice.IntN(3) == 0 {
			c.fence(id, other)
			return fmt.Sprintf("fence %d and %d", id, other)
		}
		c.fence(id)
		return fmt.Sprintf("fence %d", id)
	case 1, 2:
		if b.Fenced {
			c.unfence(id)
		}
		return fmt.Sprintf("unfence %d", id)
	case 3:
		c.restart(id, Comeback{Clean: dice.IntN(2) == 0})
		return fmt.Sprintf("restart %d", id)
	case 4:
		if !b.Fenced && !b.ShuttingDown && p.Leader != id {
			c.shutDown(id)
		}
		return fmt.Sprintf("shut down %d", id)
	}
	if p.Leader == metadata.NoLeader {
		return "nothing"
	}
	// The leader proposes to drop a member, or to add one that has caught up.
	if slices.Contains(p.ISR, id) && id != p.Leader {
		c.alter(c.propose(without(p.ISR, id)...))
		return fmt.Sprintf("drop %d", id)
	}
	if !slices.Contains(p.ISR, id) && committed[p.Leader] {
		before := committed[id]
		committed[id] = true
		if c.alter(c.propose(append(slices.Clone(p.ISR), id)...)) != metadata.ISRAccepted {
			committed[id] = before
		}
		return fmt.Sprintf("add %d", id)
	}
	return "nothing"
}
