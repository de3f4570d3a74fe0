package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/coordinator"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// FindCoordinator, key 10, versions 0 to 6. Version 1 has kinds of coordinators, 4 takes several keys
// (KIP-699), 6 knows share groups' (KIP-932).

// The kinds of coordinators; 2 is that of share groups' state, which brokers ask for among themselves.
const (
	groupCoordinator       int8 = 0
	transactionCoordinator int8 = 1
)

func (h *Handler) findCoordinator(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := decoded(c, kmsg.NewPtrFindCoordinatorRequest())
	if err != nil {
		return nil, false, err
	}
	c.req = nil // its memory is not ours any more once phase one has ended
	_, exists := h.o.Coordinator.Image().Topic(coordinator.OffsetsTopic)
	missing := q.CoordinatorType == groupCoordinator && !exists
	return func(ctx context.Context, out *wire.Out) error {
		if missing {
			if err := h.createOffsetsTopic(ctx); err != nil {
				return err
			}
		}
		out.Append(h.coordinators(c.peer, q).AppendTo)
		return nil
	}, !missing, nil
}

// createOffsetsTopic makes __consumer_offsets at its first use. When it returns the topic is there, or
// the answer says COORDINATOR_NOT_AVAILABLE, which every client asks again about.
func (h *Handler) createOffsetsTopic(ctx context.Context) error {
	if _, exists := h.o.Coordinator.Image().Topic(coordinator.OffsetsTopic); exists {
		return nil // a request before this one has made it
	}
	limited, cancel := context.WithTimeout(ctx, autoCreateWait)
	defer cancel()
	res, err := h.o.Controller.AutoCreateTopics(limited, []string{coordinator.OffsetsTopic})
	if ctx.Err() != nil {
		return fmt.Errorf("find coordinator: %w", errors.Join(ctx.Err(), err))
	}
	if err == nil && res.Topics[0].ErrorCode != kerr.TopicAlreadyExists.Code {
		err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
	}
	if err != nil {
		h.log.Warn("the topic of groups is not there yet", "topic", coordinator.OffsetsTopic, "err", err)
	}
	return nil
}

func (h *Handler) coordinators(peer *wire.Peer, q *kmsg.FindCoordinatorRequest) *kmsg.FindCoordinatorResponse {
	res := kmsg.NewPtrFindCoordinatorResponse()
	res.Version = q.Version
	if q.Version < 4 {
		found, code := h.coordinator(peer, q, q.CoordinatorKey)
		res.NodeID, res.Host, res.Port, res.ErrorCode = found.id, found.host, found.port, code
		res.ErrorMessage = kmsg.StringPtr("NONE") // in Kafka's word
		if err := kerr.TypedErrorForCode(code); err != nil {
			res.ErrorMessage = &err.Description
		}
		return res
	}
	for _, key := range q.CoordinatorKeys {
		found, code := h.coordinator(peer, q, key)
		one := kmsg.NewFindCoordinatorResponseCoordinator()
		one.Key, one.NodeID, one.Host, one.Port, one.ErrorCode = key, found.id, found.host, found.port, code
		one.ErrorMessage = kmsg.StringPtr("")
		res.Coordinators = append(res.Coordinators, one)
	}
	return res
}

// nobody stands where there is no coordinator.
var nobody = brokerAddress{id: -1, port: -1}

func (h *Handler) coordinator(peer *wire.Peer, q *kmsg.FindCoordinatorRequest, key string) (brokerAddress, int16) {
	switch q.CoordinatorType {
	case groupCoordinator:
	case transactionCoordinator:
		// There are no transactions. Every client gives up at once over this code; over others some look
		// for a coordinator for ever (docs/deviations.md).
		return nobody, kerr.TransactionalIDAuthorizationFailed.Code
	default:
		return nobody, kerr.InvalidRequest.Code
	}
	image := h.o.Coordinator.Image()
	topic, ok := image.Topic(coordinator.OffsetsTopic)
	if !ok || len(topic.Partitions) == 0 {
		return nobody, kerr.CoordinatorNotAvailable.Code
	}
	leader := topic.Partitions[coordinator.PartitionFor(key, int32(len(topic.Partitions)))].Leader
	if leader == metadata.NoLeader {
		return nobody, kerr.CoordinatorNotAvailable.Code
	}
	b, ok := image.Broker(leader)
	if !ok || b.Fenced {
		return nobody, kerr.CoordinatorNotAvailable.Code
	}
	address, ok := addressOf(b, peer)
	if !ok {
		return nobody, kerr.CoordinatorNotAvailable.Code
	}
	return address, 0
}
