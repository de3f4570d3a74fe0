package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
)

// InitProducerId, key 22, versions 0 to 5. Version 3 lets a producer name the id that it has, to
// have its epoch raised (KIP-360), 4 tells PRODUCER_FENCED apart, 5 has TRANSACTION_ABORTABLE.
//
// Without a transactional id there is nobody to fence, so the answer is always a new id with epoch 0,
// as Kafka's is: a producer raises the epoch of an id that it has by itself.

// producerIDWait bounds the wait for a block of ids. Past it the answer is
// COORDINATOR_LOAD_IN_PROGRESS, which every client asks again about.
const producerIDWait = 5 * time.Second

func initProducerID(ctx context.Context, c *call, q *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrInitProducerIDResponse()
	res.ProducerID, res.ProducerEpoch = -1, -1
	switch {
	case q.Version >= 3 && (q.ProducerID == -1) != (q.ProducerEpoch == -1), q.TransactionalID != nil && *q.TransactionalID == "":
		res.ErrorCode = kerr.InvalidRequest.Code
		return res, nil
	case q.TransactionalID != nil:
		// There is no transaction coordinator. Of the codes that this response may have, this is the
		// one that franz-go, librdkafka and the Java client all give up at once for; codes about
		// coordinators make them look for another for ever, and librdkafka repeats unknown ones.
		// Clients hardly come here: FindCoordinator, which they ask first, is not listed.
		res.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return res, nil
	}
	limited, cancel := context.WithTimeout(ctx, producerIDWait)
	defer cancel()
	id, err := c.h.ids.Next(limited)
	switch {
	case err == nil:
		res.ProducerID, res.ProducerEpoch = id, 0
	case ctx.Err() != nil:
		return nil, fmt.Errorf("init producer id: %w", err)
	case errors.Is(err, controller.ErrProducerIDsExhausted):
		c.h.log.Error("no producer id", "err", err)
		res.ErrorCode = kerr.UnknownServerError.Code
	default:
		c.h.log.Warn("no producer id yet", "err", err)
		res.ErrorCode = kerr.CoordinatorLoadInProgress.Code
	}
	return res, nil
}

// allocateProducerIDs asks the controller for another block.
func (h *Handler) allocateProducerIDs(ctx context.Context) (controller.ProducerIDs, error) {
	own, ok := h.o.Images.Image().Broker(h.o.NodeID)
	if !ok {
		return controller.ProducerIDs{}, fmt.Errorf("broker %d: %w", h.o.NodeID, controller.ErrUnknownBroker)
	}
	return h.o.Controller.AllocateProducerIDs(ctx, h.o.NodeID, own.Epoch)
}
