// Package planted names ten mistakes that systems of this kind have made, and that ours can be built with, to show that the
// simulation (internal/sim) would find them. Each is a constant that is false, so that the compiler leaves nothing of it in
// a binary; only a build with the mistake's own tag, plant_ and its name, makes it true. Whoever might
// make the mistake asks the constant at the place where it would be made. No tag is ever set but by
// make sim-bugs, and a test holds that none is by default.
//
// The ten:
//
//   - truncate by watermark (TruncateByWatermark, replica/fetcher.go): a follower cuts its log to its own high watermark before it follows a new leader, as Kafka did before KIP-101
//   - count an unflushed follower (CountUnflushed, replica/leading.go): the leader of a durable topic counts a follower with what it has received, not with what is on its disk
//   - accept a stale ISR (AcceptStaleISR, controller/isr.go): the controller takes a leader's word on who is in sync without comparing epochs: not the leader's, nor the partition's, nor the members' (KIP-497, KIP-903)
//   - vote twice (VoteTwice, quorum/storage.go): a voter that starts again has forgotten whom it voted for in its term
//   - lose a directory entry (LoseDirectoryEntry, commitlog/flusher.go): a new segment is flushed, and its name in the directory is not
//   - skip the sequence check (SkipSequenceCheck, commitlog/append.go): a batch of an idempotent producer is appended without a look at its sequence number
//   - let a wiped voter vote (WipedVoterVotes, quorum/decide.go and quorum/options.go): a voter is known by its node's number alone, so that an empty disk has the vote of the one that was wiped
//   - serve above the watermark (ServeAboveWatermark, replica/read.go): consumers are given all that the log has
//   - ELR ignored (IgnoreELR, controller/partitionchange.go): when nobody is in sync any more, who was eligible to lead is passed over, and the last leader waited for (KIP-966)
//   - epoch not checked on fetch (FetchAnyEpoch, replica/roles.go): a leader answers a follower's fetch whatever epoch it follows in, and of whatever epoch its last record is (KIP-101, KIP-279)
package planted
