package quorum

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"barnabas/internal/planted"
)

// plan is what a formation's round comes to: a cluster to begin or to join, or what to wait for.
type plan struct {
	found     bool   // begin a new cluster with members
	cluster   string // take over the log of this one
	admission bool   // its leader must be asked
	members   []Member
	waits     string
	err       error
}

// decide is the rule of formation.go: self is a node with an empty disk, known the cluster of its other
// directories ("": none), answers and silent what the other voters said.
func decide(self Member, voters []int32, known string, answers map[int32]description, silent map[int32]error) *plan {
	holders, empty := []int32{}, []int32{}
	cluster := known
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		d := answers[node]
		switch {
		case d.Cluster == "":
			empty = append(empty, node)
			continue
		case cluster != "" && d.Cluster != cluster:
			return &plan{err: fmt.Errorf("node %d belongs to cluster %s, others to %s: the configured voters are not of one cluster", node, d.Cluster, cluster)}
		}
		cluster = d.Cluster
		if d.Holds {
			holders = append(holders, node)
		}
	}
	switch {
	case len(holders) > 0:
		return takeOver(self, cluster, holders, answers, silent)
	case cluster != "":
		return &plan{waits: fmt.Sprintf("data directories belong to cluster %s, and no voter that answers has its metadata%s", cluster, absent(silent))}
	case !slices.Contains(voters, self.NodeID):
		return &plan{waits: "this node is none of the voters, and they have not begun a cluster yet" + absent(silent)}
	case len(silent) > 0:
		return &plan{waits: "a new one begins only when all voters answer" + absent(silent)}
	}
	members := []Member{self}
	for _, node := range empty {
		if d := answers[node]; slices.Equal(d.Voters, voters) {
			members = append(members, Member{node, d.node.Directory})
			continue
		}
		return &plan{waits: fmt.Sprintf("node %d is configured with voters %v and this node with %v (controller.quorum.voters)", node, answers[node].Voters, voters)}
	}
	slices.SortFunc(members, compareMembers)
	if self.NodeID != members[0].NodeID {
		return &plan{waits: fmt.Sprintf("node %d begins a new one", members[0].NodeID)}
	}
	return &plan{found: true, members: members}
}

// takeOver is for a node whose cluster is there.
func takeOver(self Member, cluster string, holders []int32, answers map[int32]description, silent map[int32]error) *plan {
	p := &plan{cluster: cluster, admission: true}
	leader := int32(-1)
	var members []Member
	for _, node := range holders {
		d := answers[node]
		leader = max(leader, d.Leader)
		if len(d.Members) > 0 {
			members = d.Members
		}
		is := func(m Member) bool { return m == self || planted.WipedVoterVotes && m.NodeID == self.NodeID }
		if slices.ContainsFunc(d.Members, is) {
			p.admission, p.members = false, d.Members
			return p
		}
	}
	if leader >= 0 {
		p.members = members
		return p
	}
	var others []string
	for _, m := range members {
		d, answered := answers[m.NodeID]
		switch {
		case m.NodeID == self.NodeID:
			others = append(others, fmt.Sprintf("node %d (this one) has another, empty disk", m.NodeID))
		case answered && d.node.Directory != m.Directory:
			others = append(others, fmt.Sprintf("node %d has another, empty disk", m.NodeID))
		case !answered:
			others = append(others, fmt.Sprintf("node %d does not answer", m.NodeID))
		}
	}
	why := " yet" // all that vote are there
	if len(others) > 0 {
		why = " without a majority of its voters: " + strings.Join(others, ", ")
	}
	return &plan{waits: fmt.Sprintf("cluster %s is held by %s, and has no leader%s%s", cluster, nodeList(holders), why, absent(silent))}
}

func nodeList(nodes []int32) string {
	texts := make([]string, len(nodes))
	for i, n := range nodes {
		texts[i] = fmt.Sprintf("node %d", n)
	}
	return strings.Join(texts, ", ")
}

// absent names those that did not answer.
func absent(silent map[int32]error) string {
	if len(silent) == 0 {
		return ""
	}
	return "; no answer from " + nodeList(slices.Sorted(maps.Keys(silent)))
}
