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
