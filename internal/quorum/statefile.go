package quorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
)

// quorumState is the file quorum-state: the newest term, and whom this node voted for in it. The
// names are Kafka's (QuorumStateData version 1); votedVoter is ours, raft's id of the voter, and so is
// committedIndex: an entry that is known to be committed, brought up to date when one that changes the
// voters is. A start that did not know of such a one could win an election among the voters of before.
type quorumState struct {
	LeaderID    int32  `json:"leaderId"`
	LeaderEpoch uint64 `json:"leaderEpoch"`
	VotedVoter  uint64 `json:"votedVoter,string"` // 0: for nobody
	Committed   uint64 `json:"committedIndex,string,omitempty"`
	DataVersion int    `json:"data_version"`
}

const (
	stateFile        = "quorum-state"
	stateFileVersion = 1
	maxStateBytes    = 4 << 10
)

// saveState makes term and vote durable, by a file that replaces the one before whole. Its space is
// kept: every start takes a new term, and must not need room on a full disk for it.
func saveState(d *commitlog.Dir, h *pb.HardState) error {
	text, err := json.Marshal(quorumState{
		LeaderID: -1, LeaderEpoch: h.GetTerm(), VotedVoter: h.GetVote(), Committed: h.GetCommit(), DataVersion: stateFileVersion,
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", stateFile, err)
	}
	if err := d.WriteReservedFile(logName+"/"+stateFile, append(text, '\n')); err != nil {
		return fmt.Errorf("save term and vote: %w", err)
	}
	return nil
}

// loadState reads term, vote and what was committed; found is false where there is no such file.
func loadState(fsys disk.FS, dir string) (h *pb.HardState, found bool, err error) {
	text, err := disk.ReadFile(fsys, dir+"/"+stateFile, maxStateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return &pb.HardState{}, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read term and vote: %w", err)
	}
	return parseState(text)
}

func parseState(text []byte) (*pb.HardState, bool, error) {
	var s quorumState
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, false, fmt.Errorf("%s: %w: %w", stateFile, ErrDamaged, err)
	}
	if s.DataVersion != stateFileVersion {
		return nil, false, fmt.Errorf("%s has version %d, this program knows %d: start the version that wrote it",
			stateFile, s.DataVersion, stateFileVersion)
	}
	return &pb.HardState{Term: new(s.LeaderEpoch), Vote: new(s.VotedVoter), Commit: new(s.Committed)}, true, nil
}
