package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
)

const (
	votePatience = 5 * time.Second
	// removalLasts is how long a broker tries what it was asked for, although nobody may be waiting any more.
	removalLasts = votePatience + 15*time.Second
	internalPort = 9093
)

// changeVoter takes the vote of a node; giveVotes gives it back when the others are whole again.
func (m *nemesis) changeVoter() (string, bool) {
	if m.wounded != 0 || time.Now().Before(m.unsettled) {
		return "", false
	}
	p := m.quorum()
	if p == nil || len(p.CurrentVoters) != m.r.plan.voters {
		return "", false
	}
	v := p.CurrentVoters[m.dice.IntN(len(p.CurrentVoters))]
	m.unsettled = time.Now().Add(removalLasts)
	g := m.r.guest(fmt.Sprint("voters-", m.rounds))
	m.asking.Go(func() {
		defer g.close()
		q := kmsg.NewPtrRemoveRaftVoterRequest()
		q.VoterID, q.VoterDirectoryID = v.ReplicaID, v.ReplicaDirectoryID
		ctx, cancel := context.WithTimeout(m.r.Context(), votePatience)
		defer cancel()
		node := g.anyone()
		c, err := g.at(ctx, node)
		if err == nil {
			var res *kmsg.RemoveRaftVoterResponse
			if res, err = clustertest.Call[*kmsg.RemoveRaftVoterResponse](ctx, c, q); err == nil {
				err = kerr.ErrorForCode(res.ErrorCode)
			}
		}
		m.r.Trace(g.host, "remove voter %d: %v", v.ReplicaID, err == nil)
		if err == nil {
			m.r.met(voterRemoved)
		}
	})
	return fmt.Sprint(v.ReplicaID), true
}

// giveVotes lets every node vote again that has lost its vote.
func (m *nemesis) giveVotes() {
	p := m.quorum()
	if p == nil || len(p.CurrentVoters) >= m.r.plan.voters {
		return
	}
	for id := range int32(m.r.plan.voters) {
		if !slices.ContainsFunc(p.CurrentVoters, func(v kmsg.DescribeQuorumResponseTopicPartitionReplicaState) bool { return v.ReplicaID == id+1 }) {
			m.giveVote(id+1, p)
		}
	}
}

// giveVote asks the node that leads the quorum to make a voter of a node that follows it.
func (m *nemesis) giveVote(id int32, p *kmsg.DescribeQuorumResponseTopicPartition) {
	q := kmsg.NewPtrAddRaftVoterRequest()
	for _, o := range p.Observers {
		if o.ReplicaID == id {
			q.VoterDirectoryID = o.ReplicaDirectoryID
		}
	}
	if q.VoterDirectoryID == [16]byte{} {
		return
	}
	ctx, cancel := context.WithTimeout(m.r.Context(), votePatience)
	defer cancel()
	c, err := m.at(ctx, p.LeaderID)
	if err != nil {
		return
	}
	q.TimeoutMillis, q.VoterID = int32(votePatience.Milliseconds()), id
	q.Listeners = []kmsg.AddRaftVoterRequestListener{{Name: "CONTROLLER", Host: m.name(id), Port: internalPort}}
	res, err := clustertest.Call[*kmsg.AddRaftVoterResponse](ctx, c, q)
	if err == nil {
		err = kerr.ErrorForCode(res.ErrorCode)
	}
	if err != nil {
		m.broken(p.LeaderID, err)
	} else {
		m.r.met(voterAdded)
	}
	m.tell("add voter %d: %v", id, err)
}

// behind is by how many entries a voter may be behind the quorum's watermark and count as whole: changes go on all the time.
const behind = 20

// wrongVoters says what is not as it should be with the quorum.
func (m *nemesis) wrongVoters() string {
	p := m.quorum()
	if p == nil {
		return "nobody knows who leads the quorum"
	}
	if len(p.CurrentVoters) != m.r.plan.voters {
		return fmt.Sprintf("%d voters: %+v, observers %+v", len(p.CurrentVoters), p.CurrentVoters, p.Observers)
	}
	for _, v := range p.CurrentVoters {
		if v.LogEndOffset < p.HighWatermark-behind {
			return fmt.Sprintf("voter %d is at %d, the watermark is %d", v.ReplicaID, v.LogEndOffset, p.HighWatermark)
		}
		b, known := m.r.node(v.ReplicaID).Broker().Image().Broker(v.ReplicaID)
		if !known || !slices.Contains(b.Directories, v.ReplicaDirectoryID) {
			return fmt.Sprintf("node %d votes under a directory that it has lost", v.ReplicaID)
		}
	}
	return ""
}
