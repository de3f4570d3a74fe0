package client

import (
	"errors"

	"barnabas/client/internal/accumulator"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/errcode"
	"barnabas/client/internal/prefetch"
	"barnabas/client/internal/telemetry/push"
	"barnabas/client/internal/transaction"
)

// Error is one of Kafka's error codes as a Go error. Brokers answer with codes; whatever this
// package returns because of one wraps it, so that
//
//	errors.Is(err, client.ErrTopicAlreadyExists)
//
// finds it, and
//
//	var code client.Error
//	errors.As(err, &code)
//
// gives it for a switch. Where the broker explained itself a *BrokerError is in the chain too.
// A code that this table does not know is still an Error, named UNKNOWN_CODE.
//
// Its methods: Error gives Kafka's name and the number, as in "NOT_LEADER_OR_FOLLOWER (6)"; Name
// gives the name alone; Code the number; Retriable says whether the same request may succeed later
// without anybody changing anything, by Kafka's own classification. The producer, the consumer and
// the admin client have already retried within their timeouts when they return such an error.
type Error = errcode.Error

// BrokerError is an error code, in the field Code, together with the explanation that the broker
// sent along, in Message.
type BrokerError = errcode.BrokerError

// CodeError turns an error code and an optional explanation, as responses carry them, into an
// error: nil for code 0, else an Error, or a *BrokerError where there is an explanation.
func CodeError(code int16, message *string) error { return errcode.Of(code, message) }

// What this package itself refuses, where no broker was asked.
var (
	// ErrClosed answers every call on something that has been closed, and whatever was still
	// waiting when it was.
	ErrClosed = cluster.ErrClosed

	// ErrBufferFull answers Send when buffer.memory was exhausted, see WhenBufferFull.
	ErrBufferFull = accumulator.ErrBufferFull

	// ErrDeliveryTimeout answers a record that was not acknowledged within delivery.timeout.ms, with the error of the
	// last attempt, or what kept it from being sent. It may nevertheless have been written: nobody can tell.
	ErrDeliveryTimeout = errors.New("not acknowledged within delivery.timeout.ms")

	// ErrRecordTooLarge answers a record larger than max.request.size or buffer.memory.
	ErrRecordTooLarge = accumulator.ErrRecordTooLarge

	// ErrNoSuchPartition answers a record that names a partition which its topic does not have.
	ErrNoSuchPartition = errors.New("the topic has no such partition")

	// ErrNoBrokers says that no broker could be reached, neither those of the metadata nor those
	// that the client was given.
	ErrNoBrokers = cluster.ErrNoBrokers

	// ErrUnknownBroker says that the metadata names no broker of the given id.
	ErrUnknownBroker = cluster.ErrUnknownBroker

	// ErrUnsupported says that the broker does not offer a request, or no version of it that this
	// client speaks.
	ErrUnsupported = cluster.ErrUnsupported

	// ErrNotAssigned answers a call about a partition that the consumer does not read.
	ErrNotAssigned = errors.New("the partition is not assigned to this consumer")

	// ErrTopicRecreated answers a consumer whose topic was deleted and made again: the new topic
	// has other records, so the offsets of the old one mean nothing in it.
	ErrTopicRecreated = prefetch.ErrTopicRecreated

	// ErrNoOffset answers a group's consumer that is to begin where the group has committed, and it
	// has committed nothing (NoAutoOffsetReset).
	ErrNoOffset = prefetch.ErrNoOffset

	// ErrLogTruncated answers a consumer that has read records which the partition no longer has: an
	// unclean election lost them (NoAutoOffsetReset; otherwise reading goes on where the log parts).
	ErrLogTruncated = prefetch.ErrLogTruncated

	// ErrTooManyCommits answers CommitAsync while as many commits wait as the consumer keeps.
	ErrTooManyCommits = errors.New("too many commits are waiting")

	// ErrNotTransactional answers a call about transactions of a producer without TransactionalID.
	ErrNotTransactional = errors.New("the producer has no transactional.id")

	// ErrTransactionState answers a call that does not fit what a transactional producer is doing:
	// Send outside of a transaction, Begin within one, anything before InitTransactions.
	ErrTransactionState = transaction.ErrState

	// ErrTransactionAborted answers what belongs to a transaction that has failed and can only be
	// aborted, or that was aborted.
	ErrTransactionAborted = transaction.ErrAborted

	// ErrMetricsPushOff answers ClientInstanceID of a client that pushes no metrics: it was told not to (MetricsPush), or a
	// broker has refused them for good.
	ErrMetricsPushOff = push.ErrOff

	// ErrConcurrentPoll answers a Poll while another one of the same consumer is under way.
	ErrConcurrentPoll = errors.New("another Poll of this consumer is under way")
)

// PartitionError is an error of one partition.
type PartitionError struct {
	TopicPartition
	Err error
}

// Error names the partition, then what is wrong with it.
func (e *PartitionError) Error() string { return e.TopicPartition.String() + ": " + e.Err.Error() }

// Unwrap gives what is wrong.
func (e *PartitionError) Unwrap() error { return e.Err }

func retriable(err error) bool { return errcode.Retriable(err) }

// staleMetadata tells whether an error says that what we know about leaders is out of date.
func staleMetadata(err error) bool {
	return errcode.StaleMetadata(err) || errors.Is(err, ErrUnknownBroker)
}
