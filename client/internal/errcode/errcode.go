// Package errcode holds Kafka's error codes as Go errors: their names, which of them may pass by
// themselves, and how a code that a response carries becomes an error. It is for the client's own
// packages; package client gives users the same errors, with a name for each. It knows no request
// and decides nothing about retries.
package errcode

import (
	"errors"
	"fmt"
)

// Error is a code, documented for users as client.Error.
type Error int16

// The codes that the client's internal packages decide by. Package client names all of them.
const (
	UnknownServerError                 Error = -1
	OffsetOutOfRange                   Error = 1
	CorruptMessage                     Error = 2
	UnknownTopicOrPartition            Error = 3
	LeaderNotAvailable                 Error = 5
	NotLeaderOrFollower                Error = 6
	RequestTimedOut                    Error = 7
	ReplicaNotAvailable                Error = 9
	MessageTooLarge                    Error = 10
	Network                            Error = 13
	CoordinatorLoadInProgress          Error = 14
	CoordinatorNotAvailable            Error = 15
	NotCoordinator                     Error = 16
	RecordListTooLarge                 Error = 18
	IllegalGeneration                  Error = 22
	InconsistentGroupProtocol          Error = 23
	UnknownMemberID                    Error = 25
	RebalanceInProgress                Error = 27
	GroupAuthorizationFailed           Error = 30
	ClusterAuthorizationFailed         Error = 31
	UnsupportedVersion                 Error = 35
	InvalidRequest                     Error = 42
	UnsupportedForMessageFormat        Error = 43
	OutOfOrderSequenceNumber           Error = 45
	InvalidProducerEpoch               Error = 47
	InvalidTxnState                    Error = 48
	InvalidProducerIDMapping           Error = 49
	ConcurrentTransactions             Error = 51
	TransactionalIDAuthorizationFailed Error = 53
	KafkaStorageError                  Error = 56
	UnknownProducerID                  Error = 59
	GroupIDNotFound                    Error = 69
	FetchSessionIDNotFound             Error = 70
	InvalidFetchSessionEpoch           Error = 71
	ListenerNotFound                   Error = 72
	FencedLeaderEpoch                  Error = 74
	UnknownLeaderEpoch                 Error = 75
	UnsupportedCompressionType         Error = 76
	MemberIDRequired                   Error = 79
	FencedInstanceID                   Error = 82
	InvalidRecord                      Error = 87
	ThrottlingQuotaExceeded            Error = 89
	ProducerFenced                     Error = 90
	UnknownTopicID                     Error = 100
	InconsistentTopicID                Error = 103
	FetchSessionTopicIDError           Error = 106
	FencedMemberEpoch                  Error = 110
	UnreleasedInstanceID               Error = 111
	StaleMemberEpoch                   Error = 113
	UnknownSubscriptionID              Error = 117
	TelemetryTooLarge                  Error = 118
	InvalidRecordState                 Error = 121
	ShareSessionNotFound               Error = 122
	InvalidShareSessionEpoch           Error = 123
	RebootstrapRequired                Error = 129
)

// Error gives Kafka's name of the code and its number, as in "NOT_LEADER_OR_FOLLOWER (6)".
func (e Error) Error() string { return fmt.Sprintf("%s (%d)", e.Name(), int16(e)) }

// Name is Kafka's name of the code, for instance "TOPIC_ALREADY_EXISTS".
func (e Error) Name() string {
	switch row, known := table[e]; {
	case known:
		return row.name
	case e == 0:
		return "NONE"
	default:
		return "UNKNOWN_CODE"
	}
}

// Code is the number that travels in responses.
func (e Error) Code() int16 { return int16(e) }

// Retriable says whether the same request may succeed later without anybody changing anything, by
// Kafka's own classification.
func (e Error) Retriable() bool { return table[e].retriable }

// BrokerError is a code together with the explanation that the broker sent along.
type BrokerError struct {
	Code    Error
	Message string // in the broker's words
}

// Error gives the code's name and number, then the broker's words.
func (e *BrokerError) Error() string { return e.Code.Error() + ": " + e.Message }

// Unwrap gives the code, so that errors.Is finds it.
func (e *BrokerError) Unwrap() error { return e.Code }

// Of turns a code and an optional explanation, as responses carry them, into an error: nil for
// code 0, else an Error, or a *BrokerError where there is an explanation.
func Of(code int16, message *string) error {
	switch {
	case code == 0:
		return nil
	case message != nil && *message != "":
		return &BrokerError{Code: Error(code), Message: *message}
	default:
		return Error(code)
	}
}

// Retriable tells whether a failed attempt may be made again: Kafka's retriable codes, and every
// failure of a connection.
func Retriable(err error) bool {
	var code Error
	return errors.As(err, &code) && code.Retriable()
}

// StaleMetadata tells whether an error says that what is known about leaders is out of date.
func StaleMetadata(err error) bool {
	var code Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case UnknownTopicOrPartition, LeaderNotAvailable, NotLeaderOrFollower, Network, ReplicaNotAvailable, FencedLeaderEpoch,
		UnknownLeaderEpoch, KafkaStorageError, UnknownTopicID, InconsistentTopicID, ListenerNotFound:
		return true
	}
	return false
}
