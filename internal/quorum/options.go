package quorum

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
	"barnabas/internal/planted"
)

// What a proposer can decide on.
var (
	// ErrNotLeader: this node does not lead the quorum in that epoch. Nothing was written.
	ErrNotLeader = errors.New("not the leader of the metadata quorum")
	// ErrNoSpace: the metadata directory is full, its reserve included. Nothing was written.
	ErrNoSpace = errors.New("no space left for the metadata log")
	// ErrBusy: more is proposed than the disk keeps up with. Nothing was written.
	ErrBusy = errors.New("too many uncommitted metadata changes")
	// ErrTooLarge: the records do not fit into one entry. Nothing was written.
	ErrTooLarge = errors.New("metadata change is too large")
	// ErrClosed: the quorum has stopped.
	ErrClosed = errors.New("metadata quorum is closed")
	// ErrRival: another process of this node's number is a member, with another directory, and alive.
	ErrRival = errors.New("another process is running under this node's number")
	// ErrDamaged: the files contradict each other, as they never do after a crash. Starting from
	// them could forget a vote or a committed record.
	ErrDamaged = errors.New("metadata log is damaged")
)

// Limits of one quorum.
const (
	maxInbox         = 1024     // closures waiting for raft's owner; who posts waits
	maxAppends       = 256      // writes waiting for the disk; raft's owner waits
	maxApplies       = 256      // committed batches waiting for the Machine; raft's owner waits
	maxUncommitted   = 16 << 20 // bytes proposed and not committed; beyond it Propose answers ErrBusy
	maxEntryBytes    = 7 << 20  // of one entry; beyond it Propose answers ErrTooLarge. Fits the smallest segment, 8 MiB
	maxMessage       = 1 << 20  // bytes of entries that raft reads or sends at once, unless one is larger
	maxInFlight      = 256      // unanswered messages to one follower
	maxInFlightBytes = 8 << 20  // and their bytes
)

// Machine is what committed entries go to. Apply, Restore and Leadership are called on one
// goroutine, in order; Snapshot on another, at any time. An error stops the node.
type Machine interface {
	Apply(metadata.Committed) error
	// Restore puts a snapshot in the place of everything applied before.
	Restore(metadata.Snapshot) error
	// Leadership is called when leader or epoch change. Mine is only set once all entries of
	// earlier epochs have been applied.
	Leadership(metadata.Leadership)
	// Snapshot returns the state after the last applied entry.
	Snapshot() metadata.Snapshot
}

// Options is what a quorum is made of. All fields are required unless they say otherwise.
type Options struct {
	FS      disk.FS
	Dir     *commitlog.Dir // the metadata directory (metadata.log.dir)
	Log     commitlog.Config
	NodeID  int32
	Machine Machine
	Logger  *slog.Logger
	Now     func() time.Time
	// Transport reaches the other voters; nil: there are none.
	Transport Transport
	// ClusterID is the cluster's, where there is a Transport.
	ClusterID string
	// Expected are the nodes that vote (controller.quorum.voters), where there is a Transport: the first
	// voters, and those that become voters as soon as they are there. A node that is not among them, or whose
	// vote was taken on request, follows without one.
	Expected []int32
	// Blank: a directory without a metadata log takes it over from the cluster's leader (see Form).
	Blank bool
	// Admission: the leader has to be asked for that, since it does not know this directory.
	Admission bool
	// Seed draws the jitter of ticks and the first proposal id; two processes never share one.
	Seed uint64
	// Tick is the unit of raft's timeouts; ElectionTicks and HeartbeatTicks count in it.
	// 0: 50 ms, 10, 2 (docs: failover within a second, no flapping at pauses of 400 ms).
	Tick                          time.Duration
	ElectionTicks, HeartbeatTicks int
	// SnapshotBytes is how much of the log may gather before a snapshot replaces it
	// (metadata.log.max.record.bytes.between.snapshots). 0: 20 MiB.
	SnapshotBytes int64
	// SnapshotInterval is how long new entries wait at most for a snapshot that covers them
	// (metadata.log.max.snapshot.interval.ms). 0: only SnapshotBytes counts.
	SnapshotInterval time.Duration
	// Fatal is told, once, of an error after which this node must stop. It must not block.
	Fatal func(error)
}

func (o *Options) setDefaults() {
	if o.Tick == 0 {
		o.Tick = 50 * time.Millisecond
	}
	if o.ElectionTicks == 0 {
		o.ElectionTicks = 10
	}
	if o.HeartbeatTicks == 0 {
		o.HeartbeatTicks = 2
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 20 << 20
	}
}

// voterID is a voter's name within raft. It comes from node and directory, so that a wiped disk
// is another member: under its old id a leader would believe it to hold what it has lost.
func voterID(nodeID int32, directory metadata.UUID) uint64 {
	if planted.WipedVoterVotes {
		directory = metadata.UUID{}
	}
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(nodeID)), directory[:]...))
	return binary.BigEndian.Uint64(sum[:])>>1 | 1 // neither 0 nor one of raft's reserved ids
}

// Index and offset of an entry differ by this: index 1 is the first snapshot, offset 0 the first entry.
const indexOfOffset = 2

func offsetOf(index uint64) int64 { return int64(index) - indexOfOffset }
func indexOf(offset int64) uint64 { return uint64(offset + indexOfOffset) }
