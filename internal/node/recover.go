package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/controller"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
)

// RecoverQuorum makes this node, which must not be running, the only voter of its cluster, with the
// metadata that its own disk holds; with do false it only says what that is. It is for a majority of
// voters that is lost for good: what they had committed without this one is lost with them, and none of
// them may come back with the disk that it had.
func RecoverQuorum(ctx context.Context, o Options, do bool) (r quorum.Recovered, err error) {
	path := o.Config.MetadataLogDir()
	others := slices.DeleteFunc(o.Config.LogDirs(), func(p string) bool { return p == path })
	dir, err := commitlog.OpenDir(ctx, dirOptions(&o, path, others, nil, batch.NewChecker(), nil))
	if err != nil {
		return r, fmt.Errorf("recover the metadata quorum: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	dir.SetBrokerEpoch(dir.CleanEpoch()) // no replica's log is touched: what a clean stop promised of them holds
	return quorum.Recover(ctx, quorum.RecoverOptions{
		FS: o.FS, Dir: dir, Log: metadataLogConfig(o.Config), NodeID: int32(o.Config.Int("node.id")), ClusterID: dir.ClusterID(),
		Logger: o.Logger, Now: o.Now, Do: do,
		GiveUp: func(image *metadata.Image, voters []int32) []metadata.Record {
			return controller.GiveUp(image, o.Config, voters)
		},
	})
}
