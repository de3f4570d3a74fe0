package config

import (
	"maps"
	"slices"
	"strconv"
)

// Entry is one key as DescribeConfigs answers it.
type Entry struct {
	Key       *Key
	Value     string // "" where Null
	Null      bool   // no value, or one that must not be shown
	Source    Source
	ReadOnly  bool
	Sensitive bool
	Synonyms  []Synonym // strongest first: every place that gives the key a value
}

// Synonym is one place that gives an entry a value.
type Synonym struct {
	Name   string
	Value  string
	Null   bool // a value that must not be shown
	Source Source
}

// Entries are the broker's keys in the order of their names: those of the table, and those
// that were set without being in it.
func (s *Set) Entries() []Entry {
	names := map[string]bool{}
	for name, k := range table.broker {
		if !k.Internal {
			names[name] = true
		}
	}
	for name := range s.static {
		names[name] = true
	}
	for _, m := range []map[string]string{s.dynamicDefault, s.dynamicBroker} {
		for name := range m {
			names[name] = true
		}
	}
	var list []Entry
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, s.entry(name, func(Synonym) bool { return true }))
	}
	return list
}

// DefaultEntries are the dynamic settings of all brokers: what DescribeConfigs answers for
// the broker without a name.
func (s *Set) DefaultEntries() []Entry {
	var list []Entry
	for _, name := range slices.Sorted(maps.Keys(s.dynamicDefault)) {
		e := s.entry(name, func(y Synonym) bool { return y.Source == DynamicDefaultBroker })
		if !e.Sensitive {
			e.Value = s.dynamicDefault[name] // what was set, even where this broker has its own
		}
		list = append(list, e)
	}
	return list
}

func (s *Set) entry(name string, admit func(Synonym) bool) Entry {
	k := keyOf(name)
	e := Entry{Key: k, Null: true, ReadOnly: k.Update == ReadOnly, Sensitive: k.Sensitive, Source: Default}
	for _, y := range s.synonyms(name, k) {
		if admit(y) {
			e.Synonyms = append(e.Synonyms, y)
		}
	}
	if len(e.Synonyms) > 0 {
		e.Source = e.Synonyms[0].Source
	}
	if v, ok := s.values[name]; ok && !k.Sensitive {
		e.Value, e.Null = text(v), false
	} else if raw, ok := s.raw(name); ok && !k.Sensitive {
		e.Value, e.Null = raw, false
	}
	return e
}

// keyOf is the table's key, or one made up for a name outside it. Such a value may be a
// secret, so it is never shown.
func keyOf(name string) *Key {
	if k := table.broker[name]; k != nil {
		return k
	}
	if base, ok := listenerBase(name); ok {
		k := *base
		k.Name, k.Update, k.Default, k.HasDefault, k.Synonyms = name, ReadOnly, "", false, []string{name, base.Name}
		return &k
	}
	return &Key{Name: name, Sensitive: true, Synonyms: []string{name}}
}

// synonyms lists every place that gives one of k's names a value, strongest source first.
// As in Kafka, the list begins at the first place under the very name asked for, and is
// empty where there is none: log.retention.hours alone does not show as a synonym of
// log.retention.ms, although it gives it its value.
func (s *Set) synonyms(name string, k *Key) []Synonym {
	var list []Synonym
	add := func(source Source, get func(string) (string, bool)) {
		for _, n := range k.Synonyms {
			if v, ok := get(n); ok {
				list = append(list, hide(Synonym{Name: n, Value: v, Source: source}, k))
			}
		}
	}
	add(DynamicBroker, func(n string) (string, bool) { v, ok := s.dynamicBroker[n]; return v, ok })
	add(DynamicDefaultBroker, func(n string) (string, bool) { v, ok := s.dynamicDefault[n]; return v, ok })
	add(StaticBroker, func(n string) (string, bool) { v, ok := s.static[n]; return v.value, ok })
	add(Default, func(n string) (string, bool) {
		d := keyOf(n)
		return d.Default, d.HasDefault && !slices.Contains(dynamicKeys, n)
	})
	from := slices.IndexFunc(list, func(y Synonym) bool { return y.Name == name })
	if from < 0 {
		return nil
	}
	return list[from:]
}

// settle puts a value in the place of each -1, which leaves it to the broker.
func (e *Entry) settle(value string) {
	const left = "-1"
	if e.Value == left {
		e.Value = value
	}
	for i := range e.Synonyms {
		if e.Synonyms[i].Value == left {
			e.Synonyms[i].Value = value
		}
	}
}

func hide(y Synonym, k *Key) Synonym {
	if k.Sensitive {
		y.Value, y.Null = "", true
	}
	return y
}

// Entries are the keys, in the order of their names, of a topic with so many replicas. A setting that is left to their
// number shows what comes of it, as a client expects that reads a number there.
func (t *Topic) Entries(replicas int) []Entry {
	var list []Entry
	for k := range Keys(Topics) {
		if _, set := t.overrides[k.Name]; k.Internal && !set {
			continue
		}
		e := Entry{Key: k, Null: true, Source: Default, Sensitive: k.Sensitive}
		v, ok := t.own(k.Name)
		if ok {
			e.Value, e.Null = text(v), false
		}
		if _, set := t.overrides[k.Name]; set {
			e.Synonyms = append(e.Synonyms, Synonym{Name: k.Name, Value: e.Value, Source: DynamicTopic})
		}
		if b, ok := topicSynonyms[k.Name]; ok {
			e.Synonyms = append(e.Synonyms, t.broker.synonyms(b, table.broker[b])...)
		}
		if k.Name == minInSync {
			e.settle(strconv.Itoa(MinInSync(replicas)))
		}
		if len(e.Synonyms) > 0 {
			e.Source = e.Synonyms[0].Source
		}
		list = append(list, e)
	}
	return list
}
