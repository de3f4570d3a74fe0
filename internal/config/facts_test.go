package config

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// facts are what Apache Kafka 4.3.1 says of itself: its ConfigDefs, which of a list of probe
// values each key takes ("+" or "-"), and what a broker of it answered to DescribeConfigs.
type facts struct {
	Probes map[string][]string // by type
	Keys   []struct {
		Scope, Name, Type  string
		Default            *string
		Importance, Update string
		Internal           bool
		Verdicts           string
		Shown              map[string]string // by probe, where a double is shown in another form
	}
	Described []struct {
		Properties                string
		AllBrokers, Broker, Topic map[string]string
		Whole                     bool // every key; otherwise only those that the settings moved

		BrokerEntries, DefaultEntries, PlainTopicEntries, TopicEntries [][]any
	}
}

func readFacts(t *testing.T) facts {
	t.Helper()
	text, err := os.ReadFile("testdata/kafka-4.3.1.json")
	if err != nil {
		t.Fatal(err)
	}
	var f facts
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// updateHere are keys that Kafka changes while it runs, and we only at start.
var updateHere = map[string]UpdateMode{"listeners": ReadOnly, "listener.security.protocol.map": ReadOnly}

func TestTableIsKafkas(t *testing.T) {
	f := readFacts(t)
	seen := map[*Key]bool{}
	for _, want := range f.Keys {
		scope := Broker
		if want.Scope == "topic" {
			scope = Topics
		}
		k, ok := Lookup(scope, want.Name)
		if !ok {
			t.Errorf("%s key %s is missing", want.Scope, want.Name)
			continue
		}
		seen[k] = true
		def := "null"
		if want.Default != nil {
			def = *want.Default
		}
		ours := k.Default
		if !k.HasDefault {
			ours = "null"
		}
		if k.Deviation != "" {
			ours = k.KafkaDefault
		}
		mode := k.Update
		if _, ok := updateHere[k.Name]; ok {
			mode = PerBroker
		}
		got := []string{k.Type.String(), ours, k.Importance.String(), mode.String()}
		if diff := cmp.Diff([]string{want.Type, def, want.Importance, want.Update}, got); diff != "" {
			t.Errorf("%s (Kafka -, ours +):\n%s", k.Name, diff)
		}
		if want.Internal && !k.Internal {
			t.Errorf("%s is internal in Kafka", k.Name)
		}
	}
	for _, scope := range []Scope{Broker, Topics} {
		for k := range Keys(scope) {
			if seen[k] == k.Own {
				t.Errorf("%s: in Kafka %v, ours %v", k.Name, seen[k], k.Own)
			}
		}
	}
}

// stricter are keys where we refuse what Kafka's ConfigDef takes: mostly since Kafka refuses
// it later, when it looks at all values together.
var stricter = map[string]string{
	"advertised.listeners":                "must be NAME://HOST:PORT",
	"listeners":                           "must be NAME://HOST:PORT",
	"listener.security.protocol.map":      "must be LISTENER:PROTOCOL",
	"controller.quorum.bootstrap.servers": "must be HOST:PORT",
	"max.connections.per.ip.overrides":    "must be HOST:COUNT",
	"log.retention.ms":                    "0 would delete everything: Kafka refuses it too",
	"log.retention.minutes":               "0 would delete everything: Kafka refuses it too",
	"log.retention.hours":                 "0 would delete everything: Kafka refuses it too",
	"log.roll.ms":                         "less than 1 is refused by Kafka too",
	"log.roll.jitter.ms":                  "less than 0 makes no sense",
	"default.replication.factor":          "less than 1 is refused when a topic is created",
	"replica.selector.class":              "a class that cannot be loaded is refused by Kafka too",
	"queued.max.request.bytes":            "less than 1 means no limit in Kafka; -1 does here",
}

func TestValuesAreTakenAsKafkaTakesThem(t *testing.T) {
	f := readFacts(t)
	for _, want := range f.Keys {
		k, _ := Lookup(map[string]Scope{"broker": Broker, "topic": Topics}[want.Scope], want.Name)
		kind := want.Type
		if kind == "long" || kind == "short" {
			kind = "int"
		}
		for i, probe := range f.Probes[kind] {
			if len(want.Verdicts) == 0 {
				continue // classes and passwords: Kafka loads the one and takes any of the other
			}
			v, err := k.parse(probe)
			taken := want.Verdicts[i] == '+'
			if taken == (err == nil) {
				shown, ok := want.Shown[probe]
				if ok && text(v) != shown {
					t.Errorf("%s = %q is shown as %q, in Kafka as %q", k.Name, probe, text(v), shown)
				}
				continue
			}
			if err != nil && stricter[k.Name] != "" {
				continue
			}
			if err == nil && text(v) == k.Default {
				continue // a default of ours can be asked for
			}
			t.Errorf("%s = %q: Kafka takes it: %v; we: %v", k.Name, probe, taken, err)
		}
	}
}

// shownOtherwise are values that Kafka 4.3.1 shows wrongly: when a dynamic setting covers a
// static synonym, it forgets the static one, still naming it as the source.
var shownOtherwise = map[string]string{
	"log.retention.hours":             "24",
	"log.retention.minutes":           "100",
	"log.flush.scheduler.interval.ms": "3000",
}

func TestDescribeConfigsAnswersAsKafka(t *testing.T) {
	for i, d := range readFacts(t).Described {
		s, _, err := Load(Sources{File: d.Properties, FileName: "server.properties"})
		if err != nil {
			t.Fatal(err)
		}
		if s, err = s.With(d.AllBrokers, d.Broker); err != nil {
			t.Fatal(err)
		}
		at := func(what string) string { return fmt.Sprintf("%s of case %d", what, i) }
		compareEntries(t, at("broker"), d.BrokerEntries, s.Entries(), d.Whole)
		compareEntries(t, at("all brokers"), d.DefaultEntries, s.DefaultEntries(), true)
		compareEntries(t, at("plain topic"), d.PlainTopicEntries, s.Topic(nil).Entries(1), d.Whole)
		compareEntries(t, at("topic"), d.TopicEntries, s.Topic(d.Topic).Entries(1), d.Whole)
	}
}

func compareEntries(t *testing.T, what string, want [][]any, entries []Entry, whole bool) {
	t.Helper()
	got := map[string][]any{}
	for _, e := range entries {
		if !e.Key.Own {
			got[e.Key.Name] = asKafka(e)
		}
	}
	for _, w := range want {
		name := w[0].(string)
		g, ok := got[name]
		if !ok {
			t.Errorf("%s: %s is missing", what, name)
			continue
		}
		delete(got, name)
		if k := keyOf(name); k.Deviation != "" {
			w, g = withoutDefault(w), withoutDefault(g)
		}
		if v, ok := shownOtherwise[name]; ok && !whole {
			w[1] = v
		}
		if _, ok := updateHere[name]; ok {
			w[4] = true
		}
		if diff := cmp.Diff(w, g); diff != "" {
			t.Errorf("%s: %s (Kafka -, ours +):\n%s", what, name, diff)
		}
	}
	for name := range got {
		if whole {
			t.Errorf("%s: %s is not in Kafka's answer", what, name)
		}
	}
}

// withoutDefault leaves the default out, where ours is another one than Kafka's.
func withoutDefault(row []any) []any {
	row = slices.Clone(row)
	row[6] = slices.DeleteFunc(slices.Clone(row[6].([]any)), func(y any) bool { return y.([]any)[2] == float64(Default) })
	if row[2] == float64(Default) {
		row[1] = nil
	}
	return row
}

// asKafka is an entry in the form of the recorded answers, as JSON would read it.
func asKafka(e Entry) []any {
	value := func(v string, null bool) any {
		if null {
			return nil
		}
		return v
	}
	synonyms := []any{}
	for _, y := range e.Synonyms {
		synonyms = append(synonyms, []any{y.Name, value(y.Value, y.Null), float64(y.Source)})
	}
	return []any{e.Key.Name, value(e.Value, e.Null), float64(e.Source), float64(e.Key.Type), e.ReadOnly, e.Sensitive, synonyms}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, scope := range []Scope{Broker, Topics} {
		for k := range Keys(scope) {
			if !strings.HasSuffix(k.Doc, ".") || len(k.Doc) < 20 {
				t.Errorf("%s: documentation %q", k.Name, k.Doc)
			}
			if (k.Status == Effective) != (k.Reason == "") {
				t.Errorf("%s is %s with the reason %q", k.Name, k.Status, k.Reason)
			}
			if k.HasDefault {
				if v, err := k.parse(k.Default); err != nil || text(v) != k.Default {
					t.Errorf("%s: default %q: %v", k.Name, k.Default, err)
				}
			}
			for _, unit := range []struct{ suffix, word string }{{".ms", "milliseconds"}, {".seconds", "seconds"}, {".minutes", "minutes"}, {".hours", "hours"}, {".bytes", "bytes"}} {
				if strings.HasSuffix(k.Name, unit.suffix) && !strings.Contains(k.Doc, unit.word) && !strings.Contains(k.Doc, "Stands for") && !strings.Contains(k.Doc, "As ") {
					t.Errorf("%s: its documentation does not name the unit: %q", k.Name, k.Doc)
				}
			}
		}
	}
	for _, name := range slices.Concat(ownKeys, internalKeys) {
		_, broker := Lookup(Broker, name)
		_, topic := Lookup(Topics, name)
		if !broker && !topic {
			t.Errorf("%s is listed and not in the table", name)
		}
	}
	for name := range deviations {
		if k, ok := Lookup(Broker, name); !ok || k.Deviation == "" {
			t.Errorf("%s deviates and is not in the table", name)
		}
	}
}
