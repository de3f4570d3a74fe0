package terminal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"barnabas/client"
)

// Exit codes, for scripts. They are part of the command line's interface and documented in docs/cli.md.
const (
	ExitOK          = 0
	ExitFailure     = 1 // the operation was tried and failed, wholly or in part
	ExitUsage       = 2 // wrong flag, argument or setting: nothing was tried
	ExitNotFound    = 3 // the topic, partition, group, broker or file does not exist
	ExitUnreachable = 4 // no broker could be reached
	ExitStorage     = 5 // serve: a data directory has failed; log dump: a file is damaged
	ExitInterrupted = 130
)

// UsageError is a mistake in what the user typed or configured.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// StorageError is a data directory that has failed, or a file that is damaged.
type StorageError struct{ Err error }

func (e StorageError) Error() string { return e.Err.Error() }
func (e StorageError) Unwrap() error { return e.Err }

// Hinted is an error with advice: what the user may do about it.
type Hinted struct {
	Err  error
	Hint string
}

func (e Hinted) Error() string { return e.Err.Error() }
func (e Hinted) Unwrap() error { return e.Err }

// ErrReported ends a command that has said itself, item by item, what went wrong.
type ErrReported struct{ Err error }

func (e ErrReported) Error() string { return e.Err.Error() }
func (e ErrReported) Unwrap() error { return e.Err }

// CodeOf is the exit code of a program that ends with err.
func CodeOf(err error) int {
	var usage UsageError
	var storage StorageError
	var notFound NotFoundError
	switch {
	case errors.As(err, &storage):
		return ExitStorage
	case errors.As(err, &usage):
		return ExitUsage
	case errors.Is(err, ErrInterrupted):
		return ExitInterrupted
	case isUnreachable(err):
		return ExitUnreachable
	case errors.As(err, &notFound), IsUnknownTopic(err), errors.Is(err, client.ErrGroupIDNotFound),
		errors.Is(err, client.ErrNoSuchPartition), errors.Is(err, client.ErrUnknownBroker), errors.Is(err, fs.ErrNotExist):
		return ExitNotFound
	}
	return ExitFailure
}

// Report says what went wrong, and what can be done.
func (p *Program) Report(err error) {
	var reported ErrReported
	if errors.As(err, &reported) {
		return
	}
	if errors.Is(err, ErrInterrupted) {
		fmt.Fprintln(p.Err, "barnabas: interrupted")
		return
	}
	fmt.Fprintln(p.Err, "barnabas:", Said(err))
	var h Hinted
	if errors.As(err, &h) && h.Hint != "" {
		for line := range strings.Lines(h.Hint) {
			fmt.Fprintln(p.Err, "  "+strings.TrimSuffix(line, "\n"))
		}
	}
}

// Said words an error for a person: a broker's explanation where there is one, without the names of
// the functions it passed through.
func Said(err error) string {
	var broker *client.BrokerError
	var code client.Error
	switch {
	case errors.As(err, &broker) && strings.HasSuffix(err.Error(), broker.Error()):
		return strings.TrimSuffix(err.Error(), broker.Error()) + broker.Message + " (" + broker.Code.Name() + ")"
	case errors.As(err, &code) && strings.HasSuffix(err.Error(), code.Error()):
		return strings.TrimSuffix(err.Error(), code.Error()) + inWords(code)
	}
	return err.Error()
}

// codesInWords says what codes mean that brokers send without an explanation.
var codesInWords = map[client.Error]string{
	client.ErrUnknownTopicOrPartition:    "there is no such topic or partition",
	client.ErrTopicAlreadyExists:         "a topic of that name exists already",
	client.ErrInvalidTopic:               "that is not a topic's name: letters, digits, '.', '_' and '-', at most 249 of them",
	client.ErrInvalidPartitions:          "that is not a possible number of partitions",
	client.ErrInvalidReplicationFactor:   "there are not that many brokers",
	client.ErrInvalidConfig:              "the setting was refused",
	client.ErrMessageTooLarge:            "the record is larger than max.message.bytes of the topic",
	client.ErrNotEnoughReplicas:          "fewer replicas are in sync than min.insync.replicas demands",
	client.ErrOffsetOutOfRange:           "the partition does not have that offset",
	client.ErrTopicAuthorizationFailed:   "access to the topic was denied",
	client.ErrClusterAuthorizationFailed: "access to the cluster was denied",
	client.ErrKafkaStorageError:          "the broker's disk has failed; its log says more",
	client.ErrRequestTimedOut:            "the broker did not finish in time",
	client.ErrGroupIDNotFound:            "there is no such group",
	client.ErrInvalidGroupID:             "that is not a group's name",
	client.ErrNonEmptyGroup:              "the group has members",
	client.ErrGroupSubscribedToTopic:     "a member of the group subscribes to the topic",
	client.ErrGroupAuthorizationFailed:   "access to the group was denied",
	client.ErrCoordinatorNotAvailable:    "no broker coordinates the group at the moment",
	client.ErrCoordinatorLoadInProgress:  "the group's coordinator is still loading",
	client.ErrNotCoordinator:             "the group's coordinator is changing",
	client.ErrUnknownMemberID:            "the group does not know this member (any more)",
	client.ErrFencedInstanceID:           "another member has taken over this instance id",
	client.ErrGroupMaxSizeReached:        "the group has as many members as group.max.size allows",
	client.ErrInconsistentGroupProtocol:  "the members of the group have no assignor in common with this one",
	client.ErrOffsetMetadataTooLarge:     "the text beside the offset is longer than offset.metadata.max.bytes",
}

func inWords(code client.Error) string {
	if words, ok := codesInWords[code]; ok {
		return words + " (" + code.Name() + ")"
	}
	return code.Error()
}

func isUnreachable(err error) bool {
	return errors.Is(err, client.ErrNoBrokers) || errors.Is(err, ErrNoAnswer)
}

// ErrNoAnswer is why a call ended that got no answer within --timeout.
var ErrNoAnswer = errors.New("no answer in time")

// Explain words what every command meets alike: a broker that cannot be reached, above all.
func (t *Target) Explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrInterrupted):
		return err
	case errors.Is(err, client.ErrUnsupported):
		return Hinted{err, "the broker is of another version, and does not offer this"}
	case errors.Is(err, client.ErrNoBrokers):
		return t.unreachable(err)
	case errors.Is(err, ErrNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return Hinted{
			fmt.Errorf("%w from %s within %v", ErrNoAnswer, t.named(), t.Timeout),
			"is it a broker, and does it work? --timeout waits longer",
		}
	}
	return err
}

func (t *Target) unreachable(err error) error {
	advice := "is it running? 'barnabas serve' starts one; -b HOST:PORT or BARNABAS_BROKERS names another"
	if isForeign(err) {
		advice = "what listens there is not a broker, or its listener expects TLS"
	}
	return Hinted{unreachableError{fmt.Sprintf("no broker can be reached at %s: %s", t.named(), RootCause(err)), err}, advice}
}

// unreachableError replaces the chain of attempts by one sentence.
type unreachableError struct {
	text  string
	cause error
}

func (e unreachableError) Error() string { return e.text }
func (e unreachableError) Unwrap() error { return e.cause }

// isForeign tells whether something listens at the address that speaks another protocol.
func isForeign(err error) bool {
	return strings.Contains(err.Error(), "does not answer with Kafka's protocol") ||
		errors.Is(err, os.ErrDeadlineExceeded)
}

// RootCause is the innermost reason why a connection failed.
func RootCause(err error) string {
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case isForeign(err):
		return "it does not answer in Kafka's protocol"
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("nobody knows a host named %q", dns.Name)
	case errors.As(err, &errno):
		return errno.Error()
	case strings.Contains(err.Error(), "setup.timeout"):
		return "no connection within " + connectPatience.String()
	}
	text := err.Error()
	if at := strings.LastIndex(text, "NETWORK_EXCEPTION (13): "); at >= 0 {
		text = text[at+len("NETWORK_EXCEPTION (13): "):]
	}
	return text
}
