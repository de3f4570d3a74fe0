package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/quorum"
)

// RemoveRaftVoter, key 81, version 0 (KIP-853). A leader that is to lose its vote hands over first.

func removeRaftVoter(ctx context.Context, c *call, q *kmsg.RemoveRaftVoterRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrRemoveRaftVoterResponse()
	change := quorum.VoterChange{Do: quorum.RemoveVoter, NodeID: q.VoterID, Directory: q.VoterDirectoryID}
	err := c.h.changeVoters(ctx, q.ClusterID, change, votersPatience)
	res.ErrorCode, res.ErrorMessage = refusedVoter(err)
	return res, unlessAnswered(ctx, err)
}
