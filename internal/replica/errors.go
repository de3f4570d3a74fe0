package replica

import (
	"errors"
	"fmt"
)

// What a caller can decide on. Each is wrapped with the partition that it is about.
var (
	// ErrUnknownPartition: this broker's metadata has no such topic or partition.
	ErrUnknownPartition = errors.New("unknown topic or partition")
	// ErrNotLeader: another broker leads the partition, or its leadership ended while the caller waited.
	ErrNotLeader = errors.New("not the leader of the partition")
	// ErrCutOff: this broker hears nobody else, and one of the others may lead the partition by now; see Manager.Doubt. It wraps
	// ErrNotLeader.
	ErrCutOff = fmt.Errorf("this broker is cut off from all others, one of which may lead by now: %w", ErrNotLeader)
	// ErrFencedEpoch: the caller knows an older leader epoch than this leader's (KIP-320).
	ErrFencedEpoch = errors.New("leader epoch is older than the partition's")
	// ErrUnknownEpoch: the caller knows a newer leader epoch than this broker has heard of (KIP-320).
	ErrUnknownEpoch = errors.New("leader epoch is newer than the partition's")
	// ErrNotEnoughReplicas: fewer replicas are in sync than min.insync.replicas asks for; nothing was written.
	ErrNotEnoughReplicas = errors.New("fewer in-sync replicas than min.insync.replicas")
	// ErrNotEnoughReplicasAfterAppend: while the caller waited, replicas left until fewer than min.insync.replicas were in
	// sync. What was written stays, and is committed once enough are back. It wraps ErrNotEnoughReplicas.
	ErrNotEnoughReplicasAfterAppend = fmt.Errorf("the records were written, but then there were %w", ErrNotEnoughReplicas)
	// ErrOffsetNotAvailable: this leader is new and does not know yet how far its predecessor had committed, or this
	// follower does not know yet that the offset is committed (KIP-207, KIP-392). Asked again, it soon will.
	ErrOffsetNotAvailable = errors.New("offset is not available yet")
	// ErrOffsetOutOfRange: the offset lies outside what may be read, or deleted.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrUnavailable: the replica's data directory is missing or has failed, or its log cannot be opened.
	ErrUnavailable = errors.New("replica is not available")
	// ErrDeletePolicy: the records of a topic without cleanup.policy delete cannot be deleted by offset.
	ErrDeletePolicy = errors.New("topic's cleanup.policy does not include delete")
)
