package quorum

import (
	"encoding/json"
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/metadata"
)

// Member is a voter, or a node on its way to become one.
type Member struct {
	NodeID    int32         `json:"nodeId"`
	Directory metadata.UUID `json:"directoryId"`
}

// raftID is the member's name within raft.
func (m Member) raftID() uint64 { return voterID(m.NodeID, m.Directory) }

// membership says whose raft's ids are, beside raft's own list of those that vote. It stands in
// snapshots and in the entries that change the voters. In a quorum of one that has always been one
// there is none: the only id is this node's.
type membership struct {
	ClusterID string   `json:"clusterId,omitempty"`
	Members   []Member `json:"members"`
}

// maxMembers bounds a membership: five voters of one configuration, five of the next, and as many
// learners. A longer one is refused.
const maxMembers = 15

func (m membership) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the members of the metadata quorum: %w", err)
	}
	return b, nil
}

func decodeMembership(b []byte) (m membership, err error) {
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("members of the metadata quorum: %w: %w", ErrDamaged, err)
	}
	if len(m.Members) > maxMembers {
		return m, fmt.Errorf("%d members of the metadata quorum: %w", len(m.Members), ErrDamaged)
	}
	return m, nil
}

// with adds members, and keeps of all only those that a configuration names.
func (m membership) with(more []Member, conf *pb.ConfState) membership {
	next := membership{ClusterID: m.ClusterID}
	ids := idsOf(conf)
	for _, one := range slices.Concat(m.Members, more) {
		if slices.Contains(ids, one.raftID()) && !slices.Contains(next.Members, one) {
			next.Members = append(next.Members, one)
		}
	}
	slices.SortFunc(next.Members, compareMembers)
	return next
}

func compareMembers(a, b Member) int {
	if a.NodeID != b.NodeID {
		return int(a.NodeID) - int(b.NodeID)
	}
	return a.Directory.Compare(b.Directory)
}

func idsOf(conf *pb.ConfState) []uint64 {
	return slices.Concat(conf.GetVoters(), conf.GetVotersOutgoing(), conf.GetLearners(), conf.GetLearnersNext())
}

// isAlone tells the configuration of a quorum of one, which needs no membership.
func isAlone(conf *pb.ConfState, self uint64) bool {
	ids := idsOf(conf)
	return len(ids) == 1 && ids[0] == self
}

// confAt is a configuration and the entry that made it.
type confAt struct {
	index   uint64
	state   *pb.ConfState
	members membership
}
