// Package segment keeps one stretch of a log on disk: a file of record batches with its indexes, in Apache Kafka's formats.
//
// It decides where a batch lies, what an index says and whether that can be believed, how a segment's indexes are made again
// from its batches, and which files are open. Only commitlog calls it. It refuses to know the log as a whole: what
// is committed, durable or readable, producers, epochs and retention; whom it has to tell something is its Host.
//
// A segment grows, and its indexes with it, under its log's append slot. Searching needs no lock.
package segment
