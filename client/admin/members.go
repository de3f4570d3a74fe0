package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// UnregisterBroker makes the cluster forget a broker that is gone for good. Replicas stay assigned to it: they are to be
// moved to others before. Errors: ErrBrokerIDNotRegistered.
func (a *Admin) UnregisterBroker(ctx context.Context, node int32) error {
	req := kmsg.NewPtrUnregisterBrokerRequest()
	req.BrokerID = node
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.UnregisterBrokerResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		return client.CodeError(resp.ErrorCode, resp.ErrorMessage)
	})
	if err != nil {
		return fmt.Errorf("unregister broker %d: %w", node, err)
	}
	return nil
}

// RaftVoter is a node that votes in the metadata quorum, or is to. A node whose disk was wiped has another directory, and is
// another voter.
type RaftVoter struct {
	Node      int32
	Directory client.UUID
}

// AddRaftVoter makes a node that follows the metadata, and has caught up, one that votes (KIP-853). endpoints are where the
// other voters reach it. Errors: ErrDuplicateVoter, ErrInvalidRequest, ErrRequestTimedOut.
func (a *Admin) AddRaftVoter(ctx context.Context, voter RaftVoter, endpoints ...QuorumEndpoint) error {
	req := kmsg.NewPtrAddRaftVoterRequest()
	req.VoterID, req.VoterDirectoryID = voter.Node, voter.Directory
	for _, e := range endpoints {
		l := kmsg.NewAddRaftVoterRequestListener()
		l.Name, l.Host, l.Port = e.Listener, e.Host, e.Port
		req.Listeners = append(req.Listeners, l)
	}
	err := a.tryMembership(ctx, func(ctx context.Context) error {
		req.TimeoutMillis = millis(ctx)
		resp, err := ask[*kmsg.AddRaftVoterResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		return client.CodeError(resp.ErrorCode, resp.ErrorMessage)
	})
	if err != nil {
		return fmt.Errorf("add voter %d: %w", voter.Node, err)
	}
	return nil
}

// RemoveRaftVoter takes a node's vote in the metadata quorum away (KIP-853); it goes on following the metadata. Errors:
// ErrVoterNotFound, ErrInvalidRequest, ErrRequestTimedOut.
func (a *Admin) RemoveRaftVoter(ctx context.Context, voter RaftVoter) error {
	req := kmsg.NewPtrRemoveRaftVoterRequest()
	req.VoterID, req.VoterDirectoryID = voter.Node, voter.Directory
	err := a.tryMembership(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.RemoveRaftVoterResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		return client.CodeError(resp.ErrorCode, resp.ErrorMessage)
	})
	if err != nil {
		return fmt.Errorf("remove voter %d: %w", voter.Node, err)
	}
	return nil
}

// tryMembership is try for changes of the quorum: a broker's word that they took too long is final, since repeating them
// may meet their own effect.
func (a *Admin) tryMembership(ctx context.Context, f func(context.Context) error) error {
	var final error
	err := a.try(ctx, func(ctx context.Context) error {
		err := f(ctx)
		if errors.Is(err, client.ErrRequestTimedOut) {
			final = err
			return nil
		}
		return err
	})
	if err == nil {
		err = final
	}
	return err
}
