package group

import "time"

// Config is what a Shard obeys, each field named after the broker's key.
//
// As in Kafka nothing bounds the number of groups, nor of the offsets of one: they are in the log,
// and go with offsets.retention.minutes. A member has at most one JoinGroup and one SyncGroup waiting,
// so that GroupMaxSize bounds those too.
type Config struct {
	// GroupInitialRebalanceDelay is how long an empty group waits for more members after the first
	// joined, and again after each time that another one did, up to the members' rebalance timeout.
	GroupInitialRebalanceDelay time.Duration
	// GroupMinSessionTimeout and GroupMaxSessionTimeout bound what a member may ask for;
	// INVALID_SESSION_TIMEOUT outside.
	GroupMinSessionTimeout, GroupMaxSessionTimeout time.Duration
	// GroupMaxSize is the most members of a group; the next one gets GROUP_MAX_SIZE_REACHED.
	GroupMaxSize int
	// OffsetMetadataMaxBytes bounds the metadata of one committed offset, counted as Kafka does in
	// UTF-16 units; OFFSET_METADATA_TOO_LARGE for that partition above it.
	OffsetMetadataMaxBytes int
	// OffsetsRetention is how long offsets outlive their group's last member, or, without a group,
	// their commit (offsets.retention.minutes).
	OffsetsRetention time.Duration
	// OffsetsRetentionCheckInterval is how often that is looked at.
	OffsetsRetentionCheckInterval time.Duration
}

// Defaults are the values of a broker on which nothing is set.
func Defaults() Config {
	return Config{
		GroupInitialRebalanceDelay:    3 * time.Second,
		GroupMinSessionTimeout:        6 * time.Second,
		GroupMaxSessionTimeout:        30 * time.Minute,
		GroupMaxSize:                  1<<31 - 1,
		OffsetMetadataMaxBytes:        4096,
		OffsetsRetention:              7 * 24 * time.Hour,
		OffsetsRetentionCheckInterval: 10 * time.Minute,
	}
}

// newMemberJoinTimeout bounds how long a member that is new may wait for its first JoinGroup to be
// answered: nobody can tell whether its client is still there, since a client that waits sends no
// heartbeats. It is then removed and told UNKNOWN_MEMBER_ID, so that one still there joins again.
const newMemberJoinTimeout = 5 * time.Minute

// maxPending bounds the clients of one group that have been given a member id and have not come back
// with it: each is remembered for its session timeout. Above it a new one gets COORDINATOR_NOT_AVAILABLE
// and asks again. Kafka has no such bound.
const maxPending = 10_000

// maxChoreRecords bounds the tombstones that one Tick or TopicsDeleted makes; what is left over is
// due at once, so that requests get a turn in between. It may be exceeded by one group's.
const maxChoreRecords = 1000
