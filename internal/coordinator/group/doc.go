// Package group decides what happens to classic consumer groups and their committed offsets: who is
// a member, who leads, which generation runs, what was committed and when it expires. One Shard holds
// the groups of one partition of __consumer_offsets.
//
// It is a pure state machine. Time comes in as an argument, randomness as a source, the cluster's
// topics as an image; out come records to append and replies to send. It knows no clock, no log, no
// connection, and no goroutine: the runtime in the package above owns a Shard, calls it from one
// goroutine, and is the only one that may.
//
// There are two kinds of state. The durable one, committed offsets and each group's last metadata
// record, changes in Replay alone, so that a live shard, one reloaded after a restart and one that
// took over from another broker cannot differ. The other one, who is waiting to join and until when
// a session lasts, is lost with the broker, as in Apache Kafka, and the protocol recovers from that.
//
// The runtime's part, for each event: call Handle, Tick or TopicsDeleted; replay each record that
// comes back, at once and in order; gather the records of many events into one batch; append it; call
// Appended, or, when it was refused before anything was written, Failed. A Reply that is marked
// Committed is held until the high watermark has passed the batch that was being gathered when it was
// made; the others go out at once. What a reader is told is marked so too: an answer must not show
// what a failover could still undo.
//
// Formats of records, states, error codes and timing follow Apache Kafka 4.3.1 and KIP-62, KIP-211,
// KIP-345, KIP-394, KIP-447, KIP-559, KIP-800 and KIP-814.
package group
