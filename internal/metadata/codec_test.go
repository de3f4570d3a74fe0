package metadata

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// oneOfEach holds a record of every type with every field set.
func oneOfEach() []Record {
	id := UUID{1, 2, 3}.Bytes()
	nodes := &Nodes{Ids: []int32{1, 2}}
	directories := &Directories{Ids: [][]byte{id, id}}
	return []Record{
		&ClusterRecord{Id: "c", LastBrokerEpoch: 3},
		&FeatureRecord{Name: "f", Level: 2},
		&BrokerRecord{
			Id: 1, Epoch: 4, Incarnation: id, Rack: proto.String("r"), Directories: [][]byte{id}, Cordoned: [][]byte{id}, Fenced: true, ShuttingDown: true,
			Listeners: []*BrokerRecord_Listener{{Name: "PLAINTEXT", Host: "h", Port: 9092, SecurityProtocol: 1}},
			Features:  []*BrokerRecord_Feature{{Name: "f", Min: 1, Max: 2}},
		},
		&BrokerChangeRecord{Id: 1, Epoch: 4, Fenced: proto.Bool(false), ShuttingDown: proto.Bool(true), Directories: directories, Cordoned: directories},
		&BrokerRemovalRecord{Id: 1, Epoch: 4},
		&TopicRecord{Name: "t", Id: id},
		&PartitionRecord{TopicId: id, Partition: 1, Replicas: []int32{1}, Directories: [][]byte{id}, Isr: []int32{1}, Elr: []int32{2}, LastKnownElr: []int32{3}, Adding: []int32{4}, Removing: []int32{5}, Leader: 1, LeaderEpoch: 2, PartitionEpoch: 3, Unflushed: true},
		&PartitionChangeRecord{TopicId: id, Partition: 1, Replicas: nodes, Directories: directories, Isr: nodes, Elr: nodes, LastKnownElr: nodes, Adding: nodes, Removing: nodes, Leader: proto.Int32(-1), Unflushed: proto.Bool(false)},
		&TopicRemovalRecord{TopicId: id},
		&ConfigRecord{Kind: 2, Name: "t", Key: "k", Value: proto.String("")},
		&ProducerIDsRecord{Broker: 1, BrokerEpoch: 4, Next: 1000},
		&NoOpRecord{},
	}
}

func TestEveryRecordTypeSurvivesEncoding(t *testing.T) {
	records := oneOfEach()
	if kinds := (&Envelope{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields().Len(); kinds != len(records) {
		t.Fatalf("%d record types are tested, there are %d", len(records), kinds)
	}
	b, err := Encode(records)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(back) != len(records) {
		t.Fatalf("%d records became %d", len(records), len(back))
	}
	for i := range records {
		records[i].ProtoReflect().Descriptor().Fields()
		if !proto.Equal(records[i], back[i]) {
			t.Errorf("%v became %v", records[i], back[i])
		}
		fields := records[i].ProtoReflect().Descriptor().Fields()
		for n := range fields.Len() {
			if !records[i].ProtoReflect().Has(fields.Get(n)) {
				t.Errorf("the test leaves field %s unset", fields.Get(n).FullName())
			}
		}
	}
}

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	entry := func(build func(e *Entry)) []byte {
		e := &Entry{Version: entryVersion}
		build(e)
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	withUnknown := func(m proto.Message) { m.ProtoReflect().SetUnknown(unknown) }
	for name, c := range map[string]struct {
		b    []byte
		want error
		says string
	}{
		"version": {entry(func(e *Entry) { e.Version = entryVersion + 1 }), ErrNewerFormat, "version 2"},
		"record type": {entry(func(e *Entry) {
			v := &Envelope{}
			withUnknown(v)
			e.Records = append(e.Records, v)
		}), ErrNewerFormat, "field 99 of Envelope"},
		"field": {entry(func(e *Entry) {
			r := &TopicRecord{Name: "t"}
			withUnknown(r)
			e.Records = append(e.Records, r.envelope())
		}), ErrNewerFormat, "field 99 of TopicRecord"},
		"field in a list": {entry(func(e *Entry) {
			l := &BrokerRecord_Listener{}
			withUnknown(l)
			r := &BrokerRecord{Listeners: []*BrokerRecord_Listener{{Name: "a"}, l}}
			e.Records = append(e.Records, r.envelope())
		}), ErrNewerFormat, "field 99 of Listener"},
		"no version":   {nil, ErrMalformed, "no version"},
		"empty record": {entry(func(e *Entry) { e.Records = append(e.Records, &Envelope{}) }), ErrMalformed, "record 0 is empty"},
		"garbage":      {[]byte{0xff, 0xff}, ErrMalformed, "2 bytes"},
	} {
		records, err := Decode(c.b)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v, %v; want %v that says %q", name, records, err, c.want, c.says)
		}
	}
	if _, err := Encode([]Record{&TopicRecord{Name: "\xff"}}); err == nil {
		t.Error("a text that is not UTF-8 was encoded")
	}
}

// TestGeneratedCodeIsCurrent compares the fields that records.proto declares with those of the
// generated code, without needing protoc.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	source, err := os.ReadFile("records.proto")
	if err != nil {
		t.Fatal(err)
	}
	declared := make(map[string]bool)
	message := regexp.MustCompile(`^\s*(?:message|oneof) (\w+) \{`)
	field := regexp.MustCompile(`^\s*((?:optional |repeated )?\w+) (\w+) = (\d+);`)
	var path []string
	for line := range strings.Lines(string(source)) {
		if m := message.FindStringSubmatch(line); m != nil {
			path = append(path, m[1])
		} else if m := field.FindStringSubmatch(line); m != nil {
			declared[fmt.Sprintf("%s %s=%s %s", strings.TrimSuffix(strings.Join(path, "."), ".kind"), m[2], m[3], m[1])] = true
		}
		if strings.Contains(line, "}") && len(path) > 0 {
			path = path[:len(path)-1]
		}
	}
	generated := make(map[string]bool)
	collectFields(File_records_proto.Messages(), "", generated)
	for f := range declared {
		if !generated[f] {
			t.Errorf("records.pb.go lacks %s: run go generate", f)
		}
	}
	for f := range generated {
		if !declared[f] {
			t.Errorf("records.proto lacks %s: run go generate", f)
		}
	}
	if len(generated) < 50 {
		t.Errorf("only %d fields were found", len(generated))
	}
}

func collectFields(messages protoreflect.MessageDescriptors, prefix string, into map[string]bool) {
	for i := range messages.Len() {
		m := messages.Get(i)
		name := prefix + string(m.Name())
		collectFields(m.Messages(), name+".", into)
		for n := range m.Fields().Len() {
			f := m.Fields().Get(n)
			kind := f.Kind().String()
			if f.Message() != nil {
				kind = string(f.Message().Name())
			}
			switch {
			case f.HasOptionalKeyword():
				kind = "optional " + kind
			case f.IsList():
				kind = "repeated " + kind
			}
			into[fmt.Sprintf("%s %s=%d %s", name, f.Name(), f.Number(), kind)] = true
		}
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := Encode(oneOfEach())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	for _, r := range oneOfEach() {
		b, err := Encode([]Record{r})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{8, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("error of no known kind: %v", err)
			}
			return
		}
		// Whatever decodes can be replayed or is refused, and never panics.
		if _, _, err := Empty().With(0, 1, records); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("replay: error of no known kind: %v", err)
		}
		again, err := Encode(records)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		back, err := Decode(again)
		if err != nil || len(back) != len(records) {
			t.Fatalf("%d records became %d, %v", len(records), len(back), err)
		}
	})
}
