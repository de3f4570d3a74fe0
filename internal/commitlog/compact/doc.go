// Package compact takes superseded records out of a log's segments, so that of every key the last record stays (KIP-58, KIP-354,
// KIP-534): it indexes the keys of a dirty stretch, decides which segments become one, which records and batches go, and writes
// the segment that takes their place.
//
// It decides what is dropped, and nothing else. Which log is compacted and when, from where to where, what is committed, how the new
// segment takes the place of the old ones, survives a crash and is published: that is commitlog's, its only caller. It reads
// segments that nobody changes, and knows no clock, no lock and no directory.
//
// Memory: the Map, which is bounded by its budget, two buffers, and the largest batch.
package compact
