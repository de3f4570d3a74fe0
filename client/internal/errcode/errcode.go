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
	UnknownTopicOrPartition            Error = 3
	LeaderNotAvailable                 Error = 5
	RequestTimedOut                    Error = 7
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
	ClusterAuthorizationFailed         Error = 31
	UnsupportedVersion                 Error = 35
	UnsupportedForMessageFormat        Error = 43
	OutOfOrderSequenceNumber           Error = 45
	InvalidProducerEpoch               Error = 47
	InvalidTxnState                    Error = 48
	InvalidProducerIDMapping           Error = 49
	ConcurrentTransactions             Error = 51
	TransactionalIDAuthorizationFailed Error = 53
	UnknownProducerID                  Error = 59
	FetchSessionIDNotFound             Error = 70
	InvalidFetchSessionEpoch           Error = 71
	MemberIDRequired                   Error = 79
	FencedInstanceID                   Error = 82
	ProducerFenced                     Error = 90
	FetchSessionTopicIDError           Error = 106
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
