package replica

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
)

// TestThrottleHoldsItsRate: whatever the rate, the windows and the sizes of batches, who takes what there is room for has in
// the long run what the rate says, beyond one window and one batch.
func TestThrottleHoldsItsRate(t *testing.T) {
	for seed := range uint64(300) {
		dice := rand.New(rand.NewPCG(seed, 0))
		limit := throttleLimit{
			rate: 1000 + dice.Int64N(5_000_000), window: time.Duration(1+dice.IntN(3)) * time.Second, number: 1 + dice.IntN(12),
		}
		largest := int(limit.rate/20) + 1 + dice.IntN(3_000_000) // enough for the rate
		var th throttle
		th.set(limit)
		begin := time.Unix(1_000_000, 0)
		now := begin
		var got int64
		span := time.Duration(20+dice.IntN(200)) * time.Second
		for now.Sub(begin) < span {
			room, wait := th.room(now)
			if room > 0 == (wait > 0) {
				t.Fatalf("seed %d: room for %d bytes, wait %v", seed, room, wait)
			}
			if room > 0 {
				n := 1 + dice.IntN(largest)
				th.spend(now, n, true)
				got += int64(n)
				wait = time.Duration(dice.IntN(20)) * time.Millisecond
			}
			now = now.Add(wait)
		}
		due := float64(limit.rate) * now.Sub(begin).Seconds()
		burst := float64(limit.rate)*limit.window.Seconds() + float64(largest)
		// With one sample a pause is forgotten soon, and so is what it left unused.
		if g := float64(got); g > due+burst || g < 0.85*due-burst {
			t.Errorf("seed %d: %+v, batches of up to %d: %d bytes in %v, due %.0f", seed, limit, largest, got, now.Sub(begin), due)
		}
	}
}

// TestThrottleForgetsMembers: what replicas in sync copy counts, but not for ever: it cannot be held back, and a replica
// that is moved would pay for it long after.
func TestThrottleForgetsMembers(t *testing.T) {
	var th throttle
	th.set(throttleLimit{rate: 1000, window: time.Second, number: 11})
	now := time.Unix(1_000_000, 0)
	for range 600 {
		th.spend(now, 100_000, false)
		now = now.Add(100 * time.Millisecond)
	}
	if room, _ := th.room(now); room > 0 {
		t.Errorf("room for %d bytes while members copy a hundred times the rate", room)
	}
	now = now.Add(12 * time.Second)
	if room, _ := th.room(now); room != 1000 {
		t.Errorf("room for %d bytes after members have been silent for all windows", room)
	}
}

// TestThrottleAtZero: nothing may be copied, and nobody asks again and again.
func TestThrottleAtZero(t *testing.T) {
	var th throttle
	th.set(throttleLimit{rate: 0, window: time.Second, number: 11})
	if room, wait := th.room(time.Now()); room != 0 || wait != longestHold {
		t.Errorf("room for %d, wait %v", room, wait)
	}
	now := time.Unix(1_000_000, 0)
	for range 10 { // what members copy is counted all the same, now and then
		th.spend(now, 1000, false)
		now = now.Add(15 * time.Second)
	}
	if room, wait := th.room(now); room != 0 || wait != longestHold {
		t.Errorf("after members have copied: room for %d, wait %v", room, wait)
	}
	th.set(throttleLimit{rate: math.MaxInt64, window: time.Second, number: 11})
	if room, wait := th.room(time.Now()); room != math.MaxInt64 || wait != 0 {
		t.Errorf("unlimited: room for %d, wait %v", room, wait)
	}
}

// TestThrottleOfTheLongestWindows: more time than a Duration holds.
func TestThrottleOfTheLongestWindows(t *testing.T) {
	var th throttle
	th.set(throttleLimit{rate: 1000, window: math.MaxInt32 / 2 * time.Second, number: math.MaxInt32})
	now := time.Unix(1_000_000, 0)
	for range 10 {
		th.spend(now, 1000, true)
		now = now.Add(5 * time.Second)
	}
	if room, _ := th.room(now); room <= 0 {
		t.Errorf("room for %d bytes, far below the rate", room)
	}
}

func TestThrottledReplicas(t *testing.T) {
	for _, c := range []struct {
		list []string
		want string
	}{
		{nil, "----"},
		{[]string{"*"}, "++++"},
		{[]string{"0:7", "2:1", "", "003:01", "1:99999999999"}, "--++"},
	} {
		p := parseThrottled(c.list, 1)
		got := ""
		for n := range int32(4) {
			got += map[bool]string{true: "+", false: "-"}[p.has(n)]
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.list, got, c.want)
		}
	}
}

// large is a batch of about so many bytes.
func large(bytes int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	b.Append(time.Now().UnixMilli(), nil, make([]byte, bytes), nil)
	built, err := b.Build()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return built
}

func writeLarge(t testing.TB, p *Partition, n, bytes int) {
	t.Helper()
	for range n {
		if _, err := p.Append(large(bytes), false, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) set(kind metadata.ResourceKind, name string, pairs ...string) {
	var records []metadata.Record
	for i := 0; i < len(pairs); i += 2 {
		records = append(records, setting(kind, name, pairs[i], pairs[i+1]))
	}
	w.commit(records...)
}

const (
	throttleRate = 200_000
	throttleSpan = 20 * time.Second
)

// TestThrottledReplicaIsSlow: a replica that is far behind comes nearer at the rate that is set, on either side, while
// what is not throttled in the same fetch comes at once, and members of the in-sync replicas are not held back. No fetch
// more than need be is sent. Without the limit it is there at once.
func TestThrottledReplicaIsSlow(t *testing.T) {
	for _, side := range []string{"leader", "follower"} {
		t.Run(side, func(t *testing.T) {
			topics := []worldTopic{
				{name: "moved", id: 1, numbers: 1, on: []int32{1, 2, 3}, configs: map[string]string{"min.insync.replicas": "2"}},
				{name: "other", id: 2, numbers: 1, on: []int32{1, 3}},
			}
			inWorldWith(t, 31, topics, []string{"replica.fetch.max.bytes=200000"}, func(t *testing.T, w *world) {
				moved, other := w.awaitLeader("moved", 1), w.awaitLeader("other", 1)
				w.isolate(3, true)
				w.await("it to leave", func() bool { return len(moved.InSync()) == 2 && len(other.InSync()) == 1 })
				writeLarge(t, moved, 2000, 5_000)
				writeLarge(t, other, 2000, 5_000)
				// What the member copies counts too.
				w.await("the member", func() bool { return w.on(2, "moved").Progress().End == 2000 })
				w.set(metadata.BrokerResource, "", side+".replication.throttled.rate", fmt.Sprint(throttleRate))
				w.set(metadata.TopicResource, "moved", side+".replication.throttled.replicas", map[string]string{"leader": "0:1", "follower": "0:2,0:3"}[side])
				w.isolate(3, false)
				here, there := w.on(3, "moved"), w.on(3, "other")
				w.await("its return", func() bool { return there.Progress().End == 2000 })
				begin, had, fetches := time.Now(), here.log.Size(), w.fetches.Load()
				if had > 2*throttleRate {
					t.Errorf("%d bytes are there when what is not throttled is", had)
				}
				for time.Since(begin) < throttleSpan {
					asked := time.Now()
					moved.append(t, 1)
					if took := time.Since(asked); took > 50*time.Millisecond {
						t.Errorf("a record was acknowledged after %v", took)
					}
					<-time.After(500 * time.Millisecond)
				}
				seconds := time.Since(begin).Seconds()
				rate := float64(here.log.Size()-had) / seconds
				if rate < 0.85*throttleRate || rate > 1.15*throttleRate {
					t.Errorf("%.0f bytes per second are copied, %d were allowed", rate, throttleRate)
				}
				if n := float64(w.fetches.Load()-fetches) / seconds; n > 30 {
					t.Errorf("%.0f fetches per second", n)
				}
				sent, _ := w.nodes[0].manager().ThrottledBytes()
				_, taken := w.nodes[2].manager().ThrottledBytes()
				if n := map[string]int64{"leader": sent, "follower": taken}[side]; n < had {
					t.Errorf("%d throttled bytes are counted", n)
				}
				for range 30 { // members that copy more than the rate says
					asked := time.Now()
					writeLarge(t, moved, 1, throttleRate)
					moved.append(t, 1)
					if took := time.Since(asked); took > 50*time.Millisecond {
						t.Errorf("a large record was acknowledged after %v", took)
					}
				}
				w.set(metadata.BrokerResource, "", side+".replication.throttled.rate", fmt.Sprint(int64(math.MaxInt64)))
				begin = time.Now()
				w.await("the rest", func() bool { return here.Progress().End == moved.Progress().End })
				if took := time.Since(begin); took > time.Second {
					t.Errorf("without a limit the rest took %v", took)
				}
				w.equal("moved")
			})
		})
	}
}

// TestThrottledReplicasTakeTurns: partitions that are throttled together come forward together, and one whose throttle is
// taken away, by its topic's setting, comes at once.
func TestThrottledReplicasTakeTurns(t *testing.T) {
	for _, side := range []string{"leader", "follower"} {
		t.Run(side, func(t *testing.T) {
			var topics []worldTopic
			for i := range 8 {
				topics = append(topics, worldTopic{name: fmt.Sprint("t", i), id: byte(i + 1), numbers: 1, on: []int32{1, 3}})
			}
			inWorldWith(t, 32, topics, []string{"replica.fetch.max.bytes=100000"}, func(t *testing.T, w *world) {
				for _, topic := range topics {
					w.awaitLeader(topic.name, 1)
				}
				w.isolate(3, true)
				for _, topic := range topics {
					p := w.on(1, topic.name)
					w.await("it to leave", func() bool { return len(p.InSync()) == 1 })
					writeLarge(t, p, 400, 20_000)
					w.set(metadata.TopicResource, topic.name, side+".replication.throttled.replicas", "*")
				}
				w.set(metadata.BrokerResource, "1", side+".replication.throttled.rate", fmt.Sprint(throttleRate))
				w.set(metadata.BrokerResource, "3", side+".replication.throttled.rate", fmt.Sprint(throttleRate))
				w.isolate(3, false)
				<-time.After(throttleSpan)
				for _, topic := range topics {
					if size := w.on(3, topic.name).log.Size(); size < throttleRate/2 || size > 5*throttleRate {
						t.Errorf("%s: %d bytes in %v", topic.name, size, throttleSpan)
					}
				}
				for _, rate := range []string{"0", fmt.Sprint(4 * throttleRate)} {
					w.set(metadata.BrokerResource, "1", side+".replication.throttled.rate", rate)
					w.set(metadata.BrokerResource, "3", side+".replication.throttled.rate", rate)
					<-time.After(100 * time.Millisecond)
					before := w.on(3, "t0").log.Size()
					<-time.After(2900 * time.Millisecond)
					if grown := w.on(3, "t0").log.Size() - before; (grown > 0) == (rate == "0") {
						t.Errorf("at a rate of %s %d bytes have come", rate, grown)
					}
				}
				w.set(metadata.BrokerResource, "1", side+".replication.throttled.rate", "0")
				w.set(metadata.BrokerResource, "3", side+".replication.throttled.rate", "0")
				<-time.After(2 * time.Second)
				w.set(metadata.TopicResource, "t7", side+".replication.throttled.replicas", "")
				<-time.After(time.Second)
				if at := w.on(3, "t7").Progress(); at.End != 400 {
					t.Errorf("without the throttle it ends at %d", at.End)
				}
				if at := w.on(3, "t6").Progress(); at.End == 400 {
					t.Error("the others are not throttled any more")
				}
			})
		})
	}
}

// TestBatchThatDoesNotFitComesWithTheNextAnswer: a batch that is larger than what is left of an answer is not forgotten.
func TestBatchThatDoesNotFitComesWithTheNextAnswer(t *testing.T) {
	topics := []worldTopic{{name: "a", id: 1, numbers: 1, on: []int32{1, 3}}, {name: "b", id: 2, numbers: 1, on: []int32{1, 3}}}
	inWorldWith(t, 33, topics, []string{"replica.fetch.response.max.bytes=60000"}, func(t *testing.T, w *world) {
		for _, topic := range topics {
			w.awaitLeader(topic.name, 1)
		}
		w.isolate(3, true)
		for _, topic := range topics {
			p := w.on(1, topic.name)
			w.await("it to leave", func() bool { return len(p.InSync()) == 1 })
			writeLarge(t, p, 1, 50_000)
		}
		w.isolate(3, false)
		w.equal("a")
		w.equal("b")
	})
}
