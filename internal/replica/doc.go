// Package replica decides which records of a partition may be written and read here, and by whom.
//
// A Partition is this broker's replica of one topic partition. Its role (leading, or offline
// because its data directory failed) changes only through Manager.Publish, when the committed
// metadata does. While it leads, it decides when a record is committed: once every in-sync
// replica has it, and in a durable topic has it on disk. From that follow the high watermark,
// who waits for it, and how far a consumer may read.
//
// api calls Append, Read and the look-ups; node builds the Manager and connects it with the
// metadata and with the data directories. Methods are safe for concurrent use.
//
// The package knows nothing of requests, sessions or wire codes (api's business), and nothing of
// files, segments or flushes (commitlog's): it moves the watermark when commitlog says what is on disk.
package replica
