package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Sources are the places that a broker's static settings come from, weakest first. Beneath
// them are the defaults.
type Sources struct {
	File     string    // the text of a properties file, as Kafka's server.properties
	FileName string    // its name, for messages
	Env      []string  // NAME=VALUE; only names that begin with BARNABAS_ are looked at
	Flags    []Setting // --set and the flags that stand for a key; the later one wins
}

// Setting is one key set by a flag.
type Setting struct {
	Key, Value string
	Origin     string // the flag as the user wrote it: "--listen", "--set"
}

const envPrefix = "BARNABAS_"

// envBrokers is the client commands' address of a cluster, and no key.
const envBrokers = envPrefix + "BROKERS"

// Load resolves a broker's static configuration. Every value that is not allowed is in the
// error (*InvalidError, *UnknownError, or several joined), with the place it came from.
// The warnings name what was set and does nothing: unknown keys of the file, meaningless
// ones, and fixed ones set to something else.
func Load(src Sources) (set *Set, warnings []string, err error) {
	l := loader{static: map[string]setting{}}
	l.file(src)
	l.environment(src.Env)
	for _, f := range src.Flags {
		l.flag(f)
	}
	l.sameNodeID()
	if err := joined(l.errs...); err != nil {
		return nil, l.warnings, err
	}
	set = newSet(l.static)
	if err := checkTogether(set); err != nil {
		return nil, l.warnings, err
	}
	l.idle(set)
	return set, l.warnings, nil
}

type loader struct {
	static   map[string]setting
	warnings []string
	errs     []error
}

func (l *loader) file(src Sources) {
	name := src.FileName
	if name == "" {
		name = "configuration file"
	}
	lines, err := readProperties(src.File)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("read %s: %w", name, err))
		return
	}
	for _, ln := range lines {
		origin := fmt.Sprintf("%s:%d", name, ln.number)
		if !known(ln.key) {
			l.warnings = append(l.warnings, (&UnknownError{ln.key, suggest(ln.key), origin}).Error())
		}
		l.put(ln.key, ln.value, origin)
	}
}

func (l *loader) environment(env []string) {
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		rest, ok := strings.CutPrefix(name, envPrefix)
		if !ok || name == envBrokers {
			continue
		}
		k := table.env[rest]
		if k == nil {
			near := nearest(rest, slices.Sorted(maps.Keys(table.env)))
			if near != "" {
				near = envPrefix + near
			}
			l.errs = append(l.errs, &UnknownError{name, near, "environment"})
			continue
		}
		l.put(k.Name, value, "environment "+name)
	}
}

func (l *loader) flag(f Setting) {
	origin := f.Origin
	if origin == "" {
		origin = "--set"
	}
	if !known(f.Key) {
		l.errs = append(l.errs, &UnknownError{f.Key, suggest(f.Key), origin})
		return
	}
	l.put(f.Key, f.Value, origin)
}

func (l *loader) put(key, value, origin string) {
	if k := table.broker[key]; k != nil {
		if _, err := k.parse(value); err != nil {
			var e *InvalidError
			if errors.As(err, &e) {
				e.Origin = origin
			}
			l.errs = append(l.errs, err)
			return
		}
	}
	l.static[key] = setting{value, origin}
}

// sameNodeID makes broker.id and node.id, two names of one number, stand for each other.
func (l *loader) sameNodeID() {
	const old, id = "broker.id", "node.id"
	b, hasOld := l.static[old]
	n, hasID := l.static[id]
	switch {
	case hasOld && hasID && trim(b.value) != trim(n.value):
		l.errs = append(l.errs, &InvalidError{old, b.value, "only the value of " + id + ", which is " + n.value, b.origin})
	case hasOld && !hasID && trim(b.value) != "-1":
		l.static[id] = b
	case hasID && !hasOld:
		l.static[old] = n
	}
}

// idle names the settings that have no effect, one warning for each reason.
func (l *loader) idle(s *Set) {
	byReason := map[string][]string{}
	inUse, unusedTLS := s.tlsInUse()
	for name, set := range l.static {
		k := table.broker[name]
		switch p, ok := prefixOf(name); {
		case inUse[name]:
		case k == nil && ok:
			byReason[p.reason] = append(byReason[p.reason], name)
		case k != nil && k.Area == tlsArea && k.Status == Effective:
			byReason[unusedTLS] = append(byReason[unusedTLS], name)
		case k == nil || k.Status == Effective:
		case k.Status == Meaningless:
			byReason[k.Reason] = append(byReason[k.Reason], name)
		case text(s.values[name]) != k.Default:
			l.warnings = append(l.warnings, fmt.Sprintf("%s is always %s here: %s (%s)", name, k.Default, k.Reason, set.origin))
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		names := byReason[reason]
		slices.Sort(names)
		l.warnings = append(l.warnings, fmt.Sprintf("without effect: %s: %s", strings.Join(names, ", "), reason))
	}
}

func known(name string) bool {
	_, made := prefixOf(name)
	return table.broker[name] != nil || made
}

// suggest finds the key that was probably meant: a topic's key stands for its broker's key.
func suggest(name string) string {
	if b, ok := topicSynonyms[name]; ok {
		return b
	}
	return nearest(name, table.names[Broker])
}

// suggestTopic does the same for a topic's key: a broker's key stands for the topic's.
func suggestTopic(name string) string {
	for _, topic := range table.names[Topics] {
		if b, ok := topicSynonyms[topic]; ok && slices.Contains(table.broker[b].Synonyms, name) {
			return topic
		}
	}
	return nearest(name, table.names[Topics])
}
