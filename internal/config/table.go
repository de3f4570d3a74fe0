package config

import (
	"iter"
	"slices"
	"strings"
)

// row is a key as the files keys_*.go write it: name, type, default, what it takes,
// importance, update mode, what it does here, documentation.
type row struct {
	name       string
	kind       Type
	def        string // null: no value unless set
	takes      rule
	importance Importance
	update     UpdateMode
	here       here
	doc        string
}

// null is the default of a key that has no value until it is set.
const null = "\x00"

// here is what a key does in Barnabas.
type here struct {
	status Status
	reason string
}

var effective = here{}

func fixed(reason string) here { return here{Fixed, reason} }
func no(reason string) here    { return here{Meaningless, reason} }

// table is the one list of keys, made once and never changed.
var table = build()

type tables struct {
	broker, topic map[string]*Key
	names         [2][]string     // sorted, by scope
	env           map[string]*Key // by LOG_RETENTION_MS
}

// prefix admits keys whose names the user makes up.
type prefix struct {
	name, reason string
}

// areas are the table's parts, in the order of docs/config.md.
var areas = []struct {
	name  string
	scope Scope
	rows  []row
}{
	{"Topics", Topics, topicKeys},
	{"Logs", Broker, logKeys},
	{"Listeners, connections, requests", Broker, networkKeys},
	{"Node, controller, metadata", Broker, nodeKeys},
	{"Replication, leadership, quotas", Broker, replicaKeys},
	{"Groups and offsets", Broker, groupKeys},
	{"Share groups", Broker, shareKeys},
	{"Transactions", Broker, transactionKeys},
	{"Tiered storage", Broker, remoteKeys},
	{tlsArea, Broker, tlsKeys},
	{"Authentication and authorization", Broker, saslKeys},
}

// tlsArea is the chapter of the keys of TLS.
const tlsArea = "TLS"

func build() *tables {
	t := &tables{broker: map[string]*Key{}, topic: map[string]*Key{}, env: map[string]*Key{}}
	for _, a := range areas {
		for _, r := range a.rows {
			t.add(a.scope, t.of(a.scope), a.name, r)
		}
	}
	t.relate()
	for name, k := range t.broker {
		t.env[envName(name)] = k
	}
	return t
}

func (t *tables) add(scope Scope, keys map[string]*Key, area string, r row) {
	if keys[r.name] != nil {
		panic("BUG: config: two rows for " + r.name)
	}
	k := &Key{
		Name: r.name, Scope: scope, Area: area, Type: r.kind, Allowed: r.takes.text, Importance: r.importance, Update: r.update,
		Sensitive: r.kind == Password, Own: slices.Contains(ownKeys, r.name), Internal: slices.Contains(internalKeys, r.name) || slices.Contains(dynamicKeys, r.name),
		Status: r.here.status, Reason: r.here.reason, Doc: r.doc, check: r.takes.check,
	}
	if r.def != null {
		k.Default, k.HasDefault = r.def, true
	}
	if d, ok := deviations[r.name]; ok && scope == Broker {
		k.KafkaDefault, k.Deviation = d.kafka, d.why
	}
	keys[r.name] = k
	t.names[scope] = append(t.names[scope], r.name)
	slices.Sort(t.names[scope])
}

// relate fills in which keys stand for which.
func (t *tables) relate() {
	for name, k := range t.broker {
		k.chain, k.Synonyms = chains[name], []string{name}
	}
	for _, family := range families {
		for _, name := range family {
			t.broker[name].Synonyms = family
		}
	}
	t.broker["log.flush.interval.ms"].Synonyms = []string{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}
	for name, k := range t.topic {
		k.chain = topicChains[name]
		if b, ok := topicSynonyms[name]; ok {
			k.Synonyms = t.broker[b].Synonyms
		}
	}
}

// chains says where the effective value of a broker's key is looked up, where that is not
// the key alone.
var chains = map[string][]link{
	"log.retention.ms":           {{"log.retention.ms", 1}, {"log.retention.minutes", 60_000}, {"log.retention.hours", 3_600_000}},
	"log.roll.ms":                {{"log.roll.ms", 1}, {"log.roll.hours", 3_600_000}},
	"log.roll.jitter.ms":         {{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", 3_600_000}},
	"log.flush.interval.ms":      {{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}},
	"log.dirs":                   {{"log.dirs", 1}, {"log.dir", 1}},
	"metadata.log.segment.bytes": {{"internal.metadata.log.segment.bytes", 1}, {"metadata.log.segment.bytes", 1}},
}

// topicChains are the same among a topic's keys.
var topicChains = map[string][]link{
	"segment.bytes": {{"internal.segment.bytes", 1}, {"segment.bytes", 1}},
}

// families are the broker's keys that DescribeConfigs lists as synonyms of each other.
var families = [][]string{
	{"log.retention.ms", "log.retention.minutes", "log.retention.hours"},
	{"log.roll.ms", "log.roll.hours"},
	{"log.roll.jitter.ms", "log.roll.jitter.hours"},
}

// topicSynonyms are the broker's keys that give topics their defaults.
var topicSynonyms = map[string]string{
	"cleanup.policy":                  "log.cleanup.policy",
	"compression.gzip.level":          "compression.gzip.level",
	"compression.lz4.level":           "compression.lz4.level",
	"compression.type":                "compression.type",
	"compression.zstd.level":          "compression.zstd.level",
	"delete.retention.ms":             "log.cleaner.delete.retention.ms",
	"file.delete.delay.ms":            "log.segment.delete.delay.ms",
	"flush.before.ack":                "log.flush.before.ack",
	"flush.messages":                  "log.flush.interval.messages",
	"flush.ms":                        "log.flush.interval.ms",
	"index.interval.bytes":            "log.index.interval.bytes",
	"local.retention.bytes":           "log.local.retention.bytes",
	"local.retention.ms":              "log.local.retention.ms",
	"max.compaction.lag.ms":           "log.cleaner.max.compaction.lag.ms",
	"max.message.bytes":               "message.max.bytes",
	"message.timestamp.after.max.ms":  "log.message.timestamp.after.max.ms",
	"message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms",
	"message.timestamp.type":          "log.message.timestamp.type",
	"min.cleanable.dirty.ratio":       "log.cleaner.min.cleanable.ratio",
	"min.compaction.lag.ms":           "log.cleaner.min.compaction.lag.ms",
	"min.insync.replicas":             "min.insync.replicas",
	"preallocate":                     "log.preallocate",
	"retention.bytes":                 "log.retention.bytes",
	"retention.ms":                    "log.retention.ms",
	"segment.bytes":                   "log.segment.bytes",
	"segment.index.bytes":             "log.index.size.max.bytes",
	"segment.jitter.ms":               "log.roll.jitter.ms",
	"segment.ms":                      "log.roll.ms",
	"unclean.leader.election.enable":  "unclean.leader.election.enable",
}

func (t *tables) of(scope Scope) map[string]*Key {
	if scope == Topics {
		return t.topic
	}
	return t.broker
}

// must finds a key that the program names: a name outside the table is its author's mistake.
func (t *tables) must(scope Scope, name string) *Key {
	k := t.of(scope)[name]
	if k == nil {
		panic("BUG: config: no key " + name)
	}
	return k
}

// Keys yields the keys of a scope in the order of their names.
func Keys(scope Scope) iter.Seq[*Key] {
	return func(yield func(*Key) bool) {
		for _, name := range table.names[scope] {
			if !yield(table.of(scope)[name]) {
				return
			}
		}
	}
}

// Lookup finds a key by its name.
func Lookup(scope Scope, name string) (*Key, bool) {
	k, ok := table.of(scope)[name]
	return k, ok
}

// envName is the part after BARNABAS_ of the environment variable that sets a key.
func envName(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

// prefixes of names that users complete, and whole names that belong to Kafka's plugins. None
// has an effect yet.
var prefixes = []prefix{
	{"listener.name.", noTLS},
	{"config.providers.", noProviders},
	{"rlmm.config.", noTiers},
	{"rsm.config.", noTiers},
	{"metrics.context.", noJMX},
	{"super.users", noAuthorizer},
	{"allow.everyone.if.no.acl.found", noAuthorizer},
}

func prefixOf(name string) (prefix, bool) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p.name); ok && strings.HasSuffix(p.name, ".") == (rest != "") {
			return p, true
		}
	}
	return prefix{}, false
}
