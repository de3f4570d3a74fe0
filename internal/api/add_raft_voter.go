package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
	"barnabas/internal/quorum"
)

// AddRaftVoter, key 80, versions 0 and 1 (KIP-853). The node must follow the metadata log already, and the
// answer comes when it has a vote: version 1's AckWhenCommitted=false, to be answered before that, is not
// made use of.

const (
	// votersPatience is how long a change may take for whose request says nothing of it.
	votersPatience = 15 * time.Second
	// mostVotersPatience bounds what a request may ask for.
	mostVotersPatience = 5 * time.Minute
	// mostVoterListeners and mostListenerBytes bound what is kept of a voter.
	mostVoterListeners = 16
	mostListenerBytes  = 255
)

func addRaftVoter(ctx context.Context, c *call, q *kmsg.AddRaftVoterRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrAddRaftVoterResponse()
	change := quorum.VoterChange{Do: quorum.AddVoter, NodeID: q.VoterID, Directory: q.VoterDirectoryID}
	for _, l := range q.Listeners {
		change.Listeners = append(change.Listeners, quorum.Listener{Name: l.Name, Host: l.Host, Port: l.Port})
	}
	err := c.h.changeVoters(ctx, q.ClusterID, change, time.Duration(q.TimeoutMillis)*time.Millisecond)
	res.ErrorCode, res.ErrorMessage = refusedVoter(err)
	return res, unlessAnswered(ctx, err)
}

// changeVoters checks a request to change the voters and hands it to the quorum.
func (h *Handler) changeVoters(ctx context.Context, cluster *string, change quorum.VoterChange, patience time.Duration) error {
	if own := h.o.Images.Image().ClusterID(); cluster != nil && *cluster != own {
		return fmt.Errorf("%w: %q, this one is %q", errInconsistentClusterID, *cluster, own)
	}
	if change.NodeID < 0 || change.Directory.IsZero() {
		return fmt.Errorf("%w: a voter has an id that is not negative and a directory id that is not zero", errInvalidRequest)
	}
	if change.Do != quorum.UpdateVoter && h.o.Images.Image().Feature(controller.KRaftVersion) == 0 {
		return errFixedVoters
	}
	if change.Do != quorum.RemoveVoter {
		if err := h.arrangeListeners(change.Listeners); err != nil {
			return err
		}
	}
	if patience <= 0 {
		patience = votersPatience
	}
	ctx, cancel := context.WithTimeout(ctx, min(patience, mostVotersPatience))
	defer cancel()
	return h.o.Quorum.ChangeVoters(ctx, change)
}

// arrangeListeners checks a voter's, and puts the one first that is for other nodes.
func (h *Handler) arrangeListeners(all []quorum.Listener) error {
	if len(all) == 0 || len(all) > mostVoterListeners {
		return fmt.Errorf("%w: a voter has 1 to %d listeners, not %d", errInvalidRequest, mostVoterListeners, len(all))
	}
	for _, l := range all {
		if l.Host == "" || l.Port == 0 || len(l.Host) > mostListenerBytes || len(l.Name) > mostListenerBytes {
			return fmt.Errorf("%w: listener %.50q has no host and port that a node could reach", errInvalidRequest, l.Name)
		}
	}
	if names := h.o.Config().List("controller.listener.names"); len(names) > 0 {
		slices.SortStableFunc(all, func(a, b quorum.Listener) int {
			switch {
			case a.Name == names[0] && b.Name != names[0]:
				return -1
			case b.Name == names[0] && a.Name != names[0]:
				return 1
			}
			return 0
		})
	}
	return nil
}

// refusedVoter is a change's error for the client.
func refusedVoter(err error) (code int16, message *string) {
	if err == nil {
		return 0, nil
	}
	return codeOf(err), kmsg.StringPtr(err.Error())
}

// unlessAnswered lets a request go unanswered whose connection has ended.
func unlessAnswered(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	return nil
}
