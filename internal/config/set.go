package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Set is a broker's configuration at one moment: every key resolved, each with its source.
// It never changes; With makes another one. Methods may be called from anywhere.
//
// The getters give the effective value under the key's own name: log.retention.ms answers
// also where only log.retention.hours is set. A name outside the table, or a getter of the
// wrong type, panics: that is the program's mistake, not the user's.
type Set struct {
	static         map[string]setting // as set by file, environment and flags
	dynamicDefault map[string]string
	dynamicBroker  map[string]string
	values         map[string]any // parsed, by broker key; absent where null
}

// setting is one static value with the place where it was found.
type setting struct {
	value  string
	origin string
}

func newSet(static map[string]setting) *Set {
	s := &Set{static: static}
	s.resolve()
	return s
}

// resolve parses the winning text of every key. All texts have been checked before.
func (s *Set) resolve() {
	s.values = make(map[string]any, len(table.broker))
	for name, k := range table.broker {
		raw, ok := s.raw(name)
		if !ok {
			raw, ok = k.Default, k.HasDefault
		}
		if !ok {
			continue
		}
		v, err := k.parse(raw)
		if err != nil {
			panic(fmt.Sprintf("BUG: config: unchecked value: %v", err))
		}
		s.values[name] = v
	}
}

// raw is the text that was set for a key, by the strongest source that set it.
func (s *Set) raw(name string) (string, bool) {
	if v, ok := s.dynamicBroker[name]; ok {
		return v, true
	}
	if v, ok := s.dynamicDefault[name]; ok {
		return v, true
	}
	v, ok := s.static[name]
	return v.value, ok
}

// IsSet reports whether anything but its default gave a key its value.
func (s *Set) IsSet(name string) bool { return s.isSet(name) }

func (s *Set) isSet(name string) bool {
	_, ok := s.raw(name)
	return ok
}

// With is s under the dynamic settings that the metadata holds: those for all brokers, and
// above them those for this one. A setting that is not allowed is left out and named in the
// error, so that one bad value does not void the others; the Set is always usable.
func (s *Set) With(dynamicDefault, dynamicBroker map[string]string) (*Set, error) {
	d, err1 := usable(dynamicDefault, false)
	b, err2 := usable(dynamicBroker, true)
	n := &Set{static: s.static, dynamicDefault: d, dynamicBroker: b}
	n.resolve()
	return n, joined(err1, err2)
}

func usable(values map[string]string, perBroker bool) (map[string]string, error) {
	kept := map[string]string{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := checkDynamic(name, values[name], perBroker); err != nil {
			errs = append(errs, err)
			continue
		}
		kept[name] = values[name]
	}
	return kept, joined(errs...)
}

// lookup is the effective value of a key: the first of its chain that has one, in the key's
// own unit.
func lookup(k *Key, get func(name string) (any, bool)) (any, bool) {
	for _, l := range k.chain {
		if v, ok := get(l.name); ok {
			return scale(v, l.times), true
		}
	}
	if k.chain != nil {
		return nil, false
	}
	return get(k.Name)
}

// scale converts a number of hours or minutes, which have 32 bits and so cannot overflow;
// negative stays "no limit", whatever the unit.
func scale(v any, times int64) any {
	n, ok := v.(int64)
	switch {
	case !ok || times == 1:
		return v
	case n < 0:
		return int64(-1)
	}
	return n * times
}

func (s *Set) effective(name string) (any, bool) {
	return lookup(table.must(Broker, name), func(n string) (any, bool) { v, ok := s.values[n]; return v, ok })
}

// Null reports whether a key has no value: it has no default and nothing set it.
func (s *Set) Null(name string) bool {
	_, ok := s.effective(name)
	return !ok
}

// Int returns a key of type int or short, 0 where it is null.
func (s *Set) Int(name string) int { return int(orZero[int64](s.get(name, Int, Short))) }

// Int64 returns a key of type int, short or long, 0 where it is null.
func (s *Set) Int64(name string) int64 { return orZero[int64](s.get(name, Int, Short, Long)) }

// Bool returns a key of type boolean.
func (s *Set) Bool(name string) bool { return orZero[bool](s.get(name, Bool)) }

// Float returns a key of type double.
func (s *Set) Float(name string) float64 { return orZero[float64](s.get(name, Double)) }

// String returns a key of type string, class or password, "" where it is null.
func (s *Set) String(name string) string { return orZero[string](s.get(name, String, Class, Password)) }

// List returns a key of type list, nil where it is null. The caller may change it.
func (s *Set) List(name string) []string { return slices.Clone(orZero[[]string](s.get(name, List))) }

// Millis returns a key that counts milliseconds, 0 where it is null. What exceeds a Duration
// (292 years) is the longest Duration; negative numbers stay negative.
func (s *Set) Millis(name string) time.Duration { return millis(name, s.get(name, Int, Short, Long)) }

// get returns nil where the key is null, and panics where it is of none of these types.
func (s *Set) get(name string, types ...Type) any {
	table.must(Broker, name).expect(types)
	v, _ := s.effective(name)
	return v
}

func (k *Key) expect(types []Type) {
	if !slices.Contains(types, k.Type) {
		panic(fmt.Sprintf("BUG: config: %s is of type %s, which this getter does not return", k.Name, k.Type))
	}
}

func orZero[T any](v any) T {
	t, _ := v.(T)
	return t
}

func millis(name string, v any) time.Duration {
	if !strings.HasSuffix(name, ".ms") && !strings.HasSuffix(name, ".millis") {
		panic("BUG: config: " + name + " does not count milliseconds")
	}
	const most = math.MaxInt64 / int64(time.Millisecond)
	n := orZero[int64](v)
	if n > most {
		return math.MaxInt64
	}
	return time.Duration(max(n, -most)) * time.Millisecond
}

// RequestMemoryBytes is queued.max.request.bytes, where -1 stands for the default: memory is
// never without a bound.
func (s *Set) RequestMemoryBytes() int64 {
	const name = "queued.max.request.bytes"
	if n := s.Int64(name); n > 0 {
		return n
	}
	n, _ := table.broker[name].parse(table.broker[name].Default)
	return n.(int64)
}
