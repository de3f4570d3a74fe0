package coordinator

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/replica"
)

// What a caller can decide on. Each is wrapped with the partition that it is about.
var (
	// ErrNotCoordinator: this broker does not lead the group's partition, or has ceased to.
	ErrNotCoordinator = errors.New("not the coordinator of the group")
	// ErrLoading: the partition is being read; ask again soon.
	ErrLoading = errors.New("the coordinator is loading")
	// ErrBusy: more requests wait for the partition than are let in; ask again soon. Nothing has happened.
	ErrBusy = errors.New("the coordinator has too much to do")
)

// failures are what a shard is told about an append that failed, or about a wait for its commit: the
// log's own codes, of which the shard makes what each of its APIs says.
var failures = []struct {
	is   error
	code *kerr.Error
}{
	{replica.ErrNotEnoughReplicas, kerr.NotEnoughReplicas},
	{replica.ErrUnknownPartition, kerr.UnknownTopicOrPartition},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{replica.ErrNotLeader, kerr.NotLeaderForPartition},
	{replica.ErrUnavailable, kerr.KafkaStorageError},
	{commitlog.ErrOffline, kerr.KafkaStorageError},
	{commitlog.ErrNoSpace, kerr.KafkaStorageError},
	{commitlog.ErrClosed, kerr.NotLeaderForPartition},
	{commitlog.ErrCorrupt, kerr.KafkaStorageError},
	{batch.ErrTooLarge, kerr.MessageTooLarge},
	{commitlog.ErrLargerThanSegment, kerr.RecordListTooLarge},
}

func failureCode(err error) int16 {
	for _, f := range failures {
		if errors.Is(err, f.is) {
			return f.code.Code
		}
	}
	return kerr.UnknownServerError.Code
}

// errStopped ends the loading of a partition that is lost meanwhile.
var errStopped = errors.New("stopped")
