// Package coordinator runs the groups and committed offsets of the partitions of __consumer_offsets
// that this broker leads.
//
// It decides where a group lives (PartitionFor), when a partition may answer, and what becomes of a
// request there: one goroutine per led partition takes events in order, asks the pure shard in group
// what follows from each, replays the records at once, appends those of all events that have come
// meanwhile as one batch, and lets answers go once what they tell of is committed. A partition that
// becomes this broker's is read from its beginning first; one that is lost is forgotten.
//
// api submits requests and waits for the answers, node hands in the metadata (Publish) and closes.
// Methods are safe for concurrent use. What a group is, and what its records mean, is the shard's
// business; wire codes in answers are the shard's too, and those for errors here api's.
package coordinator
