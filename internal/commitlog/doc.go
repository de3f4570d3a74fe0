// Package commitlog keeps partitions on disk: segments, their indexes, leader epochs, producer state
// and aborted transactions, in Apache Kafka's own file formats.
//
// A Dir is one data directory (an entry of log.dirs). It holds the lock, says which node and cluster
// the files belong to, recovers every log in it when it is opened, runs the one flusher, the housekeeping
// (retention, checkpoints, idle files, delayed deletion), and decides when the directory is no longer to be trusted.
// A Log is one partition in it.
//
// What it decides: which offset a batch gets and whether its producer may write it; when a segment is
// rolled or deleted; what is durable; what survives a crash; how far a reader may be led. What is not
// its business: who leads, what is replicated or committed (replica tells it the high watermark),
// which request asked. It knows no protocol message.
//
// The promises, each of which has a test:
//
//   - What was reported through Observer.Flushed is there, in order, after any crash, with its directory entries.
//   - A flush that failed is never repeated: the directory goes offline, for pages that were marked
//     clean without being written read as good (ErrOffline).
//   - A full disk is not a failure: nothing torn stays behind, appends get ErrNoSpace, and go on once there is space.
//   - Nothing past a batch known to be damaged is served (ErrCorrupt).
//   - An idle log has no goroutine, timer, open file or buffer; one never written to has no file.
//
// Callers: quorum (the metadata log), replica, node. Methods are safe for concurrent use. An append
// holds the log's one append slot, a channel, while it writes; reads never wait for it.
package commitlog
