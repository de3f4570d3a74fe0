// Package hooks is what a client tells whoever watches it: connections, requests, batches written
// and read, waiting, rebalances, commits. A program sets the functions that it wants:
//
//	c, err := client.New(client.Hooks(hooks.Hooks{
//		Answered: func(a hooks.Answered) { log.Printf("%s took %v", a.API(), a.Took) },
//	}))
//
// hooks/prometheus and hooks/opentelemetry make metrics of them. The package decides what is told
// and when; it refuses to know what becomes of it, and imports nothing of the client, which calls it.
package hooks

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Hooks are functions that a client calls when something has happened; nil ones cost nothing. They
// are called on the client's own goroutines, several at a time, and what they are told of waits for
// them: they must be quick, and call nothing of the client that waits.
type Hooks struct {
	// Connected is told of every attempt to connect to a broker: Err is nil where it succeeded.
	Connected func(Connected)

	// Disconnected follows on each success of Connected, when the connection has ended.
	Disconnected func(Disconnected)

	// Sent is told of every request that has been handed to a connection.
	Sent func(Sent)

	// Answered follows once on each Sent that is not OneWay: with the answer, or with the error in
	// its place.
	Answered func(Answered)

	// Written is told once of each batch of a producer, when it is known what became of it and
	// before the callbacks of its records run; in the order of the partition.
	Written func(Written)

	// Waited is told when Send has waited for buffer.memory.
	Waited func(Waited)

	// Read is told of what a consumer has fetched of a partition, before Poll returns it.
	Read func(Read)

	// Rebalanced is told when a member of a group has got partitions or given them up, once the
	// program's own callback has run.
	Rebalanced func(Rebalanced)

	// Committed is told of every attempt to commit offsets.
	Committed func(Committed)
}

// Broker is the broker that something was exchanged with.
type Broker struct {
	ID      int32  // -1: one of bootstrap.servers, whose number is not known yet
	Address string // HOST:PORT
}

// Connected is an attempt to connect.
type Connected struct {
	Broker
	Took time.Duration // until requests could be sent: connecting, TLS, versions, SASL
	Err  error
}

// Disconnected is the end of a connection.
type Disconnected struct {
	Broker
	Lasted time.Duration
	Err    error // why
}

// Request is a request of Kafka's protocol.
type Request struct {
	Broker
	Key, Version int16
}

// API is the request's name, as in "Produce".
func (r Request) API() string { return kmsg.NameForKey(r.Key) }

// Sent is a request that is on its way.
type Sent struct {
	Request
	Bytes  int  // of its body: header and length come to some 20 more
	OneWay bool // it will not be answered: Produce with acks=0
}

// Answered is a request that is done with.
type Answered struct {
	Request
	RequestBytes  int
	ResponseBytes int           // of the body; 0 without an answer
	Took          time.Duration // from Sent until whoever waits for it has the answer; a Fetch waits on purpose (fetch.max.wait.ms)
	Throttled     time.Duration // for how long the broker wants to be left alone (KIP-219)
	Err           error         // that there is no answer; error codes inside the answer are none
}

// Partition names a partition.
type Partition struct {
	Topic  string
	Number int32
}

// Written is a batch of records that is done with.
type Written struct {
	Partition
	Records  int
	Bytes    int           // as it was sent; 0 if it never was
	Memory   int64         // what it took of buffer.memory, which is about its size before compression
	Attempts int           // requests that it was in; more than 1: it was sent again
	Took     time.Duration // from the Send of its first record
	Err      error         // nil: it is written
}

// Waited is a wait for buffer.memory.
type Waited struct {
	Took time.Duration
	Err  error // nil: there was memory in the end
}

// Read is what one answer held of a partition.
type Read struct {
	Partition
	Records int
	Bytes   int   // as they were sent
	Lag     int64 // from the last of them to the end of what may be read; -1 unknown
}

// Change is what a rebalance did with partitions.
type Change string

// What a rebalance may do with partitions.
const (
	Assigned Change = "assigned"
	Revoked  Change = "revoked"
	Lost     Change = "lost"
)

// Rebalanced is a change of what a member of a group reads.
type Rebalanced struct {
	Group      string
	What       Change
	Partitions []Partition // sorted; perhaps none
	Took       time.Duration
}

// Committed is an attempt to commit offsets.
type Committed struct {
	Group      string
	Partitions int
	Took       time.Duration
	Err        error
}

// Join makes hooks that call those of all, in turn.
func Join(all ...Hooks) Hooks {
	var out Hooks
	for _, h := range all {
		out.Connected = both(out.Connected, h.Connected)
		out.Disconnected = both(out.Disconnected, h.Disconnected)
		out.Sent = both(out.Sent, h.Sent)
		out.Answered = both(out.Answered, h.Answered)
		out.Written = both(out.Written, h.Written)
		out.Waited = both(out.Waited, h.Waited)
		out.Read = both(out.Read, h.Read)
		out.Rebalanced = both(out.Rebalanced, h.Rebalanced)
		out.Committed = both(out.Committed, h.Committed)
	}
	return out
}

func both[T any](first, second func(T)) func(T) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(what T) {
		first(what)
		second(what)
	}
}
