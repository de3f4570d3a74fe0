// Package config decides what every setting is called, which values it takes, and which of
// its sources wins. One table of keys, in Apache Kafka's names, feeds the loader, the checks
// of AlterConfigs, the answers of DescribeConfigs and docs/config.md.
//
// Anyone may call it. It knows neither files nor flags nor the metadata log: text and maps
// come in as arguments, and what comes out never changes. What a setting does is the
// business of the part that reads it.
package config

// Type is the type of a key's value. The numbers are those of DescribeConfigs' config type.
type Type int8

const (
	Unknown  Type = 0 // a key that the table does not know, kept because Kafka keeps it
	Bool     Type = 1
	String   Type = 2
	Int      Type = 3 // 32 bits
	Short    Type = 4 // 16 bits
	Long     Type = 5 // 64 bits
	Double   Type = 6
	List     Type = 7 // comma-separated
	Class    Type = 8 // a Java class's name: stored and shown, never loaded
	Password Type = 9 // never shown
)

// String names t as Kafka's documentation does.
func (t Type) String() string {
	return [...]string{"unknown", "boolean", "string", "int", "short", "long", "double", "list", "class", "password"}[t]
}

// Scope says whose key it is: the same name may exist as a broker's and as a topic's.
type Scope int8

const (
	Broker Scope = iota
	Topics
)

// Status says what a key does here.
type Status int8

const (
	Effective   Status = iota // it does what its documentation says, and a test sees it
	Fixed                     // it has one value here; another one is named in a warning
	Meaningless               // accepted, stored and shown, without effect; named in a warning when set
)

func (s Status) String() string { return [...]string{"effective", "fixed", "meaningless"}[s] }

// UpdateMode says how a broker's key can change while the broker runs.
type UpdateMode int8

const (
	ReadOnly    UpdateMode = iota // at start only
	PerBroker                     // for one broker at a time
	ClusterWide                   // for one broker, or as the default of all
)

func (m UpdateMode) String() string { return [...]string{"read-only", "per-broker", "cluster-wide"}[m] }

// Importance is Kafka's rank of a key in its documentation.
type Importance int8

const (
	High Importance = iota
	Medium
	Low
)

func (i Importance) String() string { return [...]string{"high", "medium", "low"}[i] }

// Source says where an effective value comes from. The numbers are those of DescribeConfigs.
type Source int8

const (
	DynamicTopic         Source = 1
	DynamicBroker        Source = 2
	DynamicDefaultBroker Source = 3
	StaticBroker         Source = 4 // file, environment or flag
	Default              Source = 5
)

func (s Source) String() string {
	return [...]string{"unknown", "topic", "broker (dynamic)", "all brokers (dynamic)", "broker", "default"}[s]
}

// Key is one row of the table.
type Key struct {
	Name       string
	Scope      Scope
	Area       string // the chapter of docs/config.md
	Type       Type
	Default    string // in the form DescribeConfigs shows; "" where HasDefault is false
	HasDefault bool   // false: null unless set
	Allowed    string // the values that are taken, in words; "" where the type says it all
	Importance Importance
	Update     UpdateMode // ReadOnly for topic keys, all of which can change
	Sensitive  bool       // the value is never shown
	Internal   bool       // accepted, but left out of DescribeConfigs, as in Kafka
	Own        bool       // not Kafka's: ours
	Status     Status
	Reason     string // why it is Fixed or Meaningless
	Doc        string // meaning, unit, and what happens at the limit

	// KafkaDefault is Kafka's default where ours is another (null for none), and Deviation
	// says why. Both are empty where the two agree.
	KafkaDefault, Deviation string

	// Synonyms of a broker's key are the names whose settings stand for it, itself first, in
	// the order in which they are asked. Those of a topic's key are its broker's keys.
	Synonyms []string

	check func(value any) bool // nil: every value of the type
	chain []link               // where the effective value is looked up; nil: the key itself
}

// link is one step in the search for an effective value: the first key that has one wins.
type link struct {
	name  string
	times int64 // converts its unit to that of the key that asks
}
