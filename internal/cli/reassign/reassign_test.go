package reassign

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"barnabas/client"
)

func at(topic string, partition int32) client.TopicPartition {
	return client.TopicPartition{Topic: topic, Partition: partition}
}

// TestParseReadsKafkasFiles: what is written is read again; what Kafka's tool refuses is refused.
func TestParseReadsKafkasFiles(t *testing.T) {
	const text = `{"version":1,"partitions":[{"topic":"b","partition":0,"replicas":[2,1],"log_dirs":["any","any"]},{"topic":"a","partition":3,"replicas":[5]}]}`
	plan, dirs, err := Parse([]byte(text))
	if want := (Plan{at("b", 0): {2, 1}, at("a", 3): {5}}); err != nil || dirs || !reflect.DeepEqual(plan, want) {
		t.Fatalf("%v, %v", plan, err)
	}
	out, err := json.Marshal(plan)
	if want := `{"version":1,"partitions":[{"topic":"a","partition":3,"replicas":[5]},{"topic":"b","partition":0,"replicas":[2,1]}]}`; err != nil || string(out) != want {
		t.Errorf("%s, %v", out, err)
	}
	if again, _, err := Parse(out); err != nil || !reflect.DeepEqual(again, plan) {
		t.Errorf("%v, %v", again, err)
	}
	for bad, says := range map[string]string{
		"":               "not a reassignment",
		`{"version":2}`:  "version 2",
		`{"version":1}`:  "no partitions",
		`{"partitions"}`: "not a reassignment",
		`{"version":1,"partitions":[{"partition":0,"replicas":[1]}]}`:                                                        "without its topic",
		`{"version":1,"partitions":[{"topic":"a","replicas":[1]}]}`:                                                          "without its topic or number",
		`{"version":1,"partitions":[{"topic":"a","partition":0,"replicas":[]}]}`:                                             "no brokers",
		`{"version":1,"partitions":[{"topic":"a","partition":0,"replicas":[1,1]}]}`:                                          "twice",
		`{"version":1,"partitions":[{"topic":"a","partition":0,"replicas":[1]},{"topic":"a","partition":0,"replicas":[2]}]}`: "a-0 is there twice",
	} {
		if _, _, err := Parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", bad, err, says)
		}
	}
}

// TestParseTakesKafkasWayBack: the files that Kafka's tool writes name the directories that replicas are in.
func TestParseTakesKafkasWayBack(t *testing.T) {
	plan, dirs, err := Parse([]byte(`{"version":1,"partitions":[{"topic":"t1","partition":0,"replicas":[2,1],"log_dirs":["/d/2","any"]}]}`))
	if err != nil || !dirs || !reflect.DeepEqual(plan, Plan{at("t1", 0): {2, 1}}) {
		t.Errorf("%v, %v, %v", plan, dirs, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"partitions":[{"topic":"b","partition":0,"replicas":[2,1]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		plan, _, err := Parse(text)
		if err != nil {
			return
		}
		out, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		if again, _, err := Parse(out); err != nil || !reflect.DeepEqual(again, plan) {
			t.Fatalf("%s: %v became %v, %v", text, plan, again, err)
		}
	})
}

// TestSpread: whatever there was, each partition gets its number of different brokers of the list, no broker more than its
// share and what may have been unavoidable, leaders alike, racks apart where that is possible; and what was well
// spread stays.
func TestSpread(t *testing.T) {
	for seed := range uint64(500) {
		dice := rand.New(rand.NewPCG(seed, 7))
		var brokers []Broker
		racks := dice.IntN(4)
		for n := range 1 + dice.IntN(7) {
			b := Broker{Node: int32(n*3 + 1)}
			if racks > 0 {
				b.Rack = fmt.Sprint("r", n%racks)
			}
			brokers = append(brokers, b)
		}
		factor := 1 + dice.IntN(len(brokers))
		now := Plan{}
		for n := range 1 + dice.IntN(40) {
			var on []int32
			for _, id := range dice.Perm(12)[:1+dice.IntN(5)] {
				on = append(on, int32(id))
			}
			now[at("t", int32(n))] = on
		}
		plan, err := Spread(now, factor, brokers)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkSpread(t, seed, plan, len(now), factor, brokers)
		again, err := Spread(plan, 0, brokers)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		moved := 0
		for tp, on := range plan {
			for _, id := range again[tp] {
				if !slices.Contains(on, id) {
					moved++
				}
			}
		}
		if racks == 0 && moved > 0 {
			t.Errorf("seed %d: what is spread evenly was moved: %d replicas", seed, moved)
		}
	}
}

func checkSpread(t *testing.T, seed uint64, plan Plan, partitions, factor int, brokers []Broker) {
	t.Helper()
	replicas, firsts, rack := map[int32]int{}, map[int32]int{}, map[int32]string{}
	distinct := map[string]bool{}
	for _, b := range brokers {
		rack[b.Node] = b.Rack
		distinct[b.Rack] = true
	}
	if len(plan) != partitions {
		t.Fatalf("seed %d: %d partitions became %d", seed, partitions, len(plan))
	}
	for tp, on := range plan {
		if len(on) != factor || checkBrokers(on) != nil {
			t.Fatalf("seed %d: %v on %v, want %d brokers", seed, tp, on, factor)
		}
		firsts[on[0]]++
		for _, id := range on {
			if _, ok := rack[id]; !ok {
				t.Fatalf("seed %d: %v on broker %d", seed, tp, id)
			}
			replicas[id]++
		}
	}
	most := (partitions*factor + len(brokers) - 1) / len(brokers)
	for id, n := range replicas {
		if len(distinct) == 1 && n > most {
			t.Errorf("seed %d: broker %d has %d replicas, its share is %d", seed, id, n, most)
		}
		if factor == len(brokers) && firsts[id] > (partitions+len(brokers)-1)/len(brokers) {
			t.Errorf("seed %d: broker %d comes first %d times of %d", seed, id, firsts[id], partitions)
		}
	}
}

// TestSpreadGrowsOntoNewBrokers: a broker that joins gets its share, and nothing moves between the others.
func TestSpreadGrowsOntoNewBrokers(t *testing.T) {
	now := Plan{}
	for n := range int32(12) {
		now[at("t", n)] = []int32{n%3 + 1, (n+1)%3 + 1}
	}
	plan, err := Spread(now, 0, []Broker{{1, ""}, {2, ""}, {3, ""}, {4, ""}})
	if err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for tp, on := range plan {
		for _, id := range on {
			switch {
			case id == 4:
				fresh++
			case !slices.Contains(now[tp], id):
				t.Errorf("%v moved from %v to %v", tp, now[tp], on)
			}
		}
	}
	if fresh != 6 {
		t.Errorf("the new broker gets %d replicas of 24", fresh)
	}
	if _, err := Spread(now, 5, []Broker{{1, ""}}); err == nil {
		t.Error("five replicas on one broker")
	}
	if _, err := Spread(now, 1, []Broker{{1, ""}, {1, ""}}); err == nil {
		t.Error("a broker twice")
	}
	racks := []Broker{{1, "a"}, {2, "a"}, {3, "b"}, {4, "b"}}
	plan, _ = Spread(Plan{at("t", 0): {9, 8}, at("t", 1): {9, 8}}, 0, racks)
	for tp, on := range plan {
		if (on[0] <= 2) == (on[1] <= 2) {
			t.Errorf("%v on %v, in one rack", tp, on)
		}
	}
}
