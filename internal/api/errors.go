package api

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/coordinator"
	"barnabas/internal/quorum"
	"barnabas/internal/replica"
)

// codes maps what the layers below say to Kafka's error codes. This table is the only place where
// the two meet. The first match counts.
var codes = []struct {
	is    error
	kafka *kerr.Error
}{
	{coordinator.ErrLoading, kerr.CoordinatorLoadInProgress},
	{coordinator.ErrBusy, kerr.CoordinatorLoadInProgress},
	{coordinator.ErrNotCoordinator, kerr.NotCoordinator},
	{replica.ErrUnknownPartition, kerr.UnknownTopicOrPartition},
	{replica.ErrNotLeader, kerr.NotLeaderForPartition},
	{replica.ErrFencedEpoch, kerr.FencedLeaderEpoch},
	{replica.ErrUnknownEpoch, kerr.UnknownLeaderEpoch},
	{replica.ErrNotEnoughReplicasAfterAppend, kerr.NotEnoughReplicasAfterAppend}, // wraps the next
	{replica.ErrNotEnoughReplicas, kerr.NotEnoughReplicas},
	{replica.ErrOffsetNotAvailable, kerr.OffsetNotAvailable},
	{replica.ErrUnavailable, kerr.KafkaStorageError},
	{replica.ErrOffsetOutOfRange, kerr.OffsetOutOfRange},
	{replica.ErrDeletePolicy, kerr.PolicyViolation},
	{commitlog.ErrOutOfRange, kerr.OffsetOutOfRange},
	{commitlog.ErrOffline, kerr.KafkaStorageError},
	{commitlog.ErrNoSpace, kerr.KafkaStorageError},
	{commitlog.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{commitlog.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{commitlog.ErrInvalidTransactionState, kerr.InvalidTxnState},
	{commitlog.ErrCoordinatorFenced, kerr.TransactionCoordinatorFenced},
	{commitlog.ErrLargerThanSegment, kerr.RecordListTooLarge},
	{commitlog.ErrClosed, kerr.NotLeaderForPartition}, // deleted, or the broker is stopping: ask for metadata anew
	{batch.ErrTooLarge, kerr.MessageTooLarge},
	{batch.ErrMagic, kerr.InvalidRecord},
	{batch.ErrUnsupportedCodec, kerr.UnsupportedCompressionType},
	{batch.ErrCorrupt, kerr.CorruptMessage},
	{batch.ErrIncomplete, kerr.InvalidRecord},
	{commitlog.ErrCorrupt, kerr.KafkaStorageError}, // our disk, not the client's bytes
	{errNotOneBatch, kerr.InvalidRecord},
	{errTimedOut, kerr.RequestTimedOut},
	{quorum.ErrDuplicateVoter, kerr.DuplicateVoter},
	{quorum.ErrVoterNotFound, kerr.VoterNotFound},
	{quorum.ErrLastVoter, kerr.InvalidRequest},
	{quorum.ErrTooManyVoters, kerr.InvalidRequest},
	{quorum.ErrFixedVoters, kerr.UnsupportedVersion},
	{quorum.ErrNotInTime, kerr.RequestTimedOut},
	{quorum.ErrClosed, kerr.NotController},
	{errInconsistentClusterID, kerr.InconsistentClusterID},
	{errFixedVoters, kerr.UnsupportedVersion},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{errTransactional, kerr.InvalidTxnState},
	{errZstdTooNew, kerr.UnsupportedCompressionType},
	{errUnknownTopicID, kerr.UnknownTopicID},
	{errInconsistentTopicID, kerr.InconsistentTopicID},
	{errUnknownTopic, kerr.UnknownTopicOrPartition},
	{errInvalidAcks, kerr.InvalidRequiredAcks},
	{errInvalidTopic, kerr.InvalidTopicException},
	{errInvalidRequest, kerr.InvalidRequest},
	{errFollower, kerr.TopicAuthorizationFailed},
}

// What api itself finds wrong with a request.
var (
	errNotOneBatch           = errors.New("a partition's data must be exactly one record batch")
	errTimedOut              = errors.New("timed out before the records were committed")
	errTransactional         = errors.New("no such transaction: the broker has no transaction coordinator yet")
	errZstdTooNew            = errors.New("zstd is not allowed at this version of the request")
	errUnknownTopicID        = errors.New("unknown topic id")
	errInconsistentTopicID   = errors.New("topic id does not belong to the topic's name")
	errUnknownTopic          = errors.New("there is no such topic")
	errInvalidAcks           = errors.New("acks must be 0, 1 or -1 (all)")
	errInvalidTopic          = errors.New("invalid topic")
	errInvalidRequest        = errors.New("invalid request")
	errInconsistentClusterID = errors.New("the request is for another cluster")
	errFixedVoters           = errors.New("no voter can be added or removed while the feature kraft.version is at level 0; UpdateFeatures lifts it")
	errFollower              = errors.New("replicas do not fetch on this listener")
)

// codeOf returns Kafka's error code for err: 0 for none, UNKNOWN_SERVER_ERROR for what the table
// does not have (which is then worth a log line).
func codeOf(err error) int16 {
	if err == nil {
		return 0
	}
	var invalid *batch.InvalidRecordsError
	if errors.As(err, &invalid) {
		if invalid.Timestamp {
			return kerr.InvalidTimestamp.Code
		}
		return kerr.InvalidRecord.Code
	}
	for _, row := range codes {
		if errors.Is(err, row.is) {
			return row.kafka.Code
		}
	}
	var kafka *kerr.Error
	if errors.As(err, &kafka) {
		return kafka.Code
	}
	return kerr.UnknownServerError.Code
}

// unexpected reports whether err has no code of its own and should be logged.
func unexpected(err error) bool { return err != nil && codeOf(err) == kerr.UnknownServerError.Code }

// messageOf returns err's text for responses that have a field for it, nil for no error.
func messageOf(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}
