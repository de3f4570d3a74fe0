package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// testView is what decisions see of a cluster with brokers of their own racks.
func testView(t testing.TB, seed uint64, brokers ...*metadata.Broker) *view {
	t.Helper()
	records := formCluster("c", SupportedFeatures())
	for i, b := range brokers {
		b.Epoch, b.Incarnation = int64(i+1), metadata.UUID{0: byte(b.ID), 15: 1}
		if b.Features == nil {
			b.Features = SupportedRanges()
		}
		records = append(records, b.Record())
	}
	v := &view{image: metadata.Empty(), settings: loadConfig(t), features: SupportedFeatures(), random: rand.New(readerSource{seeded(seed)}), ids: seeded(seed)}
	v.replay(t, records)
	return v
}

// replay makes a decision take effect.
func (v *view) replay(t testing.TB, records []metadata.Record) {
	t.Helper()
	encoded, err := metadata.Encode(records)
	if err != nil {
		t.Fatal(err)
	}
	if records, err = metadata.Decode(encoded); err != nil {
		t.Fatal(err)
	}
	next, _, err := v.image.With(v.image.Offset()+1, 1, records)
	if err != nil {
		t.Fatal(err)
	}
	v.image = next
}

func (v *view) create(t testing.TB, req *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsResponse {
	t.Helper()
	records, resp := createTopics(v, req)
	v.replay(t, records)
	return resp
}

func brokers(n int) []*metadata.Broker {
	all := make([]*metadata.Broker, n)
	for i := range all {
		all[i] = &metadata.Broker{ID: int32(i + 1)}
	}
	return all
}

func TestCollisionsAreFound(t *testing.T) {
	found := 0
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 3))
		v := testView(t, seed, brokers(1)...)
		unified := make(map[string]string)
		for range 60 {
			name := make([]byte, 1+random.IntN(6))
			for i := range name {
				name[i] = "a.._b"[random.IntN(5)]
			}
			if CheckTopicName(string(name)) != "" {
				continue
			}
			key := strings.ReplaceAll(string(name), ".", "_")
			other, taken := unified[key]
			resp := v.create(t, createRequest(1, string(name)))
			got := kerr.TypedErrorForCode(resp.Topics[0].ErrorCode)
			switch {
			case !taken && got != nil, taken && other == string(name) && got != kerr.TopicAlreadyExists,
				taken && other != string(name) && got != kerr.InvalidTopicException:
				t.Fatalf("seed %d: %q beside %q: %v", seed, name, other, got)
			case taken && other != string(name):
				found++
				if !strings.Contains(*resp.Topics[0].ErrorMessage, other) {
					t.Fatalf("seed %d: message %q does not name %q", seed, *resp.Topics[0].ErrorMessage, other)
				}
			case !taken:
				unified[key] = string(name)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d collisions", found)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	b := newOwnBroker(t)
	for line, want := range map[string]string{
		"create .. p=1 r=1":                         `"..": a topic cannot be called`,
		"create a/b p=1 r=1":                        "only letters, digits",
		"create a p=0 r=1":                          "at least 1, or -1",
		"create a p=1 r=3":                          "replication factor 3 needs as many brokers; 1 can",
		"create a p=1 r=1 segment.ms=x":             "segment.ms",
		"create a p=1 r=1 + a p=1 r=1":              "2 times",
		"create big p=10001 r=1":                    "10001 partitions in one request; 10000 are allowed",
		"create a p=1 r=1 retention.ms=x*40000":     "40000 bytes",
		"alter topic:nosuch set retention.ms=1":     `no topic "nosuch"`,
		"alter broker:7 set log.retention.ms=1":     "no broker 7",
		"alter broker:01 set log.retention.ms=1":    "no broker 01",
		"alter broker:1 set node.id=3":              "node.id",
		"alter broker:1 7 log.retention.ms=3":       "no operation 7",
		"alter 16:x set a=b":                        "resource type 16",
		"alter topic:a/b set retention.ms=1":        "only letters, digits",
		"grow nosuch 3":                             `no topic "nosuch"`,
		"delete nosuch":                             `no topic "nosuch"`,
		"feature metadata.version 31 1":             "this node supports 30 to 30",
		"feature nosuch 1 1":                        "does not know it",
		"alter broker:'' set log.retention.ms=x":    "log.retention.ms",
		"replace topic:nosuch + topic:nosuch":       "2 times",
		"replace topic:a x*40000=1":                 "x*40000",
		"alter broker:1 set strange.key=x*40000":    "40000 bytes",
		"create a p=1 r=-1 0:1":                     "are -1",
		"delete zero":                               "neither a name nor an id",
		"delete both:nosuch":                        "not by both",
		"alter topic:a set retention.ms":            "no value",
		"grow nosuch 3 + nosuch 4":                  "2 times",
		"create __cluster_metadata p=1 r=1":         "nobody creates it",
		"alter topic:'' set retention.ms=1":         "set them on the brokers",
		"alter topic:a add retention.ms=1":          "not a list",
		"create a p=1 r=1 cleanup.policy=nonsense":  "cleanup.policy",
		"create a p=5 r=1 0:1":                      "are -1",
		"create a 0:1 2:1":                          "0 to 1",
		"create validate a p=1 r=1 segment.bytes=1": "segment.bytes",
	} {
		answers := messages(t, b, line)
		if !strings.Contains(answers, want) {
			t.Errorf("%s: %q does not say %q", line, answers, want)
		}
	}
	if n := b.c.Image().TopicCount(); n != 0 {
		t.Errorf("%d topics were made", n)
	}
}

// messages plays a line and returns the error messages of its answer.
func messages(t testing.TB, b *ownBroker, line string) string {
	t.Helper()
	words := strings.Fields(line)
	parse := map[string]func([]string) kmsg.Request{
		"create": parseCreate, "delete": parseDelete, "grow": parseGrow, "alter": parseAlter, "replace": parseReplace, "feature": parseFeature,
	}[words[0]]
	resp, err := b.ask(parse(words[1:]))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	var all []string
	add := func(m *string) {
		if m != nil {
			all = append(all, *m)
		}
	}
	switch r := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		for _, t := range r.Topics {
			add(t.ErrorMessage)
		}
	case *kmsg.DeleteTopicsResponse:
		for _, t := range r.Topics {
			add(t.ErrorMessage)
		}
	case *kmsg.CreatePartitionsResponse:
		for _, t := range r.Topics {
			add(t.ErrorMessage)
		}
	case *kmsg.IncrementalAlterConfigsResponse:
		for _, t := range r.Resources {
			add(t.ErrorMessage)
		}
	case *kmsg.AlterConfigsResponse:
		for _, t := range r.Resources {
			add(t.ErrorMessage)
		}
	case *kmsg.UpdateFeaturesResponse:
		add(r.ErrorMessage)
	}
	return strings.Join(all, "\n")
}

// handler keeps log lines.
type handler struct {
	slog.Handler
	lines *[]string
}

func (h handler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	*h.lines = append(*h.lines, line)
	return nil
}

func (h handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func TestTrap06LoweredMinISRIsNamed(t *testing.T) {
	o := testOptions(t, 1)
	var logged []string
	o.Logger = slog.New(handler{quiet().Handler(), &logged})
	c, l := start(t, o)
	l.setAuto()
	if _, err := c.RegisterBroker(context.Background(), registration(1)); err != nil {
		t.Fatal(err)
	}
	b := &ownBroker{t, c}
	const want = "min.insync.replicas is 2 but there are only 1 replicas, so writes with acks=all wait for 1"
	for _, line := range []string{
		"create a p=1 r=1 min.insync.replicas=2",
		"create validate z p=1 r=1 min.insync.replicas=2",
		"create quiet p=1 r=1",
		"alter topic:quiet set min.insync.replicas=2",
		"replace topic:quiet min.insync.replicas=2 retention.ms=7",
		"alter topic:quiet set retention.ms=8",
		"alter topic:quiet set min.insync.replicas=1",
		"replace topic:quiet min.insync.replicas=2",
	} {
		warns := strings.Contains(line, "replicas=2") && !strings.Contains(line, "retention.ms=7")
		logged = nil
		got := messages(t, b, line)
		if strings.Contains(got, want) != warns || warns != (len(logged) == 1 && strings.Contains(logged[0], want)) {
			t.Errorf("%s: answer %q, log %q; a warning is due: %t", line, got, logged, warns)
		}
	}
	// For all brokers it concerns the topics without a value of their own.
	messages(t, b, "create plain p=1 r=1")
	if got := messages(t, b, "alter broker:'' set min.insync.replicas=3"); !strings.Contains(got, "1 topics have fewer than 3 replicas") {
		t.Errorf("default of all brokers: %q", got)
	}
	if got := messages(t, b, "create heir p=1 r=1"); !strings.Contains(got, "min.insync.replicas is 3") {
		t.Errorf("a topic that inherits it: %q", got)
	}
	if effective, lowered := metadata.EffectiveMinISR(2, 1); effective != 1 || !lowered {
		t.Errorf("effective %d, lowered %t", effective, lowered)
	}
	if effective, lowered := metadata.EffectiveMinISR(2, 3); effective != 2 || lowered {
		t.Errorf("effective %d, lowered %t", effective, lowered)
	}
}

func TestPlacementIsEven(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 4))
		n := 1 + random.IntN(9)
		v := testView(t, seed, brokers(n)...)
		replicationFactor := 1 + random.IntN(n)
		req := createRequest(int32(n*(1+random.IntN(4))), "a")
		req.Topics[0].ReplicationFactor = int16(replicationFactor)
		if resp := v.create(t, req); resp.Topics[0].ErrorCode != 0 {
			t.Fatalf("seed %d: %s", seed, *resp.Topics[0].ErrorMessage)
		}
		topic, _ := v.image.Topic("a")
		leaders, replicas := make(map[int32]int), make(map[int32]int)
		for _, p := range topic.Partitions {
			leaders[p.Leader]++
			for i, r := range p.Replicas {
				replicas[r]++
				if slices.Contains(p.Replicas[:i], r) {
					t.Fatalf("seed %d: replicas %v", seed, p.Replicas)
				}
			}
			if len(p.Replicas) != replicationFactor || !slices.Equal(p.Replicas, p.ISR) || p.Leader != p.Replicas[0] {
				t.Fatalf("seed %d: %+v", seed, p)
			}
		}
		each := len(topic.Partitions) / n
		for b := range int32(n) {
			if leaders[b+1] != each || replicas[b+1] != each*replicationFactor {
				t.Fatalf("seed %d: broker %d leads %d of %d partitions on %d brokers, and holds %d replicas", seed, b+1, leaders[b+1], len(topic.Partitions), n, replicas[b+1])
			}
		}
	}
}

func TestPlacementUsesRacksAndAvoidsFencedLeaders(t *testing.T) {
	for seed := range uint64(100) {
		var all []*metadata.Broker
		for i := range 9 {
			rack := string(rune('a' + i%3))
			all = append(all, &metadata.Broker{ID: int32(i), Rack: &rack, Fenced: i >= 6})
		}
		v := testView(t, seed, all...)
		req := createRequest(18, "a")
		req.Topics[0].ReplicationFactor = 3
		if resp := v.create(t, req); resp.Topics[0].ErrorCode != 0 {
			t.Fatalf("seed %d: %s", seed, *resp.Topics[0].ErrorMessage)
		}
		topic, _ := v.image.Topic("a")
		for n, p := range topic.Partitions {
			racks := make(map[string]bool)
			for _, r := range p.Replicas {
				b, _ := v.image.Broker(r)
				racks[*b.Rack] = true
				if b.Fenced && slices.Contains(p.ISR, r) {
					t.Fatalf("seed %d: partition %d: fenced broker %d is in sync", seed, n, r)
				}
			}
			if len(racks) != 3 || p.Leader >= 6 {
				t.Fatalf("seed %d: partition %d is on %v, led by %d", seed, n, p.Replicas, p.Leader)
			}
		}
	}
	fenced := brokers(2)
	fenced[0].Fenced, fenced[1].Fenced = true, true
	v := testView(t, 1, fenced...)
	if resp := v.create(t, createRequest(1, "a")); resp.Topics[0].ErrorCode != kerr.InvalidReplicationFactor.Code {
		t.Errorf("with all brokers fenced: %s", code(resp.Topics[0].ErrorCode))
	}
	req := parseCreate([]string{"a", "0:1"}).(*kmsg.CreateTopicsRequest)
	if resp := v.create(t, req); resp.Topics[0].ErrorCode != kerr.InvalidReplicaAssignment.Code {
		t.Errorf("assigned to a fenced broker: %s", code(resp.Topics[0].ErrorCode))
	}
}

func TestDefaultReplicationFactorFollowsTheBrokers(t *testing.T) {
	for n, want := range map[int]int16{1: 1, 2: 2, 3: 3, 5: 3} {
		v := testView(t, 1, brokers(n)...)
		req := createRequest(-1, "a")
		req.Topics[0].ReplicationFactor = -1
		if resp := v.create(t, req); resp.Topics[0].ReplicationFactor != want || resp.Topics[0].NumPartitions != 1 {
			t.Errorf("on %d brokers: %d replicas, %d partitions", n, resp.Topics[0].ReplicationFactor, resp.Topics[0].NumPartitions)
		}
	}
	v := testView(t, 1, brokers(3)...)
	v.settings = loadConfig(t, "default.replication.factor=2", "num.partitions=4")
	req := createRequest(-1, "a")
	req.Topics[0].ReplicationFactor = -1
	if resp := v.create(t, req); resp.Topics[0].ReplicationFactor != 2 || resp.Topics[0].NumPartitions != 4 {
		t.Errorf("configured: %+v", resp.Topics[0])
	}
}

func TestDirectoriesTakeTurns(t *testing.T) {
	b := registration(1)
	v := testView(t, 1, &metadata.Broker{ID: 1, Directories: b.Directories})
	count := func() map[metadata.UUID]int {
		counts := make(map[metadata.UUID]int)
		for topic := range v.image.Topics() {
			for _, p := range topic.Partitions {
				counts[p.Directories[0]]++
			}
		}
		return counts
	}
	for n := range 10 {
		v.create(t, createRequest(1, fmt.Sprint("single-", n)))
	}
	v.create(t, createRequest(10, "many"))
	if got, want := count(), map[metadata.UUID]int{b.Directories[0]: 10, b.Directories[1]: 10}; !maps.Equal(got, want) {
		t.Errorf("partitions by directory: %v", got)
	}
	records, err := updateDirectories(v, 1, 1, b.Directories, b.Directories[:1])
	if err != nil {
		t.Fatal(err)
	}
	v.replay(t, records)
	v.create(t, createRequest(4, "cordoned"))
	if got := count(); got[b.Directories[0]] != 10 || got[b.Directories[1]] != 14 {
		t.Errorf("with a cordoned directory: %v", got)
	}
	if records, err = updateDirectories(v, 1, 1, b.Directories, b.Directories); err != nil {
		t.Fatal(err)
	}
	v.replay(t, records)
	for _, line := range []string{"x p=1 r=1", "x 0:1"} {
		req := parseCreate(strings.Fields(line)).(*kmsg.CreateTopicsRequest)
		if resp := v.create(t, req); resp.Topics[0].ErrorCode == 0 {
			t.Errorf("%s: created although all directories are cordoned", line)
		}
	}
	if records, err = updateDirectories(v, 1, 1, b.Directories, b.Directories); err != nil || len(records) != 0 {
		t.Errorf("nothing changed, yet %v, %v", records, err)
	}
}

func TestRegistrationBeginsNewLeaderEpochs(t *testing.T) {
	v := testView(t, 1)
	register := func(r Registration) int64 {
		t.Helper()
		records, answer := registerBroker(v, r)
		if answer.err != nil {
			t.Fatal(answer.err)
		}
		v.replay(t, records)
		return answer.epoch
	}
	first := register(registration(1))
	v.create(t, createRequest(3, "a"))
	if again := register(registration(1)); again != first {
		t.Errorf("the same run got epoch %d after %d", again, first)
	}
	p, _ := v.image.Partition("a", 0)
	if p.LeaderEpoch != 0 || p.Leader != 1 {
		t.Errorf("before: %+v", p)
	}
	// One new epoch is enough to tell the two lives of its log apart; Apache Kafka 4.3.1 adds two.
	later := registration(1)
	later.Incarnation = metadata.UUID{0: 7}
	second := register(later)
	if p, _ = v.image.Partition("a", 2); p.LeaderEpoch != 1 || p.Leader != 1 || !slices.Equal(p.ISR, []int32{1}) || second <= first {
		t.Errorf("after a restart: %+v, broker epoch %d", p, second)
	}
	// Without the directory that it lies in a partition has no leader, and gets it back with it.
	lost := later
	lost.Incarnation, lost.Directories = metadata.UUID{0: 8}, later.Directories[:1]
	register(lost)
	led := 0
	for n := range int32(3) {
		p, _ := v.image.Partition("a", n)
		if online := slices.Contains(lost.Directories, p.Directories[0]); online != (p.Leader == 1) {
			t.Errorf("partition %d in %s: leader %d", n, p.Directories[0], p.Leader)
		}
		if p.Leader == 1 {
			led++
		}
	}
	if led == 0 || led == 3 {
		t.Errorf("%d of 3 partitions have a leader", led)
	}
	later.Incarnation = metadata.UUID{0: 9}
	register(later)
	for n := range int32(3) {
		if p, _ := v.image.Partition("a", n); p.Leader != 1 {
			t.Errorf("partition %d has no leader with its directory back: %+v", n, p)
		}
	}
}

func TestLostDirectoryEndsLeadership(t *testing.T) {
	v := testView(t, 1, &metadata.Broker{ID: 1, Directories: registration(1).Directories}, &metadata.Broker{ID: 2, Directories: registration(2).Directories})
	req := createRequest(8, "a")
	req.Topics[0].ReplicationFactor = 2
	v.create(t, req)
	v.create(t, parseCreate([]string{"alone", "0:1", "1:1"}).(*kmsg.CreateTopicsRequest))
	left := registration(1).Directories[:1]
	records, err := updateDirectories(v, 1, 1, left, nil)
	if err != nil {
		t.Fatal(err)
	}
	v.replay(t, records)
	for topic := range v.image.Topics() {
		for n, p := range topic.Partitions {
			gone := !slices.Contains(left, p.Directories[slices.Index(p.Replicas, 1)])
			switch {
			case topic.Name == "alone" && gone && (p.Leader != metadata.NoLeader || len(p.ISR) > 0 || !slices.Equal(p.ELR, []int32{1})):
				t.Errorf("alone-%d has lost its directory: %+v", n, p)
			case topic.Name == "a" && gone && (p.Leader != 2 || !slices.Equal(p.ISR, []int32{2})):
				t.Errorf("a-%d has lost a directory: %+v", n, p)
			case !gone && (p.Leader == metadata.NoLeader || p.PartitionEpoch != 0):
				t.Errorf("%s-%d has lost nothing: %+v", topic.Name, n, p)
			}
		}
	}
	for _, c := range []struct {
		broker int32
		epoch  int64
		online []metadata.UUID
		want   error
	}{
		{1, 9, left, ErrStaleBrokerEpoch},
		{3, 1, left, ErrUnknownBroker},
		{1, 1, registration(2).Directories, ErrInvalidRegistration},
		{1, 1, registration(1).Directories, ErrInvalidRegistration}, // it does not come back online
	} {
		if records, err := updateDirectories(v, c.broker, c.epoch, c.online, nil); !errors.Is(err, c.want) || records != nil {
			t.Errorf("%+v: %v, %v", c, records, err)
		}
	}
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	v := testView(t, 1, &metadata.Broker{ID: 1, Directories: registration(1).Directories})
	for name, change := range map[string]func(*Registration){
		"negative id":          func(r *Registration) { r.ID = -1 },
		"directory of another": func(r *Registration) { r.Directories[1] = registration(1).Directories[0] },
		"directory twice":      func(r *Registration) { r.Directories[1] = r.Directories[0] },
		"reserved directory":   func(r *Registration) { r.Directories[1] = metadata.LostDirectory },
		"no features":          func(r *Registration) { r.Features = nil },
		"features of another age": func(r *Registration) {
			r.Features = []metadata.FeatureRange{{Name: "metadata.version", Min: 31, Max: 40}}
		},
	} {
		r := registration(2)
		change(&r)
		if records, answer := registerBroker(v, r); !errors.Is(answer.err, ErrInvalidRegistration) || records != nil {
			t.Errorf("%s: %v, %v", name, records, answer.err)
		}
	}
}

func TestProducerIDBlocks(t *testing.T) {
	v := testView(t, 1, brokers(1)...)
	for n := range int64(3) {
		records, answer := allocateProducerIDs(v, 1, 1)
		if answer.err != nil || answer.block != (ProducerIDs{n * 1000, 1000}) {
			t.Fatalf("block %d: %+v", n, answer)
		}
		v.replay(t, records)
	}
	for _, c := range []struct {
		broker int32
		epoch  int64
		want   error
	}{{1, 2, ErrStaleBrokerEpoch}, {2, 1, ErrUnknownBroker}} {
		if records, answer := allocateProducerIDs(v, c.broker, c.epoch); !errors.Is(answer.err, c.want) || records != nil {
			t.Errorf("%+v: %v", c, answer.err)
		}
	}
	v.replay(t, []metadata.Record{&metadata.ProducerIDsRecord{Next: math.MaxInt64 - 999}})
	if _, answer := allocateProducerIDs(v, 1, 1); !errors.Is(answer.err, ErrProducerIDsExhausted) {
		t.Errorf("at the end: %+v", answer)
	}
}

func TestAllocatorGivesEachIDOnce(t *testing.T) {
	var next int64
	failures := 3
	a := NewProducerIDAllocator(func(context.Context) (ProducerIDs, error) {
		if failures > 0 {
			failures--
			return ProducerIDs{}, ErrNotController
		}
		next += 10
		return ProducerIDs{next, 10}, nil
	})
	for range 3 {
		if _, err := a.Next(context.Background()); !errors.Is(err, ErrNotController) {
			t.Errorf("while there is no controller: %v", err)
		}
	}
	ids := make(chan int64, 400)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 50 {
				id, err := a.Next(context.Background())
				if err != nil {
					t.Error(err)
				}
				ids <- id
			}
		})
	}
	wait.Wait()
	close(ids)
	seen := make(map[int64]bool)
	for id := range ids {
		if seen[id] || id < 10 || id >= 410 {
			t.Errorf("id %d was given out twice or belongs to nobody", id)
		}
		seen[id] = true
	}
	if next != 400 {
		t.Errorf("blocks up to %d were fetched for 400 ids", next)
	}
	stuck := NewProducerIDAllocator(func(ctx context.Context) (ProducerIDs, error) {
		<-ctx.Done()
		return ProducerIDs{}, context.Cause(ctx)
	})
	ctx, cancel := context.WithCancelCause(context.Background())
	for range 2 {
		wait.Go(func() {
			if _, err := stuck.Next(ctx); !errors.Is(err, ErrTimedOut) {
				t.Errorf("a wait that ends: %v", err)
			}
		})
	}
	cancel(ErrTimedOut)
	wait.Wait()
}

func TestFeaturesMoveWithinWhatAllSupport(t *testing.T) {
	broker := &metadata.Broker{ID: 1, Features: []metadata.FeatureRange{{Name: "metadata.version", Min: 30, Max: 30}, {Name: "f", Min: 0, Max: 2}}}
	v := testView(t, 1, broker)
	v.features = []Feature{{"metadata.version", 30, 30}, {"f", 0, 3}, {"unregistered", 0, 1}}
	for _, c := range []struct {
		line  string
		want  *kerr.Error
		level int16 // of f
	}{
		{"f 1 1", nil, 1},
		{"validate f 2 1", nil, 1},
		{"f 2 2", kerr.InvalidUpdateVersion, 1},
		{"f 2 1", nil, 2},
		{"f 3 1", kerr.InvalidUpdateVersion, 2}, // the broker does not support it
		{"f 1 1", kerr.InvalidUpdateVersion, 2},
		{"f 1 2", nil, 1},
		{"v=0 f 0 2", nil, 0},
		{"f 1 1 + unregistered 1 1", kerr.InvalidUpdateVersion, 0}, // all or nothing
		{"f 1 1 + f 2 1", nil, 2},
		{"f 0 3", nil, 0},
		{"unregistered 0 1", nil, 0},
	} {
		req := parseFeature(strings.Fields(c.line)).(*kmsg.UpdateFeaturesRequest)
		records, resp := updateFeatures(v, req)
		v.replay(t, records)
		if got := kerr.TypedErrorForCode(resp.ErrorCode); got != c.want || v.image.Feature("f") != c.level {
			t.Errorf("%s: %v, f is at %d", c.line, got, v.image.Feature("f"))
		}
	}
}

// TestVotersThatMayChangeStayChangeable: kraft.version goes up, by whichever way it is asked for in, and never down, as in
// Kafka 4.3.1.
func TestVotersThatMayChangeStayChangeable(t *testing.T) {
	v := testView(t, 1)
	if level := v.image.Feature(KRaftVersion); level != 1 {
		t.Fatalf("a new cluster begins at %d", level)
	}
	for _, c := range []struct {
		line  string
		want  *kerr.Error
		level int16
	}{
		{"kraft.version 0 1", kerr.InvalidUpdateVersion, 1},
		{"kraft.version 0 2", kerr.InvalidUpdateVersion, 1},
		{"kraft.version 0 3", kerr.InvalidUpdateVersion, 1},
		{"kraft.version 2 1", kerr.InvalidUpdateVersion, 1},
		{"kraft.version 1 1", nil, 1},
		{"", nil, 0}, // formed before the feature was there
		{"kraft.version 0 2", nil, 0},
		{"validate kraft.version 1 1", nil, 0},
		{"kraft.version 1 1", nil, 1},
		{"kraft.version 0 2", kerr.InvalidUpdateVersion, 1},
	} {
		if c.line == "" {
			v.replay(t, []metadata.Record{&metadata.FeatureRecord{Name: KRaftVersion}})
			continue
		}
		records, resp := updateFeatures(v, parseFeature(strings.Fields(c.line)).(*kmsg.UpdateFeaturesRequest))
		v.replay(t, records)
		if got := kerr.TypedErrorForCode(resp.ErrorCode); got != c.want || v.image.Feature(KRaftVersion) != c.level {
			t.Errorf("%s: %v, and it is at %d", c.line, got, v.image.Feature(KRaftVersion))
		}
	}
}

func TestInternalTopicsAreMadeAsTheirCoordinatorsSay(t *testing.T) {
	ctx := context.Background()
	b := newOwnBroker(t, "offsets.topic.num.partitions=7", "transaction.state.log.segment.bytes=20", "num.partitions=3")
	names := []string{offsetsTopic, transactionsTopic, shareStateTopic, "plain", "pl/ain", metadataTopic}
	resp, err := b.c.AutoCreateTopics(ctx, names)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []*kerr.Error{nil, nil, nil, nil, kerr.InvalidTopicException, kerr.InvalidRequest} {
		if got := kerr.TypedErrorForCode(resp.Topics[i].ErrorCode); got != want {
			t.Errorf("%s: %v", names[i], got)
		}
	}
	lines, _ := b.state()
	want := []string{
		"topic __consumer_offsets p=7 r=1 cleanup.policy=compact compression.type=producer segment.bytes=104857600",
		"topic __share_group_state p=50 r=1 cleanup.policy=delete compression.type=producer retention.ms=-1 segment.bytes=104857600",
		"topic __transaction_state p=50 r=1 cleanup.policy=compact compression.type=uncompressed segment.bytes=1048576 unclean.leader.election.enable=false",
		"topic plain p=3 r=1",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("made:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if resp, err = b.c.AutoCreateTopics(ctx, names[:1]); err != nil || resp.Topics[0].ErrorCode != kerr.TopicAlreadyExists.Code {
		t.Errorf("again: %+v, %v", resp, err)
	}
	// Three brokers: three copies, of which two must have a transaction.
	v := testView(t, 1, brokers(3)...)
	records, _ := autoCreateTopics(v, names[:3], topicDefaults{})
	v.replay(t, records)
	for name, minISR := range map[string]string{offsetsTopic: "", transactionsTopic: "2", shareStateTopic: "2"} {
		topic, _ := v.image.Topic(name)
		if topic.ReplicationFactor() != 3 || v.image.Config(metadata.TopicResource, name)["min.insync.replicas"] != minISR {
			t.Errorf("%s: %d replicas, %v", name, topic.ReplicationFactor(), v.image.Config(metadata.TopicResource, name))
		}
		if !InternalTopic(name) {
			t.Errorf("%s is not internal", name)
		}
	}
	if InternalTopic("plain") || InternalTopic("__other") {
		t.Error("ordinary topics are internal")
	}
}

// TestCreationTellsOfKafkasSettings: its clients look up what they are told in a table of their own,
// so a setting that only we have is told to those who set it.
func TestCreationTellsOfKafkasSettings(t *testing.T) {
	told := func(line string) map[string]bool {
		v := testView(t, 1, brokers(1)...)
		_, resp := createTopics(v, parseCreate(strings.Fields(line)).(*kmsg.CreateTopicsRequest))
		names := map[string]bool{}
		for _, c := range resp.Topics[0].Configs {
			names[c.Name] = true
		}
		return names
	}
	if names := told("a p=1 r=1"); names["flush.before.ack"] || !names["retention.ms"] {
		t.Errorf("told: %v", slices.Sorted(maps.Keys(names)))
	}
	if names := told("a p=1 r=1 flush.before.ack=false"); !names["flush.before.ack"] {
		t.Errorf("told who set it: %v", slices.Sorted(maps.Keys(names)))
	}
}

func TestDeletionCanBeSwitchedOff(t *testing.T) {
	b := newOwnBroker(t, "delete.topic.enable=false")
	messages(t, b, "create a p=1 r=1")
	for version, want := range map[int16]*kerr.Error{1: kerr.InvalidRequest, 2: kerr.InvalidRequest, 3: kerr.TopicDeletionDisabled, 6: kerr.TopicDeletionDisabled} {
		req := parseDelete([]string{"a"}).(*kmsg.DeleteTopicsRequest)
		req.Version = version
		resp, err := b.c.DeleteTopics(context.Background(), req)
		if err != nil || len(resp.Topics) != 1 || kerr.TypedErrorForCode(resp.Topics[0].ErrorCode) != want {
			t.Errorf("version %d: %+v, %v", version, resp, err)
		}
	}
	if _, exists := b.c.Image().Topic("a"); !exists {
		t.Error("the topic was deleted")
	}
}

func TestLimitsOfOneRequest(t *testing.T) {
	v := testView(t, 1, brokers(1)...)
	v.create(t, createRequest(2, "a"))
	hugely := createRequest(math.MaxInt32, "x", "y", "y")
	if records, resp := createTopics(v, hugely); len(records) != 0 || len(resp.Topics) != 2 || resp.Topics[0].ErrorCode != kerr.PolicyViolation.Code {
		t.Errorf("creation: %d records, %+v", len(records), resp)
	}
	// Kafka makes some of these partitions and answers UNKNOWN_SERVER_ERROR.
	for line, want := range map[string]*kerr.Error{"a 10003": kerr.PolicyViolation, "a 5003 + a 5003": kerr.PolicyViolation, "a 10002": nil, "a 2147483647": kerr.PolicyViolation} {
		records, resp := createPartitions(v, parseGrow(strings.Fields(line)).(*kmsg.CreatePartitionsRequest))
		if got := kerr.TypedErrorForCode(resp.Topics[0].ErrorCode); got != want || (len(records) > 0) != (want == nil) {
			t.Errorf("%s: %v, %d records", line, got, len(records))
		}
	}
	words := []string{"broker:1"}
	for n := range maxConfigKeys + 1 {
		words = append(words, "set", fmt.Sprint("key-", n, "=1"))
	}
	records, resp := incrementalAlterConfigs(v, parseAlter(words).(*kmsg.IncrementalAlterConfigsRequest))
	if len(records) != 0 || resp.Resources[0].ErrorCode != kerr.InvalidConfig.Code {
		t.Errorf("too many keys: %d records, %+v", len(records), resp)
	}
	// What is not UTF-8 is replaced, so that it can be stored and shown.
	records, resp = incrementalAlterConfigs(v, parseAlter([]string{"broker:1", "set", "k\xff=v\xff"}).(*kmsg.IncrementalAlterConfigsRequest))
	if resp.Resources[0].ErrorCode != 0 || len(records) != 1 || *records[0].(*metadata.ConfigRecord).Value != "v\uFFFD" {
		t.Errorf("not UTF-8: %v, %+v", records, resp)
	}
}

func FuzzTopicName(f *testing.F) {
	for _, name := range []string{"a", "", "..", "a.b_c-D9", "\xff", strings.Repeat("x", 250), "__consumer_offsets"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		v := testView(t, 1, brokers(1)...)
		resp := v.create(t, createRequest(1, name))
		if (resp.Topics[0].ErrorCode == 0) != (CheckTopicName(name) == "" && name != metadataTopic) {
			t.Errorf("%q: %s", name, code(resp.Topics[0].ErrorCode))
		}
	})
}
