package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// Topic is a topic's configuration at one moment: its own settings, and beneath them the
// broker's. It never changes. Its getters are those of Set, for a topic's keys.
type Topic struct {
	broker    *Set
	overrides map[string]any // parsed
}

// Topic resolves a topic's settings. CheckTopic has seen them when they were made; one that
// is not allowed all the same counts as not set.
func (s *Set) Topic(overrides map[string]string) *Topic {
	t := &Topic{broker: s, overrides: make(map[string]any, len(overrides))}
	for name, value := range overrides {
		if k, ok := table.topic[name]; ok {
			if v, err := k.parse(value); err == nil {
				t.overrides[name] = v
			}
		}
	}
	return t
}

// minInSync is the one key whose default depends on the topic.
const minInSync = "min.insync.replicas"

// MinInSync is min.insync.replicas where it is left to the number of a topic's replicas (-1): two from three on, so that what
// is acknowledged outlives a disk and one broker may be away; else one, since of two either must be able to fail.
func MinInSync(replicas int) int {
	if replicas >= 3 {
		return 2
	}
	return 1
}

// own is the value of one key without its chain: override, broker, default.
func (t *Topic) own(name string) (any, bool) {
	if v, ok := t.overrides[name]; ok {
		return v, true
	}
	if b, ok := topicSynonyms[name]; ok {
		return t.broker.effective(b)
	}
	if k := table.topic[name]; k.HasDefault {
		v, _ := k.Type.parse(k.Default)
		return v, true
	}
	return nil, false
}

func (t *Topic) get(name string, types ...Type) any {
	k := table.must(Topics, name)
	k.expect(types)
	v, _ := lookup(k, t.own)
	return v
}

// The getters give the effective value, as those of Set do, and panic as they do.

func (t *Topic) Int(name string) int       { return int(orZero[int64](t.get(name, Int, Short))) }
func (t *Topic) Int64(name string) int64   { return orZero[int64](t.get(name, Int, Short, Long)) }
func (t *Topic) Bool(name string) bool     { return orZero[bool](t.get(name, Bool)) }
func (t *Topic) Float(name string) float64 { return orZero[float64](t.get(name, Double)) }
func (t *Topic) String(name string) string { return orZero[string](t.get(name, String)) }
func (t *Topic) List(name string) []string { return slices.Clone(orZero[[]string](t.get(name, List))) }

func (t *Topic) Millis(name string) time.Duration {
	return millis(name, t.get(name, Int, Short, Long))
}

// CheckTopic says whether a topic may have these settings, all of them together: the error
// is an *UnknownError or an *InvalidError (INVALID_CONFIG), or several joined.
func CheckTopic(overrides map[string]string) error {
	var errs []error
	values := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		if len(errs) == maxReported {
			break
		}
		k, ok := table.topic[name]
		if !ok {
			errs = append(errs, &UnknownError{Key: name, Nearest: suggestTopic(name)})
			continue
		}
		v, err := k.parse(overrides[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		values[name] = v
		if k.Status == Fixed && text(v) != k.Default {
			errs = append(errs, &InvalidError{Key: name, Value: overrides[name], Allowed: "only " + k.Default + ": " + k.Reason})
		}
	}
	low, ok1 := values["min.compaction.lag.ms"].(int64)
	high, ok2 := values["max.compaction.lag.ms"].(int64)
	if ok1 && ok2 && low > high {
		errs = append(errs, &InvalidError{
			Key: "min.compaction.lag.ms", Value: overrides["min.compaction.lag.ms"],
			Allowed: "at most max.compaction.lag.ms, which is " + text(high),
		})
	}
	return joined(errs...)
}

// CheckDynamicBroker says whether brokers may be given these settings while they run: all of
// them when perBroker is false, or the one called name. Read-only keys are refused, and for
// all brokers also those that belong to one. Names that the table does not know are taken,
// as Kafka takes them: plugins have keys of their own. The error is *InvalidError (Kafka
// answers INVALID_REQUEST), or several joined.
func CheckDynamicBroker(name string, values map[string]string, perBroker bool) error {
	_, err := usable(values, perBroker)
	if err == nil {
		return nil
	}
	if !perBroker {
		name = "all brokers"
	} else {
		name = "broker " + name
	}
	return &forBroker{name, readOnly(values), err}
}

type forBroker struct {
	name     string
	readOnly []string // the keys that no running broker takes
	err      error
}

func (e *forBroker) Error() string {
	why := e.err.Error()
	if len(e.readOnly) > 0 {
		// In these words, which users and their scripts look for, for they are Kafka's.
		why = "Cannot update these configs dynamically: [" + strings.Join(e.readOnly, ", ") + "]: " + why
	}
	return "settings of " + e.name + ": " + why
}

func (e *forBroker) Unwrap() error { return e.err }

// readOnly are those of the keys that are only read at start, in the order of their names.
func readOnly(values map[string]string) []string {
	var names []string
	for name := range values {
		if k, ok := table.broker[name]; ok && k.Update == ReadOnly {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func checkDynamic(name, value string, perBroker bool) error {
	k, ok := table.broker[name]
	if !ok {
		if base, ok := listenerBase(name); ok && !perBroker {
			return notDynamic(base, value, "per broker only, not for all brokers at once")
		}
		return nil
	}
	if k.Update == ReadOnly {
		return notDynamic(k, value, "at start only (file, environment or flag): the key is read-only")
	}
	if k.Update == PerBroker && !perBroker {
		return notDynamic(k, value, "per broker only, not for all brokers at once")
	}
	if slices.Contains(perListener, name) {
		return notDynamic(k, value, "for one listener only, as listener.name.NAME."+name)
	}
	_, err := k.parse(value)
	return err
}

// perListener are the settings that a running broker takes for a single listener only (KIP-226).
var perListener = []string{
	"ssl.key.password", "ssl.keystore.certificate.chain", "ssl.keystore.key", "ssl.keystore.location", "ssl.keystore.password",
	"ssl.keystore.type", "ssl.truststore.certificates", "ssl.truststore.location", "ssl.truststore.password", "ssl.truststore.type",
}

func notDynamic(k *Key, value, allowed string) error {
	if k.Sensitive {
		value = "[hidden]"
	}
	return &InvalidError{Key: k.Name, Value: value, Allowed: allowed}
}

// listenerBase finds the key behind listener.name.NAME.KEY.
func listenerBase(name string) (*Key, bool) {
	rest, ok := strings.CutPrefix(name, "listener.name.")
	for ok {
		if _, rest, ok = strings.Cut(rest, "."); ok {
			if k := table.broker[rest]; k != nil {
				return k, true
			}
		}
	}
	return nil, false
}

// joined is errors.Join, but one error stays itself, and of very many the first few stand
// for all.
func joined(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(e error) bool { return e == nil })
	errs = errs[:min(len(errs), maxReported)]
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
