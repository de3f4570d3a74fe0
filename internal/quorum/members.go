package quorum

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"

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

// Listener is an address under which a voter is reached.
type Listener struct {
	Name string `json:"name"`
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

func (l Listener) addr() string { return net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port))) }

// address is where a node is reached, by what was said when it was made a voter.
type address struct {
	NodeID    int32      `json:"nodeId"`
	Listeners []Listener `json:"listeners"`
}

// membership says whose raft's ids are, beside raft's own list of those that vote: what Kafka has in a
// VotersRecord. It stands in snapshots. In a quorum of one that has always been one there is none: the
// only id is this node's.
type membership struct {
	ClusterID string   `json:"clusterId,omitempty"`
	Members   []Member `json:"members"`
	// Removed are nodes that lost their vote on request: no configuration gives it back to them.
	Removed   []int32   `json:"removed,omitempty"`
	Addresses []address `json:"addresses,omitempty"`
}

// membersChange stands in an entry that changes the voters, beside raft's own part of it.
type membersChange struct {
	Members   []Member  `json:"members"`            // that are new
	Removed   []int32   `json:"removed,omitempty"`  // nodes that lose their vote on request
	Returned  []int32   `json:"returned,omitempty"` // and such that get it again
	Addresses []address `json:"addresses,omitempty"`
	// Voters are all who vote once it is made: what the entry shows to Kafka's tools.
	Voters []metadata.Voter `json:"voters,omitempty"`
}

const (
	// maxVoters bounds the voters.
	maxVoters = 7
	// maxMembers bounds a membership: the voters of one configuration, those of the next, and as many
	// learners. A longer one is refused.
	maxMembers = 3 * maxVoters
	// maxRemoved bounds the nodes that are remembered as removed; the one longest ago is forgotten.
	maxRemoved = 64
	// maxListeners bounds the addresses of a node.
	maxListeners = 16
)

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
	return m, checkMembers(m.Members, m.Removed, m.Addresses)
}

func decodeMembersChange(b []byte) (c membersChange, err error) {
	if len(b) == 0 {
		return c, nil // the second half of a change of several members
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("change of the metadata quorum's members: %w: %w", ErrDamaged, err)
	}
	if len(c.Voters) > maxMembers {
		return c, fmt.Errorf("%d voters of the metadata quorum: %w", len(c.Voters), ErrDamaged)
	}
	return c, checkMembers(c.Members, slices.Concat(c.Removed, c.Returned), c.Addresses)
}

func checkMembers(members []Member, nodes []int32, addresses []address) error {
	if len(members) > maxMembers || len(nodes) > maxRemoved || len(addresses) > maxMembers {
		return fmt.Errorf("%d members of the metadata quorum, %d removed, %d addresses: %w", len(members), len(nodes), len(addresses), ErrDamaged)
	}
	for _, a := range addresses {
		if len(a.Listeners) > maxListeners {
			return fmt.Errorf("%d listeners of node %d: %w", len(a.Listeners), a.NodeID, ErrDamaged)
		}
	}
	return nil
}

// after is the membership that a change leaves: of all members only those that the configuration names.
func (m membership) after(c membersChange, conf *pb.ConfState) membership {
	next := membership{ClusterID: m.ClusterID}
	ids := idsOf(conf)
	for _, one := range slices.Concat(m.Members, c.Members) {
		if slices.Contains(ids, one.raftID()) && !slices.Contains(next.Members, one) {
			next.Members = append(next.Members, one)
		}
	}
	slices.SortFunc(next.Members, compareMembers)
	for _, node := range slices.Concat(m.Removed, c.Removed) {
		if !slices.Contains(c.Returned, node) && !slices.Contains(next.Removed, node) {
			next.Removed = append(next.Removed, node)
		}
	}
	next.Removed = next.Removed[max(0, len(next.Removed)-maxRemoved):]
	for _, a := range slices.Concat(c.Addresses, m.Addresses) { // what was said last comes first
		if len(a.Listeners) > 0 && next.listeners(a.NodeID) == nil && slices.ContainsFunc(next.Members, func(o Member) bool { return o.NodeID == a.NodeID }) {
			next.Addresses = append(next.Addresses, a)
		}
	}
	return next
}

// listeners are a node's, nil where none were said.
func (m membership) listeners(node int32) []Listener {
	for _, a := range m.Addresses {
		if a.NodeID == node {
			return a.Listeners
		}
	}
	return nil
}

// voters are the members that have the ids, as Kafka records them.
func (m membership) voters(ids []uint64) (voters []metadata.Voter) {
	for _, one := range m.Members {
		if !slices.Contains(ids, one.raftID()) {
			continue
		}
		v := metadata.Voter{NodeID: one.NodeID, Directory: one.Directory}
		for _, l := range m.listeners(one.NodeID) {
			v.Endpoints = append(v.Endpoints, metadata.VoterEndpoint(l))
		}
		voters = append(voters, v)
	}
	return voters
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
