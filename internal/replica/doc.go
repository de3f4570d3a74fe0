// Package replica decides which records of a partition may be written and read here, and by whom.
//
// A Partition is this broker's replica of one topic partition. Its role (leading, following, or
// neither) changes only through Manager.Publish, when the committed metadata does. While it leads, it decides when a record is committed: once every in-sync
// replica has it, and in a durable topic has it on disk. From that follow the high watermark,
// who waits for it, and how far a consumer may read.
//
// Followers copy. One fetcher for each broker that leads something here asks for all of it at once, and one
// feed for each broker that follows answers (messages.go has what they say). What a follower's disk has is
// told at once, beside the fetch that waits. Logs are cut by leader epoch, never by watermark. Who is in sync
// is for the controller to say; the keeper puts what leaders see to it.
//
// api calls Append, Read and the look-ups; node builds the Manager and connects it with the
// metadata and with the data directories. Methods are safe for concurrent use.
//
// The package knows nothing of requests, sessions or wire codes (api's business), and nothing of
// files, segments or flushes (commitlog's): it moves the watermark when commitlog says what is on disk.
package replica
