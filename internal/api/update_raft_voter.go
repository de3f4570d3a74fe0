package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/quorum"
)

// UpdateRaftVoter, key 82, version 0 (KIP-853): where a voter is reached. Its range of kraft.version is not
// kept: all voters run one program, which has one.

func updateRaftVoter(ctx context.Context, c *call, q *kmsg.UpdateRaftVoterRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrUpdateRaftVoterResponse()
	change := quorum.VoterChange{Do: quorum.UpdateVoter, NodeID: q.VoterID, Directory: q.VoterDirectoryID}
	for _, l := range q.Listeners {
		change.Listeners = append(change.Listeners, quorum.Listener{Name: l.Name, Host: l.Host, Port: l.Port})
	}
	err := c.h.changeVoters(ctx, q.ClusterID, change, votersPatience)
	res.ErrorCode, _ = refusedVoter(err)
	if err := unlessAnswered(ctx, err); err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	status := c.h.o.Quorum.LeaderStatus(asking)
	res.CurrentLeader.LeaderID, res.CurrentLeader.LeaderEpoch = status.Leader, status.Epoch
	for _, v := range status.Voters {
		if v.NodeID != status.Leader {
			continue
		}
		if at := c.h.votersListeners(&v); len(at) > 0 {
			res.CurrentLeader.Host, res.CurrentLeader.Port = at[0].Host, int32(at[0].Port)
		}
	}
	return res, nil
}
