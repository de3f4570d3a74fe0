package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/quorum"
)

// refusal is why a part of a request has no effect, as its answer carries it.
type refusal struct {
	code    *kerr.Error
	message string
}

func refuse(code *kerr.Error, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// fields returns a response's error code and message; none for nil.
func (r *refusal) fields() (code int16, message *string) {
	if r == nil {
		return 0, nil
	}
	return r.code.Code, kmsg.StringPtr(r.message)
}

// wholly turns the failure of a whole request into the refusal of its every part. Only failures
// that a client must not hear of come back as an error: it has gone.
func wholly(err error) (*refusal, error) {
	switch {
	case errors.Is(err, context.Canceled):
		return nil, err
	case errors.Is(err, ErrTimedOut), errors.Is(err, context.DeadlineExceeded):
		return refuse(kerr.RequestTimedOut, "%v; it may be yet", ErrTimedOut), nil
	case errors.Is(err, ErrNotController), errors.Is(err, ErrClosed), errors.Is(err, quorum.ErrNotLeader), errors.Is(err, quorum.ErrClosed):
		return refuse(kerr.NotController, "%v", ErrNotController), nil
	case errors.Is(err, quorum.ErrNoSpace):
		return refuse(kerr.KafkaStorageError, "nothing was changed: %v", quorum.ErrNoSpace), nil
	case errors.Is(err, quorum.ErrBusy):
		return refuse(kerr.ThrottlingQuotaExceeded, "nothing was changed: %v", quorum.ErrBusy), nil
	case errors.Is(err, quorum.ErrTooLarge):
		return refuse(kerr.PolicyViolation, "nothing was changed: %v", quorum.ErrTooLarge), nil
	}
	return refuse(kerr.UnknownServerError, "%v", err), nil
}

// sentAway reports whether a response says of the whole request that this node does not decide, or no longer did before it was
// committed. Such a request is asked again of whoever decides then, as Kafka's brokers do with one that they forward: clients hear
// of it only where their time ends first.
func sentAway(response kmsg.Response) bool {
	var code int16
	switch r := response.(type) {
	case *kmsg.CreateTopicsResponse:
		code = firstCode(r.Topics, func(t *kmsg.CreateTopicsResponseTopic) int16 { return t.ErrorCode })
	case *kmsg.DeleteTopicsResponse:
		code = firstCode(r.Topics, func(t *kmsg.DeleteTopicsResponseTopic) int16 { return t.ErrorCode })
	case *kmsg.CreatePartitionsResponse:
		code = firstCode(r.Topics, func(t *kmsg.CreatePartitionsResponseTopic) int16 { return t.ErrorCode })
	case *kmsg.AlterConfigsResponse:
		code = firstCode(r.Resources, func(t *kmsg.AlterConfigsResponseResource) int16 { return t.ErrorCode })
	case *kmsg.IncrementalAlterConfigsResponse:
		code = firstCode(r.Resources, func(t *kmsg.IncrementalAlterConfigsResponseResource) int16 { return t.ErrorCode })
	case *kmsg.UpdateFeaturesResponse:
		code = r.ErrorCode
	case *kmsg.UnregisterBrokerResponse:
		code = r.ErrorCode
	case *kmsg.ElectLeadersResponse:
		code = r.ErrorCode
	case *kmsg.AlterPartitionAssignmentsResponse:
		code = r.ErrorCode
	case *kmsg.ListPartitionReassignmentsResponse:
		code = r.ErrorCode
	}
	return code == kerr.NotController.Code
}

func firstCode[T any](parts []T, code func(*T) int16) int16 {
	if len(parts) == 0 {
		return 0
	}
	return code(&parts[0])
}
