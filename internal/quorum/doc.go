// Package quorum keeps the metadata log: it drives etcd's raft over a commitlog of its own, so
// that a record of __cluster_metadata counts once a majority of the voters has it on disk.
//
// It decides who leads the metadata, when an entry is committed, what of the log a snapshot
// replaces, how a cluster begins (formation.go), and who becomes a voter in the place of a wiped disk
// (changes.go). Committed entries, snapshots and changes of leadership go to a Machine, in order and on
// one goroutine. Callers: controller (Propose), node (Open, Close), api (Status).
//
// It refuses to know what the records mean (metadata, controller), who the brokers are, and the
// protocol that clients speak.
//
// One raft entry is one batch of exactly one record, so an entry's index and the record's offset
// differ by a constant: offset 0 is index 2, for index 1 is the snapshot with which every log
// begins (it names the voters). Terms are leader epochs. Term and vote live in the file
// quorum-state, which is durable before any message that depends on it. The files are drawn in
// docs/format.
//
// A voter is a node with a directory: raft knows it by an id made of both, so that a disk that was
// wiped is another voter. Messages between voters go over package peer: raft's one way, snapshots in
// pieces that are answered.
//
// Four goroutines, all awaited by Close: the owner of raft's state, whose inbox is the only way in
// (ticks, proposals, answers of the disk); the appender, which writes and flushes for it; the
// applier, which calls the Machine; and one that writes a snapshot now and then. Each snapshot sent to
// another node, and each round of asking to be taken in, has one more while it lasts.
package quorum
