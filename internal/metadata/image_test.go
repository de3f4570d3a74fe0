package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
)

// history draws records that fit the images they are replayed into.
type history struct {
	random *rand.Rand
	image  *Image
	serial uint64
}

func newHistory(seed uint64) *history {
	return &history{random: rand.New(rand.NewPCG(seed, 1)), image: Empty()}
}

func (h *history) newID() UUID {
	h.serial++
	id := UUID{15: 1}
	id[0] = byte(h.random.Uint32())
	id[14], id[13] = byte(h.serial), byte(h.serial>>8)
	return id
}

func (h *history) nodes() []int32 {
	all := []int32{0, 1, 2, 3, 4}
	h.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+h.random.IntN(3)]
}

func (h *history) anyTopic(b *Builder) *Topic {
	n := b.next.TopicCount()
	if n == 0 {
		return nil
	}
	n = h.random.IntN(n)
	for t := range b.next.Topics() {
		if n == 0 {
			return t
		}
		n--
	}
	return nil
}

func (h *history) partition(t *Topic, n int32) *PartitionRecord {
	replicas := h.nodes()
	p := &Partition{Replicas: replicas, ISR: replicas[:1], Leader: replicas[0], PartitionEpoch: h.random.Int32N(9)}
	for range replicas {
		p.Directories = append(p.Directories, h.newID())
	}
	return p.Record(t.ID, n)
}

func (h *history) topicRecord(b *Builder) Record {
	t := h.anyTopic(b)
	switch choice := h.random.IntN(5); {
	case t == nil || choice == 0:
		name := "topic-" + strconv.Itoa(h.random.IntN(40))
		if old, exists := b.next.Topic(name); exists {
			return &TopicRemovalRecord{TopicId: old.ID.Bytes()}
		}
		return &TopicRecord{Name: name, Id: h.newID().Bytes()}
	case choice == 1 || len(t.Partitions) == 0:
		return h.partition(t, int32(len(t.Partitions)))
	case choice == 2:
		return h.partition(t, h.random.Int32N(int32(len(t.Partitions))))
	default:
		n := h.random.Int32N(int32(len(t.Partitions)))
		r := &PartitionChangeRecord{TopicId: t.ID.Bytes(), Partition: n}
		if h.random.IntN(2) == 0 {
			r.Leader = proto.Int32(NoLeader)
		}
		if h.random.IntN(2) == 0 {
			r.Isr, r.Elr = &Nodes{}, &Nodes{Ids: t.Partitions[n].Replicas}
		}
		return r
	}
}

func (h *history) brokerRecord(b *Builder) Record {
	id := h.random.Int32N(6)
	old, registered := b.next.Broker(id)
	switch h.random.IntN(4) {
	case 0:
		if registered {
			return &BrokerRemovalRecord{Id: id, Epoch: old.Epoch}
		}
	case 1:
		if registered {
			return &BrokerChangeRecord{Id: id, Epoch: old.Epoch, Fenced: proto.Bool(h.random.IntN(2) == 0), Directories: &Directories{Ids: [][]byte{h.newID().Bytes()}}}
		}
	}
	r := &Broker{ID: id, Epoch: b.next.LastBrokerEpoch() + 1 + h.random.Int64N(3), Incarnation: h.newID(), Fenced: true}
	if h.random.IntN(2) == 0 {
		r.Cordoned = []UUID{h.newID()}
		r.Listeners = []Listener{{"PLAINTEXT", "host", 9092, 0}}
		r.Features = []FeatureRange{{"metadata.version", 7, 30}}
		r.Rack = proto.String("")
	}
	return r.Record()
}

func (h *history) record(b *Builder) Record {
	switch h.random.IntN(10) {
	case 0:
		return &ClusterRecord{Id: "cluster"}
	case 1:
		return &FeatureRecord{Name: "f" + strconv.Itoa(h.random.IntN(4)), Level: h.random.Int32N(3)}
	case 2:
		return h.brokerRecord(b)
	case 3:
		return &ProducerIDsRecord{Next: b.next.NextProducerID() + h.random.Int64N(2)*1000}
	case 4, 5:
		r := &ConfigRecord{Kind: int32(TopicResource), Name: "topic-" + strconv.Itoa(h.random.IntN(40)), Key: "k" + strconv.Itoa(h.random.IntN(3))}
		if h.random.IntN(3) > 0 {
			r.Value = proto.String(strconv.Itoa(h.random.IntN(5)))
		}
		if h.random.IntN(4) == 0 {
			r.Kind, r.Name = int32(BrokerResource), ""
		}
		return r
	case 6:
		return &NoOpRecord{}
	default:
		return h.topicRecord(b)
	}
}

// step replays one entry of random records, through bytes, as a log does.
func (h *history) step(t *testing.T, offset int64) *Delta {
	t.Helper()
	draft := h.image.Derive()
	var records []Record
	for range h.random.IntN(8) {
		r := h.record(draft)
		if err := draft.Replay(r); err != nil {
			t.Fatalf("replay %v: %v", r, err)
		}
		records = append(records, r)
	}
	encoded, err := Encode(records)
	if err != nil {
		t.Fatal(err)
	}
	if records, err = Decode(encoded); err != nil {
		t.Fatal(err)
	}
	next, d, err := h.image.With(offset, 1, records)
	if err != nil {
		t.Fatal(err)
	}
	h.image = next
	return d
}

// text renders all that an image holds.
func text(i *Image) string {
	var s strings.Builder
	fmt.Fprintln(&s, i.offset, i.epoch, i.partitions, i.TopicCount(), i.topicsByID.Len())
	for r := range i.Records() {
		fmt.Fprintf(&s, "%T %v\n", r, r)
	}
	return s.String()
}

func TestSnapshotGivesEqualImage(t *testing.T) {
	for seed := range uint64(200) {
		h := newHistory(seed)
		for offset := range int64(60) {
			h.step(t, offset)
		}
		s := h.image.Snapshot()
		encoded, err := Encode(s.Records)
		if err != nil {
			t.Fatal(err)
		}
		if s.Records, err = Decode(encoded); err != nil {
			t.Fatal(err)
		}
		l := NewLoader()
		if err := l.Restore(context.Background(), s); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		back := l.Image()
		if d := Diff(h.image, back); !d.Empty() || back.LastBrokerEpoch() != h.image.LastBrokerEpoch() || text(back) != text(h.image) {
			t.Fatalf("seed %d: the restored image differs: %+v\n%s\nwas\n%s", seed, d, text(back), text(h.image))
		}
	}
}

func TestDeltaIsWhatDiffers(t *testing.T) {
	for seed := range uint64(200) {
		h := newHistory(seed)
		for offset := range int64(60) {
			d := h.step(t, offset)
			if want := Diff(d.Old, d.New); !reflect.DeepEqual(d, want) {
				t.Fatalf("seed %d, offset %d: delta %+v, want %+v", seed, offset, d, want)
			}
			partitions := 0
			for topic := range d.New.Topics() {
				partitions += len(topic.Partitions)
				if byID, ok := d.New.TopicByID(topic.ID); !ok || byID != topic {
					t.Fatalf("seed %d, offset %d: %s has another topic under its id", seed, offset, topic.Name)
				}
			}
			if partitions != d.New.PartitionCount() {
				t.Fatalf("seed %d, offset %d: %d partitions counted as %d", seed, offset, partitions, d.New.PartitionCount())
			}
		}
	}
}

func TestImagesNeverChange(t *testing.T) {
	for seed := range uint64(50) {
		h := newHistory(seed)
		var images []*Image
		var texts []string
		for offset := range int64(40) {
			images, texts = append(images, h.image), append(texts, text(h.image))
			h.step(t, offset)
			// A branch that is given up must leave no trace either.
			b := images[h.random.IntN(len(images))].Derive()
			for range 5 {
				if err := b.Replay(h.record(b)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range images {
			if now := text(images[i]); now != texts[i] {
				t.Fatalf("seed %d: image %d changed from\n%s\nto\n%s", seed, i, texts[i], now)
			}
		}
	}
}

// bigImage holds topics of one partition each.
func bigImage(t testing.TB, topics int) *Image {
	h := newHistory(1)
	b := h.image.Derive()
	for n := range topics {
		topic := &Topic{Name: "topic-" + strconv.Itoa(n), ID: h.newID()}
		topic.ID[1], topic.ID[2] = byte(n>>8), byte(n)
		for _, r := range []Record{&TopicRecord{Name: topic.Name, Id: topic.ID.Bytes()}, h.partition(topic, 0)} {
			if err := b.Replay(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	i, _ := b.Build(0, 1)
	return i
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestDerivingCostsWhatChanges(t *testing.T) {
	const topics, steps = 10_000, 100
	i := bigImage(t, topics)
	some, _ := i.Topic("topic-5000")
	bytes := allocated(func() {
		for n := range steps {
			next, d, err := i.With(int64(n+1), 1, []Record{&PartitionChangeRecord{TopicId: some.ID.Bytes(), Leader: proto.Int32(NoLeader)}})
			if err != nil || len(d.Topics) != 1 {
				t.Fatal(err, d)
			}
			i = next
		}
	})
	if perStep := bytes / steps; perStep > 16<<10 {
		t.Errorf("one change among %d topics allocates %d bytes", topics, perStep)
	}
	// Ten thousand partitions in one entry copy the topic once, not ten thousand times.
	h := newHistory(2)
	grow := make([]Record, 10_000)
	for n := range grow {
		grow[n] = h.partition(some, int32(n+1))
	}
	bytes = allocated(func() {
		if _, _, err := i.With(steps+1, 1, grow); err != nil {
			t.Fatal(err)
		}
	})
	if perPartition := bytes / uint64(len(grow)); perPartition > 2<<10 {
		t.Errorf("a partition more allocates %d bytes", perPartition)
	}
}

func TestImagesAreSharedBetweenGoroutines(t *testing.T) {
	i := bigImage(t, 100)
	some, _ := i.Topic("topic-50")
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for n := range 50 {
				if _, _, err := i.With(int64(n), 1, []Record{&TopicRemovalRecord{TopicId: some.ID.Bytes()}}); err != nil {
					t.Error(err)
				}
				if _, ok := i.Topic("topic-50"); !ok || len(slices.Collect(i.TopicsFrom("topic-9"))) != 11 {
					t.Error("the shared image changed")
				}
			}
		})
	}
	wait.Wait()
}

func TestReplayRefusesWhatDoesNotFit(t *testing.T) {
	id, other := UUID{1}.Bytes(), UUID{2}.Bytes()
	base, _, err := Empty().With(0, 1, []Record{
		&ClusterRecord{Id: "a"},
		&BrokerRecord{Id: 1, Epoch: 5, Incarnation: id},
		&TopicRecord{Name: "t", Id: id},
		&PartitionRecord{TopicId: id, Replicas: []int32{1}, Directories: [][]byte{id}, Leader: 1},
		&ProducerIDsRecord{Next: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]Record{
		"another cluster":         &ClusterRecord{Id: "b"},
		"old broker epoch":        &BrokerRecord{Id: 2, Epoch: 5, Incarnation: id},
		"broken incarnation":      &BrokerRecord{Id: 2, Epoch: 6, Incarnation: id[1:]},
		"broken port":             &BrokerRecord{Id: 2, Epoch: 6, Incarnation: id, Listeners: []*BrokerRecord_Listener{{Port: 70000}}},
		"broken feature":          &BrokerRecord{Id: 2, Epoch: 6, Incarnation: id, Features: []*BrokerRecord_Feature{{Min: 2, Max: 1}}},
		"unknown broker":          &BrokerChangeRecord{Id: 2, Epoch: 5},
		"another registration":    &BrokerRemovalRecord{Id: 1, Epoch: 4},
		"name taken":              &TopicRecord{Name: "t", Id: other},
		"id taken":                &TopicRecord{Name: "u", Id: id},
		"no name":                 &TopicRecord{Id: other},
		"zero id":                 &TopicRecord{Name: "u", Id: ZeroUUID.Bytes()},
		"partition of no topic":   &PartitionRecord{TopicId: other, Replicas: []int32{1}, Directories: [][]byte{id}},
		"partition after a gap":   &PartitionRecord{TopicId: id, Partition: 2, Replicas: []int32{1}, Directories: [][]byte{id}, Leader: 1},
		"negative partition":      &PartitionRecord{TopicId: id, Partition: -1, Replicas: []int32{1}, Directories: [][]byte{id}, Leader: 1},
		"no replicas":             &PartitionRecord{TopicId: id, Partition: 1, Leader: NoLeader},
		"too few directories":     &PartitionRecord{TopicId: id, Partition: 1, Replicas: []int32{1}, Leader: 1},
		"leader elsewhere":        &PartitionRecord{TopicId: id, Partition: 1, Replicas: []int32{1}, Directories: [][]byte{id}, Leader: 2},
		"change of no partition":  &PartitionChangeRecord{TopicId: id, Partition: 1},
		"replicas alone":          &PartitionChangeRecord{TopicId: id, Replicas: &Nodes{Ids: []int32{1, 2}}},
		"removal of no topic":     &TopicRemovalRecord{TopicId: other},
		"removal without id":      &TopicRemovalRecord{},
		"config kind":             &ConfigRecord{Kind: 300},
		"producer ids fall":       &ProducerIDsRecord{Next: 999},
		"negative feature level":  &FeatureRecord{Name: "f", Level: -1},
		"too large feature level": &FeatureRecord{Name: "f", Level: 1 << 15},
	} {
		if _, _, err := base.With(1, 1, []Record{&NoOpRecord{}, r}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestRecreatedTopicIsAnotherTopic(t *testing.T) {
	first, second := UUID{1}, UUID{2}
	make := func(id UUID) []Record {
		return []Record{&TopicRecord{Name: "t", Id: id.Bytes()}, &PartitionRecord{TopicId: id.Bytes(), Replicas: []int32{1}, Directories: [][]byte{id.Bytes()}, Leader: 1}}
	}
	old, _, err := Empty().With(0, 1, append(make(first), &ConfigRecord{Kind: 2, Name: "t", Key: "k", Value: proto.String("v")}))
	if err != nil {
		t.Fatal(err)
	}
	next, d, err := old.With(1, 1, append([]Record{&TopicRemovalRecord{TopicId: first.Bytes()}}, make(second)...))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Topics) != 2 || d.Topics[0].New != nil || d.Topics[0].Old.ID != first || d.Topics[1].Old != nil || d.Topics[1].New.ID != second {
		t.Errorf("changes: %+v", d.Topics)
	}
	if next.Config(TopicResource, "t") != nil || !d.ConfigChanged(TopicResource, "t") {
		t.Error("the new topic has the old one's configs")
	}
}

type recorder struct{ seen []string }

func (r *recorder) Publish(_ context.Context, d *Delta, i *Image) {
	r.seen = append(r.seen, fmt.Sprintf("%d->%d", d.Old.Offset(), i.Offset()))
}

func TestLoaderPublishesInOrder(t *testing.T) {
	ctx := context.Background()
	var a, b recorder
	l := NewLoader(&a, &b)
	for _, err := range []error{
		l.Apply(ctx, Committed{Offset: 0, Epoch: 1, Records: []Record{&ClusterRecord{Id: "c"}}}),
		l.Apply(ctx, Committed{Offset: 3, Epoch: 1}),
		l.Restore(ctx, Snapshot{Offset: 9, Epoch: 2, Records: []Record{&ClusterRecord{Id: "c"}, &FeatureRecord{Name: "f", Level: 1}}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"-1->0", "0->3", "3->9"}
	if !slices.Equal(a.seen, want) || !slices.Equal(b.seen, want) {
		t.Errorf("published %v and %v, want %v", a.seen, b.seen, want)
	}
	for name, err := range map[string]error{
		"an offset again": l.Apply(ctx, Committed{Offset: 9}),
		"older snapshot":  l.Restore(ctx, Snapshot{Offset: 8}),
		"bad record":      l.Apply(ctx, Committed{Offset: 10, Records: []Record{&TopicRemovalRecord{}}}),
	} {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Image().Offset() != 9 || l.Image().Feature("f") != 1 {
		t.Errorf("image at %d", l.Image().Offset())
	}
}
